"""A loopback HTTP server that speaks OpenAI's chat completions, and can be told to misbehave.

Law: it is written from the protocol; nothing of t2ialign has a hand in it.

    with ChatServer(lambda request: "a red circle") as server:
        ...  # server.url, server.requests, server.headers
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class Raw:
    """An answer other than a completion.

    Attributes:
        status: HTTP status.
        body: What is sent.
        headers: Headers beside the usual ones.
        delay: Seconds before it is sent.
        hang_up: Whether the connection is closed without a word.
    """

    def __init__(
        self,
        status: int = 200,
        body: Any = b"",
        *,
        kind: str = "application/json",
        headers: dict[str, str] | None = None,
        delay: float = 0.0,
        hang_up: bool = False,
    ) -> None:
        self.status = status
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.headers = {"Content-Type": kind} | (headers or {})
        self.delay = delay
        self.hang_up = hang_up


def problem(status: int, message: str, code: str | None = None, **headers: str) -> Raw:
    """An error as OpenAI writes it."""
    return Raw(status, {"error": {"message": message, "type": "x", "param": None, "code": code}}, headers=headers)


def completion(text: str | None, finish: str = "stop", **message: Any) -> Raw:
    """A chat completion."""
    said = {"role": "assistant", "content": text, **message}
    choice = {"index": 0, "finish_reason": finish, "message": said, "logprobs": None}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return Raw(
        200,
        {"id": "c", "object": "chat.completion", "created": 1, "model": "served", "choices": [choice], "usage": usage},
    )


Reply = Callable[[dict[str, Any]], "str | Raw"]


class ChatServer:
    """The server. `reply` gets the parsed request and returns a text or a `Raw`; it is called by several threads.

    Attributes:
        requests: The requests, parsed, in order.
        headers: Their headers, names in small letters.
        busiest: The most requests that were under way at once.
    """

    def __init__(self, reply: Reply) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.busiest = 0
        self._busy = 0
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with owner._lock:
                    owner.requests.append({"path": self.path, **request})
                    owner.headers.append({name.lower(): value for name, value in self.headers.items()})
                    owner._busy += 1
                    owner.busiest = max(owner.busiest, owner._busy)
                try:
                    answer = reply(request)
                    self._send(answer if isinstance(answer, Raw) else completion(answer))
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client did not wait
                finally:
                    with owner._lock:
                        owner._busy -= 1

            def _send(self, raw: Raw) -> None:
                time.sleep(raw.delay)
                if raw.hang_up:
                    self.close_connection = True
                    self.connection.close()
                    return
                self.send_response(raw.status)
                for name, value in {**raw.headers, "Content-Length": str(len(raw.body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw.body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def scripted(*answers: str | Raw) -> Reply:
    """Replies in turn; the last one again and again."""
    waiting = list(answers)
    lock = threading.Lock()

    def reply(request: dict[str, Any]) -> str | Raw:
        with lock:
            return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    return reply


def words(request: dict[str, Any]) -> str:
    """The text part of a request."""
    parts = request["messages"][0]["content"]
    return next(str(part["text"]) for part in parts if part["type"] == "text")
