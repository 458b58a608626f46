"""A headless Chromium, driven through chromedriver by the WebDriver protocol (W3C), with the standard library alone.

Law: real key presses and clicks, as the operating system would send them; nothing is called inside the page but to
read.
"""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

KEYS = {"ArrowLeft": "\ue012", "ArrowUp": "\ue013", "ArrowRight": "\ue014", "ArrowDown": "\ue015"}
KEYS |= {"Backspace": "\ue003", "Tab": "\ue004", "Enter": "\ue007", "Shift": "\ue008", "Control": "\ue009"}
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
)  # fmt: skip


class Browser:
    """A session of a browser."""

    def __init__(self, driver: str, session: str) -> None:
        self._root = f"{driver}/session/{session}"

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return _request(method, self._root + path, body)

    def open(self, url: str) -> None:
        """Goes to a page and waits until it is loaded."""
        self._ask("POST", "/url", {"url": url})

    def reload(self) -> None:
        """Loads the page again."""
        self._ask("POST", "/refresh", {})

    def press(self, *keys: str, hold: str | None = None) -> None:
        """Presses and releases keys one after the other, by their names in JavaScript, another one held meanwhile."""
        actions = []
        for key in keys:
            value = KEYS.get(key, key)
            actions += [{"type": kind, "value": value} for kind in ("keyDown", "keyUp")]
        if hold is not None:
            actions.insert(0, {"type": "keyDown", "value": KEYS[hold]})
            actions.append({"type": "keyUp", "value": KEYS[hold]})
        self._ask("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def click(self, selector: str) -> None:
        """Clicks the middle of an element."""
        found = self._ask("POST", "/element", {"using": "css selector", "value": selector})
        self._ask("POST", f"/element/{found[_ELEMENT]}/click", {})

    def read(self, script: str) -> Any:
        """Evaluates an expression in the page."""
        return self._ask("POST", "/execute/sync", {"script": f"return ({script})", "args": []})

    def text(self, selector: str) -> str:
        """The text of an element."""
        return str(self.read(f"document.querySelector({selector!r}).textContent"))

    def wait(self, script: str, seconds: float = 20.0) -> Any:
        """Waits until an expression is true, and returns its value."""
        deadline = time.monotonic() + seconds
        while not (value := self.read(script)):
            assert time.monotonic() < deadline, f"never true: {script}"
            time.sleep(0.02)
        return value

    def resize(self, width: int, height: int, phone: bool = False) -> None:
        """Sets the size of the page in CSS pixels; as a phone's, with its pixel ratio."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self._ask("POST", "/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics})

    def dark(self) -> None:
        """Has the page believe that the person likes dark colours."""
        features = [{"name": "prefers-color-scheme", "value": "dark"}]
        self._ask("POST", "/goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}})

    def screenshot(self, path: Path) -> None:
        """Writes what is seen to a PNG file."""
        path.write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))

    def logs(self) -> list[str]:
        """What the console said, errors of the content security policy too."""
        return [str(line["message"]) for line in self._ask("POST", "/se/log", {"type": "browser"})]


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Starts a browser with a profile in `folder`; skips the test where there is none."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("there is no Chromium with chromedriver on this machine")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        _until(lambda: _request("GET", f"{address}/status")["ready"])
        arguments = [*_ARGUMENTS, f"--user-data-dir={folder / 'profile'}", "--window-size=1280,900"]
        options = {"binary": chromium, "args": arguments}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        made = _request("POST", f"{address}/session", {"capabilities": {"alwaysMatch": wanted}})
        try:
            yield Browser(address, made["sessionId"])
        finally:
            _request("DELETE", f"{address}/session/{made['sessionId']}")
    finally:
        process.terminate()
        process.wait(20)


def _until(ready: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if ready():
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise TimeoutError("chromedriver does not answer")


def _request(method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{method} {url}: {error.read().decode()[:500]}") from error
