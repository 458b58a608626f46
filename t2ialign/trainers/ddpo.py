"""DDPO (arXiv 2305.13301): the chain of denoising as decisions, and a policy gradient on the score of the picture.

Each DDIM step with eta = 1 is a Gaussian whose probability is known. Pictures are drawn in rounds; each is worth its
advantage A over others of its prompt (`advantages`), and so is each step of its chain (equation 4, clipped as PPO):

    L = E[ max( -A q, -A clip(q, 1 - c, 1 + c) ) ] + w_ref E KL(policy step || reference step),   q = p / p_old

with log p the mean over a latent's numbers, as in the published code, and KL exact and divided alike. A round is gone
through in `updates_per_round` optimizer steps, `inner_epochs` times; at the first, q is 1.

Law of this file: a round is a function of (weights at its beginning, statistics at its beginning, seed, picture
numbers). So a run that goes on in the middle of a round draws the same round again, from the weights that the
checkpoint keeps of its beginning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import gather
from torch import Tensor, nn

from t2ialign.engine.config import known
from t2ialign.engine.order import Schedule
from t2ialign.engine.randomness import Draws, Stream
from t2ialign.engine.task import GivenUp, StopRequested
from t2ialign.errors import ConfigError, DataError
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.objectives import LossOutput
from t2ialign.trainers.advantages import RunningStatistics
from t2ialign.trainers.ddpo_config import DDPOConfig
from t2ialign.trainers.guided import GuidedTask, GuidedTrainer
from t2ialign.trainers.prompts import PromptBatch, PromptExamples
from t2ialign.trainers.rewards import Reward
from t2ialign.trainers.rollouts import gaussian_kl, log_probability
from t2ialign.trainers.rounds import Part, Rollout

_STATISTICS, _ROUND = "statistics", "round."
"""Names in the task's state: the scores remembered, and before a weight's name its value at the round's beginning."""


class DDPOTask(GuidedTask):
    """Prompts and a scorer as a task of the engine; see `GuidedTask`."""

    eta = 1.0

    def __init__(
        self, model: DiffusionModel, examples: PromptExamples, reward: Reward, *, config: DDPOConfig, **more: Any
    ) -> None:
        self.config = config
        super().__init__(model, examples, reward, config=config, **more)
        self.statistics = RunningStatistics(len(examples.prompts), config.statistics, config.statistics_from)
        # A last step without noise has no probability.
        self._usable = torch.nonzero(self.drawer.chain.sigma > 0).flatten()
        if not len(self._usable):
            raise ConfigError(
                f"num_inference_steps is {config.num_inference_steps}, and no step of this model's chain has noise to "
                "learn from; give --num_inference_steps 2 or more"
            )
        self._rollouts: dict[int, Rollout] = {}
        self._drawn: int | None = None
        self._next = 0
        self._begun: dict[str, Tensor] = {}
        self._remembered = self.statistics.table.clone()

    def setup(self, device: torch.device, schedule: Schedule, stop: StopRequested) -> None:
        """Learn how the run is split, and with it how large a round is."""
        super().setup(device, schedule, stop)
        self._schedule = schedule
        updates = known(self.config.updates_per_round, "updates_per_round")
        self.examples.revisit(schedule.per_step * updates, self.config.inner_epochs)

    def begin_step(self, step: int) -> None:
        """Draw a round where one begins, or where a run goes on within one."""
        current, place = divmod(step, self.config.steps_per_round)
        if place == 0:
            self._remembered = self.statistics.table.clone()
            self._begun = self._weights() if self.config.steps_per_round > 1 else {}
            self._draw(step)
        elif self._drawn != current:
            with self._at_beginning():
                self._draw(step - place)
        self._drawn, self._next = current, step + 1

    def _trainable(self) -> dict[str, nn.Parameter]:
        return {name: value for name, value in self.module.named_parameters() if value.requires_grad}

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self._trainable().items()}

    @contextmanager
    def _at_beginning(self) -> Iterator[None]:
        """Put the weights of the round's beginning in place inside the block."""
        now = self._weights()
        try:
            self._put(self._begun)
            yield
        finally:
            self._put(now)

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor]) -> None:
        for name, value in self._trainable().items():
            value.copy_(weights[name])

    def _draw(self, first: int) -> None:
        """Draw and score the pictures of the round that begins with a step, and work out their advantages."""
        found: list[Rollout] = []
        updates = known(self.config.updates_per_round, "updates_per_round")
        places = [
            (step, micro) for step in range(first, first + updates) for micro in range(self._schedule.accumulation)
        ]
        with suppress(GivenUp):
            for place in places:
                keys, seed = self._schedule.batch(*place), self.config.seed
                examples = [self.examples.read(index, Draws(seed, n)) for n, index in keys]
                found.append(self._roll(self.examples.collate(examples)))
        # Processes are at different places when they hear of a stop; here they agree.
        if gather(torch.tensor([len(found) < len(places)], device=self.model.device)).any():
            raise GivenUp
        advantages = self._advantages(found).split([len(each.batch) for each in found])
        self._rollouts = {
            int(each.batch.numbers[0]): replace(each, advantages=own)
            for each, own in zip(found, advantages, strict=True)
        }

    @torch.no_grad()
    def _roll(self, batch: PromptBatch) -> Rollout:
        """Draw and score one batch."""
        drawer, device = self.drawer, self.model.device
        count = len(drawer.chain)
        start = self.noise(batch, Stream.NOISE, drawer.shape).to(device)
        noise = self.noise(batch, Stream.CHAIN, (count, *drawer.shape))
        told = drawer.condition(batch.prompts)
        with self._autocast():
            states, probabilities = drawer.draw(self.policy(), start, told, noise, self.give_up_if_asked)
        pictures = drawer.pictures(states[-1], self.give_up_if_asked)
        scores = self.reward.of_pictures(batch.prompts, pictures)
        chosen = torch.stack([self._choose(draws) for draws in self.draws(batch)])
        return Rollout(batch, states.cpu(), probabilities.cpu(), chosen, told.to("cpu"), scores, scores)

    def _choose(self, draws: Draws) -> Tensor:
        """Return the steps of one picture's chain that are trained on, `[K]`, in random order."""
        order = torch.tensor(draws.uniform(Stream.STOP, len(self._usable)), dtype=torch.float64).argsort()
        share = known(self.config.timestep_fraction, "timestep_fraction")
        return self._usable[order][: max(1, int(share * len(self._usable)))]

    def _advantages(self, found: Sequence[Rollout]) -> Tensor:
        """Return the advantages of this process's pictures, by the scores of all processes."""
        device = self.model.device
        numbers, entries = (
            torch.cat([getattr(each.batch, name) for each in found]).to(device) for name in ("numbers", "entries")
        )
        scores = torch.cat([each.scores for each in found]).to(device)
        every = [gather(each.contiguous()).cpu() for each in (numbers, entries, scores)]
        order = every[0].argsort()
        advantages = self.statistics.advantages(every[1][order], every[2][order])
        places = torch.searchsorted(every[0][order], numbers.cpu())
        limit = self.config.advantage_clip
        return advantages.clamp(-limit, limit).float()[places]

    def parts(self, batch: PromptBatch) -> Sequence[Part]:
        """Return one step of each chain at a time, in the random order in which they were chosen."""
        rollout = self._rollouts[int(batch.numbers[0])]
        device, rows = self.model.device, torch.arange(len(batch))
        told = rollout.told.to(device)
        scores, advantages = rollout.scores.to(device), rollout.advantages.to(device)
        return [
            Part(
                steps,
                rollout.states[steps, rows].to(device),
                rollout.states[steps + 1, rows].to(device),
                rollout.probabilities[steps, rows].to(device),
                told,
                scores,
                advantages,
            )
            for steps in rollout.chosen.T
        ]

    def loss(self, module: nn.Module, batch: Part, step: Tensor | None = None) -> LossOutput:
        """Return the loss of one step of B chains; the policy's forward goes through `module`."""
        drawer, part, clip = self.drawer, batch, self.config.clip_range
        mean = drawer.step(self.policy(module), part.before, part.steps, part.told)
        deviation = drawer.chain.deviation(part.steps, mean)
        change = log_probability(part.after, mean, deviation) - part.probabilities
        ratio = change.exp()
        plain, clipped = -part.advantages * ratio, -part.advantages * ratio.clamp(1 - clip, 1 + clip)
        loss = torch.maximum(plain, clipped).mean()
        scored = ~part.scores.isnan()
        figures = {
            "reward": part.scores.nan_to_num(0.0),
            "advantage": part.advantages,
            "ratio": ratio,
            "clipped": (clipped > plain).float(),
        }
        held = self.held()
        if held is not None:
            with torch.no_grad(), self._autocast():
                other = drawer.step(held, part.before, part.steps, part.told)
            distance = gaussian_kl(mean, other, deviation)
            loss = loss + self.config.reference_weight * distance.mean()
            figures["divergence"] = distance * mean[0].numel()
        detached = {name: each.detach() for name, each in figures.items()}
        return LossOutput(loss, loss.new_zeros(0), detached, {"reward": scored.float()})

    def state(self) -> dict[str, Tensor]:
        """Return the scores remembered, and within a round those and the weights of its beginning."""
        if self._next % self.config.steps_per_round == 0:
            return {**super().state(), _STATISTICS: self.statistics.table.clone()}
        begun = {_ROUND + name: value for name, value in self._begun.items()}
        return {**super().state(), _STATISTICS: self._remembered, **begun}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state.

        Raises:
            DataError: if it is of a run with other prompts or statistics.
        """
        super().load_state(state)
        table = state.get(_STATISTICS)
        if table is None or table.shape != self.statistics.table.shape:
            raise DataError("the checkpoint's scores are of other prompts; resume with the prompts it began on")
        self.statistics.table = table.clone()
        self._remembered = table.clone()
        self._begun = {name.removeprefix(_ROUND): each for name, each in state.items() if name.startswith(_ROUND)}
        self._next = 1 if self._begun else 0


class DDPOTrainer(GuidedTrainer[DDPOConfig, DDPOTask]):
    """Trains with DDPO; `DDPOTrainer(DDPOConfig(model=..., scorer=..., output_dir=...), scorer).train()`."""

    algorithm = "ddpo"

    def build(self, model: DiffusionModel, prompts: list[str], **more: Any) -> DDPOTask:
        """Put model, prompts and scorer together."""
        examples = PromptExamples(prompts, known(self.config.pictures_per_prompt, "pictures_per_prompt"))
        return DDPOTask(model, examples, self.reward, config=self.config, **more)


def train(config: DDPOConfig, scorer: Any, watch: Any | None = None) -> dict[str, Any]:
    """Run `t2ialign train ddpo` with a loaded scorer and return what `report.json` holds."""
    return DDPOTrainer(config, scorer, watch).train()
