"""How `--estimate` shows what a run will need; the figures themselves are described in `trainers.estimate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from t2ialign.cli.output import figures

_PARTS = {
    "unet": "UNet",
    "reference": "its frozen copy",
    "vae": "VAE",
    "text_encoders": "text encoders",
    "gradients": "gradients",
    "optimizer": "optimizer's state",
    "average": "moving average",
    "activations": "activations and copies",
    "sum": "together",
}


def lines(report: Mapping[str, Any]) -> list[str]:
    """Lay an estimate out for reading.

    Args:
        report: As `trainers.estimate.estimate` returns it.
    """
    name = "pairs" if "pairs_per_step" in report else "pictures"
    memory, seconds = report["memory_bytes"], report["seconds"]
    share = f"{report['trainable_parameters']:,} ({100 * report['trainable_share']:.2f} %)"
    sizes = {label: f"{memory[part] / 2**20:10,.1f} MiB" for part, label in _PARTS.items()}
    if report["peak_memory_bytes"] is not None:
        sizes["measured peak"] = f"{report['peak_memory_bytes'] / 2**20:10,.1f} MiB"
    times = {
        "a batch": duration(seconds["batch"]),
        "encoding its pictures": duration(seconds["pictures"]) + _once(report["cached"]["latents"]),
        "encoding its captions": duration(seconds["captions"]) + _once(report["cached"]["text"]),
        "caches": duration(seconds["caches"]),
        "a step": f"{duration(seconds['step'])}, {report[f'{name}_per_step']:,} {name}",
        "the run": f"{duration(seconds['run'])}, {report['steps']:,} steps, {report['epochs']:.3g} epochs, "
        f"{report[f'{name}_per_second']:.3g} {name} a second",
    }
    where = f"on {report['device']}, mixed precision {report['mixed_precision']}"
    return [
        "parameters",
        *figures({"of the UNet": report["parameters"], "trained": share}),
        f"memory {where}",
        *figures(sizes),
        f"time {where}",
        *figures(times),
        *_buckets(report.get("buckets")),
    ]


def duration(seconds: float) -> str:
    """Write a time in the unit that suits it."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s")):
        if seconds >= 2 * size or (unit == "s" and seconds >= 1):
            return f"{seconds / size:.1f} {unit}"
    return f"{1000 * seconds:.0f} ms"


def _once(need: Mapping[str, Any] | None) -> str:
    if need is None:
        return ", in every step"
    return f", once: {need['missing']:,} of {need['rows']:,} are missing, {need['bytes'] / 1e9:.3f} GB in all"


def _buckets(report: Mapping[str, Any] | None) -> list[str]:
    if report is None:
        return []
    rows = {f"{row['height']} x {row['width']}": f"{row['entries']:,} ({row['share']:.1%})" for row in report["table"]}
    return ["buckets, height x width", *figures(rows)]
