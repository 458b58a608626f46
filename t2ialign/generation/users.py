"""Users in sampling: which user a picture is drawn for, and how strongly.

With the text guidance s, the user's guidance s_u, the prompt c, the user u and 0 for nobody and for the empty (or the
negative) prompt, a step goes by

    eps = eps(0, 0) + s [eps(c, 0) - eps(0, 0)] + s_u [eps(c, u) - eps(c, 0)]

For s_u = s, the default, that is eps(0, 0) + s [eps(c, u) - eps(0, 0)], which takes two passes of the UNet and not
three. Without text guidance (s of 1 or less) it is eps(c, 0) + s_u [eps(c, u) - eps(c, 0)], with a default s_u of 1.

Law of this file: the pipeline itself runs, with its own guidance and its own steps; only the batch that its UNet sees
is another meanwhile. s_u = 0 and pictures for nobody are the base model's.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from t2ialign.errors import ConfigError, ModelError
from t2ialign.generation.labels import file_label
from t2ialign.models.user_adapter import installed, user_arguments

if TYPE_CHECKING:
    from t2ialign.models.diffusion import DiffusionModel


@dataclass(frozen=True)
class User:
    """Whom an image set is drawn for.

    Attributes:
        label: Users and weights in words, such as `alice` or `0.3 alice + 0.7 bob`.
        tokens: The embedding, [T, D] float32.
        extractor: What made it.
        weights: (name of the file, weight) of each user.
    """

    label: str
    tokens: Tensor
    extractor: str
    weights: tuple[tuple[str, float], ...]

    @property
    def sha256(self) -> str:
        """A digest of the embedding: its shape and its numbers."""
        numbers = self.tokens.float().cpu().contiguous()
        return hashlib.sha256(f"{tuple(numbers.shape)}\n".encode() + numbers.numpy().tobytes()).hexdigest()


def read_user(spec: str) -> User:
    """Read `FILE[:WEIGHT],FILE[:WEIGHT]`; see `users.mix`.

    Raises:
        ConfigError: If the spec cannot be read.
        DataError: If a file cannot be read, or the users cannot be mixed.
    """
    from t2ialign.users.mix import load_mix, parse_mix

    label, tokens, extractor = load_mix(spec)
    weights = tuple((file_label(path), weight) for path, weight in parse_mix(spec))
    return User(label, tokens, extractor, weights)


def check_user(model: DiffusionModel, user: User) -> None:
    """Hold that a model can draw for a user.

    Raises:
        ModelError: If it has no user adapter, or one for embeddings of another extractor or shape.
    """
    check_tokens(model, user.tokens, user.label)
    adapter = installed(model.unet)
    if adapter is not None and adapter.extractor and adapter.extractor != user.extractor:
        raise ModelError(
            f"the embedding of {user.label} was made by {user.extractor}, but the user adapter of {model.name} was "
            f"trained with embeddings of {adapter.extractor}: make the embedding with that one"
        )


def check_tokens(model: DiffusionModel, tokens: Tensor, label: str = "a user") -> None:
    """Hold that an embedding fits a model's user adapter.

    Raises:
        ModelError: If there is no adapter, or the shape is not the [T, D] that it takes.
    """
    adapter = installed(model.unet)
    if adapter is None:
        raise ModelError(
            f"the model {model.name} has no user adapter to draw for {label} with: name a run of `train ppd` as the "
            "adapter (--adapter RUN/final) or as the model, or give no user"
        )
    wanted = (adapter.tokens, adapter.in_features)
    if tuple(tokens.shape) != wanted:
        raise ModelError(
            f"the embedding of {label} is {list(tokens.shape)} (tokens, width), but the user adapter of {model.name} "
            f"takes {list(wanted)}: make it with {adapter.extractor or 'the extractor that was trained with'}"
        )


def check_scale(scale: float | None) -> None:
    """Hold that the user's guidance is `None` or 0 or more (ConfigError)."""
    if scale is not None and not (math.isfinite(scale) and scale >= 0):
        raise ConfigError(f"user_guidance_scale is {scale}; it must be 0 or more (0: the base model)")


def is_guided(model: DiffusionModel, text_scale: float) -> bool:
    """Whether the pipeline guides by the text: not at 1 or less, nor where the UNet takes the scale as an input."""
    return text_scale > 1 and model.unet.config.time_cond_proj_dim is None


def default_user_guidance(model: DiffusionModel, text_scale: float) -> float:
    """Return the user's guidance where none is asked for: that of the text, or 1 where there is none."""
    return float(text_scale) if is_guided(model, text_scale) else 1.0


@contextmanager
def user_guidance(
    model: DiffusionModel, users: Sequence[Tensor | None], text_scale: float, user_scale: float | None = None
) -> Iterator[None]:
    """Inside the block, calls of the pipeline with B prompts draw for B users.

    Args:
        model: With a user adapter, if there are users.
        users: B embeddings [T, D]; `None` for nobody.
        text_scale: s, the guidance scale that the pipeline is called with.
        user_scale: s_u; `None` for the default.
    """
    present = [user for user in users if user is not None]
    default = default_user_guidance(model, text_scale)
    scale = default if user_scale is None else float(user_scale)
    if not present or scale == 0:
        yield
        return
    guided = is_guided(model, text_scale)
    nobody = torch.zeros_like(present[0])
    embedded = torch.stack([nobody if user is None else user for user in users]).to(model.device)
    batch = _Batch(embedded, guided=guided, apart=scale != default, factor=scale / text_scale if guided else scale)
    unet = model.pipeline.unet
    # Before the adapter's own hook, which takes the users that this one gives.
    handles = [
        unet.register_forward_pre_hook(batch.widen, with_kwargs=True, prepend=True),
        unet.register_forward_hook(batch.narrow),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class _Batch:
    """The UNet's batch with users in it.

    Attributes:
        users: [B, T, D].
        guided: Whether the pipeline asks for 2B rows, those of the empty prompt first.
        apart: Whether eps(c, 0) is needed too, because s_u is not the default.
        factor: What to multiply eps(c, u) - eps(c, 0) with before the pipeline's own guidance, which multiplies by s.
    """

    users: Tensor
    guided: bool
    apart: bool
    factor: float

    def widen(self, unet: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Put the rows (0, 0), (c, 0), (c, u), as far as they are needed, in place of the pipeline's."""
        rows = len(self.users) * (2 if self.guided else 1)
        if args[0].shape[0] != rows:
            raise ValueError(f"the pipeline asks for {args[0].shape[0]} rows where {rows} were expected")
        nobody = torch.zeros_like(self.users)
        users = torch.cat([nobody] * (self.guided + self.apart) + [self.users])
        if self.apart:
            args, kwargs = tuple(self._prompts_again(value, rows) for value in args), self._prompts_again(kwargs, rows)
        more = {**(kwargs.get("cross_attention_kwargs") or {}), **user_arguments(unet, users)}
        return args, {**kwargs, "cross_attention_kwargs": more}

    def _prompts_again(self, value: Any, rows: int) -> Any:
        """Append to every tensor of the batch, also inside mappings, the B rows of the prompts, which come last."""
        if isinstance(value, dict):
            return {name: self._prompts_again(part, rows) for name, part in value.items()}
        if isinstance(value, Tensor) and value.ndim and value.shape[0] == rows:
            return torch.cat([value, value[-len(self.users) :]])
        return value

    def narrow(self, unet: Any, args: tuple[Any, ...], output: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Give the pipeline the rows that it asked for: (c, 0) plus the weighted difference that the user makes."""
        if not self.apart:
            return output
        *unconditional, nobody, somebody = output[0].chunk(3 if self.guided else 2)
        return (torch.cat([*unconditional, nobody + self.factor * (somebody - nobody)]), *output[1:])
