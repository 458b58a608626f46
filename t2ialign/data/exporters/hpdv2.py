"""HPDv2's form of training pairs: `SPLIT.json` with `human_preference`, and the pictures in `SPLIT/`.

Law of this file: a list of marks has one 1; ties have no place in it and are left out, counted. Users are kept as
`user_hash`, which the published file has as well.
"""

from __future__ import annotations

from typing import Any

from t2ialign.data.columns import TIE
from t2ialign.data.exporters.base import PairExport, Pictures, Target, named, rows, write_list
from t2ialign.data.pairs import PairDataset


def export(pairs: PairDataset, target: Target, summary: PairExport) -> PairExport:
    """Write `SPLIT.json` and `SPLIT/`."""
    pictures = Pictures(target.folder / target.split)
    entries: list[dict[str, Any]] = []
    for pair in rows(pairs, summary):
        if pair.label == TIE:
            summary.left_out["tie"] += 1
            continue
        entry = {"human_preference": [int(pair.label), 1 - int(pair.label)], "prompt": pair.prompt}
        entry["file_path"] = named(pair, pictures)
        entries.append(entry if pair.user is None else entry | {"user_hash": pair.user})
        summary.pairs += 1
    write_list(target.folder / f"{target.split}.json", entries)
    summary.pictures = len(pictures)
    return summary.checked()
