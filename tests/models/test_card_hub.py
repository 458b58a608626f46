"""The model card, and the folder that a push uploads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from helpers.tiny import save_tiny, tiny_pipeline
from helpers.user_adapters import user_file, user_run, with_adapter
from t2ialign.config import parse_arguments
from t2ialign.errors import ModelError
from t2ialign.generation.options import GenerateOptions
from t2ialign.models import hub, lora
from t2ialign.models.card import write_card
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.models.loading import load_model
from t2ialign.models.record import read_record
from t2ialign.models.saving import save_pipeline
from t2ialign.models.user_adapter import save_user_adapter


def lora_final(folder: Path, name: str = "owner/model", revision: str | None = None, family: str = "sd15") -> Path:
    model = DiffusionModel.from_pipeline(tiny_pipeline(family), name, revision)
    lora.add_lora(model.unet, 4, 6.0)
    lora.save_lora(model, folder, algorithm="dpo")
    return folder


def front_matter(card: Path) -> tuple[dict[str, Any], str]:
    _, front, text = card.read_text(encoding="utf-8").split("---\n", 2)
    content: dict[str, Any] = yaml.safe_load(front)
    return content, text


def test_card_of_a_lora(tmp_path: Path) -> None:
    final = lora_final(tmp_path / "final", revision="abc")
    summary = {"steps": 200, "loss": 0.123456789, "eval": {"win_rate": 0.61}, "hub_token": "hf_secret", "list": [1]}
    card = write_card(final, summary=summary, settings={"output_dir": "/home/ada/runs/1"}, pairs="owner/pairs")
    front, text = front_matter(card)
    assert front["base_model"] == "owner/model"
    assert front["base_model_relation"] == "adapter"
    assert front["library_name"] == "diffusers"
    assert front["datasets"] == ["owner/pairs"]
    assert {"lora", "dpo", "text-to-image", "t2ialign"} <= set(front["tags"])
    assert "license" not in front
    assert "rank 4, alpha 6" in text
    assert 'from_pretrained("owner/model", revision="abc"' in text
    assert "| loss | 0.123457 |" in text
    assert "| eval.win_rate | 0.61 |" in text
    assert "| output_dir | 1 |" in text
    for forbidden in ("hf_secret", "hub_token", "/home/ada", "list"):
        assert forbidden not in text


def test_card_of_a_local_base_names_no_path(tmp_path: Path) -> None:
    base = save_tiny(tmp_path, "sdxl")
    model = load_model(base)
    final = save_pipeline(model, tmp_path / "final", algorithm="dpo")
    card = write_card(final, pairs=str(tmp_path / "my pairs"), license="openrail++", title="Mine | yours")
    front, text = front_matter(card)
    assert "base_model" not in front
    assert "datasets" not in front
    assert front["license"] == "openrail++"
    assert "`tiny-sdxl` (a local folder" in text
    assert "`my pairs`" in text
    assert "StableDiffusionXLPipeline.from_pretrained" in text
    assert str(tmp_path) not in card.read_text()


def test_the_codes_of_a_card_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The card's own lines load the weights, with its placeholders filled in."""
    base = save_tiny(tmp_path)
    final = lora_final(tmp_path / "final", str(base))
    _, text = front_matter(write_card(final))
    code = text.split("```python\n")[1].split("```")[0].replace("path/to/this/folder", str(final))
    code = code.replace('"tiny-sd15"', f'"{base}"').replace("image = pipeline(", "image = (lambda *_: pipeline)(")
    scope: dict[str, Any] = {}
    exec(code.replace("(lambda *_: pipeline)", "draw"), {"draw": lambda _: _Drawn(), **scope}, scope)
    assert "default_0" in scope["pipeline"].unet.peft_config


def test_card_of_a_user_adapter(tmp_path: Path) -> None:
    model = with_adapter(name="owner/model")
    model.revision = "abc"
    save_user_adapter(model, tmp_path / "final", algorithm="ppd")
    card = write_card(tmp_path / "final", pairs="owner/pairs")
    front, text = front_matter(card)
    assert front["base_model"] == "owner/model"
    assert front["base_model_relation"] == "adapter"
    assert front["library_name"] == "t2ialign"
    assert {"user-adapter", "ppd", "t2ialign"} <= set(front["tags"])
    assert "lora" not in front["tags"]
    assert "A user adapter (for users of 3 tokens of width 6, made by tiny:1) made from `owner/model`" in text
    assert "--user alice.safetensors" in text
    assert "load_lora_weights" not in text
    assert hub.stage(tmp_path / "final", tmp_path / "stage") == [
        "README.md",
        "t2ialign.json",
        "user_adapter.safetensors",
    ]
    assert read_record(tmp_path / "stage") == read_record(tmp_path / "final")


def test_the_code_of_a_user_adapter_s_card_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user_run(save_tiny(tmp_path), tmp_path / "final")
    user_file(tmp_path / "alice.safetensors")
    _, text = front_matter(write_card(tmp_path / "final"))
    assert str(tmp_path) not in text
    code = text.split("```python\n")[1].split("```")[0].replace("path/to/this/folder", str(tmp_path / "final"))
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(code.replace("users=[alice]", "users=[alice], num_inference_steps=2"), scope)
    assert scope["image"].size == (64, 64)
    lines = text.split("```\n")[1].split("```")[0].replace("\\\n", " ").splitlines()
    for line in lines:
        words = line.split()
        assert words[:2] == ["t2ialign", "generate"]
        parse_arguments(GenerateOptions, words[2:], "t2ialign")
    assert len(lines) == 2


class _Drawn:
    images = (None,)


def test_card_needs_a_record(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no t2ialign\.json"):
        write_card(tmp_path)


def test_stage_is_what_can_be_published(tmp_path: Path) -> None:
    base = save_tiny(tmp_path)
    final = lora_final(tmp_path / "final", str(base))
    write_card(final)
    for name in ("optimizer.pt", "optimizer.bin", ".env", "t2ialign.json.tmp", ".cache/x.json", "training.log"):
        (final / name).parent.mkdir(exist_ok=True)
        (final / name).write_text("secret")
    (final / "link.json").symlink_to(base / "model_index.json")
    staged = hub.stage(final, tmp_path / "stage")
    assert staged == ["README.md", lora.WEIGHTS_NAME, "t2ialign.json"]
    assert sorted(path.name for path in (tmp_path / "stage").rglob("*")) == sorted(staged)
    for path in (tmp_path / "stage").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()
    assert str(base) in (final / "t2ialign.json").read_text()
    plain = tiny_pipeline("sd15")
    plain.load_lora_weights(str(tmp_path / "stage"))
    assert torch.is_tensor(plain.unet.conv_in.weight)


def test_stage_of_a_whole_pipeline_loads(tmp_path: Path) -> None:
    final = save_pipeline(load_model(save_tiny(tmp_path)), tmp_path / "final")
    write_card(final)
    hub.stage(final, tmp_path / "stage")
    assert load_model(tmp_path / "stage").family == "sd"
    for path in (tmp_path / "stage").rglob("*.json"):
        assert str(tmp_path) not in path.read_text()


def test_stage_refuses_an_unfinished_run(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no finished run"):
        hub.stage(lora_final(tmp_path / "final"), tmp_path / "stage")


def test_push_without_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = lora_final(tmp_path / "final")
    write_card(final)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with pytest.raises(ModelError, match=r"'owner/repo'.*hf auth login"):
        hub.push(final, "owner/repo")


def test_push_off_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = lora_final(tmp_path / "final")
    write_card(final)
    monkeypatch.setenv("HF_TOKEN", "hf_not_a_real_token_at_all")
    with pytest.raises(ModelError, match="cannot push to 'owner/repo'") as raised:
        hub.push(final, "owner/repo")
    assert "hf_not" not in str(raised.value)
