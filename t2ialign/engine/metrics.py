"""What a step reports: gathered over processes in one exchange, written as one line of `metrics.jsonl`.

The figures of a step stay on the device until its end; then one gather and one copy bring all of them to the host.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import torch
from accelerate import Accelerator
from torch import Tensor

from t2ialign.objectives import LossOutput

logger = logging.getLogger(__name__)

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

    A figure that is not finite is written as null, so that every line is valid JSON. Where the disk refuses a line, it
    is kept and written with a later one: the file never has a gap, and `sync` says it before a checkpoint that counts
    on the lines. A tracker that fails is told of no more; the file has everything.

    Args:
        path: Of the file.
        accelerator: Its trackers are told as well.
        start: Steps done before; later lines of an interrupted run are removed.
    """

    def __init__(self, path: Path, accelerator: Accelerator, start: int = 0) -> None:
        self._accelerator = accelerator
        self._path = path
        self._last: dict[str, Any] = {}
        self._waiting = b""
        self._file: BinaryIO | None = None
        self._tracked = bool(accelerator.trackers)
        if accelerator.is_main_process:
            kept = _keep_until(path, start)
            self._last = kept[-1] if kept else {}
            if start and self._last.get("step") != start:
                logger.warning("%s ends before step %d, from which the run goes on: lines are lost", path, start)
            self._file = path.open("ab", buffering=0)

    @property
    def last(self) -> Mapping[str, Any]:
        """The figures written last, by this run or by the one that it goes on from."""
        return self._last

    def write(self, step: int, figures: Mapping[str, Any]) -> None:
        """Write the line of one step."""
        self._last = {"step": step, **{name: _finite(value) for name, value in figures.items()}}
        if self._file is not None:
            waited = bool(self._waiting)
            self._waiting += (json.dumps(self._last) + "\n").encode()
            try:
                self._flush(self._file)
            except OSError as error:
                if not waited:
                    logger.warning("%s can not be written (%s): its lines are kept until it can", self._path, error)
        if self._tracked:
            self._track(step)

    def amend(self, figures: Mapping[str, Any]) -> None:
        """Add figures to the line written last, which a run that was stopped there could not take."""
        if "step" not in self._last:  # the log was taken away
            return
        step = int(self._last["step"])
        whole = self._last | dict(figures)
        if self._file is not None:
            self._file.close()
            _keep_until(self._path, step - 1)
            self._file = self._path.open("ab", buffering=0)
        self.write(step, whole)

    def _flush(self, file: BinaryIO) -> None:
        """Write what waits, whole or not at all."""
        end = os.fstat(file.fileno()).st_size
        try:
            written = file.write(self._waiting)
            if written != len(self._waiting):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            file.truncate(end)
            raise
        self._waiting = b""

    def _track(self, step: int) -> None:
        try:
            self._accelerator.log({name: each for name, each in self._last.items() if each is not None}, step=step)
        except Exception as error:  # whatever a tracker's own code raises must not end the run
            self._tracked = False
            logger.warning(
                "the tracker failed at step %d and is told no more (%s); %s has all", step, error, self._path
            )

    def sync(self) -> None:
        """Bring what was written to the disk, before a checkpoint that counts on it.

        Raises:
            OSError: if lines still wait that the disk refuses.
        """
        if self._file is not None:
            self._flush(self._file)
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; lines that still can not be written are lost, and said to be."""
        if self._file is None:
            return
        try:
            self._flush(self._file)
        except OSError as error:
            logger.warning("%s lacks its last %d lines (%s)", self._path, self._waiting.count(b"\n"), error)
        self._file.close()
        self._file = None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a `metrics.jsonl`; a last line cut by a kill is left out."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def _keep_until(path: Path, step: int) -> list[dict[str, Any]]:
    """Remove the lines after a step, and return those before."""
    if not path.exists():
        return []
    lines = read_metrics(path)
    kept = [line for line in lines if line["step"] <= step]
    text = "".join(json.dumps(line) + "\n" for line in kept)
    if text != path.read_text(encoding="utf-8"):
        aside = path.with_name(path.name + ".aside")
        with aside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    return kept


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
