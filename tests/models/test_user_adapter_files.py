"""A user adapter's file: read back as it was written, and refused by name where it is not what it should be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers.tiny import FAMILIES, save_tiny, tiny_pipeline
from helpers.user_adapters import EXTRACTOR, TOKENS, WIDTH, user_run, users, with_adapter
from t2ialign.errors import ModelError
from t2ialign.models import lora
from t2ialign.models import user_adapter as adapters
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.models.loading import load_model
from t2ialign.models.record import read_record

TIMES = torch.tensor([10, 900])


def noisy(seed: int = 1) -> Tensor:
    return torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(seed))


def predict(model: DiffusionModel, user: Tensor | None, unet: Any = None) -> Tensor:
    return model.predict(noisy(), TIMES, model.encode_prompts(["a", "b"]).with_user(user), unet=unet)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_saving_and_loading(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = with_adapter(family, name="owner/model")
    path = adapters.save_user_adapter(model, tmp_path / "final", algorithm="ppd")
    assert path == tmp_path / "final" / "user_adapter.safetensors"
    assert sorted(file.name for file in path.parent.iterdir()) == ["t2ialign.json", "user_adapter.safetensors"]
    own = {name: part.detach() for name, part in adapters.user_parameters(model.unet).items()}
    saved = load_file(path)
    assert saved.keys() == own.keys()
    assert all(torch.equal(saved[name], own[name]) and saved[name].dtype == torch.float32 for name in own)
    with safe_open(path, framework="pt") as opened:
        assert opened.metadata()["format"] == "t2ialign user adapter 1"
        assert json.loads(opened.metadata()["user_adapter"]) == {
            "width": WIDTH,
            "tokens": TOKENS,
            "extractor": EXTRACTOR,
        }
    record = read_record(path.parent)
    assert record is not None
    assert (record.kind, record.base_model, record.algorithm) == ("user_adapter", "owner/model", "ppd")
    assert (record.user_width, record.user_token_count, record.user_extractor) == (WIDTH, TOKENS, EXTRACTOR)
    expected = predict(model, users(2))
    adapters.remove_user_adapter(model.unet)
    model.to(dtype=dtype)
    projection = adapters.load_user_adapter(model, tmp_path)
    assert (projection.in_features, projection.tokens, projection.extractor) == (WIDTH, TOKENS, EXTRACTOR)
    assert not any(part.requires_grad for part in model.unet.parameters())
    assert {part.dtype for part in model.unet.parameters()} == {dtype}
    again = predict(model, users(2))
    assert torch.equal(again, expected) if dtype == torch.float32 else (again - expected).abs().max() < 0.3


def test_a_run_is_a_model(tmp_path: Path) -> None:
    base = save_tiny(tmp_path)
    run = user_run(base, tmp_path / "run" / "final")
    model = load_model(tmp_path / "run" / "final")
    assert model.name == str(tmp_path / "run" / "final")
    assert torch.allclose(predict(model, users(2)), predict(run, users(2)), atol=1e-6)
    assert torch.allclose(predict(model, None), predict(load_model(base), None), atol=1e-6)
    assert not any(part.requires_grad for part in model.unet.parameters())
    assert not model.unet.training
    # Saved once more it still names the base, so that it can be loaded.
    adapters.save_user_adapter(model, tmp_path / "copy")
    record = read_record(tmp_path / "copy")
    assert record is not None
    assert record.base_model == str(base)
    half = load_model(tmp_path / "copy", dtype=torch.bfloat16)
    assert {part.dtype for part in half.unet.parameters()} == {torch.bfloat16}


def test_what_does_not_fit_is_refused_and_leaves_the_model(tmp_path: Path) -> None:
    adapters.save_user_adapter(with_adapter(name="owner/model"), tmp_path / "final")
    other = DiffusionModel.from_pipeline(tiny_pipeline("sdxl"))
    with pytest.raises(ModelError, match=r"trained on owner/model \(sd\).*family sdxl"):
        adapters.load_user_adapter(other, tmp_path / "final")
    (tmp_path / "final" / "t2ialign.json").unlink()
    with pytest.raises(ModelError, match=r"does not fit.*absent in the model"):
        adapters.load_user_adapter(other, tmp_path / "final")
    assert adapters.installed(other.unet) is None
    assert not [name for name, _ in other.unet.named_parameters() if "user" in name]
    model = with_adapter()
    with pytest.raises(ModelError, match="has a user adapter already"):
        adapters.load_user_adapter(model, tmp_path / "final")
    with pytest.raises(ModelError, match="no user adapter in"):
        adapters.load_user_adapter(other, tmp_path / "elsewhere")
    assert torch.isfinite(predict(other, None)).all()


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = adapters.save_user_adapter(with_adapter(), tmp_path)
    content = path.read_bytes()
    model = DiffusionModel.from_pipeline(tiny_pipeline("sd15"))
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match=r"user_adapter\.safetensors is damaged"):
        adapters.load_user_adapter(model, tmp_path)
    save_file(load_file_of(content), path, metadata={"format": "t2ialign user adapter 2"})
    with pytest.raises(ModelError, match="'t2ialign user adapter 2', this version reads"):
        adapters.load_user_adapter(model, tmp_path)
    save_file(load_file_of(content), path, metadata={"format": adapters.FORMAT, "user_adapter": "{}"})
    with pytest.raises(ModelError, match="is damaged"):
        adapters.load_user_adapter(model, tmp_path)
    assert adapters.installed(model.unet) is None


def load_file_of(content: bytes) -> dict[str, Tensor]:
    from safetensors.torch import load

    tensors: dict[str, Tensor] = load(content)
    return tensors


def test_finding_the_file(tmp_path: Path) -> None:
    run = tmp_path / "run"
    path = adapters.save_user_adapter(with_adapter(), run / "final")
    renamed = path.rename(path.with_name("mine.safetensors"))
    assert adapters.find_user_adapter(run) is None
    assert adapters.find_user_adapter(renamed) == renamed
    renamed.rename(path)
    assert adapters.find_user_adapter(run) == adapters.find_user_adapter(run / "final") == path
    tuned = DiffusionModel.from_pipeline(tiny_pipeline("sd15"))
    lora.add_lora(tuned.unet, 2)
    assert adapters.find_user_adapter(lora.save_lora(tuned, tmp_path / "lora")) is None
    assert adapters.find_user_adapter(tmp_path / "lora") is None
    assert adapters.find_user_adapter(tmp_path / "nothing") is None
