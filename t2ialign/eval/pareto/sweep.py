"""From scored image sets to points: one set is one setting, its axes are scorers and diversity within prompts.

Law of this file: all sets are cut to the prompts and samples that they share, in one order, so that points are
compared on the same prompts with the same number of pictures each; a set's settings are those that its own
`config.json` records.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from t2ialign.errors import ConfigError, DataError
from t2ialign.eval.pairs import PairKey, ScoredSet, common_pairs, read_scored_set, shared_scorers
from t2ialign.eval.pareto.front import Axis, Point

DIVERSITY = "vendi"
"""Name of the axis of diversity within prompts: the mean over prompts of the Vendi score of a prompt's pictures."""
SETTINGS = ("model", "adapters", "user", "guidance_scale", "num_inference_steps", "scheduler")
"""Keys of an image set's `config.json` that a point carries where sets differ in them."""


def points_of_sets(
    sets: Sequence[Path | str],
    axes: Sequence[str],
    *,
    embedder: Any | None = None,
    labels: Sequence[str] | None = None,
    q: float = 1.0,
) -> tuple[list[Point], list[Axis]]:
    """Read a sweep.

    Args:
        sets: Image sets of the same prompts, at least two, scored (`t2ialign score`).
        axes: Names of scorers, and "vendi" for diversity within prompts.
        embedder: A `reward_models.base.Embedder`, needed for "vendi".
        labels: Names of the points; those of the folders by default.
        q: Order of the Vendi score.

    Returns:
        The points, and the axes with their directions. Scores of which less is better are turned round when they are
        read elsewhere; here they keep their values, and their axis says so.

    Raises:
        ConfigError: If "vendi" is asked for without an embedder, or the labels are not one a set.
        DataError: If sets share no pictures, or a scorer is missing in one.
    """
    if len(sets) < 2:
        raise ConfigError("a front needs at least 2 image sets, one a setting")
    if labels is not None and len(labels) != len(sets):
        raise ConfigError(f"{len(labels)} labels for {len(sets)} sets; give one for each")
    if DIVERSITY in axes and embedder is None:
        raise ConfigError("diversity needs features; name --embedder, for instance clipscore@mini-clip")
    read = [read_scored_set(path, None, labels[i] if labels else None) for i, path in enumerate(sets)]
    shared = _shared(read)
    kinds = _kinds(read, [name for name in axes if name != DIVERSITY])
    points = []
    settings = _settings([Path(path) for path in sets])
    for one, said in zip(read, settings, strict=True):
        per_prompt = {name: _by_prompt(one, kinds[name], shared) for name in axes if name != DIVERSITY}
        if DIVERSITY in axes:
            per_prompt[DIVERSITY] = _diversity(one, shared, embedder, q)
        points.append(Point(one.label, per_prompt=per_prompt, settings=said))
    return points, [_axis(name, kinds, read[0], q) for name in axes]


def _shared(read: Sequence[ScoredSet]) -> list[PairKey]:
    """Prompts and samples of all sets: the commonest number of each prompt; prompts with fewer are left out."""
    keys = list(read[0].records)
    for other in read[1:]:
        # Guidance and steps differ on purpose; whether noise does changes only how steady the comparison is.
        both = set(common_pairs(read[0], other, ignore_seeds=True))
        keys = [key for key in keys if key in both]
    counts: dict[str, int] = {}
    for prompt_id, _ in keys:
        counts[prompt_id] = counts.get(prompt_id, 0) + 1
    sizes = list(counts.values())
    common = max(sizes, key=lambda size: (sizes.count(size), size), default=0)
    taken: dict[str, int] = {}
    kept = []
    for key in keys:
        taken[key[0]] = taken.get(key[0], 0) + 1
        if counts[key[0]] >= common and taken[key[0]] <= common:
            kept.append(key)
    if not kept:
        raise DataError("the sets share no pictures of one prompt and sample; generate all from the same prompt file")
    return kept


def _kinds(read: Sequence[ScoredSet], names: Sequence[str]) -> dict[str, tuple[str, str]]:
    if not names:
        return {}
    found = shared_scorers(read[0], list(read[1:]), list(names))
    kinds: dict[str, tuple[str, str]] = {}
    for kind in found:
        if kind[0] in kinds:
            raise DataError(f"the sets have scores of two versions of {kind[0]}: {kinds[kind[0]][1]}, {kind[1]}")
        kinds[kind[0]] = kind
    return kinds


def _by_prompt(one: ScoredSet, kind: tuple[str, str], shared: Sequence[PairKey]) -> np.ndarray[Any, Any]:
    scores: dict[str, list[float]] = {}
    for key in shared:
        if key not in one.scores[kind]:
            raise DataError(
                f"{one.directory}: prompt {key[0]}, sample {key[1]} has no {kind[0]} score; score it again"
            )
        scores.setdefault(key[0], []).append(one.scores[kind][key])
    return np.array([np.mean(each) for each in scores.values()])


def _diversity(one: ScoredSet, shared: Sequence[PairKey], embedder: Any, q: float) -> np.ndarray[Any, Any]:
    from t2ialign.data.layouts import open_set
    from t2ialign.eval.vendi.levels import vendi_within

    images = open_set(one.directory)
    features = embedder.embed_images([images.file(one.records[key]) for key in shared])
    return vendi_within(features, [prompt_id for prompt_id, _ in shared], q).per_prompt[float(q)]


def _axis(name: str, kinds: dict[str, tuple[str, str]], one: ScoredSet, q: float) -> Axis:
    if name == DIVERSITY:
        return Axis(DIVERSITY, label=f"diversity (Vendi within prompts, q = {q:g})")
    return Axis(name, higher=bool(one.infos.get(kinds[name], {}).get("higher_is_better", True)))


def _settings(sets: Sequence[Path]) -> list[dict[str, Any]]:
    """Each set's recorded settings, those in which the sets differ."""
    from t2ialign.data.image_sets import ImageSet

    configs = [ImageSet(path).config if (path / "config.json").is_file() else {} for path in sets]
    differing = [key for key in SETTINGS if len({str(config.get(key)) for config in configs}) > 1]
    return [{key: _plain(config.get(key)) for key in differing} for config in configs]


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)
