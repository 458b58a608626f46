"""Labelled pictures: every layout and type of label, pairs seen as two examples each, and what is refused."""

from __future__ import annotations

import hashlib
import json
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.pair_sets import encoded, labelled, pair, picture
from t2ialign.data import sources
from t2ialign.data.pairs import load_pairs, write_pairs
from t2ialign.data.unpaired import UnpairedDataset, load_unpaired, write_unpaired
from t2ialign.errors import DataError

FULL = {"user_id": "u1", "group": "g", "source": "test", "weight": 0.25}


def raw(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as they are, without the checks of `write_unpaired`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def colours(pictures: UnpairedDataset) -> list[int]:
    """The red of each picture: its number in the helper."""
    red = [each.image.getpixel((0, 0)) for each in pictures]
    return [colour[0] for colour in red if isinstance(colour, tuple)]


def test_all_columns_come_back(tmp_path: Path) -> None:
    write_unpaired([labelled(3, True, **FULL), labelled(4, False) | dict.fromkeys(FULL)], tmp_path)
    pictures = load_unpaired(tmp_path)
    first, second = pictures[0], pictures[1]
    assert {name: getattr(first, name) for name in FULL} == FULL
    assert {name: getattr(second, name) for name in FULL} == dict.fromkeys(FULL)
    assert (first.index, first.prompt, first.label, second.label) == (0, "prompt 3", True, False)
    assert first.image.getpixel((0, 0)) == (3, 0, 0)
    assert (pictures.prompts, pictures.labels, pictures.dropped) == (["prompt 3", "prompt 4"], [True, False], {})
    assert pictures.column("label") == [True, False]
    assert pictures.column("weight") == [0.25, None]
    assert pictures.encoded(1) == encoded(4)
    assert pictures.column("image")[1]["bytes"] == encoded(4)
    with pytest.raises(IndexError):
        pictures[2]
    with pytest.raises(DataError, match="no column 'chosen'; it has prompt, image, label, user_id"):
        pictures.column("chosen")


def test_every_layout_gives_the_same_pictures(tmp_path: Path) -> None:
    import datasets

    labels = [True, False, True]
    write_unpaired([labelled(n, label) for n, label in enumerate(labels)], tmp_path / "ours")
    table = pq.read_table(next((tmp_path / "ours/data").iterdir()))
    pq.write_table(table, tmp_path / "single.parquet")
    datasets.Dataset(table).save_to_disk(str(tmp_path / "saved"))
    names = {"lines": "image", "imagefolder": "file_name", "renamed": "image_file_name"}
    for folder, name in names.items():
        (tmp_path / folder).mkdir()
        rows = [{"prompt": f"prompt {n}", name: f"{n}.png", "label": label} for n, label in enumerate(labels)]
        (tmp_path / folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for n in range(3):
            picture(n).save(tmp_path / folder / f"{n}.png")
    for name in ["ours", "single.parquet", "saved", *names]:
        pictures = load_unpaired(tmp_path / name)
        found = [(each.index, each.prompt, each.label) for each in pictures]
        assert found == [(n, f"prompt {n}", label) for n, label in enumerate(labels)], name
        assert colours(pictures) == [0, 1, 2], name
        again = ForkingPickler.loads(ForkingPickler.dumps(pictures))
        assert (again.fingerprint, again.labels) == (pictures.fingerprint, labels), name
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "imagefolder"), cache_dir=str(tmp_path / "c")
    )
    assert [row["label"] for row in loaded["train"]] == labels


@pytest.mark.parametrize(
    "values",
    [
        pa.array([True, False, True]),
        pa.array([1, 0, 1], pa.int8()),
        pa.array([1, 0, 1], pa.uint64()),
        pa.array([1.0, 0.0, 1.0]),
        pa.array([1.0, 0.0, 1.0], pa.float32()),
    ],
    ids=lambda values: str(values.type),
)
def test_types_of_labels(tmp_path: Path, values: pa.Array) -> None:
    pictures = [encoded(n) for n in range(3)]
    table = pa.table({"prompt": ["a", "b", "c"], "image": pictures, "label": values})
    pq.write_table(table, tmp_path / "x.parquet")
    found = load_unpaired(tmp_path / "x.parquet")
    assert found.labels == [True, False, True]
    assert all(type(label) is bool for label in (*found.labels, found[0].label))


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (None, "row 1, label: missing; write true or false"),
        (float("nan"), "row 1, label: nan is no label; write true or false"),
        (0.5, r"row 1, label: 0\.5 is no label"),
        (-1, "row 1, label: -1 is no label"),
        (2, "row 1, label: 2 is no label"),
        (2**60, "row 1, label: .* is no label"),
        ("yes", r"row 1, label: 'yes' is str, where earlier rows hold (bool|int|float)"),
    ],
)
def test_a_bad_label_is_named(tmp_path: Path, label: Any, words: str) -> None:
    good = 1.0 if isinstance(label, float) else 1 if isinstance(label, int) else True
    picture(0).save(tmp_path / "0.png")
    rows = [{"prompt": "a", "image": "0.png", "label": value} for value in (good, label)]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=words) as caught:
        load_unpaired(tmp_path)
    assert tmp_path.name in str(caught.value)


def test_columns_of_labels_that_can_not_serve(tmp_path: Path) -> None:
    import datasets

    rows = {"prompt": ["a", "b"], "image": [encoded(0), encoded(1)]}
    pq.write_table(pa.table({**rows, "label": ["true", "false"]}), tmp_path / "text.parquet")
    with pytest.raises(DataError, match=r"column label: true and false .* are needed, not string"):
        load_unpaired(tmp_path / "text.parquet")
    pq.write_table(pa.table({**rows, "label": pa.nulls(2)}), tmp_path / "null.parquet")
    with pytest.raises(DataError, match="row 0, label: missing"):
        load_unpaired(tmp_path / "null.parquet")
    for names, fits in ((["good", "bad"], False), (["0", "1"], True), (["False", "True"], True)):
        features = datasets.Features(
            {
                "prompt": datasets.Value("string"),
                "image": datasets.Value("binary"),
                "label": datasets.ClassLabel(names=names),
            }
        )
        datasets.Dataset.from_dict({**rows, "label": [0, 1]}, features=features).to_parquet(tmp_path / "class.parquet")
        if fits:
            assert load_unpaired(tmp_path / "class.parquet").labels == [False, True]
            continue
        with pytest.raises(DataError, match="stand for the names good, bad, which do not say what is good"):
            load_unpaired(tmp_path / "class.parquet")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": " "}, "row 1, prompt: empty"),
        ({"prompt": None}, "row 1, prompt: missing"),
        ({"image": None}, "row 1, image: the picture is missing"),
        ({"weight": -0.5}, r"row 1, weight: -0\.5 is negative; a weight is 0 or more"),
        ({"weight": float("inf")}, "row 1, weight: inf is not a number"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    source = raw(tmp_path / "x.parquet", [labelled(0, weight=1.0), labelled(1, weight=1.0) | row])
    with pytest.raises(DataError, match=words):
        load_unpaired(source)


def test_what_a_source_is_by_its_columns(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"prompt": "a", "image": b""}, r"neither labelled pictures \(prompt, image, label\) nor preference pairs \("),
        ({"prompt": "a", "completion": b"", "label": True}, "TRL's unpaired format: .* `t2ialign data import kto`"),
        ({"caption": "a", "file_name": "x", "split": "exclusive_win"}, "Diffusion-KTO's .*`t2ialign data import kto`"),
        ({"caption": "a", "jpg_0": b"", "jpg_1": b"", "label_0": 1}, "`t2ialign data import pickapic`"),
        ({"prompts": "a", "image": b"", "label": True}, "did you mean 'prompts'"),
        (pair(0) | labelled(0), "labelled pictures .* and of preference pairs .* at once; remove"),
    ]
    for row, words in cases:
        with pytest.raises(DataError, match=words):
            load_unpaired(raw(tmp_path / "x.parquet", [row]))
    with pytest.raises(DataError, match=r"no column chosen, rejected .*; these are labelled pictures .*, where pref"):
        load_pairs(raw(tmp_path / "x.parquet", [labelled(0)]))
    (tmp_path / "x.csv").write_text("caption,file_name,split\n")
    for source in (tmp_path / "x.csv", tmp_path):
        with pytest.raises(DataError, match="`t2ialign data import kto`"):
            load_unpaired(source) if source.is_file() else load_unpaired(_only_csv(tmp_path / "sub"))


def _only_csv(folder: Path) -> Path:
    folder.mkdir()
    (folder / "x.csv").write_text("caption,file_name,split\n")
    return folder


def test_pairs_are_two_examples_each(tmp_path: Path) -> None:
    more = {"chosen_prompt": "left", "rejected_prompt": "right", "user_id": "u1", "margin": 2.0}
    write_pairs([pair(n, preference_prob=p, **more) for n, p in enumerate([0.9, 0.5, None])], tmp_path)
    pairs, pictures = load_pairs(tmp_path), load_unpaired(tmp_path)
    assert (len(pictures), pictures.dropped) == (4, {"ties": 1})
    assert pictures.labels == [True, False, True, False]
    assert pictures.prompts == ["prompt 0", "prompt 0", "prompt 2", "prompt 2"]
    assert [each.index for each in pictures] == [0, 1, 4, 5]
    assert colours(pictures) == [0, 1, 4, 5]
    assert [each.prompt for each in pictures] == pictures.prompts
    for i in range(len(pairs)):
        assert pictures.encoded(2 * i) == pairs.encoded(i, "chosen")
        assert pictures.encoded(2 * i + 1) == pairs.encoded(i, "rejected")
    assert pictures.column_names[:3] == ["prompt", "image", "label"]
    assert not {"chosen", "rejected"} & set(pictures.column_names)
    assert pictures.column("user_id") == ["u1"] * 4
    assert pictures.column("margin") == [2.0] * 4
    assert pictures.column("weight") == [None] * 4
    assert [cell["bytes"] for cell in pictures.column("image")] == [encoded(n) for n in (0, 1, 4, 5)]
    assert (pictures[0].user_id, pictures[0].weight) == ("u1", None)
    with pytest.raises(DataError, match="no column 'chosen'"):
        pictures.column("chosen")
    again = ForkingPickler.loads(ForkingPickler.dumps(pictures.select([3])))
    assert (colours(again), again.labels) == ([5], [False])


def test_from_pairs(tmp_path: Path) -> None:
    write_pairs([pair(n, preference_prob=0.5 if n == 1 else 0.8) for n in range(4)], tmp_path)
    kept = load_pairs(tmp_path, ties="keep").select([3, 1, 0])
    both = UnpairedDataset.from_pairs(kept)
    assert (colours(both), both.labels, both.dropped) == ([6, 7, 0, 1], [True, False, True, False], {"ties": 1})
    chosen = UnpairedDataset.from_pairs(kept, "chosen")
    assert (colours(chosen), chosen.labels, chosen.dropped) == ([6, 0], [True, True], {"ties": 1})
    assert colours(both.positives()) == colours(chosen)
    assert both.positives().fingerprint == chosen.fingerprint
    assert UnpairedDataset.from_pairs(load_pairs(tmp_path)).dropped == {"ties": 1}
    assert UnpairedDataset.from_pairs(load_pairs(tmp_path)).fingerprint == load_unpaired(tmp_path).fingerprint
    with pytest.raises(DataError, match="sides must be 'both' or 'chosen', not 'rejected'"):
        UnpairedDataset.from_pairs(kept, "rejected")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="all 1 pairs are ties"):
        UnpairedDataset.from_pairs(kept.select([1]))


def test_ties_have_no_label(tmp_path: Path) -> None:
    write_pairs([pair(0, preference_prob=0.5)], tmp_path)
    with pytest.raises(DataError, match="has no pairs: all 1 rows are ties"):
        load_unpaired(tmp_path)
    with pytest.raises(DataError, match="ties must be 'drop', not 'keep': a tie has no label"):
        load_unpaired(tmp_path, ties="keep")  # type: ignore[arg-type]


def test_pictures_without_labels(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "image": encoded(n)} for n in range(2)]
    source = raw(tmp_path / "x.parquet", rows)
    good = load_unpaired(source, label=True)
    assert (good.labels, good[1].label, good.column_names) == ([True, True], True, ["prompt", "image", "label"])
    assert good.select([1]).labels == [True]
    assert load_unpaired(source, label=False).fingerprint != good.fingerprint
    stored = raw(tmp_path / "y.parquet", [labelled(0, False), labelled(1, True)])
    assert load_unpaired(stored, label=True).labels == [False, True]
    pairs = raw(tmp_path / "z.parquet", [pair(0)])
    assert load_unpaired(pairs, label=True).labels == [True, False]


def test_positives(tmp_path: Path) -> None:
    write_unpaired([labelled(n, n in (1, 3)) for n in range(5)], tmp_path)
    pictures = load_unpaired(tmp_path)
    good = pictures.positives()
    assert (colours(good), good.labels, good.dropped) == ([1, 3], [True, True], {"label false": 3})
    assert good.positives().fingerprint == good.fingerprint
    with pytest.raises(DataError, match="no picture with the label true: all 2 are false"):
        pictures.select([0, 2]).positives()


def test_select_and_fingerprint(tmp_path: Path) -> None:
    rows = [labelled(n, n % 2) for n in range(4)]
    write_unpaired(rows, tmp_path / "a")
    pictures = load_unpaired(tmp_path / "a")
    taken = pictures.select([2, 1])
    assert ([each.index for each in taken], taken.labels, colours(taken)) == ([2, 1], [False, True], [2, 1])
    assert taken.select([1])[0].index == 1
    assert len({pictures.fingerprint, taken.fingerprint, pictures.select([1, 2]).fingerprint}) == 3
    assert pictures.select(range(4)).fingerprint == pictures.fingerprint
    write_unpaired(rows, tmp_path / "b")
    assert load_unpaired(tmp_path / "b").fingerprint == pictures.fingerprint
    write_unpaired([*rows[:3], labelled(3, False)], tmp_path / "c")
    assert load_unpaired(tmp_path / "c").fingerprint != pictures.fingerprint
    with pytest.raises(IndexError):
        pictures.select([4])


def test_a_changed_label_of_a_large_file_changes_the_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large files are sampled, and a label may lie between the samples."""
    monkeypatch.setattr(sources, "_WHOLE_FILE_BYTES", 0)
    monkeypatch.setattr(sources, "_SAMPLE_BYTES", 4)
    noise = np.random.default_rng(0).bytes(4000)
    found, sampled = [], []
    for labels in ([True, False, True, False], [True, True, False, False]):
        rows = [{"prompt": "a", "image": noise, "label": label} for label in labels]
        source = raw(tmp_path / "x.parquet", rows)
        found.append(load_unpaired(source).fingerprint)
        sampled.append(sources.content_hash([source]))
    assert sampled[0] == sampled[1], "the samples show the change: the test shows nothing"
    assert found[0] != found[1]


def test_views_of_one_table_have_fingerprints_of_their_own(tmp_path: Path) -> None:
    write_pairs([pair(n) for n in range(4)], tmp_path)
    pairs = load_pairs(tmp_path)
    views = [pairs, load_unpaired(tmp_path), UnpairedDataset.from_pairs(pairs, "chosen")]
    views += [load_unpaired(tmp_path).select([1, 3, 5, 7])]
    assert len({view.fingerprint for view in views}) == 4
    eight_rejected = load_unpaired(tmp_path).select([3] * 8)
    assert eight_rejected.fingerprint != pairs.select([1] * 8 + [0]).fingerprint, "eight labels false are no row 0"


def test_fingerprint_sees_changed_picture_files(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"prompt": "a", "image": "a.png", "label": 1}\n')
    before = load_unpaired(tmp_path).fingerprint
    picture(1, (40, 40)).save(tmp_path / "a.png")
    assert load_unpaired(tmp_path).fingerprint != before
    for name in ("b", "c"):
        picture(2).save(tmp_path / f"{name}.png")
    (tmp_path / "metadata.jsonl").write_text('{"prompt": "a", "chosen": "b.png", "rejected": "c.png"}\n')
    before = load_unpaired(tmp_path).fingerprint
    picture(2, (40, 40)).save(tmp_path / "c.png")
    assert load_unpaired(tmp_path).fingerprint != before


@pytest.mark.parametrize("path", ["../secret.png", "/etc/hostname", "link.png", "a/../../secret.png"])
def test_paths_out_of_the_folder_are_refused(tmp_path: Path, path: str) -> None:
    picture(1).save(tmp_path / "secret.png")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "metadata.jsonl").write_text(json.dumps({"prompt": "a", "image": path, "label": True}) + "\n")
    with pytest.raises(DataError, match=r"row 0, image: the path"):
        load_unpaired(folder)[0]
    with pytest.raises(DataError, match=r"row 0, image: the path"):
        load_unpaired(folder).encoded(0)


def test_nothing_is_decoded_before_it_is_indexed_and_notices_are_counted_once(tmp_path: Path) -> None:
    picture(5).convert("CMYK").save(tmp_path / "cmyk.jpg")
    half = encoded(1, "JPEG", (64, 64))[:-40]
    rows = [labelled(0) | {"image": (tmp_path / "cmyk.jpg").read_bytes()}, labelled(1) | {"image": half}]
    pictures = load_unpaired(raw(tmp_path / "x.parquet", rows))
    assert not pictures.notices
    for _ in range(3):
        pictures[0]
    assert pictures.notices == {"CMYK brought to RGB": 1}
    with pytest.raises(DataError, match=r"row 1, image: .*damaged or cut short"):
        pictures[1]


def test_an_empty_set(tmp_path: Path) -> None:
    schema = pa.schema([("prompt", pa.string()), ("image", pa.binary()), ("label", pa.bool_())])
    pq.write_table(schema.empty_table(), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="has no pictures"):
        load_unpaired(tmp_path / "x.parquet")


def test_a_packaged_set_of_pairs() -> None:
    from t2ialign.mini import resource

    try:
        resource("mini-pairs")
    except FileNotFoundError:
        pytest.skip("mini-pairs is not built yet")
    pictures = load_unpaired("mini-pairs")
    assert len(pictures) == 2 * len(load_pairs("mini-pairs"))
    assert pictures[1].label is False


# writing


@pytest.mark.parametrize("label", [True, 1, 1.0, np.bool_(True), np.int64(1), np.float32(1.0)], ids=repr)
def test_labels_that_are_written(tmp_path: Path, label: Any) -> None:
    write_unpaired([labelled(0, label), labelled(1, False)], tmp_path)
    assert pq.read_schema(next((tmp_path / "data").iterdir())).field("label").type == pa.bool_()
    assert load_unpaired(tmp_path).labels == [True, False]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"label": None}, "row 1: None is no label; write True or False"),
        ({"label": float("nan")}, "row 1: nan is no label"),
        ({"label": "true"}, "row 1: 'true' is no label"),
        ({"label": 2}, "row 1: 2 is no label"),
        ({"label": np.array([1, 0])}, r"row 1: array\(\[1, 0\]\) is no label"),
        ({"prompt": " "}, "row 1, prompt: empty"),
        ({"image": b"GIF89a"}, "row 1, image: a GIF picture"),
        ({"weight": -1.0}, "row 1, weight: -1 is negative"),
        ({"weight": float("nan")}, "row 1, weight: nan is not a number"),
        ({"margin": 1.0}, "row 1: column 'margin' was not in the first row"),
    ],
)
def test_bad_rows_leave_nothing_behind(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        write_unpaired([labelled(0, weight=1.0), labelled(1, weight=1.0) | row], tmp_path / "set")
    assert not list((tmp_path / "set").rglob("*"))


def test_unknown_and_missing_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unknown column 'lable'; did you mean 'label'"):
        write_unpaired([{"prompt": "a", "image": encoded(0), "lable": True}], tmp_path)
    with pytest.raises(DataError, match="row 0: no column label among prompt, image"):
        write_unpaired([{"prompt": "a", "image": encoded(0)}], tmp_path)
    with pytest.raises(DataError, match="unknown column 'chosen'"):
        write_unpaired([pair(0)], tmp_path)
    with pytest.raises(DataError, match="there is no picture to write"):
        write_unpaired([], tmp_path)


def test_the_card_and_its_splits(tmp_path: Path) -> None:
    import datasets

    write_unpaired([labelled(0, True)], tmp_path / "set")
    write_unpaired([labelled(1, False)], tmp_path / "set", split="test")
    card = (tmp_path / "set/README.md").read_text()
    assert "# Labelled pictures" in card
    assert "load_unpaired" in card
    assert card.index("split: train") < card.index("split: test")
    loaded = datasets.load_dataset(str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))
    assert {name: split[0]["label"] for name, split in loaded.items()} == {"train": True, "test": False}
    assert loaded["test"][0]["image"].getpixel((0, 0)) == (1, 0, 0)


def test_a_folder_holds_one_form(tmp_path: Path) -> None:
    write_pairs([pair(0)], tmp_path)
    with pytest.raises(DataError, match=r"holds other data than labelled pictures .*choose another folder"):
        write_unpaired([labelled(0)], tmp_path, split="test")
    assert len(load_pairs(tmp_path)) == 1
    assert "# Preference pairs" in (tmp_path / "README.md").read_text()
    write_unpaired([labelled(0)], tmp_path, overwrite=True)
    assert load_unpaired(tmp_path).labels == [True]
    assert "# Labelled pictures" in (tmp_path / "README.md").read_text()
    with pytest.raises(DataError, match="holds other data than preference pairs"):
        write_pairs([pair(0)], tmp_path, split="test")
    next((tmp_path / "data").iterdir()).write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="can not be read"):
        write_unpaired([labelled(0)], tmp_path, split="test")


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(lambda text: text.strip())


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "prompt": TEXT,
                "label": st.booleans(),
                "user_id": st.none() | TEXT,
                "group": st.none() | TEXT,
                "source": st.none() | TEXT,
                "weight": st.none() | st.floats(0, allow_infinity=False),
            }
        ),
        min_size=1,
        max_size=5,
    ),
    order=st.randoms(use_true_random=False),
)
def test_round_trip(tmp_path: Path, rows: list[dict[str, Any]], order: Any) -> None:
    write_unpaired([labelled(n) | row for n, row in enumerate(rows)], tmp_path, overwrite=True)
    pictures = load_unpaired(tmp_path)
    positions = list(range(len(rows)))
    order.shuffle(positions)
    for view, expected in ((pictures, rows), (pictures.select(positions), [rows[n] for n in positions])):
        for name in rows[0]:
            assert view.column(name) == [row[name] for row in expected]
            assert [getattr(each, name) for each in view] == [row[name] for row in expected]
        assert sum(view.labels) == sum(row["label"] for row in rows)
    assert colours(pictures.select(positions)) == positions


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(probabilities=st.lists(st.none() | st.sampled_from([0.5, 0.7, 1.0]), min_size=1, max_size=6))
def test_pairs_round_trip(tmp_path: Path, probabilities: list[float | None]) -> None:
    """Written out as labelled pictures, pairs give the same examples as the view of them."""
    write_pairs((pair(n, preference_prob=p) for n, p in enumerate(probabilities)), tmp_path / "p", overwrite=True)
    decided = [n for n, p in enumerate(probabilities) if p != 0.5]
    if not decided:
        with pytest.raises(DataError, match="are ties"):
            load_unpaired(tmp_path / "p")
        return
    view = load_unpaired(tmp_path / "p")
    assert view.dropped == ({"ties": len(probabilities) - len(decided)} if len(decided) < len(probabilities) else {})
    rows = ({"prompt": each.prompt, "image": each.image, "label": each.label} for each in view)
    stored = load_unpaired(write_unpaired(rows, tmp_path / "u", overwrite=True))
    assert stored.labels == view.labels == [True, False] * len(decided)
    assert stored.prompts == view.prompts == [f"prompt {n}" for n in decided for _ in range(2)]
    pixels = [[hashlib.sha256(each.image.tobytes()).digest() for each in one] for one in (stored, view)]
    assert pixels[0] == pixels[1]
