"""The kohya form: names, alpha, metadata, and the same pictures through plain diffusers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from helpers.tiny import FAMILIES, tiny_pipeline
from helpers.user_adapters import with_adapter
from t2ialign.errors import ModelError
from t2ialign.models import lora
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.models.export import export_kohya, kohya_name
from t2ialign.models.record import Record
from t2ialign.models.saving import save_pipeline
from t2ialign.models.user_adapter import save_user_adapter


def trained(family: str, targets: tuple[str, ...] = lora.TARGETS) -> DiffusionModel:
    model = DiffusionModel.from_pipeline(tiny_pipeline(family), f"tiny/{family}")
    generator = torch.Generator().manual_seed(4)
    for name, parameter in lora.add_lora(model.unet, 4, 6.0, targets).items():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return model


def predict(model: DiffusionModel, unet: torch.nn.Module) -> torch.Tensor:
    latents = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model.predict(latents, torch.tensor([500]), model.encode_prompts(["a"]), unet=unet)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("half", [False, True])
def test_plain_diffusers_reads_it_back(family: str, half: bool, tmp_path: Path) -> None:
    model = trained(family)
    lora.save_lora(model, tmp_path / "final")
    output = export_kohya(tmp_path / "final", tmp_path / "out" / "kohya.safetensors", half=half)
    plain = tiny_pipeline(family)
    before = predict(model, plain.unet)
    plain.load_lora_weights(str(output))
    expected = predict(model, model.unet)
    assert (expected - before).abs().max() > 1e-2
    assert torch.allclose(predict(model, plain.unet), expected, atol=2e-3 if half else 1e-5)
    assert {tensor.dtype for tensor in load_file(output).values()} == {torch.float16 if half else torch.float32}


def test_names_and_alpha_of_sd(tmp_path: Path) -> None:
    lora.save_lora(trained("sd15"), tmp_path)
    tensors = load_file(export_kohya(tmp_path, tmp_path / "k.safetensors"))
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    assert tensors[f"{name}.lora_down.weight"].shape == (4, 32)
    assert tensors[f"{name}.lora_up.weight"].shape == (32, 4)
    assert tensors[f"{name}.alpha"].item() == 6.0
    assert f"{name.replace('to_q', 'to_out_0')}.alpha" in tensors
    assert len(tensors) == 3 * 32


def test_names_of_sdxl() -> None:
    record = Record("lora", base_model="x", family="sdxl")
    assert (
        kohya_name("down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", record)
        == "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    )
    assert kohya_name("up_blocks.0.attentions.2.proj_in", record) == "lora_unet_output_blocks_2_1_proj_in"
    with pytest.raises(ModelError, match="encoder_hid_proj"):
        kohya_name("encoder_hid_proj", record)


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_other_targets(family: str, tmp_path: Path) -> None:
    model = trained(family, ("to_q", "ff.net.0.proj", "proj_in"))
    lora.save_lora(model, tmp_path)
    plain = tiny_pipeline(family)
    plain.load_lora_weights(str(export_kohya(tmp_path, tmp_path / "k.safetensors")))
    assert torch.allclose(predict(model, plain.unet), predict(model, model.unet), atol=1e-5)


def test_every_module_of_the_real_sdxl_is_found_again_by_diffusers() -> None:
    """sd-scripts has 722 modules for SDXL: 70 blocks of 10 and 11 pairs of proj_in and proj_out."""
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
    from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=128,
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
        )
    kinds = torch.nn.Linear | torch.nn.Conv2d
    modules = [name for name, part in unet.named_modules() if ".attentions." in name and isinstance(part, kinds)]
    assert len(modules) == 722
    record = Record("lora", base_model="x", family="sdxl")
    weight = torch.ones(1, 1)
    state: dict[str, torch.Tensor] = {}
    for module in modules:
        name = kohya_name(module, record)
        assert name.startswith(("lora_unet_input_blocks_", "lora_unet_middle_block_1_", "lora_unet_output_blocks_"))
        state |= {
            f"{name}.lora_down.weight": weight,
            f"{name}.lora_up.weight": weight,
            f"{name}.alpha": torch.ones(()),
        }
    read, _ = StableDiffusionXLPipeline.lora_state_dict(state, unet_config=unet.config)
    found = {key.split(".lora_")[0] for key in convert_unet_state_dict_to_peft(read)}
    assert found == {f"unet.{module}" for module in modules}


def test_metadata(tmp_path: Path) -> None:
    lora.save_lora(trained("sdxl"), tmp_path)
    output = export_kohya(tmp_path, tmp_path / "taste.safetensors")
    with safe_open(output, framework="pt") as opened:
        notes = opened.metadata()
    assert (notes["ss_network_dim"], notes["ss_network_alpha"]) == ("4", "6")
    assert notes["ss_base_model_version"] == "sdxl_base_v1-0"
    assert notes["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert notes["modelspec.title"] == notes["ss_output_name"] == "taste"
    assert notes["modelspec.prediction_type"] == "epsilon"
    content = output.read_bytes()
    body = content[8 + int.from_bytes(content[:8], "little") :]
    assert notes["modelspec.hash_sha256"] == "0x" + hashlib.sha256(body).hexdigest()
    assert str(tmp_path) not in json.dumps(notes)


def test_a_lora_of_another_tool_needs_its_family(tmp_path: Path) -> None:
    model = trained("sd15")
    lora.save_lora(model, tmp_path)
    (tmp_path / "t2ialign.json").unlink()
    with pytest.raises(ModelError, match="say the family"):
        export_kohya(tmp_path, tmp_path / "k.safetensors")
    output = export_kohya(tmp_path / lora.WEIGHTS_NAME, tmp_path / "k.safetensors", family="sd15")
    plain = tiny_pipeline("sd15")
    plain.load_lora_weights(str(output))
    assert torch.allclose(predict(model, plain.unet), predict(model, model.unet), atol=1e-5)


def test_errors(tmp_path: Path) -> None:
    lora.save_lora(trained("sd15"), tmp_path)
    with pytest.raises(ModelError, match=r"\.safetensors"):
        export_kohya(tmp_path, tmp_path / "k.pt")
    with pytest.raises(ModelError, match="no LoRA in"):
        export_kohya(tmp_path / "absent", tmp_path / "k.safetensors")
    save_pipeline(DiffusionModel.from_pipeline(tiny_pipeline("sd15")), tmp_path / "full")
    with pytest.raises(ModelError, match="whole pipeline"):
        export_kohya(tmp_path / "full", tmp_path / "k.safetensors")


def test_a_user_adapter_has_no_other_form(tmp_path: Path) -> None:
    path = save_user_adapter(with_adapter(), tmp_path / "run" / "final")
    for source in (tmp_path / "run", path.parent, path):
        with pytest.raises(ModelError, match=r"holds a user adapter.*--adapter FINAL --user FILE"):
            export_kohya(source, tmp_path / "k.safetensors")
    (path.parent / "t2ialign.json").unlink()
    with pytest.raises(ModelError, match="holds a user adapter"):
        export_kohya(path.parent, tmp_path / "k.safetensors", family="sd15")
