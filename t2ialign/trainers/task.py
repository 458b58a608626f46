"""Training a diffusion model on pictures: what every algorithm's step is made of.

    encode   x0 of every side, conditioning of every side
    noise    t and eps shared by the sides of an example -> x_t, target by the model's prediction type
    predict  the policy on all sides in one call, then the reference on the same tensors
    error    mean squared error of each sample, float32
    loss     the objective on the errors

`PreferenceTask` and `UnpairedTask` put an objective on the errors; what an algorithm's data or model adds overrides
one of these steps. `ModelTask` is what is left of a task without pictures: what is trained, and what is written; those
that draw their own pictures stand on it (`guided`).
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from t2ialign.engine.bad_examples import BadExamples
from t2ialign.engine.config import known
from t2ialign.engine.order import Schedule
from t2ialign.engine.randomness import Draws, Stream
from t2ialign.engine.task import StopRequested, Task
from t2ialign.errors import ConfigError, ModelError
from t2ialign.models.conditioning import Conditioning
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.models.lora import add_lora
from t2ialign.models.memory import save_memory, send_away
from t2ialign.models.reference import FrozenCopy, Reference, make_reference
from t2ialign.models.speed import speed_up
from t2ialign.models.user_adapter import installed
from t2ialign.objectives import per_sample_error
from t2ialign.trainers.buckets import bucket_sizes, log_report
from t2ialign.trainers.caches.filling import Way
from t2ialign.trainers.caches.latents import fill_latents, not_finite
from t2ialign.trainers.caches.plan import cache_dtype, latent_store, text_store, wants_latents, wants_texts
from t2ialign.trainers.caches.texts import caption_bytes, fill_texts
from t2ialign.trainers.examples import Batch, ExampleOptions, PictureExamples
from t2ialign.trainers.model_config import ModelConfig
from t2ialign.trainers.outputs import write_final, write_samples
from t2ialign.trainers.pictures import Size
from t2ialign.trainers.preference_config import PreferenceConfig
from t2ialign.trainers.rising import Rising, Side, pair_sides

logger = logging.getLogger(__name__)

Autocast = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class SideErrors:
    """Errors of the S B rows of a batch; `reference` is None where the objective needs none."""

    policy: Tensor
    reference: Tensor | None


class ModelTask(Task):
    """A diffusion model in training, whatever it is trained on.

    Args:
        model: As loaded; its UNet gets the LoRA, or is trained whole.
        needs_reference: Whether predictions of the model as it is now are needed.
        config: Options with every value known.
        autocast: Context in which the reference is computed, that of the policy; none by default.

    Attributes:
        algorithm: Its name, for what is written.
        notes: What a user should know afterwards: captions cut, pictures converted.
        reference: The model as it was, or None: where none is needed none is ever made.
    """

    algorithm = "dpo"

    def __init__(
        self, model: DiffusionModel, needs_reference: bool, config: ModelConfig, autocast: Autocast = nullcontext
    ) -> None:
        self.model = model
        self.reference: Reference | None = None
        self.notes: dict[str, Any] = {}
        self._settings = config
        self._autocast = autocast
        self._make_trainable(needs_reference)
        self.model.unet.train()
        save_memory(
            self.model,
            gradient_checkpointing=bool(config.gradient_checkpointing),
            vae_slicing=config.vae_slicing,
        )
        speed_up(self.model, *self.beside, channels_last=config.channels_last, compile=config.compile, vae=False)

    def _make_trainable(self, needs_reference: bool) -> None:
        config, unet = self._settings, self.model.unet
        if config.method == "full" and installed(unet) is not None:
            raise ModelError(
                f"{self.model.name} has a user adapter, which a whole pipeline can not hold: train its base model, or "
                "use --method lora"
            )
        if config.method == "lora":
            lora = config.lora
            add_lora(unet, lora.rank, lora.alpha, lora.targets, seed=config.seed)
        if needs_reference:
            self.reference = make_reference(self.model)
        if config.method == "full":
            unet.requires_grad_(True)

    @property
    def module(self) -> nn.Module:
        """The UNet."""
        unet: nn.Module = self.model.unet
        return unet

    @property
    def whole_only(self) -> str | None:
        """The UNet is called once a batch, and its reference once; no layout or compiler was tried on parts."""
        tried = [name for name in ("compile", "channels_last") if getattr(self._settings, name, False)]
        return f"--{tried[0]} does not go with parameters in parts" if tried else None

    @property
    def beside(self) -> Sequence[nn.Module]:
        """The reference's UNet, where it is one of its own."""
        return (self.reference.unet,) if isinstance(self.reference, FrozenCopy) else ()

    @contextmanager
    def standing_in(self, module: nn.Module) -> Iterator[None]:
        """Put another UNet into the pipeline, inside the block."""
        pipeline, trained = self.model.pipeline, self.model.unet
        # Past the pipeline's own __setattr__, which would note the class of a sharded UNet in its configuration.
        object.__setattr__(pipeline, "unet", module)
        try:
            yield
        finally:
            object.__setattr__(pipeline, "unet", trained)

    def count_captions(self, captions: Sequence[str]) -> None:
        """Note how many captions there are and how many the text encoder cuts."""
        self.notes["captions"] = len(captions)
        self.notes["captions_cut"] = self.model.count_truncated(list(captions))
        if self.notes["captions_cut"]:
            logger.warning(
                "%d captions exceed the text encoder's limit and lose their end", self.notes["captions_cut"]
            )

    @abstractmethod
    def first_prompts(self) -> list[str]:
        """Return the prompts of the sample pictures where none are given."""

    def sample_prompts(self) -> list[str]:
        """Return the prompts of the sample pictures."""
        given = self._settings.sample_prompts
        if len(given) == 1 and _is_file(given[0]):
            from t2ialign.data.prompts import read_prompts

            return [prompt.prompt for prompt in read_prompts(given[0])]
        return list(given) or self.first_prompts()

    def write_samples(self, file: Path, stop: StopRequested) -> None:
        """Draw the sample prompts into one PNG, always from the same seeds."""
        write_samples(self.model, self.sample_prompts(), file, seed=self._settings.seed, stop=stop)

    def write_final(self, directory: Path, facts: Mapping[str, Any]) -> None:
        """Write the LoRA or the pipeline, with its card."""
        write_final(self.model, directory, self._settings, self.algorithm, facts)


class DiffusionTask(ModelTask):
    """A diffusion model and pictures as a task of the engine.

    Args:
        model: As loaded; its UNet gets the LoRA, or is trained whole.
        examples: What to train on.
        needs_reference: Whether errors of the model as it is now are needed.
        config: Options with every value known.
        autocast: Context in which the reference is computed, that of the policy; none by default.

    Attributes:
        rising: Watches whether the errors rise.
    """

    def __init__(
        self,
        model: DiffusionModel,
        examples: PictureExamples,
        needs_reference: bool,
        config: PreferenceConfig,
        autocast: Autocast = nullcontext,
    ) -> None:
        self.config = config
        self._examples = examples
        self._unchecked: tuple[Tensor, Tensor] | None = None
        self.rising = Rising(self.watched_errors(needs_reference))
        super().__init__(model, needs_reference, config, autocast)
        if examples.bucketing is not None:
            self.notes["buckets"] = examples.bucketing.report(config.bucket_group or config.batch_size or 1)
            log_report(self.notes["buckets"])

    @property
    def examples(self) -> PictureExamples:
        """What is trained on."""
        return self._examples

    def watched_errors(self, reference: bool) -> Sequence[Side]:
        """Return the names of the errors that must not all rise."""
        return pair_sides(reference)

    def observe(self, step: int, figures: Mapping[str, Any]) -> Mapping[str, Any]:
        """Watch the errors, and return how far they have risen."""
        risen = self.rising.look(step, figures)
        self.notes["error_rise"] = self.rising.report()
        return risen

    def trace(self, n: int, index: int) -> Mapping[str, Any]:
        """Return the timestep and the captions of an example."""
        timestep = Draws(self.config.seed, n).integer(Stream.TIMESTEP, self.model.num_train_timesteps)
        return {"timestep": timestep, "captions": list(self.examples.captions(index))}

    def state(self) -> dict[str, Tensor]:
        """Return the errors that were watched."""
        return self.rising.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state."""
        self.rising.load_state(state)

    @property
    def zeros(self) -> bool:
        """Whether zeros stand for an empty caption, where the model's configuration asks for it (SDXL's does)."""
        return self.config.empty_caption != "encoded"

    def setup(self, device: torch.device, schedule: Schedule, stop: StopRequested) -> None:
        """Fill the caches that are asked for or pay; return early once `stop()` is true.

        Encoders that nothing asks any more leave the accelerator; they come back for sample pictures.
        """
        config, examples, model = self.config, self.examples, self.model
        captions = examples.all_captions()
        self.count_captions(captions)
        way = Way(stop, quiet=schedule.rank != 0, at_once=config.cache_batch_size)
        stored = cache_dtype(config)
        if wants_texts(config, len(captions), caption_bytes(model, stored), schedule):
            store = text_store(config, model)
            examples.texts = fill_texts(model, captions, store, zeros=self.zeros, stored=stored, way=way)
        if wants_latents(config, examples, schedule):
            bad = BadExamples(config, len(examples), examples.name)
            store = latent_store(config, model)
            examples.latents = fill_latents(model, examples, store, bad=bad, stored=stored, way=way)
        if not config.keep_encoders:
            send_away(model, vae=examples.latents is not None, text_encoders=examples.texts is not None)

    def encoded(self, batch: Batch) -> Batch:
        """Return a batch on the model's device with latents and text in place of pictures and captions."""
        batch = batch.to(self.model.device)
        return replace(batch, latents=self.encode(batch), text=self.encode_text(batch), pixels=None, posterior=None)

    def encode(self, batch: Batch) -> Tensor:
        """Return the latents of all sides, `[S B, C, h, w]` float32, chosen first.

        They are contiguous: in the VAE's channels-last layout the UNet may choose other kernels with a LoRA than
        without, and the margin of an untrained policy would not be exactly zero.
        """
        if batch.latents is not None:
            return batch.latents
        assert batch.pixels is not None
        self._check_finite()
        latents = self.model.encode_images(batch.pixels, batch.posterior, steady=True).contiguous()
        self._unchecked = (latents.flatten(1).isfinite().all(dim=1), batch.entries)
        return latents

    def _check_finite(self) -> None:
        """Refuse latents of the batch before that were not finite: by now looking at them does not wait for them.

        Raises:
            ModelError: naming the pictures.
        """
        if self._unchecked is None:
            return
        (finite, entries), self._unchecked = self._unchecked, None
        broken = (~finite).nonzero().flatten().tolist()
        if broken:
            count = len(entries)
            where = [self.examples.where(int(entries[row % count]), row // count) for row in broken[:3] if count]
            raise not_finite(" and ".join(where) + (" and others" if len(broken) > 3 else ""), self.model)

    def begin_step(self, step: int) -> None:
        """Look at what the step before encoded."""
        self._check_finite()

    def encode_text(self, batch: Batch) -> Conditioning:
        """Return the encoded captions of all sides, S B rows; equal captions are encoded once, to equal bits."""
        if batch.text is not None:
            return batch.text
        distinct = list(dict.fromkeys(batch.prompts))
        row = {caption: number for number, caption in enumerate(distinct)}
        text = self.model.encode_prompts(distinct, force_zeros_for_empty_prompt=self.zeros, steady=True)
        return replace(text, time_ids=None).index([row[caption] for caption in batch.prompts])

    def condition(self, batch: Batch) -> Conditioning:
        """Return the conditioning of all sides, S B rows, chosen first."""
        text = self.encode_text(batch)
        return text if batch.time_ids is None else text.with_time_ids(batch.time_ids)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return what the UNet regresses on, by the model's prediction type."""
        return self.model.target(latents, noise, timesteps)

    def errors(self, module: nn.Module, batch: Batch) -> SideErrors:
        """Return the errors of the policy and, if there is one, of the reference, on an encoded batch."""
        latents, conditioning = self.encode(batch), self.condition(batch)
        timesteps, noise = batch.timesteps.repeat(batch.sides), batch.noise.repeat(batch.sides, 1, 1, 1)
        noisy = self.model.add_noise(latents, noise, timesteps)
        target = self.target(latents, noise, timesteps)
        policy = per_sample_error(self.model.predict(noisy, timesteps, conditioning, unet=module), target)
        if self.reference is None or batch.reference is not None:
            return SideErrors(policy, batch.reference)
        with torch.no_grad(), self._autocast():
            held = self.reference.predict(noisy, timesteps, conditioning)
        return SideErrors(policy, per_sample_error(held, target))

    def first_prompts(self) -> list[str]:
        """Return the first captions of the set."""
        return first_distinct(self.examples.data.prompts, 4)


def example_options(model: DiffusionModel, config: PreferenceConfig) -> ExampleOptions:
    """Return how pictures become examples of a model, from options with every value known."""
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
        crop_positions=config.crop_positions,
        posterior=config.posterior,
        buckets=_bucket_sizes(model, config, resolution) if config.aspect_buckets else None,
        bucket_group=config.bucket_group if config.aspect_buckets else None,
    )


def _bucket_sizes(model: DiffusionModel, config: PreferenceConfig, resolution: int) -> tuple[Size, ...]:
    step, factor = known(config.bucket_step, "bucket_step"), int(model.pipeline.vae_scale_factor)
    if step % factor:
        raise ConfigError(f"bucket_step is {step}; {model.name} needs a multiple of {factor}")
    return bucket_sizes(resolution, step, config.bucket_ratio)


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # a prompt that is longer than a path may be, or holds a NUL
        return False


def first_distinct(values: Sequence[str], count: int) -> list[str]:
    """Return the first `count` different values."""
    return list(dict.fromkeys(values))[:count]
