"""Diversity of one prompt's pictures, averaged over random orders, and what each picture contributes to its error.

Law of this file: the orders are a function of (seed, prompt id). Averaged over all orders, the mean over full chunks
of m pictures is a U-statistic of degree m (Hoeffding, 1948): an unbiased estimate of what m further pictures of the
prompt would score, whatever the number n of pictures at hand. So figures of different n compare.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from t2ialign.eval.culture.chunks import SIZE, kernel_labels, vendi_of
from t2ialign.eval.culture.kernels import CultureKernel
from t2ialign.eval.vendi.kernels import label_kernel

Array = npt.NDArray[np.float64]
Short = Literal["leave_out", "own"]
_ONE_MORE = "one more"
REPEATS = 1000
"""Random orders that are averaged."""


class Measures(NamedTuple):
    """Diversity of a prompt, mean quality, quality times diversity; the last two are NaN without qualities."""

    diversity: float
    quality: float
    quality_weighted: float


@dataclass(frozen=True)
class PromptDiversity:
    """Diversity of the pictures of a prompt.

    Attributes:
        n: Pictures that have all labels the kernel looks at.
        value: The figures, averaged over random orders; `None` if there are too few pictures for a full chunk.
        parts: By picture's key: its share of the standard error, a signed number each for the three figures. Their
            squares sum to the jackknife variance. Where all pictures are alike, or none is like another, one more is
            imagined that breaks the pattern.
    """

    n: int
    value: Measures | None
    parts: dict[Hashable, Measures] = field(default_factory=dict, repr=False)

    def variance(self, measure: int = 0) -> float | None:
        """Return the jackknife variance over seeds of a figure, by its place; `None` where there is none."""
        return sum(part[measure] ** 2 for part in self.parts.values()) if self.parts else None


def prompt_diversity(
    prompt_id: str,
    keys: Sequence[Hashable],
    labels: Sequence[Sequence[Hashable]],
    kernel: CultureKernel,
    quality: Sequence[float] | None = None,
    *,
    size: int = SIZE,
    q: float | str = 1.0,
    repeats: int = REPEATS,
    seed: int = 0,
    short: Short = "leave_out",
) -> PromptDiversity:
    """Measure the diversity of one prompt's pictures.

    Args:
        prompt_id: Draws the orders, with `seed`.
        keys: Of the pictures, [n], for instance sample numbers.
        labels: (continent, country, artifact) of each; what the kernel looks at must be there.
        kernel: When pictures count as alike.
        quality: Of each, at least 0.
        size: Pictures in a chunk.
        q: Order of the Vendi score.
        repeats: Random orders.
        seed: Of the orders.
        short: What becomes of the pictures that an order leaves over. `"leave_out"`: nothing; another order takes
            others. `"own"`: they are a chunk too, divided by its own length; VS / n is higher in short chunks, so
            figures then depend on n.

    Raises:
        ValueError: If an argument is out of range.
    """
    if size < 1 or repeats < 1:
        raise ValueError(f"size is {size} and repeats {repeats}; both must be at least 1")
    if short not in ("leave_out", "own"):
        raise ValueError(f"short is {short!r}; take 'leave_out' or 'own'")
    n = len(labels)
    if not n or (n < size and short == "leave_out"):
        return PromptDiversity(n, None)
    orders = _orders(prompt_id, n, repeats, seed)
    full = n // size
    scorer = _Scorer(kernel_labels(labels, kernel), kernel, q, quality)
    chunks = orders[:, : full * size].reshape(-1, size)
    values = scorer.score(chunks)
    total, weight = values.reshape(repeats, full, 3).sum(axis=1), full
    if short == "own" and n % size:
        total, weight = total + scorer.score(orders[:, full * size :]), full + 1
    value = Measures(*(total / weight).mean(axis=0).tolist())
    parts = _parts(keys, chunks, values) if n > size else _parts_of_one_chunk(keys, scorer)
    if scorer.unvaried:
        parts = _parts_of_one_more(prompt_id, keys, scorer, parts, size, repeats, seed)
    return PromptDiversity(n, value, parts)


def _orders(prompt_id: str, n: int, repeats: int, seed: int) -> npt.NDArray[np.int64]:
    """Draw random orders, [repeats, n]."""
    digest = hashlib.sha256(f"culture\0{seed}\0{prompt_id}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    return np.asarray(generator.permuted(np.tile(np.arange(n), (repeats, 1)), axis=1))


class _Scorer:
    """Scores chunks; those with the same labels are computed once."""

    def __init__(
        self, items: list[tuple[Hashable, ...]], kernel: CultureKernel, q: float | str, quality: Sequence[float] | None
    ) -> None:
        codes: dict[Hashable, int] = {}
        self.codes = np.array([codes.setdefault(item, len(codes)) for item in items])
        self.matrix = label_kernel(list(codes), kernel.labels.weights, nested=kernel.nested)
        self.quality = np.full(len(items), math.nan) if quality is None else np.asarray(quality, dtype=np.float64)
        if quality is not None and not (len(quality) == len(items) and np.all(self.quality >= 0)):
            raise ValueError("give one quality of at least 0 for each picture; map scores that may be negative first")
        self.q = q
        self.unvaried = len(codes) in (1, len(items))

    def one_more(self) -> None:
        """Add a picture that breaks the pattern: unlike all where all are alike, like the first where none is."""
        alike = len(self.matrix) == 1
        self.codes = np.append(self.codes, 1 if alike else 0)
        self.matrix = np.eye(2) if alike else self.matrix
        self.quality = np.append(self.quality, self.quality.mean())

    def score(self, chunks: npt.NDArray[np.int64]) -> Array:
        """Return diversity, quality and their product of each chunk, [C, 3]."""
        kinds, places = np.unique(np.sort(self.codes[chunks], axis=1), axis=0, return_inverse=True)
        scores = np.array([vendi_of(self.matrix[np.ix_(kind, kind)], self.q) for kind in kinds])
        diversity = scores[places.reshape(-1)] / chunks.shape[1]
        quality = self.quality[chunks].mean(axis=1)
        return np.stack([diversity, quality, quality * diversity], axis=1)


def _parts_of_one_chunk(keys: Sequence[Hashable], scorer: _Scorer) -> dict[Hashable, Measures]:
    """Return the shares where there is no more than one chunk: the jackknife of its Vendi score over n."""
    n = len(keys)
    if n < 2:
        return {}
    rest = np.array([[j for j in range(n) if j != i] for i in range(n)])
    left = scorer.score(rest) * np.array([(n - 1) / n, 1.0, (n - 1) / n])
    shares = math.sqrt((n - 1) / n) * (left - left.mean(axis=0))
    return {key: Measures(*row) for key, row in zip(keys, shares.tolist(), strict=True)}


def _parts_of_one_more(
    prompt_id: str,
    keys: Sequence[Hashable],
    scorer: _Scorer,
    parts: dict[Hashable, Measures],
    size: int,
    repeats: int,
    seed: int,
) -> dict[Hashable, Measures]:
    """Return the shares where all pictures are alike, or none is like another, and leaving one out changes nothing.

    That nothing else was seen does not mean that nothing else comes: the shares are those of the pictures and one more
    that breaks the pattern, as in Laplace's rule of succession. The mean quality keeps its own.
    """
    scorer.one_more()
    n = len(keys) + 1
    chunks = _orders(prompt_id, n, repeats, seed)[:, : n // size * size].reshape(-1, size)
    more = _parts([*keys, _ONE_MORE], chunks, scorer.score(chunks))
    return {key: part._replace(quality=parts[key].quality if key in parts else 0.0) for key, part in more.items()}


def _parts(keys: Sequence[Hashable], chunks: npt.NDArray[np.int64], values: Array) -> dict[Hashable, Measures]:
    """Leave each picture out in turn: the mean over chunks without it, less the mean of these, times sqrt((n-1)/n)."""
    n = len(keys)
    if np.any(np.bincount(chunks.reshape(-1), minlength=n) == len(values)):  # too few orders to leave it out
        return {}
    held = np.zeros((n, values.shape[1]))
    counts = np.bincount(chunks.reshape(-1), minlength=n)
    for column in range(values.shape[1]):
        held[:, column] = np.bincount(
            chunks.reshape(-1), weights=np.repeat(values[:, column], chunks.shape[1]), minlength=n
        )
    left = (values.sum(axis=0) - held) / (len(values) - counts)[:, None]
    shares = math.sqrt((n - 1) / n) * (left - left.mean(axis=0))
    return {key: Measures(*row) for key, row in zip(keys, shares.tolist(), strict=True)}
