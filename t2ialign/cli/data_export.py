"""`t2ialign data export`: an image set in the layout of another tool, or a foreign one in ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from t2ialign.cli.output import say
from t2ialign.config import REQUIRED, option

DESCRIPTION = """Write an image set where another tool looks for it, or bring a foreign one into our layout.

Pictures are linked where the file format fits, else encoded anew; the set itself is not touched."""

EXAMPLES = """examples:
  t2ialign data export sets/tuned --to hpsv2 --output_dir exports/tuned_hpsv2
  t2ialign data export sets/tuned --to geneval --output_dir exports/tuned_geneval
  t2ialign data export pictures --layout captions --to t2ialign --output_dir sets/mine
"""

LAYOUTS = ("t2ialign", "hpsv2", "geneval", "imagereward", "evalgim", "captions", "rankings")
EXPORTS = ("t2ialign", "hpsv2", "geneval", "imagereward", "evalgim", "captions")


@dataclass
class Options:
    """What to export, and how."""

    image_set: Path = option(REQUIRED, "The image set.", positional=True, metavar="SET")
    to: str = option(REQUIRED, "The layout to write.", choices=EXPORTS)
    output_dir: Path = option(REQUIRED, "The folder to write; it must be absent or empty.")
    layout: str | None = option(
        None, "How the set is laid out. Default: seen from the folder, where it is certain.", choices=LAYOUTS
    )
    prompts: Path | None = option(None, "File or folder of the prompts, for layouts that keep them elsewhere.")
    name: str | None = option(None, "Name of the set, for layouts that write it. Default: that of its folder.")


def run(options: Options) -> int:
    """Export and say what was written."""
    from t2ialign.data.layouts import export_set, open_set

    image_set = open_set(options.image_set, options.layout, options.prompts)
    say(*export_set(image_set, options.to, options.output_dir, name=options.name).lines())
    return 0
