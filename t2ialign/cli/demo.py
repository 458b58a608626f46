"""`t2ialign demo`: the whole loop on mini-SD."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from t2ialign.cli.output import quiet_libraries, say
from t2ialign.config import option
from t2ialign.errors import ConfigError

DESCRIPTION = """Tune the embedded mini-SD with Diffusion-DPO on its packaged pairs, and show on held-out prompts what
it brought.

Works off line, on a CPU, in minutes. Writes report.json and report.html, and says how to do the same with your
own model and pairs."""

EXAMPLES = """examples:
  t2ialign demo
  t2ialign demo --output_dir demo_seed_1 --seed 1
"""


@dataclass
class Options:
    """Where to put the demo, and its seed."""

    output_dir: Path = option(Path("t2ialign_demo"), "Folder of the run, the image sets and the report.")
    seed: int = option(0, "Seed of the tuning and of the pictures; another one gives other figures.")

    def __post_init__(self) -> None:
        """Refuse a negative seed."""
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must be 0 or more")


def run(options: Options) -> int:
    """Run the demo and show its figures."""
    from t2ialign.demo.run import run_demo

    quiet_libraries()
    report = run_demo(options.output_dir, seed=options.seed)
    say(*lines(report, options.output_dir))
    return 0


def lines(report: dict[str, object], output_dir: Path) -> list[str]:
    """Show a demo report's figures: accuracy before and after, win rates with their intervals."""
    shown = []
    for side in ("base", "tuned"):
        figures = report.get(side)
        if isinstance(figures, dict):
            shown.append(f"{side}: {figures['oracle_accuracy']:.1%} of the held-out pictures entirely right")
    rates = report.get("win_rate")
    for scorer, rate in rates.items() if isinstance(rates, dict) else ():
        low, high = rate["ci95"]
        shown.append(
            f"win rate by {scorer}: {rate['value']:.1%} (95 % interval {low:.1%} to {high:.1%}, {rate['n']} prompts)"
        )
    return [*shown, f"report: {output_dir / 'report.html'}"]
