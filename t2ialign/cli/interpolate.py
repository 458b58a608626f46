"""`t2ialign interpolate`: models between two tuned ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from t2ialign.cli.output import say
from t2ialign.config import REQUIRED, option
from t2ialign.errors import ConfigError

DESCRIPTION = """Write models between two: (1 - w) FIRST + w SECOND, for one weight w or several.

Two LoRAs of one base give LoRAs, exactly weighted; other models of one architecture give whole pipelines. Each is a
folder DIR/w0.50/final with its card, to generate with and to evaluate like any run."""

EXAMPLES = """examples:
  t2ialign interpolate runs/quality/final runs/diverse/final --weights 0.25,0.5,0.75 --output_dir between
  t2ialign interpolate mini-sd runs/first/final --weights 0.5 --output_dir half
"""


@dataclass
class Options:
    """Which models, and how far between them."""

    first: str = option(
        REQUIRED, "The model at weight 0: a run's final/, or anything that --model takes.", positional=True
    )
    second: str = option(REQUIRED, "The model at weight 1.", positional=True)
    output_dir: Path = option(REQUIRED, "Folder of the models, one a weight: wW/final.")
    weights: list[float] = option([0.5], "Weights of the second model; beyond 0 and 1, from -1 to 2, extrapolates.")

    def __post_init__(self) -> None:
        """Refuse weights out of range, and two that would be one folder."""
        if not self.weights:
            raise ConfigError("weights is empty; name one, for instance --weights 0.5")
        for weight in self.weights:
            if not -1 <= weight <= 2:
                raise ConfigError(f"weights holds {weight:g}; a weight lies between -1 and 2")
        names = [folder_name(weight) for weight in self.weights]
        if len(set(names)) < len(names):
            raise ConfigError(f"weights {', '.join(f'{weight:g}' for weight in self.weights)} repeat; name each once")


def folder_name(weight: float) -> str:
    """The folder of a weight: two digits, more where they are needed."""
    short = f"{weight:.2f}"
    return f"w{short if float(short) == weight else f'{weight:g}'}"


def run(options: Options) -> int:
    """Write each model and say where it is."""
    from t2ialign.cli.output import quiet_libraries
    from t2ialign.models.interpolate import interpolate

    quiet_libraries()
    for weight in options.weights:
        final = options.output_dir / folder_name(weight) / "final"
        say(f"{interpolate(options.first, options.second, weight, final)}")
    return 0
