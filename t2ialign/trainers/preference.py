"""Training on preference pairs: the step that every algorithm on pairs shares.

    encode   x0 of both sides, conditioning of both sides
    noise    t and eps shared inside a pair -> x_t, target by the model's prediction type
    predict  the policy on both sides in one call, then the reference on the same tensors
    error    mean squared error of each sample, float32
    loss     the objective on the four errors

What an algorithm adds is an `Objective`; what its data or model adds overrides one of these steps.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from t2ialign.data.pairs import PairDataset
from t2ialign.engine.order import Schedule
from t2ialign.engine.task import StopRequested
from t2ialign.models.conditioning import Conditioning
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.models.lora import add_lora
from t2ialign.models.memory import save_memory
from t2ialign.models.reference import Reference, make_reference
from t2ialign.objectives import BatchInfo, Errors, LossOutput, Objective, per_sample_error
from t2ialign.trainers.caches import fill_latents, fill_texts, wants_latents, wants_texts
from t2ialign.trainers.examples import ExampleOptions, PairBatch, PairExamples
from t2ialign.trainers.outputs import write_final, write_samples
from t2ialign.trainers.preference_config import PreferenceConfig

logger = logging.getLogger(__name__)

Autocast = Callable[[], AbstractContextManager[Any]]


class PreferenceTask:
    """A model and preference pairs as a task of the engine.

    Args:
        model: As loaded; its UNet gets the LoRA, or is trained whole.
        pairs: What to train on.
        objective: The loss on the errors of a pair.
        config: Options with every value known.
        autocast: Context in which the reference is computed, that of the policy; none by default.

    Attributes:
        notes: What a user should know afterwards: captions cut, pictures converted.
    """

    algorithm = "dpo"

    def __init__(
        self,
        model: DiffusionModel,
        pairs: PairDataset,
        objective: Objective,
        config: PreferenceConfig,
        autocast: Autocast = nullcontext,
    ) -> None:
        self.model = model
        self.objective = objective
        self.config = config
        self.examples = PairExamples(pairs, example_options(model, config))
        self.reference: Reference | None = None
        self.notes: dict[str, Any] = {}
        self._autocast = autocast
        self._make_trainable()

    def _make_trainable(self) -> None:
        config, unet = self.config, self.model.unet
        if config.method == "lora":
            lora = config.lora
            add_lora(unet, lora.rank, lora.alpha, lora.targets, seed=config.seed)
        if self.objective.needs_reference:
            self.reference = make_reference(self.model)
        if config.method == "full":
            unet.requires_grad_(True)
        unet.train()
        save_memory(self.model, gradient_checkpointing=bool(config.gradient_checkpointing))

    @property
    def module(self) -> nn.Module:
        """The UNet."""
        unet: nn.Module = self.model.unet
        return unet

    def setup(self, device: torch.device, schedule: Schedule, stop: StopRequested) -> None:
        """Fill the caches that are asked for or pay; return early once `stop()` is true."""
        captions = sorted({*self.examples.pairs.prompts} | ({""} if self.config.caption_dropout else set()))
        self.notes["captions"] = len(captions)
        self.notes["captions_cut"] = self.model.count_truncated(captions)
        if self.notes["captions_cut"]:
            logger.warning(
                "%d captions exceed the text encoder's limit and lose their end", self.notes["captions_cut"]
            )
        quiet = schedule.rank != 0
        if wants_texts(self.config, len(captions), self._caption_bytes(), schedule):
            self.examples.texts = fill_texts(self.model, captions, quiet=quiet, stop=stop)
        if wants_latents(self.config, self.examples, schedule):
            self.examples.latents = fill_latents(self.model, self.examples, quiet=quiet, stop=stop)

    def _caption_bytes(self) -> int:
        row = self.model.encode_prompts([""])
        tensors = [row.hidden] + ([] if row.pooled is None else [row.pooled])
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def loss(self, module: nn.Module, batch: PairBatch) -> LossOutput:
        """Return the loss of B pairs; the policy's forward goes through `module`."""
        batch = batch.to(self.model.device)
        latents = self.encode(batch)
        conditioning = self.condition(batch)
        timesteps, noise = batch.timesteps.repeat(2), batch.noise.repeat(2, 1, 1, 1)
        noisy = self.model.add_noise(latents, noise, timesteps)
        target = self.model.target(latents, noise, timesteps)
        errors = self.errors(module, noisy, timesteps, conditioning, target)
        return self.objective(errors, BatchInfo())

    def encode(self, batch: PairBatch) -> Tensor:
        """Return the latents of both sides, `[2B, C, h, w]` float32, chosen first.

        They are contiguous: in the VAE's channels-last layout the UNet may choose other kernels with a LoRA than
        without, and the margin of an untrained policy would not be exactly zero.
        """
        if batch.latents is not None:
            return batch.latents
        assert batch.pixels is not None
        return self.model.encode_images(batch.pixels, batch.posterior).contiguous()

    def condition(self, batch: PairBatch) -> Conditioning:
        """Return the conditioning of both sides, 2B rows, chosen first: here the same caption for both."""
        text = self.model.encode_prompts(batch.prompts) if batch.text is None else batch.text
        both = Conditioning.cat([text, text])
        return both if batch.time_ids is None else both.with_time_ids(batch.time_ids)

    def errors(
        self, module: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, target: Tensor
    ) -> Errors:
        """Return the errors of the policy and, if the objective needs it, of the reference."""
        prediction = self.model.predict(noisy, timesteps, conditioning, unet=module)
        chosen, rejected = per_sample_error(prediction, target).chunk(2)
        if self.reference is None:
            return Errors(chosen, rejected)
        with torch.no_grad(), self._autocast():
            held = self.reference.predict(noisy, timesteps, conditioning)
        reference_chosen, reference_rejected = per_sample_error(held, target).chunk(2)
        return Errors(chosen, rejected, reference_chosen, reference_rejected)

    def write_samples(self, file: Path, stop: StopRequested) -> None:
        """Draw the sample prompts into one PNG, always from the same seeds."""
        write_samples(self.model, self.sample_prompts(), file, seed=self.config.seed, stop=stop)

    def sample_prompts(self) -> list[str]:
        """Return the prompts of the sample pictures."""
        given = self.config.sample_prompts
        if len(given) == 1 and Path(given[0]).is_file():
            from t2ialign.data.prompts import read_prompts

            return [prompt.prompt for prompt in read_prompts(given[0])]
        return list(given) or first_distinct(self.examples.pairs.prompts, 4)

    def write_final(self, directory: Path, facts: Mapping[str, Any]) -> None:
        """Write the LoRA or the pipeline, with its card."""
        write_final(self.model, directory, self.config, self.algorithm, facts)


def example_options(model: DiffusionModel, config: PreferenceConfig) -> ExampleOptions:
    """Return how pairs become examples of a model, from options with every value known."""
    resolution = config.resolution or model.resolution
    side = resolution // int(model.pipeline.vae_scale_factor)
    return ExampleOptions(
        resolution=resolution,
        latent_shape=(int(model.vae.config.latent_channels), side, side),
        timesteps=model.num_train_timesteps,
        crop=config.crop or "center",
        flip=config.flip or "none",
        caption_dropout=config.caption_dropout or 0.0,
        time_ids=(config.time_ids or "real") if model.family == "sdxl" else None,
    )


def first_distinct(values: Sequence[str], count: int) -> list[str]:
    """Return the first `count` different values."""
    found: list[str] = []
    for value in values:
        if value not in found:
            found.append(value)
        if len(found) == count:
            break
    return found
