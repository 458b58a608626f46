"""Interpolation of weights: the ends bit for bit, products and not factors, folders that load everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.tiny import FAMILIES, save_tiny, tiny_pipeline
from helpers.user_adapters import with_adapter
from t2ialign.cli.main import main
from t2ialign.errors import ModelError
from t2ialign.models import lora
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.models.export import export_kohya, read_lora
from t2ialign.models.interpolate import NOTE_NAME, interpolate
from t2ialign.models.loading import load_model
from t2ialign.models.record import read_record
from t2ialign.models.saving import save_pipeline
from t2ialign.models.user_adapter import save_user_adapter


def saved_lora(
    folder: Path, base: Path, seed: int, rank: int = 4, alpha: float = 6.0, targets: Any = lora.TARGETS
) -> Path:
    """A LoRA of a tiny model, as a run leaves it."""
    model = load_model(base)
    generator = torch.Generator().manual_seed(seed + 100)
    for name, parameter in lora.add_lora(model.unet, rank, alpha, targets, seed=seed).items():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    lora.save_lora(model, folder, algorithm="dpo")
    return folder


def deltas(folder: Path) -> dict[str, torch.Tensor]:
    """The update of every module, by the definition."""
    pairs, alphas = halves(folder)
    return {
        name: alphas[name] / down.shape[0] * (up.double().flatten(1) @ down.double().flatten(1)).cpu()
        for name, (down, up) in pairs.items()
    }


def halves(folder: Path) -> Any:
    """A and B of every module, and alphas."""
    record = read_record(folder)
    assert record is not None
    return read_lora(lora.lora_file(folder), record)


def predict(model: DiffusionModel) -> torch.Tensor:
    latents = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model.predict(latents, torch.tensor([500]), model.encode_prompts(["a"]))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_tiny(tmp_path)


@pytest.fixture
def ends(tmp_path: Path, base: Path) -> tuple[Path, Path]:
    """Two LoRAs of other ranks and scales."""
    return saved_lora(tmp_path / "a", base, 0), saved_lora(tmp_path / "b", base, 1, rank=2, alpha=1.0)


def test_the_ends_are_the_loras_bit_for_bit(tmp_path: Path, ends: tuple[Path, Path]) -> None:
    for weight, end in zip((0.0, 1.0), ends, strict=True):
        found = interpolate(*ends, weight, tmp_path / f"w{weight}")
        assert (found / lora.WEIGHTS_NAME).read_bytes() == (end / lora.WEIGHTS_NAME).read_bytes()
        assert torch.equal(predict(load_model(found)), predict(load_model(end)))


@pytest.mark.parametrize("weight", [0.5, 0.25, 1.5, -0.5])
def test_the_update_is_the_weighted_sum_of_the_updates(tmp_path: Path, ends: tuple[Path, Path], weight: float) -> None:
    one, two, found = (deltas(each) for each in (*ends, interpolate(*ends, weight, tmp_path / "between")))
    assert found.keys() == one.keys() == two.keys()
    for name, delta in found.items():
        torch.testing.assert_close(delta, (1 - weight) * one[name] + weight * two[name], rtol=1e-6, atol=1e-7)
    factors = [halves(each) for each in ends]
    assert factors[0][1] != factors[1][1], "the two have different alphas, or the test shows little"


def test_it_is_no_mean_of_factors(tmp_path: Path, base: Path) -> None:
    ends = saved_lora(tmp_path / "c", base, 0), saved_lora(tmp_path / "d", base, 1)
    found = deltas(interpolate(*ends, 0.5, tmp_path / "between"))
    parts = [halves(each)[0] for each in ends]
    name = next(iter(found))
    down, up = ((parts[0][name][side] + parts[1][name][side]).double() / 2 for side in (0, 1))
    assert (found[name] - 1.5 * up @ down).abs().max() > 0.1 * found[name].abs().max()


@pytest.mark.parametrize("family", FAMILIES)
def test_ours_and_plain_diffusers_draw_the_same_with_it(tmp_path: Path, family: str) -> None:
    base = save_tiny(tmp_path, family)
    ends = saved_lora(tmp_path / "a", base, 0), saved_lora(tmp_path / "b", base, 1, rank=2)
    found = interpolate(*ends, 0.5, tmp_path / "between")
    stacked = load_model(base)
    for end in ends:
        lora.load_adapter(stacked, end, 0.5)
    expected = predict(stacked)
    assert (expected - predict(load_model(base))).abs().max() > 1e-2
    torch.testing.assert_close(predict(load_model(found)), expected, rtol=1e-4, atol=1e-5)
    plain = tiny_pipeline(family)
    plain.load_lora_weights(str(found))
    torch.testing.assert_close(predict(DiffusionModel.from_pipeline(plain)), expected, rtol=1e-4, atol=1e-5)
    kohya = tiny_pipeline(family)
    kohya.load_lora_weights(str(export_kohya(found, tmp_path / "k.safetensors")))
    torch.testing.assert_close(predict(DiffusionModel.from_pipeline(kohya)), expected, rtol=1e-4, atol=1e-5)


def test_loras_on_other_modules_are_filled_up(tmp_path: Path, base: Path) -> None:
    ends = (
        saved_lora(tmp_path / "a", base, 0, targets=("to_q", "proj_in")),
        saved_lora(tmp_path / "b", base, 1, rank=3, targets=("to_v", "proj_in")),
    )
    found = interpolate(*ends, 0.25, tmp_path / "between")
    one, two, between = (deltas(each) for each in (*ends, found))
    assert between.keys() == {*one, *two}
    for name, delta in between.items():
        expected = 0.75 * one.get(name, torch.zeros_like(delta)) + 0.25 * two.get(name, torch.zeros_like(delta))
        torch.testing.assert_close(delta, expected, rtol=1e-6, atol=1e-7)
    stacked = load_model(base)
    for end, share in zip(ends, (0.75, 0.25), strict=True):
        lora.load_adapter(stacked, end, share)
    torch.testing.assert_close(predict(load_model(found)), predict(stacked), rtol=1e-4, atol=1e-5)
    record = read_record(found)
    assert record is not None
    assert (record.rank, record.alpha, set(record.targets)) == (7, 7.0, {"to_q", "to_v", "proj_in"})


def test_the_folder_tells_what_it_is(tmp_path: Path, ends: tuple[Path, Path]) -> None:
    found = interpolate(*ends, 0.5, tmp_path / "between")
    record = read_record(found)
    assert record is not None
    assert (record.kind, record.algorithm, record.rank, record.alpha) == ("lora", "interpolation", 6, 6.0)
    note = json.loads((found / NOTE_NAME).read_text())
    assert (note["weight"], note["kind"], len(note["first_sha256"])) == (0.5, "lora", 64)
    card = (found / "README.md").read_text()
    assert "weight 0.5" in card
    for name in ("README.md", NOTE_NAME):
        assert str(tmp_path) not in (found / name).read_text()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def changed(base: Path, folder: Path, seed: int) -> Path:
    """A full fine-tune: every UNet weight moved."""
    model = load_model(base)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.unet.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return save_pipeline(model, folder, algorithm="sft")


def test_whole_models_are_interpolated_weight_by_weight(tmp_path: Path, base: Path) -> None:
    ends = changed(base, tmp_path / "a", 0), changed(base, tmp_path / "b", 1)
    one, two = (load_model(end).unet.state_dict() for end in ends)
    for weight in (0.0, 1.0, 0.5, 0.3):
        model = load_model(interpolate(*ends, weight, tmp_path / f"w{weight}"))
        for name, value in model.unet.state_dict().items():
            expected = (1 - weight) * one[name].double() + weight * two[name].double()
            if weight in (0, 1):
                assert torch.equal(value, (one, two)[int(weight)][name])
            else:
                torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-6)
        for name, value in load_model(base).vae.state_dict().items():
            assert torch.equal(model.vae.state_dict()[name], value)
    record = read_record(tmp_path / "w0.5")
    assert record is not None
    assert (record.kind, record.algorithm) == ("full", "interpolation")


def test_a_base_and_its_lora_give_a_whole_model_at_half_the_update(tmp_path: Path, base: Path) -> None:
    tuned = saved_lora(tmp_path / "a", base, 0)
    half = load_model(base)
    lora.load_adapter(half, tuned, 0.5)
    found = load_model(interpolate(base, tuned, 0.5, tmp_path / "half"))
    torch.testing.assert_close(predict(found), predict(half), rtol=1e-4, atol=1e-5)


def test_a_second_call_does_nothing_and_another_one_is_refused(tmp_path: Path, ends: tuple[Path, Path]) -> None:
    found = interpolate(*ends, 0.5, tmp_path / "between")
    before = {path.name: path.stat().st_mtime_ns for path in found.iterdir()}
    interpolate(*ends, 0.5, found)
    assert {path.name: path.stat().st_mtime_ns for path in found.iterdir()} == before
    with pytest.raises(ModelError, match=r"weight 0\.5, now 0\.6"):
        interpolate(*ends, 0.6, found)
    with pytest.raises(ModelError, match="holds something else"):
        interpolate(*ends, 0.5, ends[0])
    assert (ends[0] / lora.WEIGHTS_NAME).is_file()


def test_what_does_not_belong_together_is_refused(tmp_path: Path, base: Path, ends: tuple[Path, Path]) -> None:
    other = saved_lora(tmp_path / "xl", save_tiny(tmp_path, "sdxl"), 0)
    with pytest.raises(ModelError, match=r"different bases \(family 'sd' and 'sdxl'\)"):
        interpolate(ends[0], other, 0.5, tmp_path / "x")
    with pytest.raises(ModelError, match="differ in family"):
        interpolate(base, tmp_path / "tiny-sdxl", 0.5, tmp_path / "x")
    user = tmp_path / "user"
    save_user_adapter(with_adapter("sd15"), user)
    with pytest.raises(ModelError, match="is a user adapter"):
        interpolate(user, ends[0], 0.5, tmp_path / "x")
    with pytest.raises(ValueError, match=r"weight is 2\.5"):
        interpolate(*ends, 2.5, tmp_path / "x")
    with pytest.raises(ModelError, match="no such folder"):
        interpolate("nowhere", ends[0], 0.5, tmp_path / "x")
    assert not (tmp_path / "x").exists()
    assert not list(tmp_path.glob(".*.part"))


def test_the_command(tmp_path: Path, ends: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["interpolate", *map(str, ends), "--output_dir", str(tmp_path / "between")]
    assert main([*words, "--weights", "0.25,0.5"]) == 0
    for name in ("w0.25", "w0.50"):
        assert read_record(tmp_path / "between" / name / "final") is not None
        assert name in capsys.readouterr().out or name == "w0.50"
    assert main([*words, "--weights", "3"]) == 2
    assert main([*words, "--weights", "0.5,0.5"]) == 2


def test_the_ends_are_kept_to_the_bit_whole_numbers_too() -> None:
    from t2ialign.models.interpolate import _blend

    for weight, steps in ((0.0, 3), (1.0, 8)):
        one, two = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
        for part, count in ((one, 3), (two, 8)):
            part.load_state_dict(part.state_dict() | {"num_batches_tracked": torch.tensor(count)})
        torch.nn.init.normal_(two.weight)
        wanted = {key: value.clone() for key, value in (one if weight == 0 else two).state_dict().items()}
        _blend(one, two, weight, "part")
        assert one.state_dict()["num_batches_tracked"].item() == steps
        assert all(torch.equal(value, wanted[key]) for key, value in one.state_dict().items())
