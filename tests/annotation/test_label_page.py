"""The page in a real browser: keys, clicks, undo, reload, a kill in between; and the command around it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers.browser import Browser, browser
from helpers.labels import image_set, start
from t2ialign.cli.main import main
from t2ialign.data.pairs import load_pairs

READY = "document.getElementById('pair').getAttribute('aria-busy') === 'false'"


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return image_set(tmp_path / "set", prompts=6, pictures=2, size=(64, 48))


def show(chrome: Browser, address: str) -> None:
    chrome.resize(1280, 800)
    chrome.open("about:blank")
    chrome.open(address)
    chrome.wait(READY)


def press(chrome: Browser, key: str, answered: int) -> None:
    """Presses a key and waits until the page shows that so many questions are answered."""
    chrome.press(key)
    chrome.wait(f"document.getElementById('count').textContent.startsWith('{answered} of ') && {READY}")


def rows(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]


def answers(output: Path, user: str = "me") -> list[str]:
    lines = (output / f"answers/{user}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["answer"] for line in lines[1:]]


def colour(chrome: Browser, side: str) -> list[int]:
    """The colour in the middle of a picture, as the browser has drawn it."""
    return list(
        chrome.read(
            "(() => { const c = document.createElement('canvas'); c.width = c.height = 1; "
            f"const i = document.querySelector('#{side} img'); const x = c.getContext('2d'); "
            "x.drawImage(i, i.naturalWidth / 2, i.naturalHeight / 2, 1, 1, 0, 0, 1, 1); "
            "return [...x.getImageData(0, 0, 1, 1).data].slice(0, 3) })()"
        )
    )


def test_a_person_labels_is_killed_goes_on_and_gets_a_user_file(
    chrome: Browser, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "labels"
    process, address = start(images, out, "--user", "alice")
    show(chrome, address)
    shown = {side: colour(chrome, side) for side in ("left", "right")}
    prompt = chrome.text("#prompt")
    press(chrome, "ArrowRight", 1)
    first = rows(out)[0]
    assert first["prompt"] == prompt
    for column, side in (("chosen", "right"), ("rejected", "left")):
        with Image.open(out / first[f"{column}_file_name"]) as picture:
            assert list(picture.convert("RGB").tobytes()[:3]) == shown[side]
    press(chrome, "ArrowLeft", 2)
    press(chrome, "t", 3)
    press(chrome, "s", 4)
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    assert [row["chosen_side"] for row in rows(out)] == ["right", "left", None]

    chrome.press("ArrowLeft")
    chrome.wait("!document.getElementById('problem').hidden")
    assert "nothing is lost" in chrome.text("#problem-text")
    port = address.split(":")[2].split("/")[0]
    process, address = start(images, out, "--user", "alice", "--port", port)
    chrome.click("#retry")
    chrome.wait("document.getElementById('problem-text').textContent.includes('earlier run')")
    show(chrome, address)
    assert chrome.text("#count") == "4 of 6"
    press(chrome, "u", 3)
    press(chrome, "ArrowLeft", 4)
    press(chrome, "Backspace", 3)
    press(chrome, "ArrowLeft", 4)
    press(chrome, "ArrowLeft", 5)
    chrome.press("ArrowRight")
    chrome.wait("document.getElementById('end-title').textContent === 'All done'")
    chrome.click("#finish")
    chrome.wait("document.getElementById('end-title').textContent === 'Thank you'")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "alice: 5 preferred, 1 ties, 0 skipped; 6 of 6 questions" in said
    assert f"next: t2ialign users embed {out} --user alice --output users/alice.safetensors" in said
    assert answers(out, "alice") == [
        *("right", "left", "tie", "skip", "undo", "left", "undo", "left", "left", "right")
    ]  # fmt: skip
    assert not [line for line in chrome.logs() if "Content Security Policy" in line or "SyntaxError" in line]

    assert main(["users", "embed", str(out), "--user", "alice", "--output", str(tmp_path / "alice.safetensors")]) == 0
    assert "alice: 1 x 4 shots of labels[train]" in capsys.readouterr().out.replace(str(tmp_path) + "/", "")


def test_keys_that_mean_something_else(chrome: Browser, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    process, address = start(images, out)
    try:
        show(chrome, address)
        for key in ("x", "Enter", "ArrowUp", "1"):
            chrome.press(key)
        chrome.press("ArrowLeft", "u", hold="Control")
        press(chrome, "T", 1)
        chrome.read(
            "document.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft', repeat: true, bubbles: true}))"
        )
        chrome.reload()
        chrome.wait(READY)
        assert chrome.text("#count") == "1 of 6"
        assert answers(out) == ["tie"]
        assert chrome.read("document.activeElement === document.body")
    finally:
        process.kill()
        process.wait(20)


def test_clicks_and_the_keyboard_alone(chrome: Browser, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    process, address = start(images, out)
    try:
        show(chrome, address)
        steps = [("#left", 1), ("#right img", 2), ("#tie", 3), ("#undo", 2), ("#skip", 3)]
        for selector, count in steps:
            chrome.click(selector)
            chrome.wait(f"document.getElementById('count').textContent.startsWith('{count} of ') && {READY}")
        assert answers(out) == ["left", "right", "tie", "undo", "skip"]
        chrome.read("document.getElementById('left').focus()")
        press(chrome, "Enter", 4)
        assert chrome.read("document.activeElement.id") == "left"
        chrome.press("Tab")
        assert chrome.read("document.activeElement.id") == "right"
        press(chrome, "Enter", 5)
        assert answers(out)[-2:] == ["left", "right"]
    finally:
        process.kill()
        process.wait(20)


def test_what_is_read_aloud(chrome: Browser, images: Path, tmp_path: Path) -> None:
    process, address = start(images, tmp_path / "labels")
    try:
        show(chrome, address)
        status = "document.getElementById('status')"
        assert chrome.read(f"{status}.getAttribute('aria-live')") == "polite"
        press(chrome, "ArrowLeft", 1)
        prompt = chrome.text("#prompt")
        assert chrome.text("#status") == f"The left picture. 2 of 6: {prompt}"
        assert chrome.read("[...document.images].map(i => i.alt)") == ["The left picture", "The right picture"]
        unnamed = (
            "[...document.querySelectorAll('button')].filter(b => !b.hidden && !b.innerText && !b.ariaLabel).length"
        )
        assert chrome.read(unnamed) == 0
        assert chrome.read("document.getElementById('bar').getAttribute('aria-valuetext')") == "1 of 6"
        chrome.resize(390, 844, phone=True)
        chrome.wait("document.querySelector('#left img').alt === 'The upper picture'")
        tops = chrome.read("['left', 'right'].map(s => document.getElementById(s).getBoundingClientRect().top)")
        assert tops[0] < tops[1]
        press(chrome, "ArrowDown", 2)
        assert chrome.text("#status").startswith("The lower picture. 3 of 6")
    finally:
        process.kill()
        process.wait(20)


@pytest.mark.parametrize(("width", "height", "phone"), [(1280, 800, False), (390, 844, True), (844, 390, True)])
def test_everything_fits_the_window(
    chrome: Browser, images: Path, tmp_path: Path, width: int, height: int, phone: bool
) -> None:
    words = "a very long prompt about nearly everything " * 20
    text = (images / "metadata.jsonl").read_text(encoding="utf-8").replace("prompt ", words)
    (images / "metadata.jsonl").write_text(text, encoding="utf-8")
    process, address = start(images, tmp_path / "labels")
    try:
        show(chrome, address)
        chrome.resize(width, height, phone)
        boxes = chrome.read(
            "['left', 'right', 'undo', 'tie', 'skip', 'finish', 'prompt'].map(id => "
            "{ const b = document.getElementById(id).getBoundingClientRect(); "
            "return [b.left, b.top, b.right, b.bottom] })"
        )
        assert all(0 <= left < right <= width and 0 <= top < bottom <= height for left, top, right, bottom in boxes)
        drawn = chrome.read("[...document.images].map(i => Math.min(i.clientWidth, i.clientHeight))")
        assert min(drawn) >= 100
        small = chrome.read(
            "[...document.querySelectorAll('button')].map(b => b.getBoundingClientRect()).filter(b => b.height)"
            ".map(b => b.height)"
        )
        assert min(small) >= 44
    finally:
        process.kill()
        process.wait(20)


def test_a_foreign_page_gets_nothing(chrome: Browser, images: Path, tmp_path: Path) -> None:
    """The same requests as the page's own, with the token even, from a page of another origin."""
    out = tmp_path / "labels"
    process, address = start(images, out)
    base, token = address.split("/#")
    try:
        page = tmp_path / "foreign.html"
        headers = f"{{'X-Label-Token': '{token}', 'Content-Type': 'application/json'}}"
        body = "JSON.stringify({question: 0, answer: 'left'})"
        simple = "{method: 'POST', mode: 'no-cors', headers: {'Content-Type': 'text/plain'}, body: " + body + "}"
        page.write_text(
            f"<body><img id=i src='{base}/picture/0/left'><iframe src='{base}/'></iframe><script>window.told = [];"
            f"const note = p => p.then(a => told.push(a.type + a.status), e => told.push('failed'));"
            f"note(fetch('{base}/state', {{headers: {headers}}}));"
            f"note(fetch('{base}/answer', {{method: 'POST', headers: {headers}, body: {body}}}));"
            f"note(fetch('{base}/answer', {simple}));</script>"
        )
        chrome.open(page.as_uri())
        told = chrome.wait("window.told.length === 3 && window.told")
        assert sorted(told) in (["failed", "failed", "opaque0"], ["failed", "failed", "failed"])
        assert chrome.read("document.getElementById('i').naturalWidth") == 0
        show(chrome, address)
        assert chrome.text("#count") == "0 of 6"
        assert answers(out) == []
    finally:
        process.kill()
        process.wait(20)


def test_ctrl_c_ends_it_and_embeds(images: Path, tmp_path: Path) -> None:
    """Without a browser: the answers come over HTTP, and Ctrl-C in the terminal ends the program."""
    import urllib.request

    out, user = tmp_path / "labels", tmp_path / "users/bob.safetensors"
    process, address = start(images, out, "--user", "bob", "--limit", "5", "--embed_user", str(user))
    base, token = address.split("/#")
    for number in range(5):
        data = json.dumps({"question": number, "answer": "left"}).encode()
        headers = {"Content-Type": "application/json", "X-Label-Token": token}
        with urllib.request.urlopen(urllib.request.Request(f"{base}/answer", data, headers), timeout=20) as reply:
            assert reply.status == 200
    process.send_signal(signal.SIGINT)
    said, wrong = process.communicate(timeout=120)
    assert process.returncode == 0, wrong
    assert "bob: 5 preferred, 0 ties, 0 skipped; 5 of 5 questions" in said
    assert "Traceback" not in wrong
    assert user.is_file()
    assert len(load_pairs(out)) == 5
