"""Judging an image set: its own layout, GenEval's folders read into one, or any set of prompts with tasks.

Law of this file: every picture is judged or is counted among those left out, with the reason.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.eval.attributes.rows import write_rows
from t2ialign.eval.composition.check import check
from t2ialign.eval.composition.detections import Detection, Detector, Thresholds
from t2ialign.eval.composition.position import OFFSET
from t2ialign.eval.composition.summary import RESAMPLES, CompositionSummary, ResultLine, summarize, write_results
from t2ialign.eval.composition.tasks import Task, task_of_record

if TYPE_CHECKING:
    from t2ialign.data.image_sets import ImageRecord, ImageSet
    from t2ialign.eval.composition.colors import ColorNamer

Tasks = Sequence[Task] | Callable[[str], Task | None]
"""Tasks, found by their prompt's words; or a function of the words, such as `mini_task`."""


@dataclass(frozen=True)
class PictureResult:
    """A picture that was judged: one row.

    Attributes:
        file_name: Relative to its set.
        prompt_id: Of its prompt.
        sample: Number among the prompt's pictures.
        seed: Of its noise.
        tag: Task.
        prompt: Words.
        correct: Verdict.
        reason: What is wrong, a line each; empty where nothing is.
        metadata: What was asked for, as JSON text.
        details: Boxes that count, `{class: [[left, top, right, bottom, score], ...]}`, as JSON text.
    """

    file_name: str
    prompt_id: str
    sample: int
    seed: int | None
    tag: str
    prompt: str
    correct: bool
    reason: str
    metadata: str
    details: str

    @property
    def unit(self) -> str:
        """What makes its prompt one of its kind."""
        return self.prompt_id

    def to_dict(self) -> dict[str, Any]:
        """Return the row."""
        return asdict(self)

    def line(self) -> ResultLine:
        """Return the line of GenEval's file."""
        return ResultLine(
            self.file_name, self.tag, self.prompt, self.correct, self.reason, self.metadata, self.details
        )


@dataclass(frozen=True)
class CompositionResult:
    """A set that was judged.

    Attributes:
        summary: Its figures.
        pictures: A row a picture.
        left_out: Why pictures were not judged, and how many.
        info: What the figures depend on: detector, colours, thresholds.
    """

    summary: CompositionSummary
    pictures: tuple[PictureResult, ...]
    left_out: dict[str, int]
    info: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return all but the rows."""
        return {"summary": self.summary.to_dict(), "left_out": self.left_out, "info": self.info}

    def write(self, folder: str | Path) -> None:
        """Write `composition.json`, `pictures.parquet` and, in GenEval's format, `results.jsonl` into a folder."""
        from t2ialign.data.files import write_json

        folder = Path(folder)
        write_results(folder / "results.jsonl", (row.line() for row in self.pictures))
        write_rows(folder / "pictures.parquet", [row.to_dict() for row in self.pictures])
        write_json(folder / "composition.json", self.to_dict())


def evaluate_composition(
    image_set: ImageSet,
    detector: Detector,
    colors: ColorNamer | None = None,
    *,
    tasks: Tasks = (),
    thresholds: Thresholds | None = None,
    offset: float = OFFSET,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> CompositionResult:
    """Judge all pictures of a set.

    Args:
        image_set: Pictures; GenEval's folders become one by `t2ialign data import`, tasks and all.
        detector: Who finds objects (`detectors`).
        colors: Who names colours (`colors`); may be left out where no prompt asks for one.
        tasks: What prompts ask for, for pictures whose line does not say it.
        thresholds: Which detections count; GenEval's where none is given.
        offset: Of the rule of places.
        resamples: Of the bootstraps.
        seed: Of the bootstraps.

    Raises:
        DataError: If no picture has a task, or one can not be opened.
    """
    counted = thresholds or Thresholds()
    known = {} if callable(tasks) else {_words(task.prompt): task for task in tasks}
    rows: list[PictureResult] = []
    left_out: Counter[str] = Counter()
    for record in image_set:
        task = task_of_record(record) or (
            tasks(record.prompt) if callable(tasks) else known.get(_words(record.prompt))
        )
        if task is None:
            left_out["no task for the prompt"] += 1
            continue
        image = image_set.open(record)
        found = counted.kept(detector.detect(image, task.classes, record), task.tag)
        verdict = check(task, found, image, colors, offset)
        rows.append(_row(record, task, verdict.correct, verdict.reasons, found))
    info = {
        "detector": detector.info(),
        "colors": None if colors is None else colors.info(),
        "thresholds": counted.to_dict(),
        "offset": offset,
    }
    return CompositionResult(summarize(rows, resamples=resamples, seed=seed), tuple(rows), dict(left_out), info)


def _words(prompt: str) -> str:
    return " ".join(prompt.split())


def _row(
    record: ImageRecord, task: Task, correct: bool, reasons: Sequence[str], found: dict[str, list[Detection]]
) -> PictureResult:
    boxes = {name: [[*each.box, each.score] for each in all_of] for name, all_of in found.items()}
    return PictureResult(
        record.file_name,
        record.prompt_id,
        record.sample,
        record.seed,
        task.tag,
        record.prompt,
        correct,
        "\n".join(reasons),
        json.dumps(task.to_dict(), ensure_ascii=False),
        json.dumps(boxes, ensure_ascii=False),
    )
