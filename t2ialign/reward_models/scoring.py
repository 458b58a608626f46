"""Scoring an image set: every picture decoded once, every scorer in the same pass.

Law of this file: what was scored is not scored again, unless the scorer or the picture changed; a
picture that cannot be read, and a score that is not a number, stop the run by name.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.errors import DataError
from t2ialign.reward_models.registry import load_scorer
from t2ialign.reward_models.score_files import Key, Row, ScoreTable, read_infos, same_info, write_infos

if TYPE_CHECKING:
    from PIL import Image

    from t2ialign.data.image_sets import ImageRecord, ImageSet
    from t2ialign.reward_models.base import RewardModel

SAVE_EVERY = 60.0
"""Seconds between two writes of the score file while a run goes on."""
LOOK_AHEAD = 2
"""Batches that are decoded ahead of the scorers."""


@dataclass(frozen=True)
class ScorerSummary:
    """What one scorer did.

    Attributes:
        scorer: Its name.
        version: Its version.
        scored: Pictures scored in this run.
        kept: Pictures whose score stood in the file already.
        truncated: Distinct prompts of the set that it could not read to their end.
        aggregate: The set's score, as the scorer's definition says.
    """

    scorer: str
    version: str
    scored: int
    kept: int
    truncated: int
    aggregate: float


@dataclass(frozen=True)
class ScoringSummary:
    """What `score_set` did.

    Attributes:
        output: The score file.
        pictures: Pictures in the set.
        seconds: Time taken, without loading the scorers.
        scorers: One entry a scorer.
    """

    output: Path
    pictures: int
    seconds: float
    scorers: list[ScorerSummary] = field(default_factory=list)

    def __str__(self) -> str:
        """Say it, a line a scorer."""
        lines = [f"{self.pictures} pictures in {self.seconds:.1f} s: {self.output}"]
        for each in self.scorers:
            cut = f"; prompts cut at the tokenizer's limit: {each.truncated}" if each.truncated else ""
            lines.append(
                f"  {each.scorer} ({each.version}): {each.aggregate:.4f}, {each.scored} scored, {each.kept} kept{cut}"
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return asdict(self) | {"output": str(self.output)}


@dataclass
class _Job:
    scorer: RewardModel
    todo: set[str]
    kept: int


def score_set(
    set_dir: str | Path,
    scorers: Sequence[str | RewardModel],
    output: str | Path | None = None,
    *,
    batch_size: int = 32,
    device: str = "auto",
    progress: bool = True,
) -> ScoringSummary:
    """Score an image set and write `scores.parquet` with `scores.<scorer>.json` beside it.

    Args:
        set_dir: The image set.
        scorers: Specs as in `registry.load_scorer`, or loaded scorers.
        output: The score file; by default `scores.parquet` in the set. Rows of other sets and of
            other scorers in it are kept.
        batch_size: Pictures decoded and scored at once.
        device: Where scorers run.
        progress: Whether to show a progress bar.

    Returns:
        Counts, and the set's score by each scorer.

    Raises:
        ConfigError: If a scorer is unknown or named twice.
        DataError: If the set is empty, a picture cannot be read, or a score is not finite.
        ModelError: If a checkpoint cannot be loaded.
    """
    from t2ialign.data.image_sets import ImageSet

    image_set = ImageSet(Path(set_dir))
    if not image_set.records:
        raise DataError(f"the image set {set_dir} is empty; generate pictures first with t2ialign generate")
    if not scorers:
        raise DataError("no scorer is named; name one, for instance clipscore")
    loaded = [load_scorer(s, device=device, batch_size=batch_size) if isinstance(s, str) else s for s in scorers]
    for scorer in loaded:  # a scorer may refuse prompts before any picture is decoded
        getattr(scorer, "check_prompts", len)([record.prompt for record in image_set.records])
    table = ScoreTable.read(Path(output) if output is not None else Path(set_dir) / "scores.parquet")
    names = {record.file_name: table.name_of(Path(set_dir) / record.file_name) for record in image_set.records}
    _forget_changed_pictures(table, image_set, names)
    jobs = _plan(table, loaded, list(names.values()))
    started = time.monotonic()
    try:
        _run(table, image_set, names, jobs, batch_size, progress)
    finally:
        _save(table, jobs, [record.prompt for record in image_set.records])
    summaries = [_summary(table, job, image_set, list(names.values())) for job in jobs]
    return ScoringSummary(table.path, len(names), time.monotonic() - started, summaries)


def _forget_changed_pictures(table: ScoreTable, image_set: ImageSet, names: dict[str, str]) -> None:
    """Drop the scores of pictures that were made again since, and note every picture's digest."""
    changed = set()
    for record in image_set.records:
        name, digest = names[record.file_name], record.sha256
        if digest and table.digests.get(name, digest) != digest:
            changed.add(name)
        if digest:
            table.digests[name] = digest
    table.drop([key for key in table.rows if key.file_name in changed])


def _plan(table: ScoreTable, scorers: Sequence[RewardModel], names: list[str]) -> list[_Job]:
    jobs: list[_Job] = []
    for scorer in scorers:
        if any((job.scorer.name, job.scorer.version) == (scorer.name, scorer.version) for job in jobs):
            raise DataError(f"the scorer {scorer.name} ({scorer.version}) is named twice; name it once")
        stored = read_infos(table.path, scorer.name).get(scorer.version)
        if not same_info(stored, scorer.info()):
            table.drop([key for key in table.rows if key[1:] == (scorer.name, scorer.version)])
        todo = {name for name in names if Key(name, scorer.name, scorer.version) not in table.rows}
        jobs.append(_Job(scorer, todo, len(names) - len(todo)))
    return jobs


def _run(
    table: ScoreTable,
    image_set: ImageSet,
    names: dict[str, str],
    jobs: list[_Job],
    batch_size: int,
    progress: bool,
) -> None:
    from tqdm import tqdm

    wanted = set().union(*(job.todo for job in jobs))
    records = [record for record in image_set.records if names[record.file_name] in wanted]
    saved = time.monotonic()
    with tqdm(total=len(records), desc="scoring", unit="picture", disable=None if progress else True) as bar:
        for batch, pictures in _decoded(image_set, records, batch_size):
            for job in jobs:
                _score_batch(table, job, names, batch, pictures)
            bar.update(len(batch))
            if time.monotonic() - saved > SAVE_EVERY:
                _save(table, jobs, [record.prompt for record in image_set.records])
                saved = time.monotonic()


def _decoded(
    image_set: ImageSet, records: list[ImageRecord], batch_size: int
) -> Iterator[tuple[list[ImageRecord], list[Image.Image]]]:
    """Decode batches on other threads, a few ahead of their use, in order."""
    batches = [records[i : i + batch_size] for i in range(0, len(records), batch_size)]
    with ThreadPoolExecutor(max_workers=4) as pool:
        waiting = [[pool.submit(image_set.open, record) for record in batch] for batch in batches[:LOOK_AHEAD]]
        for i, batch in enumerate(batches):
            futures = waiting.pop(0)
            if i + LOOK_AHEAD < len(batches):
                waiting.append([pool.submit(image_set.open, record) for record in batches[i + LOOK_AHEAD]])
            yield batch, [future.result() for future in futures]


def _score_batch(
    table: ScoreTable, job: _Job, names: dict[str, str], batch: list[ImageRecord], pictures: list[Image.Image]
) -> None:
    pairs = [(r, p) for r, p in zip(batch, pictures, strict=True) if names[r.file_name] in job.todo]
    if not pairs:
        return
    scores = job.scorer.score([record.prompt for record, _ in pairs], [picture for _, picture in pairs]).tolist()
    for (record, _), score in zip(pairs, scores, strict=True):
        if not math.isfinite(score):
            raise DataError(
                f"{job.scorer.name} gives {score} for {record.file_name} (prompt {record.prompt_id}); "
                "a score must be a number: try dtype float32, or look at the picture"
            )
        key = Key(names[record.file_name], job.scorer.name, job.scorer.version)
        table.rows[key] = Row(record.prompt_id, record.sample, score)


def _save(table: ScoreTable, jobs: list[_Job], prompts: list[str]) -> None:
    """Write infos, then scores: scores never stand without the info that explains them."""
    for job in jobs:
        versions = read_infos(table.path, job.scorer.name)
        versions[job.scorer.version] = job.scorer.info() | {"n_truncated": job.scorer.count_truncated(prompts)}
        write_infos(table.path, job.scorer.name, versions)
    table.write()


def _summary(table: ScoreTable, job: _Job, image_set: ImageSet, names: list[str]) -> ScorerSummary:
    scorer = job.scorer
    values = [table.rows[Key(name, scorer.name, scorer.version)].score for name in names]
    truncated = scorer.count_truncated([record.prompt for record in image_set.records])
    return ScorerSummary(scorer.name, scorer.version, len(job.todo), job.kept, truncated, scorer.aggregate(values))
