"""What training a scorer is worth in the mini-world: a tuned scorer on the oracle's pairs, PAL on users who disagree.

    python scripts/make_oracle_pairs.py --output_dir runs/oracle-pairs
    python scripts/study_reward.py pickscore --scorer pickscore@mini-pickscore --pairs runs/oracle-pairs/pairs \
        --json docs/results/reward_pairs.json
    python scripts/study_reward.py users --json docs/results/reward_users.json

`pickscore` holds a scorer trained by `trainers/reward/mini-clip.yaml` against mini-clip on a test split that neither
training nor choice has seen. `users` trains two heads on the same features with the same options but the number of
ideal points: PAL's mixture, and one point for everybody. They are measured on the last five pairs of each of the 40
users of the train split, which are not trained on, and on the 8 users of the test split, from
4 pairs each. The differences are paired; their intervals draw prompts (`pickscore`) or users (`users`).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from t2ialign.data.pairs import PairDataset, load_pairs
from t2ialign.reward_models.training.calibration import cluster_interval, measure

KEPT = ("pairs", "clusters", "accuracy", "ci95", "log_loss", "ece")
HELD = 5
"""Pairs of each user that are not trained on."""


def right(margins: Any) -> Any:
    """Credit of each pair, the first being the winner."""
    return np.where(np.asarray(margins) == 0, 0.5, np.asarray(margins) > 0)


def difference(one: Any, other: Any, clusters: list[str]) -> dict[str, Any]:
    """Paired difference in accuracy with its interval."""
    gap = right(one) - right(other)
    return {"accuracy": float(gap.mean()), "ci95": cluster_interval(gap, clusters)}


def short(measured: dict[str, Any]) -> dict[str, Any]:
    """Leave the bins out."""
    return {name: measured[name] for name in KEPT}


def pickscore(scorer_name: str, name_of_pairs: str) -> dict[str, Any]:
    """Measure both scorers on the test split."""
    from t2ialign.reward_models.registry import load_scorer

    pairs = load_pairs(name_of_pairs, split="test")
    rows = list(pairs)
    prompts, chosen, rejected = [r.prompt for r in rows], [r.chosen for r in rows], [r.rejected for r in rows]
    margins, found = {}, {}
    for name in (scorer_name, "pickscore@mini-clip"):
        scorer = load_scorer(name, device="cpu")
        margins[name] = (scorer.score(prompts, chosen) - scorer.score(prompts, rejected)).double().numpy()
        found[name] = short(measure(margins[name], np.ones(len(rows)), prompts)) | {"version": scorer.version}
    one, other = margins.values()
    return {"split": "test", **found, "difference": difference(one, other, prompts)}


def split_users(pairs: PairDataset) -> tuple[PairDataset, PairDataset]:
    """Take the last pairs of each user away; return what is left, and them."""
    rows: dict[str, list[int]] = {}
    for index, user in enumerate(pairs.column("user_id")):
        rows.setdefault(user, []).append(index)
    kept = sorted(index for each in rows.values() for index in each[:-HELD])
    return pairs.select(kept), pairs.select(sorted(index for each in rows.values() for index in each[-HELD:]))


def users(prototypes: int, seed: int) -> dict[str, Any]:
    """Train PAL and the single preference, and measure both."""
    from t2ialign.config import load
    from t2ialign.reward_models.heads import PalHead
    from t2ialign.reward_models.training.config import RewardConfig
    from t2ialign.reward_models.training.examples import PairExamples
    from t2ialign.reward_models.training.measuring import collect, few_shot_margins, margins_of
    from t2ialign.reward_models.training.trainer import RewardTrainer

    recipe = Path(__file__).resolve().parent.parent / "trainers" / "reward" / "mini-users.yaml"
    train, seen = split_users(load_pairs("mini-user-pairs"))
    unseen = load_pairs("mini-user-pairs", split="test")
    margins: dict[str, Any] = {}
    few: dict[str, Any] = {}
    for name, count in (("pal", prototypes), ("single", 1)):
        with tempfile.TemporaryDirectory() as folder:
            given = {"output_dir": f"{folder}/run", "seed": seed, "pal.prototypes": count, "pal.draws": 1}
            config = load(RewardConfig, recipe, given)
            trainer = RewardTrainer(config, train)
            trainer.train()
        task = trainer.task
        assert task is not None
        net, head, backend = task.net.eval(), task.net.head, task.backend
        more = {
            "tokenizer": backend.tokenizer,
            "limit": backend.limit,
            "preparation": backend.preparation,
            "groups": head.groups,
            "prompt_weights": False,
        }
        sets = [collect(net, PairExamples(each, "user_id", **more), backend.device) for each in (seen, unseen)]
        margins[name] = margins_of(net, sets[0]).numpy()
        assert isinstance(head, PalHead)
        few[name] = few_shot_margins(head, sets[1], shots=config.pal.shots, draws=20, prior=config.pal.prior)
    owners, new = [str(user) for user in seen.column("user_id")], few["pal"].users
    pal, single = few["pal"].fitted.numpy(), few["single"].mean.numpy()
    ones, many = np.ones(len(owners)), np.ones(len(new))
    return {
        "seed": seed,
        "prototypes": prototypes,
        "seen_users": {
            **{name: short(measure(each, ones, owners)) for name, each in margins.items()},
            "difference": difference(margins["pal"], margins["single"], owners),
        },
        "unseen_users": {
            "shots": 4,
            "draws": 20,
            "pal": short(measure(pal, many, new)),
            "pal_without_shots": short(measure(few["pal"].mean.numpy(), many, new)),
            "single": short(measure(single, many, new)),
            "difference": difference(pal, single, new),
        },
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pickscore", "users"))
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--scorer", default="pickscore@runs/scorer/final", help="what is held against mini-clip")
    parser.add_argument("--pairs", default="mini-pairs", help="the set whose test split is measured")
    parser.add_argument("--prototypes", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found = pickscore(given.scorer, given.pairs) if given.what == "pickscore" else users(given.prototypes, given.seed)
    given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
