"""What objectives are told of pairs, the options that choose them, and a curriculum's order."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.pairs import colour_pairs
from helpers.training import dpo_config, short_config
from t2ialign.data.pairs import PairDataset
from t2ialign.errors import ConfigError, DataError
from t2ialign.trainers import facts
from t2ialign.trainers.dpo import ENTRIES, DiffusionDPOTrainer, make_objective
from t2ialign.trainers.dpo_config import (
    OBJECTIVES,
    DirectionalOptions,
    DPOConfig,
    GroupRobustOptions,
    ModpoOptions,
    RdpoOptions,
    SoftOptions,
)


def test_shares_are_the_columns_or_made_of_margins(rich: PairDataset, tmp_path: Path) -> None:
    assert facts.preference_probs(rich, None).tolist() == pytest.approx([0.6 + 0.03 * n for n in range(12)])
    pairs = colour_pairs(tmp_path / "pairs", 2, margin=lambda n: 0.5 * n)
    assert facts.preference_probs(pairs, 0.25).tolist() == pytest.approx([0.5, 1 / (1 + np.exp(-2.0))])
    with pytest.raises(DataError, match=r"row 0 has no preference_prob; .*--soft\.temperature"):
        facts.preference_probs(pairs, None)


def test_groups_are_numbered_by_name(rich: PairDataset, tmp_path: Path) -> None:
    numbers, names = facts.groups(rich, "user_id")
    assert names == ["ann", "bob"]
    assert numbers.tolist() == [1, 0] * 6
    lone = colour_pairs(tmp_path / "lone", 2, group=lambda n: "all")
    with pytest.raises(DataError, match="one group alone, 'all'"):
        facts.groups(lone, "group")
    with pytest.raises(DataError, match="row 0 has no user_id"):
        facts.groups(lone, "user_id")


def test_gaps_are_in_units_of_each_scores_deviation(rich: PairDataset) -> None:
    chosen = np.array([[1.0 + n, n % 3] for n in range(12)])
    rejected = np.array([[0.5 * n, 1.0] for n in range(12)])
    spread = np.concatenate([chosen, rejected]).std(axis=0)
    expected = (chosen - rejected) / spread
    assert facts.score_gaps(rich, ["good", "fine"]).numpy() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(DataError, match=r"no score 'best' \(there are: fine, good\)"):
        facts.score_gaps(rich, ["best"])


def test_a_score_that_never_differs_is_refused(tmp_path: Path) -> None:
    pairs = colour_pairs(
        tmp_path / "pairs", 2, scores_chosen=lambda n: {"flat": 1.0}, scores_rejected=lambda n: {"flat": 1.0}
    )
    with pytest.raises(DataError, match="'flat' is the same for every picture"):
        facts.score_gaps(pairs, ["flat"])


def test_a_curriculum_takes_the_clearest_pairs_first(rich: PairDataset, pairs: PairDataset) -> None:
    stages = facts.curriculum(rich, 3)
    assert stages is not None
    margins = [0.1 * (n * 5 % 12) for n in range(12)]
    assert sorted(np.concatenate(stages).tolist()) == list(range(12))
    for earlier, later in pairwise(stages):
        assert min(margins[n] for n in earlier) >= max(margins[n] for n in later)
    assert facts.curriculum(rich, 1) is None
    with pytest.raises(DataError, match="too few"):
        facts.curriculum(rich, 13)
    with pytest.raises(DataError, match="row 0 has no margin"):
        facts.curriculum(pairs, 2)


def test_directions_make_soft_labels_that_may_turn_a_pair_round(rich: PairDataset) -> None:
    config = dpo_config(Path("run"), objective="directional", directional=DirectionalOptions(weights={"fine": 1.0}))
    _, known = make_objective(config, rich)
    shares = known["preference_prob"].tolist()
    assert shares[:2] == pytest.approx([1 - shares[2], 0.5])
    assert shares[2] > 0.5


def test_ties_stay_where_they_can_be_used(tmp_path: Path) -> None:
    colour_pairs(tmp_path / "pairs", 4, preference_prob=lambda n: 0.5 if n == 1 else 0.9)
    for objective, count in (("dpo", 3), ("soft", 4)):
        config = dpo_config(tmp_path / "run", pairs=str(tmp_path / "pairs"), objective=objective)
        assert len(DiffusionDPOTrainer(config).load_data()) == count


def test_an_option_of_another_objective_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rdpo.flip_rate is given, but the objective is 'cdpo'"):
        dpo_config(Path("run"), objective="cdpo", rdpo=RdpoOptions(flip_rate=0.2))
    assert dpo_config(Path("run"), objective="rdpo", rdpo=RdpoOptions(flip_rate=0.2)).rdpo.flip_rate == 0.2
    with pytest.raises(ConfigError, match=r"--modpo.weights"):
        dpo_config(Path("run"), objective="modpo")


@pytest.mark.parametrize(
    "make",
    [
        lambda: RdpoOptions(flip_rate=0.5),
        lambda: SoftOptions(temperature=0.0),
        lambda: ModpoOptions(weights={"a": 0.6, "b": 0.4}),
        lambda: ModpoOptions(weights={"a": -0.1}),
        lambda: GroupRobustOptions(rate=0.0),
        lambda: DirectionalOptions(temperature=-1.0),
        lambda: DPOConfig(output_dir=Path("r"), model="m", pairs="p", curriculum_stages=0),
    ],
)
def test_a_value_out_of_range_is_refused(make: object) -> None:
    with pytest.raises(ConfigError, match=r"must be|below 1"):
        make()  # type: ignore[operator]


REACHED: dict[str, tuple[dict[str, Any], Callable[[Any], Any], Any]] = {
    "orpo": ({"orpo.weight": 0.3, "orpo.kappa": 7.0}, lambda o: (o.link.weight, o.score.kappa), (0.3, 7.0)),
    "cdpo": ({"cdpo.flip_rate": 0.2}, lambda o: o.link.flip_rate, 0.2),
    "rdpo": ({"rdpo.flip_rate": 0.3}, lambda o: o.link.flip_rate, 0.3),
    "soft": ({"soft.form": "geometric"}, lambda o: type(o.link).__name__, "GeometricLabel"),
    "offset": ({"offset.scale": 3.0, "offset.shape": "log"}, lambda o: (o.offset.scale, o.offset.shape), (3.0, "log")),
    "fdpo": (
        {"fdpo.divergence": "alpha", "fdpo.alpha": 0.7, "fdpo.strength": 2.0},
        lambda o: (o.score.name, o.score.alpha, o.score.strength),
        ("alpha", 0.7, 2.0),
    ),
    "alpha_dpo": (
        {"alpha_dpo.mu": 0.5, "alpha_dpo.dynamic": "fixed", "alpha_dpo.alpha": 0.2},
        lambda o: (o.link.mu, o.link.dynamic, o.link.alpha),
        (0.5, "fixed", 0.2),
    ),
    "modpo": (
        {"modpo.weights": {"good": 0.2, "fine": 0.3}},
        lambda o: (o.offset.weights, o.offset.own, o.score.kappa),
        ((0.2, 0.3), 0.5, 500.0),
    ),
    "dr_dpo": ({"dr_dpo.temperature": 0.4}, lambda o: (o.reduce.temperature, o.reduce.pessimistic), (0.4, False)),
    "kl_dro": ({"kl_dro.temperature": 0.6}, lambda o: (o.reduce.temperature, o.reduce.pessimistic), (0.6, True)),
    "group_robust": (
        {"group_robust.rate": 0.03, "group_robust.by": "user_id"},
        lambda o: (o.reduce.rate, o.reduce.shares),
        (0.03, (0.5, 0.5)),
    ),
    "maxmin": ({"maxmin.by": "group"}, lambda o: o.reduce.count, 3),
}
"""Options of an objective, where they must arrive, and as what."""


@pytest.mark.parametrize("name", REACHED)
def test_every_option_reaches_its_objective(rich: PairDataset, name: str) -> None:
    options, where, expected = REACHED[name]
    objective, known = make_objective(short_config("dpo", Path("run"), objective=name, beta=500.0, **options), rich)
    assert where(objective) == expected
    assert set(known) == set(objective.needs)


def test_every_name_of_an_objective_is_made_by_one_entry() -> None:
    assert set(ENTRIES) == set(OBJECTIVES)


def test_what_is_missing_is_said_before_a_model_is_loaded(tmp_path: Path) -> None:
    colour_pairs(tmp_path / "pairs", 4)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"objective": "offset"}, "no margin"),
        ({"objective": "group_robust"}, "no group"),
        ({"curriculum_stages": 2}, "no margin"),
    ]
    for options, message in cases:
        config = short_config("dpo", tmp_path / "run", model="no such model", pairs=str(tmp_path / "pairs"), **options)
        with pytest.raises(DataError, match=message):
            DiffusionDPOTrainer(config).train()
