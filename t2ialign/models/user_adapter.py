"""The user adapter of PPD (arXiv 2501.06655): a second, decoupled cross-attention beside every one to the text.

    U = u P            tokens of a user [B, T, D] -> [B, T, C]
    K' = U W_k',  V' = U W_v',  Z' = softmax(Q K'^T / sqrt(d)) V'
    out(Z + Z') = out(Z) + Z' W_out

with the queries Q and the output projection of the text attention (IP-Adapter, arXiv 2308.06721, has this form). Only
P, W_k' and W_v' are trained.

Law: nothing in the branch has a bias or a norm, so that a user of zeros changes no bit, whatever was trained; W_v'
starts at zero, so that at first no user changes one; and without users the attention that was there is called and
nothing else. The user travels as an argument, never as a state of the model, so that what gradient checkpointing
computes again is what was computed.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from t2ialign.errors import ModelError
from t2ialign.models.record import Record, read_record, stored_name
from t2ialign.models.weights import check_finite

if TYPE_CHECKING:
    from t2ialign.models.diffusion import DiffusionModel

WEIGHTS_NAME = "user_adapter.safetensors"
FORMAT = "t2ialign user adapter 1"

ARGUMENT = "user_embeds"
"""Name in `cross_attention_kwargs` under which the UNet takes users, [B, T, D]."""

_HANDED_ON = "ip_hidden_states"
"""Name under which attention takes the projected users; attention without a branch ignores it without a warning."""

_PROJECTION = "user_projection"


class _Linear(nn.Linear):
    """A linear layer without bias, float32, that draws no numbers when it is made: whoever makes it fills it."""

    def __init__(self, inputs: int, outputs: int, device: Any) -> None:
        """Reserve the weight [outputs, inputs]."""
        super().__init__(inputs, outputs, bias=False, device=device, dtype=torch.float32)

    def reset_parameters(self) -> None:
        """Leave the weight as it is."""


class UserProjection(_Linear):
    """P, and what the adapter is.

    Attributes:
        tokens: T, vectors of a user.
        extractor: What makes the embeddings that it takes, or "" where that was not said.
        base_name: Name of the model that it was added to.
        base_revision: Hub revision of that model, if one was asked for.
        handle: Of the hook by which the UNet takes users.
    """

    def __init__(self, width: int, tokens: int, states: int, extractor: str = "", device: Any = None) -> None:
        """Make a projection [D] -> [C] without values worth keeping."""
        super().__init__(width, states, device)
        self.tokens = tokens
        self.extractor = extractor
        self.base_name = ""
        self.base_revision: str | None = None
        self.handle: Any = None

    def forward(self, user: Tensor) -> Tensor:
        """Project users [B, T, D] to [B, T, C], in float32 under autocast and with half-precision weights too.

        Raises:
            ModelError: The users have another number of tokens or another width.
        """
        if user.ndim != 3 or tuple(user.shape[1:]) != (self.tokens, self.in_features):
            raise ModelError(
                f"users of shape {list(user.shape)} for a user adapter that takes [B, {self.tokens}, "
                f"{self.in_features}]: use embeddings of {self.extractor or 'the extractor it was trained with'}"
            )
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        with torch.autocast(user.device.type, enabled=False):
            return functional.linear(user.to(dtype), self.weight.to(dtype))


class UserAttention(nn.Module):
    """An attention processor: the one that was there, plus the user's branch.

    Args:
        attn: diffusers' `Attention` that it is made for; W_k' starts as a copy of its `to_k`, W_v' at zero.

    Attributes:
        base: The processor that was there.
    """

    def __init__(self, attn: Any) -> None:
        """Keep the processor of `attn` and make W_k' and W_v', float32."""
        super().__init__()
        self.base: Any = attn.processor
        weight = attn.to_k.weight
        inner, states = weight.shape
        self.user_k = _Linear(states, inner, weight.device)
        self.user_v = _Linear(states, inner, weight.device)
        with torch.no_grad():
            self.user_k.weight.copy_(weight)
            self.user_v.weight.zero_()

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        ip_hidden_states: list[Tensor] | None = None,
    ) -> Tensor:
        """Attend to the text and, if there are users, to them.

        diffusers reads this signature to know what may be handed on. The last argument is a list of one, as
        IP-Adapter has it: projected users [B, T, C].
        """
        result: Tensor = self.base(
            attn, hidden_states, encoder_hidden_states=encoder_hidden_states, attention_mask=attention_mask
        )
        if not ip_hidden_states:
            return result
        return result + self.branch(attn, hidden_states, ip_hidden_states[0]).to(result.dtype)

    def branch(self, attn: Any, hidden_states: Tensor, users: Tensor) -> Tensor:
        """Return Z' W_out, [B, N, channels], for hidden states [B, N, channels] and projected users [B, T, C]."""
        query = attn.to_q(hidden_states)
        states = users.to(self.user_k.weight.dtype)

        def heads(tensor: Tensor) -> Tensor:
            rows, count, _ = tensor.shape
            return tensor.to(query.dtype).view(rows, count, attn.heads, -1).transpose(1, 2)

        attended = functional.scaled_dot_product_attention(
            heads(query), heads(self.user_k(states)), heads(self.user_v(states)), scale=attn.scale
        )
        return _without_bias(attn.to_out[0], attended.transpose(1, 2).flatten(-2))


def _without_bias(layer: Any, states: Tensor) -> Tensor:
    """What a linear layer, plain or wrapped (LoRA), gives less its bias, which the text's part has added already."""
    if type(layer) is nn.Linear:
        return functional.linear(states, layer.weight)
    whole, bias = layer(states), layer(states.new_zeros((1, 1, states.shape[-1])))
    result: Tensor = whole - bias
    return result


def add_user_adapter(
    model: DiffusionModel, width: int, tokens: int, seed: int = 0, extractor: str = ""
) -> dict[str, nn.Parameter]:
    """Adds a trainable user adapter to a model whose own weights are frozen here.

    P is drawn from N(0, 1 / D) by a generator seeded with (`seed`, its name), W_k' is a copy of the text's W_k and
    W_v' is zero. All are float32 whatever the model is.

    Args:
        model: Without a user adapter; not in LoRA training.
        width: D, width of a user's token.
        tokens: T, tokens of a user.
        seed: Seed of the initialisation.
        extractor: What makes the embeddings, as `UserEmbedding.extractor` names it.

    Returns:
        The trainable parameters by their names in the UNet.

    Raises:
        ModelError: There is a user adapter, there is a LoRA in training, or the UNet attends to its text in a form in
            which a branch cannot be added.
        ValueError: `width` or `tokens` is not positive.
    """
    if width < 1 or tokens < 1:
        raise ValueError(f"a user adapter needs width >= 1 and tokens >= 1, got {width} and {tokens}")
    unet = model.unet
    if installed(unet) is not None:
        raise ModelError(
            f"the model {model.name!r} has a user adapter already: name its base model instead "
            "(base_model in t2ialign.json)"
        )
    if _lora_in_training(unet):
        raise ModelError("the UNet is in LoRA training: train a LoRA or a user adapter, one at a time")
    attentions = _attentions_to_text(unet)
    states = _common_width(attentions)
    unet.requires_grad_(False)
    projection = UserProjection(width, tokens, states, extractor, model.device)
    projection.base_name, projection.base_revision = model.name, model.revision
    with torch.no_grad():
        projection.weight.copy_(_drawn(f"{_PROJECTION}.weight", projection.weight, seed) / width**0.5)
    for attn in attentions.values():
        attn.set_processor(UserAttention(attn))
    setattr(unet, _PROJECTION, projection)
    projection.handle = unet.register_forward_pre_hook(_take_users, with_kwargs=True)
    return user_parameters(unet)


def _drawn(name: str, like: Tensor, seed: int) -> Tensor:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.randn(like.shape, generator=generator).to(like.device)


def _lora_in_training(unet: Any) -> bool:
    from t2ialign.models.lora import ADAPTER

    return ADAPTER in (getattr(unet, "peft_config", None) or {})


def _attentions_to_text(unet: Any) -> dict[str, Any]:
    """The attentions of transformer blocks that have keys of the text, by name.

    Raises:
        ModelError: There are none, or one is not of the form out(softmax(Q K^T) V) that a branch can be added to.
    """
    from diffusers.models.attention import BasicTransformerBlock

    blocks = {name: block for name, block in unet.named_modules() if isinstance(block, BasicTransformerBlock)}
    found = {
        f"{name}.{kind}": getattr(block, kind)
        for name, block in blocks.items()
        for kind in ("attn1", "attn2")
        if getattr(getattr(block, kind, None), "is_cross_attention", False)
    }
    if not found:
        raise ModelError("the UNet has no cross-attention to its text, so that a user adapter has no place in it")
    for name, attn in found.items():
        problem = _problem(attn)
        if problem:
            raise ModelError(f"a user adapter cannot be added to {name} of the UNet: it has {problem}")
    return found


def _problem(attn: Any) -> str | None:
    """What keeps the user's part from being added after the output projection, or None."""
    takes = inspect.signature(attn.processor.__call__).parameters
    checks = {
        f"the processor {type(attn.processor).__name__}, which has weights or takes image prompts (unload it)": (
            isinstance(attn.processor, nn.Module) or _HANDED_ON in takes
        ),
        "a rescaled output": attn.rescale_output_factor != 1,
        "a residual connection": attn.residual_connection,
        "norms on queries or keys": attn.norm_q is not None or attn.norm_k is not None,
        "a norm on its input": attn.group_norm is not None or attn.spatial_norm is not None,
        "added keys": attn.added_kv_proj_dim is not None,
        "fewer heads for keys than for queries": attn.inner_kv_dim != attn.inner_dim,
        "dropout": attn.to_out[1].p > 0,
    }
    return next((problem for problem, holds in checks.items() if holds), None)


def _common_width(attentions: dict[str, Any]) -> int:
    widths = {int(attn.to_k.weight.shape[1]) for attn in attentions.values()}
    if len(widths) > 1:
        raise ModelError(
            f"the UNet attends to text states of several widths ({', '.join(map(str, sorted(widths)))}): "
            "a user adapter needs one"
        )
    return widths.pop()


def _take_users(unet: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The UNet's hook: users that came as an argument go on projected."""
    given = kwargs.get("cross_attention_kwargs") or {}
    if ARGUMENT not in given:
        return None
    users = given[ARGUMENT]
    more = {name: value for name, value in given.items() if name != ARGUMENT}
    if users is not None:
        more[_HANDED_ON] = [getattr(unet, _PROJECTION)(users)]
    return args, {**kwargs, "cross_attention_kwargs": more}


def user_arguments(unet: Any, users: Tensor) -> dict[str, Tensor]:
    """Return the `cross_attention_kwargs` that bring users [B, T, D] to a UNet, also a wrapped one.

    Raises:
        ModelError: It has no user adapter.
    """
    if installed(unet) is None:
        raise ModelError(
            "users are given to a model without a user adapter: load one "
            "(t2ialign.models.user_adapter.load_user_adapter), or give no users"
        )
    return {ARGUMENT: users}


def installed(unet: Any) -> UserProjection | None:
    """Return the user adapter's projection, which says what the adapter is, or None where there is no adapter.

    Args:
        unet: A UNet, also as wrapped by accelerate or torch.compile.
    """
    while True:
        inner = getattr(unet, "module", None) or getattr(unet, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            found: UserProjection | None = getattr(unet, _PROJECTION, None)
            return found
        unet = inner


def in_training(unet: Any) -> bool:
    """Whether the UNet has a user adapter that is trained."""
    projection = installed(unet)
    return projection is not None and projection.weight.requires_grad


def user_parameters(unet: nn.Module) -> dict[str, nn.Parameter]:
    """The user adapter's weights by their names in the UNet: W_k' and W_v' of every attention to the text, and P."""
    ends = (f"{_PROJECTION}.weight", ".processor.user_k.weight", ".processor.user_v.weight")
    return {name: part for name, part in unet.named_parameters() if name.endswith(ends)}


def remove_user_adapter(unet: Any) -> None:
    """Takes the user adapter off, so that the UNet is as it was before; nothing happens where there is none."""
    projection = installed(unet)
    if projection is None:
        return
    projection.handle.remove()
    delattr(unet, _PROJECTION)
    for attn, processor in _wrapped(unet):
        attn.set_processor(processor.base)


@contextmanager
def unwrapped_attention(unet: Any) -> Iterator[None]:
    """The plain attention processors inside the block; whatever is set there is what the adapter wraps afterwards."""
    wrapped = _wrapped(unet)
    for attn, processor in wrapped:
        attn.set_processor(processor.base)
    try:
        yield
    finally:
        for attn, processor in wrapped:
            processor.base = attn.processor
            attn.set_processor(processor)


def _wrapped(unet: Any) -> list[tuple[Any, UserAttention]]:
    found = [(module, getattr(module, "processor", None)) for module in unet.modules()]
    return [(attn, processor) for attn, processor in found if isinstance(processor, UserAttention)]


def save_user_adapter(model: DiffusionModel, directory: Path | str, *, algorithm: str | None = None) -> Path:
    """Saves the user adapter as `user_adapter.safetensors`, float32, with `t2ialign.json` beside it.

    The tensors have their names in the UNet (`user_projection.weight`, `....attn2.processor.user_k.weight`,
    `....user_v.weight`); the file's metadata has `format` and, as JSON, `width`, `tokens` and `extractor`.

    Raises:
        ModelError: The model has no user adapter.
    """
    from safetensors.torch import save_file

    projection = installed(model.unet)
    if projection is None:
        raise ModelError("the UNet has no user adapter to save: call add_user_adapter first")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    about = {"width": projection.in_features, "tokens": projection.tokens, "extractor": projection.extractor}
    tensors = {name: part.detach().float().cpu().contiguous() for name, part in user_parameters(model.unet).items()}
    target = directory / WEIGHTS_NAME
    aside = target.with_name(f".{WEIGHTS_NAME}.aside")
    save_file(tensors, aside, metadata={"format": FORMAT, "user_adapter": json.dumps(about, ensure_ascii=False)})
    os.replace(aside, target)
    record = Record.of(
        model,
        "user_adapter",
        algorithm=algorithm,
        user_width=projection.in_features,
        user_token_count=projection.tokens,
        user_extractor=projection.extractor,
    )
    # A model that was loaded with its adapter is named after that run; the adapter belongs to the run's base.
    record = replace(record, base_model=stored_name(projection.base_name), base_revision=projection.base_revision)
    record.write(directory)
    return target


def find_user_adapter(path: Path | str) -> Path | None:
    """Return the user adapter's file that `path` names, or None: the file, a run's `final/` with one, or the run."""
    from safetensors import SafetensorError

    path = Path(path).expanduser()
    if path.is_file():
        try:
            return path if path.suffix == ".safetensors" and _metadata(path).get("format") == FORMAT else None
        except (SafetensorError, OSError):
            return None
    candidates = (path / WEIGHTS_NAME, path / "final" / WEIGHTS_NAME)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _metadata(file: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        return opened.metadata() or {}


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What an adapter is (`width`, `tokens`, `extractor`), and its tensors.

    Raises:
        ModelError: The file is damaged, or of another format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        metadata = _metadata(file)
        if metadata.get("format") != FORMAT:
            raise ModelError(f"{file} has the format {metadata.get('format')!r}, this version reads {FORMAT!r}")
        known = json.loads(metadata["user_adapter"])
        about = {"width": int(known["width"]), "tokens": int(known["tokens"]), "extractor": str(known["extractor"])}
        return about, load_file(file)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ModelError(f"{file} is damaged ({type(error).__name__}: {error}): copy it again") from error


def load_user_adapter(model: DiffusionModel, path: Path | str) -> UserProjection:
    """Adds a saved user adapter to a model, frozen and in the model's number format.

    Args:
        model: Without a user adapter, and of the family that the saved one was trained on.
        path: A run's `final/`, a run, or the file.

    Returns:
        The adapter's projection, which says what embeddings it takes (`in_features`, `tokens`, `extractor`).

    Raises:
        ModelError: There is none, it is damaged, does not fit, or the model has a user adapter or a LoRA in training.
    """
    file = find_user_adapter(path)
    if file is None:
        raise ModelError(f"no user adapter in {path}: expected {WEIGHTS_NAME}, as `train ppd` leaves it in final/")
    about, tensors = _read(file)
    record = read_record(file.parent)
    if record is not None and record.family != model.family:
        raise ModelError(
            f"user adapter {path} was trained on {record.base_model} ({record.family}) but the model "
            f"{model.name!r} is of the family {model.family}: use it with {record.base_model}"
        )
    parameters = add_user_adapter(model, **about)
    try:
        _fill(parameters, tensors, model, path)
    except ModelError:
        remove_user_adapter(model.unet)
        raise
    projection = installed(model.unet)
    assert projection is not None
    return projection


def _fill(parameters: dict[str, nn.Parameter], tensors: dict[str, Tensor], model: DiffusionModel, path: Any) -> None:
    """Put saved tensors in place of fresh ones, frozen and in the model's number format."""
    there = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    here = {name: tuple(part.shape) for name, part in parameters.items()}
    different = sorted({name for name in there.keys() | here.keys() if there.get(name) != here.get(name)})
    if different:
        name = different[0]
        raise ModelError(
            f"user adapter {path} does not fit the model {model.name!r} ({model.family}): {name} is "
            f"{there.get(name, 'absent')} in the file and {here.get(name, 'absent')} in the model"
        )
    check_finite(tensors, f"user adapter {path}")
    for name, part in parameters.items():
        part.requires_grad_(False)
        part.data = tensors[name].to(device=part.device, dtype=model.dtype)
