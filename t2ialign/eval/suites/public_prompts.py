"""The public prompt sets by name, from a file in a folder or from the hub.

Law of this file: a prompt keeps its text and its category; ids are by position in the published file, so that
they agree with other people's; nothing is copied into this package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2ialign.data.prompts import Prompt, read_prompts, read_rows
from t2ialign.errors import DataError


@dataclass(frozen=True)
class PublicSet:
    """Where a public prompt set lies, and what is known of it.

    Attributes:
        files: Names under which its file is looked for; a folder's name stands for its files.
        repo: Hub id of the repository that has it.
        kind: `dataset` or `model`, of that repository.
        remote: Path of the file in it.
        size: Prompts in the published file.
        licence: Of the prompts, where it is known.
        read: Reads the file.
    """

    files: tuple[str, ...]
    repo: str
    remote: tuple[str, ...]
    size: int
    licence: str
    read: Callable[[list[Path], str], list[Prompt]]


def _plain(files: list[Path], name: str) -> list[Prompt]:
    return _numbered([(p.prompt, p.category, p.extra) for p in read_prompts(files[0])], name)


def _numbered(rows: list[tuple[str, str | None, dict[str, Any]]], name: str) -> list[Prompt]:
    return [Prompt(f"{name}-{i:06d}", text, name, category, extra) for i, (text, category, extra) in enumerate(rows)]


def _styles(files: list[Path], name: str) -> list[Prompt]:
    """HPSv2's benchmark: a list of texts for each style, whose name is the category."""
    prompts = []
    for file in files:
        prompts += [
            Prompt(f"{name}-{file.stem}-{i:05d}", p.prompt, name, file.stem) for i, p in enumerate(read_prompts(file))
        ]
    return prompts


_TASK = ("tag", "include", "exclude")
"""What a prompt of GenEval says of its task."""


def _geneval(files: list[Path], name: str) -> list[Prompt]:
    """GenEval: the task is the category, and what a detector must find stays with the prompt."""
    rows = [row for _, row in read_rows(files[0])]
    return _numbered(
        [
            (row["prompt"], row.get("tag"), {k: row[k] for k in ("tag", "include", "exclude") if k in row})
            for row in rows
        ],
        name,
    )


def _cube(files: list[Path], name: str) -> list[Prompt]:
    """CUBE-1K, as the culture room reads it: distinct prompts, blanks trimmed, three domains."""
    from t2ialign.eval.culture.cube import as_prompts, read_cube

    return as_prompts(read_cube(files[0]))


def _captions(files: list[Path], name: str) -> list[Prompt]:
    """Pick-a-Pic's test split: the distinct captions of a parquet file, or of a prompt file."""
    if files[0].suffix != ".parquet":
        return _plain(files, name)
    from pyarrow import parquet

    texts: dict[str, None] = {}
    for file in files:
        texts |= dict.fromkeys(parquet.read_table(file, columns=["caption"]).column("caption").to_pylist())
    return _numbered([(text, None, {}) for text in texts if text and text.strip()], name)


_STYLES = tuple(f"{style}.json" for style in ("anime", "concept-art", "paintings", "photo"))

PUBLIC: dict[str, PublicSet] = {
    "partiprompts": PublicSet(
        ("PartiPrompts.tsv",), "nateraw/parti-prompts", ("PartiPrompts.tsv",), 1632, "Apache-2.0", _plain
    ),
    "hpsv2": PublicSet(
        _STYLES, "zhwang/HPDv2", tuple(f"benchmark/{file}" for file in _STYLES), 3200, "Apache-2.0", _styles
    ),
    "drawbench": PublicSet(
        ("drawbench.json", "DrawBench.csv", "drawbench.csv"),
        "zhwang/HPDv2",
        ("benchmark/drawbench.json",),
        200,
        "not stated",
        _plain,
    ),
    "pickapic": PublicSet(
        ("pickapic_test_unique.parquet", "pickapic_test.parquet", "pickapic_test.jsonl", "pickapic_test.txt"),
        "yuvalkirstain/pickapic_v1_no_images",
        ("data/test_unique-00000-of-00001.parquet",),
        500,
        "MIT",
        _captions,
    ),
    "geneval": PublicSet(
        ("evaluation_metadata.jsonl", "geneval_evaluation_metadata.jsonl"), "", (), 553, "MIT", _geneval
    ),
    "cube": PublicSet(("CUBE_1K.json", "cube_1k.json"), "", (), 994, "CC BY-NC-SA 4.0", _cube),
}
"""Public prompt sets by name."""

_SOURCES = {
    "geneval": "prompts/evaluation_metadata.jsonl of the repository djghosh13/geneval",
    "cube": "dataset/CUBE_1K.json of the repository google-research-datasets/cube",
    "partiprompts": "PartiPrompts.tsv of the repository google-research/parti",
}


def read_public(name: str, data: Path | None = None) -> list[Prompt]:
    """Read a public prompt set.

    Args:
        name: A key of `PUBLIC`.
        data: Folder in which its file is looked for, two levels deep.

    Raises:
        DataError: If it is not there and cannot be had from the hub; it says what to put where.
    """
    return PUBLIC[name].read(public_files(name, data), name)


def public_files(name: str, data: Path | None = None) -> list[Path]:
    """Return the files of a public prompt set; see `read_public`."""
    return _local(PUBLIC[name], data) or _from_hub(name, PUBLIC[name])


def _local(known: PublicSet, data: Path | None) -> list[Path]:
    if data is None:
        return []
    if not data.is_dir():
        raise DataError(f"there is no folder {str(data)!r}; --data names the folder of public prompt files")
    places = [data, *sorted(path for path in data.glob("*") if path.is_dir())]
    places += sorted(path for path in data.glob("*/*") if path.is_dir())
    for place in places:
        there = [place / file for file in known.files if (place / file).is_file()]
        if known.read is _styles:
            if len(there) == len(known.files):
                return there
        elif there:
            return there[:1]
    return []


def _from_hub(name: str, known: PublicSet) -> list[Path]:
    wanted = _SOURCES.get(name) or f"{', '.join(known.remote)} of the data set {known.repo}"
    mend = f"put {' and '.join(known.files[:1] if known.read is not _styles else known.files)} ({wanted}) into a " + (
        "folder and name it with --data"
    )
    if not known.repo:
        raise DataError(f"the prompts of {name} are not at hand, and are on no hub: {mend}")
    from huggingface_hub import hf_hub_download

    try:
        return [Path(hf_hub_download(known.repo, file, repo_type="dataset")) for file in known.remote]
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"the prompts of {name} are not at hand, and the hub does not give them ({reason}): {mend}"
        ) from (error)
