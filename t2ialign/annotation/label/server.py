"""The server of the label page: for one person, on 127.0.0.1, for as long as the program runs.

Law of this file: every request must name this server as its host and, where a browser says where it comes from, come
from its own page; everything but the page itself needs the token of this run, in a header that no foreign page can
send. Pictures are named by number and side, so no path is ever read from a request. What is refused is refused before
a body is read, and a body has a few hundred bytes.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from t2ialign.annotation.label.session import NotOpenError, Session
from t2ialign.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
LONGEST_BODY = 2048
"""Bytes of a request's body; an answer has about sixty."""
TIMEOUT = 30.0
"""Seconds after which a connection that says nothing is closed."""
TOKEN = "X-Label-Token"
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_PICTURE = re.compile(r"/picture/([0-9]{1,9})/(left|right)")


def hosts_of(port: int) -> set[str]:
    """Return what a browser may call this server; it leaves out the port that `http://` means anyway."""
    names = {HOST, "localhost"}
    return {f"{name}:{port}" for name in names} | (names if port == 80 else set())


class Refusal(Exception):
    """A request that is not answered as asked.

    Attributes:
        code: The HTTP status.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class LabelServer(ThreadingHTTPServer):
    """Serves one session.

    Attributes:
        session: What is asked and answered.
        token: What requests must know; new for every server.
        url: Address of the page, with the token behind `#`, where browsers keep it to themselves.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, session: Session, port: int = 0) -> None:
        """Listen.

        Args:
            session: What is asked and answered.
            port: On 127.0.0.1; 0 for any that is free.

        Raises:
            ConfigError: If the port is taken.
        """
        self.session = session
        self.token = secrets.token_urlsafe(24)
        folder = files("t2ialign.annotation.label") / "page"
        self.page = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in FILES.items()}
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"port {port} of {HOST} can not be used ({error.strerror}); give another, or 0 for any"
            ) from error
        self.hosts = hosts_of(self.server_port)
        self.url = f"http://{HOST}:{self.server_port}/#{self.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Note an error in a connection; a browser that went away is none."""
        logger.debug("a request failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: LabelServer
    protocol_version = "HTTP/1.1"
    server_version = "t2ialign"
    sys_version = ""
    timeout = TIMEOUT

    def do_GET(self) -> None:
        """Send the page, the state, or a picture."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Take an answer, an undoing, or the end."""
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep requests out of the terminal."""
        logger.debug("%r", format % args)  # quoted: a request may hold what a terminal obeys

    def _answer(self, act: Any) -> None:
        try:
            data, kind = act()
            code = 200
        except Refusal as refusal:
            self.close_connection = True  # its body, if it has one, was not read
            code, (data, kind) = refusal.code, _json({"error": str(refusal)})
        except (ConnectionError, TimeoutError):
            raise
        except (DataError, OSError) as error:  # a full disk, a log that somebody damaged: nothing was answered
            logger.error("%s", error)
            code, (data, kind) = 500, _json({"error": str(error)})
        self.send_response(code)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def _get(self) -> tuple[bytes, str]:
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # a body that nobody reads must not be taken for the next request
        self._check_sender()
        if (static := self.server.page.get(self.path)) is not None:
            return static
        self._check_token()
        if self.path == "/state":
            return _json(self.server.session.state())
        if found := _PICTURE.fullmatch(self.path):
            try:
                return self.server.session.picture(int(found[1]), found[2])
            except NotOpenError as error:
                raise Refusal(404, str(error)) from error
        raise Refusal(404, "there is nothing here")

    def _post(self) -> tuple[bytes, str]:
        self._check_sender()
        self._check_token()
        if self.path not in ("/answer", "/undo", "/finish"):
            raise Refusal(404, "there is nothing here")
        body = self._body()
        session = self.server.session
        try:
            if self.path == "/answer":
                session.answer(*_answer_of(body))
            elif self.path == "/undo":
                session.undo()
            else:
                threading.Thread(target=self.server.shutdown, daemon=True).start()
        except NotOpenError as error:
            raise Refusal(409, str(error)) from error
        return _json(session.state())

    def _check_sender(self) -> None:
        """Refuse other hosts (a name that was bound to this address) and other origins (a page elsewhere)."""
        if self.headers.get_all("Host", []) not in [[host] for host in self.server.hosts]:
            raise Refusal(421, "this server is not the host that was asked for")
        origins = {f"http://{host}" for host in self.server.hosts}
        if any(origin not in origins for origin in self.headers.get_all("Origin", [])):
            raise Refusal(403, "requests from other pages are not taken")
        if any(site not in ("same-origin", "none") for site in self.headers.get_all("Sec-Fetch-Site", [])):
            # A link to the page may be followed, from a terminal that is a web page for instance: it shows nothing.
            followed = (
                self.headers.get("Sec-Fetch-Mode") == "navigate" and self.headers.get("Sec-Fetch-Dest") == "document"
            )
            if not (self.command == "GET" and self.path == "/" and followed):
                raise Refusal(403, "requests from other pages are not taken")

    def _check_token(self) -> None:
        given = self.headers.get(TOKEN, "").encode("utf-8", "replace")
        if not hmac.compare_digest(given, self.server.token.encode()):
            raise Refusal(403, "the token is missing or of an earlier run; open the address that the program printed")

    def _body(self) -> dict[str, Any]:
        """Read a small JSON object."""
        if self.headers.get("Content-Type", "").split(";")[0].strip().lower() != "application/json":
            raise Refusal(415, "the body must be application/json")
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not re.fullmatch(r"[0-9]{1,12}", length):
            raise Refusal(411, "the body must come with its length")
        if int(length) > LONGEST_BODY:
            raise Refusal(413, f"the body has {length} bytes; at most {LONGEST_BODY} are read")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise Refusal(400, "the body is no JSON") from error
        if not isinstance(body, dict):
            raise Refusal(400, "the body is no JSON object")
        return body


def _answer_of(body: dict[str, Any]) -> tuple[int, str, float | None]:
    number, said, seconds = body.get("question"), body.get("answer"), body.get("seconds")
    if not isinstance(number, int) or isinstance(number, bool) or not isinstance(said, str):
        raise Refusal(400, "question (a number) and answer (a word) are needed")
    if said not in ("left", "right", "tie", "skip"):
        raise Refusal(400, "the answer must be left, right, tie or skip")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float | None):
        raise Refusal(400, "seconds must be a number")
    return number, said, seconds


def _json(value: dict[str, Any]) -> tuple[bytes, str]:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"), "application/json; charset=utf-8"
