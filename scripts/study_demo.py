"""How the demo's settings were found, and what the demo gives for several seeds.

    python scripts/study_demo.py settings --output_dir build/settings --json docs/results/demo_settings.json
    python scripts/study_demo.py seeds --output_dir build/seeds --json docs/results/demo_seeds.json

`settings` tries each setting on the validation split, judged by the oracle alone, and never looks at the test split;
`seeds` runs the demo as it is. Both add to their JSON file as they go and skip what it holds.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from t2ialign.demo.run import DemoSettings, run_demo

TRIALS: dict[str, dict[str, Any]] = {
    "A": {"steps": 120, "batch_size": 16, "learning_rate": 3e-4, "beta": 2000.0},
    "B": {"steps": 120, "batch_size": 16, "learning_rate": 1e-3, "beta": 2000.0},
    "C": {"steps": 120, "batch_size": 16, "learning_rate": 1e-3, "beta": 500.0},
    "D": {"steps": 240, "batch_size": 16, "learning_rate": 1e-3, "beta": 2000.0},
    "E": {"steps": 240, "batch_size": 16, "learning_rate": 2e-3, "beta": 2000.0},
}
"""Settings that were tried, in this order, each on the validation split with seed 100."""
VALIDATION_SEED = 100


def _keep(report: dict[str, Any]) -> dict[str, Any]:
    names = ("seed", "split", "prompts", "training", "base", "tuned", "win_rate", "comparison", "seconds", "parts")
    return {name: report[name] for name in names}


def _study(name: str, known: dict[str, Any], folder: Path) -> dict[str, Any]:
    if name in known:
        return known[name]  # type: ignore[no-any-return]
    if name in TRIALS:
        settings = DemoSettings(prompts=100, split="validation", scorers=("oracle",), training=TRIALS[name])
        return _keep(run_demo(folder / name, VALIDATION_SEED, settings))
    return _keep(run_demo(folder / name, int(name)))


def _line(name: str, report: dict[str, Any]) -> str:
    rates = [report["win_rate"].get(scorer) for scorer in ("oracle", "clipscore")]
    shown = [f"{r['value']:.3f} ({r['ci95'][0]:.3f} to {r['ci95'][1]:.3f})" if r else "" for r in rates]
    accuracy = [f"{report[side]['oracle_accuracy']:.3f}" for side in ("base", "tuned")]
    return " | ".join(["", name, *accuracy, *shown, f"{report['seconds']:.0f}", ""]).strip()


def main() -> None:
    """Run the study and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=["settings", "seeds"])
    parser.add_argument("names", nargs="*", help="trials or seeds; all by default")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    names = arguments.names or (list(TRIALS) if arguments.study == "settings" else [str(s) for s in range(5)])
    known: dict[str, Any] = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    print("| | base | tuned | win rate, oracle | win rate, clipscore | seconds |\n|---|---|---|---|---|---|")
    for name in names:
        known[name] = _study(name, known, arguments.output_dir)
        aside = arguments.json.with_suffix(".tmp")
        aside.write_text(json.dumps(known, indent=1) + "\n")
        os.replace(aside, arguments.json)
        print(_line(name, known[name]), flush=True)


if __name__ == "__main__":
    main()
