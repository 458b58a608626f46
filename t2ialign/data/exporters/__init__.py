"""From our pairs to the formats of others: `export_pairs` and one file a format.

Law of this room: what is exported and imported again gives the same preferences; what a format has no place for is
counted, never bent to fit. A folder appears whole or not at all, and pictures keep their bytes.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from t2ialign.config.fields import nearest
from t2ialign.data.exporters.base import PairExport, Target
from t2ialign.data.layouts.base import new_folder
from t2ialign.data.pairs import load_pairs
from t2ialign.errors import ConfigError

FORMATS = {
    "pickapic": "Pick-a-Pic's columns in parquet, pictures inside",
    "hpdv2": "HPDv2's train.json and a folder of pictures",
    "imagereward": "ImageRewardDB's JSON with rankings, and a folder of pictures",
}
"""The formats that pairs can be written in. A file of the same name writes it."""


def export_pairs(
    source: str | Path, format: str, output_dir: str | Path, *, split: str = "train", revision: str | None = None
) -> PairExport:
    """Write preference pairs in another format.

    Args:
        source: What `load_pairs` reads.
        format: A key of `FORMATS`.
        output_dir: A folder that is not there yet, or empty.
        split: Which split to read, and the name it is written under.
        revision: Branch, tag or commit of a hub dataset.

    Returns:
        What was written, and what was not.

    Raises:
        ConfigError: If the format is not known.
        DataError: If the folder is not empty, the pairs can not be read, or nothing is left.
    """
    if format not in FORMATS:
        raise ConfigError(f"cannot write pairs as {format!r}{nearest(format, FORMATS)}; choose {', '.join(FORMATS)}")
    pairs = load_pairs(source, split=split, revision=revision, ties="keep")
    final = Path(output_dir)
    writer = importlib.import_module(f"t2ialign.data.exporters.{format}")
    with new_folder(final) as folder:
        summary: PairExport = writer.export(pairs, Target(folder, split), PairExport(format, final, split))
    return summary


__all__ = ["FORMATS", "PairExport", "export_pairs"]
