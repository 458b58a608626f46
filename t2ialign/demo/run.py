"""Run the demo: pictures of the base, tuning, pictures of the tuned model, scores, comparison, report."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t2ialign.data.files import write_text
from t2ialign.data.image_sets import ImageSet
from t2ialign.demo.prompts import held_out_prompts, write_prompts
from t2ialign.demo.report import write_report
from t2ialign.engine.signals import StopSignal
from t2ialign.errors import ConfigError, Stopped
from t2ialign.eval.compare import compare_scores, compare_sets
from t2ialign.eval.statistics import wilson
from t2ialign.generation.grid import make_grid
from t2ialign.generation.options import GenerateOptions
from t2ialign.generation.run import generate
from t2ialign.mini.oracle import Verdict, judge
from t2ialign.mini.world import parse
from t2ialign.reward_models.scoring import score_set
from t2ialign.trainers.dpo import DiffusionDPOTrainer
from t2ialign.trainers.dpo_config import DPOConfig

logger = logging.getLogger(__name__)

SCORERS = ("oracle", "clipscore@mini-clip")
PROMPTS = 160
"""Held-out prompts of the report."""
SAMPLES = 2
"""Pictures of each prompt and model."""
BATCH = 40
"""Pictures generated at once."""
FILES = ("report.json", "report.html", "grid.png", "prompts.jsonl")
FOLDERS = ("run", "base", "tuned", "compare")
MARKER = ".t2ialign-demo"
"""Written first; only a folder that holds it is emptied."""


@dataclass(frozen=True)
class DemoSettings:
    """What the demo does; the defaults are what `t2ialign demo` runs.

    Attributes:
        prompts: Number of held-out prompts.
        split: Split of the prompts: `"test"`, or `"validation"` when settings are being chosen.
        scorers: Who judges.
        training: Options of `t2ialign train dpo` that differ from its defaults for mini-SD.
    """

    prompts: int = PROMPTS
    split: str = "test"
    scorers: tuple[str, ...] = SCORERS
    training: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[part] = round(seconds.get(part, 0.0) + time.perf_counter() - began, 1)
    logger.info("%s: %.1f s", part, seconds[part])


def run_demo(output_dir: str | Path, seed: int = 0, settings: DemoSettings | None = None) -> dict[str, Any]:
    """Tune mini-SD on mini-pairs and measure on held-out prompts what it brought.

    Args:
        output_dir: Folder of everything that is made; what an earlier demo left there is replaced.
        seed: Of the prompts, of the tuning and of the pictures.
        settings: For other sizes and options than the demo's own.

    Returns:
        What `report.json` holds; its keys are documented in `docs/demo.md`.

    Raises:
        ConfigError: If `output_dir` holds something that no demo wrote.
        Stopped: If a signal asks for it; a demo begins anew.
    """
    try:
        with StopSignal():
            return _run(output_dir, seed, settings or DemoSettings())
    except Stopped as stop:
        raise Stopped(stop.number, "a demo begins anew") from None


def _run(output_dir: str | Path, seed: int, settings: DemoSettings) -> dict[str, Any]:
    folder = _clear(Path(output_dir))
    seconds: dict[str, float] = {}
    began = time.perf_counter()
    prompts = held_out_prompts(settings.prompts, seed, settings.split)
    write_prompts(prompts, folder / "prompts.jsonl")
    with _timed(seconds, "pictures of the base"):
        _generate(folder, "base", seed)
    with _timed(seconds, "tuning"):
        training = _train(folder, seed, settings.training)
    with _timed(seconds, "pictures of the tuned model"):
        _generate(folder, "tuned", seed)
    with _timed(seconds, "scores and comparison"):
        for name in ("base", "tuned"):
            score_set(folder / name, settings.scorers, progress=False)
        compared = compare_sets(folder / "base", [folder / "tuned"], output_dir=folder / "compare")
        make_grid([folder / "base", folder / "tuned"], folder / "grid.png", max_prompts=12, samples=2)
        report = _figures(folder, compared)
    report |= {
        "seed": seed,
        "split": settings.split,
        "prompts": len(prompts),
        "prompts_by_kind": _kinds(prompts),
        "images_per_prompt": SAMPLES,
        "training": training,
        "parts": seconds,
        "seconds": round(time.perf_counter() - began, 1),
    }
    write_text(folder / "report.json", json.dumps(report, indent=2) + "\n")
    write_report(folder, report)
    return report


def _kinds(prompts: Sequence[str]) -> dict[str, int]:
    """Count the prompts of two objects, of one, and of flags."""
    names = {0: "flag", 1: "one object", 2: "two objects"}
    return dict(Counter(names[len(parse(prompt).things)] for prompt in prompts))


def _clear(folder: Path) -> Path:
    """Empty the folder of an earlier demo; refuse one that holds anything else."""
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(p.name for p in folder.iterdir())
    strange = [name for name in found if name not in (*FILES, *FOLDERS, MARKER)]
    if strange or (found and MARKER not in found):
        name = (strange or found)[0]
        raise ConfigError(f"{folder} holds {name!r}, which no demo wrote; give a new or empty folder as --output_dir")
    (folder / MARKER).touch()
    for name in FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    return folder


def _generate(folder: Path, name: str, seed: int) -> None:
    generate(
        GenerateOptions(
            model=["mini-sd"],
            adapter=[str(folder / "run" / "final")] if name == "tuned" else [],
            label=[name],
            prompts=str(folder / "prompts.jsonl"),
            output_dir=folder / name,
            images_per_prompt=SAMPLES,
            batch_size=BATCH,
            seed=seed,
        )
    )


def _train(folder: Path, seed: int, training: Mapping[str, Any]) -> dict[str, Any]:
    config = DPOConfig(
        model="mini-sd", pairs="mini-pairs", output_dir=folder / "run", seed=seed, checkpoint_every=0, **training
    )
    trainer = DiffusionDPOTrainer(config)
    stopped = trainer.train()["signal"]
    if stopped is not None:
        raise Stopped(signal.Signals[stopped])
    used = trainer.config
    names = (
        "objective",
        "beta",
        "steps",
        "batch_size",
        "gradient_accumulation_steps",
        "learning_rate",
        "lr_scheduler",
    )
    options = {name: getattr(used, name) for name in (*names, "method")}
    return {**options, "lora_rank": used.lora.rank, "pairs": "mini-pairs"}


def _verdicts(image_set: ImageSet) -> dict[tuple[str, int], Verdict]:
    return {(r.prompt_id, r.sample): judge(r.prompt, image_set.open(r)) for r in image_set.records}


def _accuracy(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Count the pictures that have every attribute of their prompt, by the oracle."""
    right, n = sum(v.right for v in verdicts), len(verdicts)
    parts: dict[str, list[bool]] = {}
    for verdict in verdicts:
        for name, good in verdict.attributes.items():
            parts.setdefault(name.split(" ")[0], []).append(good)
    return {
        "oracle_accuracy": right / n,
        "oracle_accuracy_ci95": list(wilson(right, n)),
        "readable": sum(v.reading.readable for v in verdicts) / n,
        "attributes": {name: sum(good) / len(good) for name, good in sorted(parts.items())},
        "n": n,
    }


def _figures(folder: Path, compared: Mapping[str, Any]) -> dict[str, Any]:
    verdicts = {name: _verdicts(ImageSet(folder / name)) for name in ("base", "tuned")}
    report: dict[str, Any] = {name: _accuracy(list(found.values())) for name, found in verdicts.items()}
    keys = sorted(verdicts["base"])
    right = [[float(verdicts[name][key].right) for key in keys] for name in ("base", "tuned")]
    whole = compare_scores(right[0], right[1], [prompt_id for prompt_id, _ in keys])
    judged = {c["scorer"]: c for c in compared["comparisons"]} | {"entirely right": whole}
    report["win_rate"] = {name: dict(c["win_rate"]) for name, c in judged.items()}
    report["comparison"] = {name: {k: c[k] for k in ("verdict", "difference", "tests")} for name, c in judged.items()}
    return report
