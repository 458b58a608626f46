"""`t2ialign pareto`: which of several settings no other one beats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from t2ialign.cli.output import say
from t2ialign.config import REQUIRED, option
from t2ialign.errors import ConfigError

DESCRIPTION = """Find the Pareto front of scored image sets, each drawn from the same prompts at another setting:
guidance scale, steps, checkpoint, weight of an interpolation.

Writes pareto.json, pareto.csv and pareto.svg: the front, the probability of each set to be on it, the hypervolume."""

EXAMPLES = """examples:
  t2ialign pareto sets/cfg3 sets/cfg8 --axes clipscore,vendi --embedder clipscore@mini-clip --output_dir front
"""


@dataclass
class Options:
    """What to weigh against what."""

    sets: list[Path] = option(REQUIRED, "Scored image sets, one a setting.", positional=True)
    axes: list[str] = option(REQUIRED, "Scorers, and vendi for the diversity within prompts. Two or three are usual.")
    output_dir: Path = option(REQUIRED, "Folder of pareto.json, pareto.csv and pareto.svg.")
    embedder: str | None = option(None, "Scorer whose features vendi is of, for instance clipscore@mini-clip.")
    order: float = option(1.0, "Order q of the Vendi score.")
    labels: list[str] | None = option(None, "Names of the sets. Default: their folders'.")
    resamples: int = option(2000, "Bootstrap resamples over prompts.")
    seed: int = option(0, "Seed of the bootstrap.")
    device: str = option("auto", "Where the embedder runs.")

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if len(self.sets) < 2:
            raise ConfigError("one set has no front; name at least two image sets, one a setting")
        if len(set(self.axes)) < max(2, len(self.axes)):
            raise ConfigError(f"axes are {', '.join(self.axes)}; name at least two different ones")
        if self.labels is not None and len(self.labels) != len(self.sets):
            raise ConfigError(f"{len(self.labels)} labels for {len(self.sets)} sets; give one for each")
        if self.resamples < 100:
            raise ConfigError(f"resamples is {self.resamples}; fewer than 100 give no interval")
        if not self.order >= 0:
            raise ConfigError(f"order is {self.order}; it must be 0 or more")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must be 0 or more")


def run(options: Options) -> int:
    """Find the front, write it and show it."""
    from t2ialign.eval.pareto import pareto_front, points_of_sets
    from t2ialign.reward_models.base import Embedder
    from t2ialign.reward_models.registry import load_scorer

    embedder = None
    if options.embedder is not None:
        embedder = load_scorer(options.embedder, device=options.device)
        if not isinstance(embedder, Embedder):
            raise ConfigError(f"{options.embedder} embeds no pictures; name clipscore, pickscore or hpsv2")
    points, axes = points_of_sets(
        options.sets, options.axes, embedder=embedder, labels=options.labels, q=options.order
    )
    front = pareto_front(points, axes, resamples=options.resamples, seed=options.seed)
    front.write(options.output_dir)
    for point in front.points:
        figures = ", ".join(f"{axis.name} {point.values[axis.name]:.4g}" for axis in axes)
        place = "on the front" if point.on_front else "dominated"
        surely = "" if point.membership is None else f" (in {100 * point.membership:.0f} % of resamples on it)"
        say(f"{point.label}: {place}{surely}; {figures}; {front.prompts} prompts")
    say(*front.notes, f"{options.output_dir / 'pareto.svg'}")
    return 0
