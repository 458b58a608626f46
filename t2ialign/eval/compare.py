"""Comparing image sets: win rates with ties, intervals, paired tests, and what may be said of them.

Law of this file: a set is called better only if both 95 % intervals of its win rate exclude one half
and the exact sign test agrees; p values are also given corrected for the number of comparisons.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from t2ialign.data.files import written_aside
from t2ialign.errors import DataError
from t2ialign.eval import statistics
from t2ialign.eval.pairs import (
    ScoredSet,
    common_pairs,
    paired_scores,
    read_scored_set,
    shared_scorers,
)
from t2ialign.eval.report import to_markdown
from t2ialign.generation.labels import set_labels

FORMAT = 1
"""Version of the keys of `compare.json`."""
RESAMPLES = 10_000
"""Bootstrap resamples."""

Numbers = dict[str, Any]


@dataclass(frozen=True)
class _Settings:
    ignore_seeds: bool
    resamples: int
    seed: int


def compare_sets(
    base: str | Path,
    others: Sequence[str | Path],
    scores: str | Path | None = None,
    output_dir: str | Path | None = None,
    *,
    scorers: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    ignore_seeds: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare scored image sets with a base set, prompt by prompt.

    Args:
        base: The image set that the others are compared with.
        others: Image sets of the same prompts and seeds.
        scores: One score file for all sets; `None` for `scores.parquet` in each set.
        output_dir: Where `compare.json` and `compare.md` are written; `None` for nowhere.
        scorers: Names of scorers; `None` for all that every set has.
        labels: Names of the sets in the report, base first.
        ignore_seeds: Compare although seeds differ; the pairs are then no longer matched on noise.
        resamples: Bootstrap resamples.
        seed: Of the bootstrap.

    Returns:
        The content of `compare.json`; its keys are documented in `docs/compare.md`.

    Raises:
        DataError: If sets do not fit together, scores are missing, or fewer than 2 prompts are shared.
    """
    if not others:
        raise DataError("there is nothing to compare the base with; name at least one more image set")
    directories = [Path(base), *map(Path, others)]
    names = set_labels(directories, labels)
    sets = [read_scored_set(folder, scores, name) for folder, name in zip(directories, names, strict=True)]
    settings = _Settings(ignore_seeds, resamples, seed)
    kinds = shared_scorers(sets[0], sets[1:], scorers)
    comparisons = [_compare(sets[0], other, kind, settings) for other in sets[1:] for kind in kinds]
    _adjust(comparisons)
    result = {
        "format": FORMAT,
        "base": sets[0].label,
        "unit": "prompt",
        "seeds_matched": not ignore_seeds,
        "bootstrap": {"method": "bca", "resamples": resamples, "seed": seed},
        "sets": {s.label: _describe(s) for s in sets},
        "scorers": [{"scorer": n, "version": v, "info": dict(sets[0].infos.get((n, v), {}))} for n, v in kinds],
        "comparisons": comparisons,
    }
    if output_dir is not None:
        _write(result, Path(output_dir))
    return result


def compare_scores(
    base: Sequence[float],
    other: Sequence[float],
    prompt_ids: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Numbers:
    """Compare paired scores, higher being better; the statistics of one comparison.

    Args:
        base: Scores of the base, [N].
        other: Scores of the other on the same prompts and samples, [N].
        prompt_ids: Prompt of each pair, [N]; at least 2 distinct ones.
        resamples: Bootstrap resamples.
        seed: Of the bootstrap.

    Returns:
        `n_prompts`, `n_pairs`, `win_rate`, `difference`, `tests` and `verdict`, as in `compare.json`.
    """
    rate = statistics.win_rate(base, other, prompt_ids)
    first, second = (statistics.cluster_means(values, prompt_ids) for values in (base, other))
    n = len(first)
    tests = statistics.paired_test(base, other, prompt_ids)
    interval = statistics.clustered_bootstrap(rate.per_prompt, resamples=resamples, seed=seed)
    percentile = statistics.clustered_bootstrap(rate.per_prompt, method="percentile", resamples=resamples, seed=seed)
    wilson = statistics.wilson_of_rates(rate.per_prompt, len(prompt_ids))
    return {
        "n_prompts": n,
        "n_pairs": len(prompt_ids),
        "win_rate": {
            "value": rate.value,
            "ci95": list(interval),
            "ci95_percentile": list(percentile),
            "ci95_wilson": list(wilson),
            "n": n,
            "wins": rate.wins,
            "ties": rate.ties,
            "losses": rate.losses,
        },
        "difference": _difference(first, second, resamples, seed),
        "tests": {name: {"p": test.p_value, "n": test.n, "statistic": test.statistic} for name, test in tests.items()},
        "verdict": _verdict((interval, wilson), tests["sign"]),
    }


def _difference(first: statistics.Array, second: statistics.Array, resamples: int, seed: int) -> Numbers:
    delta = second - first
    return {
        "mean_base": float(first.mean()),
        "mean_set": float(second.mean()),
        "mean": float(delta.mean()),
        "ci95": list(statistics.clustered_bootstrap(delta, resamples=resamples, seed=seed)),
        "median": float(np.median(delta)),
        "effect_size": statistics.effect_size(delta),
    }


def _verdict(intervals: Sequence[statistics.Interval], sign: statistics.Test) -> str:
    """Say what may be said: all intervals must lie on one side of one half, and the exact test agree.

    Over very few prompts both intervals are too narrow; the sign test is exact for any number. It has to point the
    same way: where most prompts are lost by little and some won by much, nothing is shown.
    """
    if sign.p_value < statistics.SIGNIFICANT:
        if 2 * sign.statistic > sign.n and all(interval.low > 0.5 for interval in intervals):
            return "better"
        if 2 * sign.statistic < sign.n and all(interval.high < 0.5 for interval in intervals):
            return "worse"
    return "no difference shown"


def _compare(base: ScoredSet, other: ScoredSet, kind: tuple[str, str], settings: _Settings) -> Numbers:
    shared = common_pairs(base, other, ignore_seeds=settings.ignore_seeds)
    prompts = [prompt_id for prompt_id, _ in shared]
    if len(set(prompts)) < 2:
        raise DataError(
            f"{base.directory} and {other.directory} share only the prompt {prompts[0]}; an interval needs at least "
            "2 prompts, and a useful one some hundreds"
        )
    first, second = paired_scores(base, other, kind, shared)
    found = compare_scores(first, second, prompts, resamples=settings.resamples, seed=settings.seed)
    left_out = {"base_only": len(base.records) - len(shared), "set_only": len(other.records) - len(shared)}
    return {"set": other.label, "scorer": kind[0], "version": kind[1], "unpaired": left_out, **found}


def _adjust(comparisons: list[Numbers]) -> None:
    """Add Holm-adjusted p values, over all comparisons of the file, for each test."""
    for name in ("sign", "wilcoxon"):
        adjusted = statistics.holm([comparison["tests"][name]["p"] for comparison in comparisons])
        for comparison, p_value in zip(comparisons, adjusted, strict=True):
            comparison["tests"][name]["p_holm"] = p_value


def _describe(scored: ScoredSet) -> Numbers:
    return {"directory": str(scored.directory), "pictures": len(scored.records), "prompts": len(scored.prompts)}


def _write(result: dict[str, Any], output_dir: Path) -> None:
    output_dir.mkdir(parents=True, exist_ok=True)
    texts = {
        "compare.json": json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False),
        "compare.md": to_markdown(result),
    }
    for name, text in texts.items():
        with written_aside(output_dir / name) as aside:
            aside.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
