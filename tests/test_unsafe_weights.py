"""Weights with code in them never run, at any door; damaged ones are refused by name."""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.clip import save_clip, save_head, save_mps, save_open_clip
from helpers.nasty import Marker, evil_pickle
from helpers.official_blip import save_imagereward
from helpers.tiny import save_tiny
from helpers.toy_task import ToyTask, toy_config
from helpers.training import tiny_model
from helpers.user_adapters import user_file, user_run
from t2ialign.engine.checkpoints import describe, read_checkpoint
from t2ialign.engine.loop import fit
from t2ialign.engine.processes import make_accelerator
from t2ialign.errors import ModelError, T2IAlignError
from t2ialign.models.loading import load_model
from t2ialign.models.lora import add_lora, load_adapter, save_lora
from t2ialign.models.user_adapter import load_user_adapter
from t2ialign.models.weights import check_finite, check_lora, check_present
from t2ialign.reward_models.registry import load_scorer
from t2ialign.users.files import load_user

Door = Callable[[Path], Any]
"""Given a file with code in it, opens it as a user would."""


class Shop:
    """Real files of every kind, made once; `with_evil` puts a pickle in place of one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model = save_tiny(root / "model")
        self.clip = save_clip(root / "clip")
        self.open_clip = save_open_clip(root / "open-clip")
        self.head = save_head(root / "head")
        self.mps = save_mps(root / "mps")
        self.blip, _ = save_imagereward(root / "blip")
        self.lora = root / "lora"
        policy = tiny_model()
        add_lora(policy.unet, 2)
        save_lora(policy, self.lora)
        user_run(self.model, root / "adapter")
        self.adapter = root / "adapter"
        self.user = user_file(root / "user.safetensors")

    def copy(self, folder: Path, to: Path) -> Path:
        shutil.copytree(folder, to, dirs_exist_ok=True)
        return to


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"))


def replaced(folder: Path, names: tuple[str, ...], data: bytes, *, remove: str = "") -> Path:
    """Write `data` under some names of a folder, after removing what fits a pattern."""
    for path in folder.rglob(remove) if remove else ():
        path.unlink()
    for name in names:
        (folder / name).write_bytes(data)
    return folder


PICKLES = ("pytorch_model.bin", "model.bin", "diffusion_pytorch_model.bin")
ALL = "*.safetensors"


def _single(suffix: str) -> Callable[[Shop, Path, bytes], Any]:
    def call(shop: Shop, here: Path, data: bytes) -> Any:
        (here / f"model{suffix}").write_bytes(data)
        return load_model(here / f"model{suffix}")

    return call


def _pipeline(part: str, *, beside: bool) -> Callable[[Shop, Path, bytes], Any]:
    def call(shop: Shop, here: Path, data: bytes) -> Any:
        folder = shop.copy(shop.model, here / "model")
        replaced(folder / part, PICKLES, data, remove="" if beside else ALL)
        return load_model(folder)

    return call


def _adapter(name: str, load: Callable[..., Any]) -> Callable[[Shop, Path, bytes], Any]:
    def call(shop: Shop, here: Path, data: bytes) -> Any:
        (here / name).write_bytes(data)
        for given in (here / name, here):
            try:
                load(tiny_model(), given)
            except T2IAlignError as error:
                said = error
        raise said

    return call


def _scorer(spec: str, folder: str, *names: str, remove: str = "") -> Callable[[Shop, Path, bytes], Any]:
    def call(shop: Shop, here: Path, data: bytes) -> Any:
        made = getattr(shop, folder)
        copied = shop.copy(made if made.is_dir() else made.parent, here / "scorer")
        replaced(copied, names, data, remove=remove)
        return load_scorer(spec.format(here=copied, clip=shop.clip), device="cpu")

    return call


def _user(shop: Shop, here: Path, data: bytes) -> Any:
    (here / "user.safetensors").write_bytes(data)
    return load_user(here / "user.safetensors")


def _inception(shop: Shop, here: Path, data: bytes) -> Any:
    from t2ialign.eval.fidelity.inception import InceptionFeatures

    (here / "inception.pth").write_bytes(data)
    return InceptionFeatures(here / "inception.pth", device="cpu")


def _clip_users(shop: Shop, here: Path, data: bytes) -> Any:
    from t2ialign.users.clip import ClipExtractor

    return ClipExtractor(str(replaced(shop.copy(shop.clip, here / "c"), PICKLES, data, remove=ALL)), device="cpu")


def _detector(shop: Shop, here: Path, data: bytes) -> Any:
    from t2ialign.eval.composition.detectors import ZeroShotDetector

    folder = shop.copy(shop.clip, here / "d")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "owlv2"}))
    return ZeroShotDetector.load(str(replaced(folder, PICKLES, data, remove=ALL)))


def _checkpoint(shop: Shop, here: Path, data: bytes) -> Any:
    fit(ToyTask(), toy_config(here / "run", steps=1, checkpoint_every=1), make_accelerator(toy_config(here / "run")))
    folder = here / "run/checkpoints/step-000001"
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["files"]:
        if name.endswith(".safetensors"):
            (folder / name).write_bytes(data)
            manifest["files"][name] = describe(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return read_checkpoint(folder)


def _reward_head(shop: Shop, here: Path, data: bytes) -> Any:
    folder = shop.copy(shop.clip, here / "head")
    (folder / "head.json").write_text(json.dumps({"kind": "aspects", "groups": ["a"], "features": 16}))
    replaced(folder, ("head.safetensors",), data)
    return load_scorer(f"preference@{folder}", device="cpu")


DOORS: dict[str, Callable[[Shop, Path, bytes], Any]] = {
    **{f"a checkpoint {suffix}": _single(suffix) for suffix in (".ckpt", ".pt", ".pth", ".bin", ".safetensors")},
    "a pipeline's unet": _pipeline("unet", beside=False),
    "a pipeline's vae": _pipeline("vae", beside=False),
    "a pipeline's text encoder": _pipeline("text_encoder", beside=False),
    "a lora .safetensors": _adapter("pytorch_lora_weights.safetensors", load_adapter),
    "a lora .bin": _adapter("pytorch_lora_weights.bin", load_adapter),
    "a user adapter": _adapter("user_adapter.safetensors", load_user_adapter),
    "a user's file": _user,
    "clipscore's folder": _scorer("clipscore@{here}", "clip", *PICKLES, remove=ALL),
    "pickscore's folder": _scorer("pickscore@{here}", "clip", *PICKLES, remove=ALL),
    "clipscore's file": _scorer("clipscore@{here}/model.pt", "clip", "model.pt", remove=ALL),
    "open_clip's folder": _scorer("clipscore@{here}", "open_clip", "open_clip_pytorch_model.bin", remove=ALL),
    "open_clip's file": _scorer("clipscore@ViT-B-32/{here}/weights.pt", "open_clip", "weights.pt"),
    "hpsv2's file": _scorer("hpsv2.1@{here}/HPS.pt", "open_clip", "HPS.pt"),
    "the aesthetic layers": _scorer("aesthetic@{here}/layers.pth?clip={clip}", "head", "layers.pth"),
    "mps": _scorer("mps@{here}/mps.pth", "mps", "mps.pth", remove=ALL),
    "imagereward": _scorer("imagereward@{here}", "blip", "ImageReward.pt"),
    "a reward's head": _reward_head,
    "a user's extractor": _clip_users,
    "a detector": _detector,
    "inception": _inception,
    "the optimizer of a checkpoint": _checkpoint,
}


def raw(marker: Path) -> bytes:
    return evil_pickle(marker)


def zipped(marker: Path) -> bytes:
    """As `torch.save` writes it, beside a tensor."""
    import io

    buffer = io.BytesIO()
    torch.save({"state_dict": {"weight": torch.zeros(1)}, "more": Marker(marker)}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", [raw, pytest.param(zipped, marks=pytest.mark.slow)])
@pytest.mark.parametrize("door", DOORS)
def test_code_in_weights_never_runs(door: str, kind: Callable[[Path], bytes], shop: Shop, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    with pytest.raises(T2IAlignError) as caught:
        DOORS[door](shop, tmp_path, kind(marker))
    assert not marker.exists()
    assert len(str(caught.value)) < 800
    assert "weights_only=False" not in str(caught.value), "no advice to run it"


def test_the_pickles_do_run_where_they_are_let(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    pickle.loads(raw(marker))
    assert marker.exists()
    marker.unlink()
    (tmp_path / "a.pt").write_bytes(zipped(marker))
    torch.load(tmp_path / "a.pt", weights_only=False)
    assert marker.exists()


def test_a_pickle_beside_safetensors_is_not_looked_at(shop: Shop, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for part in ("unet", "vae", "text_encoder"):
        _pipeline(part, beside=True)(shop, tmp_path / part, raw(marker))
    _scorer("clipscore@{here}", "clip", *PICKLES)(shop, tmp_path, raw(marker))
    assert not marker.exists()


def test_a_pipeline_with_code_of_its_own_is_refused(shop: Shop, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    run = f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n"
    code = run + "from diffusers import UNet2DConditionModel as Evil\n"
    folder = shop.copy(shop.model, tmp_path / "model")
    for place in (folder, folder / "unet", folder / "text_encoder"):
        (place / "evil.py").write_text(code)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"unet": ["evil", "Evil"]}))
    with pytest.raises(T2IAlignError, match="takes its unet from 'evil', code of its own, which is never run"):
        load_model(folder)
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": ["evil", "Evil"]}))
    with pytest.raises(T2IAlignError, match="t2ialign works with"):
        load_model(folder)
    (folder / "model_index.json").write_text(json.dumps(index))
    config = json.loads((folder / "text_encoder/config.json").read_text())
    automatic = {"auto_map": {name: "evil.Evil" for name in ("AutoConfig", "AutoModel")}}
    (folder / "text_encoder/config.json").write_text(json.dumps(config | automatic))
    load_model(folder)
    assert not marker.exists()


def test_a_scorer_with_code_of_its_own_is_not_asked_about(shop: Shop, tmp_path: Path) -> None:
    """transformers would ask at the terminal whether to run it."""
    folder = shop.copy(shop.clip, tmp_path / "clip")
    marker = tmp_path / "marker"
    (folder / "evil.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n")
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            content = json.loads((folder / name).read_text())
            kinds = ("AutoConfig", "AutoModel", "AutoTokenizer", "AutoImageProcessor", "AutoProcessor")
            content |= {"auto_map": {kind: "evil.Evil" for kind in kinds}}
            (folder / name).write_text(json.dumps(content))
    with contextlib.suppress(T2IAlignError):
        load_scorer(f"clipscore@{folder}", device="cpu")
    assert not marker.exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def long_header(path: Path) -> None:
    path.write_bytes((1 << 62).to_bytes(8, "little") + b"{}")


def header_of_another(path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def wrong_shape(path: Path) -> None:
    _change(path, lambda name, value: torch.zeros(*(side + 1 for side in value.shape)))


def missing(path: Path) -> None:
    state = load_file(path)
    state.pop(sorted(state)[0])
    save_file(state, path, metadata=_metadata(path))


def unknown(path: Path) -> None:
    _rename(path, lambda name: f"unknown.{name}")


def not_finite(path: Path) -> None:
    _change(path, lambda name, value: torch.full_like(value, float("nan")))


def _metadata(path: Path) -> dict[str, str] | None:
    from safetensors import safe_open

    with safe_open(path, "pt") as opened:
        return dict(opened.metadata() or {}) or None


def _change(path: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
    state, about = load_file(path), _metadata(path)
    last = sorted(name for name, value in state.items() if value.is_floating_point())[-1]
    state[last] = change(last, state[last]).contiguous()
    save_file(state, path, metadata=about)


def _rename(path: Path, change: Callable[[str], str]) -> None:
    state, about = load_file(path), _metadata(path)
    save_file({change(name): value for name, value in state.items()}, path, metadata=about)


DAMAGE = (cut, long_header, header_of_another, wrong_shape, missing, unknown, not_finite)


def _damaged_lora(shop: Shop, here: Path, damage: Callable[[Path], None]) -> None:
    folder = shop.copy(shop.lora, here / "lora")
    damage(folder / "pytorch_lora_weights.safetensors")
    load_adapter(tiny_model(), folder)


def _damaged_user_adapter(shop: Shop, here: Path, damage: Callable[[Path], None]) -> None:
    folder = shop.copy(shop.adapter, here / "adapter")
    damage(folder / "user_adapter.safetensors")
    load_user_adapter(tiny_model(), folder)


def _damaged_user(shop: Shop, here: Path, damage: Callable[[Path], None]) -> None:
    shutil.copy(shop.user, here / "user.safetensors")
    damage(here / "user.safetensors")
    load_user(here / "user.safetensors")


def _damaged_model(shop: Shop, here: Path, damage: Callable[[Path], None]) -> None:
    folder = shop.copy(shop.model, here / "model")
    damage(folder / "unet/diffusion_pytorch_model.safetensors")
    load_model(folder)


def _damaged_scorer(shop: Shop, here: Path, damage: Callable[[Path], None]) -> None:
    folder = shop.copy(shop.clip, here / "clip")
    damage(folder / "model.safetensors")
    load_scorer(f"clipscore@{folder}", device="cpu")


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    "door", [_damaged_lora, _damaged_user_adapter, _damaged_user, _damaged_model, _damaged_scorer]
)
def test_damaged_weights_are_refused_by_name(
    door: Callable[..., None], damage: Callable[[Path], None], shop: Shop, tmp_path: Path
) -> None:
    with pytest.raises(T2IAlignError) as caught:
        door(shop, tmp_path, damage)
    assert str(tmp_path) in str(caught.value)


def test_adapters_of_another_kind_are_refused(shop: Shop, tmp_path: Path) -> None:
    """Of another family, with and without the record that says so, and of another rank on either side."""
    with pytest.raises(T2IAlignError, match=r"\(sd\) but the model 'tiny' is of the family sdxl"):
        load_adapter(tiny_model("sdxl"), shop.lora)
    bare = shutil.copy(shop.lora / "pytorch_lora_weights.safetensors", tmp_path / "bare.safetensors")
    with pytest.raises(T2IAlignError, match="does not fit the model 'tiny'"):
        load_adapter(tiny_model("sdxl"), bare)
    with pytest.raises(T2IAlignError, match="is of the family"):
        load_user_adapter(tiny_model("sdxl"), shop.adapter)
    model = tiny_model()
    before = {name: value.clone() for name, value in model.unet.state_dict().items()}
    state = load_file(bare)
    name = next(name for name in sorted(state) if "down" in name or "lora_A" in name)
    state[name] = torch.zeros(5, state[name].shape[1])
    save_file(state, tmp_path / "ranks.safetensors")
    with pytest.raises(T2IAlignError, match="have the ranks 5 and 2"):
        load_adapter(model, tmp_path / "ranks.safetensors")
    after = {name.replace(".base_layer", ""): value for name, value in model.unet.state_dict().items()}
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize("encoder", ["text_encoder", "text_encoder_2"])
def test_each_weight_that_is_missing_is_found(tmp_path: Path, encoder: str) -> None:
    folder = save_tiny(tmp_path / "tiny", "sdxl") / encoder
    module = getattr(tiny_model("sdxl").pipeline, encoder)
    (file,) = folder.glob("*.safetensors")
    whole = load_file(file)
    check_present(folder, module, "tiny")
    for name in whole:
        save_file({key: tensor for key, tensor in whole.items() if key != name}, file, {"format": "pt"})
        with pytest.raises(ModelError, match="lacks 1 weights"):
            check_present(folder, module, "tiny")


def test_eight_bit_floats_and_a_bias_on_one_half_are_no_fault() -> None:
    check_finite({"w": torch.ones(3).to(torch.float8_e4m3fn)}, "file")
    shapes = {"x.lora_A.weight": (2, 8), "x.lora_B.weight": (8, 2), "x.lora_B.bias": (8,)}
    check_lora(shapes, shapes, "file")
    with pytest.raises(ModelError, match="one of its two halves"):
        check_lora(["x.lora_A.weight"], shapes, "file")
