"""Annotating an image set: its pictures rated by an annotator, prompt by prompt.

Law of this file: `annotations.jsonl` is a function of the image set, the options and what the annotator keeps on disk,
so a run that was stopped anywhere and continued equals one that was not. Whoever continues with other options is shown
the difference and refused. What is in the folder is counted in `report.json`, however a run ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.annotation.annotate_options import AnnotateOptions
from t2ialign.annotation.annotate_report import REPORT, Tally
from t2ialign.annotation.annotations import FILE, Annotation
from t2ialign.annotation.annotators import load_annotator
from t2ialign.annotation.annotators.base import Desk, Outcome
from t2ialign.annotation.dual_record import differences
from t2ialign.annotation.sheets import Sheet, make_sheets
from t2ialign.data.files import write_json, written_aside
from t2ialign.data.layouts import open_set
from t2ialign.engine.launch import Launch
from t2ialign.engine.signals import StopSignal
from t2ialign.errors import ConfigError, DataError, Stopped, T2IAlignError

if TYPE_CHECKING:
    from t2ialign.annotation.annotators.base import Annotator, Marks
    from t2ialign.data.image_sets import ImageSet

CONFIG = "config.json"


@dataclass(frozen=True)
class AnnotateSummary:
    """What `annotate` did.

    Attributes:
        output_dir: Where the annotations are.
        report: What `report.json` holds.
    """

    output_dir: Path
    report: dict[str, Any]

    @property
    def status(self) -> str:
        """How it ended, see `annotators.base.Status`."""
        return str(self.report["status"])


def annotate(
    options: AnnotateOptions, *, annotator: Annotator | None = None, progress: bool = True
) -> AnnotateSummary:
    """Have the pictures of a set rated; continue where it was stopped.

    SIGINT, SIGTERM and SIGUSR1 end it cleanly: what is under way is waited for and kept. A second signal ends it at
    once. Under `accelerate launch` scorers share the pictures; other annotators work in the first process alone.

    Args:
        options: See `AnnotateOptions`.
        annotator: One of your own, instead of the one that the options name.
        progress: Whether to show bars on a terminal.

    Returns:
        What came of it; look at `status`.

    Raises:
        ConfigError: If options do not go together or a name is unknown.
        DataError: If the set or a picture can not be read, the folder holds something else or was made otherwise, or
            another run is writing it.
        ModelError: If a model can not be loaded or does not answer any more; the same call continues.
        Stopped: If a signal stops the oracle or scorers, before there is an annotation; others return `stopped`.
    """
    begun = time.monotonic()
    target = Path(options.output_dir)
    image_set = open_set(options.image_set, options.layout, options.prompts)
    if target.resolve() == image_set.path.resolve():
        raise ConfigError(f"output_dir {target} is the image set itself; choose another folder")
    passes = 2 if options.second_pass else 1
    sheets, left = make_sheets(
        image_set,
        seed=options.seed,
        passes=passes,
        split=options.too_many == "split",
        limit=options.limit,
        allow_gaps=options.allow_gaps,
    )
    own = annotator or load_annotator(options)
    if options.second_pass and not own.sees_order:
        raise ConfigError(f"{own.name} sees no order of pictures; a second pass would say the same, leave it out")
    with _listening(own) as launch:
        if isinstance(launch, Launch) and launch.rank != 0:
            return _help(own, sheets, Desk(target, launch, False, options.allow_gaps), launch)
        with _held(target):
            _begin(target, _settings(options, image_set, sheets, own), image_set, own, overwrite=options.overwrite)
            run = _Run(options, target, image_set, sheets, left, own, begun)
            summary = run.go(progress)
        if isinstance(launch, Launch):
            launch.wait(through_stop=True)
        return summary


def _listening(annotator: Annotator) -> StopSignal:
    """Return the context of the work: of this process alone, unless all of a launch share it."""
    return Launch(annotator.halt) if annotator.shares else StopSignal(annotator.halt)


def _help(annotator: Annotator, sheets: Sequence[Sheet], desk: Desk, launch: Launch) -> AnnotateSummary:
    """Do another process's part of shared work, and return what the first one came to."""
    try:
        annotator.work(sheets, desk)
    finally:
        annotator.close()
    launch.wait(through_stop=True)
    return AnnotateSummary(desk.folder, json.loads((desk.folder / REPORT).read_text(encoding="utf-8")))


def _settings(
    options: AnnotateOptions, image_set: ImageSet, sheets: Sequence[Sheet], annotator: Annotator
) -> dict[str, Any]:
    """Say all that the annotations depend on."""
    digest = hashlib.sha256()
    for sheet in sheets:
        if sheet.order == 0:
            told = [sheet.prompt_id, sheet.prompt, sheet.images, sheet.sha256]
            digest.update(json.dumps(told, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    settings = {
        "image_set": image_set.path.resolve().name,
        "fingerprint": digest.hexdigest()[:16],
        "limit": options.limit,
        "seed": options.seed,
        "passes": 2 if options.second_pass else 1,
        "too_many": options.too_many,
        "allow_gaps": options.allow_gaps,
        "annotator": annotator.identity(),
    }
    found: dict[str, Any] = json.loads(json.dumps(settings))
    return found


def _begin(
    target: Path, settings: dict[str, Any], image_set: ImageSet, annotator: Annotator, *, overwrite: bool
) -> None:
    """Write `config.json`, or hold what is there against it."""
    from t2ialign.models.record import package_versions

    path = target / CONFIG
    there = _read(path)
    strange = [file.name for file in target.iterdir() if not file.name.startswith(".")] if there is None else []
    if strange:
        raise DataError(f"{target} holds other files ({', '.join(sorted(strange)[:3])}); choose an empty folder")
    if there is not None and (differing := differences(there["settings"], settings)) and not overwrite:
        raise DataError(
            f"{target} was made with other options ({'; '.join(differing)}); choose another folder, the same options, "
            "or --overwrite"
        )
    same = there is not None and there["settings"] == settings
    created = there["created"] if there is not None and same else datetime.now(UTC).isoformat(timespec="seconds")
    where = Path(os.path.relpath(image_set.path.resolve(), target.resolve())).as_posix()
    if not same:
        (target / FILE).unlink(missing_ok=True)
    content = {"image_set": where, "annotator": annotator.name, "settings": settings, "created": created}
    write_json(path, {**content, "versions": package_versions()})
    write_json(
        target / REPORT, {"status": "running", "problem": "not finished, or killed", "annotator": annotator.name}
    )


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content["settings"], dict) or not isinstance(content["created"], str):
            raise TypeError("settings or created is missing")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no record of annotations ({error}); choose another folder") from error
    return content


@dataclass(frozen=True)
class _Run:
    """One run of an annotator over the sheets."""

    options: AnnotateOptions
    target: Path
    image_set: ImageSet
    sheets: list[Sheet]
    left: dict[str, int]
    annotator: Annotator
    begun: float

    def go(self, progress: bool) -> AnnotateSummary:
        """Work, write what came of it, and count it; also where an error ends the work."""
        annotator = self.annotator
        with _listening(annotator) as stop:
            desk = Desk(self.target, stop, progress, self.options.allow_gaps)
            try:
                outcome = annotator.work(self.sheets, desk)
                if not annotator.resumes:  # what it says may still fail, picture by picture
                    return self._finish(outcome, None, stop.check)
            except Stopped as error:
                told = {"status": "stopped", "problem": error.told, "signal": error.number.name}
                write_json(self.target / REPORT, {**told, "annotator": annotator.name})
                raise
            except T2IAlignError as error:
                if annotator.resumes:
                    self._finish(Outcome("failed", str(error)), None)
                else:
                    told = {"status": "failed", "problem": str(error), "annotator": annotator.name}
                    write_json(self.target / REPORT, told)
                raise
            finally:
                annotator.close()
            return self._finish(outcome, stop.received.name if stop.received else None)

    def _finish(
        self, outcome: Outcome, signal: str | None, between: Callable[[], object] | None = None
    ) -> AnnotateSummary:
        tally = self._write(between)
        counts = dict(self.annotator.counts())
        of_run = {"seconds": round(time.monotonic() - self.begun, 3), **counts.pop("this_run", {})}
        report: dict[str, Any] = {
            "status": outcome.status,
            "problem": outcome.problem,
            "signal": signal if outcome.status == "stopped" else None,
            "annotator": self.annotator.name,
            "prompts": len({sheet.prompt_id for sheet in self.sheets}),
            "pictures": sum(len(sheet.records) for sheet in self.sheets if sheet.order == 0),
            "passes": 2 if self.options.second_pass else 1,
            "sheets": len(self.sheets),
            "left_out": self.left,
            **tally.to_dict(),
            **counts,
            "notices": dict(self.image_set.notices),
            "this_run": of_run,
            "who": self.annotator.info(),
        }
        write_json(self.target / REPORT, report)
        return AnnotateSummary(self.target, report)

    def _write(self, between: Callable[[], object] | None) -> Tally:
        """Write all annotations that there are, in the set's order, and count them; `between` may end it."""
        tally = Tally()
        with written_aside(self.target / FILE) as aside, aside.open("w", encoding="utf-8", newline="\n") as lines:
            for sheet in self.sheets:
                if between is not None:
                    between()
                marks = self.annotator.marks(sheet)
                if marks is not None:
                    annotation = _annotation(sheet, marks, self.annotator.name, self.options.seed)
                    line = json.dumps(annotation.to_dict(), ensure_ascii=False, allow_nan=False)
                    lines.write(line.encode("utf-8", "replace").decode("utf-8") + "\n")
                    tally.add(annotation)
        return tally


def _annotation(sheet: Sheet, marks: Marks, annotator: str, seed: int) -> Annotation:
    ok = all(rating is not None for ratings in marks.ratings.values() for rating in ratings)
    return Annotation(
        prompt_id=sheet.prompt_id,
        prompt=sheet.prompt,
        images=sheet.images,
        permutation=list(marks.permutation or sheet.permutation),
        ratings=marks.ratings,
        sha256=list(sheet.sha256),
        rationales=marks.rationales,
        annotator=marks.annotator or annotator,
        order=sheet.order,
        ok=ok,
        problem="" if ok else marks.problem,
        raw=marks.raw,
        params={**marks.params, "seed": seed} if marks.permutation is None else marks.params,
        usage=marks.usage,
    )


@contextmanager
def _held(target: Path) -> Iterator[None]:
    """Keep other runs away from the folder: two at once would pay twice."""
    from t2ialign.reward_models.score_parts import held

    target.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(held(target / FILE))
        except DataError as error:
            raise DataError(
                f"another run is writing {target / FILE}; wait for it, or choose another --output_dir"
            ) from error
        yield


__all__ = ["AnnotateSummary", "annotate"]
