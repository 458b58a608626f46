"""The size of every picture of a set, read from the headers of their files.

Law of this file: nothing is decoded, and of pictures inside a table only the pages of the headers are read (those of a
streamed set are read whole, a row group at a time); a picture whose header can not be read is left to whoever decodes
it.
"""

from __future__ import annotations

import logging
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from t2ialign.data import columns as cols
from t2ialign.data.images import upright_size
from t2ialign.data.pairs import PairDataset
from t2ialign.data.streaming import StreamedRows
from t2ialign.data.table_dataset import TableDataset
from t2ialign.data.unpaired import UnpairedDataset
from t2ialign.errors import DataError

logger = logging.getLogger(__name__)


def picture_sizes(data: PairDataset | UnpairedDataset) -> npt.NDArray[np.int64]:
    """Return height and width of each picture as `open_image` gives it, `[N, S, 2]`, chosen side first.

    Both are 0 where the header can not be read, or shows that `open_image` would refuse the picture.

    Args:
        data: N pairs (S is 2) or single pictures (S is 1).
    """
    sides = 2 if isinstance(data, PairDataset) else 1
    logger.info("reading the sizes of %d pictures", sides * len(data))
    if isinstance(data._table.dataset, StreamedRows):
        logger.warning("the sizes of a streamed set are in its pictures: all of them are read once")
    found = np.zeros((len(data), sides, 2), dtype=np.int64)
    for index in range(len(data)):
        for side in range(sides):
            column = cols.PICTURES[side] if isinstance(data, PairDataset) else data._picture_column(index)
            try:
                found[index, side] = upright_size(_file(data, data.row(index), column))
            except DataError:
                continue
    return found


def _file(data: TableDataset, row: int, column: str) -> Any:
    """Return the file of a picture: what lies in the table without copying it, else its path."""
    if isinstance(data._table.dataset, StreamedRows):
        return data._source(row, column, data._table.dataset.cell(row, column))
    value = data._table.dataset.data.column(column)[row]
    inner = value["bytes"] if isinstance(value, pa.StructScalar) else value
    if isinstance(inner, pa.BinaryScalar) and not isinstance(inner, pa.StringScalar) and inner.is_valid:
        return cast(BinaryIO, pa.BufferReader(inner.as_buffer()))
    return data._source(row, column, value.as_py())
