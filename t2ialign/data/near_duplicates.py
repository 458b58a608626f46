"""Near-duplicate prompts: texts that say nearly the same in nearly the same letters.

Law of this file: the join is exact. Every pair of texts whose similarity reaches the threshold is found, and no other;
what is grouped does not depend on the order of the texts.

The similarity of two texts is the Jaccard index of their sets of shingles: all runs of `SHINGLE` characters of the
normalised text with a space before and after (Broder, "On the resemblance and containment of documents", 1997). Pairs
are found with the prefix filter of Chaudhuri, Ganti and Kaushik (2006) in the form that asks for several shared
shingles (AdaptJoin, Wang, Li and Feng, 2012): with the shingles of every text in one order, rare ones first, two texts
of similarity t share at least L of the first |x| - ceil(t |x|) + L. Sparse matrix products count what is shared.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHINGLE = 4
"""Characters of a shingle. With n of them in a text, a letter that is added inside takes 3 away and brings 4, so a
plural stays above `THRESHOLD` from some 32 letters on; another word of 5 letters takes 8 and brings 8, and so falls
below it up to some 70 letters."""
THRESHOLD = 0.8
"""Jaccard index from which two prompts are near-duplicates; the value usual for documents."""
_SHARED = 8
"""Shingles that two prefixes must share (L above): more of them are fewer candidates and longer prefixes."""
_CELLS = 4_000_000
"""About how many counts one matrix product may give at once; 16 bytes each."""

_NO_WORD = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class NearDuplicates:
    """Texts that belong together.

    Attributes:
        groups: Groups of two and more different texts, each sorted, the groups sorted too. Two texts are in one group
            if a chain of near-duplicates joins them.
        threshold: The similarity from which two texts are near-duplicates.
    """

    groups: tuple[tuple[str, ...], ...]
    threshold: float

    @property
    def count(self) -> int:
        """How many texts have a near-duplicate."""
        return sum(map(len, self.groups))

    @property
    def largest(self) -> int:
        """Texts in the largest group; 0 where there is none."""
        return max(map(len, self.groups), default=0)


def normalised(prompt: str) -> str:
    """Bring a prompt to the form in which prompts are compared.

    Compatibility forms (NFKC) and the case are taken away, and all that is no letter, digit or mark becomes one space.
    A prompt without letters and digits is compared as it is.
    """
    text = unicodedata.normalize("NFKC", prompt).casefold()
    prompt_as_it_is = text.strip()
    if not text.isascii():  # marks are no part of \w, and without them the syllables of many scripts are one
        text = "".join(each if each.isalnum() or unicodedata.category(each)[0] == "M" else " " for each in text)
        return " ".join(text.split()) or prompt_as_it_is
    return _NO_WORD.sub(" ", text).strip() or prompt_as_it_is


def similarity(first: str, second: str) -> float:
    """Return the Jaccard index of the shingles of two prompts, in [0, 1]; 1 where they are normalised to the same."""
    one, two = (_plain_shingles(normalised(text)) for text in (first, second))
    return len(one & two) / len(one | two)


def _plain_shingles(text: str) -> set[str]:
    padded = f" {text} "
    return {padded[start : start + SHINGLE] for start in range(max(1, len(padded) - SHINGLE + 1))}


def near_duplicates(prompts: Iterable[str], threshold: float = THRESHOLD) -> NearDuplicates:
    """Group prompts with their near-duplicates.

    Args:
        prompts: The prompts; those that are normalised to the same text count once.
        threshold: Jaccard index in (0, 1] from which two are near-duplicates.

    Returns:
        The groups, of normalised texts.

    Raises:
        ValueError: If the threshold is outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold}; it must be above 0 and at most 1")
    texts = sorted({normalised(prompt) for prompt in prompts})
    parents = list(range(len(texts)))
    for first, second in similar_pairs(texts, threshold):
        for one, two in zip(first.tolist(), second.tolist(), strict=True):
            _join(parents, one, two)
    members: dict[int, list[str]] = {}
    for number, text in enumerate(texts):
        members.setdefault(_root(parents, number), []).append(text)
    groups = sorted(tuple(group) for group in members.values() if len(group) > 1)
    return NearDuplicates(tuple(groups), threshold)


def across(first: Iterable[str], second: Iterable[str], threshold: float = THRESHOLD) -> list[tuple[str, str]]:
    """Find the prompts of one set that have a near-duplicate in another.

    Args:
        first: The one set.
        second: The other. What stands in both, letter for letter, is passed over.
        threshold: As for `near_duplicates`.

    Returns:
        Each such prompt of `first`, sorted, with the first in the alphabet of its near-duplicates in `second`.

    Raises:
        ValueError: If the threshold is outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold}; it must be above 0 and at most 1")
    others = set(second)
    sides = (_by_text(set(first) - others), _by_text(others))
    texts = sorted(sides[0].keys() | sides[1].keys())
    found: dict[str, list[str]] = {text: list(sides[1].get(text, [])) for text in sides[0]}
    here, there = (np.array([text in side for text in texts], dtype=bool) for side in sides)
    for one, two in similar_pairs(texts, threshold):
        for left, right in ((one, two), (two, one)):
            kept = here[left] & there[right]
            for place, other in zip(left[kept].tolist(), right[kept].tolist(), strict=True):
                found[texts[place]] += sides[1][texts[other]]
    return sorted(
        (prompt, min(found[text])) for text, prompts in sides[0].items() if found[text] for prompt in prompts
    )


def _by_text(prompts: Iterable[str]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for prompt in prompts:
        grouped.setdefault(normalised(prompt), []).append(prompt)
    return grouped


def similar_pairs(texts: Sequence[str], threshold: float) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Find all pairs of texts whose similarity reaches a threshold, some at a time.

    Args:
        texts: Normalised texts, all different.
        threshold: In (0, 1].

    Yields:
        The places of the first and of the second text of some pairs, first < second, `[P]` each.
    """
    if len(texts) < 2:
        return
    whole, prefix, sizes = _matrices(texts, threshold)
    needed = np.minimum(_SHARED, _least(sizes, threshold))
    other = prefix.T.tocsr()
    work = np.asarray(prefix @ np.asarray(other.getnnz(axis=1), dtype=np.int64)).ravel()
    for start, stop in _blocks(work):
        counts = (prefix[start:stop] @ other).tocoo()
        first, second = counts.row.astype(np.int64) + start, counts.col.astype(np.int64)
        small, large = np.minimum(sizes[first], sizes[second]), np.maximum(sizes[first], sizes[second])
        kept = (
            (first < second)
            & (counts.data >= np.minimum(needed[first], needed[second]))
            & (small >= _least(large, threshold))
        )
        first, second = first[kept], second[kept]
        if not len(first):
            continue
        shared = np.asarray(whole[first].multiply(whole[second]).sum(axis=1)).ravel().astype(np.int64)
        alike = _reaches(shared, sizes[first] + sizes[second] - shared, threshold)
        if alike.any():
            yield first[alike], second[alike]


def _least(sizes: NDArray[np.int64], threshold: float) -> NDArray[np.int64]:
    """The least overlap that a set of each size can have with one that is similar to it."""
    return np.asarray(np.maximum(1, np.ceil(sizes * threshold - 1e-9)), dtype=np.int64)


def _reaches(shared: NDArray[np.int64], union: NDArray[np.int64], threshold: float) -> NDArray[np.bool_]:
    """Whether shared / union reaches the threshold, as Python's own division says."""
    return np.asarray(shared / union >= threshold)


def _blocks(work: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Cut the rows into blocks whose products have about `_CELLS` terms."""
    ends = np.searchsorted(np.cumsum(work), np.arange(1, math.ceil(int(work.sum()) / _CELLS) + 1) * _CELLS, "left") + 1
    start = 0
    for stop in np.unique(np.minimum(ends, len(work))).tolist():
        if stop > start:
            yield start, stop
        start = stop
    if start < len(work):
        yield start, len(work)


def _matrices(texts: Sequence[str], threshold: float) -> tuple[Any, Any, NDArray[np.int64]]:
    """Return which text has which shingle, the same of the prefixes alone, and the number of shingles of each text."""
    from scipy.sparse import csr_matrix

    rows, names = _shingles(texts)
    _, columns, frequency = np.unique(names, return_inverse=True, return_counts=True)
    rank = np.empty(len(frequency), dtype=np.int64)
    rank[np.argsort(frequency, kind="stable")] = np.arange(len(frequency))
    columns = rank[columns]
    order = np.lexsort((columns, rows))
    rows, columns = rows[order], columns[order]
    sizes = np.bincount(rows, minlength=len(texts)).astype(np.int64)
    starts = np.concatenate(([0], np.cumsum(sizes)))
    place = np.arange(len(rows)) - starts[rows]
    early = place < (sizes - _least(sizes, threshold) + _SHARED)[rows]
    shape = (len(texts), len(frequency))

    def matrix(kept: NDArray[np.bool_] | slice) -> Any:
        ones = np.ones(len(rows[kept]), dtype=np.int32)
        return csr_matrix((ones, (rows[kept], columns[kept])), shape=shape)

    return matrix(slice(None)), matrix(early), sizes


def _shingles(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return the shingles of all texts, each once a text: the text's number and 64 bits that stand for the shingle.

    A shingle of Unicode's 21 bits a character is mixed into 64 bits, a one-to-one mapping where every character is
    below 2**16 and a hash otherwise.
    """
    padded = [f" {text} ".ljust(SHINGLE, "\0") for text in texts]
    lengths = np.array([len(text) for text in padded], dtype=np.int64)
    letters = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    rows = np.repeat(np.arange(len(texts), dtype=np.int64), lengths)
    count = len(letters) - SHINGLE + 1
    names = np.zeros(count, dtype=np.uint64)
    for place in range(SHINGLE):
        each = letters[place : place + count]
        names = names * np.uint64(1 << 16) + (each & np.uint64(0xFFFF)) + (each >> np.uint64(16)) * _FAR
    whole = rows[:count] == rows[SHINGLE - 1 :]
    pairs = np.empty(int(whole.sum()), dtype=[("row", np.int64), ("name", np.uint64)])
    pairs["row"], pairs["name"] = rows[:count][whole], names[whole]
    order = np.lexsort((pairs["name"], pairs["row"]))
    pairs = pairs[order]
    new = np.ones(len(pairs), dtype=bool)
    new[1:] = pairs[1:] != pairs[:-1]
    return pairs["row"][new], pairs["name"][new]


_FAR = np.uint64(0x9E3779B97F4A7C15)
"""Carries the upper bits of a character over the whole word: 2**64 over the golden ratio."""


def _root(parents: list[int], place: int) -> int:
    while parents[place] != place:
        parents[place] = parents[parents[place]]
        place = parents[place]
    return place


def _join(parents: list[int], first: int, second: int) -> None:
    one, two = _root(parents, first), _root(parents, second)
    if one != two:
        parents[max(one, two)] = min(one, two)


__all__ = [
    "SHINGLE",
    "THRESHOLD",
    "NearDuplicates",
    "across",
    "near_duplicates",
    "normalised",
    "similar_pairs",
    "similarity",
]
