"""Chunks: golden values of the published notebook, and where it is put right."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2ialign.eval.culture.chunks import chunk_scores
from t2ialign.eval.culture.kernels import KERNELS, CultureKernel, kernel_of

Label = tuple[str | None, str | None, str | None]


def same(letters: str) -> list[Label]:
    """Labels that are alike on all levels where the letters are."""
    return [(letter, letter, letter) for letter in letters]


def mean(labels: Sequence[Label], **settings: object) -> float:
    chunks = chunk_scores(labels, **settings)  # type: ignore[arg-type]
    return sum(chunk.diversity for chunk in chunks) / len(chunks)


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize(
    ("letters", "value"), [("a" * 8, 0.125), ("aaaabbbb", 0.25), ("abcdefgh", 1.0), ("abcdefgh" * 4, 1.0)]
)
def test_golden_values(letters: str, value: float, compat: bool) -> None:
    assert mean(same(letters), compat=compat) == pytest.approx(value, abs=1e-12)


def test_a_short_chunk_has_its_own_length() -> None:
    assert mean(same("abcd")) == pytest.approx(1.0)
    assert mean(same("abcd"), compat=True) == pytest.approx(0.5)
    assert mean(same("aaaaaaaa" + "abcd")) == pytest.approx((0.125 + 1) / 2)
    assert mean(same("aaaaaaaa" + "abcd"), compat=True) == pytest.approx((0.125 + 0.5) / 2)


def test_compat_uses_the_first_24_of_fewer_than_32() -> None:
    labels = same("abcdefgh" * 3 + "aaaaaaa")
    assert len(chunk_scores(labels, compat=True)) == 3
    assert mean(labels, compat=True) == pytest.approx(1.0)
    assert mean(labels) == pytest.approx((3 + 1 / 7) / 4)
    full = same("abcdefgh" * 3 + "aaaaaaaa")
    assert len(chunk_scores(full, compat=True)) == 4
    assert mean(full, compat=True) == mean(full)


def test_the_order_given_is_kept() -> None:
    assert mean(same("aaaaaaaabbbbbbbb")) == pytest.approx(0.125)
    assert mean(same("abababababababab")) == pytest.approx(0.25)


@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=40))
def test_one_label_is_the_exponential_of_its_entropy(letters: list[str]) -> None:
    for i, chunk in enumerate(chunk_scores(same("".join(letters)))):
        part = letters[8 * i : 8 * i + 8]
        shares = [count / len(part) for count in Counter(part).values()]
        assert chunk.n == len(part)
        assert chunk.vendi == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)), rel=1e-9)


LABELS: list[Label] = [
    ("Asia", "Japan", "sushi"),
    ("Asia", "Japan", "kimono"),
    ("Asia", "India", "sari"),
    ("Europe", "Italy", "pizza"),
    ("Europe", "Japan", "sushi"),  # a contradiction: Japan of Europe
]


def by_hand(name: str, a: Label, b: Label) -> float:
    equal = [x == y for x, y in zip(a, b, strict=True)]
    match name:
        case "continent" | "country" | "artifact":
            return float(equal[("continent", "country", "artifact").index(name)])
        case "uniform":
            return sum(equal) / 3
        case _:
            return (equal[0] + (equal[0] and equal[1]) + all(equal)) / 3


@pytest.mark.parametrize("name", list(KERNELS))
def test_kernels_against_a_matrix_by_hand(name: str) -> None:
    matrix = np.array([[by_hand(name, a, b) for b in LABELS] for a in LABELS])
    values = np.linalg.eigvalsh(matrix / len(matrix))
    values = values[values > 1e-12]
    (chunk,) = chunk_scores(LABELS, name)
    assert chunk.vendi == pytest.approx(math.exp(-np.sum(values * np.log(values))), rel=1e-10)


def test_weights_are_a_kernel_too() -> None:
    assert chunk_scores(LABELS, (0, 1, 0)) == chunk_scores(LABELS, "country")
    assert kernel_of("hierarchical").levels == ("continent", "country", "artifact")
    assert CultureKernel("n", (0, 1, 0), nested=True).levels == ("continent", "country")
    for wrong in ((1, 1, 0), (-1, 1, 1), (0.5, 0.5)):
        with pytest.raises(ValueError, match="weights"):
            kernel_of(wrong)
    with pytest.raises(ValueError, match="unknown kernel 'city'"):
        kernel_of("city")


def test_quality_is_its_own_figure_and_a_factor() -> None:
    (chunk,) = chunk_scores(same("aaaabbbb"), quality=[0.2] * 4 + [0.4] * 4)
    assert chunk.quality == pytest.approx(0.3)
    assert chunk.diversity == pytest.approx(0.25)
    assert chunk.quality_weighted == pytest.approx(0.075)
    assert chunk_scores(same("ab"))[0].quality_weighted is None
    for wrong in ([0.1], [-0.1, 0.2], [math.nan, 1.0]):
        with pytest.raises(ValueError, match="qualit"):
            chunk_scores(same("ab"), quality=wrong)


def test_the_golden_quality_weighted_score() -> None:
    """Nguyen and Dieng's example: items 0, 0, 2 with k = exp(-|a - b|) and s = exp(-|a - 2|)."""
    from t2ialign.eval.culture.chunks import vendi_of

    items = np.array([0.0, 0.0, 2.0])
    kernel = np.exp(-np.abs(items[:, None] - items))
    assert np.exp(-np.abs(items - 2)).mean() * vendi_of(kernel) == pytest.approx(0.793705659274703, abs=1e-12)


def test_a_missing_label_is_refused_only_where_it_is_looked_at() -> None:
    labels: list[Label] = [(None, None, "sari"), (None, None, "kimono")]
    assert chunk_scores(labels, "artifact")[0].diversity == pytest.approx(1.0)
    with pytest.raises(ValueError, match="picture 0 has no country"):
        chunk_scores(labels, "country")
    with pytest.raises(ValueError, match="no labels"):
        chunk_scores([])
    with pytest.raises(ValueError, match="size"):
        chunk_scores(labels, "artifact", size=4, compat=True)
