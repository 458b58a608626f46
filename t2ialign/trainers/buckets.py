"""Aspect-ratio buckets: a few sizes of about equal area in place of one square; both sides of a pair are of one size.

The sizes follow SDXL (arXiv 2307.01952, section 2.3 and appendix I): sides are multiples of a step, and the area is as
near to that of the square as they allow, never above it. A picture is resized to cover its size, and what is left over
on one axis is cut.

Law of this file: a pair has one size, the one under which the more of its two cuts is least. A cut may take away the
very thing that the pair was judged by (issue 24 of DiffusionDPO), and where one side lost much more than the other the
difference of the sides would be what was cut. Of two pictures with aspect ratios r1 and r2 every size between leaves
`a` and `b` of their areas with `a b = min(r1 / r2, r2 / r1)`, so making the smaller one large makes both equal.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t2ialign.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

LEAST_AREA = 0.9
"""Of the square's. With step 64 and side 1024 it gives the table of SDXL's appendix I, and one size, 1344 x 704, that
is there in its other orientation alone."""

MANY_REPEATED = 0.1
"""Share of an epoch that completes groups, above which a user is told."""

_ROWS_AT_ONCE = 1 << 14


def bucket_sizes(resolution: int, step: int, max_ratio: float) -> tuple[tuple[int, int], ...]:
    """Return every size (height, width) of the table, from upright to wide.

    Args:
        resolution: Side of the square, pixels.
        step: Sides are multiples of it, pixels.
        max_ratio: The longer side over the shorter is at most this.

    Raises:
        ConfigError: if there is no such size.
    """
    area = resolution * resolution
    sides = range(step, int(resolution * max_ratio**0.5) + 1, step)
    found = [
        (height, width)
        for height in sides
        for width in sides
        if LEAST_AREA * area <= height * width <= area and max(height, width) <= max_ratio * min(height, width)
    ]
    if not found:
        raise ConfigError(
            f"no size of about {resolution} x {resolution} pixels has sides in multiples of {step} and a ratio up to "
            f"{max_ratio:g}; choose a smaller bucket_step"
        )
    return tuple(sorted(found, key=lambda size: (size[1] / size[0], size)))


@dataclass(frozen=True)
class Bucketing:
    """Which entry is in which bucket.

    Attributes:
        resolution: Side of the square that the buckets stand for.
        sizes: Height and width of each bucket.
        of: The bucket of each entry, `[N]` int64.
        pictures: Height and width of each picture as it is, `[N, S, 2]`; 0 where it could not be read.
    """

    resolution: int
    sizes: tuple[tuple[int, int], ...]
    of: NDArray[np.int64]
    pictures: NDArray[np.int64]

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of an entry's bucket."""
        return self.sizes[self.of[index]]

    def table(self, group: int) -> list[dict[str, Any]]:
        """Return the buckets in use, from upright to wide.

        Each has its `height` and `width`, the number of `entries` in it, their `share` of the set, and the number of
        `examples` that they are in an epoch, with `group` of one bucket in a row.
        """
        counts = np.bincount(self.of, minlength=len(self.sizes))
        return [
            {
                "height": height,
                "width": width,
                "entries": int(count),
                "share": float(count / len(self.of)),
                "examples": int(-(-count // group) * group),
            }
            for (height, width), count in zip(self.sizes, counts, strict=True)
            if count
        ]

    def report(self, group: int) -> dict[str, Any]:
        """Return what becomes of the pictures, as `report.json` holds it.

        Args:
            group: How many examples in a row are of one bucket.

        Returns:
            `group`, `table`, `examples_per_epoch`; `repeated`, the share of these that completes a bucket's last one;
            `pictures`, their number; `upscaled`, how many of them (`count`, `share`) are enlarged and by which factor
            at most (`largest`); `cut`, the share of a picture's area that is cut off (`mean`, `largest`); both again
            `_as_squares`; `unread`, the number of entries with a picture whose size could not be read.
        """
        table = self.table(group)
        examples = sum(row["examples"] for row in table)
        readable = (self.pictures > 0).all(axis=(1, 2))
        pictures, buckets = self.pictures[readable], np.array(self.sizes)[self.of[readable], None]
        square = np.array([self.resolution, self.resolution])
        return {
            "group": group,
            "table": table,
            "examples_per_epoch": examples,
            "repeated": 1 - len(self.of) / examples,
            "pictures": pictures.shape[0] * pictures.shape[1],
            "upscaled": _enlarged(pictures, buckets),
            "upscaled_as_squares": _enlarged(pictures, square),
            "cut": _lost(pictures, buckets),
            "cut_as_squares": _lost(pictures, square),
            "unread": int((~readable).sum()),
        }


def assign(pictures: NDArray[np.int64], sizes: tuple[tuple[int, int], ...], resolution: int) -> Bucketing:
    """Put each entry into the bucket under which the greatest cut of its pictures is least.

    Of equal ones the bucket that keeps most of all pictures together is taken, then the one of the largest area. An
    entry with a picture of unknown size goes with the next one, which may have to stand in for it.

    Args:
        pictures: Height and width of each picture, `[N, S, 2]`; 0 where it is not known.
        sizes: Height and width of each bucket.
        resolution: Side of the square that they stand for.

    Raises:
        DataError: if no entry has pictures of known sizes.
    """
    known = np.flatnonzero((pictures > 0).all(axis=(1, 2)))
    if not len(known):
        raise DataError("no picture of the set can be read; `t2ialign data check` says why")
    of = np.full(len(pictures), -1, dtype=np.int64)
    for start in range(0, len(known), _ROWS_AT_ONCE):
        rows = known[start : start + _ROWS_AT_ONCE]
        of[rows] = _best(pictures[rows], np.array(sizes))
    unknown = np.flatnonzero(of < 0)
    of[unknown] = of[known[np.searchsorted(known, unknown) % len(known)]]
    return Bucketing(resolution, sizes, of, pictures)


def log_report(report: Mapping[str, Any]) -> None:
    """Log a `Bucketing.report` as a table, with what a user may want to change."""
    lines = [f"{row['height']} x {row['width']}: {row['entries']} ({row['share']:.1%})" for row in report["table"]]
    logger.info(
        "%d buckets, height x width: %s; %.1f%% of a picture is cut off on average (%.1f%% as squares), %d of %d "
        "pictures are enlarged (%d as squares)",
        len(lines),
        ", ".join(lines),
        100 * report["cut"]["mean"],
        100 * report["cut_as_squares"]["mean"],
        report["upscaled"]["count"],
        report["pictures"],
        report["upscaled_as_squares"]["count"],
    )
    if report["repeated"] > MANY_REPEATED:
        logger.warning(
            "%.0f%% of an epoch's examples come a second time to complete groups of %d of one bucket; a smaller "
            "bucket_group (with the batch size), a larger bucket_step or a smaller bucket_ratio makes them fewer",
            100 * report["repeated"],
            report["group"],
        )


def kept_share(pictures: NDArray[Any], sizes: NDArray[Any]) -> NDArray[np.float64]:
    """Return the share of each picture's area that is left when it covers a size, both `[..., 2]`."""
    ratio = (pictures[..., 0] * sizes[..., 1]) / (pictures[..., 1] * sizes[..., 0])
    least: NDArray[np.float64] = np.minimum(ratio, 1 / ratio)
    return least


def _best(pictures: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    order = np.argsort(-sizes.prod(axis=1), kind="stable")
    kept = kept_share(pictures[:, :, None], sizes[order]).round(9)
    worst = kept.min(axis=1)
    total = np.where(worst == worst.max(axis=1, keepdims=True), kept.sum(axis=1), -1.0)
    found: NDArray[np.int64] = order[total.argmax(axis=1)]
    return found


def _enlarged(pictures: NDArray[np.int64], sizes: NDArray[np.int64]) -> dict[str, Any]:
    scale = (sizes / pictures).max(axis=-1)
    count = int((scale > 1).sum())
    return {"count": count, "share": count / scale.size, "largest": float(scale.max())}


def _lost(pictures: NDArray[np.int64], sizes: NDArray[np.int64]) -> dict[str, float]:
    lost = 1 - kept_share(pictures, sizes)
    return {"mean": float(lost.mean()), "largest": float(lost.max())}
