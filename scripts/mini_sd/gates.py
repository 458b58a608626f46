"""The gates that mini-SD must pass, each measured and never assumed; see `README.md` beside the weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

from mini_sd.pictures import draw, to_tensor
from mini_sd.sampling import sample_pictures
from t2ialign.eval.statistics import wilson
from t2ialign.mini.flags import FLAGS
from t2ialign.mini.oracle import judge, read
from t2ialign.mini.world import SAMPLERS, Spec, describe, parse, render, sample, turn_around

Figures = dict[str, object]


def _share(hits: int, count: int) -> Figures:
    interval = wilson(hits, count)
    return {"value": hits / count, "n": count, "ci95": [float(interval[0]), float(interval[1])]}


def _reads_as(picture: Image.Image, spec: Spec) -> bool:
    seen = read(picture).spec
    return seen is not None and describe(seen) in (describe(spec), describe(turn_around(spec)))


def _noises(picture: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    uniform = rng.uniform(0, 255, picture.shape)
    coarse = np.kron(rng.uniform(0, 255, (8, 8, 3)), np.ones((8, 8, 1)))
    return {
        "blank": np.full(picture.shape, rng.integers(256, size=3)),
        "noise": uniform,
        "half noise": 0.5 * picture + 0.5 * uniform,
        "half gaussian noise": np.clip(0.5 * picture + 0.5 * rng.normal(127, 60, picture.shape), 0, 255),
        "half gray noise": 0.5 * picture + 0.5 * rng.uniform(0, 255, (*picture.shape[:2], 1)),
        "half coarse noise": 0.5 * picture + 0.5 * coarse,
    }


def gate_oracle(seed: int = 1001, count: int = 2000) -> Figures:
    """Gate a: fresh drawings read back whole; blanks and noise called unreadable."""
    rng = np.random.default_rng(seed)
    right, unreadable = 0, Counter[str]()
    for _ in range(count):
        spec = sample(rng)
        picture = render(spec)
        right += _reads_as(picture, spec)
        for name, pixels in _noises(np.asarray(picture, dtype=float), rng).items():
            unreadable[name] += not read(Image.fromarray(pixels.astype(np.uint8))).readable
    return {
        "fresh_drawings": _share(right, count),
        "called_unreadable": {k: _share(v, count) for k, v in unreadable.items()},
    }


def gate_vae(vae: AutoencoderKL, seed: int = 1002, count: int = 2000) -> Figures:
    """Gate b: fresh drawings still read rightly after the autoencoder's round trip."""
    specs, pictures = draw(np.random.default_rng(seed), count)
    right, errors = Counter[str](), []
    kinds = Counter(f"{s.kind} {len(s.things)}" for s in specs)
    for start in range(0, count, 100):
        x = to_tensor(pictures[start : start + 100])
        with torch.no_grad():
            y = vae.decode(vae.encode(x).latent_dist.mean).sample.clamp(-1, 1)
        errors.append((y - x).abs().flatten())
        back = ((y + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        for spec, picture in zip(specs[start : start + 100], back, strict=True):
            right[f"{spec.kind} {len(spec.things)}"] += _reads_as(Image.fromarray(picture), spec)
    error = torch.cat(errors)
    return {
        "round_trip": _share(right.total(), count),
        "by_kind": {k: _share(right[k], n) for k, n in sorted(kinds.items())},
        "l1": float(error.mean()),
        "error_p95": float(error[::7].quantile(0.95)) if error.numel() < 1e8 else None,
    }


def _full_prompts(kind: str, count: int, seed: int) -> list[str]:
    rng = np.random.default_rng((seed, len(kind)))
    sampler: Callable[[np.random.Generator], Spec] = SAMPLERS[kind]
    return [describe(sampler(rng)) for _ in range(count)]


def gate_pictures(
    pipeline: StableDiffusionPipeline, seed: int = 1003, count: int = 200
) -> tuple[Figures, list[tuple[str, Image.Image]]]:
    """Gate c: generated pictures, judged by the oracle; also returns them with their prompts."""
    figures: Figures = {}
    shown: list[tuple[str, Image.Image]] = []
    confusion: dict[str, Counter[str]] = {}
    for kind in SAMPLERS:
        prompts = _full_prompts(kind, count, seed)
        pictures = sample_pictures(pipeline, prompts, seed)
        verdicts = [judge(p, i) for p, i in zip(prompts, pictures, strict=True)]
        parts: dict[str, list[bool]] = {}
        for v in verdicts:
            for name, good in v.attributes.items():
                parts.setdefault(name.split(" ")[0], []).append(good)
        figures[kind] = {
            "right": _share(sum(v.right for v in verdicts), count),
            "readable": _share(sum(v.reading.readable for v in verdicts), count),
            "attributes": {k: float(np.mean(v)) for k, v in parts.items()},
        }
        for prompt, verdict in zip(prompts, verdicts, strict=True):
            _confuse(confusion, prompt, verdict.reading.spec)
        shown += list(zip(prompts, pictures, strict=True))
    figures["confusion"] = {asked: dict(seen.most_common()) for asked, seen in sorted(confusion.items())}
    return figures, shown


def _confuse(confusion: dict[str, Counter[str]], prompt: str, seen: Spec | None) -> None:
    """Count what single objects and flags were drawn as, by colour, shape and country."""
    asked = parse(prompt)
    if asked.kind == "flag":
        answer = "unreadable" if seen is None else FLAGS[seen.country].name if seen.country else "a scene"
        confusion.setdefault(f"flag of {FLAGS[asked.country or ''].name}", Counter())[answer] += 1
        return
    if len(asked.things) != 1:
        return
    thing = seen.things[0] if seen and len(seen.things) == 1 else None
    other = "unreadable" if seen is None else "something else"
    answers = (thing.color, thing.shape) if thing else (None, None)
    for value, seen_as in zip((asked.things[0].color, asked.things[0].shape), answers, strict=True):
        confusion.setdefault(str(value), Counter())[seen_as or other] += 1


def gate_variety(pipeline: StableDiffusionPipeline, seed: int = 1004, count: int = 64) -> Figures:
    """Gate c, second half: under-specified prompts give several colours and countries."""
    figures: Figures = {}
    for prompt in ("a circle", "a star", "a flag", "the flag of a country in Africa"):
        specs = [read(p).spec for p in sample_pictures(pipeline, [prompt] * count, seed)]
        seen = Counter[str]()
        for spec in specs:
            if spec is None:
                seen["unreadable"] += 1
            elif spec.kind == "flag":
                seen[FLAGS[spec.country or ""].name] += 1
            else:
                seen[f"{spec.things[0].color} on {spec.background}" if len(spec.things) == 1 else "two objects"] += 1
        figures[prompt] = dict(seen.most_common())
    return figures


def gate_clip(folder: str, seed: int = 1005, count: int = 2048, choices: int = 64) -> Figures:
    """Gate d: the right one of 64 fully specified captions for a fresh drawing."""
    clip, processor = CLIPModel.from_pretrained(folder).float().eval(), CLIPProcessor.from_pretrained(folder)
    rng, right, count = np.random.default_rng(seed), 0, count // choices * choices
    for _ in range(count // choices):
        specs: dict[str, Spec] = {}
        while len(specs) < choices:
            spec = sample(rng)
            if describe(turn_around(spec)) not in specs:
                specs[describe(spec)] = spec
        inputs = processor(
            text=list(specs),
            images=[render(s) for s in specs.values()],
            return_tensors="pt",
            padding="max_length",
            max_length=clip.config.text_config.max_position_embeddings,
            truncation=True,
        )
        with torch.no_grad():
            best = clip(**inputs).logits_per_image.argmax(1)
        right += int((best == torch.arange(choices)).sum())
    return {"right_of_64": _share(right, count)}
