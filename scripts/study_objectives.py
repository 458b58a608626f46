"""Whether each algorithm and objective works on mini-SD: its margin, held-out pairs, and what its final/ draws.

    python scripts/study_objectives.py --split validation --seed 100 --output_dir build/study --json build/study.json
    python scripts/study_objectives.py dpo mapo ppd --output_dir build/study --json docs/results/objectives.json

Each case is trained with the defaults for mini-SD and what `CASES` says, then measured three ways:

    margin    mean z over the first and over the last tenth of training
    pairs     of held-out pairs, the share on whose preferred side the trained model gained more than on the other:
              (r_w - e_w) - (r_l - e_l) > 0 in the mean over a few noises, r being the errors of mini-SD itself, for
              every algorithm, whether it has a reference or not; a model that learned nothing gains on one half
    pictures  share of pictures of held-out prompts that are entirely right by the oracle, beside mini-SD's own on the
              same noise; for PPD, how often an unseen user likes the picture drawn for them better than mini-SD's

It adds to the JSON file as it goes and skips what that holds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from t2ialign.cli.train import load_object
from t2ialign.config import load
from t2ialign.data.pairs import PairDataset, load_pairs, write_pairs
from t2ialign.demo.prompts import held_out_prompts
from t2ialign.engine.metrics import read_metrics
from t2ialign.engine.randomness import Draws
from t2ialign.eval.statistics import wilson
from t2ialign.generation.sampler import generate_images
from t2ialign.generation.seeds import image_seed
from t2ialign.mini.oracle import judge, read
from t2ialign.mini.users import taste, user_ids
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.models.loading import load_model
from t2ialign.objectives import per_sample_error
from t2ialign.trainers.examples import ExampleOptions, PairExamples
from t2ialign.trainers.registry import ALGORITHMS
from t2ialign.users.embed import embed_users
from t2ialign.users.extractors import load_extractor
from t2ialign.users.files import UserEmbedding
from t2ialign.users.shots import SHOTS, ShotSettings, training_rows

NOISES = 4
"""Noises on which a held-out pair is measured."""
EVAL_SEED = 20_240
"""Of those noises; no training run has it."""
VALIDATION_USERS = 8
"""The last users of the train split, who stand in for the unseen ones while settings are chosen."""
USER_PROMPTS = ("a circle", "a square", "a star", "a ring", "a small star", "a large square", "a flag", "a cross")
SAMPLES = 4
"""Pictures of each prompt for each user."""

GROUPED = {"pairs": "grouped"}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "dpo": ("dpo", {}),
    "ipo": ("dpo", {"objective": "ipo"}),
    "ipo, beta 200": ("dpo", {"objective": "ipo", "beta": 200.0}),
    "hinge": ("dpo", {"objective": "hinge"}),
    "orpo": ("dpo", {"objective": "orpo"}),
    "cdpo": ("dpo", {"objective": "cdpo"}),
    "rdpo": ("dpo", {"objective": "rdpo"}),
    "rdpo, flip rate 0.01": ("dpo", {"objective": "rdpo", "rdpo.flip_rate": 0.01}),
    "soft": ("dpo", {"objective": "soft", "soft.temperature": 0.05}),
    "soft, geometric": ("dpo", {"objective": "soft", "soft.temperature": 0.05, "soft.form": "geometric"}),
    "offset": ("dpo", {"objective": "offset", "offset.scale": 2.0}),
    "fdpo, forward KL": ("dpo", {"objective": "fdpo", "fdpo.divergence": "forward_kl"}),
    "fdpo, Jensen-Shannon": ("dpo", {"objective": "fdpo", "fdpo.divergence": "jensen_shannon"}),
    "fdpo, alpha 0.5": ("dpo", {"objective": "fdpo", "fdpo.divergence": "alpha"}),
    "alpha_dpo": ("dpo", {"objective": "alpha_dpo"}),
    "alpha_dpo, batch": ("dpo", {"objective": "alpha_dpo", "alpha_dpo.dynamic": "batch"}),
    "modpo": ("dpo", {"objective": "modpo", "modpo.weights": {"oracle": 0.2}}),
    "directional": ("dpo", {"objective": "directional", "directional.weights": {"oracle": 1.0}}),
    "dr_dpo": ("dpo", {"objective": "dr_dpo"}),
    "kl_dro": ("dpo", {"objective": "kl_dro"}),
    "group_robust": ("dpo", {"objective": "group_robust", **GROUPED}),
    "maxmin": ("dpo", {"objective": "maxmin", **GROUPED}),
    "curriculum": ("dpo", {"curriculum_stages": 3}),
    "dcpo": ("dcpo", {}),
    "mapo": ("mapo", {}),
    "sft": ("sft", {}),
    "kto": ("kto", {}),
    "ppd": ("ppd", {"pairs": "mini-user-pairs"}),
    "ppd, 100 pairs a user": (
        "ppd",
        {"pairs": "more users' pairs", "steps": 600, "shots": 8, "shot_pool": 24, "embeddings": 16},
    ),
}
"""Algorithm and options of each case."""


def grouped_pairs(folder: Path) -> str:
    """mini-pairs with a group: whether the rejected picture has the right objects in the wrong relation, or not."""
    if not folder.exists():
        pairs = load_pairs("mini-pairs")
        rows = [{"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected, "group": _group(p)} for p in pairs]
        write_pairs(rows, folder)
    return str(folder)


def _group(pair: Any) -> str:
    wrong = {name.split(" ")[0] for name, good in judge(pair.prompt, pair.rejected).attributes.items() if not good}
    return "relation" if wrong == {"relation"} else "attributes"


def more_user_pairs(folder: Path) -> str:
    """mini-user-pairs made again with four times the pairs of each user, by the maker of the packaged set."""
    if not folder.exists():
        from mini_sd import make_pairs

        make_pairs.PAIRS_A_USER = 100
        for split, rows in make_pairs.mini_user_pairs(load_model("mini-sd").pipeline, seed=7).items():
            write_pairs(rows, folder, split)
    return str(folder)


def without_validation_users(folder: Path) -> tuple[str, PairDataset]:
    """mini-user-pairs without the users that validate, on disk, and the pairs of those users."""
    pairs = load_pairs("mini-user-pairs")
    users = pairs.column("user_id")
    held = set(user_ids("train")[-VALIDATION_USERS:])
    if not folder.exists():
        kept = [pairs[index] for index, user in enumerate(users) if user not in held]
        write_pairs(
            [{"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected, "user_id": p.user_id} for p in kept],
            folder,
        )
    return str(folder), pairs.select([index for index, user in enumerate(users) if user in held])


@torch.no_grad()
def pair_gains(
    base: DiffusionModel, model: DiffusionModel, pairs: PairDataset, users: dict[str, UserEmbedding] | None = None
) -> list[float]:
    """(r_w - e_w) - (r_l - e_l) of each pair, the mean over a few noises."""
    side = base.resolution // int(base.pipeline.vae_scale_factor)
    shape = (int(base.vae.config.latent_channels), side, side)
    examples = PairExamples(pairs, ExampleOptions(base.resolution, shape, base.num_train_timesteps))
    names = pairs.column("user_id")
    gains = []
    for index in range(len(pairs)):
        drawn = [examples.read(index, Draws(EVAL_SEED, index * NOISES + number)) for number in range(NOISES)]
        batch = examples.collate(drawn)
        assert batch.pixels is not None
        latents = base.encode_images(batch.pixels, batch.posterior)
        timesteps, noise = batch.timesteps.repeat(2), batch.noise.repeat(2, 1, 1, 1)
        noisy, target = base.add_noise(latents, noise, timesteps), base.target(latents, noise, timesteps)
        text = base.encode_prompts(batch.prompts[:1]).index([0] * len(batch.prompts))
        held = per_sample_error(base.predict(noisy, timesteps, text), target)
        if users is not None:
            tokens = users[str(names[index])].mean()
            text = text.with_user(tokens.expand(len(batch.prompts), *tokens.shape))
        gained = held - per_sample_error(model.predict(noisy, timesteps, text), target)
        chosen, rejected = gained.chunk(2)
        gains.append(float((chosen - rejected).mean()))
    return gains


def share(good: Sequence[bool] | Sequence[float]) -> dict[str, Any]:
    """A share with its Wilson interval."""
    return {"value": float(np.mean(good)), "ci95": list(wilson(float(np.sum(good)), len(good))), "n": len(good)}


def right_pictures(model: DiffusionModel, prompts: list[str], seed: int) -> list[bool]:
    """Whether the picture of each prompt is entirely right by the oracle."""
    seeds = [image_seed(seed, prompt, 0) for prompt in prompts]
    drawn = generate_images(model, prompts, seeds, batch_size=40)
    return [judge(prompt, picture).right for prompt, picture in zip(prompts, drawn, strict=True)]


def liked_pictures(
    base: DiffusionModel, model: DiffusionModel, users: dict[str, UserEmbedding], seed: int, scales: Sequence[float]
) -> dict[str, Any]:
    """How often a user likes the picture drawn for them better than the base's on the same noise; ties are halves.

    Args:
        base: mini-SD.
        model: With the user adapter.
        users: Whom to draw for.
        seed: Of the pictures.
        scales: Guidance scales of the user.

    Returns:
        Figures by scale.
    """
    worth: dict[str, list[tuple[str, float, float]]] = {f"{scale:g}": [] for scale in scales}
    for user, embedding in users.items():
        asked = [(prompt, sample) for prompt in USER_PROMPTS for sample in range(SAMPLES)]
        prompts = [prompt for prompt, _ in asked]
        seeds = [image_seed(seed, f"{user} {prompt}", sample) for prompt, sample in asked]
        plain = [_liking(user, picture) for picture in generate_images(base, prompts, seeds, batch_size=32)]
        for scale in scales:
            own = [embedding.mean()] * len(prompts)
            drawn = generate_images(model, prompts, seeds, batch_size=32, users=own, user_guidance_scale=scale)
            worth[f"{scale:g}"] += [
                (user, _liking(user, mine), theirs) for mine, theirs in zip(drawn, plain, strict=True)
            ]
    return {scale: _compared(rows) for scale, rows in worth.items()}


def _compared(rows: list[tuple[str, float, float]]) -> dict[str, Any]:
    """Win rate over users with a bootstrap over them, from what a user's picture and the base's are worth."""
    wins: dict[str, list[float]] = {}
    for user, mine, theirs in rows:
        wins.setdefault(user, []).append(0.5 if mine == theirs else float(mine > theirs))
    each = np.array([np.mean(row) for row in wins.values()])
    rng = np.random.default_rng(0)
    means = [each[rng.integers(0, len(each), len(each))].mean() for _ in range(2000)]
    return {
        "win_rate": float(each.mean()),
        "ci95_over_users": [float(value) for value in np.quantile(means, (0.025, 0.975))],
        "by_user": {user: round(float(value), 3) for user, value in zip(wins, each, strict=True)},
        "utility_gain": float(np.mean([mine - theirs for _, mine, theirs in rows if -math.inf not in (mine, theirs)])),
        "unreadable": {
            "tuned": sum(row[1] == -math.inf for row in rows),
            "base": sum(row[2] == -math.inf for row in rows),
        },
        "n": len(rows),
    }


def _liking(user: str, picture: Any) -> float:
    """What a picture is worth to a user; nothing is worse than one that can not be read."""
    spec = read(picture).spec
    return -math.inf if spec is None else taste(user).utility(spec)


class Study:
    """One run of the study: where things lie, and what is shared by its cases."""

    def __init__(
        self, folder: Path, split: str, seed: int, more: dict[str, Any], scales: Sequence[float] = (4.0,)
    ) -> None:
        self.folder, self.split, self.seed, self.more, self.scales = folder, split, seed, more, scales
        self.base = load_model("mini-sd")
        self.prompts = held_out_prompts(100, seed, split)
        self._base_right: list[bool] | None = None

    def run(self, name: str, label: str) -> dict[str, Any]:
        """Train a case and measure it; the label names its folder."""
        algorithm, options = CASES[name]
        options = {**options, **self.more}
        if options.get("pairs") == "grouped":
            options["pairs"] = grouped_pairs(self.folder / "grouped")
        held = load_pairs("mini-pairs", split=self.split)
        if algorithm == "ppd":
            if options["pairs"] == "more users' pairs":
                options["pairs"] = more_user_pairs(self.folder / "more-users")
            held = load_pairs(options["pairs"], split="test")
            if self.split == "validation":
                options["pairs"], held = without_validation_users(self.folder / "users-kept")
        run = self.folder / f"{label}-seed-{self.seed}".replace(", ", "-").replace(" ", "_").replace(":", "-")
        shutil.rmtree(run, ignore_errors=True)
        began = time.perf_counter()
        report, config = self._train(algorithm, options, run)
        seconds = time.perf_counter() - began
        return {"options": config, "seed": self.seed, "split": self.split, "seconds": round(seconds), **report} | (
            self._personal(run, held, options) if algorithm == "ppd" else self._plain(run, held)
        )

    def _train(self, algorithm: str, options: dict[str, Any], run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        entry = ALGORITHMS[algorithm]
        given = {
            "model": "mini-sd",
            "pairs": "mini-pairs",
            "output_dir": str(run),
            "seed": self.seed,
            "checkpoint_every": 0,
            **options,
        }
        report = load_object(entry.train)(load(load_object(entry.config), None, given))
        lines = read_metrics(run / "metrics.jsonl")
        tenth = max(1, len(lines) // 10)
        figures = {}
        for figure in ("margin", "implicit_accuracy", "loss"):
            values = [float(line[figure]) for line in lines if line.get(figure) is not None]
            if len(values) == len(lines):
                figures[figure] = {"first": float(np.mean(values[:tenth])), "last": float(np.mean(values[-tenth:]))}
        return {"training": figures, "steps": report["steps"]}, {"algorithm": algorithm, **options}

    def _plain(self, run: Path, held: PairDataset) -> dict[str, Any]:
        model = load_model(run / "final")
        gains = pair_gains(self.base, model, held)
        if self._base_right is None:
            self._base_right = right_pictures(self.base, self.prompts, self.seed)
        after = right_pictures(model, self.prompts, self.seed)
        return {
            "held_out_pairs": share([gain > 0 for gain in gains]),
            "entirely_right": {"base": share(self._base_right), "tuned": share(after)},
        }

    def _personal(self, run: Path, held: PairDataset, options: dict[str, Any]) -> dict[str, Any]:
        model = load_model(run / "final")
        shots = int(options.get("shots", SHOTS))
        users = embed_users(held, load_extractor("clip:mini-clip"), ShotSettings(shots=shots, seed=self.seed))
        rest = held.select(training_rows(held, users).rows)
        gains = pair_gains(self.base, model, rest, users)
        return {
            "held_out_pairs": share([gain > 0 for gain in gains]),
            "users": len(users),
            "shots": shots,
            "liked": liked_pictures(self.base, model, users, self.seed, self.scales),
        }


def line(name: str, report: dict[str, Any]) -> str:
    """One row of the table."""
    margin = report["training"].get("margin")
    pairs = report["held_out_pairs"]
    cells = [name, f"{margin['first']:.2f} to {margin['last']:.2f}" if margin else "none"]
    cells += [f"{pairs['value']:.1%} ({pairs['ci95'][0]:.0%} to {pairs['ci95'][1]:.0%})"]
    if "liked" in report:
        for scale, liked in report["liked"].items():
            low, high = liked["ci95_over_users"]
            cells += [f"scale {scale}: {liked['win_rate']:.1%} liked better ({low:.0%} to {high:.0%})"]
    else:
        cells += [f"{report['entirely_right'][side]['value']:.0%}" for side in ("base", "tuned")]
    return "| " + " | ".join([*cells, f"{report['seconds']} s"]) + " |"


def keep(path: Path) -> tuple[dict[str, Any], Callable[[], None]]:
    """What a JSON file holds, and how to write it back."""
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def write() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".tmp")
        aside.write_text(json.dumps(known, indent=1, default=str) + "\n")
        os.replace(aside, path)

    return known, write


def main() -> None:
    """Run the cases that are asked for and print their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"cases, all by default: {', '.join(CASES)}")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--label", default="", help="put before a case's name, for trials")
    parser.add_argument("--user_scales", type=float, nargs="+", default=[4.0], help="the user's guidance, for ppd")
    parser.add_argument("--set", default="{}", help="JSON of further options, for trials")
    arguments = parser.parse_args()
    more = json.loads(arguments.set)
    study = Study(arguments.output_dir, arguments.split, arguments.seed, more, arguments.user_scales)
    known, write = keep(arguments.json)
    for name in arguments.names or CASES:
        label = arguments.label + name
        if label not in known:
            known[label] = study.run(name, label)
            write()
        print(line(label, known[label]), flush=True)


if __name__ == "__main__":
    main()
