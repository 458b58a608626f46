"""Golden values, invariants and the gradient of Diffusion-DPO."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.golden import CHOSEN, golden_errors
from t2ialign.objectives import Errors, dpo, per_sample_error


@pytest.mark.parametrize(
    ("beta", "convention", "value"),
    [
        (5000, "official", 0.6216701568),
        (2500, "hf_sd", 0.6216701568),
        (2000, "official", 0.5217356186),
        (500, "official", 0.6221955144),
    ],
)
def test_the_golden_losses(beta: float, convention: str, value: float) -> None:
    output = dpo(beta, convention)(golden_errors())
    assert output.loss.item() == pytest.approx(value, abs=1e-9)


def test_the_golden_margins_and_accuracy() -> None:
    output = dpo(5000)(golden_errors())
    assert output.margin.tolist() == pytest.approx([3.75, -2.0, 1.0, 3.75], abs=1e-9)
    assert output.metrics["implicit_accuracy"].mean().item() == 0.75


def test_float32_agrees_to_a_millionth() -> None:
    assert dpo(500)(golden_errors(torch.float32)).loss.item() == pytest.approx(0.6221955144, abs=1e-6)


def test_the_mean_is_taken_over_losses_and_not_over_margins() -> None:
    # 0.1797446354 is the value of the mistake in early versions of diffusers' script (diffusers#6702).
    assert dpo(5000)(golden_errors()).loss.item() != pytest.approx(0.1797446354, abs=1e-3)


positive = st.floats(1e-4, 2.0)
batches = st.lists(st.tuples(positive, positive, positive, positive), min_size=1, max_size=8)


def errors_of(rows: list[tuple[float, float, float, float]]) -> Errors:
    return Errors(*torch.tensor(rows, dtype=torch.float64).T.clone())


@given(batches)
def test_a_policy_equal_to_the_reference_gives_ln_2(rows: list[tuple[float, float, float, float]]) -> None:
    errors = errors_of(rows)
    same = replace(errors, reference_chosen=errors.chosen, reference_rejected=errors.rejected)
    output = dpo(5000)(same)
    assert output.loss.item() == pytest.approx(math.log(2), abs=1e-12)
    assert output.margin.tolist() == [0.0] * len(rows)
    assert output.metrics["implicit_accuracy"].tolist() == [0.5] * len(rows)


@given(batches)
def test_exchanging_the_sides_turns_the_margin_round(rows: list[tuple[float, float, float, float]]) -> None:
    errors, objective = errors_of(rows), dpo(100)
    straight, turned = objective(errors), objective(errors.swapped())
    torch.testing.assert_close(turned.margin, -straight.margin)
    summed = straight.metrics["gradient_factor"] + turned.metrics["gradient_factor"]
    torch.testing.assert_close(summed, torch.ones_like(summed))


@given(batches)
def test_the_gradient_is_that_of_the_formula(rows: list[tuple[float, float, float, float]]) -> None:
    errors = errors_of(rows)
    leaves = Errors(
        errors.chosen.clone().requires_grad_(),
        errors.rejected.clone().requires_grad_(),
        errors.reference_chosen,
        errors.reference_rejected,
    )
    beta, count = 50.0, len(rows)
    output = dpo(beta)(leaves)
    output.loss.backward()
    expected = 0.5 * beta * torch.sigmoid(-output.margin) / count
    assert leaves.chosen.grad is not None
    assert leaves.rejected.grad is not None
    torch.testing.assert_close(leaves.chosen.grad, expected)
    torch.testing.assert_close(leaves.rejected.grad, -expected)


def test_nothing_that_is_logged_keeps_the_graph() -> None:
    errors = replace(golden_errors(), chosen=torch.tensor(CHOSEN, requires_grad=True, dtype=torch.float64))
    output = dpo(10)(errors)
    assert output.loss.requires_grad
    assert not output.margin.requires_grad
    assert not any(figure.requires_grad for figure in output.metrics.values())


def test_a_missing_reference_is_an_error() -> None:
    with pytest.raises(ValueError, match="reference"):
        dpo(10)(Errors(torch.ones(2), torch.ones(2)))


def test_the_error_of_a_sample_is_a_float32_mean_whatever_comes_in() -> None:
    prediction = torch.tensor([[[[1.0, 2.0]]], [[[0.0, 0.0]]]], dtype=torch.bfloat16)
    target = torch.zeros(2, 1, 1, 2, dtype=torch.float16)
    error = per_sample_error(prediction, target)
    assert error.dtype == torch.float32
    assert error.tolist() == [2.5, 0.0]
    with pytest.raises(ValueError, match="differ in shape"):
        per_sample_error(prediction, target[:1])
