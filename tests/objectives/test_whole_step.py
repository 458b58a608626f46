"""Losses that look at the whole step: their value and gradient do not depend on how the step is split."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from helpers.golden import CHOSEN, REFERENCE_CHOSEN, REFERENCE_REJECTED, REJECTED, golden_errors
from t2ialign.objectives import KTO, BatchInfo, ErrorOf, Errors, Objective, Step, family

KAPPA = 2.0
SURVEYED: dict[str, Objective] = {
    "dr_dpo": family.dr_dpo(KAPPA, 0.7),
    "kl_dro": family.kl_dro(KAPPA, 0.7),
    "alpha_dpo, batch": family.alpha_dpo(KAPPA, dynamic="batch"),
    "group_robust": family.group_robust(KAPPA, [0.5, 0.3, 0.2], 0.5),
    "maxmin": family.maxmin(KAPPA, 3),
}


def random_errors(count: int, seed: int = 0) -> Errors:
    rows = torch.rand(4, count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return Errors(*rows)


def part(errors: Errors, rows: slice) -> Errors:
    held = (errors.reference_chosen, errors.reference_rejected)
    return Errors(errors.chosen[rows], errors.rejected[rows], *(side[rows] for side in held if side is not None))


def in_parts(objective: Objective, errors: Errors, group: Tensor, size: int) -> tuple[float, Tensor, Tensor | None]:
    """Loss and gradient of a step in batches of `size`, added up as the engine does."""
    chosen = errors.chosen.clone().requires_grad_()
    count = len(chosen) // size
    batches = [slice(start, start + size) for start in range(0, len(chosen), size)]
    rows = [objective.survey(part(errors, batch), BatchInfo(group=group[batch])).rows().double() for batch in batches]
    step = Step.of_rows(torch.cat(rows, dim=1))
    values, state = [], None
    for batch in batches:
        mine = part(replace(errors, chosen=chosen), batch)
        output = objective(mine, BatchInfo(group=group[batch], step=step, state=objective.start()))
        (output.loss / count).backward()
        values.append(output.loss.item())
        state = output.state
    assert chosen.grad is not None
    return sum(values) / count, chosen.grad, state


@pytest.mark.parametrize("name", SURVEYED)
def test_a_step_in_parts_is_the_step_as_a_whole(name: str) -> None:
    objective, errors = SURVEYED[name], random_errors(12)
    group = torch.tensor([0, 1, 2, 0, 0, 0, 1, 1, 2, 0, 0, 1])
    whole = in_parts(objective, errors, group, 12)
    for size in (6, 3, 1):
        value, gradient, state = in_parts(objective, errors, group, size)
        assert value == pytest.approx(whole[0], abs=1e-6)
        torch.testing.assert_close(gradient, whole[1], rtol=1e-5, atol=1e-7)
        if whole[2] is not None:
            torch.testing.assert_close(state, whole[2])


@pytest.mark.parametrize("name", ["dr_dpo", "kl_dro"])
def test_the_local_form_without_a_survey_would_be_another_loss(name: str) -> None:
    objective, errors = SURVEYED[name], random_errors(12)
    halves = [objective(part(errors, rows)).loss.item() for rows in (slice(0, 6), slice(6, 12))]
    assert sum(halves) / 2 != pytest.approx(objective(errors).loss.item(), abs=1e-6)


@given(st.integers(0, 1000), st.floats(0.2, 5.0), st.booleans())
@settings(max_examples=25)
def test_the_soft_extreme_has_the_value_and_gradient_of_its_formula(seed: int, tau: float, hard: bool) -> None:
    errors = random_errors(7, seed)
    mine, plain = errors.chosen.clone().requires_grad_(), errors.chosen.clone().requires_grad_()
    objective = family.kl_dro(KAPPA, tau) if hard else family.dr_dpo(KAPPA, tau)
    loss = objective(replace(errors, chosen=mine)).loss
    loss.backward()
    assert errors.reference_chosen is not None
    assert errors.reference_rejected is not None
    z = KAPPA * ((errors.reference_chosen - plain) - (errors.reference_rejected - errors.rejected))
    each = torch.log1p(torch.exp(-z))
    t = tau if hard else -tau
    expected = t * torch.log(torch.exp(each / t).mean())
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-9)
    assert mine.grad is not None
    assert plain.grad is not None
    torch.testing.assert_close(mine.grad, plain.grad, rtol=1e-8, atol=1e-10)


def test_dr_dpo_trusts_unlikely_pairs_less_and_kl_dro_looks_at_them_more() -> None:
    errors = golden_errors()
    shares = {}
    for name, objective in (("dpo", family.dpo(5000)), ("dr", family.dr_dpo(2500)), ("dro", family.kl_dro(2500))):
        chosen = errors.chosen.clone().requires_grad_()
        objective(replace(errors, chosen=chosen)).loss.backward()
        assert chosen.grad is not None
        shares[name] = (chosen.grad[1] / chosen.grad.sum()).item()  # pair 1 has a margin of -2
    assert shares["dr"] < shares["dpo"] < shares["dro"]


def test_group_robust_is_exponentiated_gradient_ascent_from_step_to_step() -> None:
    shares, rate = [0.5, 0.25, 0.25], 0.5
    objective, group = family.group_robust(KAPPA, shares, rate), torch.tensor([0, 0, 1, 0])  # group 2 is not there
    weights, state = [1 / 3] * 3, objective.start()
    for step in range(4):
        errors = random_errors(4, step)
        output = objective(errors, BatchInfo(group=group, state=state))
        each = torch.log1p(torch.exp(-output.margin)).tolist()
        losses = [(each[0] + each[1] + each[3]) / (4 * 0.5), each[2] / (4 * 0.25), 0.0]
        raised = [weight * math.exp(rate * loss) for weight, loss in zip(weights, losses, strict=True)]
        weights = [value / sum(raised) for value in raised]
        state = output.state
        assert state is not None
        assert state.tolist() == pytest.approx(weights, rel=1e-5)
        expected = sum(weight * loss for weight, loss in zip(weights, losses, strict=True))
        assert output.loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("rare", "higher"), [(0.75, True), (0.55, False)])
def test_group_robust_goes_by_loss_and_not_by_how_often_a_group_is_seen(rare: float, higher: bool) -> None:
    """A group with a tenth of the pairs, in most steps absent, gains weight if it is worse off and loses it if not."""
    objective = family.group_robust(1.0, [0.9, 0.1], rate=0.02)
    state, rng = objective.start(), torch.Generator().manual_seed(0)
    for _ in range(1500):
        group = (torch.rand(4, generator=rng) < 0.1).long()
        loss = torch.where(group == 1, rare, 0.65)
        margin = -torch.log(torch.expm1(loss))  # whose log-sigmoid loss that is
        errors = Errors(1 - margin, torch.ones(4), torch.ones(4), torch.ones(4))
        state = objective(errors, BatchInfo(group=group, state=state)).state
    assert state is not None
    assert (state[1].item() > 0.5) == higher


def test_group_robust_is_the_mean_of_the_groups_where_shares_are_those_of_the_step() -> None:
    errors, group = random_errors(10), torch.tensor([0] * 7 + [1] * 3)
    output = family.group_robust(KAPPA, [0.7, 0.3], rate=1e-9)(errors, BatchInfo(group=group))
    each = torch.log1p(torch.exp(-output.margin))
    assert output.loss.item() == pytest.approx((each[:7].mean() + each[7:].mean()).item() / 2)


def test_maxmin_moves_the_worst_group_alone() -> None:
    errors, group = random_errors(6), torch.tensor([0, 0, 1, 1, 2, 2])
    chosen = errors.chosen.clone().requires_grad_()
    output = family.maxmin(KAPPA, 3)(replace(errors, chosen=chosen), BatchInfo(group=group))
    output.loss.backward()
    means = torch.log1p(torch.exp(-output.margin)).view(3, 2).mean(dim=1)
    assert output.loss.item() == pytest.approx(means.max().item())
    assert chosen.grad is not None
    moved = {int(number) for number in group[chosen.grad != 0]}
    assert moved == {int(means.argmax())}


def kto_errors(reference: list[float] | None = None) -> ErrorOf:
    held = torch.tensor([*(reference or REFERENCE_CHOSEN), *REFERENCE_REJECTED], dtype=torch.float64)
    label = torch.tensor([True] * 4 + [False] * 4)
    return ErrorOf(torch.tensor([*CHOSEN, *REJECTED], dtype=torch.float64), held, label)


def test_ktos_golden_values() -> None:
    assert KTO(1000.0)(kto_errors()).loss.item() == pytest.approx(0.4237747542, abs=1e-9)
    raised = kto_errors([0.103, 0.2515, 0.0502, 0.4015])
    assert KTO(1000.0)(raised).loss.item() == pytest.approx(0.3016582328, abs=1e-9)


def test_kto_is_one_half_where_the_policy_is_the_reference() -> None:
    errors = kto_errors()
    assert KTO(1000.0)(replace(errors, reference=errors.policy)).loss.item() == 0.5


def test_ktos_baseline_is_that_of_the_whole_step() -> None:
    objective = KTO(1000.0)
    errors = kto_errors([0.103, 0.2515, 0.0502, 0.4015])
    assert errors.reference is not None
    parts = [
        ErrorOf(errors.policy[rows], errors.reference[rows], errors.label[rows]) for rows in (slice(0, 3), slice(3, 8))
    ]
    rows = torch.cat([objective.survey(each, BatchInfo()).rows().double() for each in parts], dim=1)
    batch = BatchInfo(step=Step.of_rows(rows))
    summed = sum(objective(each, batch).loss.item() * len(each.policy) for each in parts)
    assert summed / 8 == pytest.approx(0.3016582328, abs=1e-6)


def test_ktos_weights_and_value_functions() -> None:
    errors = kto_errors()
    wanted, other = KTO(1000.0, undesirable_weight=0.0)(errors).loss, KTO(1000.0, desirable_weight=0.0)(errors).loss
    assert (wanted + other).item() == pytest.approx(0.4237747542, abs=1e-9)
    v = KTO(1000.0)(errors).margin
    averse, seeking = (KTO(1000.0, value=value)(errors).loss for value in ("loss_averse", "risk_seeking"))
    assert averse.item() == pytest.approx(torch.log1p(torch.exp(-v)).mean().item())
    assert seeking.item() == pytest.approx(-torch.log1p(torch.exp(v)).mean().item())
    with pytest.raises(ValueError, match="choose from"):
        KTO(1.0, value="bold")


def test_ktos_figures_are_told_apart_by_label() -> None:
    output = KTO(1000.0)(kto_errors())
    assert output.masks["error_chosen"].tolist() == [1] * 4 + [0] * 4
    assert output.masks["reward_rejected"].tolist() == [0] * 4 + [1] * 4


def test_a_step_keeps_its_rows() -> None:
    step = Step(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]), torch.tensor([5, 6]))
    again = Step.of_rows(step.rows())
    assert again.group is not None
    assert (again.margin.tolist(), again.loss.tolist(), again.group.tolist()) == ([1, 2], [3, 4], [5, 6])
    assert Step.of_rows(replace(step, group=None).rows()).group is None
