"""Joining scored image sets picture by picture.

Law of this file: two pictures are a pair if they answer the same prompt, as the same sample, from the
same seed; whatever keeps sets apart is an error that names it, and whatever is left out is counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.errors import DataError
from t2ialign.reward_models.score_files import ScoreTable, read_infos, same_info

if TYPE_CHECKING:
    from t2ialign.data.image_sets import ImageRecord

PairKey = tuple[str, int]
"""A prompt's id and a sample number."""


@dataclass(frozen=True)
class ScoredSet:
    """An image set with its scores.

    Attributes:
        label: Its name in reports.
        directory: Its folder.
        records: Its pictures by (prompt id, sample), in the order of the set.
        scores: Scores by (scorer, version), then by (prompt id, sample).
        infos: What each scorer says of itself, by (scorer, version).
    """

    label: str
    directory: Path
    records: Mapping[PairKey, ImageRecord]
    scores: Mapping[tuple[str, str], Mapping[PairKey, float]]
    infos: Mapping[tuple[str, str], Mapping[str, Any]]

    @property
    def prompts(self) -> set[str]:
        """The ids of its prompts."""
        return {prompt_id for prompt_id, _ in self.records}


def read_scored_set(directory: str | Path, scores: str | Path | None, label: str | None = None) -> ScoredSet:
    """Read an image set and the scores of its pictures.

    Args:
        directory: The image set.
        scores: A score file, which may hold other sets too; `None` for `scores.parquet` in the set.
        label: Its name in reports; by default the name of its folder.

    Raises:
        DataError: If the set or the score file is absent, or holds a picture twice.
    """
    from t2ialign.data.layouts import open_set

    directory = Path(directory)
    path = Path(scores) if scores is not None else directory / "scores.parquet"
    if not path.is_file():
        raise DataError(f"there is no score file {path}; run: t2ialign score {directory} --with clipscore")
    records: dict[PairKey, ImageRecord] = {}
    table = ScoreTable.read(path)
    keys: dict[str, PairKey] = {}
    image_set = open_set(directory)
    names = table.names_in(directory, (record.file_name for record in image_set.records))
    for record in image_set.records:
        key = (record.prompt_id, record.sample)
        if key in records:
            raise DataError(
                f"{directory} holds two pictures of prompt {key[0]}, sample {key[1]} "
                f"({records[key].file_name} and {record.file_name}); compare sets of one model each"
            )
        records[key] = record
        keys[names[record.file_name]] = key
    found: dict[tuple[str, str], dict[PairKey, float]] = {}
    for (file_name, scorer, version), row in table.rows.items():
        if file_name in keys:
            found.setdefault((scorer, version), {})[keys[file_name]] = row.score
    infos = {kind: read_infos(path, kind[0]).get(kind[1], {}) for kind in found}
    return ScoredSet(label or directory.resolve().name, directory, records, found, infos)


def common_pairs(base: ScoredSet, other: ScoredSet, *, ignore_seeds: bool = False) -> list[PairKey]:
    """Return what two sets share, in the order of `base`.

    Raises:
        DataError: If they share nothing, if a shared prompt id stands for different prompts, or if
            seeds differ and `ignore_seeds` is not set.
    """
    shared = [key for key in base.records if key in other.records]
    if not shared:
        raise DataError(
            f"{base.directory} and {other.directory} share no prompt and sample "
            f"(for instance {next(iter(base.records), None)} against {next(iter(other.records), None)}); "
            "generate both from the same prompt file"
        )
    for key in shared:
        first, second = base.records[key], other.records[key]
        if first.prompt != second.prompt:
            raise DataError(
                f"prompt {key[0]} is {first.prompt!r} in {base.directory} but {second.prompt!r} in {other.directory}; "
                "generate both from the same prompt file"
            )
        if first.seed != second.seed and not ignore_seeds:
            raise DataError(
                f"prompt {key[0]}, sample {key[1]} has seed {first.seed} in {base.directory} but {second.seed} in "
                f"{other.directory}; generate both with the same --seed, or ask for --ignore_seeds"
            )
    return shared


def paired_scores(
    base: ScoredSet, other: ScoredSet, kind: tuple[str, str], shared: Sequence[PairKey]
) -> tuple[list[float], list[float]]:
    """Return the two sets' scores of the shared pictures, higher always being better.

    Raises:
        DataError: If a score is missing.
    """
    sides: list[list[float]] = []
    sign = 1.0 if base.infos.get(kind, {}).get("higher_is_better", True) else -1.0
    for side in (base, other):
        known = side.scores.get(kind, {})
        missing = [key for key in shared if key not in known]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(shared)} pictures of {side.directory} have no {kind[0]} ({kind[1]}) score, "
                f"for instance prompt {missing[0][0]}, sample {missing[0][1]}; run t2ialign score again on it"
            )
        sides.append([sign * known[key] for key in shared])
    return sides[0], sides[1]


def shared_scorers(
    base: ScoredSet, others: Sequence[ScoredSet], wanted: Sequence[str] | None
) -> list[tuple[str, str]]:
    """Return the (scorer, version) pairs that every set has, in the order of `base`.

    Args:
        base: The base set.
        others: The other sets.
        wanted: Names of scorers; `None` for all that are shared.

    Raises:
        DataError: If none is shared, or a wanted one is not, or two sets disagree on how one computes.
    """
    shared = [kind for kind in base.scores if all(kind in other.scores for other in others)]
    missing = [name for name in wanted or [] if name not in {scorer for scorer, _ in shared}]
    if missing or not shared:
        have = "; ".join(
            f"{s.label}: {', '.join(f'{n} ({v})' for n, v in s.scores) or 'none'}" for s in (base, *others)
        )
        name = f"the scorer {missing[0]!r}" if missing else "a scorer of the same version"
        raise DataError(
            f"the sets do not all have scores of {name} ({have}); run t2ialign score on each with the same scorer"
        )
    for kind in shared:
        for other in others:
            first, second = base.infos.get(kind), other.infos.get(kind)
            if first is not None and second is not None and not same_info(first, second):
                raise DataError(
                    f"{base.label} and {other.label} were scored by {kind[0]!r} with different settings, as their "
                    f"scores.{kind[0]}.json show; run t2ialign score on both with the same ones"
                )
    return [kind for kind in shared if not wanted or kind[0] in wanted]
