"""`t2ialign data export`: image sets, pairs and annotations in the forms of other tools, or a foreign set in ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from t2ialign.cli.output import say
from t2ialign.config import REQUIRED, option

DESCRIPTION = """Write an image set where another tool looks for it, or bring a foreign one into our layout; write
pairs or annotations in the form of others.

Pictures are linked where the file format fits, else encoded anew; the set itself is not touched."""

EXAMPLES = """examples:
  t2ialign data export sets/tuned --to hpsv2 --output_dir exports/tuned_hpsv2
  t2ialign data export sets/tuned --to geneval --output_dir exports/tuned_geneval
  t2ialign data export pictures --layout captions --to t2ialign --output_dir sets/mine
  t2ialign data export my_pairs --to pickapic --output_dir exports/pickapic
  t2ialign data export annotations/model --to visionprefer --output_dir exports/ratings
"""

LAYOUTS = ("t2ialign", "hpsv2", "geneval", "imagereward", "evalgim", "captions", "rankings")
EXPORTS = ("t2ialign", "hpsv2", "geneval", "imagereward", "evalgim", "captions")
PAIRS = ("pickapic", "hpdv2", "imagereward")
"""Formats of pairs; `imagereward` is a layout of image sets too, and what SET is decides."""
RATINGS = ("visionprefer", "ultrafeedback")


@dataclass
class Options:
    """What to export, and how."""

    image_set: str = option(
        REQUIRED, "The image set; or preference pairs, or a folder of annotations.", positional=True, metavar="SET"
    )
    to: str = option(
        REQUIRED,
        "The layout, or the format of pairs or ratings.",
        choices=tuple(dict.fromkeys(EXPORTS + PAIRS + RATINGS)),
    )
    output_dir: Path = option(REQUIRED, "The folder to write; it must be absent or empty.")
    layout: str | None = option(
        None, "How the set is laid out. Default: seen from the folder, where it is certain.", choices=LAYOUTS
    )
    prompts: Path | None = option(None, "File or folder of the prompts, for layouts that keep them elsewhere.")
    name: str | None = option(None, "Name of the set, for layouts that write it. Default: that of its folder.")
    split: str = option("train", "Pairs: which split.")
    images: Path | None = option(None, "Annotations: the image set. Default: the one that they name.")


def run(options: Options) -> int:
    """Export and say what was written."""
    if options.to in RATINGS:
        from t2ialign.annotation.exchange import export_ratings

        say(*export_ratings(options.image_set, options.to, options.output_dir, images=options.images).lines())
        return 0
    if options.to in PAIRS and (options.to not in EXPORTS or _are_pairs(options.image_set)):
        from t2ialign.data.exporters import export_pairs

        say(*export_pairs(options.image_set, options.to, options.output_dir, split=options.split).lines())
        return 0
    from t2ialign.data.layouts import export_set, open_set

    image_set = open_set(Path(options.image_set), options.layout, options.prompts)
    say(*export_set(image_set, options.to, options.output_dir, name=options.name).lines())
    return 0


def _are_pairs(source: str) -> bool:
    """Tell whether a source is pairs rather than an image set, by its files; an image set has tables of scores too."""
    path = Path(source)
    if not path.is_dir():
        return path.is_file() or source.startswith("mini-")
    if any(path.glob("data/*.parquet")) or any(path.glob("*-of-*.parquet")):
        return True
    lines = path / "metadata.jsonl"
    if not lines.is_file():
        return False
    with lines.open(encoding="utf-8-sig", errors="replace") as opened:
        return '"chosen' in next(iter(opened), "")
