"""The scorer that a reward-guided trainer is handed, and whether two scorers are of one family.

Law of this file: it imports no reward model; whoever starts the training loads it and hands it over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from t2ialign.errors import ConfigError

Score = Callable[[Sequence[str], Sequence[Image.Image]], Tensor]
ScoreTensors = Callable[[Sequence[str], Tensor], Tensor]


@dataclass(frozen=True)
class Reward:
    """What is raised, or watched.

    Attributes:
        name: For what is written.
        score: Prompts and pictures to numbers [B]; NaN where there is no answer.
        score_tensors: Prompts and pictures [B, 3, H, W] in [0, 1] to numbers [B], with gradients, or None.
        sign: -1 where a lower score is better.
        check: Refuses prompts that can not be scored (DataError), before anything takes long.
        kin: Names of what two scorers of one family share: their class, their checkpoint.
    """

    name: str
    score: Score
    score_tensors: ScoreTensors | None = None
    sign: float = 1.0
    check: Callable[[Sequence[str]], None] | None = None
    kin: frozenset[str] = frozenset()

    @classmethod
    def of(cls, scorer: Any, name: str | None = None) -> Reward:
        """Return a reward of a scorer.

        Args:
            scorer: An object with `score`, as `t2ialign.reward_models` has them, or a plain callable
                `(prompts, pictures) -> [B]`.
            name: As it was asked for; the scorer's own name by default.
        """
        if isinstance(scorer, cls):
            return scorer
        own = str(getattr(scorer, "name", None) or getattr(scorer, "__name__", type(scorer).__name__))
        _, at, digest = str(getattr(scorer, "version", "")).rpartition("@")
        kind = f"class {type(scorer).__name__}" if hasattr(scorer, "score") else f"name {own}"
        return cls(
            name=name or own,
            score=getattr(scorer, "score", scorer),
            score_tensors=getattr(scorer, "score_tensors", None),
            sign=1.0 if getattr(scorer, "higher_is_better", True) else -1.0,
            check=getattr(scorer, "check_prompts", None),
            kin=frozenset({kind} | ({f"checkpoint {digest}"} if at else set())),
        )

    def of_pictures(self, prompts: Sequence[str], pictures: Sequence[Image.Image]) -> Tensor:
        """Score pictures, higher is better; float32 `[B]` on the CPU."""
        with torch.no_grad():
            return self.sign * self.score(prompts, pictures).detach().float().cpu()

    def of_tensors(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        """Score pictures `[B, 3, H, W]` in [0, 1] with gradients, higher is better; float32 `[B]` where they are."""
        assert self.score_tensors is not None
        return self.sign * self.score_tensors(prompts, pixels).float().to(pixels.device)

    def require_gradients(self) -> None:
        """Refuse a scorer without gradients.

        Raises:
            ConfigError: naming it and what to do instead.
        """
        if self.score_tensors is None:
            raise ConfigError(
                f"the scorer {self.name} has no gradients, which refl needs; take `t2ialign train ddpo`, or a scorer "
                "that has them, such as imagereward, pickscore, hpsv2 or clipscore"
            )

    def related(self, other: Reward) -> bool:
        """Whether two scorers are of one family, so that watching one says little of the other."""
        return self.name == other.name or bool(self.kin & other.kin)
