"""Several models, guidance scales and seeds in one image set, as VisionPrefer collected its pictures."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.tiny import save_tiny
from t2ialign.config import parse_arguments
from t2ialign.data.image_sets import ImageSet
from t2ialign.errors import ConfigError, DataError
from t2ialign.generation.labels import Variant, variants
from t2ialign.generation.options import GenerateOptions
from t2ialign.generation.run import generate
from t2ialign.generation.seeds import image_seed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("one-set")
    for family in ("sd15", "sdxl"):
        save_tiny(path, family)
    lines = [json.dumps({"prompt_id": f"p{i}", "prompt": f"prompt {i}"}) for i in range(3)]
    (path / "prompts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return path


def options(folder: Path, output: Path, **more: Any) -> GenerateOptions:
    given: dict[str, Any] = {
        "model": [str(folder / "tiny-sd15")],
        "prompts": str(folder / "prompts.jsonl"),
        "output_dir": output,
        "num_inference_steps": 2,
        "device": "cpu",
    }
    return GenerateOptions(**{**given, **more})


def pixels(path: Path) -> dict[tuple[str, int, str], Any]:
    image_set = ImageSet(path)
    return {record.key: np.asarray(image_set.open(record), int) for record in image_set.records}


def both(folder: Path) -> list[str]:
    return [str(folder / "tiny-sd15"), str(folder / "tiny-sdxl")]


def test_k_pictures_a_prompt_of_models_scales_and_seeds(folder: Path, tmp_path: Path) -> None:
    more: dict[str, Any] = {"model": both(folder), "guidance_scale": [2.0, 7.5], "images_per_prompt": 2, "limit": 2}
    summary = generate(options(folder, tmp_path / "set", one_set=True, seed=4, **more))
    assert (summary.made, summary.kept, summary.sets) == (16, 0, [str(tmp_path / "set")])
    records = ImageSet(tmp_path / "set").records
    assert Counter(record.prompt_id for record in records) == {"p0": 8, "p1": 8}
    assert len({record.key for record in records}) == len({record.file_name for record in records}) == 16
    labels = {"tiny-sd15-g2", "tiny-sd15-g7.5", "tiny-sdxl-g2", "tiny-sdxl-g7.5"}
    assert {(record.model, record.sample) for record in records} == {(name, k) for name in labels for k in (0, 1)}
    for record in records:
        assert record.seed == image_seed(4, record.prompt_id, record.sample)
        assert record.model.endswith(f"-g{record.extra['guidance_scale']:g}")
    config = json.loads((tmp_path / "set/config.json").read_text(encoding="utf-8"))
    assert set(config["models"]) == labels
    assert config["seed"] == 4
    prints = {name: entry["weights_fingerprint"] for name, entry in config["models"].items()}
    assert prints["tiny-sd15-g2"] == prints["tiny-sd15-g7.5"] != prints["tiny-sdxl-g2"]
    assert str(folder) not in json.dumps(config)


def test_each_picture_is_that_of_a_set_of_its_own(folder: Path, tmp_path: Path) -> None:
    more: dict[str, Any] = {"model": both(folder), "guidance_scale": [2.0, 7.5]}
    generate(options(folder, tmp_path / "one", one_set=True, batch_size=3, **more))
    summary = generate(options(folder, tmp_path / "sets", **more))
    assert [Path(path).name for path in summary.sets] == [
        "tiny-sd15-g2", "tiny-sd15-g7.5", "tiny-sdxl-g2", "tiny-sdxl-g7.5",
    ]  # fmt: skip
    together = pixels(tmp_path / "one")
    apart = {key: value for path in summary.sets for key, value in pixels(Path(path)).items()}
    assert together.keys() == apart.keys()
    assert max(np.abs(together[key] - apart[key]).max() for key in apart) <= 1
    plain = pixels(tmp_path / "sets/tiny-sd15-g2")
    generate(options(folder, tmp_path / "plain", guidance_scale=2.0))
    alone = pixels(tmp_path / "plain")
    assert all((plain[(p, k, "tiny-sd15-g2")] == value).all() for (p, k, _), value in alone.items())
    line = json.loads((tmp_path / "plain/metadata.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert "guidance_scale" not in line  # sets of one model and scale are what they were


def test_a_scale_drawn_for_each_picture(folder: Path, tmp_path: Path) -> None:
    scales = [1.5, 4.0, 9.0]
    more: dict[str, Any] = {"guidance_scale": scales, "guidance_choice": "drawn", "images_per_prompt": 3}
    generate(options(folder, tmp_path / "set", one_set=True, batch_size=2, **more))
    records = ImageSet(tmp_path / "set").records
    drawn = {record.key: record.extra["guidance_scale"] for record in records}
    assert {record.model for record in records} == {"tiny-sd15"}
    assert len(set(drawn.values())) > 1
    variant = Variant("m", None, None, "tiny-sd15", drawn_from=tuple(scales))
    assert drawn == {key: variant.scale(0, key[0], key[1]) for key in drawn}
    config = json.loads((tmp_path / "set/config.json").read_text(encoding="utf-8"))
    assert config["models"]["tiny-sd15"]["guidance_scale"] == scales
    made = pixels(tmp_path / "set")
    for scale in sorted(set(drawn.values())):
        generate(options(folder, tmp_path / f"g{scale}", guidance_scale=scale, images_per_prompt=3))
        alone = pixels(tmp_path / f"g{scale}")
        mine = [key for key, value in drawn.items() if value == scale]
        assert max(np.abs(made[key] - alone[key]).max() for key in mine) <= 1
    with pytest.raises(DataError, match=r"guidance_scale: \[1.5, 4.0, 9.0\] there, \[1.5, 4.0\] now"):
        generate(options(folder, tmp_path / "set", one_set=True, **{**more, "guidance_scale": scales[:2]}))


def test_draws_are_even_and_their_own_for_each_model() -> None:
    counts: Counter[float | None] = Counter()
    agree = 0
    first, second = (Variant("m", None, None, name, drawn_from=(1.0, 2.0, 3.0)) for name in ("a", "b"))
    for number in range(3000):
        scale = first.scale(0, f"p{number}", 0)
        counts[scale] += 1
        agree += scale == second.scale(0, f"p{number}", 0)
    assert set(counts) == {1.0, 2.0, 3.0}
    assert all(abs(count / 3000 - 1 / 3) < 0.035 for count in (*counts.values(), agree))  # 4 standard deviations


def test_draws_by_a_plain_computation() -> None:
    variant = Variant("m", None, None, "a", drawn_from=(1.0, 2.0, 3.0))
    for seed, prompt_id, sample in itertools.product((0, 1, 2), ("p0", "p1", "ü"), (0, 1)):
        text = f"guidance\x1f{seed}\x1f{prompt_id}\x1f{sample}\x1fa"
        number = int(hashlib.sha256(text.encode()).hexdigest()[:16], 16)
        assert variant.scale(seed, prompt_id, sample) == (1.0, 2.0, 3.0)[number % 3]


def test_a_set_grows_by_models_scales_and_samples(folder: Path, tmp_path: Path) -> None:
    steps: list[dict[str, Any]] = [
        {"guidance_scale": [2.0, 5.0], "limit": 1},
        {"guidance_scale": [2.0, 5.0, 7.5], "limit": 2},
        {"model": both(folder), "guidance_scale": [2.0, 5.0, 7.5], "images_per_prompt": 2},
    ]
    made = [generate(options(folder, tmp_path / "set", one_set=True, **more)).made for more in steps]
    assert made == [2, 4, 30]
    (tmp_path / "set/images/000001/0000-tiny-sdxl-g5.png").unlink()
    last = generate(options(folder, tmp_path / "set", one_set=True, **steps[2]))
    assert (last.made, last.kept) == (1, 35)
    generate(options(folder, tmp_path / "whole", one_set=True, **steps[2]))
    grown, whole = pixels(tmp_path / "set"), pixels(tmp_path / "whole")
    assert grown.keys() == whole.keys()
    assert max(np.abs(grown[key] - whole[key]).max() for key in whole) <= 1


def test_what_was_made_otherwise_is_refused(folder: Path, tmp_path: Path) -> None:
    generate(options(folder, tmp_path / "set", one_set=True, limit=1))
    other = save_tiny(tmp_path, "sd15", seed=1)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"num_inference_steps": 3}, "of tiny-sd15 were made otherwise .*num_inference_steps: 2 there, 3 now"),
        ({"guidance_scale": 3.0}, "guidance_scale: 7.5 there, 3.0 now"),
        ({"model": [str(other)]}, "weights_fingerprint"),
        ({"seed": 1}, "seed: 0 there, 1 now"),
        ({"negative_prompt": "x", "label": ["other"]}, r"set was made otherwise \(negative_prompt"),
        ({"one_set": False}, "models: .* there, nothing now"),
    ]  # fmt: skip
    before = (tmp_path / "set/config.json").read_text()
    for change, shown in changes:
        with pytest.raises(DataError, match=shown):
            generate(options(folder, tmp_path / "set", **{"one_set": True, **change}))
    assert (tmp_path / "set/config.json").read_text() == before
    assert len(ImageSet(tmp_path / "set")) == 1
    generate(options(folder, tmp_path / "plain", limit=1))
    with pytest.raises(DataError, match='label: "tiny-sd15" there, nothing now'):
        generate(options(folder, tmp_path / "plain", one_set=True))


def test_one_model_is_in_memory_at_a_time(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import weakref

    from t2ialign.models import loading

    load_model = loading.load_model
    alive: list[weakref.ref[Any]] = []
    others: list[int] = []

    def counting(*args: Any, **kwargs: Any) -> Any:
        others.append(sum(each() is not None for each in alive))
        model = load_model(*args, **kwargs)
        alive.append(weakref.ref(model.unet))
        return model

    monkeypatch.setattr(loading, "load_model", counting)
    more: dict[str, Any] = {"model": both(folder), "guidance_scale": [2.0, 7.5], "limit": 1}
    generate(options(folder, tmp_path / "set", one_set=True, **more))
    assert others == [0, 0]  # two loadings for four kinds of pictures, and nothing left of the first at the second


def test_a_grid_has_a_column_for_each_model(folder: Path, tmp_path: Path) -> None:
    from PIL import Image

    from t2ialign.generation.grid import make_grid

    generate(options(folder, tmp_path / "set", one_set=True, guidance_scale=[2.0, 7.5], limit=2))
    generate(options(folder, tmp_path / "plain", limit=2))
    widths = []
    for sets in ([tmp_path / "set"], [tmp_path / "plain"], [tmp_path / "plain", tmp_path / "set"]):
        with Image.open(make_grid(sets, tmp_path / "grid.png")) as picture:
            widths.append(picture.width)
    assert widths[0] - widths[1] == widths[2] - widths[0] > 0
    make_grid([tmp_path / "set"], tmp_path / "grid.png", labels=["low", "high"])
    with pytest.raises(DataError, match="1 labels for 2 columns"):
        make_grid([tmp_path / "set"], tmp_path / "grid.png", labels=["low"])


def test_scales_on_a_command_line() -> None:
    needed = ["--model", "m", "--prompts", "p.txt", "--output_dir", "o"]
    cases: list[tuple[list[str], tuple[float | None, ...]]] = [
        ([], (None,)),
        (["--guidance_scale", "4"], (4.0,)),
        (["--guidance_scale", "3,5"], (3.0, 5.0)),
        (["--guidance_scale", "3", "--guidance_scale", "5,7.5"], (3.0, 5.0, 7.5)),
    ]
    for words, scales in cases:
        assert parse_arguments(GenerateOptions, [*needed, *words], "t2ialign").guidance_scales == scales


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"guidance_scale": [3.0, 3.0]}, "give each scale once"),
        ({"guidance_scale": [3.0, -1.0]}, "guidance_scale is -1.0"),
        ({"guidance_scale": float("inf")}, "guidance_scale is inf"),
        ({"guidance_scale": []}, "empty list"),
        ({"guidance_choice": "drawn"}, "nothing to draw from"),
    ],
)
def test_scales_out_of_range_are_named(folder: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options(folder, Path("out"), **more)


def test_labels_of_scales_must_differ() -> None:
    given = GenerateOptions(
        model=["a", "b"], label=["m", "m-g3"], prompts="p", output_dir=Path("o"), guidance_scale=[3.0, 5.0]
    )
    assert [variant.label for variant in variants(given)] == ["m-g3", "m-g5", "m-g3-g3", "m-g3-g5"]
    close = GenerateOptions(model=["a"], prompts="p", output_dir=Path("o"), guidance_scale=[3.0, 3.00000001])
    with pytest.raises(ConfigError, match="would both be called 'a-g3'"):
        variants(close)
