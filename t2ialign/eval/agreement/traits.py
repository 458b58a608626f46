"""What should not matter to a rating: lengths, brightness, sharpness and size, and whether it does.

Law of this file: what a trait does to an annotator is judged against the reference where there is one, for people too
may like what is bright; found means associated, never caused.

With x the trait, d the annotator's and h the reference's ratings, all centred within prompts, the residual is
`z = d / |d| - h / |h|`: both sides are brought to one spread before they are subtracted, so that an annotator who uses
half of the scale is not called biased. Against pairs, x is the difference of two pictures, d and h are verdicts (1, 0,
-1).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from t2ialign.data.images import open_image
from t2ialign.errors import DataError
from t2ialign.eval.agreement.comparing import by_prompt
from t2ialign.eval.agreement.resampling import Figure, estimates, shuffle_test, sign_flip_test
from t2ialign.eval.agreement.sides import AGGREGATE, Key, Rated, Verdict, sign_label
from t2ialign.eval.statistics import Array

Found = dict[str, Any]
PICTURE_TRAITS = ("brightness", "sharpness", "size")
_NONE = 1e-12
"""Below this a normalised spread is round-off."""


class Traits(NamedTuple):
    """Of a picture.

    Attributes:
        brightness: Mean luma, 0 to 1.
        sharpness: Decimal logarithm of the variance of the luma's Laplacian (plus 1e-6), on its own pixels.
        size: Logarithm to base 2 of the number of pixels.
    """

    brightness: float
    sharpness: float
    size: float


def picture_traits(source: Path | bytes, name: str) -> Traits:
    """Measure a picture.

    Raises:
        DataError: If it can not be read.
    """
    image = open_image(source, name=name)
    luma = np.asarray(image.convert("L"), dtype=np.float64) / 255
    edges = np.pad(luma, 1, mode="edge")
    laplacian = edges[:-2, 1:-1] + edges[2:, 1:-1] + edges[1:-1, :-2] + edges[1:-1, 2:] - 4 * luma
    return Traits(float(luma.mean()), float(np.log10(1e-6 + laplacian.var())), float(np.log2(luma.size)))


def measure_pictures(
    keys: Iterable[Key], source: Callable[[Key], Path | bytes | None]
) -> tuple[dict[Key, Traits], int]:
    """Measure all pictures that are there; return them, and how many are not or can not be read."""
    found: dict[Key, Traits] = {}
    missing = 0
    for key in keys:
        place = source(key)
        try:
            if place is None:
                raise DataError("there is no file")
            found[key] = picture_traits(place, key.digest[:12])
        except (DataError, OSError):
            missing += 1
    return found, missing


def rationale_lengths(rated: Rated, aspect: str) -> dict[Key, float]:
    """Return the mean number of characters of each picture's rationales; for the aggregate, of all together."""
    aspects = list(rated.rationales) if aspect == AGGREGATE else [aspect]
    total: dict[Key, float] = defaultdict(float)
    for name in aspects:
        for key, texts in rated.rationales.get(name, {}).items():
            total[key] += sum(map(len, texts)) / len(texts)
    return dict(total)


def within_prompts(
    trait: Mapping[Key, float],
    mine: Mapping[Key, float],
    theirs: Mapping[Key, float] | None,
    resamples: int,
    seed: int,
) -> Found:
    """Correlate a trait of pictures with their ratings, within prompts.

    Args:
        trait: Of each picture.
        mine: The annotator's ratings.
        theirs: The reference's; `None` to judge the rating itself.
        resamples: Of the bootstrap and of the test.
        seed: Of both.

    Returns:
        See `_described`.
    """
    prompts: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for key, value in trait.items():
        if key in mine and (theirs is None or key in theirs):
            prompts[key.prompt].append((value, mine[key], 0.0 if theirs is None else theirs[key]))
    groups = [np.array(rows) for rows in prompts.values() if len(rows) > 1]
    sums = np.array([_products(rows - rows.mean(axis=0)) for rows in groups]).reshape(-1, 6)
    return _described(sums, sum(map(len, groups)), theirs is not None, resamples, seed)


def between_verdicts(
    trait: Mapping[Key, float], mine: Mapping[Key, float], theirs: Iterable[Verdict], resamples: int, seed: int
) -> Found:
    """Correlate the difference in a trait of two pictures with the difference between two verdicts on them.

    Args:
        trait: Of each picture.
        mine: The annotator's ratings.
        theirs: Somebody's verdicts.
        resamples: Of the bootstrap and of the test.
        seed: Of both.

    Returns:
        See `_described`; its pictures are those of the pairs.
    """
    rows, prompts, pictures = [], [], set()
    for verdict in theirs:
        one, two = verdict.first, verdict.second
        if one in trait and two in trait and one in mine and two in mine:
            said = 2 * sign_label(mine[one] - mine[two]) - 1
            rows.append(_products(np.array([[trait[one] - trait[two], said, 2 * verdict.label - 1]])))
            prompts.append(one.prompt)
            pictures |= {one, two}
    sums = by_prompt(np.array(rows).reshape(-1, 6), prompts)
    return _described(sums, len(pictures), True, resamples, seed)


def _products(rows: Array) -> Array:
    """Return sums of the products xx, dd, hh, xd, xh, dh of rows (x, d, h)."""
    x, d, h = rows.T
    return np.array([x @ x, d @ d, h @ h, x @ d, x @ h, d @ h])


def _described(sums: Array, pictures: int, residual: bool, resamples: int, seed: int) -> Found:
    """Return the correlations of a trait, and the test.

    Returns:
        `judged` (`residual` or `rating`), `n_prompts`, `n_pictures`, `correlation` (that which is judged),
        `with_rating`, `with_reference` (`None` without one), each `value` and `ci95`, `p` (`None` where it can not be
        tested) and `reason` why not.
    """
    found: Found = {"judged": "residual" if residual else "rating", "n_prompts": len(sums), "n_pictures": pictures}
    total = sums.sum(axis=0)
    reason = _untestable(sums, total)
    found |= _correlations(sums, residual, resamples, seed)
    parts = _parts(sums, total) if residual else sums[:, 3]
    return found | {"p": None if reason else sign_flip_test(parts, resamples, seed), "reason": reason}


def _correlations(
    rows: Array, residual: bool, resamples: int, seed: int, products: Callable[[Array], Array] = lambda total: total
) -> dict[str, Any]:
    """Return `correlation`, `with_rating`, `with_reference`; `products` makes sums of `_products` of sums of rows."""
    figures: dict[str, Figure] = {"with_rating": lambda total: _correlation(products(total), 3, 1)}
    if residual:
        figures["correlation"] = lambda total: _residual_correlation(products(total))
        figures["with_reference"] = lambda total: _correlation(products(total), 4, 2)
    found: dict[str, Any] = dict(estimates(rows, figures, resamples, seed))
    return {"correlation": found["with_rating"], "with_reference": None} | found


def _untestable(sums: Array, total: Array) -> str:
    if len(sums) < 2:
        return "fewer than two prompts with two pictures"
    if total[0] <= _NONE * max(1, len(sums)):
        return "it does not differ between the pictures of a prompt"
    return "the ratings do not differ between the pictures of a prompt" if total[1] <= _NONE else ""


def _correlation(t: Array, xy: int, yy: int) -> Any:
    """Return the correlation of x with the side whose products stand at these places."""
    with np.errstate(divide="ignore", invalid="ignore"):
        known = (t[..., 0] > _NONE) & (t[..., yy] > _NONE)
        return np.where(known, t[..., xy] / np.sqrt(t[..., 0] * t[..., yy]), np.nan)


def _residual_correlation(t: Array) -> Any:
    """Return the correlation of x with `z = d / |d| - h / |h|`; where the reference does not vary, z is d."""
    with np.errstate(divide="ignore", invalid="ignore"):
        d, h = np.sqrt(t[..., 1]), np.sqrt(t[..., 2])
        flat = h <= _NONE
        xz = t[..., 3] / d - np.where(flat, 0, t[..., 4] / h)
        zz = np.where(flat, 1, 2 - 2 * t[..., 5] / (d * h))
        return np.where((zz > _NONE) & (t[..., 0] > _NONE), xz / np.sqrt(t[..., 0] * zz), np.nan)


def _parts(sums: Array, total: Array) -> Array:
    """Return each prompt's part of the product of x and z, 0 where the two sides do not differ."""
    d, h = np.sqrt(total[1]), np.sqrt(total[2])
    if d <= _NONE:
        return np.zeros(len(sums))
    if h <= _NONE:
        return np.asarray(sums[:, 3] / d)
    if 2 - 2 * total[5] / (d * h) <= _NONE:
        return np.zeros(len(sums))
    return np.asarray(sums[:, 3] / d - sums[:, 4] / h)


def caption_length(mine: Mapping[Key, float], theirs: Mapping[Key, float] | None, resamples: int, seed: int) -> Found:
    """Correlate the number of words of a prompt with the mean rating of its pictures, over prompts.

    Args:
        mine: The annotator's ratings.
        theirs: The reference's, to judge the residual; `None` to judge the rating itself.
        resamples: Of the bootstrap and of the test.
        seed: Of both.

    Returns:
        As `_described`.
    """
    groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for key, value in mine.items():
        if theirs is None or key in theirs:
            groups[key.prompt].append((value, 0.0 if theirs is None else theirs[key]))
    data = np.array([[len(p.split()), *np.mean(rows, axis=0)] for p, rows in groups.items()]).reshape(-1, 3)
    residual = theirs is not None
    found: Found = {"judged": "residual" if residual else "rating", "n_prompts": len(data)}
    found["n_pictures"] = sum(map(len, groups.values()))
    rows = np.concatenate(
        [np.ones((len(data), 1)), data, np.array([_products(row[None]) for row in data]).reshape(-1, 6)], 1
    )
    found |= _correlations(rows, residual, resamples, seed, _centred)
    if len(data) < 3 or np.ptp(data[:, 0]) == 0:
        return found | {"p": None, "reason": "the prompts do not differ in length" if len(data) else "no prompt"}
    z = _standard(data[:, 1]) - (_standard(data[:, 2]) if residual else 0)
    z = np.zeros(len(z)) if np.ptp(z) <= _NONE else z
    return found | {"p": shuffle_test(data[:, 0], z, resamples, seed), "reason": ""}


def _standard(values: Array) -> Array:
    centred = values - values.mean()
    length = float(np.sqrt(centred @ centred))
    return np.asarray(centred / length) if length > _NONE else np.zeros(len(values))


def _centred(t: Array) -> Array:
    """Return the centred products of sums (n, x, d, h, xx, dd, hh, xd, xh, dh), [..., 6]."""
    n, x, d, h = (t[..., i] for i in range(4))
    outer = [(x, x), (d, d), (h, h), (x, d), (x, h), (d, h)]
    return np.stack([t[..., 4 + i] - a * b / np.maximum(n, 1) for i, (a, b) in enumerate(outer)], axis=-1)
