"""Do the tests reject and the intervals cover as often as they say, when two models are in truth the same?

    python scripts/study_statistics.py --json docs/results/statistics_null.json

Both models' scores are drawn from one table: a prompt's own level, a shift of the prompt that both share (the common
noise), and a picture's own noise, rounded for some cases so that ties come up. Each repeat is compared by
`t2ialign.eval.compare.compare_scores`, the function behind `t2ialign compare` and the report. A test at 5 % should
reject in about 5 % of the repeats, an interval of 95 % cover the truth (a win rate of one half, a difference of 0) in
about 95 %. With 2,000 repeats the standard error of either figure is 0.5 points.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from t2ialign.eval.compare import compare_scores

CASES: dict[str, dict[str, Any]] = {
    "200 prompts, 1 picture each": {"prompts": 200, "samples": 1},
    "100 prompts, 4 pictures each": {"prompts": 100, "samples": 4},
    "50 prompts, 2 pictures each": {"prompts": 50, "samples": 2},
    "200 prompts, 1 picture each, a third of them ties": {"prompts": 200, "samples": 1, "rounding": 1.2},
    "200 prompts, 1 picture each, skewed": {"prompts": 200, "samples": 1, "skewed": True},
}


def repeat(case: dict[str, Any], seed: int, resamples: int) -> dict[str, bool]:
    """Draw one table twice, compare, and say what was rejected and covered."""
    rng = np.random.default_rng(seed)
    prompts, samples = case["prompts"], case["samples"]
    level = rng.normal(0, 1, (prompts, 1)) + rng.normal(0, 0.5, (prompts, samples))
    noise = (
        rng.exponential(1, (2, prompts, samples)) if case.get("skewed") else rng.normal(0, 1, (2, prompts, samples))
    )
    scores = level + noise
    if "rounding" in case:
        scores = np.round(scores / case["rounding"])
    names = [f"p{i}" for i in range(prompts) for _ in range(samples)]
    found = compare_scores(scores[0].ravel(), scores[1].ravel(), names, resamples=resamples, seed=seed)
    rate, difference = found["win_rate"], found["difference"]

    def holds(interval: list[float], truth: float) -> bool:
        return interval[0] <= truth <= interval[1]

    return {
        "sign test rejects": found["tests"]["sign"]["p"] < 0.05,
        "wilcoxon rejects": found["tests"]["wilcoxon"]["p"] < 0.05,
        "verdict is not 'no difference shown'": found["verdict"] != "no difference shown",
        "bca interval of the win rate covers": holds(rate["ci95"], 0.5),
        "percentile interval of the win rate covers": holds(rate["ci95_percentile"], 0.5),
        "wilson interval of the win rate covers": holds(rate["ci95_wilson"], 0.5),
        "bca interval of the difference covers": holds(difference["ci95"], 0.0),
    }


def main() -> None:
    """Run every case and write the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=2000)
    given = parser.parse_args()
    cases = {}
    for name, case in CASES.items():
        found = [repeat(case, seed, given.resamples) for seed in range(given.repeats)]
        cases[name] = {key: float(np.mean([each[key] for each in found])) for key in found[0]}
        print(name, json.dumps(cases[name], indent=1), flush=True)
    result = {"repeats": given.repeats, "resamples": given.resamples, "seeds": [0, given.repeats - 1], "cases": cases}
    given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
