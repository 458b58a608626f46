"""Measuring a trained scorer on held-out examples, and on users who were not trained on.

Law of this file: a user's shots are never among the pairs that the user is measured on; what the shots are worth is
measured beside the same pairs without them.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from t2ialign.reward_models.heads import PalHead
from t2ialign.reward_models.training.calibration import measure
from t2ialign.reward_models.training.examples import NOBODY, RewardExamples
from t2ialign.reward_models.training.net import RewardNet


@dataclass(frozen=True)
class Features:
    """Everything that a head sees of a set, on the CPU; M pictures, P pairs.

    Attributes:
        pictures: `[M, D]`.
        texts: Of each picture's prompt, `[M, D]`.
        group: Of each picture, `[M]`.
        first: `[P]`.
        second: `[P]`.
        target: `[P]`.
        prompts: Of each pair.
        owners: Aspect or user of each pair, or None.
    """

    pictures: Tensor
    texts: Tensor
    group: Tensor
    first: Tensor
    second: Tensor
    target: Tensor
    prompts: list[str]
    owners: list[str | None]

    def of(self, name: str) -> Features:
        """Return the pairs of one aspect or user; the pictures stay."""
        rows = [row for row, owner in enumerate(self.owners) if owner == name]
        return replace(
            self,
            first=self.first[rows],
            second=self.second[rows],
            target=self.target[rows],
            prompts=[self.prompts[row] for row in rows],
            owners=[self.owners[row] for row in rows],
        )


@torch.no_grad()
def collect(net: RewardNet, examples: RewardExamples, device: torch.device, batch_size: int = 32) -> Features:
    """Run a set through the towers."""
    parts: dict[str, list[Tensor]] = {name: [] for name in ("pictures", "texts", "group", "first", "second", "target")}
    prompts: list[str] = []
    owners: list[str | None] = []
    seen = 0
    for start in range(0, len(examples), batch_size):
        stop = min(start + batch_size, len(examples))
        batch = examples.collate([examples.read(index) for index in range(start, stop)]).to(device)
        pictures, texts = net.features(batch)
        example = batch.owner[batch.first].tolist()
        prompts += [examples.prompts[start + number] for number in example]
        owners += [examples.owners[start + number] for number in example]
        for name, value in (
            ("pictures", pictures),
            ("texts", texts),
            ("group", batch.group[batch.owner]),
            ("first", batch.first + seen),
            ("second", batch.second + seen),
            ("target", batch.target),
        ):
            parts[name].append(value.cpu())
        seen += len(pictures)
    return Features(**{name: torch.cat(values) for name, values in parts.items()}, prompts=prompts, owners=owners)


@torch.no_grad()
def margins_of(net: RewardNet, features: Features) -> Tensor:
    """Return the margin of each pair, `[P]` on the CPU; users who are not known have the mean of those who are."""
    scale = net.scale()
    moved = [
        each.to(scale.device)
        for each in (features.pictures, features.texts, features.group, features.first, features.second)
    ]
    pictures, texts, group, first, second = moved
    return net.head.margins(pictures, texts, scale, group, first, second).cpu()


def measure_net(net: RewardNet, features: Features, seed: int = 0) -> dict[str, Any]:
    """Measure on held-out pairs; clusters are prompts."""
    margins = margins_of(net, features).double().numpy()
    return measure(margins, features.target.numpy(), features.prompts, seed)


class FewShot(NamedTuple):
    """Pairs of users who were not trained on, without their shots; one entry a pair, user and draw, `[N]`.

    Attributes:
        fitted: Margin under the mixture that was fitted to the shots.
        mean: Margin under the trained users' mean.
        target: Probability that the first picture is preferred.
        users: Whose pair it is.
    """

    fitted: Tensor
    mean: Tensor
    target: Tensor
    users: list[str]


def few_shot_margins(
    head: PalHead, features: Features, *, shots: int, draws: int, prior: float, seed: int = 0
) -> FewShot | None:
    """Fit users who were not trained on to a few of their pairs; None if there are none with enough pairs.

    For each user and draw, `shots` pairs with a winner are taken out, the mixture is fitted to them, and the user's
    other pairs get their margins. The draws are a function of seed, draw and user.

    Args:
        head: Trained.
        features: Held-out pairs with users.
        shots: Pairs to fit to.
        draws: How often they are drawn anew.
        prior: See `PalHead.fit_user`.
        seed: Of the draws.
    """
    head = copy.deepcopy(head).cpu()
    rows: dict[str, list[int]] = {}
    for pair, owner in enumerate(features.owners):
        new = int(features.group[features.first[pair]]) == NOBODY
        if owner is not None and new and float(features.target[pair]) != 0.5:
            rows.setdefault(owner, []).append(pair)
    average = head.logits(torch.tensor([NOBODY]))[0]
    fitted, mean, target = [], [], []
    users: list[str] = []
    for user, pairs in rows.items():
        for draw in range(draws if len(pairs) > shots else 0):
            key = hashlib.sha256(f"{seed} {draw} {user}".encode()).digest()[:8]
            order = np.random.default_rng(int.from_bytes(key, "big")).permutation(len(pairs))
            taken, others = ([pairs[n] for n in part] for part in (order[:shots], order[shots:]))
            fitted.append(_margins(head, features, others, fit_on(head, features, taken, prior)))
            mean.append(_margins(head, features, others, average))
            target.append(features.target[others])
            users += [user] * len(others)
    return FewShot(torch.cat(fitted), torch.cat(mean), torch.cat(target), users) if users else None


def measure_few_shot(head: PalHead, features: Features, **options: Any) -> dict[str, Any] | None:
    """Measure users who were not trained on; arguments as for `few_shot_margins`. Clusters are users.

    Returns:
        users, shots, draws; fitted and mean, each what `measure` returns; None where there is no such user.
    """
    found = few_shot_margins(head, features, **options)
    if found is None:
        return None
    measured = {
        name: measure(margins.numpy(), found.target.numpy(), found.users, options.get("seed", 0))
        for name, margins in (("fitted", found.fitted), ("mean", found.mean))
    }
    return {"users": len(set(found.users)), "shots": options["shots"], "draws": options["draws"], **measured}


def fit_on(head: PalHead, features: Features, pairs: list[int], prior: float) -> Tensor:
    """Fit a new user's mixture to some pairs of a set; the one of higher probability is the preferred one."""
    first, second = features.first[pairs], features.second[pairs]
    swap = features.target[pairs] < 0.5
    better, worse = torch.where(swap, second, first), torch.where(swap, first, second)
    rows = torch.cat([better, worse])
    numbers = torch.arange(len(pairs))
    return head.fit_user(features.pictures[rows], features.texts[rows], numbers, numbers + len(pairs), prior)


@torch.no_grad()
def _margins(head: PalHead, features: Features, pairs: list[int], logits: Tensor) -> Tensor:
    first, second = features.first[pairs], features.second[pairs]
    each = logits.detach().expand(len(pairs), -1)
    one = head.scores_by(each, features.pictures[first], features.texts[first])
    return one - head.scores_by(each, features.pictures[second], features.texts[second])
