"""LoRA: initialisation, the reference, and files that plain diffusers reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.tiny import FAMILIES, tiny_pipeline
from t2ialign.errors import ModelError
from t2ialign.models import lora
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.models.record import read_record


def trained(family: str = "sd15", rank: int = 4, alpha: float = 6.0, seed: int = 0, **more: Any) -> DiffusionModel:
    """A model whose adapter is no longer zero, as after some training."""
    model = DiffusionModel.from_pipeline(tiny_pipeline(family), f"tiny/{family}")
    generator = torch.Generator().manual_seed(seed + 100)
    for name, parameter in lora.add_lora(model.unet, rank, alpha, seed=seed, **more).items():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return model


def predict(model: DiffusionModel, unet: Any = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn((2, 4, 8, 8), generator=generator)
    with torch.no_grad():
        return model.predict(latents, torch.tensor([10, 900]), model.encode_prompts(["a", "b"]), unet=unet)


def test_initialisation_is_a_function_of_the_seed_alone() -> None:
    unets = [tiny_pipeline("sd15", seed=seed).unet for seed in (0, 0, 0, 5)]
    first = lora.add_lora(unets[0], 4, seed=7)
    torch.manual_seed(999)
    state = torch.get_rng_state()
    second = lora.add_lora(unets[1], 4, targets="to_out.0, to_v,to_k,to_q", seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    third = lora.add_lora(unets[2], 4, seed=8)
    downs = [name for name in first if "lora_A" in name]
    assert all(not torch.equal(first[name], third[name]) for name in downs)
    assert all(torch.equal(first[name], part) for name, part in lora.add_lora(unets[3], 4, seed=7).items())


def test_initialisation_has_the_documented_spread() -> None:
    unet = tiny_pipeline("sd15").unet
    parameters = lora.add_lora(unet, 8, seed=0)
    drawn = torch.cat([part.flatten() for name, part in parameters.items() if "lora_A" in name])
    assert drawn.std().item() == pytest.approx(1 / 8, rel=0.05)
    assert all(part.abs().sum() == 0 for name, part in parameters.items() if "lora_B" in name)


def test_only_the_adapter_trains_and_in_float32() -> None:
    model = DiffusionModel.from_pipeline(tiny_pipeline("sd15")).to(dtype=torch.bfloat16)
    parameters = lora.add_lora(model.unet, 4)
    trainable = {name for name, part in model.unet.named_parameters() if part.requires_grad}
    assert trainable == set(parameters)
    assert len(parameters) == 2 * 4 * 2 * 4  # two weights; four projections; two attentions; four places
    assert all(part.dtype == torch.float32 for part in parameters.values())
    assert model.dtype == torch.bfloat16
    predict(model)


def test_a_fresh_adapter_changes_nothing() -> None:
    model = DiffusionModel.from_pipeline(tiny_pipeline("sd2"))
    before = predict(model)
    lora.add_lora(model.unet, 4)
    assert torch.equal(predict(model), before)


def test_scale_is_alpha_over_rank() -> None:
    model = trained(rank=4, alpha=6.0)
    layer = model.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_q
    x = torch.randn(3, layer.in_features)
    expected = layer.base_layer(x) + 1.5 * x @ layer.lora_A["default"].weight.T @ layer.lora_B["default"].weight.T
    assert torch.allclose(layer(x), expected, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_reference_is_the_base_bit_for_bit(family: str) -> None:
    base = predict(DiffusionModel.from_pipeline(tiny_pipeline(family)))
    model = trained(family)
    changed = predict(model)
    assert not torch.allclose(changed, base, atol=1e-4)
    with lora.reference(model.unet) as unet:
        assert unet is model.unet
        assert torch.equal(predict(model), base)
    assert torch.equal(predict(model), changed)


def test_reference_comes_back_after_an_error_and_nests() -> None:
    model = trained()
    changed = predict(model)
    model.unet.train()
    grads = {name: part.requires_grad for name, part in model.unet.named_parameters()}
    inside = []

    def fail() -> None:
        with lora.reference(model.unet), lora.reference(model.unet):
            inside.append(model.unet.training)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert inside == [False]
    assert all(module.training for module in model.unet.modules())
    assert {name: part.requires_grad for name, part in model.unet.named_parameters()} == grads
    model.unet.eval()
    assert torch.equal(predict(model), changed)


def test_reference_between_forward_and_backward_leaves_the_gradient() -> None:
    def gradient(checkpointing: bool, reference_between: bool) -> torch.Tensor:
        model = trained()
        if checkpointing:
            model.unet.enable_gradient_checkpointing()
        model.unet.train()
        out = model.predict(torch.ones(1, 4, 8, 8), torch.tensor([5]), model.encode_prompts(["a"]))
        if reference_between:
            with torch.no_grad(), lora.reference(model.unet):
                model.predict(torch.ones(1, 4, 8, 8), torch.tensor([5]), model.encode_prompts(["a"]))
        out.square().mean().backward()
        parts = [part.grad for part in lora.lora_parameters(model.unet).values()]
        return torch.cat([part.flatten() for part in parts if part is not None])

    expected = gradient(False, False)
    assert expected.abs().max() > 0
    assert torch.equal(gradient(False, True), expected)
    assert torch.allclose(gradient(True, True), expected, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("alpha", [6.0, 4.0, 0.5])
def test_saved_file_is_read_by_plain_diffusers(family: str, alpha: float, tmp_path: Path) -> None:
    model = trained(family, rank=4, alpha=alpha)
    expected = predict(model)
    lora.save_lora(model, tmp_path / "final", algorithm="dpo")
    plain = tiny_pipeline(family)
    plain.load_lora_weights(str(tmp_path / "final"))
    config = next(iter(plain.unet.peft_config.values()))
    assert (config.r, config.lora_alpha) == (4, alpha)
    assert torch.allclose(predict(model, plain.unet), expected, atol=1e-5)
    record = read_record(tmp_path / "final")
    assert record is not None
    assert (record.kind, record.rank, record.alpha, record.algorithm) == ("lora", 4, alpha, "dpo")
    assert record.targets == ("to_k", "to_out.0", "to_q", "to_v")
    assert record.base_model == f"tiny/{family}"


def test_saved_alpha_makes_a_difference(tmp_path: Path) -> None:
    """The tolerance of the test above would tell alpha 6 from alpha = rank."""
    model = trained(rank=4, alpha=6.0)
    other = trained(rank=4, alpha=4.0)
    assert (predict(model) - predict(other)).abs().max() > 1e-3


def test_other_targets_survive(tmp_path: Path) -> None:
    model = trained(alpha=2.0, targets=["attn2.to_q", "ff.net.0.proj", "conv1", "proj_in"])
    lora.save_lora(model, tmp_path)
    plain = tiny_pipeline("sd15")
    plain.load_lora_weights(str(tmp_path))
    assert torch.allclose(predict(model, plain.unet), predict(model), atol=1e-5)


def test_stacking_adds_up_by_weight(tmp_path: Path) -> None:
    base = DiffusionModel.from_pipeline(tiny_pipeline("sd15"))
    for seed in (1, 2):
        lora.save_lora(trained(seed=seed), tmp_path / str(seed))
    weights = {}
    for name, module in base.unet.named_modules():
        if name.endswith("attn1.to_q"):
            weights[name] = module.weight.clone()
    before = predict(base)
    assert lora.load_adapter(base, tmp_path / "1", weight=0.25) == "adapter_0"
    assert lora.load_adapter(base, tmp_path / "2", weight=-2.0) == "adapter_1"
    assert base.adapters == {"adapter_0": 0.25, "adapter_1": -2.0}
    assert not any(part.requires_grad for part in base.unet.parameters())
    stacked = predict(base)
    with lora.reference(base.unet):
        assert torch.equal(predict(base), before)
    lora.merge_adapters(base)
    assert torch.allclose(predict(base), stacked, atol=1e-5)
    assert base.adapters == {}
    assert not getattr(base.unet, "peft_config", None)
    for name, weight in weights.items():
        update = sum(
            factor * _update(tmp_path / folder / lora.WEIGHTS_NAME, name)
            for folder, factor in (("1", 0.25), ("2", -2.0))
        )
        assert torch.allclose(base.unet.get_submodule(name).weight, weight + update, atol=1e-5)
    lora.add_lora(base.unet, 2)


def _update(path: Path, module: str) -> torch.Tensor:
    from safetensors.torch import load_file

    tensors = load_file(path)
    down, up = (tensors[f"unet.{module}.lora.{half}.weight"] for half in ("down", "up"))
    update: torch.Tensor = 1.5 * up @ down
    return update


def test_weight_zero_is_the_base(tmp_path: Path) -> None:
    lora.save_lora(trained(), tmp_path)
    base = DiffusionModel.from_pipeline(tiny_pipeline("sd15"))
    before = predict(base)
    lora.load_adapter(base, tmp_path, weight=0.0)
    assert torch.equal(predict(base), before)


def test_errors(tmp_path: Path) -> None:
    unet = tiny_pipeline("sd15").unet
    with pytest.raises(ModelError, match=r"'to_z'.*to_q"):
        lora.add_lora(unet, 4, targets=["to_q", "to_z"])
    with pytest.raises(ModelError, match="no targets"):
        lora.add_lora(unet, 4, targets=" , ")
    with pytest.raises(ValueError, match="rank 0"):
        lora.add_lora(unet, 0)
    with pytest.raises(ValueError, match="alpha -1"):
        lora.add_lora(unet, 4, alpha=-1)
    model = trained()
    with pytest.raises(ModelError, match="already has the adapter"):
        lora.add_lora(model.unet, 4)
    lora.save_lora(model, tmp_path / "run" / "final")
    with pytest.raises(ModelError, match="in LoRA training"):
        lora.load_adapter(model, tmp_path / "run")
    with pytest.raises(ModelError, match="no LoRA to save"):
        lora.save_lora(DiffusionModel.from_pipeline(tiny_pipeline("sd15")), tmp_path)
    with pytest.raises(ModelError, match=r"trained on tiny/sd15 \(sd\).*family sdxl"):
        lora.load_adapter(DiffusionModel.from_pipeline(tiny_pipeline("sdxl")), tmp_path / "run")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / lora.WEIGHTS_NAME).write_bytes((tmp_path / "run" / "final" / lora.WEIGHTS_NAME).read_bytes())
    with pytest.raises(ModelError, match="does not fit"):
        lora.load_adapter(DiffusionModel.from_pipeline(tiny_pipeline("sdxl")), tmp_path / "bare")
    with pytest.raises(ModelError, match="no LoRA in"):
        lora.lora_file(tmp_path / "nowhere")
    (tmp_path / "x.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="only safetensors"):
        lora.lora_file(tmp_path / "x.bin")
