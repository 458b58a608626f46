"""Sets streamed from a hub: a server on this machine that counts what it sends, and the real client in a process."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.hub_server import Hub, dataset_hub
from helpers.pair_sets import encoded
from helpers.shards import heavy_pair, write_shards
from t2ialign.data.pairs import load_pairs
from t2ialign.errors import DataError

SCRIPT = Path(__file__).resolve().parent.parent / "helpers" / "stream_hub.py"
OLD, NEW = "1" * 40, "2" * 40

Client = Callable[..., Any]


@contextmanager
def client(hub: Hub, home: Path) -> Iterator[Client]:
    """A process that reads from the hub; call it with a command of `stream_hub.py`."""
    own = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0", "HF_HOME": str(home)}
    path = os.pathsep.join([str(SCRIPT.parent.parent.parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT)],
        env={**os.environ, **own, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def ask(*command: Any) -> Any:
        process.stdin.write(json.dumps(command) + "\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        return json.loads(process.stdout.readline())  # type: ignore[union-attr]

    try:
        yield ask
    finally:
        process.stdin.close()
        process.wait(timeout=30)


def digests(*numbers: int, first: int = 0) -> list[str]:
    return [hashlib.sha256(heavy_pair(first + number)["chosen"]).hexdigest() for number in numbers]


def test_a_set_on_the_hub(tmp_path: Path) -> None:
    shapes = [[4] * 8] * 3
    rows = [heavy_pair(n, user_id=f"u{n}", preference_prob=0.5 if n == 95 else 1.0) for n in range(96)]
    folder = write_shards(tmp_path / "old/own/er/data", shapes, rows)
    (folder.parent / "README.md").write_text("# A set\n")
    write_shards(tmp_path / "new/own/er/data", [[4, 4]], [heavy_pair(n + 50) for n in range(8)])
    size = sum(file.stat().st_size for file in folder.iterdir())
    with dataset_hub(tmp_path / "old") as hub, client(hub, tmp_path / "home") as ask:
        opened = ask("open", "own/er")
        assert opened["name"] == "own/er@11111111[train]"
        assert (opened["count"], opened["dropped"]) == (95, {"ties": 1})
        assert opened["prompts"] == [f"prompt {n}" for n in range(95)]
        assert opened["streamed"] == {"shards": 3, "row_groups": 24, "bytes": size, "commit": OLD}
        assert hub.sent < 0.08 * size  # footers and small columns
        assert ask("fingerprint") == load_pairs(folder.parent, streaming=True).fingerprint
        assert hub.sent < 0.12 * size

        before = hub.sent
        assert ask("read", 0, 1, 2, 3, 40, 41) == digests(0, 1, 2, 3, 40, 41)
        assert 1.9 < (hub.sent - before) / (size / 24) < 2.1  # two row groups
        hub.failures = 4
        assert ask("read", 60) == digests(60)
        assert hub.failures == 0

        hub.commits[OLD], hub.root, hub.commit = hub.root, tmp_path / "new", NEW
        assert ask("read", 90, 0) == digests(90, 0)  # still the old one
        moved = ask("open", "own/er")
        assert (moved["name"], moved["count"]) == ("own/er@22222222[train]", 8)
        assert ask("read", 7) == digests(7, first=50)
        assert ask("open", "own/er", OLD) == opened
        assert "has no split 'test'; it has train" in ask("open", "own/er", None, "test")

        assert ask("open", "own/er", OLD)["count"] == 95
        hub.failures = 10**9
        failed = ask("read", 20)
        assert failed.startswith("SourceError: train-00000-of-00003.parquet, row group 5 could not be read in 5")
        assert "go on with --resume latest" in failed


def test_sets_on_the_hub_that_can_not_be_streamed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(encoded(1))
    lines = tmp_path / "hub/own/lines"
    lines.mkdir(parents=True)
    (lines / "train.jsonl").write_text('{"prompt": "a", "chosen": "a", "rejected": "b"}\n')
    path = str(secret)
    structs = pa.array([{"bytes": None, "path": path}])
    typed = structs.cast(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    for name, chosen in {"structs": structs, "typed": typed, "texts": [path], "unsaid": typed}.items():
        (tmp_path / "hub/own" / name).mkdir()
        table = pa.table({"prompt": ["a"], "chosen": chosen, "rejected": [encoded(2)]})
        pq.write_table(table, tmp_path / "hub/own" / name / "train.parquet", write_statistics=name != "unsaid")
    with dataset_hub(tmp_path / "hub") as hub, client(hub, tmp_path / "home") as ask:
        assert "holds train.jsonl, and only parquet files are streamed" in ask("open", "own/lines")
        for name in ("structs", "typed", "texts"):
            refused = ask("open", f"own/{name}")
            assert refused.startswith("DataError")
            assert "chosen: the picture is a path" in refused
        assert ask("open", "own/unsaid")["count"] == 1
        assert "row 0, chosen: a relative path is needed, not None" in ask("read", 0)
        assert "could not be had from the hub" in ask("open", "own/nothing")


def test_without_a_network_the_download_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"could not be had from the hub .*`hf download --repo-type dataset own/er"):
        load_pairs("own/er", streaming=True)
