"""The server against foreign pages, names bound to this machine, paths, large bodies and missing tokens."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from helpers.labels import image_set
from t2ialign.annotation.label.options import LabelOptions
from t2ialign.annotation.label.run import open_session
from t2ialign.annotation.label.server import LONGEST_BODY, TOKEN, LabelServer, hosts_of
from t2ialign.errors import ConfigError


@dataclass
class Reply:
    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Sends requests as they are given, with the right host and token unless told otherwise."""

    def __init__(self, server: LabelServer, output: Path) -> None:
        self.server, self.output = server, output

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str | None) -> Reply:
        given: dict[str, str | None] = {"Host": f"127.0.0.1:{self.server.server_port}", TOKEN: self.server.token}
        if body is not None:
            given |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = HTTPConnection("127.0.0.1", self.server.server_port, timeout=20)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in given.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        reply = Reply(answer.status, dict(answer.getheaders()), answer.read())
        connection.close()
        return reply

    def say(self, number: int, answer: str, **headers: str | None) -> Reply:
        return self.ask("POST", "/answer", json.dumps({"question": number, "answer": answer}).encode(), **headers)

    @property
    def answered(self) -> int:
        return int(self.server.session.state()["answered"])


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    options = LabelOptions(images=str(image_set(tmp_path / "set")), output_dir=tmp_path / "labels")
    session, log = open_session(options)
    with log, LabelServer(session) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Client(server, tmp_path / "labels")
        server.shutdown()
        thread.join(20)


def test_a_browser_leaves_the_port_of_http_out() -> None:
    both = {"127.0.0.1:80", "localhost:80", "127.0.0.1", "localhost"}
    assert hosts_of(80) == both
    assert hosts_of(8080) == {"127.0.0.1:8080", "localhost:8080"}


def test_on_port_80_the_page_is_found(tmp_path: Path) -> None:
    options = LabelOptions(images=str(image_set(tmp_path / "set")), output_dir=tmp_path / "labels")
    session, log = open_session(options)
    with log:
        try:
            server = LabelServer(session, port=80)
        except ConfigError:
            pytest.skip("port 80 is not for this user")
        with server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            client = Client(server, tmp_path / "labels")
            for host in ("127.0.0.1", "localhost", "127.0.0.1:80"):
                assert client.ask("GET", "/state", Host=host, Origin=f"http://{host}").code == 200
            for host in ("evil.example", "evil.example:80", "127.0.0.1:8080", ""):
                assert client.ask("GET", "/state", Host=host).code == 421
            server.shutdown()
            thread.join(20)


def test_it_listens_on_the_loopback_alone(client: Client) -> None:
    assert client.server.server_address[0] == "127.0.0.1"
    others = {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in others - {"127.0.0.1"}:
        with pytest.raises(OSError), socket.create_connection((address, client.server.server_port), timeout=2):  # noqa: PT011
            pass


def test_the_page_and_its_headers(client: Client) -> None:
    for path, kind in (("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")):
        reply = client.ask("GET", path, **{TOKEN: None})
        assert reply.code == 200
        assert reply.headers["Content-Type"].startswith(kind)
        policy = reply.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert reply.headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in reply.headers
        assert client.server.token not in reply.body.decode()
        assert b"://" not in reply.body  # nothing from elsewhere


def test_a_round(client: Client) -> None:
    state = client.ask("GET", "/state").json
    assert state["question"]["number"] == 0
    assert client.ask("GET", "/picture/0/left").body.startswith(b"\x89PNG")
    assert client.say(0, "left").json["answered"] == 1
    assert client.say(1, "tie").json["labelled"] == 2
    assert client.ask("POST", "/undo", b"{}").json["question"]["number"] == 1
    assert client.say(0, "right").code == 409
    assert client.answered == 1
    local = f"localhost:{client.server.server_port}"
    assert client.say(1, "skip", Host=local, Origin=f"http://{local}", Sec_Fetch_Site="same-origin").code == 200


@pytest.mark.parametrize("given", [None, "", "x", "ü", "token"])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/state", None),
        ("GET", "/picture/0/left", None),
        ("POST", "/answer", b'{"question": 0, "answer": "left"}'),
        ("POST", "/undo", b"{}"),
        ("POST", "/finish", b"{}"),
    ],
)
def test_nothing_without_the_token(client: Client, method: str, path: str, body: bytes | None, given: str) -> None:
    wrong = client.server.token[:-1] if given == "token" else given
    reply = client.ask(method, path, body, **{TOKEN: wrong})
    assert reply.code == 403
    assert "prompt" not in reply.json
    assert client.answered == 0
    assert client.ask("GET", "/state").code == 200


def test_the_token_is_new_every_time(client: Client, tmp_path: Path) -> None:
    with LabelServer(client.server.session) as second:
        assert second.token != client.server.token
    assert len(client.server.token) >= 32


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Origin": "http://127.0.0.1:{other}"},
        {"Origin": "http://127.0.0.1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    ],
)
@pytest.mark.parametrize("path", ["/answer", "/state", "/picture/0/left", "/page.js"])
def test_other_origins_are_refused_even_with_the_token(client: Client, headers: dict[str, str], path: str) -> None:
    port = client.server.server_port
    filled = {name: value.format(port=port, other=port + 1) for name, value in headers.items()}
    body = b'{"question": 0, "answer": "left"}' if path == "/answer" else None
    assert client.ask("POST" if body else "GET", path, body, **filled).code == 403
    assert client.answered == 0


def test_a_link_to_the_page_may_be_followed_but_not_framed(client: Client) -> None:

    def follow(mode: str, dest: str) -> int:
        return client.ask("GET", "/", None, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode=mode, Sec_Fetch_Dest=dest).code

    assert follow("navigate", "document") == 200
    assert follow("navigate", "iframe") == 403
    assert follow("no-cors", "document") == 403


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil.example:{port}", "", None],
)
@pytest.mark.parametrize("path", ["/", "/state", "/picture/0/left", "/answer"])
def test_other_hosts_are_refused(client: Client, host: str | None, path: str) -> None:
    """A name that somebody has bound to 127.0.0.1 makes the browser believe that it is that somebody's page."""
    given = None if host is None else host.format(port=client.server.server_port)
    body = b'{"question": 0, "answer": "left"}' if path == "/answer" else None
    assert client.ask("POST" if body else "GET", path, body, Host=given).code == 421
    assert client.answered == 0


@pytest.mark.parametrize(
    "path",
    [
        "/../set/metadata.jsonl",
        "/picture/../../set/metadata.jsonl",
        "/picture/0/../left",
        "/picture/0/left/../../../etc/passwd",
        "/picture/..%2f..%2fetc%2fpasswd/left",
        "/picture/%2e%2e/left",
        "/picture/0/left?file=/etc/passwd",
        "/picture/-1/left",
        "/picture/99/left",
        "/picture/0/middle",
        "/picture/٣/left",
        "/page.js/../index.html",
        "//etc/passwd",
        "/etc/passwd",
        "/images/p0/0000.png",
        "/answers/me.jsonl",
        "http://127.0.0.1/state",
    ],
)
def test_no_path_is_read_from_a_request(client: Client, path: str) -> None:
    raw = path.encode().decode("latin-1")
    with socket.create_connection(("127.0.0.1", client.server.server_port), timeout=20) as wire:
        lines = [
            f"GET {raw} HTTP/1.1",
            f"Host: 127.0.0.1:{client.server.server_port}",
            f"{TOKEN}: {client.server.token}",
        ]
        wire.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1"))
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 404")
    assert b"root:" not in answer
    assert b"PNG" not in answer


@pytest.mark.parametrize(
    ("body", "headers", "code"),
    [
        (b"x" * (LONGEST_BODY + 1), {}, 413),
        (b"{}", {"Content-Length": "99999999999"}, 413),
        (b"{}", {"Content-Length": "-1"}, 411),
        (b"{}", {"Content-Length": "1e3"}, 411),
        (b"{}", {"Content-Length": None}, 411),
        (b"2\r\n{}\r\n0\r\n\r\n", {"Content-Length": None, "Transfer-Encoding": "chunked"}, 411),
        (b"question=0&answer=left", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        (b'{"question": 0, "answer": "left"}', {"Content-Type": "text/plain"}, 415),
        (b'{"question": 0, "answer": "left"}', {"Content-Type": None}, 415),
        (b"[" * 2000, {}, 400),
        (b"[]", {}, 400),
        (b"\xff", {}, 400),
        (b'{"question": "0", "answer": "left"}', {}, 400),
        (b'{"question": true, "answer": "left"}', {}, 400),
        (b'{"question": 0, "answer": "both"}', {}, 400),
        (b'{"question": 0, "answer": "undo"}', {}, 400),
        (b'{"question": 0, "answer": "left", "seconds": "1"}', {}, 400),
        (b'{"question": 5, "answer": "left"}', {}, 409),
    ],
)
def test_bodies_that_are_refused(client: Client, body: bytes, headers: dict[str, str | None], code: int) -> None:
    assert client.ask("POST", "/answer", body, **headers).code == code
    assert client.answered == 0
    assert client.say(0, "left").code == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD", "TRACE"])
def test_other_methods_are_refused(client: Client, method: str) -> None:
    reply = client.ask(method, "/answer", None, Origin="http://evil.example")
    assert reply.code == 501
    assert "Access-Control-Allow-Origin" not in reply.headers
    assert client.ask("POST", "/page.js", b"{}").code == 404


def test_a_body_on_a_get_is_not_the_next_request(client: Client) -> None:
    hidden = f"GET /state HTTP/1.1\r\nHost: x\r\n{TOKEN}: {client.server.token}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", client.server.server_port), timeout=20) as wire:
        head = (
            f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{client.server.server_port}\r\nContent-Length: {len(hidden)}\r\n\r\n"
        )
        wire.sendall((head + hidden).encode())
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    assert answer.count(b"HTTP/1.1 ") == 1


def test_a_full_disk_is_told_and_nothing_is_answered(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from t2ialign.annotation.label.folder import PairFolder

    def full(self: PairFolder, data: bytes) -> tuple[str, str]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PairFolder, "store", full)
    reply = client.say(0, "left")
    assert (reply.code, reply.json["error"]) == (500, "[Errno 28] No space left on device")
    assert client.answered == 0
    monkeypatch.undo()
    assert client.say(0, "left").code == 200


def test_a_duration_beyond_all_numbers_is_none(client: Client) -> None:
    body = f'{{"question": 0, "answer": "left", "seconds": 1{"0" * 400}}}'.encode()
    assert client.ask("POST", "/answer", body).code == 200
    assert json.loads((client.output / "answers/me.jsonl").read_text().splitlines()[1])["seconds"] is None


def test_nothing_of_a_request_reaches_a_terminal_as_it_is(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "t2ialign")
    with socket.create_connection(("127.0.0.1", client.server.server_port), timeout=20) as wire:
        wire.sendall(b"GET /\x1b]0;owned\x07 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"".join(iter(lambda: wire.recv(65536), b"")).startswith(b"HTTP/1.1 421")
    assert "owned" in caplog.text
    assert not any("\x1b" in record.getMessage() for record in caplog.records)


def test_many_tabs_at_once_give_one_answer(client: Client) -> None:
    codes: list[int] = []
    threads = [threading.Thread(target=lambda: codes.append(client.say(0, "left").code)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(codes) == [200] + [409] * 7
    assert len((client.output / "answers/me.jsonl").read_text().splitlines()) == 2


def test_a_port_that_is_taken_is_named(client: Client) -> None:
    with pytest.raises(ConfigError, match=f"port {client.server.server_port}"):
        LabelServer(client.server.session, client.server.server_port)
