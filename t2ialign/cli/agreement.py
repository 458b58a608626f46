"""`t2ialign agreement`: whether an annotator is any good."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from t2ialign.cli.output import say
from t2ialign.config import REQUIRED, option
from t2ialign.errors import ConfigError

DESCRIPTION = """Hold an annotator's ratings against those of people or of another annotator, or held-out pairs.

Writes agreement.json and agreement.html: accuracy, kappa and alpha by aspect with intervals over prompts, consistency
when the order of pictures is swapped, biases, and the disagreements as pictures. Pictures are matched by the sha256 of
their files."""

EXAMPLES = """examples:
  t2ialign agreement annotations/qwen --against annotations/people --output_dir agreement
  t2ialign agreement annotations/qwen --against human_pairs --split test --output_dir agreement
  t2ialign agreement annotations/qwen --against annotations/gpt --output_dir agreement --policy imagereward
"""

POLICIES = ("pickscore", "pickscore_trainer", "imagereward", "hpsv2", "hpsv2_imagereward")
PASSES = ("mean", "first")


@dataclass
class Options:
    """Who is held against whom, and how."""

    annotations: Path = option(REQUIRED, "The folder of annotations.", positional=True, metavar="DIR")
    against: str = option(
        REQUIRED, "Another folder of annotations, or preference pairs: a folder, a file, or a hub dataset id."
    )
    output_dir: Path = option(REQUIRED, "Folder of agreement.json and agreement.html.")
    images: Path | None = option(None, "The image set that was annotated. Default: the one that the annotations name.")
    annotator: str | None = option(None, "Take this annotator's lines alone. Default: the mean of all.")
    reference: str | None = option(None, "Of the other side, take this annotator's lines or this user's pairs alone.")
    split: str = option("train", "Which split of the pairs.")
    policy: str = option("pickscore", "What a tie is worth in the accuracy.", choices=POLICIES)
    passes: str = option("mean", "Compare the mean of all passes, or the first alone.", choices=PASSES)
    shown: int = option(24, "Disagreements on the page, at most.")
    resamples: int = option(10_000, "Resamples of the intervals and of the tests.")
    seed: int = option(0, "Seed of both.")

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if self.resamples < 100:
            raise ConfigError(f"resamples is {self.resamples}; fewer than 100 give no interval")
        if self.shown < 0 or self.seed < 0:
            raise ConfigError(f"shown is {self.shown} and seed {self.seed}; both must be 0 or more")


def run(options: Options) -> int:
    """Measure, and show what may be said."""
    from t2ialign.eval.agreement.measuring import measure_agreement
    from t2ialign.eval.agreement.words import table

    result = measure_agreement(
        options.annotations,
        options.against,
        options.output_dir,
        images=options.images,
        annotator=options.annotator,
        reference=options.reference,
        first_pass=options.passes == "first",
        split=options.split,
        policy=options.policy,
        shown=options.shown,
        resamples=options.resamples,
        seed=options.seed,
    )
    say(*table(result), "", *result["sentences"], "", f"page: {options.output_dir / 'agreement.html'}")
    return 0
