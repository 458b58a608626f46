"""The model: a Stable Diffusion pipeline of any family behind the few calls that training and evaluation need.

Law: whatever is computed here equals what the diffusers pipeline computes (tests hold each against it), and no
caller needs to know the family. No call changes the pipeline.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from t2ialign.models.conditioning import Conditioning
from t2ialign.models.families import Family, detect_family, native_resolution
from t2ialign.models.posterior import Posterior
from t2ialign.models.schedules import training_scheduler
from t2ialign.models.user_adapter import user_arguments

HALF = (torch.float16, torch.bfloat16)
CPU_PICTURES = 4
"""Pictures that a VAE on a CPU takes at once."""


@dataclass
class DiffusionModel:
    """A loaded pipeline and what was found out about it.

    Attributes:
        pipeline: A `StableDiffusionPipeline` or `StableDiffusionXLPipeline`; its parts are frozen and in eval mode.
        name: What it was loaded as: "mini-sd", a hub id or a path.
        family: "mini-sd", "sd15", "sd2", "sdxl", or "sd" for another one of the same build.
        noise_scheduler: The `DDPMScheduler` of the forward process.
        prediction_type: "epsilon", "v_prediction" or "sample".
        resolution: Native side of its pictures in pixels.
        revision: The hub revision that was asked for; where none was, the commit that was loaded. None off the hub.
        adapters: Names and weights of the adapters stacked by `lora.load_adapter`.
    """

    pipeline: Any
    name: str
    family: Family
    noise_scheduler: Any
    prediction_type: str
    resolution: int
    revision: str | None = None
    adapters: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_pipeline(cls, pipeline: Any, name: str = "", revision: str | None = None) -> DiffusionModel:
        """Wraps a pipeline: freezes its parts, finds its family, builds its training schedule.

        Raises:
            ModelError: The pipeline or its scheduler is of a kind that t2ialign cannot train.
        """
        family = detect_family(pipeline, name)
        scheduler = training_scheduler(pipeline.scheduler, name)
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                part.requires_grad_(False)
                part.eval()
        prediction_type = str(scheduler.config.prediction_type)
        return cls(pipeline, name, family, scheduler, prediction_type, native_resolution(pipeline), revision)

    @property
    def unet(self) -> Any:
        """The pipeline's UNet."""
        return self.pipeline.unet

    @property
    def vae(self) -> Any:
        """The pipeline's VAE."""
        return self.pipeline.vae

    @property
    def default_resolution(self) -> int:
        """Side in pixels to train and draw at unless asked otherwise: the native one."""
        return self.resolution

    @property
    def text_encoders(self) -> list[Any]:
        """The text encoders, first and (SDXL) second."""
        both = (self.pipeline.text_encoder, getattr(self.pipeline, "text_encoder_2", None))
        return [encoder for encoder in both if encoder is not None]

    @property
    def tokenizers(self) -> list[Any]:
        """The tokenizers, first and (SDXL) second."""
        both = (self.pipeline.tokenizer, getattr(self.pipeline, "tokenizer_2", None))
        return [tokenizer for tokenizer in both if tokenizer is not None]

    @property
    def device(self) -> torch.device:
        """Where the UNet is."""
        device: torch.device = self.unet.conv_in.weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the UNet's own weights (adapters in training are float32 whatever it is)."""
        dtype: torch.dtype = self.unet.conv_in.weight.dtype
        return dtype

    @property
    def num_train_timesteps(self) -> int:
        """Number of diffusion timesteps; a timestep is in [0, num_train_timesteps)."""
        return int(self.noise_scheduler.config.num_train_timesteps)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> DiffusionModel:
        """Moves or casts every part of the pipeline, in place."""
        self.pipeline.to(**{key: value for key, value in (("device", device), ("dtype", dtype)) if value is not None})
        return self

    def tokenize(self, prompts: list[str]) -> list[Tensor]:
        """Token ids for each tokenizer, a list of [B, L] int64: cut and padded to its `model_max_length`."""
        return [tokens.input_ids for tokens in self.tokens(prompts)]

    def tokens(self, prompts: list[str]) -> list[Any]:
        """What each tokenizer makes of prompts: `input_ids` and `attention_mask`, [B, L] int64 each."""
        return [
            tokenizer(
                self.pipeline.maybe_convert_prompt(list(prompts), tokenizer),
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            )
            for tokenizer in self.tokenizers
        ]

    def count_truncated(self, prompts: list[str]) -> int:
        """How many prompts are longer than a tokenizer's limit (77 with both ends for CLIP) and so lose their end."""
        cut = [False] * len(prompts)
        for tokenizer in self.tokenizers if prompts else []:
            converted = self.pipeline.maybe_convert_prompt(list(prompts), tokenizer)
            whole = tokenizer(converted, padding=False, truncation=False, verbose=False).input_ids
            cut = [was or len(ids) > tokenizer.model_max_length for was, ids in zip(cut, whole, strict=True)]
        return sum(cut)

    @torch.no_grad()
    def encode_prompts(
        self, prompts: list[str], *, force_zeros_for_empty_prompt: bool = False, steady: bool = False
    ) -> Conditioning:
        """Encodes prompts as the pipeline's `encode_prompt` does without guidance and with its default `clip_skip`.

        SD 1.x and 2.x: the text encoder's last state, after its final layer norm. SDXL: the penultimate states of
        both encoders side by side and the pooled embedding of the second, with `time_ids` of an uncropped picture
        of native size (use `Conditioning.with_time_ids` for others).

        Args:
            prompts: B prompts; one beyond the tokenizer's limit is cut (`count_truncated`).
            force_zeros_for_empty_prompt: For SDXL models whose configuration says so, zeros stand for an empty
                prompt, as its pipeline does for the unconditional side; otherwise "" is encoded like any prompt.
            steady: On a CPU, a prompt's bits do not depend on the others that are given with it.

        Returns:
            Hidden states [B, L, D], for SDXL pooled [B, P] and time ids [B, 6], on the model's device.
        """
        if not prompts:
            raise ValueError("no prompts to encode: give at least one")
        tokens = self.tokens(prompts)
        if self.family != "sdxl":
            return Conditioning(self._last_state(tokens[0]))
        hidden, pooled = self._penultimate_states(tokens, steady)
        if force_zeros_for_empty_prompt and self.pipeline.config.force_zeros_for_empty_prompt:
            empty = torch.tensor([prompt == "" for prompt in prompts], device=hidden.device)
            hidden = hidden.masked_fill(empty[:, None, None], 0)
            pooled = pooled.masked_fill(empty[:, None], 0)
        side = (self.resolution, self.resolution)
        sizes = self.time_ids(side, (0, 0), side).to(hidden.device).expand(len(prompts), 6)
        return Conditioning(hidden, pooled, sizes)

    def _last_state(self, tokens: Any) -> Tensor:
        encoder = self.pipeline.text_encoder
        masked = getattr(encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask.to(encoder.device) if masked else None
        hidden: Tensor = encoder(tokens.input_ids.to(encoder.device), attention_mask=mask)[0]
        return hidden.to(encoder.dtype)

    def _penultimate_states(self, tokens: list[Any], steady: bool) -> tuple[Tensor, Tensor]:
        ids = [part.input_ids for part in tokens]
        if not steady or self.text_encoders[1].device.type != "cpu":
            return self._states_of(ids)
        # A row of the pooled embedding is a product of vectors and a matrix, and the order of summation depends on
        # how many vectors there are.
        each = [self._states_of([part[row : row + 1] for part in ids]) for row in range(len(ids[0]))]
        return torch.cat([hidden for hidden, _ in each]), torch.cat([pooled for _, pooled in each])

    def _states_of(self, ids: list[Tensor]) -> tuple[Tensor, Tensor]:
        outputs = [
            encoder(part.to(encoder.device), output_hidden_states=True)
            for encoder, part in zip(self.text_encoders, ids, strict=True)
        ]
        hidden = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        pooled: Tensor = outputs[1][0]
        return hidden.to(self.text_encoders[1].dtype), pooled

    @staticmethod
    def time_ids(
        original_size: tuple[int, int], crop: tuple[int, int] = (0, 0), target: tuple[int, int] | None = None
    ) -> Tensor:
        """SDXL's size conditioning of one picture, [1, 6] float32 (arXiv 2307.01952, section 2.2).

        Args:
            original_size: (height, width) of the picture before it was resized, in pixels.
            crop: (top, left) of the crop in the resized picture, in pixels.
            target: (height, width) of the picture as trained on; `original_size` if None.
        """
        return torch.tensor([[*original_size, *crop, *(target or original_size)]], dtype=torch.float32)

    @torch.no_grad()
    def encode_images(self, pixels: Tensor, noise: Tensor | None = None, *, steady: bool = False) -> Tensor:
        """Encodes pictures to scaled latents.

        Args:
            pixels: [B, 3, H, W] in [-1, 1], sides multiples of the VAE's factor (8).
            noise: Unit normal noise [B, C, H/8, W/8] for a sample of the posterior, or None for its mean.
            steady: As for `posterior`.

        Returns:
            (mean + std * noise - shift) * scaling factor, float32, on the model's device. A VAE in half precision
            whose configuration asks for it (SDXL's) works in float32 meanwhile.
        """
        return self.posterior(pixels, steady=steady).latents(noise)

    @property
    def vae_dtype(self) -> torch.dtype:
        """Type in which the VAE encodes: its own, but float32 for half precision where its configuration asks."""
        stored: torch.dtype = self.vae.dtype
        upcast = stored in HALF and bool(getattr(self.vae.config, "force_upcast", False))
        return torch.float32 if upcast else stored

    @property
    def posterior_scale(self) -> tuple[float, float]:
        """`shift` and `scale` of a `Posterior` of this VAE."""
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        return float(shift), float(self.vae.config.scaling_factor)

    @torch.no_grad()
    def posterior(self, pixels: Tensor, *, steady: bool = False) -> Posterior:
        """Encodes pictures to the posterior of their latents, on the VAE's device, in `vae_dtype`.

        Args:
            pixels: [B, 3, H, W] in [-1, 1], sides multiples of the VAE's factor (8).
            steady: On a CPU, a picture's bits do not depend on the others of its batch. The convolutions of a lone
                picture, of a few and of many are computed in different orders there, so pictures go through in
                fours, and a lone one beside itself.
        """
        vae, stored, dtype = self.vae, self.vae.dtype, self.vae_dtype
        few = steady and vae.device.type == "cpu"
        parts = pixels.split(CPU_PICTURES) if few else (pixels,)
        try:
            if dtype != stored:
                vae.to(dtype=dtype)
            found = [self._posterior_of(part.to(device=vae.device, dtype=dtype), few) for part in parts]
        finally:
            if dtype != stored:
                vae.to(dtype=stored)
        mean, std = (torch.cat(each) if len(found) > 1 else each[0] for each in zip(*found, strict=True))
        return Posterior(mean, std, *self.posterior_scale)

    def _posterior_of(self, pixels: Tensor, never_one: bool) -> tuple[Tensor, Tensor]:
        count = len(pixels)
        if never_one and count == 1:
            pixels = pixels.repeat(2, 1, 1, 1)
        found = self.vae.encode(pixels).latent_dist
        return found.mean[:count], found.std[:count]

    def predict(
        self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, *, unet: torch.nn.Module | None = None
    ) -> Tensor:
        """The UNet's output for noisy latents, [B, C, h, w], in the UNet's type (autocast is the caller's).

        Args:
            noisy: [B, C, h, w].
            timesteps: [B] integers in [0, num_train_timesteps).
            conditioning: B rows; with users only for a UNet with a user adapter (`user_adapter`).
            unet: Another UNet of the same build instead of the pipeline's: a frozen copy, or the pipeline's as
                wrapped by accelerate or torch.compile.

        Raises:
            ModelError: The conditioning has users and the UNet no user adapter, or one of another shape.
        """
        network = self.unet if unet is None else unet
        dtype = next(network.parameters()).dtype
        given = conditioning.to(device=noisy.device, dtype=dtype)
        added = None
        if given.pooled is not None:
            # Sizes are whole numbers; as integers no wrapper that casts inputs to half precision rounds them.
            sizes = None if given.time_ids is None else given.time_ids.long()
            added = {"text_embeds": given.pooled, "time_ids": sizes}
        more = {} if given.user is None else {"cross_attention_kwargs": user_arguments(network, given.user)}
        output = network(
            noisy.to(dtype),
            timesteps,
            encoder_hidden_states=given.hidden,
            added_cond_kwargs=added,
            return_dict=False,
            **more,
        )
        prediction: Tensor = output[0]
        return prediction

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps (arXiv 2006.11239, equation 4), [B, C, h, w]."""
        noisy: Tensor = self.noise_scheduler.add_noise(latents, noise, timesteps)
        return noisy

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the UNet regresses on, [B, C, h, w].

        eps for "epsilon"; sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x_0 for "v_prediction" (arXiv 2202.00512,
        appendix D); x_0 for "sample".
        """
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return latents
        velocity: Tensor = self.noise_scheduler.get_velocity(latents, noise, timesteps)
        return velocity
