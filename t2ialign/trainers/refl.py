"""Reward feedback: gradients of a scorer back through the last denoising steps.

ReFL (arXiv 2304.05977, algorithm 1) stops the chain at a random late step, does that one step with gradient, guesses
the finished picture x0 from it, and DRaFT-K (arXiv 2309.17400, algorithm 1) does the last K steps of the whole chain
with gradient:

    L = scale E[ phi(r(c, decode(x0))) ] + w_ref E |eps - eps_ref|^2 + w_pre E |prediction - target|^2

with phi(r) = max(0, margin - r), or -r without a margin; the second term is over the steps with gradient, the third
over pictures. DRaFT-LV averages the gradient of the last step over noised copies of the finished picture.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from t2ialign.data.unpaired import UnpairedDataset, load_unpaired
from t2ialign.engine.config import known
from t2ialign.engine.randomness import Stream
from t2ialign.models.conditioning import Conditioning
from t2ialign.models.diffusion import HALF, DiffusionModel
from t2ialign.objectives import LossOutput, per_sample_error
from t2ialign.trainers.examples import Batch, ExampleOptions
from t2ialign.trainers.guided import GuidedTask, GuidedTrainer
from t2ialign.trainers.prompts import PromptBatch, PromptExamples
from t2ialign.trainers.refl_config import ReFLConfig
from t2ialign.trainers.rewards import Reward


class ReFLTask(GuidedTask):
    """Prompts and a scorer with gradients as a task of the engine; see `GuidedTask`."""

    def __init__(
        self, model: DiffusionModel, examples: PromptExamples, reward: Reward, *, config: ReFLConfig, **more: Any
    ) -> None:
        reward.require_gradients()
        self.config = config
        super().__init__(model, examples, reward, config=config, **more)
        vae = model.vae
        if vae.dtype in HALF and bool(getattr(vae.config, "force_upcast", False)):
            vae.to(dtype=torch.float32)  # it would overflow, and must keep its type until the backward pass
        if config.gradient_checkpointing:
            vae.enable_gradient_checkpointing()

    def loss(self, module: nn.Module, batch: PromptBatch, step: Tensor | None = None) -> LossOutput:
        """Return the loss of B prompts; steps with gradient go through `module`."""
        batch = batch.to(self.model.device)
        start = self.noise(batch, Stream.NOISE, self.drawer.shape).to(self.model.device)
        told = self.drawer.condition(batch.prompts)
        draw = self._one_step if self.config.objective == "refl" else self._last_steps
        latents, distance = draw(module, batch, start, told)
        copies = len(latents) // len(batch)
        reward = self.reward.of_tensors(batch.prompts * copies, self.drawer.pixels(latents))
        reward = reward.view(copies, -1)
        margin = self.config.reward_margin
        wanted = -reward if margin is None else (margin - reward).relu()
        loss = self.config.reward_scale * wanted.mean()
        figures = {"reward": reward.mean(dim=0)}
        if margin is not None:
            figures["saturated"] = (reward > margin).float().mean(dim=0)
        if distance is not None:
            loss = loss + self.config.reference_weight * distance.mean()
            figures["divergence"] = distance
        if batch.pictures is not None:
            errors = self._pretraining(module, batch.pictures)
            loss = loss + self.config.pretrain_weight * errors.mean()
            figures["error"] = errors
        return LossOutput(loss, loss.new_zeros(0), {name: each.detach() for name, each in figures.items()})

    def _one_step(
        self, module: nn.Module, batch: PromptBatch, start: Tensor, told: Conditioning
    ) -> tuple[Tensor, Tensor | None]:
        """Return the picture guessed at each one's stop, and the distance to the reference there."""
        first, last = self.config.stops
        stops = torch.tensor([first + draws.integer(Stream.STOP, last - first + 1) for draws in self.draws(batch)])
        latents = self._go(start, told, stops)
        picture, _, distance = self._told(module, latents, stops, told)
        return picture, distance

    def _last_steps(
        self, module: nn.Module, batch: PromptBatch, start: Tensor, told: Conditioning
    ) -> tuple[Tensor, Tensor | None]:
        """Return the finished latents, with noised copies behind them, and the distance to the reference."""
        chain, count = self.drawer.chain, len(batch)
        begin = len(chain) - self.config.draft_steps
        latents = self._go(start, told, torch.full((count,), begin))
        distances = []
        for number in range(begin, len(chain)):
            steps = torch.full((count,), number)
            picture, noise, distance = self._told(module, latents, steps, told)
            latents = chain.mean(picture, noise, steps)
            distances.append(distance)
        finished = [latents]
        if self.config.draft_draws > 1:
            shape = (self.config.draft_draws - 1, *self.drawer.shape)
            for fresh in self.noise(batch, Stream.CHAIN, shape).to(latents).transpose(0, 1):
                steps = torch.full((count,), len(chain) - 1)
                signal = float(chain.signal[-1])
                noised = signal**0.5 * latents.detach() + (1 - signal) ** 0.5 * fresh
                picture, noise, distance = self._told(module, noised, steps, told)
                finished.append(chain.mean(picture, noise, steps))
                distances.append(distance)
        kept = [each for each in distances if each is not None]
        return torch.cat(finished), torch.stack(kept).mean(dim=0) if kept else None

    @torch.no_grad()
    def _go(self, start: Tensor, told: Conditioning, stops: Tensor) -> Tensor:
        """Draw each picture up to its own stop, without gradient, `[B, C, h, w]`."""
        latents = start
        with self._autocast():
            for number in range(int(stops.max())):
                going = torch.nonzero(stops > number).flatten()
                rows = going.to(latents.device)
                moved = self.drawer.step(
                    self.policy(), latents[rows], torch.full((len(rows),), number), self.drawer.rows(told, rows)
                )
                latents = latents.index_copy(0, rows, moved)
        return latents

    def _told(
        self, module: nn.Module, latents: Tensor, steps: Tensor, told: Conditioning
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the picture and the noise that the policy sees, with gradient, and its distance to the reference."""
        drawer, held = self.drawer, self.held()
        picture, noise = drawer.chain.split(drawer.output(self.policy(module), latents, steps, told), latents, steps)
        if held is None:
            return picture, noise, None
        with torch.no_grad(), self._autocast():
            given = latents.detach()
            known_noise = drawer.chain.split(drawer.output(held, given, steps, told), given, steps)[1]
        return picture, noise, per_sample_error(noise, known_noise)

    def _pretraining(self, module: nn.Module, pictures: Batch) -> Tensor:
        """Return the error of the model's own training on pictures, `[B]`."""
        model = self.model
        assert pictures.pixels is not None
        latents = model.encode_images(pictures.pixels, pictures.posterior)
        told = model.encode_prompts(pictures.prompts)
        if pictures.time_ids is not None:
            told = told.with_time_ids(pictures.time_ids)
        noisy = model.add_noise(latents, pictures.noise, pictures.timesteps)
        target = model.target(latents, pictures.noise, pictures.timesteps)
        return per_sample_error(model.predict(noisy, pictures.timesteps, told, unet=module), target)


class ReFLTrainer(GuidedTrainer[ReFLConfig, ReFLTask]):
    """Trains with ReFL or DRaFT; `ReFLTrainer(ReFLConfig(model=..., scorer=..., output_dir=...), scorer).train()`."""

    algorithm = "refl"

    def build(self, model: DiffusionModel, prompts: list[str], **more: Any) -> ReFLTask:
        """Put model, prompts, scorer and pictures together."""
        config = self.config
        config.__post_init__()  # the number of steps is known now, and with it whether the others fit
        pictures: UnpairedDataset | None = None
        if config.pairs is not None:
            pictures = load_unpaired(config.pairs, split=config.split, label=True).positives()
        examples = PromptExamples(prompts, pictures=pictures, options=_picture_options(model, config))
        return ReFLTask(model, examples, self.reward, config=config, **more)

    def check(self, prompts: Any) -> None:
        """Refuse a scorer without gradients, and prompts that it can not score."""
        self.reward.require_gradients()
        super().check(prompts)


def _picture_options(model: DiffusionModel, config: ReFLConfig) -> ExampleOptions:
    resolution = config.resolution or model.resolution
    side = resolution // int(model.pipeline.vae_scale_factor)
    return ExampleOptions(
        resolution=resolution,
        latent_shape=(int(model.vae.config.latent_channels), side, side),
        timesteps=model.num_train_timesteps,
        time_ids="real" if model.family == "sdxl" else None,
    )


def train(config: ReFLConfig, scorer: Any, watch: Any | None = None) -> dict[str, Any]:
    """Run `t2ialign train refl` with a loaded scorer and return what `report.json` holds."""
    known(config.scorer, "scorer")
    return ReFLTrainer(config, scorer, watch).train()
