"""`check_set`: everything that is wrong with a set of pairs or labelled pictures, before a training finds it out.

Law of this file: all of the set is looked at and all faults are counted, where `load_pairs` and `load_unpaired` stop
at the first. What makes a set unfit is a fault of single rows; what may be meant so (ties, repeated pairs, shared
prompts, one label alone) is told and does not.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from t2ialign.data import columns as cols
from t2ialign.data import pairs as pair_sets
from t2ialign.data import unpaired as picture_sets
from t2ialign.data.captions import count_cut
from t2ialign.data.check_report import EXAMPLES, CheckReport, PairsReport, SplitReport, UnpairedReport
from t2ialign.data.images import open_image
from t2ialign.data.near_duplicates import across
from t2ialign.data.pairs import PairDataset
from t2ialign.data.sources import Table, local_path, open_table, split_names
from t2ialign.data.unpaired import UnpairedDataset
from t2ialign.errors import DataError

_CHUNK = 32

Digest = bytes
PairKey = tuple[str, Digest, Digest, str, str]
"""(prompt, a picture, the other picture, user, aspect)."""
PictureKey = tuple[str, Digest]
"""(prompt, picture)."""
Rows = dict[Any, int]
"""For each pair or picture that is one of its kind, by key, the number of its row."""


@dataclass(frozen=True)
class _Way:
    """How to check: see `check_set`."""

    workers: int
    tokenizer: str | Path | None
    progress: bool
    between: Callable[[], object] = lambda: None


def check_set(
    source: str | Path,
    *,
    split: str | None = None,
    revision: str | None = None,
    workers: int = 0,
    tokenizer: str | Path | None = None,
    progress: bool = False,
    between: Callable[[], object] = lambda: None,
) -> CheckReport[Any]:
    """Look at every row and decode every picture of a set, with `check_pairs` or `check_unpaired`, as its columns say.

    Args:
        source: As for `load_pairs` and `load_unpaired`.
        split: One split; all of them by default.
        revision: Branch, tag or commit of a hub dataset.
        workers: Processes that decode; 0 decodes in this one.
        tokenizer: See `count_cut`; the packaged sets use mini-SD's own by default.
        progress: Show a progress bar.
        between: Called before each row is looked at; what it raises ends the check.

    Raises:
        DataError: If the source can not be opened, its columns are those of neither form, or a whole column has a
            wrong type.
    """
    return _check(source, None, split, revision, _Way(workers, tokenizer, progress, between))


def check_pairs(
    source: str | Path,
    *,
    split: str | None = None,
    revision: str | None = None,
    workers: int = 0,
    tokenizer: str | Path | None = None,
    progress: bool = False,
) -> CheckReport[PairsReport]:
    """Look at every row and decode every picture of a set of pairs.

    Errors, which make the set unfit: an invalid row, an empty prompt, a missing or unreadable picture, the same
    picture on both sides, the same user with the opposite preference on the same two pictures, a pair that is in two
    splits, a split without any preference. Warnings: repeated pairs, users who disagree, prompts that are in two
    splits or have a near-duplicate in another (see `near_duplicates`), chosen and rejected of different shape.

    Args:
        source: As for `load_pairs`.
        split: One split; all of them by default.
        revision: Branch, tag or commit of a hub dataset.
        workers: Processes that decode; 0 decodes in this one.
        tokenizer: See `count_cut`; the packaged sets use mini-SD's own by default.
        progress: Show a progress bar.

    Raises:
        DataError: If the source can not be opened, a column is missing, or a whole column has a wrong type.
    """
    return _check(source, cols.PAIRS, split, revision, _Way(workers, tokenizer, progress))


def check_unpaired(
    source: str | Path,
    *,
    split: str | None = None,
    revision: str | None = None,
    workers: int = 0,
    tokenizer: str | Path | None = None,
    progress: bool = False,
) -> CheckReport[UnpairedReport]:
    """Look at every row and decode every picture of a set of labelled pictures.

    Errors, which make the set unfit: an invalid row, an empty prompt, a missing or unreadable picture, a label that is
    neither true nor false, a picture that is in two splits for the same prompt. Warnings: repeated pictures, pictures
    with both labels for the same prompt, one label alone, prompts that are in two splits or have a near-duplicate in
    another.

    Args:
        source: As for `load_unpaired`, with the columns of labelled pictures.
        split: One split; all of them by default.
        revision: Branch, tag or commit of a hub dataset.
        workers: Processes that decode; 0 decodes in this one.
        tokenizer: See `count_cut`.
        progress: Show a progress bar.

    Raises:
        DataError: If the source can not be opened, a column is missing, or a whole column has a wrong type.
    """
    return _check(source, cols.UNPAIRED, split, revision, _Way(workers, tokenizer, progress))


def _check(
    source: str | Path, form: cols.Form | None, split: str | None, revision: str | None, way: _Way
) -> CheckReport[Any]:
    if way.workers < 0:
        raise DataError(f"workers must be 0 or more, not {way.workers}")
    way = replace(way, tokenizer=way.tokenizer or _own_tokenizer(source))
    report: CheckReport[Any] = CheckReport(str(source))
    rows_of: dict[str, Rows] = {}
    prompts_of: dict[str, set[str]] = {}
    for name in [split] if split else split_names(source, revision):
        table = open_table(source, name, revision)
        form = form or cols.form_of(table.dataset.column_names, table.name)
        cols.check_columns(table.dataset.column_names, table.name, form)
        cols.check_label_names(table.dataset.features.get(cols.LABEL) if form is cols.UNPAIRED else None, table.name)
        count = len(table.dataset)
        found = report.splits[name] = (
            PairsReport(pairs=count) if form is cols.PAIRS else UnpairedReport(pictures=count)
        )
        bad = _check_rows(table, form, found)
        if len(bad) == count:
            found.error("no preference" if form is cols.PAIRS else "no label", f"none of {count:,} rows can be used")
            continue
        good = [row for row in range(count) if row not in bad]
        if isinstance(found, PairsReport):
            rows_of[name], prompts_of[name] = _check_pairs(table, good, found, way, f"check {name}")
        else:
            rows_of[name], prompts_of[name] = _check_unpaired(table, good, found, way, f"check {name}")
    _check_leaks(report, rows_of, prompts_of, cols.PAIRS.unit if form is None else form.unit)
    return report


def _check_pairs(table: Table, good: list[int], found: PairsReport, way: _Way, title: str) -> tuple[Rows, set[str]]:
    pairs = pair_sets.from_table(table, "keep").select(good)
    _check_texts(pairs, found, way.tokenizer)
    digests = _check_pictures(pairs, found, way, title)
    return _check_repeats(pairs, digests, found), set(pairs.prompts)


def _check_unpaired(
    table: Table, good: list[int], found: UnpairedReport, way: _Way, title: str
) -> tuple[Rows, set[str]]:
    pictures = picture_sets.from_table(table).select(good)
    found.positives = sum(pictures.labels)
    found.negatives = len(pictures) - found.positives
    if not (found.positives and found.negatives):
        label = "false" if found.negatives else "true"
        found.warn("one label alone", f"all {len(pictures):,} are {label}; kto compares the two")
    _count_texts(pictures, found, [], way.tokenizer)
    digests = [look.digest for _, (look,) in _looked_at(pictures, cols.UNPAIRED, found, way, title)]
    return _check_repeated_pictures(pictures, digests, found), set(pictures.prompts)


def _own_tokenizer(source: str | Path) -> Path | None:
    from t2ialign.mini import resource

    path = local_path(source)
    if path is None or not isinstance(source, str) or resource(source) is None:
        return None
    try:
        return resource("mini-sd")
    except FileNotFoundError:
        return None


def _check_rows(table: Table, form: cols.Form, found: SplitReport) -> set[int]:
    """Report invalid rows, and return their numbers."""
    bad = set()
    for fault in cols.faults(table.dataset.data.table, form):
        kind = "empty prompt" if fault.column == "prompt" else f"invalid {fault.column}"
        found.error("missing picture" if fault.column in form.pictures else kind, str(fault))
        bad.add(fault.row)
    return bad


def _check_texts(pairs: PairDataset, found: PairsReport, tokenizer: str | Path | None) -> None:
    found.ties = sum(value == cols.TIE for value in pairs.column("preference_prob"))
    captions = [text for name in ("chosen_prompt", "rejected_prompt") for text in pairs.column(name) if text]
    _count_texts(pairs, found, captions, tokenizer)
    if found.ties == len(pairs):
        found.error("no preference", f"all {len(pairs):,} rows are ties")


def _count_texts(
    examples: PairDataset | UnpairedDataset, found: SplitReport, captions: list[str], tokenizer: str | Path | None
) -> None:
    """Count prompts, users, and the prompts and further captions that are cut."""
    found.prompts = len(set(examples.prompts))
    found.users = len({user for user in examples.column("user_id") if user is not None})
    found.captions_cut = count_cut([*examples.prompts, *captions], tokenizer)


@dataclass(frozen=True)
class _Look:
    """What a look at one picture gave: its error, or its size, a digest of its pixels and the notices."""

    error: str = ""
    size: tuple[int, int] = (0, 0)
    digest: Digest = b""
    notices: tuple[tuple[str, int], ...] = ()


def _look(data: bytes | DataError) -> _Look:
    if isinstance(data, DataError):
        return _Look(error=str(data))
    notices: Counter[str] = Counter()
    try:
        image = open_image(data, notices=notices, name="picture")
    except DataError as error:
        return _Look(error=str(error).removeprefix("picture: "))
    digest = hashlib.blake2b(image.tobytes(), digest_size=16, key=b"%dx%d" % image.size).digest()
    return _Look(size=image.size, digest=digest, notices=tuple(notices.items()))


def _encoded(examples: PairDataset | UnpairedDataset) -> Iterator[bytes | DataError]:
    """Go through the encoded pictures; of pairs, chosen and rejected of the first pair, of the second, ..."""
    for index in range(len(examples)):
        for side in cols.PICTURES if isinstance(examples, PairDataset) else (cols.IMAGE,):
            try:
                yield examples.encoded(index, side) if isinstance(examples, PairDataset) else examples.encoded(index)
            except DataError as error:
                yield error


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _looks(examples: PairDataset | UnpairedDataset, workers: int) -> Iterator[_Look]:
    """Decode all pictures, in order; with workers, few encoded pictures are under way at a time."""
    if workers == 0:
        yield from map(_look, _encoded(examples))
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, initializer=_leave_interrupts_to_parent) as pool:
        source = _encoded(examples)
        while chunk := list(islice(source, _CHUNK * workers)):
            yield from pool.map(_look, chunk, chunksize=8)


def _looked_at(
    examples: PairDataset | UnpairedDataset, form: cols.Form, found: SplitReport, way: _Way, title: str
) -> Iterator[tuple[int, tuple[_Look, ...]]]:
    """Decode everything and report what can not be read; yield each example's row and its pictures."""
    looks = _looks(examples, way.workers)
    for index in tqdm(range(len(examples)), desc=title, unit=form.unit, disable=not way.progress):
        way.between()
        row, seen = examples.row(index), tuple(next(looks) for _ in form.pictures)
        for column, look in zip(form.pictures, seen, strict=True):
            if look.error:
                found.error("unreadable picture", f"row {row}, {column}: {look.error}")
            else:
                found.sizes["{}x{}".format(*look.size)] += 1
                found.notices.update(dict(look.notices))
        yield row, seen


def _check_pictures(pairs: PairDataset, found: PairsReport, way: _Way, title: str) -> list[tuple[Digest, Digest]]:
    """Decode everything; return the two digests of each pair, empty where a picture could not be read."""
    digests: list[tuple[Digest, Digest]] = []
    for row, (chosen, rejected) in _looked_at(pairs, cols.PAIRS, found, way, title):
        digests.append((chosen.digest, rejected.digest))
        if chosen.error or rejected.error:
            continue
        if chosen.digest == rejected.digest:
            found.error("the same picture on both sides", f"row {row}")
        if chosen.size[0] * rejected.size[1] != chosen.size[1] * rejected.size[0]:
            sizes = "{}x{}, rejected {}x{}".format(*chosen.size, *rejected.size)
            found.warn("chosen and rejected of different shape", f"row {row}: chosen {sizes}")
    return digests


def _check_repeats(pairs: PairDataset, digests: list[tuple[Digest, Digest]], found: PairsReport) -> dict[PairKey, int]:
    """Find the same two pictures for the same prompt again; return a row for each pair that is one of its kind."""
    rows: dict[PairKey, int] = {}
    winners: dict[PairKey, Digest] = {}
    anyone: dict[tuple[str, Digest, Digest, str], tuple[Digest, int]] = {}
    columns = (pairs.prompts, pairs.column("user_id"), pairs.column("aspect"), pairs.column("preference_prob"))
    for index, (prompt, user, aspect, probability) in enumerate(zip(*columns, strict=True)):
        chosen, rejected = digests[index]
        if not chosen or not rejected or chosen == rejected or probability == cols.TIE:
            continue
        low, high = sorted((chosen, rejected))
        key = (prompt, low, high, user or "", aspect or "")
        row = pairs.row(index)
        if key in rows:
            if winners[key] == chosen:
                found.warn("repeated pair", f"row {row} is row {rows[key]} again")
            else:
                found.error("contradiction", f"row {row} prefers what row {rows[key]} rejects, on the same pictures")
            continue
        rows[key], winners[key] = row, chosen
        other = anyone.setdefault((prompt, low, high, aspect or ""), (chosen, row))
        if other[0] != chosen:
            found.warn("users disagree", f"rows {other[1]} and {row}")
    return rows


def _check_repeated_pictures(
    pictures: UnpairedDataset, digests: list[Digest], found: UnpairedReport
) -> dict[PictureKey, int]:
    """Find the same picture for the same prompt again; return a row for each that is one of its kind."""
    rows: dict[PictureKey, int] = {}
    voted: dict[tuple[str, Digest, str, bool], int] = {}
    labels: dict[PictureKey, tuple[bool, int]] = {}
    columns = (pictures.prompts, pictures.column("user_id"), pictures.labels, digests)
    for index, (prompt, user, label, digest) in enumerate(zip(*columns, strict=True)):
        if not digest:
            continue
        row, key = pictures.row(index), (prompt, digest)
        first = voted.setdefault((prompt, digest, user or "", label), row)
        if first != row:
            found.warn("repeated picture", f"row {row} is row {first} again")
        other = labels.setdefault(key, (label, row))
        if other[0] != label:
            found.warn("a picture with both labels", f"rows {other[1]} and {row}")
        rows.setdefault(key, row)
    return rows


def _check_leaks(
    report: CheckReport[Any], rows_of: dict[str, Rows], prompts_of: dict[str, set[str]], unit: str
) -> None:
    """Find what is in two splits; each is told in the later one."""
    names = list(rows_of)
    for position, name in enumerate(names):
        for earlier in names[:position]:
            shared = rows_of[name].keys() & rows_of[earlier].keys()
            for row, key in sorted((rows_of[name][key], key) for key in shared):
                where = f"row {row} is row {rows_of[earlier][key]} of {earlier}"
                report.splits[name].error(f"{unit} in two splits", where)
            for prompt in sorted(prompts_of[name] & prompts_of[earlier]):
                report.splits[name].warn("prompt in two splits", f"{prompt!r}, also in {earlier}")
            for prompt, other in across(prompts_of[name], prompts_of[earlier]):
                where = f"{prompt!r} is much like {other!r} of {earlier}"
                report.splits[name].warn("near-duplicate prompt in two splits", where)


__all__ = ["EXAMPLES", "CheckReport", "PairsReport", "UnpairedReport", "check_pairs", "check_set", "check_unpaired"]
