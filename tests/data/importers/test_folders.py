"""chosen/ and rejected/ with equal names, and captions in every file that people keep them in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.pair_sets import picture
from t2ialign.data.importers import import_pairs
from t2ialign.data.pairs import load_pairs
from t2ialign.errors import DataError


def folders(root: Path, names: tuple[str, ...] = ("a", "b"), sides: tuple[str, str] = ("chosen", "rejected")) -> Path:
    for side, offset, suffix in ((sides[0], 0, ".png"), (sides[1], 1, ".jpg")):
        for number, name in enumerate(names):
            path = root / side / f"{name}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(40 * (2 * number + offset)).save(path)
    return root


CAPTIONS = {
    "captions.txt": "a.png\ta cat\nb.png\ta dog\n",
    "captions.csv": 'file_name,caption\na.png,a cat\nrejected/b.jpg,"a dog"\n',
    "captions.tsv": "name\tprompt\nb\ta dog\na\ta cat\n",
    "captions.jsonl": '{"file_name": "chosen/a.png", "text": "a cat"}\n{"name": "b", "prompt": "a dog"}\n',
    "captions.json": json.dumps({"a.png": "a cat", "b": {"prompt": "a dog"}}),
}


@pytest.mark.parametrize("name", CAPTIONS)
def test_captions_files(tmp_path: Path, name: str) -> None:
    root = folders(tmp_path / "set")
    (root / name).write_text(CAPTIONS[name])
    summary = import_pairs("folders", root, tmp_path / "out")
    assert (summary.written, summary.dropped) == (2, {})
    pairs = load_pairs(tmp_path / "out")
    assert pairs.prompts == ["a cat", "a dog"]
    assert pairs.encoded(1, "chosen") == (root / "chosen/b.png").read_bytes()
    assert pairs.encoded(1, "rejected") == (root / "rejected/b.jpg").read_bytes()


def test_captions_by_position(tmp_path: Path) -> None:
    root = folders(tmp_path / "set", ("10", "2"))
    (root / "captions.txt").write_text("first\nsecond\n")
    import_pairs("folders", root, tmp_path / "out")
    pairs = load_pairs(tmp_path / "out")
    assert pairs.prompts == ["first", "second"]
    assert pairs.encoded(0, "chosen") == (root / "chosen/10.png").read_bytes()
    (root / "captions.txt").write_text("one\ntwo\nthree\n")
    with pytest.raises(DataError, match=r"captions\.txt: 3 captions for 2 pairs"):
        import_pairs("folders", root, tmp_path / "out2")


def test_captions_beside_and_folders_inside(tmp_path: Path) -> None:
    root = folders(tmp_path / "set", ("x/a", "b", "c"), ("w", "l"))
    (root / "w/x/a.txt").write_text("\ufeffa cat\n")
    (root / "l/b.txt").write_text("a dog")
    summary = import_pairs("folders", root, tmp_path / "out")
    assert load_pairs(tmp_path / "out").prompts == ["a dog", "a cat"]
    assert summary.dropped == {"no caption": 1}


def test_further_columns(tmp_path: Path) -> None:
    root = folders(tmp_path / "set", ("a", "b", "c"))
    header = "file_name,prompt,user_id,preference_prob,note\n"
    (root / "captions.csv").write_text(header + "a,x,u1,0.9,n\nb,y,,,n\nc,z,u2,0.5,n\n")
    summary = import_pairs("folders", root, tmp_path / "out")
    assert summary.dropped == {"tie": 1}
    pairs = load_pairs(tmp_path / "out")
    assert (pairs.column("user_id"), pairs.column("preference_prob")) == (["u1", None], [0.9, None])
    (root / "captions.csv").write_text(header + "a,x,u1,much,n\n")
    with pytest.raises(DataError, match="captions, a: preference_prob is 'much'"):
        import_pairs("folders", root, tmp_path / "out2")


def test_what_is_left_out(tmp_path: Path) -> None:
    root = folders(tmp_path / "set", ("a", "b", "c", "d", "e", "f"))
    (root / "chosen/b.png").unlink()
    (root / "rejected/c.jpg").unlink()
    (root / "chosen/d.png").write_bytes(b"<html>")
    (tmp_path / "secret.jpg").write_bytes((root / "rejected/e.jpg").read_bytes())
    (root / "rejected/e.jpg").unlink()
    (root / "rejected/e.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "chosen/.hidden.png").write_bytes(b"")
    (root / "chosen/Thumbs.db").write_bytes(b"")
    names = "".join(f"{name}\tcaption\n" for name in "abcde") + "f\t\n"
    (root / "captions.txt").write_text(names)
    summary = import_pairs("folders", root, tmp_path / "out")
    assert (summary.read, summary.written) == (6, 1)
    assert summary.dropped == {
        "no picture of that name in chosen/": 1,
        "no picture of that name in rejected/": 1,
        "unreadable picture": 1,
        "the file lies outside the folder": 1,
        "empty prompt": 1,
    }


def test_what_can_not_be_imported(tmp_path: Path) -> None:
    root = folders(tmp_path / "set")
    with pytest.raises(DataError, match="no pair of set is left"):
        import_pairs("folders", root, tmp_path / "out")
    (root / "captions.json").write_text("[{")
    with pytest.raises(DataError, match=r"captions\.json: not JSON"):
        import_pairs("folders", root, tmp_path / "out")
    (root / "captions.json").write_text('[{"prompt": "a"}]')
    with pytest.raises(DataError, match="no column file_name, name, file, image"):
        import_pairs("folders", root, tmp_path / "out")
    (root / "captions.json").unlink()
    picture(5).save(root / "chosen/a.webp")
    with pytest.raises(DataError, match=r"chosen/a\.png and chosen/a\.webp share a name"):
        import_pairs("folders", root, tmp_path / "out")
    with pytest.raises(DataError, match="no folders chosen/ and rejected/"):
        import_pairs("folders", tmp_path / "nothing", tmp_path / "out")
