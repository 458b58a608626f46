r"""CUBE's cultural diversity of labelled pictures: Vendi scores of chunks, over their length.

.. math:: CD = \frac{1}{C} \sum_c \bar s_c \, VS_q(c) / |c|

with the chunk's mean quality s, or 1. Law of this file: a chunk is divided by its own length; `compat` repeats the
published notebook instead, faults included.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from t2ialign.eval.culture.kernels import LEVELS, CultureKernel, kernel_of
from t2ialign.eval.vendi.kernels import label_kernel
from t2ialign.eval.vendi.spectrum import clean, mean_quality, orders_of, score_of

Array = npt.NDArray[np.float64]
SIZE = 8
"""Pictures in a chunk (CUBE's notebook, cell 13). VS / n falls with n, so figures of two sizes do not compare."""
_COMPAT_FEW, _COMPAT_USED = 32, 24


@dataclass(frozen=True)
class Chunk:
    """A chunk of pictures.

    Attributes:
        n: Pictures in it.
        vendi: Vendi score, 1 to n.
        diversity: Vendi score over the length (`n`; the full chunk's length under `compat`), in (0, 1].
        quality: Mean quality of its pictures; `None` where none was given.
    """

    n: int
    vendi: float
    diversity: float
    quality: float | None = None

    @property
    def quality_weighted(self) -> float | None:
        """Quality times diversity; `None` without a quality."""
        return None if self.quality is None else self.quality * self.diversity

    def to_dict(self) -> dict[str, Any]:
        """Return all values."""
        return asdict(self) | {"quality_weighted": self.quality_weighted}


def chunk_scores(
    labels: Sequence[Sequence[Hashable]],
    kernel: str | CultureKernel | Sequence[float] = "continent",
    *,
    size: int = SIZE,
    q: float | str = 1.0,
    quality: Sequence[float] | None = None,
    compat: bool = False,
) -> list[Chunk]:
    """Score chunks of labels in the order given.

    Args:
        labels: (continent, country, artifact) of each picture; the labels that the kernel looks at must be there.
        kernel: A name of `KERNELS`, a kernel, or three weights.
        size: Labels in a chunk; the last one has what is left and is divided by its own length.
        q: Order of the Vendi score.
        quality: Of each picture, at least 0.
        compat: Repeat the published notebook (cell 13): of fewer than 32 labels only the first 24 are used, and every
            chunk is divided by 8. Four labels that all differ then score 0.5.

    Returns:
        The chunks, in order. CUBE's diversity is the mean of their `diversity`.

    Raises:
        ValueError: If there are no labels, one is missing, or an argument is out of range.
    """
    kernel = kernel_of(kernel)
    if size < 1 or (compat and size != SIZE):
        raise ValueError(f"size is {size}; it must be at least 1, and {SIZE} under compat")
    items = kernel_labels(labels, kernel)
    if quality is not None and len(quality) != len(items):
        raise ValueError(f"{len(quality)} qualities for {len(items)} labels; give one for each")
    used = _COMPAT_USED if compat and len(items) < _COMPAT_FEW else len(items)
    matrix = label_kernel(items[:used], kernel.labels.weights, nested=kernel.nested)
    found = []
    for start in range(0, min(used, len(items)), size):
        part = matrix[start : start + size, start : start + size]
        score = vendi_of(part, q)
        mean = mean_quality(None if quality is None else quality[start : start + len(part)], None, len(part))
        found.append(Chunk(len(part), score, score / (size if compat else len(part)), mean))
    return found


def kernel_labels(labels: Sequence[Sequence[Hashable]], kernel: CultureKernel) -> list[tuple[Hashable, ...]]:
    """Return of each picture the labels that a kernel looks at.

    Raises:
        ValueError: If there are none, or one is missing.
    """
    places = [LEVELS.index(level) for level in kernel.levels]
    items = []
    for number, label in enumerate(labels):
        if isinstance(label, str) or len(label) != len(LEVELS):
            raise ValueError(f"label {number} is {label!r}; give (continent, country, artifact)")
        item = tuple(label[place] for place in places)
        if None in item:
            raise ValueError(f"picture {number} has no {kernel.levels[item.index(None)]}; leave it out and count it")
        items.append(item)
    if not items:
        raise ValueError("there are no labels")
    return items


def vendi_of(kernel: Array, q: float | str = 1.0) -> float:
    """Return the Vendi score of a kernel matrix, [n, n], with ones on its diagonal."""
    return score_of(clean(np.linalg.eigvalsh(kernel / len(kernel)), len(kernel)).values, orders_of(q)[0])
