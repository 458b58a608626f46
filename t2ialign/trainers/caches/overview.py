"""What a folder of caches holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from t2ialign.trainers.caches.store import ABOUT


def look(cache_dir: Path) -> list[dict[str, Any]]:
    """Return what each cache in a folder is.

    Returns:
        Of each `folder`, `about` (what its name stands for), `rows` (in its shards, counted from their headers),
        `shards`, `damaged` (shards that were set aside), `bytes` of all files, and `used` (the time of its newest
        shard, seconds since 1970).
    """
    return [_look(path.parent) for path in sorted(cache_dir.glob(f"*/{ABOUT}"))]


def lines(found: Sequence[dict[str, Any]]) -> list[str]:
    """Lay it out for reading."""
    if not found:
        return ["no caches"]
    table = [("folder", "model", "stored in", "rows", "GB")]
    for each in found:
        about = each["about"]
        rows, size = f"{each['rows']:,}", f"{each['bytes'] / 1e9:.3f}"
        table.append((each["folder"], str(about.get("model")), str(about.get("stored in")), rows, size))
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    damaged = sum(each["damaged"] for each in found)
    return shown + ([f"{damaged} damaged shards were set aside; they can be deleted"] if damaged else [])


def _look(folder: Path) -> dict[str, Any]:
    shards = sorted(folder.glob("shard-*.safetensors"))
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        about = {}
    return {
        "folder": folder.name,
        "about": about,
        "rows": sum(map(_rows, shards)),
        "shards": len(shards),
        "damaged": len(list(folder.glob("damaged-*"))),
        "bytes": sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
        "used": max((path.stat().st_mtime for path in shards), default=None),
    }


def _rows(shard: Path) -> int:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(shard, framework="np") as opened:
            return int(opened.get_slice("keys").get_shape()[0])
    except (SafetensorError, OSError):
        return 0
