"""How fast an image set is scored beside the scorer's bare forward, and what a second scorer costs.

    python scripts/bench_scoring.py --json bench.json
    python scripts/bench_scoring.py --pictures 64 --repeats 1 --profile

A CLIP of ViT-B/32's shape with random weights scores JPEG pictures of 512 px in batches of 16, each with a prompt of
its own. All runs are paired (one of each in turn) and given as medians with quartiles:

    throughput_over_bare   pictures a second of `score_set`, from reading the set to the written table, over those of
                           the same model on tensors ready in memory (both towers, same batches, same tokens)
    two_over_one           time of `score_set` with two scorers that prepare pictures alike, over that with the first
    second_over_bare       what the second adds to the time, over the time of its bare forward

`stages` says where a picture's time goes, each measured alone on one thread, in milliseconds; `--profile` shows the
scoring process's own calls. Loading the models is not counted.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

WORDS = ("a small red circle above the large blue square", "on a green field near two yellow stars at night")
SHAPES: dict[str, dict[str, Any]] = {
    "vit-b-32": {"vision": {}, "text": {}, "projection_dim": 512},
    "tiny": {
        "vision": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
        "text": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
        "projection_dim": 32,
    },
}
"""Arguments of transformers' `CLIPConfig`, whose own defaults are ViT-B/32's."""


def save_clip(folder: Path, shape: str, seed: int) -> Path:
    """Random weights of a shape, with a tokenizer and the usual processor."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    from helpers.tiny import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    parts = SHAPES[shape]
    torch.manual_seed(seed)
    config = CLIPConfig(
        text_config={**parts["text"], "vocab_size": 49408, **ends},
        vision_config={**parts["vision"], "image_size": 224, "patch_size": 32},
        projection_dim=parts["projection_dim"],
    )
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    return folder


def write_pictures(folder: Path, count: int, side: int) -> Path:
    """JPEG pictures with detail at every scale, of the size in bytes of photographs, and a prompt for each."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    folder.mkdir(parents=True)
    lines = []
    for number in range(count):
        picture = np.zeros((side, side, 3))
        for octave in (4, 8, 16, 32, 64, 128, 256):
            grain = generator.uniform(-1, 1, (octave, octave, 3)) * 200 / octave**0.6
            bands = [Image.fromarray(grain[..., i].astype(np.float32)).resize((side, side), 3) for i in range(3)]
            picture += np.stack([np.asarray(band) for band in bands], -1)
        pixels = np.clip(picture + 128, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05d}.jpg", quality=95)
        prompt = " ".join(generator.permutation(" ".join(WORDS).split())) + f" {number}"
        line = {"file_name": f"{number:05d}.jpg", "prompt_id": f"p{number}", "prompt": prompt}
        lines.append(json.dumps(line) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def our_pass(images: Path, scorers: list[Any], batch_size: int, workers: int | None) -> Callable[[], None]:
    """A whole call of `score_set` into a new file."""
    from t2ialign.reward_models.scoring import score_set

    output = images.parent / "scores"

    def work() -> None:
        shutil.rmtree(output, ignore_errors=True)
        score_set(images, scorers, output / "scores.parquet", batch_size=batch_size, workers=workers, progress=False)

    return work


def bare_forward(images: Path, scorer: Any, batch_size: int) -> Callable[[], None]:
    """The model alone on all pictures and prompts of the set, as tensors that lie ready on its device."""
    import torch

    from t2ialign.data.image_sets import ImageSet

    model, device = scorer.backend.model, scorer.backend.device
    image_set = ImageSet(images)
    ready = []
    for start in range(0, len(image_set), batch_size):
        records = image_set.records[start : start + batch_size]
        pictures = torch.stack([scorer.preparation(image_set.open(record)) for record in records])
        texts = [scorer.prefix + record.prompt for record in records]
        tokens = scorer.backend.tokenizer(texts, padding=True, truncation=True, max_length=77, return_tensors="pt")
        pixels = scorer.backend.normalise(pictures, scorer.preparation)
        ready.append((pixels, tokens["input_ids"].to(device), tokens["attention_mask"].to(device)))

    def work() -> None:
        with torch.inference_mode():
            for pixels, ids, mask in ready:
                seen = model.get_image_features(pixel_values=pixels).pooler_output
                read = model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
                torch.cosine_similarity(seen, read).cpu()

    return work


def seconds_of(work: Callable[[], None]) -> float:
    """Wall time of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def in_turn(works: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Time pieces of work in turn, each round beginning with the next one."""
    for work in works.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    for turn in range(repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            seconds[name].append(seconds_of(works[name]))
    return seconds


def spread(values: list[float]) -> dict[str, Any]:
    """Median and quartiles."""
    ordered = sorted(values)
    n = len(ordered)
    return {"median": statistics.median(ordered), "low": ordered[n // 4], "high": ordered[(3 * n) // 4], "n": n}


def each(function: Callable[[Any], Any], values: list[Any]) -> None:
    """Call a function on each value."""
    for value in values:
        function(value)


def stages(images: Path, scorer: Any, count: int = 16) -> dict[str, float]:
    """Milliseconds a picture takes to be decoded, and to be prepared, on one thread."""
    import torch

    from t2ialign.data.images import decode_image

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    paths = sorted(images.glob("*.jpg"))[:count]
    decoded = [decode_image(path) for path in paths]
    each(scorer.preparation, decoded)
    found = {
        "decode": seconds_of(lambda: each(decode_image, paths)),
        "prepare": seconds_of(lambda: each(scorer.preparation, decoded)),
    }
    torch.set_num_threads(threads)
    return {name: 1000 * seconds / len(paths) for name, seconds in found.items()}


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All ratios."""
    from t2ialign.reward_models.registry import load_scorer

    images = write_pictures(folder / "images", arguments.pictures, arguments.side)
    scorers = [
        load_scorer(
            f"clipscore@{save_clip(folder / f'clip-{seed}', arguments.shape, seed)}?definition=cosine",
            device=arguments.device,
            batch_size=arguments.batch_size,
        )
        for seed in (0, 1)
    ]
    works = {
        "one": our_pass(images, scorers[:1], arguments.batch_size, arguments.workers),
        "two": our_pass(images, scorers, arguments.batch_size, arguments.workers),
        "bare": bare_forward(images, scorers[0], arguments.batch_size),
    }
    if arguments.profile:
        show_profile(works["one"])
    seconds = in_turn(works, arguments.repeats)
    one, two, bare = (seconds[name] for name in works)
    return {
        "throughput_over_bare": spread([b / a for a, b in zip(one, bare, strict=True)]),
        "two_over_one": spread([b / a for a, b in zip(one, two, strict=True)]),
        "second_over_bare": spread([(b - a) / c for a, b, c in zip(one, two, bare, strict=True)]),
        "pictures_per_second": {name: arguments.pictures / statistics.median(seconds[name]) for name in works},
        "stages": stages(images, scorers[0]),
        "jpeg_bytes": statistics.median(path.stat().st_size for path in images.glob("*.jpg")),
    }


def show_profile(work: Callable[[], None]) -> None:
    """The calls of the scoring process that take longest, after one to warm up."""
    work()
    profile = cProfile.Profile()
    profile.runcall(work)
    pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(18)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="vit-b-32", choices=sorted(SHAPES))
    parser.add_argument("--pictures", type=int, default=192)
    parser.add_argument("--side", type=int, default=512, help="of the pictures, in pixels")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--workers", type=int, help="as for score_set; its default where not given")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="show where the scoring process spends its time")
    parser.add_argument("--json", type=Path, help="also write the report here")
    arguments = parser.parse_args()
    import torch

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() and arguments.device != "cpu" else "cpu"
    report: dict[str, Any] = {name: getattr(arguments, name) for name in ("shape", "pictures", "side", "batch_size")}
    report |= {"device": device, "torch": torch.__version__, "threads": torch.get_num_threads()}
    report |= {"processors": os.cpu_count(), "workers": arguments.workers}
    with tempfile.TemporaryDirectory() as name:
        report |= measure(arguments, Path(name))
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
