"""The options of `t2ialign data pairs`.

Law of this file: no heavy library is imported here, for the command line reads it to print its help.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from t2ialign.config import REQUIRED, option
from t2ialign.errors import ConfigError

AGGREGATE = "aggregate"
"""The name of the judgement that all weighted aspects make together; also the pairs' `aspect`."""
EACH = "each"
"""Stands for every aspect that the source has, each by itself."""


@dataclass
class PairOptions:
    """What pairs are made from, by which rule, and where to."""

    sources: list[Path] = option(
        REQUIRED,
        "Folders of annotations (`t2ialign annotate`), or image sets with scores (`t2ialign score`).",
        positional=True,
        metavar="SOURCE",
    )
    output_dir: Path = option(REQUIRED, "Folder of the pairs to write.")
    scores: Path | None = option(
        None, "Score file of the image sets. Default: scores.parquet in each; annotations where SOURCE has them."
    )
    image_set: Path | None = option(
        None, "The image set that was annotated. Default: as the annotations' config.json says."
    )
    aspect: list[str] = option(
        [AGGREGATE],
        "What is judged: aspects (or scorers), aggregate (all of them, weighted), each (every one by itself). "
        "Several give pairs of each.",
    )
    weights: dict[str, float] = option(
        {},
        "Weights of the aggregate, a direction in the space of aspects; below 0: less is better. Aspects without one "
        "are left out. Default: all equal.",
    )
    rule: str = option(
        "weighted",
        "aggregate: the weighted mean decides; pareto: besides, no weighted aspect may point the other way.",
        choices=("weighted", "pareto"),
    )
    standardize: bool | None = option(
        None,
        "Divide marks by their standard deviation before they are aggregated. Default: yes for several scorers, no "
        "for ratings.",
    )
    veto: dict[str, float] = option(
        {}, "A picture rated so or lower is never chosen, for instance harmlessness=2. Default: none."
    )
    vetoed: str = option(
        "lose",
        "aggregate: a vetoed picture loses to one that is not, or the pair is dropped where the marks say otherwise. "
        "Pairs of a single aspect are dropped then in any case.",
        choices=("lose", "drop"),
    )
    margin: float | None = option(
        None,
        "Least difference of the marks. Default: of ratings 1 for an aspect and 0.5 for the weighted aggregate; "
        "otherwise any.",
    )
    order: str = option(
        "consistent",
        "Where pictures were shown in two orders: keep what both agree on, or take the mean.",
        choices=("consistent", "mean"),
    )
    annotators: str = option(
        "pool",
        "Several annotators make one judgement together, or pairs of their own with a user_id.",
        choices=("pool", "each"),
    )
    decide: str = option(
        "margins",
        "What decides where there are several judgements: the mean difference of marks, or the number of votes.",
        choices=("margins", "votes"),
    )
    soft_labels: bool = option(
        False, "Write preference_prob: sigmoid(beta * margin), or the share of votes with --decide votes."
    )
    beta: float = option(1.0, "Steepness of soft labels, per unit of the margin.")
    ties: str = option("drop", "Leave ties out, or write them with preference_prob 0.5.", choices=("drop", "keep"))
    choose: str = option(
        "all",
        "Of a prompt's pairs: all, the largest difference alone, or those with no picture in between.",
        choices=("all", "best_worst", "ladder"),
    )
    pairs_per_prompt: int | None = option(None, "At most so many pairs of a prompt, drawn by the seed. Default: all.")
    splits: dict[str, float] = option(
        {"train": 1.0}, "Splits and their shares of the prompts, for instance train=0.8,validation=0.1,test=0.1."
    )
    near_duplicates: float | None = option(
        0.8, "Prompts this similar (Jaccard index of runs of 4 letters) stay in one split; none: do not look."
    )
    seed: int = option(0, "Decides the splits and what is drawn.")
    overwrite: bool = option(False, "Write again what was written with other options.")

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        if not self.sources:
            raise ConfigError("no source is given; name a folder of annotations, or an image set with scores")
        if not self.aspect or len(set(self.aspect)) < len(self.aspect):
            raise ConfigError(f"aspect is {', '.join(self.aspect) or 'empty'}; name each once, or leave it out")
        if EACH in self.aspect and set(self.aspect) - {EACH, AGGREGATE}:
            raise ConfigError(f"aspect is {', '.join(self.aspect)}; each stands for all aspects already")
        for name in ("weights", "veto"):
            for aspect, value in getattr(self, name).items():
                if not math.isfinite(value):
                    raise ConfigError(f"{name}.{aspect} is {value}; it must be a number")
        if self.weights and not any(self.weights.values()):
            raise ConfigError("all weights are 0; give at least one aspect a weight")
        if AGGREGATE not in self.aspect and (self.weights or self.rule != "weighted" or self.standardize is not None):
            raise ConfigError(
                f"weights, rule and standardize are for the aggregate; aspect is {', '.join(self.aspect)}"
            )
        self._check_numbers()

    def _check_numbers(self) -> None:
        if self.margin is not None and not (math.isfinite(self.margin) and self.margin >= 0):
            raise ConfigError(f"margin is {self.margin}; it must be 0 or more")
        if not (math.isfinite(self.beta) and self.beta > 0):
            raise ConfigError(f"beta is {self.beta}; it must be above 0")
        if self.pairs_per_prompt is not None and self.pairs_per_prompt < 1:
            raise ConfigError(f"pairs_per_prompt is {self.pairs_per_prompt}; it must be at least 1")
        if self.near_duplicates is not None and not 0 < self.near_duplicates <= 1:
            raise ConfigError(f"near_duplicates is {self.near_duplicates}; it must be above 0 and at most 1")
        if self.image_set is not None and self.scores is not None:
            raise ConfigError("image_set belongs to annotations and scores to image sets; give one of them")
        for name, share in self.splits.items():
            if not (name.isidentifier() and math.isfinite(share) and share > 0):
                raise ConfigError(f"splits.{name} is {share}; write shares above 0, as in train=0.9,test=0.1")
        if abs(sum(self.splits.values()) - 1) > 1e-6:
            raise ConfigError(f"the shares of the splits add up to {sum(self.splits.values()):g}, not to 1")
