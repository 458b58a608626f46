"""Names: what a module of diffusers' UNet is called in the original (LDM) UNet.

Law: pure string work. sd-scripts trains SDXL on the original UNet, so its LoRA files, and the programs that read
them, use these names for SDXL; for SD 1.x and 2.x they use diffusers' names.
"""

from __future__ import annotations

import re

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ENDS = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")


def ldm_name(module: str, layers_per_block: int = 2) -> str:
    """The original name of a UNet module, for instance of a LoRA target.

    Args:
        module: Name in `UNet2DConditionModel`, such as `down_blocks.1.attentions.0.proj_in`.
        layers_per_block: The UNet's; a down block holds that many layers and an up block one more.

    Raises:
        ValueError: The module has no counterpart.
    """
    if module in _ENDS:
        return _ENDS[module]
    middle = _MIDDLE.fullmatch(module)
    if middle is not None:
        kind, index, rest = middle.groups()
        if kind == "attentions":
            return f"middle_block.{2 * int(index) + 1}.{rest}"
        return f"middle_block.{2 * int(index)}.{_in_resnet(rest, module)}"
    block = _BLOCK.fullmatch(module)
    if block is None:
        raise ValueError(f"{module!r} has no name in the original UNet")
    side, number, kind, layer, rest = block.groups()
    group = int(number) * (layers_per_block + 1)
    if kind == "downsamplers":
        return f"input_blocks.{group + layers_per_block + 1}.0.op"
    if kind == "upsamplers":
        # Index 1 is the attention, which every up block of SDXL that upsamples has.
        return f"output_blocks.{group + layers_per_block}.2.conv"
    place = f"input_blocks.{1 + group + int(layer)}" if side == "down" else f"output_blocks.{group + int(layer)}"
    return f"{place}.1.{rest}" if kind == "attentions" else f"{place}.0.{_in_resnet(rest, module)}"


def _in_resnet(rest: str, module: str) -> str:
    if rest not in _RESNET:
        raise ValueError(f"{module!r} has no name in the original UNet")
    return _RESNET[rest]
