"""What stands on a CLIP's features and makes scores of them, or preferences between two pictures.

| head | between pictures x, y of a prompt c | for whom |
|---|---|---|
| cosine | s(x) - s(y), s = exp(logit scale) cos(x, c) | everybody: PickScore, arXiv 2305.01569 |
| aspects | the same with a map of x for each aspect | an aspect |
| pal | d(y) - d(x), d = scale ||z(x) - sum_k w_uk p_k||^2 | a user u: PAL, arXiv 2406.08469 |
| cyclic | sum_l lambda_l(c) (v(x) rotated against v(y) in plane l) | everybody: GPM, arXiv 2410.02197 |

Law of this file: a head sees features, never pictures or words; `margins` changes its sign when the two pictures are
exchanged; all but `cyclic` have a score of a single picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Head(nn.Module):
    """A head; subclasses define `scores`, or `margins` where a picture alone has no score.

    Attributes:
        kind: Its name in `head.json`.
        groups: Names of the aspects or users that it tells apart; empty for everybody.
    """

    kind: str = "cosine"
    scalar: bool = True

    def __init__(self, groups: Sequence[str] = ()) -> None:
        """Take the names of what is told apart."""
        super().__init__()
        self.groups = tuple(groups)

    def settings(self) -> dict[str, Any]:
        """Return what `make_head` needs to build it again, in values for JSON."""
        return {"kind": self.kind, "groups": list(self.groups)}

    def scores(self, pictures: Tensor, texts: Tensor, scale: Tensor, group: Tensor) -> Tensor:
        """Score aligned pairs.

        Args:
            pictures: Raw features, `[M, D]` float32.
            texts: Raw features of each one's prompt, `[M, D]`.
            scale: CLIP's logit scale, exp taken, scalar.
            group: Number of the aspect or user of each, `[M]` int64; -1 is everybody.

        Returns:
            `[M]` float32.
        """
        return scale * functional.cosine_similarity(pictures, texts, dim=-1)

    def margins(
        self, pictures: Tensor, texts: Tensor, scale: Tensor, group: Tensor, first: Tensor, second: Tensor
    ) -> Tensor:
        """Return the logit of the preference for the first picture of each pair, `[P]`.

        Args:
            pictures: As for `scores`.
            texts: Likewise.
            scale: Likewise.
            group: Likewise.
            first: Number of the first picture, `[P]` int64.
            second: Of the second one; both have the same prompt and group.
        """
        scores = self.scores(pictures, texts, scale, group)
        return scores[first] - scores[second]


class AspectHead(Head):
    """A linear map of the picture's features for each aspect; it begins as the identity, so as the cosine.

    Args:
        groups: Names of the aspects.
        features: D.
    """

    kind = "aspects"

    def __init__(self, groups: Sequence[str], features: int) -> None:
        """Begin at the identity."""
        super().__init__(groups)
        self.maps = nn.Parameter(torch.eye(features).repeat(len(self.groups), 1, 1))

    def scores(self, pictures: Tensor, texts: Tensor, scale: Tensor, group: Tensor) -> Tensor:
        """See `Head`; everybody (-1) is the mean over the aspects."""
        mapped = torch.einsum("kde,me->mkd", self.maps, pictures)
        every = scale * functional.cosine_similarity(mapped, texts[:, None], dim=-1)
        chosen = every.gather(1, group.clamp(min=0)[:, None])[:, 0]
        return torch.where(group < 0, every.mean(dim=1), chosen)


class PalHead(Head):
    """PAL's mixture of ideal points: a user likes a picture the more, the nearer it is to the user's point.

    The point of user u is `sum_k w_uk p_k` with w_u on the simplex: fixed points (the paper's model A), or points
    that are functions of the prompt (model B). With one prototype it is a single preference for all.

    Args:
        groups: Names of the users.
        features: D.
        prototypes: K.
        points: `"fixed"` or `"prompt"`.
        width: Dimensions of the space of the points.
        user_scale: A user's logits are this times `users`.
        seed: Of the beginning.
    """

    kind = "pal"

    def __init__(
        self,
        groups: Sequence[str],
        features: int,
        prototypes: int,
        points: str = "fixed",
        width: int = 64,
        user_scale: float = 10.0,
        seed: int = 0,
    ) -> None:
        """Draw the beginning from the seed; every user begins as the even mixture."""
        super().__init__(groups)
        self.points, self.width, self.user_scale = points, width, user_scale
        generator = torch.Generator().manual_seed(seed)

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator) / math.sqrt(shape[-1]))

        self.picture = drawn(width, features)
        self.prototypes = drawn(prototypes, width) if points == "fixed" else drawn(prototypes, width, features)
        self.users = nn.Parameter(torch.zeros(len(self.groups), prototypes))
        self.log_scale = nn.Parameter(torch.tensor(1.0))

    def settings(self) -> dict[str, Any]:
        """See `Head`."""
        return super().settings() | {
            "prototypes": self.users.shape[1],
            "points": self.points,
            "width": self.width,
            "user_scale": self.user_scale,
        }

    def logits(self, group: Tensor) -> Tensor:
        """Return the logits of users, `[M, K]`; everybody (-1) has the mean of the trained ones."""
        mean = self.users.mean(dim=0).expand(len(group), -1)
        known = self.users[group.clamp(min=0)] if len(self.users) else mean
        return self.user_scale * torch.where((group < 0)[:, None], mean, known)

    def to_each(self, pictures: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Return pictures `[M, W]` and ideal points `[M, K, W]` in their space."""
        placed = functional.normalize(functional.normalize(pictures, dim=-1) @ self.picture.T, dim=-1)
        if self.points == "fixed":
            return placed, self.prototypes.expand(len(pictures), -1, -1)
        return placed, torch.einsum("kwd,md->mkw", self.prototypes, functional.normalize(texts, dim=-1))

    def scores_by(self, logits: Tensor, pictures: Tensor, texts: Tensor) -> Tensor:
        """Score with a mixture for each picture, logits `[M, K]`: minus the squared distance, `[M]`."""
        placed, points = self.to_each(pictures, texts)
        ideal = (logits.softmax(dim=-1)[:, :, None] * points).sum(dim=1)
        return -self.log_scale.exp() * (placed - ideal).square().sum(dim=-1)

    def scores(self, pictures: Tensor, texts: Tensor, scale: Tensor, group: Tensor) -> Tensor:
        """See `Head`."""
        return self.scores_by(self.logits(group), pictures, texts)

    def fit_user(
        self, pictures: Tensor, texts: Tensor, first: Tensor, second: Tensor, prior: float, steps: int = 200
    ) -> Tensor:
        """Fit a new user's mixture to a few pairs, everything else held; maximum a posteriori.

            min over l of  sum over pairs of -log sigmoid(margin) + prior ||l - mean||^2

        Args:
            pictures: Features of the pictures of the pairs, `[M, D]`.
            texts: Of their prompts, `[M, D]`.
            first: Number of the preferred picture of each pair, `[P]`.
            second: Of the other one.
            prior: Hold of the trained users' mean.
            steps: Of Adam, rate 0.1; no randomness.

        Returns:
            The user's logits, `[K]`.
        """
        placed, points = (each.detach() for each in self.to_each(pictures, texts))
        scale = self.log_scale.detach().exp()
        mean = self.user_scale * self.users.detach().mean(dim=0)
        logits = mean.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([logits], lr=0.1)
        with torch.enable_grad():
            for _ in range(steps):
                ideal = (logits.softmax(dim=-1)[None, :, None] * points).sum(dim=1)
                scores = -scale * (placed - ideal).square().sum(dim=-1)
                fit = functional.softplus(scores[second] - scores[first]).sum()
                loss = fit + prior * (logits - mean).square().sum()
                optimizer.zero_grad()
                (logits.grad,) = torch.autograd.grad(loss, [logits])
                optimizer.step()
        return logits.detach()


class CyclicHead(Head):
    """A general preference: embeddings in planes, in which one picture may lie clockwise of another.

        margin(x, y) = sum over l of lambda_l(c) (v_x,2l v_y,2l+1 - v_x,2l+1 v_y,2l),  |v| = 1, lambda > 0

    A circle of pictures, each preferred to the next, has no scores that explain it, and is a rotation here.

    Args:
        features: D.
        planes: L.
        seed: Of the beginning.
    """

    kind = "cyclic"
    scalar = False

    def __init__(self, features: int, planes: int, seed: int = 0) -> None:
        """Draw the beginning from the seed."""
        super().__init__()
        self.planes = planes
        generator = torch.Generator().manual_seed(seed)
        self.picture = nn.Parameter(torch.randn(2 * planes, 2 * features, generator=generator) / features**0.5)
        self.gate = nn.Parameter(torch.zeros(planes, features))
        self.gate_bias = nn.Parameter(torch.full((planes,), math.log(math.e**2 - 1)))

    def settings(self) -> dict[str, Any]:
        """See `Head`."""
        return super().settings() | {"planes": self.planes}

    def scores(self, pictures: Tensor, texts: Tensor, scale: Tensor, group: Tensor) -> Tensor:
        """Refuse: a general preference has no score of a single picture.

        Raises:
            ValueError: Always.
        """
        raise ValueError("a cyclic preference has no score of a single picture; compare two pictures")

    def margins(
        self, pictures: Tensor, texts: Tensor, scale: Tensor, group: Tensor, first: Tensor, second: Tensor
    ) -> Tensor:
        """See `Head`."""
        picture, text = functional.normalize(pictures, dim=-1), functional.normalize(texts, dim=-1)
        both = torch.cat([picture, picture * text * math.sqrt(picture.shape[1])], dim=-1)
        embedded = functional.normalize(both @ self.picture.T, dim=-1).unflatten(-1, (self.planes, 2))
        one, two = embedded[first], embedded[second]
        turned = one[..., 0] * two[..., 1] - one[..., 1] * two[..., 0]
        strength = functional.softplus(text @ self.gate.T + self.gate_bias)
        margins: Tensor = self.planes * (strength[first] * turned).sum(dim=-1)
        return margins


def make_head(settings: dict[str, Any], features: int, seed: int = 0) -> Head:
    """Build a head from its settings (`Head.settings`).

    Raises:
        ValueError: If the kind is unknown.
    """
    given = dict(settings)
    kind, groups = given.pop("kind"), given.pop("groups", [])
    if kind == "cosine":
        return Head()
    if kind == "aspects":
        return AspectHead(groups, features)
    if kind == "pal":
        return PalHead(groups, features, seed=seed, **given)
    if kind == "cyclic":
        return CyclicHead(features, seed=seed, **given)
    raise ValueError(f"unknown kind of head {kind!r}; choose cosine, aspects, pal or cyclic")
