"""What each head can say: for everybody, for an aspect, for a user, and in a circle."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from t2ialign.reward_models.heads import AspectHead, CyclicHead, Head, PalHead, make_head

D = 12
SCALE = torch.tensor(10.0)
SETTINGS: list[dict[str, Any]] = [
    {"kind": "cosine"},
    {"kind": "aspects", "groups": ["fine", "true"]},
    {"kind": "pal", "groups": ["ann", "bob"], "prototypes": 3, "points": "fixed", "width": 5},
    {"kind": "pal", "groups": ["ann", "bob"], "prototypes": 3, "points": "prompt", "width": 5},
    {"kind": "cyclic", "planes": 2},
]


def features(seed: int, count: int) -> Tensor:
    return torch.randn(count, D, generator=torch.Generator().manual_seed(seed))


def shaken(head: Head, seed: int = 7) -> Head:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return head


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_exchanging_the_pictures_turns_the_sign(settings: dict[str, Any]) -> None:
    head = shaken(make_head(settings, D))
    pictures, texts = features(0, 8), features(1, 4).repeat(2, 1)
    group = torch.tensor([0, -1, 0, -1] * 2)
    if "groups" not in settings:
        group = torch.full((8,), -1)
    one, two = torch.arange(4), torch.arange(4, 8)
    margins = head.margins(pictures, texts, SCALE, group, one, two)
    torch.testing.assert_close(head.margins(pictures, texts, SCALE, group, two, one), -margins)
    assert margins.abs().min() > 1e-4


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_head_is_made_again_from_its_settings_and_weights(settings: dict[str, Any]) -> None:
    head = shaken(make_head(settings, D))
    again = make_head(head.settings(), D, seed=5)
    again.load_state_dict(head.state_dict())
    pictures, texts, group = features(0, 4), features(1, 4), torch.full((4,), -1)
    pair = torch.tensor([0, 1]), torch.tensor([2, 3])
    torch.testing.assert_close(
        again.margins(pictures, texts, SCALE, group, *pair), head.margins(pictures, texts, SCALE, group, *pair)
    )
    with pytest.raises(ValueError, match="unknown kind of head 'crystal'"):
        make_head({"kind": "crystal"}, D)


def test_aspects_begin_as_the_cosine_and_part() -> None:
    head = AspectHead(["fine", "true"], D)
    pictures, texts = features(0, 6), features(1, 6)
    plain = SCALE * functional.cosine_similarity(pictures, texts)
    for number in (-1, 0, 1):
        torch.testing.assert_close(head.scores(pictures, texts, SCALE, torch.full((6,), number)), plain)
    with torch.no_grad():
        head.maps[1].neg_()
    torch.testing.assert_close(head.scores(pictures, texts, SCALE, torch.full((6,), 1)), -plain)
    torch.testing.assert_close(head.scores(pictures, texts, SCALE, torch.full((6,), 0)), plain)
    torch.testing.assert_close(head.scores(pictures, texts, SCALE, torch.full((6,), -1)), torch.zeros(6))


def test_pal_is_the_distance_to_the_users_mixture_of_points() -> None:
    head = shaken(PalHead(["ann", "bob"], D, 3, width=5))
    assert isinstance(head, PalHead)
    pictures, texts = features(0, 4), features(1, 4)
    found = head.scores(pictures, texts, SCALE, torch.tensor([0, 1, 1, -1]))
    for row, users in enumerate((head.users[0], head.users[1], head.users[1], head.users.mean(0))):
        place = head.picture @ (pictures[row] / pictures[row].norm())
        weights = (10.0 * users).exp() / (10.0 * users).exp().sum()
        ideal = weights @ head.prototypes
        expected = -head.log_scale.exp() * ((place / place.norm() - ideal) ** 2).sum()
        torch.testing.assert_close(found[row], expected)


def test_a_new_user_is_found_from_a_few_pairs() -> None:
    """Three points far apart; a user who lives at one of them takes the picture there."""
    head = PalHead(["ann"], D, 3, width=3)
    with torch.no_grad():
        head.picture.copy_(torch.eye(3, D))
        head.prototypes.copy_(torch.eye(3))
        head.users.zero_()
    axes = torch.eye(D)[:3]
    liked, others = axes[[1, 1, 1, 1]], axes[[0, 2, 0, 2]]
    pictures, texts, numbers = torch.cat([liked, others]), torch.ones(8, D), torch.arange(4)
    found = head.fit_user(pictures, texts, numbers, numbers + 4, prior=0.01)
    assert found.argmax() == 1

    def objective(logits: Tensor) -> Tensor:
        """By hand: all four margins are e (|z_other - a|^2 - |z_liked - a|^2), a the user's point."""
        ideal = logits.softmax(dim=-1)
        gaps = ((others - pictures[:4])[:, :3] * -2 * ideal).sum(dim=1)
        return functional.softplus(-math.e * gaps).sum() + 0.01 * logits.square().sum()

    # The two other points are alike, and the hold keeps the sum at zero: the best lies on a line.
    best = min(objective(t * torch.tensor([-0.5, 1.0, -0.5])).item() for t in torch.arange(0, 12, 0.01))
    assert objective(found).item() == pytest.approx(best, abs=1e-3)
    tight = head.fit_user(pictures, texts, numbers, numbers + 4, prior=100.0).softmax(dim=0)
    assert tight.max() < 0.36
    assert head.users.grad is None


def test_a_circle_has_no_scores_and_is_a_rotation() -> None:
    """Stone, paper, scissors: each beats the next; only the cyclic head can learn all three."""
    corners, prompt = functional.normalize(features(3, 3), dim=-1), features(4, 1).repeat(3, 1)
    first, second = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])

    def learned(head: Head) -> Tensor:
        optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
        for _ in range(150):
            margins = head.margins(corners, prompt, SCALE, torch.zeros(3, dtype=torch.long), first, second)
            optimizer.zero_grad()
            functional.softplus(-margins).mean().backward()
            optimizer.step()
        return head.margins(corners, prompt, SCALE, torch.zeros(3, dtype=torch.long), first, second).detach()

    assert learned(CyclicHead(D, 2)).min() > 0.5
    assert abs(learned(AspectHead(["one"], D)).sum().item()) < 1e-4
    with pytest.raises(ValueError, match="compare two pictures"):
        CyclicHead(D, 2).scores(corners, prompt, SCALE, first)
