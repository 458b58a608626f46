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

Pictures that the file already scores are not scored again."""

EXAMPLES = """examples:
  t2ialign score sets/tuned --with oracle
  t2ialign score sets/tuned --with oracle,clipscore@mini-clip --output sets/tuned/scores.parquet
  t2ialign score sets/tuned --with clipscore@openai/clip-vit-large-patch14 --batch_size 64
"""


@dataclass
class Options:
    """What to score, and with what."""

    image_set: Path = option(REQUIRED, "The image set.", positional=True, metavar="SET")
    scorers: list[str] = option(
        REQUIRED, "Scorers: oracle (mini world), clipscore, clipscore@PATH_OR_ID; several with commas.", flag="with"
    )
    output: Path | None = option(None, "The scores file. Default: SET/scores.parquet.")
    batch_size: int = option(32, "Pictures scored at once; it changes speed and memory, not scores.")
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps; auto is a CUDA GPU where there is one.")

    def __post_init__(self) -> None:
        """Refuse an empty list and sizes below one."""
        if not self.scorers:
            raise ConfigError("no scorer is given; name one with --with, for instance --with oracle")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size}; it must be at least 1")


def run(options: Options) -> int:
    """Score and say where the scores are."""
    from t2ialign.reward_models.scoring import score_set

    quiet_libraries()
    summary = score_set(
        options.image_set,
        options.scorers,
        output=options.output,
        batch_size=options.batch_size,
        device=options.device,
    )
    say(*lines(summary))
    return 0


def lines(summary: ScoringSummary) -> list[str]:
    """Show a summary: a line a scorer, then where the scores are."""
    shown = []
    for each in summary.scorers:
        cut = f", {each.truncated} prompts cut" if each.truncated else ""
        counts = f"{each.scored} scored, {each.kept} kept{cut}"
        shown.append(
            f"{each.scorer} ({each.version}): {each.aggregate:.4f} over {summary.pictures} pictures; {counts}"
        )
    return [*shown, f"scores: {summary.output}"]
