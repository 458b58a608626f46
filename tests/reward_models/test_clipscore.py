"""CLIPScore against a plain computation in which nothing of ours takes part, and its invariants."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.clip import IMAGE_SIZE, TINY_ARCHITECTURE, save_clip, save_open_clip
from helpers.zoo import KINDS, save_zoo, torchvision_pixels, transformers_pixels
from t2ialign.errors import ConfigError, DataError, ModelError
from t2ialign.reward_models.base import RewardModel
from t2ialign.reward_models.clipscore import DEFINITIONS, ClipScore

PROMPTS = ["a red circle", "a blue star", "something else entirely", "a red circle"]
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"), seed=2)  # whose cosines have both signs


@pytest.fixture(scope="module")
def open_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_open_clip(tmp_path_factory.mktemp("open-clip"))


def picture(seed: int, size: tuple[int, int] = (48, 40), mode: str = "RGB") -> Image.Image:
    """Coarse random colours, enlarged, so that resizing matters but does not average everything away."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(mode)


PICTURES = [picture(0), picture(1, (32, 32)), picture(2, (100, 35)), picture(3, (33, 70))]


def plain_pixels(
    image: Image.Image, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD, half: Any = math.floor
) -> torch.Tensor:
    """Shorter side to 32 by Pillow's bicubic, middle 32 x 32, [0, 1], mean and deviation.

    Where the middle falls on half a pixel, transformers rounds down, torchvision (open_clip) to even.
    """
    width, height = image.size
    short = min(width, height)
    width, height = (int(IMAGE_SIZE * side / short) for side in (width, height))
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = half((width - IMAGE_SIZE) / 2), half((height - IMAGE_SIZE) / 2)
    cropped = resized.crop((left, top, left + IMAGE_SIZE, top + IMAGE_SIZE))
    values = torch.from_numpy(np.asarray(cropped).copy()).permute(2, 0, 1).float() / 255
    return (values - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def plain_cosines(folder: Path, texts: list[str], images: list[Image.Image], half: Any = math.floor) -> list[float]:
    """One pair at a time, from the model's towers and projections, without any of its convenience methods."""
    from transformers import AutoTokenizer, CLIPModel

    model = CLIPModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    cosines = []
    for text, image in zip(texts, images, strict=True):
        ids = tokenizer(text)["input_ids"]
        ids = torch.tensor([[*ids[: min(len(ids), 77) - 1], ids[-1]]])
        with torch.no_grad():
            states = model.text_model(input_ids=ids)[0]
            words = model.text_projection(states[0, -1])
            classes = model.vision_model(pixel_values=plain_pixels(image, half=half)[None])[0][:, 0]
            sight = model.visual_projection(model.vision_model.post_layernorm(classes))[0]
        cosines.append(float(words @ sight / (words.norm() * sight.norm())))
    return cosines


@pytest.mark.parametrize(
    ("definition", "prefix", "formula"),
    [
        ("hessel", "A photo depicts ", lambda c: 2.5 * max(0.0, c)),
        ("torchmetrics", "", lambda c: 100 * c),
        ("cosine", "", lambda c: c),
        ("cosine100", "", lambda c: 100 * c),
    ],
)
def test_equals_a_plain_computation(folder: Path, definition: str, prefix: str, formula: Any) -> None:
    half = round if definition == "hessel" else math.floor
    cosines = plain_cosines(folder, [prefix + prompt for prompt in PROMPTS], PICTURES, half)
    assert min(cosines) < 0 < max(cosines), "the twin must see both signs, or the clamp is not tested"
    scores = ClipScore(str(folder), definition=definition, device="cpu").score(PROMPTS, PICTURES)
    assert scores.dtype == torch.float32
    scale = 100 if definition in ("torchmetrics", "cosine100") else 1
    assert scores.tolist() == pytest.approx([formula(c) for c in cosines], abs=1e-5 * scale)


@pytest.mark.parametrize("definition", ["hessel", "torchmetrics"])
def test_prepares_pictures_as_the_definition_s_own_code(folder: Path, definition: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, CLIPModel

    zoo = save_zoo(tmp_path)
    files = [zoo[kind] for kind in KINDS]
    official = torchvision_pixels if definition == "hessel" else transformers_pixels
    prefix, weight = ("A photo depicts ", 2.5) if definition == "hessel" else ("", 100.0)
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        sights = model.get_image_features(torch.stack([official(file, IMAGE_SIZE) for file in files])).pooler_output
        words = model.get_text_features(**tokenizer(prefix + "a star", return_tensors="pt")).pooler_output
        expected = weight * torch.nn.functional.cosine_similarity(sights, words)
    expected = expected.clamp(min=0) if definition == "hessel" else expected
    scores = ClipScore(str(folder), definition=definition, device="cpu").score(["a star"] * len(files), files)
    assert torch.allclose(scores, expected, atol=1e-5 * weight, rtol=0)


def test_open_clip_prepares_pictures_as_open_clip(open_folder: Path, tmp_path: Path) -> None:
    import open_clip

    zoo = save_zoo(tmp_path)
    files = [zoo[kind] for kind in KINDS]
    model, _, prepare = open_clip.create_model_and_transforms(f"local-dir:{open_folder}")
    model.eval()
    with torch.no_grad():
        sights = model.encode_image(torch.stack([prepare(Image.open(file)) for file in files]))
        words = model.encode_text(open_clip.SimpleTokenizer()(["a star"]))
        expected = torch.nn.functional.cosine_similarity(sights, words)
    scores = ClipScore(str(open_folder), definition="cosine", device="cpu").score(["a star"] * len(files), files)
    assert torch.allclose(scores, expected, atol=1e-5, rtol=0)


def test_aggregates_by_definition(folder: Path) -> None:
    values = [-3.0, 1.0]
    assert ClipScore(str(folder), definition="torchmetrics").aggregate(values) == 0.0
    assert ClipScore(str(folder), definition="torchmetrics").aggregate([-1.0, 5.0]) == 2.0
    assert ClipScore(str(folder), definition="cosine100").aggregate(values) == -1.0


@pytest.mark.parametrize("backend", ["folder", "open_folder"])
def test_independent_of_batch_composition(backend: str, request: pytest.FixtureRequest) -> None:
    path = str(request.getfixturevalue(backend))
    scorer = ClipScore(path, definition="cosine", batch_size=3)
    together = scorer.score(PROMPTS, PICTURES)
    alone = torch.cat([scorer.score([p], [i]) for p, i in zip(PROMPTS, PICTURES, strict=True)])
    turned = scorer.score(PROMPTS[::-1], PICTURES[::-1]).flip(0)
    company = scorer.score([*PROMPTS, "x" * 300], [*PICTURES, picture(9)])[:4]
    for other in (alone, turned, company):
        assert torch.allclose(together, other, atol=1e-5, rtol=0)
    matrix = scorer.score_matrix(PROMPTS, PICTURES)
    assert matrix.shape == (4, 4)
    assert torch.allclose(matrix.diagonal(), together, atol=1e-5, rtol=0)
    assert scorer.score([], []).shape == (0,)


@pytest.mark.parametrize("backend", ["folder", "open_folder"])
def test_long_prompts_are_cut_before_their_end_token_and_counted(backend: str, request: pytest.FixtureRequest) -> None:
    """Cutting the end token off makes every long prompt equal; keeping it makes the first words count."""
    scorer = ClipScore(str(request.getfixturevalue(backend)), definition="cosine")
    first, second = "a red circle and " * 40, "two blue stars or " * 40
    scores = scorer.score([first, second, first], [PICTURES[0]] * 3)
    assert abs(float(scores[0] - scores[1])) > 1e-4
    assert scores[0] == scores[2]
    assert float(scorer.score([first + "and more"], [PICTURES[0]])[0]) == pytest.approx(float(scores[0]), abs=1e-6)
    assert scorer.info()["n_truncated"] == 3
    assert scorer.count_truncated([first, first, "short"]) == 1


def test_the_prefix_counts_towards_the_limit(folder: Path) -> None:
    """The tiny tokenizer makes a token a letter: 75 fit beside the two ends."""
    text = "x" * 75
    assert ClipScore(str(folder), definition="cosine").count_truncated([text, text + "x"]) == 1
    assert ClipScore(str(folder), definition="hessel").count_truncated([text]) == 1
    assert ClipScore(str(folder), definition="hessel", prefix="").count_truncated([text]) == 0


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "RGBA", "LA", "HSV", "LAB", "I;16", "F"])
def test_modes(folder: Path, mode: str) -> None:
    scorer = ClipScore(str(folder), definition="cosine")
    image: Image.Image
    if mode in ("I;16", "F", "LAB"):
        values = np.arange(48 * 40).reshape(40, 48)
        image = {
            "I;16": lambda: Image.fromarray((values * 30).astype(np.uint16)),
            "F": lambda: Image.fromarray((values / values.max()).astype(np.float32)),
            "LAB": lambda: Image.merge("LAB", picture(4).split()),
        }[mode]()
    else:
        image = picture(4, mode=mode)
    assert image.mode == mode
    score = float(scorer.score(["a"], [image])[0])
    assert math.isfinite(score)
    if mode in ("L", "1", "P", "CMYK", "YCbCr", "RGBA", "LA"):
        assert score == float(scorer.score(["a"], [image.convert("RGB")])[0])


def test_paths_and_tensors_score_as_the_picture_does(folder: Path, tmp_path: Path) -> None:
    scorer = ClipScore(str(folder), definition="cosine")
    image = PICTURES[0]
    image.save(tmp_path / "picture.png")
    whole = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    kinds: list[Any] = [image, tmp_path / "picture.png", str(tmp_path / "picture.png"), whole, whole.float() / 255]
    scores = scorer.score(["a"] * len(kinds), kinds)
    assert len(set(scores.tolist())) == 1


def test_what_is_no_picture_is_named(folder: Path, tmp_path: Path) -> None:
    scorer = ClipScore(str(folder))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    cases: list[tuple[Any, type[Exception], str]] = [
        (tmp_path / "broken.png", DataError, "broken.png"),
        (tmp_path / "absent.png", DataError, "absent.png"),
        (torch.rand(3, 8, 8) * 255, ValueError, r"spans \["),
        (torch.rand(1, 3, 8, 8), ValueError, r"shape \(1, 3, 8, 8\)"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), ValueError, "int64"),
        (None, ValueError, "NoneType"),
    ]
    for image, error, message in cases:
        with pytest.raises(error, match=message):
            scorer.score(["a"], [image])
    with pytest.raises(ValueError, match="2 prompts for 1 pictures"):
        scorer.score(["a", "b"], [PICTURES[0]])
    with pytest.raises(ValueError, match="one string"):
        scorer.score("a", [PICTURES[0]])


def test_info_says_what_was_computed(folder: Path) -> None:
    scorer: RewardModel = ClipScore(str(folder))
    assert isinstance(scorer, RewardModel)
    info = scorer.info()
    json.dumps(info)
    assert info["definition"] == "hessel"
    assert info["prefix"] == "A photo depicts "
    assert (info["library"], info["dtype"], info["activation"]) == ("transformers", "float32", "quick_gelu")
    assert info["preprocessing"]["backend"] == "pillow"
    assert info["preprocessing"]["size"] == IMAGE_SIZE
    assert info["preprocessing"]["resample"] == "bicubic"
    assert info["preprocessing"]["mean"] == pytest.approx(list(MEAN))
    assert info["max_tokens"] == 77
    assert len(info["weights_sha256"]) == 64
    assert scorer.version == f"hessel:tiny-clip@{info['weights_sha256'][:8]}"
    assert str(folder.parent) not in json.dumps(info)
    assert set(info["versions"]) == {"transformers", "torch", "pillow"}


def test_versions_tell_weights_and_definitions_apart(folder: Path, tmp_path: Path) -> None:
    other = save_clip(tmp_path, seed=1)
    versions = {ClipScore(str(path), definition=d).version for path in (folder, other) for d in DEFINITIONS}
    assert len(versions) == 2 * len(DEFINITIONS)


def test_half_precision_stays_near(folder: Path) -> None:
    exact = ClipScore(str(folder), definition="cosine").score(PROMPTS, PICTURES)
    scorer = ClipScore(str(folder), definition="cosine", dtype="bfloat16")
    assert scorer.info()["dtype"] == "bfloat16"
    rough = scorer.score(PROMPTS, PICTURES)
    assert 0 < float((exact - rough).abs().max()) < 0.1


def test_open_clip_equals_a_plain_computation(open_folder: Path) -> None:
    import open_clip
    from safetensors.torch import load_file

    config = json.loads((open_folder / "open_clip_config.json").read_text(encoding="utf-8"))["model_cfg"]
    model = open_clip.CLIP(**config).eval()
    model.load_state_dict(load_file(open_folder / "open_clip_model.safetensors"))
    pixels = torch.stack([plain_pixels(image, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), round) for image in PICTURES])
    with torch.no_grad():
        sights, words = model.visual(pixels), model.encode_text(open_clip.SimpleTokenizer()(PROMPTS))
    expected = torch.nn.functional.cosine_similarity(sights, words)
    scorer = ClipScore(str(open_folder), definition="cosine")
    assert torch.allclose(scorer.score(PROMPTS, PICTURES), expected, atol=1e-5, rtol=0)
    info = scorer.info()
    assert info["library"] == "open_clip"
    assert info["preprocessing"]["mean"] == [0.5, 0.4, 0.3]
    assert scorer.version.startswith("cosine:tiny-open-clip@")


def test_quick_gelu_is_right_for_the_weights(open_folder: Path, tmp_path: Path) -> None:
    """OpenAI's weights need QuickGELU under plain architecture names; a file says so by a setting."""
    import open_clip

    from t2ialign.reward_models.clip_loading import needs_quick_gelu

    assert needs_quick_gelu("ViT-B-32", "openai")
    assert needs_quick_gelu("ViT-L-14", "openai")
    assert not needs_quick_gelu("ViT-B-32", "laion2b_s34b_b79k")
    assert not needs_quick_gelu("ViT-B-32", None)
    (tmp_path / "tiny-arch.json").write_text(json.dumps(TINY_ARCHITECTURE), encoding="utf-8")
    open_clip.add_model_config(tmp_path / "tiny-arch.json")
    spec = f"open_clip:tiny-arch/{open_folder / 'open_clip_model.safetensors'}"
    plain, quick = (ClipScore(spec, definition="cosine", quick_gelu=value) for value in (False, True))
    names = [{type(m).__name__ for m in s.backend.model.modules()} for s in (plain, quick)]
    assert ["QuickGELU" in each for each in names] == [False, True]
    assert quick.info()["activation"] == "quick_gelu"
    difference = plain.score(PROMPTS, PICTURES) - quick.score(PROMPTS, PICTURES)
    assert float(difference.abs().max()) > 1e-5
    assert plain.info()["checkpoint"] == "tiny-arch/open_clip_model.safetensors"


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ("openai/clip-vit-base-patch32", "hf download openai/clip-vit-base-patch32"),
        ("ViT-B-32/openai", "hf download timm/vit_base_patch32_clip_224.openai"),
        ("open_clip:ViT-B-32/no_such_tag", "laion2b_s34b_b79k"),
        ("open_clip:ViT-Q-99/openai", "names no architecture"),
        ("ViT-B-32", "names no weights"),
        ("hf-hub:nobody/nothing", "hf download nobody/nothing"),
    ],
)
def test_what_is_not_here_says_how_to_get_it(
    checkpoint: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=message):
        ClipScore(checkpoint)


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    with pytest.raises(ModelError, match="is not a folder of a transformers CLIPModel"):
        ClipScore(str(tmp_path))
    folder = save_clip(tmp_path)
    state = load_file(folder / "model.safetensors")
    save_file({name: value for name, value in state.items() if name != "visual_projection.weight"}, folder / "part")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "part").rename(folder / "model.safetensors")
    with pytest.raises(
        ModelError, match=r"no whole CLIPModel: it lacks 1 weights, among them visual_projection.weight"
    ):
        ClipScore(str(folder))
    (folder / "model.safetensors").write_bytes(whole)
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer.json and no vocab.json"):
        ClipScore(str(folder))


def test_unknown_settings() -> None:
    with pytest.raises(ConfigError, match="unknown CLIPScore definition 'hesel'"):
        ClipScore("x", definition="hesel")
    with pytest.raises(ConfigError, match="unknown dtype 'int8'"):
        ClipScore("x", dtype="int8")
    with pytest.raises(ConfigError, match="batch_size is 0"):
        ClipScore("x", batch_size=0)


def test_real_pictures(folder: Path, real_data: Path) -> None:
    files = sorted((real_data / "generated_images").glob("*.*"))
    if not files:
        pytest.skip("generated_images is absent")
    pictures = []
    for file in files:
        with Image.open(file) as opened:
            pictures.append(opened.convert("RGB"))
    scorer = ClipScore(str(folder), definition="cosine")
    texts = ["cat with horn"] * len(files)
    assert scorer.score(texts, files).tolist() == pytest.approx(plain_cosines(folder, texts, pictures), abs=1e-5)
