"""`t2ialign data import`: preference pairs or labelled pictures of another form, brought into ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from t2ialign.cli.output import say
from t2ialign.config import REQUIRED, option
from t2ialign.errors import ConfigError

DESCRIPTION = "Bring preference pairs or labelled pictures of another form into a folder that `t2ialign train` reads."

EXAMPLES = """examples:
  t2ialign data import folders my_pictures --output_dir my_pairs
  t2ialign data import trl my_trl_set --output_dir my_pairs
  t2ialign data import pickapic yuvalkirstain/pickapic_v2 --output_dir my_pairs --limit 20000 --ties keep
  t2ialign data import hpdv2 HPDv2/train.json --output_dir my_pairs
  t2ialign data import ultrafeedback ratings.jsonl --images pictures --to annotations --output_dir annotations/theirs
  t2ialign data import kto my_kto_folder --output_dir my_pictures --both drop
"""

FORMATS = (
    "folders",
    "trl",
    "pickapic",
    "pickdoublecaption",
    "hpdv2",
    "imagereward",
    "rankings",
    "visionprefer",
    "ultrafeedback",
    "kto",
)
RATED = ("visionprefer", "ultrafeedback")


@dataclass
class Options:
    """What to import, from where, and where to."""

    format: str = option(REQUIRED, "How the source is laid out.", positional=True, choices=FORMATS)
    source: str = option(REQUIRED, "A folder, a file, or a hub dataset id.", positional=True)
    output_dir: Path = option(REQUIRED, "Folder to write; splits can be added to it.")
    split: str = option("train", "Which split to read, and the name to write it under.")
    revision: str | None = option(None, "Branch, tag or commit of a hub dataset.")
    ties: str = option("drop", "Leave ties out, or write them with preference_prob 0.5.", choices=("drop", "keep"))
    limit: int | None = option(None, "Stop after so many pairs or pictures.")
    unsafe_words: Path | None = option(
        None, "File with a word or phrase a line; pairs whose prompt holds one are left out."
    )
    unsafe_column: str | None = option(
        None, "Column of the source; pairs where it is true, above 0.5, or empty are left out."
    )
    verify: bool = option(False, "Decode every picture in full and leave out pairs where one is damaged.")
    both: str = option(
        "win", "kto: the label of pictures that both won and lost, or leave them out.", choices=("win", "lose", "drop")
    )
    images: Path | None = option(
        None, "Folder that the paths of pictures are relative to, where they are files. Default: that of the table."
    )
    caption_columns: tuple[str, str] | None = option(
        None, "pickdoublecaption: columns with a caption of picture 0 and of 1. Default: caption_0,caption_1."
    )
    to: str = option(
        "pairs",
        "visionprefer, ultrafeedback: write pairs, or a folder of annotations for `data pairs` and `agreement`.",
        choices=("pairs", "annotations"),
    )
    overwrite: bool = option(False, "Replace the split if it is there.")

    def __post_init__(self) -> None:
        """Refuse values outside their range, and options that do not go together."""
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit is {self.limit}; it must be at least 1")
        if self.to == "annotations" and self.format not in RATED:
            raise ConfigError(f"{self.format} holds no ratings; annotations are made of {' and '.join(RATED)}")
        if self.to == "annotations" and (given := self._pair_options()):
            raise ConfigError(f"--{given[0]} is for pairs; leave it out with --to annotations")

    def _pair_options(self) -> list[str]:
        """Name the options that were given and mean nothing to annotations."""
        plain = ("limit", "unsafe_words", "unsafe_column", "revision", "verify", "overwrite")
        return [name for name in plain if getattr(self, name)] + (["ties"] if self.ties != "drop" else [])


def run(options: Options) -> int:
    """Import and say what came over and what did not."""
    if options.to == "annotations":
        from t2ialign.annotation.exchange import import_ratings

        taken = import_ratings(
            options.format, options.source, options.output_dir, split=options.split, images=options.images
        )
        say(*taken.lines())
        return 0
    from t2ialign.data.importers import import_pairs

    ties: Literal["drop", "keep"] = "keep" if options.ties == "keep" else "drop"
    both = cast('Literal["win", "lose", "drop"]', options.both)
    summary = import_pairs(
        options.format,
        options.source,
        options.output_dir,
        split=options.split,
        revision=options.revision,
        ties=ties,
        limit=options.limit,
        unsafe_words=options.unsafe_words,
        unsafe_column=options.unsafe_column,
        verify=options.verify,
        overwrite=options.overwrite,
        both=both,
        images=options.images,
        caption_columns=options.caption_columns,
    )
    say(*summary.lines())
    return 0
