"""From pictures to a better model by AI feedback alone, as VisionPrefer did, in the mini-world.

    python scripts/study_annotation.py --output_dir runs/annotation --json docs/results/annotation.json

Pictures of mini-SD (240 train prompts, 4 each, guidance 3) are rated by the oracle, and over HTTP by a test server
that speaks the OpenAI protocol and answers with right marks, a planted position bias, malformed JSON, refusals, slow
answers, 429 and 500. `t2ialign agreement` must find the bias; `t2ialign data pairs` must not let it through. From the
served ratings alone, both orders agreeing: a scorer with a head an aspect (the recipe of VP-Score), DPO on the
aggregate, MODPO on the aspects, ReFL and DDPO by that scorer. All are measured on 100 test prompts, 2 pictures each,
on the same noise. Every stage leaves a folder and is passed over when that is there; to do one again, remove it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PROMPTS, TEST_PROMPTS = 240, 100
WATCHED = "oracle"
logger = logging.getLogger(__name__)


def t2ialign(*words: object, **environment: str) -> None:
    """Run a command, and show it."""
    call = [str(word) for word in words]
    logger.info("t2ialign %s", " ".join(call))
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-m", "t2ialign", *call], env={**os.environ, "PYTHONPATH": path, **environment}, check=True
    )


def prompts(folder: Path) -> None:
    """Write the prompts: of the train split for the pictures, of the test split for the measurement."""
    from t2ialign.demo.prompts import held_out_prompts

    for name, count in (("train", PROMPTS), ("test", TEST_PROMPTS)):
        texts = held_out_prompts(count, 7, name)
        lines = [json.dumps({"prompt_id": f"{name}-{i:04d}", "prompt": text}) for i, text in enumerate(texts)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def annotate(folder: Path) -> dict[str, Any]:
    """Draw, have rated twice over, and hold the server's ratings against the oracle's."""
    if not (folder / "train.jsonl").is_file():
        prompts(folder)
    pictures = folder / "pictures"
    draw = ("--num_inference_steps", 16, "--batch_size", 40)
    t2ialign(
        *("generate", "--model", "mini-sd", "--prompts", folder / "train.jsonl", "--output_dir", pictures),
        *("--images_per_prompt", 4, "--guidance_scale", 3, *draw),
    )
    t2ialign("annotate", pictures, "--annotator", "oracle", "--output_dir", folder / "oracle")
    served, counts = folder / "served", folder / "server.json"
    if not counts.is_file():
        counts.write_text(json.dumps(serve(pictures, served), indent=1), encoding="utf-8")
    t2ialign(
        *(
            "agreement",
            served,
            "--against",
            folder / "oracle",
            "--output_dir",
            folder / "agreement",
            "--passes",
            "first",
        )
    )
    return annotation(
        json.loads(counts.read_text(encoding="utf-8")),
        json.loads((served / "report.json").read_text(encoding="utf-8")),
        json.loads((folder / "agreement" / "agreement.json").read_text(encoding="utf-8")),
    )


def annotation(server: dict[str, Any], report: dict[str, Any], agreement: dict[str, Any]) -> dict[str, Any]:
    """Take what is told of the annotation."""
    return {
        "server": server,
        **{key: report[key] for key in ("status", "annotations", "questions", "usage", "swap")},
        "agreement": {
            each["aspect"]: {
                "ratings_exact": each["ratings"]["exact"],
                "kappa_quadratic": each["ratings"]["kappa_quadratic"],
                "accuracy": each["verdicts"]["accuracy"],
            }
            for each in agreement["comparisons"]
        },
        "biases": agreement["biases"],
    }


def serve(pictures: Path, served: Path) -> dict[str, Any]:
    """Have the pictures rated by the server, and count what it saw."""
    sys.path.insert(0, str(ROOT / "tests"))
    from helpers.annotator_server import MIXED, RatingServer

    with RatingServer(MIXED, seed=3) as server:
        t2ialign(
            *("annotate", pictures, "--annotator", "openai:served", "--second_pass", "--output_dir", served),
            *("--chat.base_url", server.url, "--chat.parallel", 2, "--price_prompt", 1, "--price_completion", 2),
            OPENAI_API_KEY="none-is-needed",
        )
        return {"calls": sum(server.asked.values()), "paid": sum(server.paid.values()), "kinds": dict(server.kinds)}


def pairs(folder: Path) -> dict[str, Any]:
    """Make pairs by several rules, and say how many of them the oracle's aggregate confirms."""
    common = ("--overwrite", "--output_dir")
    t2ialign("data", "pairs", folder / "oracle", *common, folder / "pairs-oracle")
    t2ialign("data", "pairs", folder / "served", *common, folder / "pairs")
    t2ialign("data", "pairs", folder / "served", "--order", "mean", *common, folder / "pairs-mean")
    t2ialign("data", "pairs", folder / "served", "--aspect", "each", *common, folder / "pairs-each")
    t2ialign("data", "pairs", folder / "served", "--aspect", "prompt_following", *common, folder / "pairs-following")
    t2ialign("data", "pairs", one_pass(folder), *common, folder / "pairs-one-pass")
    names = ("pairs-oracle", "pairs", "pairs-mean", "pairs-one-pass")
    return {name: confirmed(folder / name) for name in names}


def one_pass(folder: Path) -> Path:
    """Leave the second pass out, as if every picture had been shown once."""
    made = folder / "served-once"
    made.mkdir(exist_ok=True)
    lines = (folder / "served" / "annotations.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["order"] == 0]
    (made / "annotations.jsonl").write_text("".join(kept), encoding="utf-8")
    (made / "config.json").write_text(
        (folder / "served" / "config.json").read_text(encoding="utf-8"), encoding="utf-8"
    )
    return made


def confirmed(folder: Path) -> dict[str, Any]:
    """Count pairs whose chosen picture the oracle's four ratings together put higher, the same, lower."""
    from t2ialign.annotation.annotators.oracle import rate
    from t2ialign.data.pairs import load_pairs
    from t2ialign.eval.statistics import clustered_bootstrap

    gaps, texts = [], []
    for row in load_pairs(str(folder)):
        marks = [sum(mark for mark, _ in rate(row.prompt, side).values()) for side in (row.chosen, row.rejected)]
        gaps.append(marks[0] - marks[1])
        texts.append(row.prompt)
    right = (np.sign(gaps) + 1) / 2
    return {
        "pairs": len(gaps),
        "higher": int(np.sum(np.array(gaps) > 0)),
        "same": int(np.sum(np.array(gaps) == 0)),
        "lower": int(np.sum(np.array(gaps) < 0)),
        "right": float(right.mean()),
        "ci95": list(clustered_bootstrap(right, texts)),
    }


def train(folder: Path, seed: int) -> dict[str, Any]:
    """Train the scorer and the four models."""
    scorer = folder / "vp-score" / "final"
    guided = ("--scorer", f"preference@{scorer}", "--watch", WATCHED, "--watch_every", 25, "--watch_count", 48)
    runs: dict[str, tuple[object, ...]] = {
        "vp-score": (
            *("reward", "--model", "mini-pickscore", "--pairs", folder / "pairs-each", "--head", "aspects"),
            *("--method", "head", "--steps", 400, "--batch_size", 16, "--gradient_accumulation_steps", 1),
            *("--learning_rate", 1e-3, "--lr_warmup_steps", 20, "--checkpoint_every", 0),
        ),
        "dpo": ("dpo", "--model", "mini-sd", "--pairs", folder / "pairs"),
        "modpo": (
            *("dpo", "--model", "mini-sd", "--pairs", folder / "pairs-following", "--objective", "modpo"),
            *("--modpo.weights", "aesthetic=0.2,fidelity=0.2"),
        ),
        "refl": ("refl", "--config", ROOT / "trainers" / "refl" / "mini-sd.yaml", *guided),
        "ddpo": ("ddpo", "--config", ROOT / "trainers" / "ddpo" / "mini-sd.yaml", *guided),
    }
    for name, words in runs.items():
        output = folder / name
        if not (output / "final").exists():
            resume = ("--resume", "latest") if (output / "checkpoints").exists() else ()
            t2ialign("train", *words, "--seed", seed, "--output_dir", output, *resume)
    return {name: run(json.loads((folder / name / "report.json").read_text(encoding="utf-8"))) for name in runs}


def run(report: dict[str, Any]) -> dict[str, Any]:
    """Take what is told of a run."""
    kept: dict[str, Any] = {key: report[key] for key in ("algorithm", "steps", "seconds", "watched") if key in report}
    if "held_out" in report:
        kept["held_out"] = {key: report["held_out"][key] for key in ("accuracy", "ci95", "pairs", "log_loss", "ece")}
        kept["by_aspect"] = {
            aspect: {key: each[key] for key in ("accuracy", "ci95", "pairs")}
            for aspect, each in report["by_aspect"].items()
        }
    return kept


def measure(folder: Path) -> dict[str, Any]:
    """Draw every model's pictures of the test prompts, rate and score them, and compare with mini-SD."""
    from t2ialign.annotation.annotations import ASPECTS, read_annotations
    from t2ialign.eval.compare import compare_scores
    from t2ialign.mini.oracle import judge

    found: dict[str, dict[str, Any]] = {}
    scorer = f"preference@{folder / 'vp-score' / 'final'}"
    for name in ("base", "dpo", "modpo", "refl", "ddpo"):
        pictures = folder / "test" / name
        adapter = () if name == "base" else ("--adapter", folder / name / "final")
        t2ialign(
            *("generate", "--model", "mini-sd", *adapter, "--label", name, "--prompts", folder / "test.jsonl"),
            *("--images_per_prompt", 2, "--batch_size", 40, "--output_dir", pictures),
        )
        t2ialign("annotate", pictures, "--annotator", "oracle", "--output_dir", folder / "test" / f"{name}-rated")
        t2ialign("score", pictures, "--with", scorer)
        rated = read_annotations(folder / "test" / f"{name}-rated")
        found[name] = {"ratings": sorted(rated, key=lambda each: each.prompt_id), **read(pictures)}
    keys = [(a.prompt_id, i) for a in found["base"]["ratings"] for i in range(len(a.images))]
    names = [prompt_id for prompt_id, _ in keys]
    rows: dict[str, dict[str, Any]] = {}
    for name, each in found.items():
        columns: dict[str, list[float]] = {
            aspect: [float(mark or 0) for a in each["ratings"] for mark in a.ratings[aspect]] for aspect in ASPECTS
        }
        columns["all four"] = [float(np.mean(marks)) for marks in zip(*columns.values(), strict=True)]
        columns["entirely right"] = [float(judge(prompt, image).right) for prompt, image in each["pictures"]]
        columns |= each["scores"]
        rows[name] = {key: values for key, values in columns.items()}
    table = {}
    for name, columns in rows.items():
        table[name] = {
            key: {"mean": float(np.mean(values)), "n": len(values)}
            | ({} if name == "base" else compare_scores(rows["base"][key], values, names))
            for key, values in columns.items()
            if len(set(rows["base"][key] + values)) > 1
        }
    return table


def read(pictures: Path) -> dict[str, Any]:
    """Read a set's pictures and scores, in the order of prompts and samples."""
    from t2ialign.data.image_sets import ImageSet
    from t2ialign.eval.pairs import read_scored_set

    scored = read_scored_set(pictures, None)
    image_set = ImageSet(pictures)
    ordered = sorted(image_set.records, key=lambda record: (record.prompt_id, record.sample))
    scores = {
        kind[0]: [values[(record.prompt_id, record.sample)] for record in ordered]
        for kind, values in scored.scores.items()
    }
    return {"scores": scores, "pictures": [(record.prompt, image_set.open(record)) for record in ordered]}


def main() -> None:
    """Run what is missing, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = given.output_dir.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"seed": given.seed, "prompts": PROMPTS, "test_prompts": TEST_PROMPTS}
    stages: tuple[tuple[str, Callable[[], dict[str, Any]]], ...] = (
        ("annotation", lambda: annotate(folder)),
        ("pairs", lambda: pairs(folder)),
        ("training", lambda: train(folder, given.seed)),
        ("test", lambda: measure(folder)),
    )
    for name, stage in stages:
        result[name] = stage()
        given.json.write_text(json.dumps(result, indent=1, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
