"""Parquet files of a dataset on the hub, read in ranges over the network.

Law of this file: a set is read at one commit, from the first byte to the last, whatever is pushed meanwhile; which
files make a split is said by `datasets` itself, so that a streamed set has the rows of a downloaded one. A path inside
a row is never followed. The token is the client's own, and is sent to nobody but the hub.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from t2ialign.data.shards import Shard, persistent, read_footer
from t2ialign.data.sources import unreachable
from t2ialign.errors import DataError

TIMEOUT = 30.0
"""Seconds without a byte before a request counts as failed."""

_ADDRESS = re.compile(r"hf://datasets/(?P<repo>.+)@(?P<commit>[^/]+)/(?P<path>.+)")
_PATHS_AT_ONCE = 100


@dataclass(frozen=True)
class HubFile:
    """A file of a dataset at a commit.

    Attributes:
        repo: `OWNER/NAME`.
        commit: Its full hash.
        path: Inside the repository.
    """

    repo: str
    commit: str
    path: str


class HubShard(Shard):
    """A parquet file on the hub; every range is a request of its own."""

    def __init__(self, file: HubFile, size: int) -> None:
        """Read the footer.

        Raises:
            DataError: If the file is not parquet.
            SourceError: If it can not be had.
        """
        self.file, self.size, self.name = file, size, file.path.rsplit("/", 1)[-1]
        where = f"{file.repo}, {file.path}"
        self.footer = read_footer(lambda first, end: persistent(lambda: self.read(first, end), where), size, self.name)

    def read(self, first: int, end: int) -> bytes:
        """Read a range of bytes with one request."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        file = self.file
        url = hf_hub_url(file.repo, file.path, repo_type="dataset", revision=file.commit)
        headers = build_hf_headers() | {"Range": f"bytes={first}-{end - 1}", "Accept-Encoding": "identity"}
        response = get_session().get(url, headers=headers, timeout=TIMEOUT)
        hf_raise_for_status(response)
        data: bytes = response.content
        if response.status_code == 200 and len(data) == self.size:  # a server may send the whole file
            data = data[first:end]
        if len(data) != end - first:
            raise EOFError(f"{len(data)} bytes came where {end - first} were asked for")
        return data


def hub_files(source: str, split: str, revision: str | None) -> list[HubFile]:
    """Find the parquet files of a split, at the commit that a revision names now.

    Args:
        source: `OWNER/NAME`.
        split: Its name.
        revision: Branch, tag or commit; by default the main branch.

    Raises:
        DataError: If the hub can not be reached, there is no such set or split, or it is not of parquet files.
    """
    from datasets import load_dataset_builder

    try:
        found: Any = load_dataset_builder(source, revision=revision).config.data_files
    except Exception as error:
        raise unreachable(source, error) from error
    if not found:
        raise unreachable(source, ConnectionError("the hub does not say which files it has"))
    if split not in found:
        raise DataError(f"{source} has no split {split!r}; it has {', '.join(sorted(map(str, found)))}")
    return [_hub_file(source, str(address)) for address in found[split]]


def _hub_file(source: str, address: str) -> HubFile:
    match = _ADDRESS.fullmatch(address)
    if match is None or not address.endswith(".parquet"):
        name = address.rsplit("/", 1)[-1]
        raise DataError(
            f"{source} holds {name}, and only parquet files are streamed; leave --streaming out, or, where the hub "
            "has made parquet of it, give --pairs_revision refs/convert/parquet"
        )
    return HubFile(match["repo"], match["commit"], match["path"])


def open_hub_shards(files: Sequence[HubFile], pool: Executor) -> list[Shard]:
    """Read the footers of some files of one set, several at once.

    Raises:
        DataError: If the hub can not be reached, or a file is damaged.
    """
    sizes = file_sizes(files)
    return list(pool.map(lambda file: HubShard(file, sizes[file.path]), files))


def file_sizes(files: Sequence[HubFile]) -> dict[str, int]:
    """Return the size of each file, bytes, by its path.

    Raises:
        DataError: If the hub can not be reached, or lacks a file.
    """
    from huggingface_hub import HfApi

    repo, commit = files[0].repo, files[0].commit
    sizes: dict[str, int] = {}
    try:
        for start in range(0, len(files), _PATHS_AT_ONCE):
            paths = [file.path for file in files[start : start + _PATHS_AT_ONCE]]
            entries: Iterable[Any] = HfApi().get_paths_info(repo, paths, revision=commit, repo_type="dataset")
            sizes |= {entry.path: int(entry.size) for entry in entries}
    except Exception as error:
        raise unreachable(repo, error) from error
    missing = [file.path for file in files if file.path not in sizes]
    if missing:
        raise DataError(f"{repo} at {commit} has no file {missing[0]}; name another revision")
    return sizes
