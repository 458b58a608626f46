"""`t2ialign grid`: one picture that shows image sets side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from t2ialign.cli.output import say
from t2ialign.config import REQUIRED, option
from t2ialign.errors import ConfigError

DESCRIPTION = "Draw a labelled PNG of image sets: prompts down, models across, the same sample numbers side by side."

EXAMPLES = """examples:
  t2ialign grid sets/base sets/tuned --output grid.png --max_prompts 8 --samples 2
"""


@dataclass
class Options:
    """What to draw."""

    sets: list[Path] = option(REQUIRED, "Image sets, a column (or several, with samples) each.", positional=True)
    output: Path = option(REQUIRED, "The picture to write, a PNG.")
    max_prompts: int = option(16, "Only the first so many of the prompts that all sets have.")
    samples: int = option(1, "Pictures of a prompt that are shown of each set.")
    cell: int | None = option(
        None, "Side of a picture in the grid, pixels. Default: between 128 and 256, as suits the pictures."
    )
    labels: list[str] | None = option(None, "Names of the sets in the grid. Default: their models' or folders'.")

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        for name, lowest in (("max_prompts", 1), ("samples", 1), ("cell", 16)):
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise ConfigError(f"{name} is {value}; it must be at least {lowest}")
        if not self.sets:
            raise ConfigError("no image set is given; name at least one")
        if self.labels is not None and len(self.labels) != len(self.sets):
            raise ConfigError(f"{len(self.labels)} labels for {len(self.sets)} sets; give one for each")
        if self.output.suffix.lower() != ".png":
            raise ConfigError(f"output is {str(self.output)!r}; a grid is written as PNG, name it so")


def run(options: Options) -> int:
    """Draw the grid and say where it is."""
    from t2ialign.generation.grid import make_grid

    make_grid(
        options.sets,
        options.output,
        max_prompts=options.max_prompts,
        samples=options.samples,
        cell=options.cell,
        labels=options.labels,
    )
    say(f"{options.output}")
    return 0
