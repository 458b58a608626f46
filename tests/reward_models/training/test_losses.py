"""The loss of pairs is PickScore's and Bradley-Terry's, and the mean over a step does not depend on its split."""

from __future__ import annotations

import math

import pytest
import torch

from t2ialign.reward_models.training.losses import example_means, pair_loss, weighted_mean


def test_golden_values() -> None:
    loss = pair_loss(torch.tensor([0.0, 2.0, -2.0, 0.0, 1.0]), torch.tensor([1.0, 1.0, 1.0, 0.5, 0.5]))
    expected = [math.log(2), 0.126928011, 2.126928011, 0.0, 0.120114507]
    torch.testing.assert_close(loss, torch.tensor(expected), rtol=0, atol=1e-6)


def test_it_is_the_softmax_over_the_pair_with_the_offset_of_a_tie() -> None:
    """Written as PickScore's criterion is: two logits, two labels, log 1/2 added where the labels are equal."""
    scores = torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [1.0, 0.0]], dtype=torch.float64).repeat(16, 1)
    plain = -(labels * scores.log_softmax(dim=1)).sum(dim=1)
    plain = plain + (labels[:, 0] == labels[:, 1]).double() * math.log(0.5)
    torch.testing.assert_close(pair_loss(scores[:, 0] - scores[:, 1], labels[:, 0]), plain, rtol=0, atol=1e-12)


def test_it_is_zero_at_the_label_itself_and_nowhere_negative() -> None:
    target = torch.linspace(0.01, 0.99, 33, dtype=torch.float64)
    assert pair_loss(target.logit(), target).abs().max() < 1e-12
    assert pair_loss(torch.linspace(-9, 9, 33, dtype=torch.float64), target).min() >= 0


def test_an_example_is_the_mean_of_its_pairs() -> None:
    means = example_means(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0, 0, 1]), 2)
    assert means.tolist() == [1.5, 6.0]


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_the_mean_over_batches_is_the_weighted_mean_over_the_step(size: int) -> None:
    generator = torch.Generator().manual_seed(1)
    values, weights = (torch.rand(6, generator=generator, dtype=torch.float64) + 0.1 for _ in range(2))
    parts = [weighted_mean(v, w, weights) for v, w in zip(values.split(size), weights.split(size), strict=True)]
    torch.testing.assert_close(torch.stack(parts).mean(), (values * weights).sum() / weights.sum())
    whole = weighted_mean(values, weights, None)
    torch.testing.assert_close(whole, (values * weights).sum() / weights.sum())
