"""Parquet shards with row groups of chosen sizes, of pairs whose pictures can be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from helpers.pair_sets import pair


def write_shards(
    folder: Path,
    shards: Sequence[Sequence[int]],
    rows: Sequence[dict[str, Any]] | None = None,
    compression: str = "zstd",
) -> Path:
    """Write `train-*.parquet` files.

    Args:
        folder: Where to.
        shards: Of each file, the number of rows of each row group.
        rows: What to write; by default `pair(0)`, `pair(1)`, ...
        compression: Of the columns; with "none" values of equal lengths give files of equal sizes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rest = list(rows) if rows is not None else [pair(n) for n in range(sum(map(sum, shards)))]
    schema = pa.Table.from_pylist(rest).schema
    for number, groups in enumerate(shards):
        name = folder / f"train-{number:05d}-of-{len(shards):05d}.parquet"
        with pq.ParquetWriter(name, schema, compression=compression) as writer:
            for count in groups:
                writer.write_table(pa.Table.from_pylist(rest[:count], schema=schema))
                del rest[:count]
    assert not rest
    return folder


def heavy_pair(number: int, side: int = 96, **more: Any) -> dict[str, Any]:
    """A pair of noisy pictures, some 27 kB each at 96 px, which do not compress."""
    import io

    from PIL import Image

    encoded = []
    for picture in (2 * number, 2 * number + 1):
        pixels = np.random.default_rng(picture).integers(0, 256, (side, side, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG", compress_level=0)
        encoded.append(buffer.getvalue())
    return {"prompt": f"prompt {number}", "chosen": encoded[0], "rejected": encoded[1], **more}
