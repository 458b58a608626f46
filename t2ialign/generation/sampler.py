"""The sampler: prompts and seeds in, pictures out, in batches.

Law of this file: every image has its own CPU generator, started from its own seed. Nothing is drawn
from a global random state, and the model is given back as it was (scheduler, train or eval mode).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from t2ialign.errors import ConfigError
from t2ialign.generation.quiet import quiet
from t2ialign.generation.schedulers import make_scheduler
from t2ialign.generation.users import check_scale, check_tokens, user_guidance

if TYPE_CHECKING:
    from t2ialign.models.loading import DiffusionModel

DEFAULT_GUIDANCE = {"mini-sd": 4.0, "sdxl": 5.0}
"""Guidance where none is asked for; diffusers' own default, 5.0 for SDXL and 7.5 for the others."""
DEFAULT_STEPS = {"mini-sd": 25}
"""Denoising steps where none are asked for; 50, as in diffusers, for every other family."""


def default_guidance(family: str) -> float:
    """Return the guidance scale for a family of models."""
    return DEFAULT_GUIDANCE.get(family, 7.5)


def default_steps(family: str) -> int:
    """Return the number of denoising steps for a family of models."""
    return DEFAULT_STEPS.get(family, 50)


def generate_images(
    model: DiffusionModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    negative_prompt: str = "",
    batch_size: int = 8,
    height: int | None = None,
    width: int | None = None,
    scheduler: str = "auto",
    users: Sequence[Tensor | None] | None = None,
    user_guidance_scale: float | None = None,
    between: Callable[[], object] | None = None,
) -> Iterator[Image.Image]:
    """Generate one picture for each prompt, in order, a batch at a time.

    A picture depends on the model, its prompt, its seed and the settings, and on nothing else; in
    float32, pictures from different batch sizes agree within 1/255 (half precision rounds more, and
    then differs more). A safety checker is not run: a
    blacked-out picture would be scored as if the model had drawn it.

    Args:
        model: A loaded model.
        prompts: One prompt a picture; what exceeds the tokenizer's limit is cut.
        seeds: One seed a picture, in [0, 2**63); see `seeds.image_seed`.
        num_inference_steps: Denoising steps; `None` for the family's default.
        guidance_scale: Classifier-free guidance (arXiv 2207.12598) in diffusers' convention; 1 or less
            for none; `None` for the family's default.
        negative_prompt: Stands in for the empty prompt in guidance.
        batch_size: Pictures made at once.
        height: In pixels, a multiple of the VAE's factor; `None` for the model's own.
        width: As `height`.
        scheduler: One of `options.SCHEDULERS`.
        users: One embedding [T, D] a picture, for a model with a user adapter; `None` for nobody, where the
            picture is that of the model without its adapter.
        user_guidance_scale: How strongly the user counts, 0 or more; `None` for as strongly as the text. The
            formula stands in `generation.users`.
        between: Called between two denoising steps and between two pictures; what it raises ends the drawing, and
            the model is given back as it was.

    Yields:
        RGB pictures of `width` x `height`.

    Raises:
        ConfigError: If the settings are out of range.
        ModelError: If there are users and the model has no user adapter, or one for embeddings of another shape.
        ValueError: If there are not as many seeds or users as prompts.
    """
    if len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts but {len(seeds)} seeds; give one seed for each prompt")
    users = _checked_users(model, len(prompts), users)
    check_scale(user_guidance_scale)
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; it must be at least 1")
    settings = {
        "num_inference_steps": num_inference_steps or default_steps(model.family),
        "guidance_scale": default_guidance(model.family) if guidance_scale is None else guidance_scale,
        "height": _side(model, "height", height),
        "width": _side(model, "width", width),
    }
    whose = _Users(users, settings["guidance_scale"], user_guidance_scale)
    return _batches(
        model, prompts, seeds, negative_prompt, batch_size, scheduler, settings, whose, between or _nothing
    )


def _nothing() -> None:
    pass


def _checked_users(
    model: DiffusionModel, count: int, users: Sequence[Tensor | None] | None
) -> Sequence[Tensor | None]:
    """Return a user, or nobody, for each prompt."""
    if users is None:
        return [None] * count
    if len(users) != count:
        raise ValueError(f"{count} prompts but {len(users)} users; give one user for each prompt, or none at all")
    for user in users:
        if user is not None:
            check_tokens(model, user)
    return users


@dataclass(frozen=True)
class _Users:
    """Whom the pictures are for, and the two scales."""

    users: Sequence[Tensor | None]
    text_scale: float
    user_scale: float | None

    def guiding(self, model: DiffusionModel, chosen: slice) -> AbstractContextManager[None]:
        """Draw for the users of some pictures inside the block."""
        return user_guidance(model, self.users[chosen], self.text_scale, self.user_scale)


def _batches(
    model: DiffusionModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    negative_prompt: str,
    batch_size: int,
    scheduler: str,
    settings: dict[str, Any],
    whose: _Users,
    between: Callable[[], object],
) -> Iterator[Image.Image]:
    for start in range(0, len(prompts), batch_size):
        chosen = slice(start, start + batch_size)
        with _prepared(model, scheduler), torch.no_grad(), whose.guiding(model, chosen):
            pictures = _sample(model, list(prompts[chosen]), seeds[chosen], negative_prompt, settings, between)
        yield from pictures


def _side(model: DiffusionModel, name: str, value: int | None) -> int:
    value = model.resolution if value is None else value
    factor = int(model.pipeline.vae_scale_factor)
    if value < factor or value % factor:
        raise ConfigError(f"{name} is {value}; this model needs a positive multiple of {factor}")
    return value


@contextmanager
def _prepared(model: DiffusionModel, scheduler: str) -> Iterator[None]:
    """Give the pipeline a fresh scheduler, eval mode and silence; give it back as it was."""
    pipeline = model.pipeline
    own, bar = pipeline.scheduler, dict(getattr(pipeline, "_progress_bar_config", {}))
    modules = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    training = [module for part in modules for module in part.modules() if module.training]
    with ExitStack() as stack:
        stack.enter_context(quiet())
        stack.enter_context(_exact())
        try:
            pipeline.scheduler = make_scheduler(scheduler, own, model.family)
            pipeline.set_progress_bar_config(**{**bar, "disable": True})
            for module in training:
                module.training = False
            yield
        finally:
            pipeline.scheduler = own
            pipeline.set_progress_bar_config(**bar)
            for module in training:
                module.training = True


@contextmanager
def _exact() -> Iterator[None]:
    """Keep float32 what it says on CUDA: TF32 would make pictures depend on the batch by more than 1/255."""
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = False
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def _sample(
    model: DiffusionModel,
    prompts: list[str],
    seeds: Sequence[int],
    negative_prompt: str,
    settings: dict[str, Any],
    between: Callable[[], object],
) -> list[Image.Image]:
    def after_step(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        between()
        return {}

    pipeline = model.pipeline
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    height, width = (settings[name] // pipeline.vae_scale_factor for name in ("height", "width"))
    shape = (pipeline.unet.config.in_channels, height, width)
    noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
    with _autocast(pipeline):
        latents = pipeline(
            prompt=prompts,
            # None, not "": for it SDXL's pipeline zeroes the unconditional embedding where its config asks so.
            negative_prompt=[negative_prompt] * len(prompts) if negative_prompt else None,
            latents=noise.to(device=model.device, dtype=model.dtype),
            generator=generators,
            output_type="latent",
            return_dict=False,
            callback_on_step_end=after_step,
            **settings,
        )[0]
    pictures = []
    for i in range(len(prompts)):
        if i:
            between()
        pictures.append(decode(pipeline, latents[i : i + 1]))
    return pictures


def _autocast(pipeline: Any) -> AbstractContextManager[Any]:
    """Autocast where training keeps some weights in float32 and others in half precision."""
    unet = pipeline.unet
    kinds = {p.dtype for part in (unet, pipeline.text_encoder) for p in part.parameters() if p.is_floating_point()}
    if len(kinds) < 2:
        return nullcontext()
    half = torch.float16 if torch.float16 in kinds else torch.bfloat16
    return torch.autocast(unet.device.type, dtype=half)


def decode(pipeline: Any, latents: torch.Tensor) -> Image.Image:
    """Decode the latents of one image, [1, C, h, w], in the VAE's own number format.

    A half-precision VAE whose config says `force_upcast` (that of SDXL, which overflows) works in
    float32 meanwhile.
    """
    vae, stored = pipeline.vae, pipeline.vae.dtype
    upcast = stored in (torch.float16, torch.bfloat16) and bool(vae.config.force_upcast)
    try:
        if upcast:
            vae.to(torch.float32)
        with torch.no_grad():
            pixels = vae.decode(_unscaled(vae.config, latents.to(vae.dtype)), return_dict=False)[0]
    finally:
        if upcast:
            vae.to(stored)
    picture: Image.Image = pipeline.image_processor.postprocess(pixels.float(), output_type="pil")[0]
    return picture


def _unscaled(config: Any, latents: torch.Tensor) -> torch.Tensor:
    """Undo the scaling of latents, by mean and deviation where a VAE has them, else by its shift."""
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is not None and std is not None:
        centre, spread = (torch.tensor(values).view(1, -1, 1, 1).to(latents) for values in (mean, std))
        return latents * spread / float(config.scaling_factor) + centre
    return latents / float(config.scaling_factor) + float(getattr(config, "shift_factor", None) or 0.0)
