"""`t2ialign score`: a score for every picture of an image set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from t2ialign.cli.output import quiet_libraries, say
from t2ialign.config import REQUIRED, option
from t2ialign.errors import ConfigError

if TYPE_CHECKING:
    from t2ialign.reward_models.scoring import ScoringSummary

DESCRIPTION = """Score every picture of an image set; write scores.parquet, and beside it what each scorer computed.

Pictures that the file already scores are not scored again; a run that was stopped is continued by the same command.
Under `accelerate launch -m t2ialign score ...` several processes share the pictures."""

EXAMPLES = """examples:
  t2ialign score sets/tuned --with oracle
  t2ialign score sets/tuned --with oracle,clipscore@mini-clip --output sets/tuned/scores.parquet
  t2ialign score sets/tuned --with clipscore@openai/clip-vit-large-patch14 --batch_size 64 --workers 4
  t2ialign score hpsv2_pictures --with clipscore --prompts HPDv2/benchmark
"""

LAYOUTS = ("t2ialign", "hpsv2", "geneval", "imagereward", "evalgim", "captions", "rankings")


@dataclass
class Options:
    """What to score, and with what."""

    image_set: Path = option(REQUIRED, "The image set.", positional=True, metavar="SET")
    scorers: list[str] = option(
        REQUIRED, "Scorers, several with commas: NAME, NAME@PATH_OR_ID, NAME?setting=value&...", flag="with"
    )
    output: Path | None = option(None, "The scores file. Default: SET/scores.parquet.")
    layout: str | None = option(
        None, "How the set is laid out. Default: seen from the folder, where it is certain.", choices=LAYOUTS
    )
    prompts: Path | None = option(None, "File or folder of the prompts, for layouts that keep them elsewhere.")
    batch_size: int = option(32, "Pictures scored at once; it changes speed and memory, not scores.")
    workers: int | None = option(
        None, "Processes that decode pictures. Default: one a processor, at most 8. 0 decodes in the scoring process."
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps; auto is a CUDA GPU where there is one.")
    autocast: str = option(
        "no", "Number format of the forward where torch may choose; it changes scores.", choices=("no", "bf16", "fp16")
    )
    allow_gaps: bool = option(False, "Count pictures that can not be read, and go on without them.")

    def __post_init__(self) -> None:
        """Refuse an empty list and sizes out of range."""
        if not self.scorers:
            raise ConfigError("no scorer is given; name one with --with, for instance --with oracle")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size}; it must be at least 1")
        if self.workers is not None and self.workers < 0:
            raise ConfigError(f"workers is {self.workers}; it must be 0 or more")


def run(options: Options) -> int:
    """Score and say where the scores are."""
    from t2ialign.reward_models.scoring import score_set

    quiet_libraries()
    summary = score_set(
        options.image_set,
        options.scorers,
        output=options.output,
        layout=options.layout,
        prompts=options.prompts,
        batch_size=options.batch_size,
        workers=options.workers,
        device=options.device,
        autocast=options.autocast,
        allow_gaps=options.allow_gaps,
    )
    say(*lines(summary))
    return 0


def lines(summary: ScoringSummary) -> list[str]:
    """Show a summary: a line a scorer, what is out of the ordinary, then where the scores are."""
    shown = []
    for each in summary.scorers:
        cut = f", {each.truncated} prompts cut" if each.truncated else ""
        counts = f"{each.scored} scored, {each.kept} kept{cut}"
        value = "none" if each.aggregate is None else f"{each.aggregate:.4f}"
        over = each.scored + each.kept
        shown.append(f"{each.scorer} ({each.version}): {value} over {over} pictures; {counts}")
    return [*shown, *summary.remarks(), f"scores: {summary.output}"]
