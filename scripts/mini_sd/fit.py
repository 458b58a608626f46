"""The one loop that every stage of the mini-SD build trains with: it saves as it goes and continues.

Law of this room: step n's batch comes from a generator seeded by (seed, n), so a build that was
stopped and continued sees the same pictures as one that was not.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a stage learns.

    Attributes:
        steps: Optimizer steps in all.
        learning_rate: At the end of the warm-up; it then falls linearly to 2 % of itself.
        warmup: Steps of linear warm-up.
        ema: Limit of the weight average's decay, which is (1 + n) / (10 + n) before; 0 for none.
    """

    steps: int
    learning_rate: float
    warmup: int = 200
    ema: float = 0.0
    weight_decay: float = 0.01

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        left = (self.steps - step) / max(1, self.steps - self.warmup)
        return self.learning_rate * max(0.02, left)


def _average(ema: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    state = dict(model.named_parameters())
    names = list(ema)
    torch._foreach_lerp_([ema[n] for n in names], [state[n].detach() for n in names], 1 - decay)


def fit(
    name: str,
    model: nn.Module,
    loss_of: Callable[[int, np.random.Generator], tuple[Tensor, dict[str, float]]],
    schedule: Schedule,
    work: Path,
    *,
    seed: int = 0,
    groups: list[dict[str, object]] | None = None,
    save_every: int = 500,
) -> dict[str, Tensor]:
    """Train `model` for the whole schedule, from where an earlier run of this stage stopped.

    The stage's state is `work/<name>.pt`, its log `work/<name>.jsonl`. `loss_of` goes from a step number and its
    generator to a scalar loss and figures for the log; each of `groups` has a `factor` for the learning rate. Returns
    the averaged parameters by name (the plain ones where the schedule has no average).
    """
    work.mkdir(parents=True, exist_ok=True)
    state_file = work / f"{name}.pt"
    groups = groups or [{"params": list(model.parameters()), "factor": 1.0}]
    optimizer = torch.optim.AdamW(
        groups, lr=schedule.learning_rate, betas=(0.9, 0.99), weight_decay=schedule.weight_decay, fused=True
    )
    ema = {n: p.detach().clone() for n, p in model.named_parameters()} if schedule.ema else {}
    start = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        ema, start = state["ema"], state["step"]
    began, seen = time.time(), start
    for step in range(start, schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step) * group["factor"]
        torch.manual_seed(seed * 1_000_003 + step)
        loss, figures = loss_of(step, np.random.default_rng((seed, step)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if math.isfinite(float(norm)):
            optimizer.step()
        if ema:
            _average(ema, model, min(schedule.ema, (1 + step) / (10 + step)))
        if (step + 1) % 100 == 0 or step + 1 == schedule.steps:
            speed = round((step + 1 - seen) / (time.time() - began), 2)
            line = {"step": step + 1, "loss": float(loss.detach()), "steps_per_second": speed, **figures}
            with (work / f"{name}.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            began, seen = time.time(), step + 1
        if (step + 1) % save_every == 0 or step + 1 == schedule.steps:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "ema": ema, "step": step + 1}
            torch.save(state, state_file.with_suffix(".tmp"))
            os.replace(state_file.with_suffix(".tmp"), state_file)
    return ema or {n: p.detach() for n, p in model.named_parameters()}
