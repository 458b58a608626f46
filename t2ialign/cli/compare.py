"""`t2ialign compare`: whether image sets are better than a base, with what certainty."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from t2ialign.cli.output import say
from t2ialign.config import REQUIRED, option
from t2ialign.errors import ConfigError

DESCRIPTION = """Compare scored image sets with a base set, prompt by prompt on the same noise.

Writes compare.json and compare.md: win rates with ties as half, Wilson and prompt-clustered bootstrap intervals, and
paired tests."""

EXAMPLES = """examples:
  t2ialign compare sets/base sets/tuned --output_dir comparison
  t2ialign compare sets/base sets/tuned sets/other --scores scores.parquet --output_dir comparison
"""


@dataclass
class Options:
    """What to compare with what."""

    base: Path = option(REQUIRED, "The image set that the others are measured against.", positional=True)
    sets: list[Path] = option(REQUIRED, "The image sets to compare with it.", positional=True)
    scores: Path | None = option(None, "One scores file of all sets. Default: scores.parquet in each set.")
    output_dir: Path = option(REQUIRED, "Folder of compare.json and compare.md.")
    scorers: list[str] | None = option(None, "Scorers to compare by. Default: all that every set has.", flag="with")
    labels: list[str] | None = option(
        None, "Names of the sets in the report, the base first. Default: their folders'."
    )
    ignore_seeds: bool = option(False, "Compare although the sets were made from different noise.")
    resamples: int = option(10_000, "Bootstrap resamples.")
    seed: int = option(0, "Seed of the bootstrap.")

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if not self.sets:
            raise ConfigError("there is nothing to compare with the base; name at least one more image set")
        if self.labels is not None and len(self.labels) != 1 + len(self.sets):
            raise ConfigError(
                f"{len(self.labels)} labels for {1 + len(self.sets)} sets; give one for each, base first"
            )
        if self.resamples < 100:
            raise ConfigError(f"resamples is {self.resamples}; fewer than 100 give no interval")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must be 0 or more")


def run(options: Options) -> int:
    """Compare, and show the summary that compare.md holds."""
    from t2ialign.eval.compare import compare_sets

    compare_sets(
        options.base,
        options.sets,
        options.scores,
        options.output_dir,
        scorers=options.scorers,
        labels=options.labels,
        ignore_seeds=options.ignore_seeds,
        resamples=options.resamples,
        seed=options.seed,
    )
    say((options.output_dir / "compare.md").read_text(encoding="utf-8").rstrip())
    return 0
