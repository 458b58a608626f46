"""Diffusion-KTO's CSV in both of its dialects, TRL's unpaired format, and what becomes of every other row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.pair_sets import encoded, pair, picture
from t2ialign.cli.main import main
from t2ialign.data.importers import import_pairs
from t2ialign.data.pairs import load_pairs, write_pairs
from t2ialign.data.unpaired import load_unpaired
from t2ialign.errors import DataError

VERDICTS = ("exclusive_win", "exclusive_lose", "intersections")


def csv_folder(folder: Path, text: str, name: str = "train_processed_v3.csv", pictures: int = 4) -> Path:
    """A folder as official code wants it: the CSV, and `train/0.jpg`, `train/1.jpg`, ..."""
    (folder / "train").mkdir(parents=True, exist_ok=True)
    for number in range(pictures):
        picture(60 * number).save(folder / "train" / f"{number}.jpg")
    (folder / name).write_text(text, encoding="utf-8")
    return folder


OFFICIAL = ",file_name,caption,split\n" + "".join(
    f'{n},train/{n}.jpg,"caption {n}, with a comma",{verdict}\n' for n, verdict in enumerate(VERDICTS)
)


@pytest.mark.parametrize(
    ("both", "labels", "dropped"),
    [
        ("win", [True, False, True], {}),
        ("lose", [True, False, False], {}),
        ("drop", [True, False], {"both won and lost": 1}),
    ],
)
def test_what_official_code_reads(tmp_path: Path, both: Any, labels: list[bool], dropped: dict[str, int]) -> None:
    root = csv_folder(tmp_path / "pick", OFFICIAL)
    summary = import_pairs("kto", root, tmp_path / "out", both=both)
    assert (summary.read, summary.written, summary.dropped) == (3, len(labels), dropped)
    assert summary.notices == ({} if both == "drop" else {f"both won and lost, counted as a {both}": 1})
    found = load_unpaired(tmp_path / "out")
    assert found.labels == labels
    assert found.prompts == [f"caption {n}, with a comma" for n in range(len(labels))]
    for n in range(len(labels)):
        assert found.encoded(n) == (root / f"train/{n}.jpg").read_bytes()


def test_the_summary_the_card_and_import_json(tmp_path: Path) -> None:
    root = csv_folder(tmp_path / "pick", OFFICIAL)
    summary = import_pairs("kto", root, tmp_path / "out")
    stored = json.loads((tmp_path / "out/import.json").read_text())["splits"]["train"]
    assert stored == summary.to_dict()
    assert (stored["kind"], stored["columns"]) == ("unpaired", ["prompt", "image", "label"])
    card = (tmp_path / "out/README.md").read_text()
    assert "# Labelled pictures from pick" in card
    assert "| both won and lost, counted as a win | 1 |" in card
    assert str(tmp_path) not in card + json.dumps(stored)
    assert summary.lines()[0].startswith("3 of 3 pictures written to ")
    assert "  both won and lost, counted as a win: 1" in summary.lines()


def test_what_the_readme_documents(tmp_path: Path) -> None:
    text = "file_path,caption,label\n" + "".join(f"train/{n}.jpg,c{n},{word}\n" for n, word in enumerate(VERDICTS))
    root = csv_folder(tmp_path / "x", text, "mine.csv")
    import_pairs("kto", root / "mine.csv", tmp_path / "out")
    assert load_unpaired(tmp_path / "out").labels == [True, False, True]


def test_every_word_of_a_label(tmp_path: Path) -> None:
    words = ["1", "0", "True", "FALSE", "1.0", " 0.0 ", "Exclusive_Win", "", "2", "maybe", "nan"]
    text = "file_name,caption,label,split\n" + "".join(f"train/0.jpg,c{n},{w},1\n" for n, w in enumerate(words))
    summary = import_pairs("kto", csv_folder(tmp_path / "x", text, "train.csv"), tmp_path / "out")
    found = load_unpaired(tmp_path / "out")
    assert found.prompts == [f"c{n}" for n in range(7)]
    assert found.labels == [True, False, True, False, True, False, True]
    assert summary.dropped == {"unknown label": 4}
    assert summary.examples == {"unknown label": "line 9: split '1'"}


def test_split_and_label_together(tmp_path: Path) -> None:
    rows = [
        ("exclusive_win", "True", True),
        ("exclusive_lose", "exclusive_lose", False),
        ("exclusive_win", "0", "split and label contradict each other"),
        ("exclusive_lose", "", False),
        ("train", "1", True),
        ("train", "", "unknown label"),
        ("", "", "no label (empty)"),
        ("intersections", "1", None),
    ]
    text = "file_name,caption,split,label\n" + "".join(f"train/0.jpg,c,{s},{label}\n" for s, label, _ in rows)
    summary = import_pairs("kto", csv_folder(tmp_path / "x", text), tmp_path / "out", both="lose")
    reasons = [want for *_, want in rows if isinstance(want, str)]
    assert summary.dropped == {reason: reasons.count(reason) for reason in reasons}
    wanted = [want for *_, want in rows if isinstance(want, bool)]
    assert load_unpaired(tmp_path / "out").labels == [*wanted, False]


def test_rows_that_are_left_out(tmp_path: Path) -> None:
    root = csv_folder(tmp_path / "x", "")
    picture(9).save(tmp_path / "secret.png")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "page.jpg").write_text("<html>")
    half = encoded(7, "JPEG", (64, 64))
    (root / "half.jpg").write_bytes(half[: len(half) - 30])
    rows = [
        ("train/0.jpg", "fine"),
        ("train/0.jpg", " "),
        ("train/9.jpg", "gone"),
        ("", "none"),
        ("../secret.png", "climbs"),
        (str(tmp_path / "secret.png"), "absolute"),
        ("link.png", "link"),
        ("page.jpg", "page"),
        ("half.jpg", "half"),
        ("train/1.jpg", "a NUDE statue"),
    ]
    lines = [f"{name},{caption},exclusive_win\n" for name, caption in rows]
    (root / "train_processed_v3.csv").write_text("file_name,caption,split\n" + "".join(lines))
    (tmp_path / "words.txt").write_text("nude\n")
    summary = import_pairs("kto", root, tmp_path / "out", verify=True, unsafe_words=tmp_path / "words.txt")
    assert summary.dropped == {
        "empty prompt": 1,
        "no such file": 1,
        "picture missing": 1,
        "the file lies outside the folder": 3,
        "unreadable picture": 2,
        "unsafe prompt (word list)": 1,
    }
    assert load_unpaired(tmp_path / "out").prompts == ["fine"]
    assert summary.examples["no such file"] == "line 4: train/9.jpg"
    assert "line 6" in summary.examples["the file lies outside the folder"]
    assert import_pairs("kto", root, tmp_path / "out2").written == 3, "a header alone shows no cut picture"


def test_pictures_elsewhere(tmp_path: Path) -> None:
    root = csv_folder(tmp_path / "pictures", "")
    (tmp_path / "tables").mkdir()
    source = tmp_path / "tables" / "x.csv"
    source.write_text("file_name,caption,split\ntrain/1.jpg,c,exclusive_win\n../tables/x.csv,c,exclusive_win\n")
    with pytest.raises(DataError, match=r"no picture of x\.csv is left\n  left out, .*: 1 "):
        import_pairs("kto", source, tmp_path / "out")
    summary = import_pairs("kto", source, tmp_path / "out", images=root)
    assert (summary.written, summary.dropped) == (1, {"the file lies outside the folder": 1})
    assert load_unpaired(tmp_path / "out").encoded(0) == (root / "train/1.jpg").read_bytes()
    with pytest.raises(DataError, match=r"--images .*: there is no such folder"):
        import_pairs("kto", source, tmp_path / "out2", images=tmp_path / "nothing")


def test_further_columns(tmp_path: Path) -> None:
    head = "file_name,caption,split,user_id,group,source,weight,note\n"
    text = head + "train/0.jpg,c,exclusive_win,7,g,s,0.5,n\ntrain/1.jpg,c,exclusive_lose,,,,,\n"
    root = csv_folder(tmp_path / "x", text)
    summary = import_pairs("kto", root, tmp_path / "out")
    found = load_unpaired(tmp_path / "out")
    assert summary.columns == ["prompt", "image", "label", "user_id", "group", "source", "weight"]
    assert (found[0].user_id, found[0].group, found[0].source, found[0].weight) == ("7", "g", "s", 0.5)
    assert (found[1].user_id, found[1].group, found[1].source, found[1].weight) == (None,) * 4
    (root / "train_processed_v3.csv").write_text(head + "train/0.jpg,c,exclusive_win,7,g,s,much,n\n")
    with pytest.raises(DataError, match="line 2: weight is 'much', a number is needed"):
        import_pairs("kto", root, tmp_path / "out2")
    assert not (tmp_path / "out2/data").exists()


def test_which_csv_of_a_folder(tmp_path: Path) -> None:
    def line(caption: str) -> str:
        return f"file_name,caption,split\ntrain/0.jpg,{caption},exclusive_win\n"

    root = csv_folder(tmp_path / "x", line("other"), "other.csv")
    with pytest.raises(DataError, match=r"has no train_processed_v3\.csv or train\.csv .*or the CSV file itself"):
        import_pairs("kto", root, tmp_path / "a")
    for number, name in enumerate(["train_processed_v2.csv", "metadata.csv", "train.csv", "train_processed_v3.csv"]):
        (root / name).write_text(line(name))
        import_pairs("kto", root, tmp_path / f"out{number}")
        assert load_unpaired(tmp_path / f"out{number}").prompts == [name]
    with pytest.raises(DataError, match="for the split 'test'"):
        import_pairs("kto", root, tmp_path / "b", split="test")
    for name in ("test_processed_v1.csv", "test_processed_v2.csv"):
        (root / name).write_text(line(name))
    with pytest.raises(DataError, match=r"has test_processed_v1\.csv, test_processed_v2\.csv; name the one"):
        import_pairs("kto", root, tmp_path / "b", split="test")
    import_pairs("kto", root / "test_processed_v1.csv", tmp_path / "out0", split="test")
    assert load_unpaired(tmp_path / "out0", split="test").prompts == ["test_processed_v1.csv"]


def test_limit_and_quoted_line_breaks(tmp_path: Path) -> None:
    text = '\ufefffile_name,caption,split\r\n\r\ntrain/0.jpg,"two\r\nlines",exclusive_win\r\n' + (
        "train/1.jpg,one,exclusive_lose\r\ntrain/2.jpg,more,exclusive_lose\r\n"
    )
    root = csv_folder(tmp_path / "x", "")
    (root / "train.csv").write_bytes(text.encode())
    summary = import_pairs("kto", root / "train.csv", tmp_path / "out", limit=2)
    assert (summary.read, summary.written) == (2, 2)
    assert load_unpaired(tmp_path / "out").prompts == ["two\r\nlines", "one"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"x\.csv is empty; a line with the names"),
        ("file_name,caption\na,b\n", "no column label or split among file_name, caption"),
        ("name,caption,split\na,b,c\n", "no column file_name or file_path or completion or image or images among"),
        ("file_name,split\na,c\n", "no column caption or prompt or text among"),
        ("file_name,caption,split\na,b,c,d\n", r"x\.csv, line 2: 4 cells under 3 columns"),
        ('file_name,caption,split\na,"b,c\n', r"x\.csv, line 2: "),
    ],
)
def test_a_csv_that_can_not_be_read(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        import_pairs("kto", tmp_path / "x.csv", tmp_path / "out")
    assert not (tmp_path / "out/data").exists()


def test_a_csv_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes("file_name,caption,split\na,é,exclusive_win\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"x\.csv can not be read as UTF-8 text"):
        import_pairs("kto", tmp_path / "x.csv", tmp_path / "out")


# TRL's unpaired format


def user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def image_message(data: bytes | None) -> list[dict[str, Any]]:
    part: dict[str, Any] = {"type": "image"} if data is None else {"type": "image", "image": {"bytes": data}}
    return [{"role": "assistant", "content": [part]}]


@pytest.mark.parametrize(
    "row",
    [
        lambda n: {"prompt": f"p{n}", "completion": encoded(n)},
        lambda n: {"prompt": f"p{n}", "completion": {"bytes": encoded(n), "path": None}},
        lambda n: {"prompt": f"p{n}", "completion": f"{n}.png"},
        lambda n: {"prompt": user(f"p{n}"), "completion": image_message(encoded(n))},
        lambda n: {"prompt": user(f"p{n}"), "completion": image_message(None), "images": [{"bytes": encoded(n)}]},
        lambda n: {"prompt": f"p{n}", "images": [{"bytes": encoded(n)}]},
        lambda n: {"prompt": f"p{n}", "image": {"bytes": encoded(n)}},
    ],
)
def test_trl(tmp_path: Path, row: Any) -> None:
    source = tmp_path / "set"
    source.mkdir()
    for n in range(3):
        picture(n).save(source / f"{n}.png")
    rows = [{**row(n), "label": n != 1, "user_id": n} for n in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), source / "train-00000-of-00001.parquet")
    summary = import_pairs("kto", source, tmp_path / "out")
    assert (summary.written, summary.dropped) == (3, {})
    found = load_unpaired(tmp_path / "out")
    assert (found.prompts, found.labels) == (["p0", "p1", "p2"], [True, False, True])
    assert found.column("user_id") == ["0", "1", "2"]
    assert [each.image.getpixel((0, 0)) for each in found] == [(n, 0, 0) for n in range(3)]


def test_trl_rows_that_are_left_out(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "p0", "completion": encoded(0), "label": 1.0},
        {"prompt": "p1", "completion": encoded(1), "label": None},
        {"prompt": "p2", "completion": encoded(2), "label": float("nan")},
        {"prompt": "p3", "completion": encoded(3), "label": 0.5},
        {"prompt": "p4", "completion": None, "label": 0.0},
        {"prompt": None, "completion": encoded(5), "label": 0.0},
        {"prompt": "p6", "completion": b"<html>", "label": 0.0},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    summary = import_pairs("kto", tmp_path / "x.parquet", tmp_path / "out")
    assert summary.dropped == {
        "no label (empty)": 2,
        "unknown label": 1,
        "picture missing": 1,
        "empty prompt": 1,
        "unreadable picture": 1,
    }
    assert load_unpaired(tmp_path / "out").prompts == ["p0"]


def test_a_picture_of_the_prompt_is_not_the_answer(tmp_path: Path) -> None:
    asked = [{"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "redraw"}]}]
    images = [{"bytes": encoded(1)}, {"bytes": encoded(2)}]
    row = {"prompt": asked, "completion": image_message(None), "images": images, "label": False}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "x.parquet")
    import_pairs("kto", tmp_path / "x.parquet", tmp_path / "out")
    found = load_unpaired(tmp_path / "out")
    assert (found.prompts, found.labels, found.encoded(0)) == (["redraw"], [False], encoded(2))


def test_answers_in_words_and_pairs_are_refused(tmp_path: Path) -> None:
    for completion in ("It is blue.", [{"role": "assistant", "content": "It is blue."}]):
        row = {"prompt": "What colour is the sky?", "completion": completion, "label": True}
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / "x.parquet")
        with pytest.raises(DataError, match=r"row 0, completion: .* are needed, not words"):
            import_pairs("kto", tmp_path / "x.parquet", tmp_path / "out")
    write_pairs([pair(0)], tmp_path / "pairs")
    with pytest.raises(DataError, match="holds pairs: bring them to ours with the format trl or folders"):
        import_pairs("kto", tmp_path / "pairs", tmp_path / "out")


def test_paths_in_a_table_stay_inside(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "secret.png")
    (tmp_path / "set").mkdir()
    rows = [{"prompt": "p", "completion": name, "label": True} for name in ("../secret.png", "/etc/a.png")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set/x.parquet")
    with pytest.raises(DataError, match=r"left out, unreadable picture: 2 .*climbs out"):
        import_pairs("kto", tmp_path / "set/x.parquet", tmp_path / "out")


def test_options_belong_to_a_format(tmp_path: Path) -> None:
    root = csv_folder(tmp_path / "x", OFFICIAL)
    with pytest.raises(DataError, match="--ties keep is for pairs; --both says"):
        import_pairs("kto", root, tmp_path / "out", ties="keep")
    with pytest.raises(DataError, match="both must be one of win, lose, drop, not 'tie'"):
        import_pairs("kto", root, tmp_path / "out", both="tie")  # type: ignore[arg-type]
    write_pairs([pair(0)], tmp_path / "pairs")
    with pytest.raises(DataError, match="--both is for labelled pictures, but the format trl holds pairs"):
        import_pairs("trl", tmp_path / "pairs", tmp_path / "out", both="drop")
    with pytest.raises(DataError, match="--images is for formats that keep pictures elsewhere"):
        import_pairs("trl", tmp_path / "pairs", tmp_path / "out", images=root)


def test_one_folder_is_not_both(tmp_path: Path) -> None:
    write_pairs([pair(0)], tmp_path / "pairs")
    csv_folder(tmp_path / "x", OFFICIAL, "test.csv")
    with pytest.raises(DataError, match="holds other data than labelled pictures"):
        import_pairs("kto", tmp_path / "x", tmp_path / "pairs", split="test")
    assert len(load_pairs(tmp_path / "pairs")) == 1


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = csv_folder(tmp_path / "pick", OFFICIAL)
    (tmp_path / "moved.csv").write_text(OFFICIAL)
    words = ["data", "import", "kto", str(tmp_path / "moved.csv"), "--output_dir", str(tmp_path / "out")]
    assert main([*words, "--images", str(root), "--both", "drop"]) == 0
    shown = capsys.readouterr().out
    assert "2 of 3 pictures written" in shown
    assert "left out, both won and lost: 1 (first: line 4)" in shown
    assert main(["data", "check", str(tmp_path / "out")]) == 0
    assert "2 pictures, 1 labelled true (50.0 %)" in capsys.readouterr().out


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rows=st.lists(st.tuples(CELL.filter(str.strip), st.sampled_from(VERDICTS)), min_size=1, max_size=6),
    both=st.sampled_from(["win", "lose", "drop"]),
)
def test_any_caption_that_pandas_writes_comes_back(tmp_path: Path, rows: list[tuple[str, str]], both: Any) -> None:
    """The official CSV is written by pandas; the rule that official code has for it is the other side of this test."""
    import pandas

    root = csv_folder(tmp_path / "x", "", pictures=6)
    frame = pandas.DataFrame(rows, columns=["caption", "split"])
    frame["file_name"] = [f"train/{n}.jpg" for n in range(len(rows))]
    frame.to_csv(root / "train_processed_v3.csv")
    wins = {"win": {"exclusive_win", "intersections"}}.get(both, {"exclusive_win"})
    kept = frame[frame.split != "intersections"] if both == "drop" else frame
    if not len(kept):
        with pytest.raises(DataError, match="no picture of x is left"):
            import_pairs("kto", root, tmp_path / "out", both=both, overwrite=True)
        return
    summary = import_pairs("kto", root, tmp_path / "out", both=both, overwrite=True)
    found = load_unpaired(tmp_path / "out")
    assert found.labels == [split in wins for split in kept.split]
    assert found.prompts == [caption.strip() for caption in kept.caption]
    assert [found.encoded(n) for n in range(len(kept))] == [(root / name).read_bytes() for name in kept.file_name]
    assert summary.read == len(rows) == summary.written + sum(summary.dropped.values())
