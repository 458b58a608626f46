"""Pick-a-Pic's columns: two pictures in `jpg_0` and `jpg_1`, labels 1, 0 or 0.5, and who judged.

Law of this file: pictures are stored as they are encoded, PNG too, as its readers look at the content; ids of pictures
are their digests; the columns that say where and when a picture was made are empty, for we do not know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from t2ialign.data.columns import TIE
from t2ialign.data.exporters.base import Pair, PairExport, Target, rows
from t2ialign.data.pairs import PairDataset
from t2ialign.data.writing import ROW_GROUP_ROWS

INT64 = range(-(1 << 63), 1 << 63)


def export(pairs: PairDataset, target: Target, summary: PairExport) -> PairExport:
    """Write `data/SPLIT-00000-of-00001.parquet`."""
    users = pairs.column("user_id")
    numbers = all(user is None or _is_number(user) for user in users)
    schema = _schema(pa.int64() if numbers else pa.string())
    examples = Counter(pairs.prompts)
    path = target.folder / "data" / f"{target.split}-00000-of-00001.parquet"
    path.parent.mkdir()
    with pq.ParquetWriter(path, schema) as writer:
        for group in _groups(pairs, summary, examples, numbers):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
    return summary.checked()


def _is_number(user: str) -> bool:
    """Whether an id is a whole number that is written in the one usual way."""
    return user.lstrip("-").isdecimal() and user == str(int(user)) and int(user) in INT64


def _schema(user: pa.DataType) -> pa.Schema:
    kinds = {
        "are_different": pa.bool_(),
        "best_image_uid": pa.string(),
        "caption": pa.string(),
        "created_at": pa.timestamp("ns"),
        "has_label": pa.bool_(),
        "image_0_uid": pa.string(),
        "image_0_url": pa.string(),
        "image_1_uid": pa.string(),
        "image_1_url": pa.string(),
        "jpg_0": pa.binary(),
        "jpg_1": pa.binary(),
        "label_0": pa.float64(),
        "label_1": pa.float64(),
        "model_0": pa.string(),
        "model_1": pa.string(),
        "ranking_id": pa.int64(),
        "user_id": user,
        "num_example_per_prompt": pa.int64(),
    }
    return pa.schema(list(kinds.items()))


def _groups(
    pairs: PairDataset, summary: PairExport, examples: Counter[str], numbers: bool
) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    for pair in rows(pairs, summary):
        group.append(_row(pair, summary.pairs, examples[pair.prompt], numbers))
        summary.pairs += 1
        if len(group) == ROW_GROUP_ROWS:
            yield group
            group = []
    if group:
        yield group


def _row(pair: Pair, number: int, examples: int, numbers: bool) -> dict[str, Any]:
    best = "tie" if pair.label == TIE else pair.digests[0 if pair.label else 1]
    return {
        "are_different": True,
        "best_image_uid": best,
        "caption": pair.prompt,
        "has_label": True,
        "image_0_uid": pair.digests[0],
        "image_1_uid": pair.digests[1],
        "jpg_0": pair.pictures[0],
        "jpg_1": pair.pictures[1],
        "label_0": pair.label,
        "label_1": 1 - pair.label,
        "ranking_id": number,
        "user_id": int(pair.user) if numbers and pair.user is not None else pair.user,
        "num_example_per_prompt": examples,
    }
