"""Scoring an image set: every picture decoded once, every scorer in the same pass, by one process or by several.

Law of this file: what was scored is not scored again, unless the scorer or the picture changed; a picture that cannot
be read stops the run by name, or is a counted gap where that is asked for; a score that is not a number stops it.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from t2ialign.data.layouts import open_set
from t2ialign.errors import ConfigError, DataError
from t2ialign.generation.processes import Processes
from t2ialign.reward_models.pictures import default_workers
from t2ialign.reward_models.registry import load_scorer
from t2ialign.reward_models.score_files import (
    Key,
    ScoreTable,
    read_infos,
    same_info,
    write_infos,
    write_summary,
)
from t2ialign.reward_models.score_parts import Brought, bring_in, held, part_files
from t2ialign.reward_models.scoring_pass import AUTOCAST, Pass, device_of, make_pass, run_pass

if TYPE_CHECKING:
    from t2ialign.data.image_sets import ImageSet
    from t2ialign.reward_models.base import RewardModel


@dataclass(frozen=True)
class ScorerSummary:
    """What one scorer did.

    Attributes:
        scorer: Its name.
        version: Its version.
        scored: Pictures scored in this run, by all processes.
        kept: Pictures whose score stood in the file already.
        truncated: Distinct prompts of the set that it could not read to their end.
        aggregate: The set's score, as the scorer's definition says; `None` where every picture is a gap.
    """

    scorer: str
    version: str
    scored: int
    kept: int
    truncated: int
    aggregate: float | None


@dataclass(frozen=True)
class ScoringSummary:
    """What `score_set` did.

    Attributes:
        output: The score file.
        pictures: Pictures in the set, gaps among them.
        seconds: Time taken, without loading the scorers.
        scorers: One entry a scorer.
        gaps: Pictures that could not be read, by file name, with the reason.
        notices: What scorers did not see of the pictures read in this run, counted.
        settings: Layout, batch size, workers, processes, device and autocast.
    """

    output: Path
    pictures: int
    seconds: float
    scorers: list[ScorerSummary] = field(default_factory=list)
    gaps: dict[str, str] = field(default_factory=dict)
    notices: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Say it, a line a scorer."""
        lines = [f"{self.pictures} pictures in {self.seconds:.1f} s: {self.output}"]
        for each in self.scorers:
            cut = f"; prompts cut at the tokenizer's limit: {each.truncated}" if each.truncated else ""
            value = "none" if each.aggregate is None else f"{each.aggregate:.4f}"
            lines.append(f"  {each.scorer} ({each.version}): {value}, {each.scored} scored, {each.kept} kept{cut}")
        return "\n".join([*lines, *(f"  {each}" for each in self.remarks())])

    def remarks(self) -> list[str]:
        """Say what is out of the ordinary: gaps, and what scorers do not see."""
        said = [f"{what}: {count}" for what, count in self.notices.items()]
        if self.gaps:
            name, reason = next(iter(self.gaps.items()))
            said.append(f"gaps, pictures that could not be read: {len(self.gaps)}, the first {name} ({reason})")
        return said

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return asdict(self) | {"output": str(self.output)}


def score_set(
    set_dir: str | Path,
    scorers: Sequence[str | RewardModel],
    output: str | Path | None = None,
    *,
    layout: str | None = None,
    prompts: str | Path | None = None,
    batch_size: int = 32,
    workers: int | None = None,
    device: str = "auto",
    autocast: str = "no",
    allow_gaps: bool = False,
    progress: bool = True,
) -> ScoringSummary:
    """Score an image set: `scores.parquet`, and beside it `scores.<scorer>.json` and `scores.summary.json`.

    Under `accelerate launch` every process calls it, and they share the pictures.

    Args:
        set_dir: The image set, in any layout that `t2ialign.data.layouts.open_set` reads.
        scorers: Specs as in `registry.load_scorer`, or loaded scorers.
        output: The score file; by default `scores.parquet` in the set. Rows of other sets and of
            other scorers in it are kept.
        layout: The layout, where it cannot be told from the folder.
        prompts: File or folder of the prompts, for layouts that keep them elsewhere.
        batch_size: Pictures prepared and scored at once; it changes speed and memory, not scores.
        workers: Processes that decode, for each process that scores; by default its share of the processors.
            0 decodes in the scoring process.
        device: Where scorers run that are given as specs.
        autocast: `"no"`, `"bf16"` or `"fp16"`: the number format of the forward where torch lets it choose.
        allow_gaps: Count pictures that cannot be read, and go on without them.
        progress: Whether to show a progress bar.

    Returns:
        Counts, and the set's score by each scorer; the same in every process.

    Raises:
        ConfigError: If a scorer, the layout or a setting is unknown, or a scorer is named twice.
        DataError: If the set is empty, a picture cannot be read, a score is not finite, or another run holds the file.
        ModelError: If a checkpoint cannot be loaded.
        Stopped: If SIGINT, SIGTERM or SIGUSR1 asks for it, within one batch of one scorer; what is scored is kept, and
            the same call goes on.
    """
    _check(scorers, batch_size, workers, autocast)
    image_set = open_set(set_dir, layout, prompts)
    if not image_set.records:
        raise DataError(f"the image set {set_dir} is empty; generate pictures first with t2ialign generate")
    with Processes() as processes:
        return _score_set(
            image_set,
            scorers,
            output,
            processes,
            batch_size=batch_size,
            workers=workers,
            device=device,
            autocast=autocast,
            allow_gaps=allow_gaps,
            progress=progress,
        )


def _score_set(
    image_set: ImageSet,
    scorers: Sequence[str | RewardModel],
    output: str | Path | None,
    processes: Processes,
    *,
    batch_size: int,
    workers: int | None,
    device: str,
    autocast: str,
    allow_gaps: bool,
    progress: bool,
) -> ScoringSummary:
    processes.check()
    settings = {
        "layout": getattr(image_set, "layout", "t2ialign"),
        "batch_size": batch_size,
        "workers": default_workers(processes.count) if workers is None else workers,
        "processes": processes.count,
        "device": processes.device(device),
        "autocast": autocast,
    }
    loaded = _load(scorers, settings, processes)
    for scorer in loaded:  # a scorer may refuse prompts before any picture is decoded
        getattr(scorer, "check_prompts", len)([record.prompt for record in image_set.records])
    path = Path(output) if output is not None else image_set.path / "scores.parquet"
    with held(path) if processes.rank == 0 else nullcontext():
        return _score(image_set, loaded, path, settings, processes, allow_gaps=allow_gaps, progress=progress)


def _check(scorers: Sequence[str | RewardModel], batch_size: int, workers: int | None, autocast: str) -> None:
    if not scorers:
        raise DataError("no scorer is named; name one, for instance clipscore")
    if autocast not in AUTOCAST or batch_size < 1 or (workers is not None and workers < 0):
        raise ConfigError(
            f"autocast is {autocast!r}, batch_size {batch_size} and workers {workers}; choose autocast from "
            f"{', '.join(AUTOCAST)}, a batch_size of at least 1, and workers of at least 0"
        )


def _load(scorers: Sequence[str | RewardModel], settings: dict[str, Any], processes: Processes) -> list[RewardModel]:
    device, batch_size = settings["device"], settings["batch_size"]
    with processes.first_goes_first():
        loaded = [load_scorer(s, device=device, batch_size=batch_size) if isinstance(s, str) else s for s in scorers]
    names = Counter((scorer.name, scorer.version) for scorer in loaded)
    for (name, version), count in names.items():
        if count > 1:
            raise ConfigError(f"the scorer {name} ({version}) is named twice; name it once")
        if name == "summary" or name.startswith("part-"):
            raise ConfigError(f"a scorer cannot be called {name!r}, as a file beside the scores is; rename it")
    return loaded


def _score(
    image_set: ImageSet,
    scorers: list[RewardModel],
    path: Path,
    settings: dict[str, Any],
    processes: Processes,
    *,
    allow_gaps: bool,
    progress: bool,
) -> ScoringSummary:
    infos = [_info(scorer, settings) for scorer in scorers]
    if processes.rank == 0:
        _make_ready(path, image_set, scorers, infos)
    processes.wait()
    table = ScoreTable.read(path)
    names = _names(table, image_set)
    table.digests |= {names[record.file_name]: record.sha256 for record in image_set.records if record.sha256}
    work = make_pass(image_set, scorers, table, names, settings, allow_gaps=allow_gaps)
    processes.wait()  # nobody writes before everybody has read
    started = time.monotonic()
    brought = run_pass(work, processes, progress)
    summary = _summary(work, brought, time.monotonic() - started)
    if processes.rank == 0:
        where = Path(os.path.relpath(image_set.path.resolve(), path.parent.resolve())).as_posix()
        write_summary(path, where, summary.to_dict() | {"output": path.name})
    processes.wait()
    return summary


def _info(scorer: RewardModel, settings: dict[str, Any]) -> dict[str, Any]:
    info = dict(scorer.info())
    if settings["autocast"] != "no":
        info["autocast"] = AUTOCAST[settings["autocast"]]
    device = device_of(scorer, settings)
    if settings["autocast"] == "fp16" and device.type == "cpu":
        raise ConfigError(f"autocast fp16 needs a GPU, and {scorer.name} runs on the CPU; use no or bf16")
    return info | {"device": f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type}


def _names(table: ScoreTable, image_set: ImageSet) -> dict[str, str]:
    """Return for each picture its name in the score file."""
    return table.names_in(image_set.path, (record.file_name for record in image_set.records))


def _make_ready(path: Path, image_set: ImageSet, scorers: list[RewardModel], infos: list[dict[str, Any]]) -> None:
    """Bring in what a stopped run left, drop what no longer holds, and write both before any new score.

    The score file comes first: a stop between the two then leaves scores away, and never puts old scores under new
    words.
    """
    table = ScoreTable.read(path)
    left = part_files(path)
    bring_in(table)
    there = len(table.rows)
    _forget_changed_pictures(table, image_set)
    for scorer, info in zip(scorers, infos, strict=True):
        if not same_info(read_infos(path, scorer.name).get(scorer.version), info):
            table.drop([key for key in table.rows if key[1:] == (scorer.name, scorer.version)])
    if left or len(table.rows) < there:
        table.write()
    for part in left:
        part.unlink()
    prompts = [record.prompt for record in image_set.records]
    for scorer, info in zip(scorers, infos, strict=True):
        versions = read_infos(path, scorer.name)
        versions[scorer.version] = info | {"n_truncated": scorer.count_truncated(prompts)}
        write_infos(path, scorer.name, versions)


def _forget_changed_pictures(table: ScoreTable, image_set: ImageSet) -> None:
    """Drop the scores of pictures that were made again since. Of a set without digests, the scored files are read."""
    changed = set()
    scored = {key.file_name for key in table.rows}
    names = _names(table, image_set)
    for record in image_set.records:
        name, digest = names[record.file_name], record.sha256
        if not digest and name in scored and name in table.digests:
            file = image_set.file(record)
            digest = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "gone"
        if digest and table.digests.get(name, digest) != digest:
            changed.add(name)
    table.drop([key for key in table.rows if key.file_name in changed])


def _summary(work: Pass, brought: Brought, seconds: float) -> ScoringSummary:
    prompts = [record.prompt for record in work.image_set.records]
    scorers = []
    notices = dict(brought.notices)
    for job in work.jobs:
        scorer, rows = job.scorer, work.table.rows
        keys = [Key(name, scorer.name, scorer.version) for name in work.names.values()]
        values = [rows[key].score for key in keys if key in rows]
        scored = sum(1 for key in keys if key in rows and key.file_name in job.todo)
        if unanswered := sum(key not in rows and key.file_name not in brought.gaps for key in keys):
            notices[f"pictures that {scorer.name} gave no score"] = unanswered
        aggregate = scorer.aggregate(values) if values else None
        truncated = scorer.count_truncated(prompts)
        scorers.append(ScorerSummary(scorer.name, scorer.version, scored, job.kept, truncated, aggregate))
    return ScoringSummary(
        work.table.path,
        len(work.names),
        seconds,
        scorers,
        brought.gaps,
        notices,
        work.settings,
    )
