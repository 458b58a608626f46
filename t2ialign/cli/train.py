"""`t2ialign train ALGO`: hands the options of an algorithm to its trainer."""

from __future__ import annotations

import importlib
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from t2ialign.cli import estimate_table
from t2ialign.cli.output import figures, quiet_libraries, say
from t2ialign.config import nearest, parse_arguments
from t2ialign.errors import ConfigError
from t2ialign.trainers.registry import ALGORITHMS, Algorithm

EXAMPLES = """examples:
  t2ialign train {name} --model {model} --pairs {pairs} --output_dir runs/first --steps 200
  t2ialign train {name} --config trainers/{name}/{small}.yaml --pairs my_pairs --output_dir runs/mine
  t2ialign train {name} --config runs/mine/config.yaml --output_dir runs/mine --resume latest
  accelerate launch -m t2ialign train {name} --config trainers/{name}/{large}.yaml --pairs my_pairs --output_dir runs/l
"""

GUIDED_EXAMPLES = """examples:
  t2ialign train {name} --model mini-sd --scorer {scorer} --output_dir runs/first --steps 20
  t2ialign train {name} --config trainers/{name}/sd15.yaml --prompts my_prompts.txt --watch aesthetic \\
      --output_dir runs/mine
  t2ialign train {name} --config runs/mine/config.yaml --output_dir runs/mine --resume latest
  accelerate launch -m t2ialign train {name} --config trainers/{name}/sdxl.yaml --prompts my_prompts.txt \\
      --output_dir runs/l
"""

SHOWN = (
    "status",
    "signal",
    "steps",
    "skipped_steps",
    "model.family",
    "model.trainable_parameters",
    "pairs.count",
    "prompts.count",
    "captions_cut",
    "bad_pairs.count",
    "users.count",
    "users.pairs_used_as_shots",
    "seconds",
    "pairs_per_second",
    "pictures_per_second",
    "first.loss",
    "last.loss",
    "last.implicit_accuracy",
    "last.margin",
    "last.reward",
    "last.divergence",
    "watched.first.watch_reward",
    "watched.last.watch_reward",
    "watched.first.watch",
    "watched.last.watch",
    "watched.over_optimised_at",
    "held_out.accuracy",
    "held_out.ece",
    "few_shot.fitted.accuracy",
    "final",
    "pushed_to",
)
"""What of a report is shown, dotted; the rest stands in report.json."""


def main(words: list[str]) -> int:
    """Train with the algorithm that the first word names, or list the algorithms."""
    if not words or words[0] in ("-h", "--help"):
        say(overview())
        return 0
    algorithm = choose(words[0])
    name = algorithm.name
    config = parse_arguments(
        load_object(algorithm.config),
        words[1:],
        f"t2ialign train {name}",
        algorithm.help,
        epilog=examples(name),
    )
    quiet_libraries()
    report = load_object(algorithm.train)(config, **(scorers(config) if algorithm.guided else {}))
    say(*summary(report), *_how_to_go_on(report, config))
    return exit_code(report)


def _how_to_go_on(report: Mapping[str, Any], config: Any) -> list[str]:
    """Say what a stop has saved, and what goes on from it."""
    if report.get("signal") is None:
        return []
    kept = f"step {report['steps']} is in {Path(config.output_dir) / 'checkpoints'}"
    return [f"stopped by {report['signal']}: {kept}; the same command with --resume latest goes on"]


def scorers(config: Any) -> dict[str, Any]:
    """Load what a reward-guided algorithm is handed: the scorer that it raises, and the one that it watches."""
    from accelerate import PartialState

    from t2ialign.engine.resume import check_output
    from t2ialign.reward_models.registry import load_scorer

    if not config.estimate:
        check_output(config.output_dir, config.resume)
    device = str(PartialState().device)
    watch = None if config.watch is None else load_scorer(config.watch, device=device)
    return {"scorer": load_scorer(config.scorer, device=device), "watch": watch}


def examples(name: str) -> str:
    """Return the examples of an algorithm's help."""
    if ALGORITHMS[name].guided:
        return GUIDED_EXAMPLES.format(name=name, scorer="oracle" if name == "ddpo" else "clipscore@mini-clip")
    models = {"model": "mini-sd", "small": "sd15", "large": "sdxl"}
    if name == "reward":
        models = {"model": "mini-clip", "small": "clip-vit-h", "large": "clip-vit-h"}
    return EXAMPLES.format(name=name, pairs="mini-user-pairs" if name == "ppd" else "mini-pairs", **models)


def exit_code(report: Mapping[str, Any]) -> int:
    """Return 0, or for a run that a signal stopped what shells expect: 128 and the signal's number."""
    name = report.get("signal")
    return 0 if name is None else 128 + signal.Signals[name].value


def choose(name: str) -> Algorithm:
    """Look an algorithm up.

    Raises:
        ConfigError: If there is none of that name; the message names the nearest.
    """
    if name.startswith("-"):
        raise ConfigError(f"the algorithm comes before the options: t2ialign train {'|'.join(ALGORITHMS)} {name} ...")
    if name not in ALGORITHMS:
        raise ConfigError(f"unknown algorithm {name!r}{nearest(name, ALGORITHMS)}")
    return ALGORITHMS[name]


def load_object(path: str) -> Any:
    """Import what a dotted path names, the last part being an attribute of a module."""
    module, _, attribute = path.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def overview() -> str:
    """List the algorithms."""
    width = max(len(name) for name in ALGORITHMS) + 2
    lines = ["usage: t2ialign train ALGO --model M --pairs P --output_dir RUN [--option value ...]", "", "algorithms:"]
    lines += [f"  {name:<{width}}{algorithm.help}" for name, algorithm in ALGORITHMS.items()]
    return "\n".join([*lines, "", "t2ialign train ALGO --help shows an algorithm's options"])


def summary(report: Mapping[str, Any]) -> list[str]:
    """Choose what of a report is worth a line: of a run what `SHOWN` names; an estimate has a table of its own."""
    if "status" not in report:
        return estimate_table.lines(report)
    return figures(dict(_flattened(report)), SHOWN)


def _flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
