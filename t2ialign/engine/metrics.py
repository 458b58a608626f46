"""What a step reports: gathered over processes in one exchange, written as one line of `metrics.jsonl`.

The figures of a step stay on the device until its end; then one gather and one copy bring all of them to the host.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from t2ialign.objectives import LossOutput

_MASK = " mask"
QUANTILES = {"margin_p05": 0.05, "margin_p25": 0.25, "margin_p50": 0.5, "margin_p75": 0.75, "margin_p95": 0.95}


@dataclass
class StepFigures:
    """The figures of one optimizer step, collected batch by batch.

    Attributes:
        outputs: Of the batches so far.
    """

    outputs: list[LossOutput] = field(default_factory=list)

    def add(self, output: LossOutput) -> None:
        """Keep the figures of one batch, without its graph."""
        self.outputs.append(replace(output, loss=output.loss.detach(), state=None))

    def gather(self, accelerator: Accelerator, grad_norm: Tensor, stop: bool) -> tuple[dict[str, float], bool]:
        """Bring the figures of all processes to the host, with one gather and one copy.

        Args:
            accelerator: Of the run.
            grad_norm: Scalar, equal on every process.
            stop: Whether this process was asked to stop.

        Returns:
            The figures by name, and whether any process was asked to stop.
        """
        rows = self._rows()
        loss = torch.stack([output.loss.float() for output in self.outputs]).mean()
        scalars = torch.stack([loss, grad_norm.float().to(loss.device), loss.new_tensor(float(stop))])
        flat = torch.cat([scalars, torch.stack(list(rows.values())).flatten()])
        table = accelerator.gather(flat.unsqueeze(0)).cpu().double()
        columns = dict(zip(rows, table[:, 3:].reshape(len(table), len(rows), -1).transpose(0, 1), strict=True))
        figures = {"loss": table[:, 0].mean().item()}
        figures |= {name: _mean(columns, name) for name in columns if not name.endswith(_MASK) and name != "margin"}
        if "margin" in columns:
            figures |= {"margin": _mean(columns, "margin"), **_quantiles(columns["margin"].flatten())}
        return figures | {"grad_norm": table[0, 1].item()}, bool(table[:, 2].any())

    def _rows(self) -> dict[str, Tensor]:
        """Return each figure over the batches, `[examples]`; that of some examples alone has its mask beside it."""
        first = self.outputs[0]
        rows = {"margin": torch.cat([output.margin.float() for output in self.outputs])}
        for name in first.metrics:
            rows[name] = torch.cat([output.metrics[name].float() for output in self.outputs])
        for name in first.masks:
            rows[name + _MASK] = torch.cat([output.masks[name].float() for output in self.outputs])
        return {name: row for name, row in rows.items() if len(row)}


def _mean(columns: Mapping[str, Tensor], name: str) -> float:
    """Return the mean of a figure, over the examples that its mask names; not a number where there are none."""
    mask = columns.get(name + _MASK)
    if mask is None:
        return columns[name].mean().item()
    return (torch.where(mask > 0, columns[name], 0.0).sum() / mask.sum()).item()


def _quantiles(values: Tensor) -> dict[str, float]:
    if not bool(torch.isfinite(values).all()):
        return dict.fromkeys(QUANTILES, math.nan)
    levels = torch.tensor(list(QUANTILES.values()), dtype=values.dtype)
    return dict(zip(QUANTILES, torch.quantile(values, levels).tolist(), strict=True))


class MetricsLog:
    """Appends to `metrics.jsonl`, a line an optimizer step, and to a tracker if there is one.

    A figure that is not finite is written as null, so that every line is valid JSON.

    Args:
        path: Of the file.
        accelerator: Its trackers are told as well.
        start: Steps done before; later lines of an interrupted run are removed.
    """

    def __init__(self, path: Path, accelerator: Accelerator, start: int = 0) -> None:
        self._accelerator = accelerator
        self._path = path
        self._last: dict[str, Any] = {}
        self._file = None
        if accelerator.is_main_process:
            _keep_until(path, start)
            kept = read_metrics(path) if path.exists() else []
            self._last = kept[-1] if kept else {}
            self._file = path.open("a", encoding="utf-8")

    @property
    def last(self) -> Mapping[str, Any]:
        """The figures written last, by this run or by the one that it goes on from."""
        return self._last

    def write(self, step: int, figures: Mapping[str, Any]) -> None:
        """Write the line of one step."""
        self._last = {"step": step, **{name: _finite(value) for name, value in figures.items()}}
        if self._file is not None:
            self._file.write(json.dumps(self._last) + "\n")
            self._file.flush()
        if self._accelerator.trackers:
            numbers = {name: value for name, value in self._last.items() if value is not None}
            self._accelerator.log(numbers, step=step)

    def sync(self) -> None:
        """Bring what was written to the disk, before a checkpoint that counts on it."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a `metrics.jsonl`; a last line cut by a kill is left out."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def _keep_until(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = [line for line in read_metrics(path) if line["step"] <= step]
    aside = path.with_name(path.name + ".aside")
    aside.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    os.replace(aside, path)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
