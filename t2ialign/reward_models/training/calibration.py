"""How good and how honest a scorer's preferences are: accuracy, log loss, expected calibration error, a plot.

Law of this file: pure functions on margins; a label that is a tie counts in the log loss and nowhere else, and is
counted; intervals draw clusters (prompts, or users), never single pairs; every draw has a seed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 10
"""Bins of equal width on [0.5, 1], of the expected calibration error (Guo et al. 2017, arXiv 1706.04599)."""
RESAMPLES = 10_000
"""Bootstrap resamples of an interval."""

Array = npt.NDArray[np.float64]


def measure(margins: npt.ArrayLike, targets: npt.ArrayLike, clusters: Sequence[Any], seed: int = 0) -> dict[str, Any]:
    """Measure predicted preferences against labels.

    The prediction is `sigmoid(margin)` for the first picture; its confidence is the larger of that and the rest. A
    margin of 0 is half right.

    Args:
        margins: `[N]`.
        targets: Probability that the first is preferred, `[N]` in [0, 1]; above one half the first is the winner.
        clusters: Prompt or user of each pair, `[N]`.
        seed: Of the bootstrap.

    Returns:
        pairs, label_ties, clusters, accuracy, ci95 (of the accuracy), log_loss, ece, mean_confidence, and bins: a list
        of {low, high, pairs, confidence, accuracy}.

    Raises:
        ValueError: If no pair has a winner.
    """
    margin, target = np.asarray(margins, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    signed = np.where(target >= 0.5, margin, -margin)
    share = np.maximum(target, 1 - target)
    log_loss = share * np.logaddexp(0, -signed) + (1 - share) * np.logaddexp(0, signed)
    kept = target != 0.5
    if not kept.any():
        raise ValueError("no pair has a winner, so there is nothing to be right about")
    right = np.where(signed == 0, 0.5, (signed > 0).astype(np.float64))[kept]
    confidence = 1 / (1 + np.exp(-np.abs(signed[kept])))
    ece, bins = calibration(confidence, right)
    groups = [cluster for cluster, flag in zip(clusters, kept, strict=True) if flag]
    return {
        "pairs": len(right),
        "label_ties": int((~kept).sum()),
        "clusters": len(set(groups)),
        "accuracy": float(right.mean()),
        "ci95": cluster_interval(right, groups, seed),
        "log_loss": float(log_loss.mean()),
        "ece": ece,
        "mean_confidence": float(confidence.mean()),
        "bins": bins,
    }


def calibration(confidence: Array, right: Array, bins: int = BINS) -> tuple[float, list[dict[str, float]]]:
    """Return the expected calibration error, and each bin.

        ECE = sum over bins of n_b / N |accuracy_b - confidence_b|

    Args:
        confidence: In [0.5, 1], `[N]`.
        right: 1, 0, or 1/2 for an undecided prediction, `[N]`.
        bins: Number of bins of equal width.
    """
    place = np.clip(((confidence - 0.5) * 2 * bins).astype(int), 0, bins - 1)
    found, error = [], 0.0
    for number in range(bins):
        inside = place == number
        low, high = 0.5 + number / (2 * bins), 0.5 + (number + 1) / (2 * bins)
        row: dict[str, float] = {"low": low, "high": high, "pairs": int(inside.sum())}
        if inside.any():
            row |= {"confidence": float(confidence[inside].mean()), "accuracy": float(right[inside].mean())}
            error += row["pairs"] / len(right) * abs(row["accuracy"] - row["confidence"])
        found.append(row)
    return error, found


def cluster_interval(values: npt.ArrayLike, clusters: Sequence[Any], seed: int = 0) -> list[float] | None:
    """Return the 95% percentile bootstrap interval of the mean over all values; None with fewer than 2 clusters.

    Args:
        values: `[N]`.
        clusters: What is drawn with replacement, with all its values, `[N]`.
        seed: Of the draws.
    """
    array = np.asarray(values, dtype=np.float64)
    numbers: dict[Any, int] = {}
    index = np.array([numbers.setdefault(each, len(numbers)) for each in clusters])
    if len(numbers) < 2:
        return None
    sums, sizes = np.bincount(index, weights=array), np.bincount(index)
    generator = np.random.default_rng(seed)
    draws = []
    for start in range(0, RESAMPLES, 500):
        picked = generator.integers(0, len(sums), size=(min(500, RESAMPLES - start), len(sums)))
        draws.append(sums[picked].sum(axis=1) / sizes[picked].sum(axis=1))
    low, high = np.quantile(np.concatenate(draws), (0.025, 0.975))
    return [float(low), float(high)]


def write_plot(file: Path, measured: dict[str, Any], title: str) -> None:
    """Write the reliability plot as SVG: accuracy over confidence, a bar a bin, and the diagonal of perfect honesty.

    Args:
        file: Appears whole or not at all.
        measured: What `measure` returns.
        title: Of the plot.
    """
    side, edge = 320, 50

    def x(value: float) -> float:
        return edge + (value - 0.5) * 2 * side

    def y(value: float) -> float:
        return edge + (1 - value) * side

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{side + 2 * edge}" height="{side + 2 * edge + 10}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{side + 2 * edge}" height="{side + 2 * edge + 10}" fill="white"/>',
        f'<text x="{edge}" y="20">{_escaped(title)}</text>',
        f'<text x="{edge}" y="38">accuracy {measured["accuracy"]:.3f}, ECE {measured["ece"]:.3f}, '
        f"{measured['pairs']} pairs</text>",
    ]
    for row in measured["bins"]:
        if row["pairs"]:
            parts.append(
                f'<rect x="{x(row["low"]) + 1:.1f}" y="{y(row["accuracy"]):.1f}" width="{side / BINS - 2:.1f}" '
                f'height="{row["accuracy"] * side:.1f}" fill="#4477aa"><title>{row["pairs"]} pairs</title></rect>'
            )
    parts.append(
        f'<line x1="{x(0.5)}" y1="{y(0.5)}" x2="{x(1)}" y2="{y(1)}" stroke="#cc3311" stroke-dasharray="4 3"/>'
    )
    parts.append(f'<rect x="{edge}" y="{edge}" width="{side}" height="{side}" fill="none" stroke="black"/>')
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<text x="{edge - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.2f}</text>')
    for value in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        parts.append(f'<text x="{x(value):.1f}" y="{edge + side + 16}" text-anchor="middle">{value:.1f}</text>')
    parts.append(f'<text x="{edge + side / 2}" y="{edge + side + 34}" text-anchor="middle">confidence</text></svg>')
    aside = file.with_name(f".{file.name}.aside")
    aside.write_text("\n".join(parts) + "\n", encoding="utf-8")
    os.replace(aside, file)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
