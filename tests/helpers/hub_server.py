"""A hub of datasets on this machine: folders as repositories, each at one commit, with ranges of bytes.

It knows what the clients ask for when they open and read a dataset, and counts what it sends. It imports nothing of
ours.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass
class Hub:
    """What the server serves, and what was asked of it.

    Attributes:
        root: Folder of `OWNER/NAME` folders.
        commit: The commit that every branch names now, 40 hexadecimal digits; older ones stay what they were.
        commits: The folder of each commit.
        ranges: Path and size of every range that was sent.
        failures: How many of the next requests for ranges fail with status 503.
        url: Where it listens.
    """

    root: Path
    commit: str = "1" * 40
    commits: dict[str, Path] = field(default_factory=dict)
    ranges: list[tuple[str, int]] = field(default_factory=list)
    failures: int = 0
    url: str = ""

    def folder(self, repo: str, revision: str) -> Path | None:
        """Where a repository lies at a revision, or nothing."""
        known = self.commits | {self.commit: self.root}
        root = known.get(revision) or (self.root if revision in ("main", "refs/convert/parquet") else None)
        return root / repo if root is not None and (root / repo).is_dir() else None

    @property
    def sent(self) -> int:
        """Bytes of all ranges that were sent."""
        return sum(size for _, size in self.ranges)


def _entries(folder: Path, names: list[str] | None) -> list[dict[str, Any]]:
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if names is not None and name not in names:
            continue
        oid = hashlib.sha1(name.encode()).hexdigest()
        kind = "directory" if path.is_dir() else "file"
        found.append({"type": kind, "oid": oid, "size": 0 if path.is_dir() else path.stat().st_size, "path": name})
    return found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        """Answer without a body."""
        self._answer()

    def do_GET(self) -> None:
        """Answer."""
        self._answer()

    def do_POST(self) -> None:
        """Answer."""
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path.startswith("/api/datasets/"):
            self._api(path.removeprefix("/api/datasets/"), body)
        elif match := re.fullmatch(r"/datasets/(.+?/.+?)/resolve/(refs/[^/]+/[^/]+|[^/]+)/(.+)", path):
            self._file(*match.groups())
        else:
            self._send(404, b"{}")

    def _api(self, path: str, body: bytes) -> None:
        owner, name, rest = [*path.split("/", 2), ""][:3]
        repo, (kind, _, after) = f"{owner}/{name}", rest.partition("/")
        revision, _, under = after.partition("/")
        folder = self.hub.folder(repo, revision or "main")
        if folder is None:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif kind in ("", "revision"):
            commit = revision if revision in self.hub.commits else self.hub.commit
            siblings = [{"rfilename": each["path"]} for each in _entries(folder, None) if each["type"] == "file"]
            self._json({"id": repo, "sha": commit, "siblings": siblings, "private": False, "tags": []})
        elif kind == "paths-info":
            paths = (
                json.loads(body)["paths"] if body[:1] == b"{" else re.findall(r"paths=([^&]+)", unquote(body.decode()))
            )
            self._json(_entries(folder, paths))
        elif kind == "tree":
            known = [each for each in _entries(folder, None) if each["path"].startswith(under)]
            if under and not (folder / under).is_dir():
                self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
                return
            deep = "recursive=true" in self.path.lower()
            depth = under.count("/") + 1 if under else 0
            self._json([each for each in known if deep or each["path"].count("/") == depth])
        else:
            self._send(404, b"{}")

    def _file(self, repo: str, revision: str, name: str) -> None:
        folder = self.hub.folder(repo, revision)
        file = None if folder is None else folder / name
        if file is None or not file.is_file():
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound" if folder is not None else "RevisionNotFound"})
            return
        data = file.read_bytes()
        commit = revision if revision in self.hub.commits else self.hub.commit
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": commit}
        match = _RANGE.fullmatch(self.headers.get("Range") or "")
        if match is None:
            self._send(200, data, headers)
        elif self.hub.failures:
            self.hub.failures -= 1
            self._send(503, b"busy")
        else:
            part = data[int(match[1]) : int(match[2]) + 1]
            self.hub.ranges.append((name, len(part)))
            self._send(206, part, headers | {"Content-Range": f"bytes {match[1]}-{match[2]}/{len(data)}"})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def dataset_hub(root: Path) -> Iterator[Hub]:
    """Serve a folder of `OWNER/NAME` folders while the block runs."""
    hub = Hub(root)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
