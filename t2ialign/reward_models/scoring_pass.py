"""One pass over the pictures of a set: what each scorer has to see, batch by batch, this process's share of it.

Law of this file: a batch is prepared once and scored by every scorer that lacks it; each scorer's scores of a batch
are on disk before the next one begins. Batches are cut from what is to be scored in the order of the set and dealt out
in turn, so what a stop leaves, and what another number of processes does, are the same batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from t2ialign.errors import DataError, Stopped
from t2ialign.reward_models.base import Prepares
from t2ialign.reward_models.pictures import PreparedBatch, Wanted, WholePicture, as_picture, prepared_batches
from t2ialign.reward_models.score_files import Key
from t2ialign.reward_models.score_parts import Brought, ScorePart, bring_in, part_files

if TYPE_CHECKING:
    from t2ialign.data.image_sets import ImageRecord, ImageSet
    from t2ialign.generation.processes import Processes
    from t2ialign.reward_models.base import RewardModel
    from t2ialign.reward_models.score_files import ScoreTable

AUTOCAST = {"no": None, "bf16": "bfloat16", "fp16": "float16"}
"""Choices of `autocast`, and torch's name of the number format."""


@dataclass
class Job:
    """A scorer and what it has to see.

    Attributes:
        scorer: The scorer.
        preparation: Number of its way of preparing among those of the pass.
        todo: Pictures without a score, by their names in the score file.
        kept: How many scores of the set stand already.
    """

    scorer: RewardModel
    preparation: int
    todo: set[str]
    kept: int


@dataclass
class Pass:
    """All that a pass over a set needs.

    Attributes:
        image_set: The set.
        names: Name in the score file, by name in the set.
        table: The score file's content.
        jobs: One a scorer.
        preparations: The ways of preparing, each once.
        settings: Layout, batch size, workers, processes, device and autocast.
        allow_gaps: Whether pictures that cannot be read are counted and left out.
    """

    image_set: ImageSet
    names: dict[str, str]
    table: ScoreTable
    jobs: list[Job]
    preparations: list[Any]
    settings: dict[str, Any]
    allow_gaps: bool


def make_pass(
    image_set: ImageSet,
    scorers: Sequence[RewardModel],
    table: ScoreTable,
    names: dict[str, str],
    settings: dict[str, Any],
    *,
    allow_gaps: bool,
) -> Pass:
    """Find out what each scorer has to see; scorers that prepare pictures alike share the work."""
    preparations: list[Any] = []
    jobs = []
    for scorer in scorers:
        preparation: Any = scorer.preparation if isinstance(scorer, Prepares) else WholePicture()
        if preparation not in preparations:
            preparations.append(preparation)
        known = {key.file_name for key in table.rows if key[1:] == (scorer.name, scorer.version)}
        todo = set(names.values()) - known
        jobs.append(Job(scorer, preparations.index(preparation), todo, len(names) - len(todo)))
    return Pass(image_set, names, table, jobs, preparations, settings, allow_gaps)


def device_of(scorer: RewardModel, settings: dict[str, Any]) -> torch.device:
    """Return where a scorer runs: what it says itself, or its model, else the device asked for."""
    for owner in (scorer, getattr(scorer, "backend", None), getattr(scorer, "model", None)):
        device = getattr(owner, "device", None)
        if isinstance(device, torch.device | str):
            return torch.device(device)
    return torch.device(settings["device"])


def run_pass(work: Pass, processes: Processes, progress: bool) -> Brought:
    """Score this process's share, then bring all shares together."""
    part = ScorePart(work.table.path, processes.rank)
    try:
        _go_through(work, processes, part, progress)
    except BaseException as error:
        part.close()
        if processes.count == 1:  # otherwise others are still writing; the next run brings the parts together
            bring_in(work.table)
            _replace_parts(work.table)
        if isinstance(error, Stopped):
            raise Stopped(error.number, _kept(work, counted=processes.count == 1)) from None
        raise
    part.close()
    processes.wait()
    brought = bring_in(work.table)
    processes.wait()
    if processes.rank == 0:
        _replace_parts(work.table)
    return brought


def _kept(work: Pass, *, counted: bool) -> str:
    """Say what a stop leaves; where several processes stop, it is counted when the next run brings it together."""
    counts = []
    for job in work.jobs:
        keys = (Key(name, job.scorer.name, job.scorer.version) for name in work.names.values())
        counts.append(f"{sum(key in work.table.rows for key in keys)} by {job.scorer.name}")
    so_far = f" ({', '.join(counts)} of {len(work.names)} pictures)" if counted else ""
    return f"the scores so far are kept for {work.table.path}{so_far}; the same command goes on"


def _replace_parts(table: ScoreTable) -> None:
    parts = part_files(table.path)
    table.write()
    for part in parts:
        part.unlink()


def _go_through(work: Pass, processes: Processes, part: ScorePart, progress: bool) -> None:
    from tqdm import tqdm

    batches = _batches(work)[processes.rank :: processes.count]
    wanted = [[_wanted(work, record) for record in batch] for batch in batches]
    quiet = None if progress and processes.rank == 0 else True
    with tqdm(total=sum(map(len, batches)), desc="scoring", unit="picture", disable=quiet) as bar:
        ready = prepared_batches(wanted, work.preparations, work.settings["workers"])
        for batch, prepared in zip(batches, ready, strict=True):
            processes.check()
            _note_pictures(work, part, batch, prepared)
            for job in work.jobs:
                _score_batch(work, job, part, batch, prepared, processes)
            bar.update(len(batch))


def _batches(work: Pass) -> list[list[ImageRecord]]:
    """Return what is to be scored, in the order of the set.

    A stop leaves whole batches behind, so what remains falls into the batches that it would have been in.
    """
    pending = set().union(*(job.todo for job in work.jobs))
    records = [record for record in work.image_set.records if work.names[record.file_name] in pending]
    size = work.settings["batch_size"]
    return [records[i : i + size] for i in range(0, len(records), size)]


def _wanted(work: Pass, record: ImageRecord) -> Wanted:
    name = work.names[record.file_name]
    preparations = sorted({job.preparation for job in work.jobs if name in job.todo})
    where = f"{work.image_set.path.name}/{record.file_name}"
    return Wanted(work.image_set.file(record), where, tuple(preparations), digest=not record.sha256)


def _note_pictures(work: Pass, part: ScorePart, batch: list[ImageRecord], prepared: PreparedBatch) -> None:
    names = [work.names[record.file_name] for record in batch]
    if prepared.failures and not work.allow_gaps:
        reason = prepared.failures[min(prepared.failures)]
        raise DataError(f"{reason}. What was scored so far is kept; --allow_gaps goes on without such pictures")
    gaps = {names[place]: reason for place, reason in prepared.failures.items()}
    digests = {names[place]: digest for place, digest in prepared.digests.items()}
    part.add_pictures(digests, gaps, prepared.notices)


def _score_batch(
    work: Pass,
    job: Job,
    part: ScorePart,
    batch: list[ImageRecord],
    prepared: PreparedBatch,
    processes: Processes,
) -> None:
    """Score those pictures of a batch that one scorer has to see, and write the scores down."""
    places = prepared.rows.get(job.preparation, [])
    mine = [i for i, place in enumerate(places) if work.names[batch[place].file_name] in job.todo]
    if not mine:
        return
    records = [batch[places[i]] for i in mine]
    values = prepared.values[job.preparation]
    prompts = [record.prompt for record in records]
    scores = _forward(job.scorer, prompts, [values[i] for i in mine], work.settings, processes.check)
    rows = []
    abstained = 0
    for record, score in zip(records, scores, strict=True):
        if math.isnan(score) and getattr(job.scorer, "may_abstain", False):
            abstained += 1  # no answer is no number: there is no row, and the next run asks again
            continue
        if not math.isfinite(score):
            raise DataError(
                f"{job.scorer.name} gives {score} for {record.file_name} (prompt {record.prompt_id}); "
                "a score must be a number: try dtype float32, or look at the picture"
            )
        rows.append((work.names[record.file_name], record.prompt_id, record.sample, score))
    part.add(job.scorer.name, job.scorer.version, rows)
    if abstained:
        part.add_pictures({}, {}, {f"pictures that {job.scorer.name} gave no score": abstained})


def _forward(
    scorer: RewardModel,
    prompts: list[str],
    values: list[Any],
    settings: dict[str, Any],
    between: Callable[[], object],
) -> list[float]:
    """Score prepared pictures, at most `scorer.batch_size` at a time where it has one."""
    size = min(len(values), int(getattr(scorer, "batch_size", len(values))))
    number_format = AUTOCAST[settings["autocast"]]
    autocast = (
        torch.autocast(device_of(scorer, settings).type, getattr(torch, number_format))
        if number_format
        else nullcontext()
    )
    scores: list[float] = []
    with torch.no_grad(), autocast:
        for start in range(0, len(values), size):
            between()
            texts, some = prompts[start : start + size], values[start : start + size]
            if isinstance(scorer, Prepares):
                scores += scorer.score_prepared(texts, some).tolist()
            else:
                scores += scorer.score(texts, [as_picture(each) for each in some]).tolist()
    return scores
