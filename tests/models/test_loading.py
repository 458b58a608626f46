"""load_model: every kind of name, and every way it can fail."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import t2ialign.mini
from helpers.tiny import FAMILIES, save_tiny, tiny_pipeline
from helpers.user_adapters import with_adapter
from t2ialign.errors import ModelError
from t2ialign.models import lora
from t2ialign.models.card import write_card
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.models.ldm_names import ldm_name
from t2ialign.models.loading import load_model
from t2ialign.models.saving import save_pipeline
from t2ialign.models.user_adapter import save_user_adapter


def predict(model: DiffusionModel) -> torch.Tensor:
    latents = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model.predict(latents, torch.tensor([500]), model.encode_prompts(["a"]))


def lora_run(base: str, final: Path, seed: int = 0) -> DiffusionModel:
    """A run's final/ on `base`, and the model in the state that was saved."""
    model = load_model(base)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in lora.add_lora(model.unet, 2, 3.0, seed=seed).items():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    lora.save_lora(model, final, algorithm="dpo")
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_folder(family: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, family)
    model = load_model(folder)
    assert model.name == str(folder)
    assert model.family == ("sdxl" if family == "sdxl" else "sd")
    assert model.prediction_type == ("v_prediction" if family == "sd2" else "epsilon")
    plain = DiffusionModel.from_pipeline(tiny_pipeline(family))
    weights, expected = model.unet.state_dict(), plain.unet.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights.items())
    # Not to the bit: tensors of a mapped file lie otherwise in memory, for which kernels round otherwise.
    torch.testing.assert_close(predict(model), predict(plain), rtol=1e-5, atol=1e-5)
    image = model.pipeline("a", num_inference_steps=1, height=64, width=64, output_type="np").images
    assert image.shape == (1, 64, 64, 3)


def test_dtype_and_fp16_only_folders(tmp_path: Path) -> None:
    pipeline = tiny_pipeline("sd15").to(torch.float16)
    pipeline.save_pretrained(tmp_path / "half", variant="fp16", safe_serialization=True)
    model = load_model(tmp_path / "half")
    assert model.dtype == torch.float32
    assert torch.equal(model.unet.conv_in.weight, pipeline.unet.conv_in.weight.float())
    assert load_model(tmp_path / "half", dtype=torch.bfloat16).dtype == torch.bfloat16
    with pytest.raises(ModelError, match="variant"):
        load_model(tmp_path / "half", variant="ema")


def test_a_safety_checker_is_not_loaded(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    (folder / "model_index.json").write_text(json.dumps(index))
    model = load_model(folder)
    assert model.pipeline.safety_checker is None
    assert model.pipeline.feature_extractor is None


def test_mini_sd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(t2ialign.mini, "ASSETS", tmp_path)
    with pytest.raises(ModelError, match="mini-sd"):
        load_model("mini-sd")
    save_tiny(tmp_path).rename(tmp_path / "mini-sd")
    model = load_model("mini-sd")
    assert (model.name, model.family) == ("mini-sd", "mini-sd")
    assert load_model(tmp_path / "mini-sd").family == "mini-sd"
    run = lora_run("mini-sd", tmp_path / "run" / "final")
    again = load_model(tmp_path / "run" / "final")
    assert again.family == "mini-sd"
    assert torch.allclose(predict(again), predict(run), atol=1e-5)


def test_lora_run_is_merged_into_its_base(tmp_path: Path) -> None:
    base = save_tiny(tmp_path)
    run = lora_run(str(base), tmp_path / "run" / "final")
    model = load_model(tmp_path / "run" / "final")
    assert torch.allclose(predict(model), predict(run), atol=1e-5)
    assert not torch.allclose(predict(model), predict(load_model(base)), atol=1e-3)
    assert not getattr(model.unet, "peft_config", None)
    assert not any("lora" in name for name, _ in model.unet.named_parameters())
    assert model.name == str(tmp_path / "run" / "final")


def test_run_on_a_run(tmp_path: Path) -> None:
    base = save_tiny(tmp_path)
    lora_run(str(base), tmp_path / "first" / "final")
    second = lora_run(str(tmp_path / "first" / "final"), tmp_path / "second" / "final", seed=1)
    assert torch.allclose(predict(load_model(tmp_path / "second" / "final")), predict(second), atol=1e-5)


def test_a_run_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tiny(tmp_path)
    monkeypatch.chdir(tmp_path)
    run = lora_run("tiny-sd15", Path("run"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert torch.allclose(predict(load_model("../run")), predict(run), atol=1e-5)


def test_base_named_by_the_card_alone(tmp_path: Path) -> None:
    base = save_tiny(tmp_path)
    final = tmp_path / "final"
    run = lora_run(str(base), final)
    (final / "t2ialign.json").unlink()
    with pytest.raises(ModelError, match="does not say which model"):
        load_model(final)
    (final / "README.md").write_text(f"---\nbase_model:\n- {base}\n---\n# A card\n")
    assert torch.allclose(predict(load_model(final)), predict(run), atol=1e-5)


def test_circle_and_missing_base(tmp_path: Path) -> None:
    base = save_tiny(tmp_path)
    final = tmp_path / "final"
    lora_run(str(base), final)
    shutil.rmtree(base)
    with pytest.raises(ModelError, match=r"base model of .*final.*tiny-sd15"):
        load_model(final)
    record = json.loads((final / "t2ialign.json").read_text())
    (final / "t2ialign.json").write_text(json.dumps({**record, "base_model": str(final)}))
    with pytest.raises(ModelError, match="without end"):
        load_model(final)


@pytest.mark.parametrize("family", FAMILIES)
def test_full_run(family: str, tmp_path: Path) -> None:
    model = load_model(save_tiny(tmp_path, family))
    with torch.no_grad():
        model.unet.conv_in.weight.add_(0.1)
    final = save_pipeline(model, tmp_path / "final", algorithm="dpo")
    write_card(final)
    again = load_model(final)
    assert again.family == model.family
    assert torch.equal(predict(again), predict(model))
    assert str(tmp_path) not in (final / "model_index.json").read_text()
    assert str(tmp_path) not in (final / "unet" / "config.json").read_text()


def test_single_file_checkpoint(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path)
    checkpoint = tmp_path / "tiny.safetensors"
    save_file(original_form(tiny_pipeline("sd15")), str(checkpoint))
    model = load_model(checkpoint, config=str(folder))
    expected = load_model(folder)
    assert torch.allclose(predict(model), predict(expected), atol=1e-5)
    pixels = torch.rand((1, 3, 64, 64))
    assert torch.allclose(model.encode_images(pixels), expected.encode_images(pixels), atol=1e-5)
    with pytest.raises(ModelError, match=r"hf download \S+/stable-diffusion-v1-5 .*config=FOLDER"):
        load_model(checkpoint)


def original_form(pipeline: Any) -> dict[str, torch.Tensor]:
    """The pipeline's weights under the names of the original checkpoints."""
    tensors = {}
    for key, value in pipeline.unet.state_dict().items():
        module, _, kind = key.rpartition(".")
        tensors[f"model.diffusion_model.{ldm_name(module, 1)}.{kind}"] = value.clone()
    for key, value in pipeline.text_encoder.state_dict().items():
        tensors["cond_stage_model.transformer.text_model." + key.removeprefix("text_model.")] = value.clone()
    for key, value in pipeline.vae.state_dict().items():
        name, value = vae_name(key), value.clone()
        if ".attn_1." in name and name.endswith("weight") and ".norm." not in name:
            value = value[:, :, None, None]
        tensors[f"first_stage_model.{name}"] = value
    return tensors


def vae_name(key: str) -> str:
    for block in range(4):
        key = key.replace(f"encoder.down_blocks.{block}.", f"encoder.down.{block}.")
        key = key.replace(f"decoder.up_blocks.{block}.", f"decoder.up.{3 - block}.")
    for new, old in {
        "resnets.": "block.",
        "downsamplers.0": "downsample",
        "upsamplers.0": "upsample",
        "mid_block.block.1": "mid.block_2",
        "mid_block.block.0": "mid.block_1",
        "mid_block.attentions.0": "mid.attn_1",
        "group_norm": "norm",
        "to_q": "q",
        "to_k": "k",
        "to_v": "v",
        "to_out.0": "proj_out",
        "conv_norm_out": "norm_out",
        "conv_shortcut": "nin_shortcut",
    }.items():
        key = key.replace(new, old)
    return key


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    for suffix in ("ckpt", "pt", "bin"):
        (tmp_path / f"m.{suffix}").write_bytes(b"x")
        with pytest.raises(ModelError, match=rf"m\.{suffix} is a pickle.*Convert"):
            load_model(tmp_path / f"m.{suffix}")
    (tmp_path / "m.onnx").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"expected a folder or a .safetensors"):
        load_model(tmp_path / "m.onnx")
    (tmp_path / "broken.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(ModelError, match=r"broken.safetensors is not a whole"):
        load_model(tmp_path / "broken.safetensors")
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(1)}, str(tmp_path / "l.safetensors"))
    with pytest.raises(ModelError, match=r"is a LoRA.*--adapter"):
        load_model(tmp_path / "l.safetensors")
    save_user_adapter(with_adapter(), tmp_path)
    with pytest.raises(ModelError, match=r"is a user adapter, not a model.*--adapter"):
        load_model(tmp_path / "user_adapter.safetensors")
    save_file({"conv_in.weight": torch.zeros(1)}, str(tmp_path / "u.safetensors"))
    with pytest.raises(ModelError, match="not a Stable Diffusion checkpoint"):
        load_model(tmp_path / "u.safetensors")


def test_folders_that_are_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has neither model_index.json"):
        load_model(tmp_path)
    (tmp_path / "run" / "final").mkdir(parents=True)
    with pytest.raises(ModelError, match=r"is a training run: its model is .*final"):
        load_model(tmp_path / "run")
    for name in ("./nothing/here", "runs/one/final", "sd15"):
        with pytest.raises(ModelError, match=f"no such folder or file: '{name}'"):
            load_model(name)
    with pytest.raises(ModelError, match=r"'mini_sd'.*did you mean mini-sd"):
        load_model("mini_sd")
    folder = save_tiny(tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "PickleRunnerPipeline"}))
    with pytest.raises(ModelError, match="PickleRunnerPipeline"):
        load_model(folder)


def test_pickled_weights_are_never_read(tmp_path: Path) -> None:
    tiny_pipeline("sd15").save_pretrained(tmp_path / "p", safe_serialization=True)
    for path in (tmp_path / "p").glob("*/*.safetensors"):
        torch.save({"harm": 1}, path.with_suffix(".bin"))
        path.unlink()
    with pytest.raises(ModelError, match=r"pickle files.*safe_serialization=True"):
        load_model(tmp_path / "p")


def test_truncated_weights_are_a_clear_error(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"cannot load .*tiny-sd15"):
        load_model(folder)


def test_uncached_hub_id_off_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ModelError, match=r"'nobody/never-heard-of'.*`hf download nobody/never-heard-of --revision v2`"
    ):
        load_model("nobody/never-heard-of", revision="v2")
    with pytest.raises(ModelError, match=r"`hf download nobody/never-heard-of`"):
        load_model("nobody/never-heard-of")


def test_cached_hub_id_off_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub id that was downloaded before loads without a network; the folder is the cache's own layout."""
    cache = tmp_path / "models--owner--tiny"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (cache / "snapshots").mkdir(parents=True)
    save_tiny(tmp_path).rename(cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    for reference in ("main", "v2"):
        (cache / "refs" / reference).write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = load_model("owner/tiny", revision="v2")
    assert (model.name, model.revision) == ("owner/tiny", "v2")
    plain = load_model("owner/tiny")
    assert plain.revision == commit, "what is recorded names what was loaded"
    assert torch.equal(predict(model), predict(plain))
    run = lora_run("owner/tiny", tmp_path / "final")
    assert torch.allclose(predict(load_model(tmp_path / "final")), predict(run), atol=1e-5)
    with pytest.raises(ModelError, match=r"hf download owner/tiny --revision v3"):
        load_model("owner/tiny", revision="v3")


def test_unknown_attention(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'flash'.*auto, sdpa, xformers"):
        load_model(save_tiny(tmp_path), attention="flash")
