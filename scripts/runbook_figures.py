"""What training SD1.5 and SDXL needs, computed from their shapes: for docs/runbook.md, where there is no GPU to ask.

    python scripts/runbook_figures.py --json docs/results/runbook.json
    python scripts/runbook_figures.py --family sd15 --method lora --device cpu
    python scripts/runbook_figures.py --random_model build/sd15-random

The second is to be held against `t2ialign train dpo --estimate` on a CPU, with what the third writes: a pipeline of
SD1.5's shape with random weights.

Nothing is trained and nothing of the models' size is allocated: they are built on the meta device from their
published configurations, and a pass runs on fake tensors of the device, which have shapes, types and storages but no
numbers. It takes some minutes on one core.

    parameters    of each part, and how many are trained: LoRA of rank 8, a user adapter, or every weight
    bytes         of what stays: weights as a bf16 run keeps them, the reference, gradients, the optimizer's state
    activations   what autograd keeps of the policy's forward on one pair, storage by storage, with the attention as a
                  flash kernel keeps it; with checkpointing `largest_block` comes on top while a block is computed
                  again, and `weight_casts`, autocast's copies of the trained weights, while a forward runs
    encoding      the most that the VAE holds beside its weights while it encodes a pair, or as many pairs as the
                  caches are filled with at once
    operations    floating-point operations on one pair: the policy's forward (the reference's has as many, but for
                  the adapter), its backward, and encoding pictures and caption

What a GPU needs beside: its context, kernels' workspace, the backward pass's own tensors, the allocator's gaps.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from t2ialign.trainers.caches.latents import PIXELS_AT_ONCE

ROOT = Path(__file__).resolve().parent.parent
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "sd15": {
        "resolution": 512,
        "unet": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
        "text": [("CLIPTextModel", CLIP_L)],
    },
    "sdxl": {
        "resolution": 1024,
        "unet": {
            "sample_size": 128,
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        "text": [("CLIPTextModel", CLIP_L), ("CLIPTextModelWithProjection", CLIP_G)],
    },
}
"""The published configurations, as far as they are not the defaults of diffusers and transformers."""

METHODS = ("lora", "user_adapter", "full")
USER = (29, 3584)
"""Tokens and width of a user's embedding by llava-onevision-qwen2-7b."""
POOLED = 1280


def build_unet(family: str, method: str) -> Any:
    """The UNet on the meta device, ready for a method, its frozen weights in bf16 and the trained ones in float32."""
    from diffusers import UNet2DConditionModel

    from t2ialign.models.lora import add_lora
    from t2ialign.models.user_adapter import add_user_adapter

    with torch.device("meta"):
        unet = UNet2DConditionModel(**FAMILIES[family]["unet"])
    if method != "full":
        nn.Module.to(unet, dtype=torch.bfloat16)
    if method == "lora":
        add_lora(unet, rank=8)
    if method == "user_adapter":
        model: Any = SimpleNamespace(unet=unet, device=unet.device, name=family, revision=None)
        add_user_adapter(model, width=USER[1], tokens=USER[0])
    return unet.train()


def frozen_parts(family: str) -> tuple[Any, list[Any]]:
    """The VAE and the text encoders, on the meta device."""
    import transformers
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        encoders = [
            getattr(transformers, name)(transformers.CLIPTextConfig(**shape))
            for name, shape in FAMILIES[family]["text"]
        ]
        return AutoencoderKL(**VAE), encoders


def count(parameters: Iterable[nn.Parameter]) -> int:
    """Return how many numbers there are."""
    return sum(part.numel() for part in parameters)


def adafactor_state(parameters: list[nn.Parameter]) -> int:
    """Bytes of Adafactor's second moments: a row and a column of each matrix, all of a vector."""
    shapes = [tuple(part.shape) for part in parameters]
    rows = sum(part.numel() // shape[-1] for part, shape in zip(parameters, shapes, strict=True) if len(shape) > 1)
    columns = sum(part.numel() // shape[-2] for part, shape in zip(parameters, shapes, strict=True) if len(shape) > 1)
    vectors = sum(part.numel() for part, shape in zip(parameters, shapes, strict=True) if len(shape) == 1)
    return 4 * (rows + columns + vectors)


@contextmanager
def flash_attention() -> Iterator[None]:
    """Inside the block attention is the flash kernel's; without a GPU torch would choose the plain one."""
    plain = functional.scaled_dot_product_attention

    def flash(q: Tensor, k: Tensor, v: Tensor, *more: Any, scale: float | None = None, **others: Any) -> Tensor:
        out: Tensor = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, scale=scale)[0]
        return out

    functional.scaled_dot_product_attention = flash  # type: ignore[assignment]
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = plain


def fake(module: nn.Module, device: str) -> None:
    """Give a module fake parameters in place of its meta ones; call it under a `FakeTensorMode`."""
    for part in module.modules():
        for name, weight in list(part._parameters.items()):
            if weight is not None:
                empty = torch.empty(weight.shape, dtype=weight.dtype, device=device)
                part._parameters[name] = nn.Parameter(empty, requires_grad=weight.requires_grad)


def pair_of_inputs(family: str, method: str, unet: Any, device: str) -> dict[str, Any]:
    """What the UNet is given for one pair: two rows."""
    side, dtype = FAMILIES[family]["resolution"] // 8, next(unet.parameters()).dtype
    given: dict[str, Any] = {
        "sample": torch.empty(2, 4, side, side, dtype=dtype, device=device),
        "timestep": torch.empty(2, dtype=torch.int64, device=device),
        "encoder_hidden_states": torch.empty(2, 77, unet.config.cross_attention_dim, dtype=dtype, device=device),
    }
    if family == "sdxl":
        sizes = torch.empty(2, 6, device=device)
        given["added_cond_kwargs"] = {
            "text_embeds": torch.empty(2, POOLED, dtype=dtype, device=device),
            "time_ids": sizes,
        }
    if method == "user_adapter":
        given["cross_attention_kwargs"] = {"user_embeds": torch.empty(2, *USER, device=device)}
    return given


class Kept:
    """Counts the storages that autograd keeps, parameters left out, and those that a block adds to them."""

    def __init__(self, unet: nn.Module) -> None:
        """Hook the blocks that gradient checkpointing computes again."""
        self.bytes = 0
        self.largest_block = 0
        self._known = {part.untyped_storage()._cdata for part in unet.parameters()}
        self._alive: list[Tensor] = []
        self._starts: list[int] = []
        for block in unet.modules():
            if type(block).__name__ in ("ResnetBlock2D", "BasicTransformerBlock"):
                block.register_forward_pre_hook(lambda *_: self._starts.append(self.bytes))
                block.register_forward_hook(self._end)

    def _end(self, *_: Any) -> None:
        self.largest_block = max(self.largest_block, self.bytes - self._starts.pop())

    def keep(self, tensor: Tensor) -> Tensor:
        """Count a tensor, once a storage."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self._alive.append(tensor)
            self.bytes += storage.nbytes()
        return tensor


@contextmanager
def autocast(device: str) -> Iterator[None]:
    """The bf16 autocast of a GPU; `torch.autocast` would turn itself off without one."""
    torch.set_autocast_dtype(device, torch.bfloat16)
    torch.set_autocast_enabled(device, True)
    try:
        yield
    finally:
        torch.set_autocast_enabled(device, False)
        torch.clear_autocast_cache()


def activations(family: str, method: str, checkpointing: bool, device: str) -> Kept:
    """What the policy's forward on one pair leaves for the backward pass."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    unet = build_unet(family, method)
    if checkpointing:
        unet.enable_gradient_checkpointing()
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake(unet, device)
        given, kept = pair_of_inputs(family, method, unet, device), Kept(unet)
        hooks = torch.autograd.graph.saved_tensors_hooks(kept.keep, lambda tensor: tensor)
        # On a CPU torch chooses its own flash kernel, as in a run.
        with flash_attention() if device == "cuda" else nullcontext(), autocast(device), hooks:
            predicted = unet(**given).sample
            error: Tensor = (predicted.float() - torch.empty_like(predicted, dtype=torch.float32)).square()
            error.flatten(1).mean(1)
    return kept


def counted(work: Callable[[], Any]) -> tuple[int, Any]:
    """Return the floating-point operations of a call, by torch's own count, and its result."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        result = work()
    return int(counter.get_total_flops()), result


def operations(family: str, method: str, checkpointing: bool) -> tuple[int, int]:
    """Floating-point operations on one pair, forward and backward."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.nn.attention import SDPBackend, sdpa_kernel

    unet = build_unet(family, method)
    if checkpointing:
        unet.enable_gradient_checkpointing()
    with FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH), autocast("cpu"):
        fake(unet, "cpu")
        given = pair_of_inputs(family, method, unet, "cpu")
        forward, predicted = counted(partial(unet, **given, return_dict=False))
        backward, _ = counted(predicted[0].float().square().mean().backward)
    return forward, backward


def encoding(family: str) -> int:
    """Floating-point operations of encoding the two pictures and the caption of a pair."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    vae, encoders = frozen_parts(family)
    side = FAMILIES[family]["resolution"]
    with torch.no_grad():
        words = torch.empty(1, 77, dtype=torch.int64, device="meta")
        total = sum(counted(partial(encoder, words))[0] for encoder in encoders)
        with FakeTensorMode(allow_non_fake_inputs=True):
            fake(vae, "cpu")
            return total + counted(partial(vae.encode, torch.empty(2, 3, side, side)))[0]


def encoding_peak(family: str, pairs: int) -> int:
    """Bytes at the peak of encoding the pictures of so many pairs, without the VAE's weights."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.mem_tracker import MemTracker

    vae, _ = frozen_parts(family)
    # SDXL's VAE works in float32 while it encodes.
    dtype = torch.float32 if family == "sdxl" else torch.bfloat16
    nn.Module.to(vae, dtype=dtype)
    side = FAMILIES[family]["resolution"]
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), flash_attention():
        fake(vae, "cuda")
        pictures, tracker = torch.empty(2 * pairs, 3, side, side, dtype=dtype, device="cuda"), MemTracker()
        tracker.track_external(vae, pictures)
        with tracker:
            vae.encode(pictures)
    (peak,) = tracker.get_tracker_snapshot("peak").values()
    weights: int = sum(part.numel() * part.element_size() for part in vae.parameters())
    return int(peak["Total"]) - weights


def needs(family: str, method: str, device: str) -> dict[str, Any]:
    """All figures of a family and a method, for one pair a batch."""
    unet = build_unet(family, method)
    trained = [part for part in unet.parameters() if part.requires_grad]
    numbers = count(trained)
    weights = sum(part.numel() * part.element_size() for part in unet.parameters())
    vae, encoders = frozen_parts(family)
    frozen = {"vae": count(vae.parameters()), "text_encoders": sum(count(each.parameters()) for each in encoders)}
    again, plain = (activations(family, method, checkpointing, device) for checkpointing in (True, False))
    forward, backward = operations(family, method, False)
    return {
        "parameters": {"unet": count(unet.parameters()), "trained": numbers, **frozen},
        "bytes": {
            "unet": weights,
            "reference": weights if method == "full" else 0,
            **{name: 2 * size for name, size in frozen.items()},
            "gradients": 4 * numbers,
            "adamw": 8 * numbers,
            "adafactor": adafactor_state(trained),
            "activations": plain.bytes,
            "activations_checkpointed": again.bytes,
            "largest_block": plain.largest_block,
            "weight_casts": 2 * numbers,
            "encoding": encoding_peak(family, 1),
            "encoding_caches": encoding_peak(family, PIXELS_AT_ONCE // FAMILIES[family]["resolution"] ** 2 // 2),
        },
        "operations": {
            "forward": forward,
            "backward": backward,
            "backward_checkpointed": operations(family, method, True)[1],
            "encoding": encoding(family),
        },
    }


def save_random_model(folder: Path) -> None:
    """Write a pipeline of SD1.5's shape with random weights in bf16; its tokenizer is the tests' small one."""
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    sys.path.insert(0, str(ROOT / "tests"))
    from helpers.tiny import tiny_scheduler, tiny_tokenizer

    tokenizer = tiny_tokenizer()
    ends = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    torch.set_default_dtype(torch.bfloat16)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(**VAE),
        text_encoder=CLIPTextModel(CLIPTextConfig(**CLIP_L, **ends)),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(**FAMILIES["sd15"]["unet"]),
        scheduler=tiny_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)


def main() -> None:
    """Compute and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=FAMILIES, action="append", help="all by default")
    parser.add_argument("--method", choices=METHODS, action="append", help="all by default")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="whose kernels keep activations")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument(
        "--random_model", type=Path, help="only write a random model of SD1.5's shape into this folder"
    )
    arguments = parser.parse_args()
    if arguments.random_model:
        save_random_model(arguments.random_model)
        return
    figures = {
        family: {method: needs(family, method, arguments.device) for method in arguments.method or METHODS}
        for family in arguments.family or FAMILIES
    }
    text = json.dumps(figures, indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
