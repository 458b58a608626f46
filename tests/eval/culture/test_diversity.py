"""Diversity of sets: against enumeration of all orders, under simulation, and on sets that are known."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from t2ialign.errors import DataError
from t2ialign.eval.culture.compare import compare_diversity
from t2ialign.eval.culture.diversity import DiversityReport, measure_diversity
from t2ialign.eval.culture.estimates import estimate, seeds_interval
from t2ialign.eval.culture.geotag import TaggedPicture, stated_tag
from t2ialign.eval.culture.kernels import KERNELS
from t2ialign.eval.culture.orders import prompt_diversity

COUNTRIES = ("Nigeria", "Kenya", "Japan", "India", "Italy", "France", "Brazil", "Peru", "Canada", "Fiji")


def picture(
    prompt: str, sample: int, country: str | None, seed: int | None = None, category: str | None = None
) -> TaggedPicture:
    tag = stated_tag(None, country, f"dish of {country}" if country else None)
    name = f"{prompt}/{sample}.png"
    labels = (tag.continent, tag.country, tag.artifact)
    return TaggedPicture(name, prompt, *labels, "test", f"text of {prompt}", sample, seed, category, tag.problem)


def drawn(prompts: int, n: int, shares: Sequence[float], seed: int, seeded: bool = True) -> list[TaggedPicture]:
    rng = np.random.default_rng(seed)
    rows = []
    for p in range(prompts):
        for s, c in enumerate(rng.choice(len(shares), n, p=shares)):
            rows.append(picture(f"p{p}", s, COUNTRIES[c], 100 * p + s if seeded else None, f"c{p % 2}"))
    return rows


def entropy_score(labels: Sequence[Any]) -> float:
    shares = [count / len(labels) for count in Counter(labels).values()]
    return math.exp(-sum(p * math.log(p) for p in shares)) / len(labels)


def truth(shares: Sequence[float], size: int = 8, draws: int = 100_000) -> float:
    """The expected VS / n of `size` pictures, by plain simulation."""
    counts = np.random.default_rng(99).multinomial(size, shares, size=draws) / size
    logs = np.where(counts > 0, counts * np.log(np.where(counts > 0, counts, 1)), 0)
    return float(np.exp(-logs.sum(axis=1)).mean() / size)


def test_random_orders_tend_to_all_subsets() -> None:
    """The mean over all orders is the mean over all subsets; the jackknife's shares are those of the subsets too."""
    labels = [(c, c, c) for c in "aaaabbcdee"]
    quality = [0.1 * i for i in range(10)]
    found = prompt_diversity("p", range(10), labels, KERNELS["country"], quality, repeats=20_000)
    subsets = list(combinations(range(10), 8))
    scores = [entropy_score([labels[i] for i in s]) for s in subsets]
    weighted = [d * sum(quality[i] for i in s) / 8 for d, s in zip(scores, subsets, strict=True)]
    assert found.value is not None
    assert found.value.diversity == pytest.approx(np.mean(scores), abs=2e-3)
    assert found.value.quality == pytest.approx(0.45, abs=2e-3)
    assert found.value.quality_weighted == pytest.approx(np.mean(weighted), abs=2e-3)
    left = np.array([np.mean([d for d, s in zip(scores, subsets, strict=True) if i not in s]) for i in range(10)])
    assert found.variance() == pytest.approx(0.9 * np.sum((left - left.mean()) ** 2), rel=0.1)


def test_orders_are_a_function_of_seed_and_prompt() -> None:
    labels = [(c, c, c) for c in "aaabbbcccddeeffg"]

    def value(prompt: str, seed: int) -> float:
        found = prompt_diversity(prompt, range(16), labels, KERNELS["country"], repeats=5, seed=seed).value
        assert found is not None
        return found.diversity

    assert value("p", 0) == value("p", 0)
    assert value("p", 0) != value("p", 1)
    assert value("p", 0) != value("q", 0)


def test_a_set_measured_alone_or_beside_others_is_the_same() -> None:
    rows = drawn(3, 16, [0.4, 0.3, 0.2, 0.1], 0)
    whole = measure_diversity(rows, ["country"]).kernels["country"]
    alone = measure_diversity([row for row in rows if row.prompt_id == "p1"], ["country"]).kernels["country"]
    assert alone.to_dict()["prompts"]["p1"] == whole.to_dict()["prompts"]["p1"]
    turned = measure_diversity(rows[::-1], ["country"]).kernels["country"]
    assert turned.to_dict()["prompts"]["p1"] == whole.to_dict()["prompts"]["p1"]


@pytest.mark.parametrize("n", [8, 11, 16, 24])
def test_the_estimate_does_not_depend_on_the_number_of_pictures(n: int) -> None:
    """Unbiased for the expected VS / 8 of 8 pictures, whatever n; the published way is not."""
    shares = [0.5, 0.2, 0.15, 0.1, 0.05]
    rng = np.random.default_rng(n)
    values = []
    for r in range(400):
        labels = [(int(c),) * 3 for c in rng.choice(5, n, p=shares)]
        found = prompt_diversity(f"{r}", range(n), labels, KERNELS["country"], repeats=20)
        assert found.value is not None
        values.append(found.value.diversity)
    error = np.std(values) / math.sqrt(len(values))
    assert abs(np.mean(values) - truth(shares)) < 3.3 * error


@pytest.mark.parametrize("shares", [[0.5, 0.2, 0.15, 0.1, 0.05], [0.9, 0.05, 0.05], [1 / 6] * 6, [1.0]])
def test_intervals_over_seeds_cover(shares: list[float]) -> None:
    """At 16 pictures of each of 3 prompts; also where a label is rare, or all pictures are alike."""
    expected, rng, covered = truth(shares), np.random.default_rng(3), 0
    for r in range(100):
        made = [
            prompt_diversity(
                f"{r} {p}",
                range(16),
                [(int(c),) * 3 for c in rng.choice(len(shares), 16, p=shares)],
                KERNELS["country"],
                repeats=200,
            )
            for p in range(3)
        ]
        value = float(np.mean([each.value.diversity for each in made if each.value]))
        found = seeds_interval(value, [[p.diversity for p in each.parts.values()] for each in made], (0.125, 1))
        assert found is not None
        covered += found.low - 1e-9 <= expected <= found.high + 1e-9
    assert covered >= 90


def test_an_interval_of_pictures_that_are_all_alike_is_no_point() -> None:
    report = measure_diversity([picture("p", s, "Japan", s) for s in range(16)], ["country"])
    found = report.kernels["country"].diversity
    assert found is not None
    assert found.value == pytest.approx(0.125)
    assert found.over_seeds is not None
    assert found.over_seeds.low == pytest.approx(0.125)
    assert 0.14 < found.over_seeds.high < 0.2
    assert found.over_prompts is None
    assert (found.over, found.interval) == ("seeds", found.over_seeds)


def test_all_different_pictures_score_one_with_an_interval_below() -> None:
    names = [f"dish {i}" for i in range(16)]
    labels = [("Asia", "Japan", name) for name in names]
    found = prompt_diversity("p", range(16), labels, KERNELS["artifact"])
    assert found.value is not None
    assert found.value.diversity == pytest.approx(1.0)
    assert found.variance() is not None
    assert 0 < (found.variance() or 0) < 0.05


def test_short_chunks_are_left_out_or_counted_with_their_own_length() -> None:
    labels = [(c, c, c) for c in "aaaaaaaabc"]
    left = prompt_diversity("p", range(10), labels, KERNELS["country"], repeats=4000)
    own = prompt_diversity("p", range(10), labels, KERNELS["country"], repeats=4000, short="own")
    assert left.value is not None
    assert own.value is not None
    pairs = [entropy_score([labels[i] for i in s]) for s in combinations(range(10), 2)]
    assert own.value.diversity == pytest.approx((left.value.diversity + np.mean(pairs)) / 2, abs=0.01)
    few = [(c, c, c) for c in "abc"]
    assert prompt_diversity("p", range(3), few, KERNELS["country"]).value is None
    alone = prompt_diversity("p", range(3), few, KERNELS["country"], short="own").value
    assert alone is not None
    assert alone.diversity == pytest.approx(1.0)


def test_what_has_no_label_is_counted_and_never_filled_in() -> None:
    rows = drawn(2, 16, [0.5, 0.5], 1)
    lost = [picture("p0", s, None, 900 + s) for s in range(16, 24)] + [picture("p9", 0, None)]
    whole, more = measure_diversity(rows), measure_diversity([*rows, *lost])
    for name in KERNELS:
        assert more.kernels[name].to_dict()["prompts"] == whole.kernels[name].to_dict()["prompts"]
        assert more.kernels[name].left_out == {"p9": 0}
    assert (more.coverage["country"].labelled, more.coverage["country"].n) == (32, 41)
    assert more.coverage["country"].share == pytest.approx((16 / 24 + 1 + 0) / 3)
    assert more.problems == {"no continent, country, artifact": 9}
    assert more.countries == whole.countries


def test_a_kernel_needs_only_its_own_labels() -> None:
    rows = [TaggedPicture(f"{i}.png", "p", "Asia", None, None, "t", sample=i) for i in range(16)]
    report = measure_diversity(rows)
    assert report.kernels["continent"].diversity is not None
    assert report.kernels["country"].diversity is None
    assert report.kernels["hierarchical"].diversity is None
    assert report.kernels["country"].left_out == {"p": 0}
    json.dumps(report.to_dict(), allow_nan=False)


def test_quality_is_reported_apart_and_as_a_factor() -> None:
    rows = drawn(4, 16, [0.5, 0.3, 0.2], 2)
    report = measure_diversity(rows, ["country"], quality={row.file_name: 0.25 for row in rows})
    found = report.kernels["country"]
    assert found.diversity is not None
    assert found.quality is not None
    assert found.quality_weighted is not None
    assert found.quality.value == pytest.approx(0.25)
    assert found.quality_weighted.value == pytest.approx(0.25 * found.diversity.value)
    json.dumps(report.to_dict(), allow_nan=False)
    with pytest.raises(DataError, match="has no quality"):
        measure_diversity(rows, quality={})
    with pytest.raises(DataError, match="must be 0 or more"):
        measure_diversity(rows, quality={row.file_name: -1.0 for row in rows})
    with pytest.raises(DataError, match="no tagged pictures"):
        measure_diversity([])


def test_categories_have_their_own_figures() -> None:
    report = measure_diversity(drawn(4, 16, [0.5, 0.3, 0.2], 2), ["country"]).kernels["country"]
    assert set(report.by_category) == {"c0", "c1"}
    assert report.diversity is not None
    assert report.diversity.value == pytest.approx(np.mean([each.value for each in report.by_category.values()]))


def test_the_interval_over_prompts_is_read_from_ten_prompts_on() -> None:
    few = measure_diversity(drawn(9, 16, [0.5, 0.3, 0.2], 4), ["country"]).kernels["country"].diversity
    many = measure_diversity(drawn(10, 16, [0.5, 0.3, 0.2], 4), ["country"]).kernels["country"].diversity
    assert few is not None
    assert many is not None
    assert (few.over, many.over) == ("seeds", "prompts")
    assert many.interval == many.over_prompts


# ---------------------------------------------------------------------------------------------
# One set against another


def measured(rows: list[TaggedPicture], **settings: Any) -> DiversityReport:
    return measure_diversity(rows, ["continent", "country"], **settings)


WIDE = [0.1] * 10
ONE_CONTINENT = [0.5, 0.5]


@pytest.mark.parametrize("prompts", [1, 3, 12])
def test_a_model_that_prefers_one_continent_is_found_out(prompts: int) -> None:
    base, other = measured(drawn(prompts, 16, WIDE, 5)), measured(drawn(prompts, 16, ONE_CONTINENT, 6))
    found = compare_diversity(base, other)
    change = found.kernels["continent"]
    assert change.verdict == "falls"
    assert change.difference.interval is not None
    assert change.difference.interval.high < 0
    assert change.other == pytest.approx(0.125)
    assert change.difference.value == pytest.approx(change.other - change.base)
    said = change.sentence("tuned")
    assert said.startswith("cultural diversity (continent) falls with tuned, from 0.")
    assert ("over seeds of" in said) == (prompts < 10)
    back = compare_diversity(other, base).kernels["continent"]
    assert back.verdict == "rises"
    assert back.difference.value == pytest.approx(-change.difference.value)
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("prompts", [3, 12])
def test_equal_models_are_rarely_told_apart(prompts: int) -> None:
    """The difference's interval covers zero in 95 % of repeats, within what 100 repeats can tell."""
    shares, wrong = [0.5, 0.2, 0.15, 0.1, 0.05], 0
    settings: dict[str, Any] = {"repeats": 30, "resamples": 400}
    for r in range(100):
        one = measure_diversity(drawn(prompts, 16, shares, 2 * r), ["country"], **settings)
        two = measure_diversity(drawn(prompts, 16, shares, 2 * r + 1, seeded=False), ["country"], **settings)
        wrong += compare_diversity(one, two, resamples=400).kernels["country"].verdict != "no difference shown"
    assert wrong <= 11  # Bin(100, 0.05) exceeds 11 in 0.4 % of cases


def test_pairs_of_seeds_narrow_the_interval() -> None:
    """Sets that share most pictures differ by little, and are known to."""
    rows = drawn(1, 64, [0.3, 0.2, 0.2, 0.2, 0.1], 7)
    changed = [*rows[:63], picture("p0", 63, "Fiji", 63)]
    alone = [TaggedPicture(**{**row.to_dict(), "seed": None}) for row in changed]
    paired = compare_diversity(measured(rows), measured(changed)).kernels["country"]
    unpaired = compare_diversity(measured(rows), measured(alone)).kernels["country"]
    assert (paired.paired, unpaired.paired) == (64, 0)
    assert paired.difference.value == pytest.approx(unpaired.difference.value)
    assert paired.difference.interval is not None
    assert unpaired.difference.interval is not None
    width = np.ptp(paired.difference.interval) / np.ptp(unpaired.difference.interval)
    assert width < 0.5


def test_a_set_equals_itself() -> None:
    report = measured(drawn(3, 16, WIDE, 8))
    found = compare_diversity(report, report).kernels["country"]
    assert found.difference.value == 0
    assert found.difference.over_seeds is not None
    assert tuple(found.difference.over_seeds) == (0, 0)
    assert found.verdict == "no difference shown"


def test_only_common_prompts_are_compared() -> None:
    rows = drawn(4, 16, WIDE, 9)
    part = [row for row in rows if row.prompt_id != "p3"]
    found = compare_diversity(measured(rows), measured(part)).kernels["country"]
    assert (found.difference.n_prompts, found.left_out, found.n_base, found.n_other) == (3, 1, 48, 48)
    with pytest.raises(DataError, match="no prompt has a diversity in both"):
        compare_diversity(measured(rows[:16]), measured(rows[16:]))


def test_what_was_measured_otherwise_is_not_compared() -> None:
    rows = drawn(2, 16, WIDE, 10)
    with pytest.raises(DataError, match=r"size is 8 in one and 4 in\s+the other"):
        compare_diversity(measured(rows), measured(rows, size=4))
    other = [TaggedPicture(**{**row.to_dict(), "prompt": "another text"}) for row in rows]
    with pytest.raises(DataError, match="prompt id 'p"):
        compare_diversity(measured(rows), measured(other))


def test_a_change_of_coverage_is_told() -> None:
    rows = drawn(2, 16, WIDE, 11)
    blind = [picture(row.prompt_id, row.sample, None) if row.sample >= 12 else row for row in rows]
    said = compare_diversity(measured(rows), measured(blind)).sentences("tuned")
    assert sum("whose country is known differs by -25 points with tuned" in each for each in said) == 1
    assert len(compare_diversity(measured(rows), measured(rows)).sentences()) == 2


def test_differences_of_quality_weighted_diversity() -> None:
    one, two = drawn(3, 16, WIDE, 12), drawn(3, 16, WIDE, 13)
    base = measured(one, quality={row.file_name: 0.2 for row in one})
    other = measured(two, quality={row.file_name: 0.6 for row in two})
    found = compare_diversity(base, other)
    assert found.quality["country"].difference.value == pytest.approx(0.4)
    assert found.quality_weighted["country"].verdict == "rises"
    assert compare_diversity(measured(one), other).quality == {}


def test_estimates_of_one_prompt_have_no_interval_over_prompts() -> None:
    found = estimate([0.5], [16], [[0.1, -0.1]], (0, 1))
    assert found.over_prompts is None
    assert found.over_seeds is not None
    assert estimate([0.5], [16], [[]], (0, 1)).interval is None
    json.dumps(found.to_dict(), allow_nan=False)
