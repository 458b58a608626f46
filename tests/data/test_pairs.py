"""Reading preference pairs: every layout, lazily, with faults named."""

from __future__ import annotations

import json
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.pair_sets import encoded, pair, picture
from t2ialign.data import sources
from t2ialign.data.pairs import load_pairs, write_pairs
from t2ialign.data.sources import split_names
from t2ialign.errors import DataError

FULL = {
    "chosen_prompt": "left",
    "rejected_prompt": "right",
    "user_id": "u1",
    "preference_prob": 0.75,
    "margin": -1.5,
    "group": "g",
    "aspect": "aesthetics",
    "scores_chosen": {"clip": 1.0},
    "scores_rejected": {"clip": 0.5, "é": 2.0},
    "source": "test",
}


def lines_folder(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A folder with metadata.jsonl and picture files; pictures in the rows are numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for row in rows:
        for side in ("chosen", "rejected"):
            if isinstance(row.get(side), int):
                name = f"{side}-{row[side]}.png"
                picture(row[side]).save(folder / name)
                row = {**row, side: name}
        written.append(json.dumps(row))
    (folder / "metadata.jsonl").write_text("\n".join(written) + "\n")
    return folder


def test_all_columns_come_back(tmp_path: Path) -> None:
    write_pairs([pair(3, **FULL), pair(4) | dict.fromkeys(FULL)], tmp_path)
    pairs = load_pairs(tmp_path)
    first, second = pairs[0], pairs[1]
    assert {name: getattr(first, name) for name in FULL} == FULL
    assert {name: getattr(second, name) for name in FULL} == dict.fromkeys(FULL)
    assert (first.index, first.prompt) == (0, "prompt 3")
    assert first.chosen.getpixel((0, 0)) == (6, 0, 0)
    assert first.rejected.getpixel((0, 0)) == (7, 0, 0)
    assert pairs.column("scores_rejected") == [FULL["scores_rejected"], None]
    assert pairs.prompts == ["prompt 3", "prompt 4"]
    with pytest.raises(IndexError):
        pairs[2]


def test_every_layout_gives_the_same_pairs(tmp_path: Path) -> None:
    import datasets

    rows = [pair(n, user_id=f"u{n}") for n in range(3)]
    write_pairs(rows, tmp_path / "ours")
    table = pq.read_table(next((tmp_path / "ours/data").iterdir()))
    (tmp_path / "flat").mkdir()
    pq.write_table(table.slice(0, 2), tmp_path / "flat/train-00000-of-00002.parquet")
    pq.write_table(table.slice(2), tmp_path / "flat/train-00001-of-00002.parquet")
    (tmp_path / "nested/train").mkdir(parents=True)
    pq.write_table(table, tmp_path / "nested/train/0000.parquet")
    pq.write_table(table, tmp_path / "single.parquet")
    saved = datasets.Dataset(table)
    saved.save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict({"train": saved}).save_to_disk(str(tmp_path / "saved_dict"))
    numbers = [{"prompt": f"prompt {n}", "chosen": 2 * n, "rejected": 2 * n + 1, "user_id": f"u{n}"} for n in range(3)]
    lines_folder(tmp_path / "lines", numbers)
    lines_folder(tmp_path / "split_lines/train", numbers)
    renamed = [{"chosen_file_name" if k == "chosen" else k: v for k, v in row.items()} for row in numbers]
    for row in renamed:
        row["chosen_file_name"] = f"chosen-{row['chosen_file_name']}.png"
    (tmp_path / "split_lines/train/again").mkdir()
    lines_folder(tmp_path / "lines2", numbers)
    lines_folder(tmp_path / "lines2", renamed)
    single_lines = tmp_path / "lines" / "metadata.jsonl"
    layouts = ["ours", "flat", "nested", "single.parquet", "saved", "saved_dict", "lines", "split_lines", "lines2"]
    for source in [*(tmp_path / name for name in layouts), single_lines]:
        pairs = load_pairs(source)
        assert split_names(source) == ["train"], source
        found = [(p.prompt, p.user_id, p.chosen.getpixel((0, 0)), p.rejected.getpixel((0, 0))) for p in pairs]
        expected = [(f"prompt {n}", f"u{n}", (2 * n, 0, 0), (2 * n + 1, 0, 0)) for n in range(3)]
        assert found == expected, source
        assert ForkingPickler.loads(ForkingPickler.dumps(pairs)).fingerprint == pairs.fingerprint


def test_columns_of_bytes_and_large_strings(tmp_path: Path) -> None:
    table = pa.table(
        {
            "prompt": pa.array(["a"], pa.large_string()),
            "chosen": pa.array([encoded(1)], pa.large_binary()),
            "rejected": [encoded(2)],
            "user_id": [7],
            "margin": [2],
            "scores_chosen": [{"clip": 1.0}],
            "scores_rejected": [[{"name": "clip", "score": 0.5}]],
            "note": ["kept"],
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    pairs = load_pairs(tmp_path / "x.parquet")
    assert (pairs[0].user_id, pairs[0].margin) == ("7", 2.0)
    assert (pairs[0].scores_chosen, pairs[0].scores_rejected) == ({"clip": 1.0}, {"clip": 0.5})
    assert pairs.column("note") == ["kept"]
    assert pairs.column("aspect") == [None]
    with pytest.raises(DataError, match=r"no column 'nope'; it has prompt, "):
        pairs.column("nope")


def test_nothing_is_decoded_before_it_is_indexed(tmp_path: Path) -> None:
    lines_folder(tmp_path, [{"prompt": "a", "chosen": 1, "rejected": 2}])
    (tmp_path / "rejected-2.png").write_bytes(encoded(2)[:40])
    pairs = load_pairs(tmp_path)
    assert pairs.prompts == ["a"]
    with pytest.raises(DataError, match=r"row 0, rejected: .*damaged or cut short"):
        pairs[0]


def test_ties_are_dropped_and_counted_unless_kept(tmp_path: Path) -> None:
    probabilities = [0.9, 0.5, None, 0.5, 1.0]
    write_pairs((pair(n, preference_prob=p) for n, p in enumerate(probabilities)), tmp_path)
    pairs = load_pairs(tmp_path)
    assert pairs.dropped == {"ties": 2}
    assert [each.index for each in pairs] == [0, 2, 4]
    assert [pairs.row(i) for i in range(3)] == [0, 2, 4]
    assert pairs.column("preference_prob") == [0.9, None, 1.0]
    kept = load_pairs(tmp_path, ties="keep")
    assert (len(kept), kept.dropped, kept[1].preference_prob) == (5, {}, 0.5)
    assert kept.fingerprint != pairs.fingerprint
    with pytest.raises(DataError, match="ties must be 'drop' or 'keep', not 'half'"):
        load_pairs(tmp_path, ties="half")  # type: ignore[arg-type]


def test_all_ties_leave_nothing(tmp_path: Path) -> None:
    write_pairs([pair(0, preference_prob=0.5)], tmp_path)
    with pytest.raises(DataError, match="no pairs: all 1 rows are ties"):
        load_pairs(tmp_path)


def test_select_and_fingerprint(tmp_path: Path) -> None:
    rows = [pair(n) for n in range(4)]
    write_pairs(rows, tmp_path / "a")
    pairs = load_pairs(tmp_path / "a")
    chosen = pairs.select([2, 0])
    assert [each.prompt for each in chosen] == ["prompt 2", "prompt 0"]
    assert chosen.prompts == ["prompt 2", "prompt 0"]
    assert chosen.select([1])[0].index == 0
    assert len({pairs.fingerprint, chosen.fingerprint, pairs.select([0, 2]).fingerprint}) == 3
    assert pairs.select(range(4)).fingerprint == pairs.fingerprint
    write_pairs(rows, tmp_path / "b")
    assert load_pairs(tmp_path / "b").fingerprint == pairs.fingerprint
    write_pairs([*rows[:3], pair(5)], tmp_path / "c")
    assert load_pairs(tmp_path / "c").fingerprint != pairs.fingerprint


def test_fingerprint_sees_changed_picture_files(tmp_path: Path) -> None:
    lines_folder(tmp_path, [{"prompt": "a", "chosen": 1, "rejected": 2}])
    before = load_pairs(tmp_path).fingerprint
    picture(1, (40, 40)).save(tmp_path / "chosen-1.png")
    assert load_pairs(tmp_path).fingerprint != before


def test_notices_are_counted_once_a_picture(tmp_path: Path) -> None:
    picture(5).convert("CMYK").save(tmp_path / "cmyk.jpg")
    write_pairs([pair(0, chosen=tmp_path / "cmyk.jpg")], tmp_path / "set")
    pairs = load_pairs(tmp_path / "set")
    assert not pairs.notices
    for _ in range(3):
        pairs[0]
    assert pairs.notices == {"CMYK brought to RGB": 1}


def test_splits(tmp_path: Path) -> None:
    write_pairs([pair(0)], tmp_path, split="test")
    write_pairs([pair(1), pair(2)], tmp_path, split="train")
    assert split_names(tmp_path) == ["train", "test"]
    assert (len(load_pairs(tmp_path)), len(load_pairs(tmp_path, split="test"))) == (2, 1)
    with pytest.raises(DataError, match=r"has no split 'validation'; it has test, train"):
        load_pairs(tmp_path, split="validation")


def test_a_large_set_is_mapped_from_a_cache_that_follows_the_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write_pairs([pair(n) for n in range(3)], tmp_path / "set")
    pairs = load_pairs(tmp_path / "set")
    assert [each.prompt for each in pairs] == ["prompt 0", "prompt 1", "prompt 2"]
    assert list((tmp_path / "cache").rglob("*.arrow"))
    write_pairs([pair(7)], tmp_path / "set", overwrite=True)
    assert load_pairs(tmp_path / "set").prompts == ["prompt 7"]
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "set/README.md")
    with pytest.raises(DataError, match="set HF_DATASETS_CACHE"):
        load_pairs(tmp_path / "set")


def test_a_small_set_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write_pairs([pair(0)], tmp_path / "set")
    before = sorted(tmp_path.rglob("*"))
    assert load_pairs(tmp_path / "set")[0].prompt == "prompt 0"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": ""}, "row 1, prompt: empty"),
        ({"prompt": " \n"}, "row 1, prompt: empty"),
        ({"prompt": None}, "row 1, prompt: missing"),
        ({"prompt": 3}, "row 1, prompt: 3 is int, where earlier rows hold str"),
        ({"chosen": None}, "row 1, chosen: the picture is missing"),
        ({"preference_prob": 0.3}, r"row 1, preference_prob: 0\.3 is outside \[0\.5, 1\]; below 0\.5 swap"),
        ({"preference_prob": 1.01}, r"row 1, preference_prob: 1\.01 is outside"),
        ({"preference_prob": float("nan")}, "row 1, preference_prob: nan is not a number"),
        ({"margin": float("inf")}, "row 1, margin: inf is not a number"),
        ({"margin": "big"}, "margin: numbers are needed, not string"),
        ({"user_id": 1.5}, "user_id: text is needed, not double"),
        ({"scores_chosen": {"clip": "high"}}, "row 1, scores_chosen: the score 'clip' is 'high'"),
        ({"scores_chosen": "high"}, "row 1, scores_chosen: 'high' is no JSON object"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    good = {"prompt": "a", "chosen": 1, "rejected": 2}
    lines_folder(tmp_path, [good, {**good, **row}])
    with pytest.raises(DataError, match=words) as caught:
        load_pairs(tmp_path)
    assert tmp_path.name in str(caught.value)


def test_missing_columns(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"caption": ["a"], "jpg_0": [b""], "jpg_1": [b""], "label_0": [1]}), tmp_path / "x.parquet"
    )
    with pytest.raises(DataError, match="data import pickapic"):
        load_pairs(tmp_path / "x.parquet")
    pq.write_table(pa.table({"prompts": ["a"], "chosen": [b""], "rejected": [b""]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"no column prompt among prompts.* did you mean 'prompts'"):
        load_pairs(tmp_path / "x.parquet")
    pq.write_table(pa.table({"prompt": ["a"], "chosen": [1], "rejected": [b""]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"column chosen: pictures .* are needed, not int64"):
        load_pairs(tmp_path / "x.parquet")


@pytest.mark.parametrize("path", ["../secret.png", "/etc/hostname", "link.png", "a/../../secret.png"])
def test_paths_out_of_the_folder_are_refused(tmp_path: Path, path: str) -> None:
    picture(1).save(tmp_path / "secret.png")
    folder = lines_folder(tmp_path / "set", [{"prompt": "a", "chosen": 1, "rejected": path}])
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match=r"row 0, rejected: the path"):
        load_pairs(folder)[0]
    table = pa.table({"prompt": ["a"], "chosen": [encoded(1)], "rejected": [{"bytes": None, "path": path}]})
    pq.write_table(table, folder / "x.parquet")
    with pytest.raises(DataError, match=r"row 0, rejected: the path"):
        load_pairs(folder / "x.parquet")[0]


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"hf download --repo-type dataset someone/pairs --local-dir pairs"):
        load_pairs("someone/pairs", revision="main")
    with pytest.raises(DataError, match=r"no folder or file .* no hub id"):
        load_pairs("a/b/c")
    with pytest.raises(DataError, match="did you mean the packaged set 'mini-pairs'"):
        load_pairs("mini-pair")
    with pytest.raises(DataError, match=r"no \*\.parquet, metadata\.jsonl or saved dataset"):
        load_pairs(tmp_path)
    (tmp_path / "chosen").mkdir()
    with pytest.raises(DataError, match="data import folders"):
        load_pairs(tmp_path)
    (tmp_path / "pairs.csv").write_text("x")
    with pytest.raises(DataError, match=r"read from \.parquet or \.jsonl files, not \.csv"):
        load_pairs(tmp_path / "pairs.csv")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="can not be read"):
        load_pairs(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="is for hub datasets"):
        load_pairs(tmp_path / "x.parquet", revision="main")


def test_a_hub_dataset_is_read_as_datasets_hands_it_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` loads a folder just as it loads a hub id, so a folder stands for one here."""
    import datasets

    write_pairs([pair(0), pair(1)], tmp_path / "set")
    write_pairs([pair(2)], tmp_path / "set", split="test")
    monkeypatch.setattr(sources, "local_path", lambda source: None)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    hub = str(tmp_path / "set")
    assert split_names(hub) == ["train", "test"]
    pairs = load_pairs(hub)
    assert pairs.encoded(1, "rejected") == encoded(3)
    assert pairs[1].rejected.getpixel((0, 0)) == (3, 0, 0)
    assert len({pairs.fingerprint, pairs.select([0]).fingerprint, load_pairs(hub, split="test").fingerprint}) == 3
    assert load_pairs(hub).fingerprint == pairs.fingerprint
    with pytest.raises(DataError, match="has no split 'other'; it has train, test"):
        load_pairs(hub, split="other")


def test_an_empty_set(tmp_path: Path) -> None:
    schema = pa.schema([("prompt", pa.string()), ("chosen", pa.binary()), ("rejected", pa.binary())])
    pq.write_table(schema.empty_table(), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="has no pairs"):
        load_pairs(tmp_path / "x.parquet")


@pytest.mark.parametrize("name", ["mini-pairs", "mini-user-pairs"])
def test_packaged_sets(name: str) -> None:
    from t2ialign.mini import resource

    try:
        resource(name)
    except FileNotFoundError:
        pytest.skip(f"{name} is not built yet")
    pairs = load_pairs(name)
    assert len(pairs) >= 1000 or name != "mini-pairs"
    assert pairs[0].chosen.size == (64, 64)
