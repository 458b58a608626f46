r"""Drawing a picture as a chain of steps that can be differentiated, or whose probabilities are known: DDIM.

With a = alpha_bar of a step, a' that of the next one, and s its deviation (arXiv 2010.02502, equations 12 and 16):

    x' = sqrt(a') x0 + sqrt(1 - a' - s^2) eps + s z,   s = eta sqrt((1 - a') / (1 - a) (1 - a / a')),   z ~ N(0, I)

so that with eta > 0 a step is a Gaussian around its mean. Law of this file: timesteps and noise schedule are those of
diffusers' DDIMScheduler for the model, with which tests compare every step; all latents are float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from t2ialign.models.conditioning import Conditioning
from t2ialign.models.diffusion import DiffusionModel

Predict = Callable[[Tensor, Tensor, Conditioning], Tensor]
"""Noisy latents, timesteps and conditioning to the UNet's output, as `DiffusionModel.predict` has it."""


def nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Chain:
    """The steps from noise to a picture.

    Attributes:
        timesteps: Of each of T steps, falling.
        signal: alpha_bar of each step, [T] float64.
        after: alpha_bar that it leads to, [T] float64.
        prediction_type: "epsilon", "v_prediction" or "sample".
        eta: Share of noise that is drawn anew, in [0, 1]; 0 for none.
    """

    timesteps: Tensor
    signal: Tensor
    after: Tensor
    prediction_type: str
    eta: float = 0.0
    sigma: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Work out the deviation of each step, `sigma` [T] float64."""
        variance = (1 - self.after) / (1 - self.signal) * (1 - self.signal / self.after)
        object.__setattr__(self, "sigma", self.eta * variance.clamp(min=0).sqrt())

    @classmethod
    def of(cls, model: DiffusionModel, steps: int, eta: float = 0.0) -> Chain:
        """Return the chain that `--scheduler ddim` draws a model's pictures by."""
        from t2ialign.generation.schedulers import make_scheduler

        scheduler = make_scheduler("ddim", model.pipeline.scheduler, model.family)
        scheduler.set_timesteps(steps)
        alphas = scheduler.alphas_cumprod.double()
        timesteps = torch.as_tensor(scheduler.timesteps).long().cpu()
        before = timesteps - scheduler.config.num_train_timesteps // steps
        after = torch.where(before >= 0, alphas[before.clamp(min=0)], scheduler.final_alpha_cumprod.double())
        return cls(timesteps, alphas[timesteps], after, model.prediction_type, eta)

    def __len__(self) -> int:
        return len(self.timesteps)

    def split(self, output: Tensor, latents: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the picture and the noise that a UNet's output means, x0 and eps, `[B, C, h, w]` each.

        Args:
            output: The UNet's.
            latents: It was given, x.
            steps: Number of the step of each row, `[B]`.
        """
        a = _over(self.signal, steps, latents)
        if self.prediction_type == "epsilon":
            return (latents - (1 - a).sqrt() * output) / a.sqrt(), output
        if self.prediction_type == "sample":
            return output, (latents - a.sqrt() * output) / (1 - a).sqrt()
        return a.sqrt() * latents - (1 - a).sqrt() * output, a.sqrt() * output + (1 - a).sqrt() * latents

    def mean(self, picture: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
        """Return the mean of the next latents, `[B, C, h, w]`."""
        after, sigma = _over(self.after, steps, picture), _over(self.sigma, steps, picture)
        return after.sqrt() * picture + (1 - after - sigma**2).clamp(min=0).sqrt() * noise

    def deviation(self, steps: Tensor, like: Tensor) -> Tensor:
        """Return the deviation of the next latents, `[B, 1, 1, 1]`."""
        return _over(self.sigma, steps, like)


def _over(table: Tensor, steps: Tensor, like: Tensor) -> Tensor:
    """Return rows of a table as `[B, 1, 1, 1]`, in the type of `like`."""
    return table[steps.to(table.device)].to(like).view(-1, 1, 1, 1)


def log_probability(value: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Return the log-density of latents under a Gaussian, divided by their count of numbers, `[B]`.

    The mean over numbers, not their sum, is what the published code of DDPO takes; its clip range of 1e-4 belongs to
    it.
    """
    each = -((value - mean) ** 2) / (2 * deviation**2) - deviation.log() - 0.5 * math.log(2 * math.pi)
    return each.mean(dim=(1, 2, 3))


def gaussian_kl(mean: Tensor, other: Tensor, deviation: Tensor) -> Tensor:
    """Return KL of two Gaussians of one deviation, in nats, divided by their count of numbers, `[B]`."""
    return ((mean - other) ** 2 / (2 * deviation**2)).mean(dim=(1, 2, 3))


@dataclass(frozen=True)
class Drawer:
    """A model that draws under classifier-free guidance (arXiv 2207.12598).

    Attributes:
        model: Whose conditioning and VAE are used.
        chain: The steps.
        scale: Of guidance, in diffusers' convention; 1 or less for none.
        resolution: Side of the pictures, pixels.
    """

    model: DiffusionModel
    chain: Chain
    scale: float
    resolution: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one picture's latents, (channels, height, width)."""
        side = self.resolution // int(self.model.pipeline.vae_scale_factor)
        return int(self.model.vae.config.latent_channels), side, side

    def condition(self, prompts: Sequence[str]) -> Conditioning:
        """Return what the UNet is told: B rows, or under guidance 2 B, those without a prompt first."""
        told = [*([""] * len(prompts) if self.scale > 1 else []), *prompts]
        distinct = list(dict.fromkeys(told))
        rows = {prompt: number for number, prompt in enumerate(distinct)}
        text = self.model.encode_prompts(distinct, force_zeros_for_empty_prompt=True)
        text = text.index([rows[prompt] for prompt in told])
        if text.time_ids is None:
            return text
        side = (self.resolution, self.resolution)
        return text.with_time_ids(self.model.time_ids(side).to(text.hidden.device).repeat(len(told), 1))

    def output(self, predict: Predict, latents: Tensor, steps: Tensor, told: Conditioning) -> Tensor:
        """Return the guided output of a UNet, `[B, C, h, w]` float32."""
        timesteps = self.chain.timesteps.to(latents.device)[steps.to(latents.device)]
        if self.scale <= 1:
            return predict(latents, timesteps, told).float()
        free, asked = predict(latents.repeat(2, 1, 1, 1), timesteps.repeat(2), told).float().chunk(2)
        return free + self.scale * (asked - free)

    def step(self, predict: Predict, latents: Tensor, steps: Tensor, told: Conditioning) -> Tensor:
        """Return the mean of the next latents, `[B, C, h, w]`."""
        picture, noise = self.chain.split(self.output(predict, latents, steps, told), latents, steps)
        return self.chain.mean(picture, noise, steps)

    def rows(self, told: Conditioning, rows: Tensor) -> Conditioning:
        """Return the conditioning of some of B pictures."""
        both = torch.cat([rows, rows + len(told) // 2]) if self.scale > 1 else rows
        return told.index(both)

    @torch.no_grad()
    def draw(
        self,
        predict: Predict,
        start: Tensor,
        told: Conditioning,
        noise: Tensor | None = None,
        between: Callable[[], object] = nothing,
    ) -> tuple[Tensor, Tensor]:
        """Draw, and return every state, `[T + 1, B, C, h, w]`, and the log-probability of each step, `[T, B]`.

        Args:
            predict: The policy.
            start: Unit noise, `[B, C, h, w]`.
            told: From `condition`.
            noise: Of each step, `[B, T, C, h, w]`, where the chain has eta above 0; without it, log-probabilities are
                left out (`[0]`).
            between: Called before each step; what it raises ends the drawing.
        """
        found, probabilities = [start], []
        for number in range(len(self.chain)):
            between()
            steps = torch.full((len(start),), number)
            following = mean = self.step(predict, found[-1], steps, told)
            if noise is not None:
                deviation = self.chain.deviation(steps, start)
                following = mean + deviation * noise[:, number].to(start)
                probabilities.append(log_probability(following, mean, deviation))
            found.append(following)
        return torch.stack(found), torch.stack(probabilities) if probabilities else start.new_zeros(0)

    def pixels(self, latents: Tensor) -> Tensor:
        """Decode latents with gradients: `[B, 3, H, W]` float32, about [0, 1] and not clamped."""
        vae: Any = self.model.vae
        shift = float(getattr(vae.config, "shift_factor", None) or 0.0)
        plain = latents / float(vae.config.scaling_factor) + shift
        decoded: Tensor = vae.decode(plain.to(vae.dtype), return_dict=False)[0]
        return decoded.float() / 2 + 0.5

    def pictures(self, latents: Tensor, between: Callable[[], object] = nothing) -> list[Any]:
        """Decode latents to Pillow pictures, as `t2ialign generate` does; `between` is called before each."""
        from t2ialign.generation.sampler import decode

        found = []
        for row in range(len(latents)):
            between()
            found.append(decode(self.model.pipeline, latents[row : row + 1]))
        return found
