"""The family: golden values, what each turns into at its limits, and numbers at the edges."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.golden import KAPPA, MARGINS, golden_batch, golden_errors
from t2ialign.objectives import BatchInfo, Errors, Objective, dpo, family
from t2ialign.objectives.links import AlphaDivergence
from t2ialign.objectives.reductions import LogMeanExp
from t2ialign.objectives.scores import LogRatio, OddsScore

GOLDEN: dict[str, tuple[Objective, float]] = {
    "hinge": (family.hinge(KAPPA), 0.75),
    "orpo, sign corrected": (family.orpo(), 0.2678940264),
    "mapo": (family.mapo(), 0.5182990205),
    "cdpo": (family.cdpo(KAPPA, 0.1), 0.7841701568),
    "rdpo": (family.rdpo(KAPPA, 0.1), 0.4185451568),
    "soft": (family.soft(KAPPA), 0.6404201568),
    "geometric": (family.soft(KAPPA, "geometric"), 0.4194988122),
    "f-DPO, reverse KL": (family.fdpo(KAPPA, "reverse_kl"), 0.6216701568),
    "f-DPO, forward KL": (family.fdpo(KAPPA, "forward_kl"), 0.8500942145),
    "f-DPO, Jensen-Shannon": (family.fdpo(KAPPA, "jensen_shannon"), 0.5454378394),
    "f-DPO, alpha 1/2": (family.fdpo(KAPPA, "alpha", 0.5), 0.7016380906),
    "alpha-DPO, fixed": (family.alpha_dpo(KAPPA, dynamic="fixed", alpha=0.5), 0.2249868806),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_golden_values(name: str) -> None:
    objective, value = GOLDEN[name]
    errors = golden_errors(reference=objective.needs_reference)
    assert objective(errors, golden_batch()).loss.item() == pytest.approx(value, abs=1e-9)
    single = golden_errors(torch.float32, reference=objective.needs_reference)
    batch = replace(golden_batch(), preference_prob=golden_batch().known("preference_prob").float())
    assert objective(single, batch).loss.item() == pytest.approx(value, abs=2e-5)


def test_ipo_is_kappa_squared_times_the_published_one() -> None:
    # diffusers' "ipo" on the unscaled log-ratio, with tau = kappa, is 1.1050e-6 on this vector.
    assert family.ipo(KAPPA)(golden_errors()).loss.item() / KAPPA**2 == pytest.approx(1.1050e-6, rel=1e-9)


def test_an_offset_is_taken_off_the_margin() -> None:
    gaps = torch.full((4,), 0.5, dtype=torch.float64)
    assert family.offset(KAPPA)(golden_errors(), BatchInfo(gap=gaps)).loss.item() == pytest.approx(0.7822623655)
    doubled = family.offset(KAPPA, 2.0)(golden_errors(), BatchInfo(gap=gaps / 2))
    assert doubled.loss.item() == pytest.approx(0.7822623655)
    logged = family.offset(KAPPA, shape="log")(golden_errors(), BatchInfo(gap=torch.expm1(gaps)))
    assert logged.loss.item() == pytest.approx(0.7822623655)


def test_orpo_pulls_the_preferred_error_down_and_the_other_up() -> None:
    # diffusers' script has the sign the other way (0.2708940264 on this vector) and pulls both down.
    errors = golden_errors(reference=False)
    leaves = Errors(errors.chosen.requires_grad_(), errors.rejected.requires_grad_())
    family.orpo(weight=2.0)(leaves).loss.backward()
    assert leaves.chosen.grad is not None
    assert leaves.rejected.grad is not None
    assert (leaves.chosen.grad > 0).all()
    assert (leaves.rejected.grad < 0).all()


DPO = dpo(5000)
EQUAL_TO_DPO: dict[str, tuple[Objective, BatchInfo]] = {
    "cdpo without flips": (family.cdpo(KAPPA, 0.0), BatchInfo()),
    "rdpo without flips": (family.rdpo(KAPPA, 0.0), BatchInfo()),
    "soft, certain": (family.soft(KAPPA), BatchInfo(preference_prob=torch.ones(4, dtype=torch.float64))),
    "geometric, certain": (
        family.soft(KAPPA, "geometric"),
        BatchInfo(preference_prob=torch.ones(4, dtype=torch.float64)),
    ),
    "offset 0": (family.offset(KAPPA, 0.0), BatchInfo(gap=torch.ones(4, dtype=torch.float64))),
    "f-DPO, alpha 1": (family.fdpo(KAPPA, "alpha", 1.0), BatchInfo()),
    "MODPO with nothing else": (family.modpo(KAPPA, []), BatchInfo(score_gaps=torch.zeros(4, 0, dtype=torch.float64))),
    "Dr.DPO at a high temperature": (family.dr_dpo(KAPPA, 1e7), BatchInfo()),
    "KL-DRO at a high temperature": (family.kl_dro(KAPPA, 1e7), BatchInfo()),
    "maxmin over one group": (family.maxmin(KAPPA, 1), BatchInfo(group=torch.zeros(4, dtype=torch.int64))),
}


@pytest.mark.parametrize("name", EQUAL_TO_DPO)
def test_at_its_limit_it_is_dpo(name: str) -> None:
    objective, batch = EQUAL_TO_DPO[name]
    assert objective(golden_errors(), batch).loss.item() == pytest.approx(DPO(golden_errors()).loss.item(), abs=1e-6)


def test_alpha_divergence_tends_to_reverse_kl() -> None:
    losses = [family.fdpo(KAPPA, "alpha", alpha)(golden_errors()).loss.item() for alpha in (0.9, 0.99, 0.999, 0.9999)]
    distances = [abs(loss - DPO(golden_errors()).loss.item()) for loss in losses]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-4


def test_alpha_dpo_has_both_kullback_leibler_limits() -> None:
    u = torch.sigmoid(torch.tensor(MARGINS, dtype=torch.float64))
    low = family.alpha_dpo(KAPPA, dynamic="fixed", alpha=1e-6)(golden_errors()).loss
    high = family.alpha_dpo(KAPPA, dynamic="fixed", alpha=1 - 1e-6)(golden_errors()).loss
    assert low.item() == pytest.approx((u - u.log() - 1).mean().item(), abs=1e-4)
    assert high.item() == pytest.approx((u * u.log() - u + 1).mean().item(), abs=1e-4)


def pull(objective: Objective, margin: float) -> float:
    """|dL/dz| of one pair with this margin."""
    chosen = torch.tensor([1.0 - margin], dtype=torch.float64, requires_grad=True)
    one = torch.ones(1, dtype=torch.float64)
    objective(Errors(chosen, one, one, one)).loss.backward()
    assert chosen.grad is not None
    return abs(chosen.grad.item())


def test_outliers_pull_less_under_alpha_dpo() -> None:
    margin = math.log(0.01 / 0.99)
    for alpha, value in ((1e-6, 0.980), (0.5, 0.178), (1 - 1e-6, 0.0456)):
        objective = family.alpha_dpo(1.0, dynamic="fixed", alpha=alpha)
        assert pull(objective, margin) == pytest.approx(value, abs=5e-3)
    assert pull(family.cdpo(1.0, 0.0), margin) == pytest.approx(0.99)


def test_modpo_weighs_the_margin_against_the_other_scores() -> None:
    gaps = torch.tensor([[1.0, -0.5]] * 4, dtype=torch.float64)
    output = family.modpo(KAPPA, [0.2, 0.3])(golden_errors(), BatchInfo(score_gaps=gaps))
    expected = [(z - (0.2 * 1.0 - 0.3 * 0.5)) / 0.5 for z in MARGINS]
    assert output.margin.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("weights", [[-0.1], [0.5, 0.5], [1.2]])
def test_modpo_refuses_weights_off_the_simplex(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        family.modpo(1.0, weights)


def test_a_soft_label_below_one_half_turns_the_pair_round() -> None:
    batch = BatchInfo(preference_prob=torch.zeros(4, dtype=torch.float64))
    turned = DPO(golden_errors().swapped()).loss.item()
    assert family.directional(KAPPA)(golden_errors(), batch).loss.item() == pytest.approx(turned)


def test_a_tie_has_its_least_loss_at_no_margin_and_no_geometric_gradient() -> None:
    half = BatchInfo(preference_prob=torch.full((1,), 0.5, dtype=torch.float64))
    one = torch.ones(1, dtype=torch.float64)
    losses = [family.soft(1.0)(Errors(one - z, one, one, one), half).loss.item() for z in (-1.0, 0.0, 1.0)]
    assert losses[1] == pytest.approx(math.log(2))
    assert losses[0] == pytest.approx(losses[2])
    assert losses[0] > losses[1]
    chosen = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    family.soft(1.0, "geometric")(Errors(chosen, one, one, one), half).loss.backward()
    assert chosen.grad is not None
    assert chosen.grad.item() == 0.0


@given(st.floats(-8, 8), st.floats(0.01, 0.49))
def test_rdpo_is_unbiased_under_flips(z: float, eps: float) -> None:
    def loss(margin: float) -> float:
        ones = torch.ones(1, dtype=torch.float64)
        return family.rdpo(1.0, eps)(Errors(ones - margin, ones, ones, ones)).loss.item()

    noisy = (1 - eps) * loss(z) + eps * loss(-z)
    assert noisy == pytest.approx(math.log1p(math.exp(-z)), abs=1e-9)


def official_mapo(e_w: torch.Tensor, e_l: torch.Tensor) -> torch.Tensor:
    """mapo's loss as its formula reads, in float64 (arXiv 2406.06424; utils.py:286-301)."""
    odds = [0.5 * e / (torch.exp(0.5 * e) - 1) for e in (e_w, e_l)]
    ratio = torch.log(torch.sigmoid(1000 * (odds[0] - odds[1])))
    return e_w.mean() - 0.1 * ratio.mean()


@given(st.lists(st.tuples(st.floats(1e-3, 2.0), st.floats(1e-3, 2.0)), min_size=1, max_size=8))
def test_mapo_equals_the_published_formula(rows: list[tuple[float, float]]) -> None:
    e_w, e_l = torch.tensor(rows, dtype=torch.float64).T
    expected = official_mapo(e_w, e_l).item()
    if math.isfinite(expected):  # the formula's logarithm of a rounded sigmoid overflows where ours does not
        assert family.mapo()(Errors(e_w, e_l)).loss.item() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_mapo_never_looks_at_a_reference() -> None:
    objective = family.mapo()
    assert not objective.needs_reference
    with_one, without = objective(golden_errors()), objective(golden_errors(reference=False))
    assert with_one.loss.item() == without.loss.item()


@pytest.mark.parametrize("error", [0.0, 1e-12, 1e-4, 0.9e-3, 1.1e-3, 5.0, 300.0, 1e6])
def test_the_odds_score_is_finite_with_a_finite_slope_everywhere(error: float) -> None:
    e = torch.tensor([error], requires_grad=True)
    score = OddsScore(1000.0, 0.5)(e)
    score.sum().backward()
    assert e.grad is not None
    assert torch.isfinite(score).all()
    assert torch.isfinite(e.grad).all()
    if error < 1e-2:
        assert score.item() == pytest.approx(1000.0 - 250.0 * error, abs=1e-3)
        assert e.grad.item() == pytest.approx(-250.0, rel=1e-3)


@pytest.mark.parametrize("size", [0.005, 0.012, 0.02, 0.03, 0.05, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("name", GOLDEN)
def test_losses_and_gradients_stay_finite_far_out(name: str, size: float) -> None:
    objective, _ = GOLDEN[name]
    chosen = torch.tensor([0.5 + size, 0.5, 0.5, 0.0], requires_grad=True)
    rejected = torch.tensor([0.5, 0.5 + size, 0.5, 0.0], requires_grad=True)
    held = torch.full((4,), 0.5)
    batch = BatchInfo(preference_prob=torch.tensor([0.9, 0.6, 0.5, 1.0]))
    loss = objective(Errors(chosen, rejected, held, held), batch).loss
    loss.backward()
    assert torch.isfinite(loss)
    for leaf in (chosen, rejected):
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad.norm())


@pytest.mark.parametrize("divergence", ["reverse_kl", "forward_kl", "jensen_shannon", "alpha"])
@pytest.mark.parametrize("h", [-5.0, -30.0, -100.0])
def test_a_pair_that_is_far_gone_is_still_pulled_back(divergence: str, h: float) -> None:
    chosen = torch.tensor([-h], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.float64)
    family.fdpo(1.0, divergence)(Errors(chosen, zero, zero, zero)).loss.backward()
    assert chosen.grad is not None
    assert chosen.grad.item() > 0.1
    assert chosen.grad.item() < 65504  # float16's largest


def test_alpha_dpos_exponent_is_that_of_the_pair_or_of_the_step() -> None:
    u = torch.sigmoid(torch.tensor(MARGINS, dtype=torch.float64))
    for dynamic, a in (("sample", 0.9 * u), ("batch", (0.9 * u.mean()).expand(4))):
        expected = (u**a - (1 - a) - a * u) / (a * (a - 1))
        output = family.alpha_dpo(KAPPA, mu=0.9, dynamic=dynamic)(golden_errors())
        assert output.loss.item() == pytest.approx(expected.mean().item(), abs=1e-9)


@pytest.mark.parametrize("name", [name for name in GOLDEN if name != "hinge"])  # whose margin of 1 is a kink
def test_the_gradient_factor_is_the_slope_of_the_link(name: str) -> None:
    objective, _ = GOLDEN[name]
    errors, batch = golden_errors(reference=objective.needs_reference), golden_batch()
    step = 1e-6
    output = objective(errors, batch)
    around = [objective.link(output.margin + side * step, batch) for side in (1, -1)]
    torch.testing.assert_close(
        output.metrics["gradient_factor"], ((around[0] - around[1]) / (2 * step)).abs(), atol=1e-5, rtol=1e-4
    )


def test_accuracy_is_of_the_model_and_not_of_an_offset_and_follows_a_turned_label() -> None:
    shifted = family.offset(KAPPA, 100.0)(golden_errors(), BatchInfo(gap=torch.ones(4, dtype=torch.float64)))
    assert shifted.margin.max() < 0
    assert shifted.metrics["implicit_accuracy"].tolist() == [1.0, 0.0, 1.0, 1.0]
    turned = BatchInfo(preference_prob=torch.tensor([0.9, 0.1, 0.1, 0.9], dtype=torch.float64))
    output = family.directional(KAPPA)(golden_errors(), turned)
    assert output.metrics["implicit_accuracy"].tolist() == [1.0, 1.0, 0.0, 1.0]


def test_two_parts_that_look_at_the_whole_step_are_refused() -> None:
    with pytest.raises(ValueError, match="both look at the whole step"):
        Objective(LogRatio(1.0), AlphaDivergence(dynamic="batch"), reduce=LogMeanExp())


@pytest.mark.parametrize(
    ("objective", "field"),
    [
        (family.soft(1.0), "preference_prob"),
        (family.offset(1.0), "gap"),
        (family.modpo(1.0, [0.5]), "score_gaps"),
        (family.group_robust(1.0, [0.5, 0.5]), "group"),
        (family.maxmin(1.0, 2), "group"),
    ],
)
def test_what_an_objective_needs_is_named_and_asked_for(objective: Objective, field: str) -> None:
    assert field in objective.needs
    with pytest.raises(ValueError, match=field):
        objective(golden_errors())


@pytest.mark.parametrize(
    "make",
    [
        lambda: family.fdpo(1.0, "chi"),
        lambda: family.offset(1.0, shape="cubic"),
        lambda: family.soft(1.0, "hard"),
        lambda: family.alpha_dpo(1.0, dynamic="bacth"),
        lambda: family.cdpo(1.0, 2.0),
        lambda: family.rdpo(1.0, 0.5),
    ],
)
def test_an_unknown_variant_is_refused(make: Callable[[], Objective]) -> None:
    with pytest.raises(ValueError, match=r"choose from|below 0\.5"):
        make()
