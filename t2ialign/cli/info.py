"""`t2ialign info`: what this installation has, for choosing options and for bug reports."""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

from t2ialign.cli.output import figures, say
from t2ialign.config import option

DESCRIPTION = "Show versions, devices, attention backends, and which models are on this machine already."

EXAMPLES = """examples:
  t2ialign info
  t2ialign info --output info.json
"""

PACKAGES = (
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "accelerate",
    "peft",
    "open_clip_torch",
    "datasets",
    "safetensors",
    "huggingface_hub",
    "numpy",
    "Pillow",
)
OPTIONAL = ("xformers", "bitsandbytes", "tensorboard", "wandb")


@dataclass
class Options:
    """How to show it."""

    output: Path | None = option(None, "Also write it to this JSON file.")


def run(options: Options) -> int:
    """Gather and show."""
    found = gather()
    say(*report_lines(found))
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def gather() -> dict[str, Any]:
    """Collect what is known about this installation.

    Returns:
        `versions` and `optional` (name to version, `None` if absent), `devices` (a list of name and
        detail: model, memory, compute capability), `attention` (usable backends), `packaged` (whether what
        ships with t2ialign is present) and `cached` (hub repositories with their size in MB).
    """
    from t2ialign import __version__

    return {
        "t2ialign": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {name: _version(name) for name in PACKAGES},
        "optional": {name: _version(name) for name in OPTIONAL},
        "devices": _devices(),
        "attention": _attention(),
        "packaged": _packaged(),
        "cached": _cached(),
    }


def report_lines(found: dict[str, Any]) -> list[str]:
    """Lay the collection out for reading."""
    optional = {
        name: version or f"absent (pip install 't2ialign[{_extra(name)}]')"
        for name, version in found["optional"].items()
    }
    packaged = {
        name: "present" if there else "absent from this installation" for name, there in found["packaged"].items()
    }
    cached = [f"  {each['repository']} ({each['kind']}, {each['megabytes']:.0f} MB)" for each in found["cached"]]
    return [
        f"t2ialign {found['t2ialign']}, Python {found['python']}, {found['platform']}",
        "versions",
        *figures({name: version or "absent" for name, version in found["versions"].items()}),
        "optional",
        *figures(optional),
        "devices",
        *(f"  {each['name']}: {each['detail']}" for each in found["devices"]),
        "attention",
        f"  {', '.join(found['attention'])}",
        "packaged with t2ialign",
        *figures(packaged),
        "on this machine from the hub",
        *(cached or ["  nothing"]),
    ]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _extra(package: str) -> str:
    return "trackers" if package in ("tensorboard", "wandb") else package


def _devices() -> list[dict[str, str]]:
    import torch

    devices = [{"name": "cpu", "detail": f"{torch.get_num_threads()} threads"}]
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        memory = f"{properties.total_memory / 2**30:.0f} GiB"
        capability = f"capability {properties.major}.{properties.minor}"
        devices.append({"name": f"cuda:{number}", "detail": f"{properties.name}, {memory}, {capability}"})
    if torch.backends.mps.is_available():
        devices.append({"name": "mps", "detail": "Apple GPU"})
    return devices


def _attention() -> list[str]:
    import torch

    backends = ["sdpa"]
    if torch.cuda.is_available() and util.find_spec("xformers") is not None:
        backends.append("xformers")
    return backends


def _packaged() -> dict[str, bool]:
    from t2ialign.mini import NAMES, resource

    present = {}
    for name in NAMES:
        try:
            present[name] = resource(name) is not None
        except FileNotFoundError:
            present[name] = False
    return present


def _cached() -> list[dict[str, Any]]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    except OSError as error:
        print(f"the hub cache cannot be read: {error}", file=sys.stderr)
        return []
    return [
        {"repository": each.repo_id, "kind": each.repo_type, "megabytes": round(each.size_on_disk / 1e6, 1)}
        for each in sorted(repositories, key=lambda each: each.repo_id)
    ]
