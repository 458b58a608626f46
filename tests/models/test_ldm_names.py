"""Names of the original UNet, against what sd-scripts writes for SDXL."""

from __future__ import annotations

import pytest

from t2ialign.models.ldm_names import ldm_name


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        # SDXL: attention in down blocks 1 and 2, the middle and up blocks 0 and 1.
        (
            "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
            "input_blocks.4.1.transformer_blocks.0.attn1.to_q",
        ),
        ("down_blocks.1.attentions.1.proj_in", "input_blocks.5.1.proj_in"),
        ("down_blocks.2.attentions.0.proj_out", "input_blocks.7.1.proj_out"),
        ("down_blocks.2.attentions.1.transformer_blocks.9.ff.net.2", "input_blocks.8.1.transformer_blocks.9.ff.net.2"),
        (
            "mid_block.attentions.0.transformer_blocks.3.attn2.to_out.0",
            "middle_block.1.transformer_blocks.3.attn2.to_out.0",
        ),
        ("up_blocks.0.attentions.0.proj_in", "output_blocks.0.1.proj_in"),
        ("up_blocks.0.attentions.2.proj_in", "output_blocks.2.1.proj_in"),
        ("up_blocks.1.attentions.0.proj_in", "output_blocks.3.1.proj_in"),
        ("up_blocks.1.attentions.2.proj_in", "output_blocks.5.1.proj_in"),
        ("down_blocks.0.resnets.1.conv1", "input_blocks.2.0.in_layers.2"),
        ("down_blocks.1.resnets.0.conv_shortcut", "input_blocks.4.0.skip_connection"),
        ("up_blocks.2.resnets.2.time_emb_proj", "output_blocks.8.0.emb_layers.1"),
        ("mid_block.resnets.1.conv2", "middle_block.2.out_layers.3"),
        ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
        ("down_blocks.1.downsamplers.0.conv", "input_blocks.6.0.op"),
        ("up_blocks.0.upsamplers.0.conv", "output_blocks.2.2.conv"),
        ("up_blocks.1.upsamplers.0.conv", "output_blocks.5.2.conv"),
        ("conv_in", "input_blocks.0.0"),
        ("conv_out", "out.2"),
        ("time_embedding.linear_2", "time_embed.2"),
        ("add_embedding.linear_1", "label_emb.0.0"),
    ],
)
def test_sdxl(module: str, expected: str) -> None:
    assert ldm_name(module) == expected


@pytest.mark.parametrize("module", ["encoder_hid_proj", "down_blocks.0.resnets.0.dropout", "mid_block.motion.0.x"])
def test_unknown(module: str) -> None:
    with pytest.raises(ValueError, match=module):
        ldm_name(module)


def test_names_are_unique_over_a_whole_unet() -> None:
    from torch import nn

    from helpers.tiny import tiny_unet

    modules = [name for name, module in tiny_unet("sdxl").named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    assert len({ldm_name(name, 1) for name in modules}) == len(modules) > 50
