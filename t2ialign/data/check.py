"""`check_pairs`: everything that is wrong with a set of pairs, before a training finds it out.

Law of this file: all of the set is looked at and all faults are counted, where `load_pairs` stops at the first. What
makes a set unfit is a fault of single rows; what may be meant so (ties, repeated pairs, shared prompts) is told and
does not.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from t2ialign.data import columns as cols
from t2ialign.data.captions import CutCaptions, count_cut
from t2ialign.data.images import open_image
from t2ialign.data.pairs import PairDataset, from_table
from t2ialign.data.sources import local_path, open_table, split_names
from t2ialign.errors import DataError

EXAMPLES = 5
"""How many places are shown of each kind of fault."""
_CHUNK = 32

Digest = bytes
PairKey = tuple[str, Digest, Digest, str, str]
"""(prompt, a picture, the other picture, user, aspect)."""


@dataclass
class Finding:
    """How often something was found, and the first places.

    Attributes:
        count: How often.
        examples: The first `EXAMPLES` places, in words.
    """

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, where: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(where)


@dataclass
class SplitReport:
    """What was found in one split.

    Attributes:
        pairs: Rows in all, ties included.
        ties: Rows with `preference_prob` 0.5.
        prompts: Different prompts.
        users: Different users; 0 where the set names none.
        errors: What makes the set unfit, by kind.
        warnings: What may be meant so, by kind.
        sizes: Pictures by `WIDTHxHEIGHT`, as decoded.
        notices: What was done to pictures while decoding (see `open_image`).
        captions_cut: Captions that CLIP would cut.
    """

    pairs: int = 0
    ties: int = 0
    prompts: int = 0
    users: int = 0
    errors: dict[str, Finding] = field(default_factory=dict)
    warnings: dict[str, Finding] = field(default_factory=dict)
    sizes: Counter[str] = field(default_factory=Counter)
    notices: Counter[str] = field(default_factory=Counter)
    captions_cut: CutCaptions | None = None

    def error(self, kind: str, where: str) -> None:
        """Count a fault that makes the set unfit."""
        self.errors.setdefault(kind, Finding()).add(where)

    def warn(self, kind: str, where: str) -> None:
        """Count something that may be meant so."""
        self.warnings.setdefault(kind, Finding()).add(where)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; the keys are the attributes, sizes the most frequent first."""
        findings = {
            name: {kind: {"count": each.count, "examples": each.examples} for kind, each in sorted(found.items())}
            for name, found in (("errors", self.errors), ("warnings", self.warnings))
        }
        numbers = {"pairs": self.pairs, "ties": self.ties, "prompts": self.prompts, "users": self.users}
        cut = self.captions_cut.to_dict() if self.captions_cut else None
        counts = {"sizes": dict(self.sizes.most_common()), "notices": dict(self.notices)}
        return {**numbers, **findings, **counts, "captions_cut": cut}


@dataclass
class CheckReport:
    """What `check_pairs` found.

    Attributes:
        source: What was checked.
        splits: A report for each split.
    """

    source: str
    splits: dict[str, SplitReport] = field(default_factory=dict)

    @property
    def fit(self) -> bool:
        """Whether the set can be trained on: every split has pairs that are no ties, and no row has an error."""
        return bool(self.splits) and all(not each.errors for each in self.splits.values())

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values: `source`, `fit`, and `splits` with `SplitReport.to_dict` of each."""
        splits = {name: each.to_dict() for name, each in self.splits.items()}
        return {"source": self.source, "fit": self.fit, "splits": splits}

    def lines(self) -> list[str]:
        """Say it for people, the verdict last."""
        told = []
        for name, each in self.splits.items():
            users = f", {each.users:,} users" if each.users else ""
            told.append(f"{name}: {each.pairs:,} pairs, {each.ties:,} ties, {each.prompts:,} prompts{users}")
            if each.sizes:
                sizes = ", ".join(f"{size} ({count:,})" for size, count in each.sizes.most_common(4))
                more = f" and {len(each.sizes) - 4} more" if len(each.sizes) > 4 else ""
                told.append(f"  sizes: {sizes}{more}")
            told += [f"  notice: {count:,} pictures: {notice}" for notice, count in each.notices.most_common()]
            if each.captions_cut is not None and each.captions_cut.count:
                cut = each.captions_cut
                sure = "" if cut.exact else f", {cut.certain:,} certainly"
                told.append(f"  captions cut at {cut.limit} tokens: {cut.count:,}{sure} ({cut.method})")
            for kind, found in (("warning", each.warnings), ("ERROR", each.errors)):
                for what, finding in sorted(found.items()):
                    more = f" and {finding.count - 1:,} more" if finding.count > 1 else ""
                    told.append(f"  {kind}: {what}: {finding.examples[0]}{more}")
        return [*told, "fit for training" if self.fit else "NOT fit for training"]


def check_pairs(
    source: str | Path,
    *,
    split: str | None = None,
    revision: str | None = None,
    workers: int = 0,
    tokenizer: str | Path | None = None,
    progress: bool = False,
) -> CheckReport:
    """Look at every row and decode every picture of a set of pairs.

    Errors, which make the set unfit: an invalid row, an empty prompt, a missing or unreadable picture, the same
    picture on both sides, the same user with the opposite preference on the same two pictures, a pair that is in two
    splits, a split without any preference. Warnings: repeated pairs, users who disagree, prompts that are in two
    splits, chosen and rejected of different shape.

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
    if workers < 0:
        raise DataError(f"workers must be 0 or more, not {workers}")
    report = CheckReport(str(source))
    tokenizer = tokenizer or _own_tokenizer(source)
    pairs_of: dict[str, dict[PairKey, int]] = {}
    prompts_of: dict[str, set[str]] = {}
    for name in [split] if split else split_names(source, revision):
        table = open_table(source, name, revision)
        cols.check_columns(table.dataset.column_names, table.name)
        found = report.splits[name] = SplitReport(pairs=len(table.dataset))
        bad = _check_rows(table.dataset.data.table, found)
        if len(bad) == found.pairs:
            found.error("no preference", f"none of {found.pairs:,} rows can be used")
            continue
        pairs = from_table(table, "keep").select(row for row in range(found.pairs) if row not in bad)
        _check_texts(pairs, found, tokenizer)
        keys = _check_pictures(pairs, found, workers, progress, f"check {name}")
        pairs_of[name], prompts_of[name] = _check_repeats(pairs, keys, found), set(pairs.prompts)
    _check_leaks(report, pairs_of, prompts_of)
    return report


def _own_tokenizer(source: str | Path) -> Path | None:
    from t2ialign.mini import resource

    path = local_path(source)
    if path is None or not isinstance(source, str) or resource(source) is None:
        return None
    try:
        return resource("mini-sd")
    except FileNotFoundError:
        return None


def _check_rows(table: Any, found: SplitReport) -> set[int]:
    """Report invalid rows, and return their numbers."""
    bad = set()
    for fault in cols.faults(table):
        kind = "empty prompt" if fault.column == "prompt" else f"invalid {fault.column}"
        found.error("missing picture" if fault.column in cols.PICTURES else kind, str(fault))
        bad.add(fault.row)
    return bad


def _check_texts(pairs: PairDataset, found: SplitReport, tokenizer: str | Path | None) -> None:
    found.ties = sum(value == cols.TIE for value in pairs.column("preference_prob"))
    found.prompts = len(set(pairs.prompts))
    found.users = len({user for user in pairs.column("user_id") if user is not None})
    captions = [text for name in ("chosen_prompt", "rejected_prompt") for text in pairs.column(name) if text]
    found.captions_cut = count_cut([*pairs.prompts, *captions], tokenizer)
    if found.ties == len(pairs):
        found.error("no preference", f"all {len(pairs):,} rows are ties")


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


def _encoded(pairs: PairDataset) -> Iterator[bytes | DataError]:
    """Go through the encoded pictures: chosen and rejected of the first pair, of the second, ..."""
    for index in range(len(pairs)):
        for side in cols.PICTURES:
            try:
                yield pairs.encoded(index, side)
            except DataError as error:
                yield error


def _looks(pairs: PairDataset, workers: int) -> Iterator[_Look]:
    """Decode all pictures, in order; with workers, few encoded pictures are under way at a time."""
    if workers == 0:
        yield from map(_look, _encoded(pairs))
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        source = _encoded(pairs)
        while chunk := list(islice(source, _CHUNK * workers)):
            yield from pool.map(_look, chunk, chunksize=8)


def _check_pictures(
    pairs: PairDataset, found: SplitReport, workers: int, progress: bool, title: str
) -> list[tuple[Digest, Digest]]:
    """Decode everything; return the two digests of each pair, empty where a picture could not be read."""
    keys: list[tuple[Digest, Digest]] = []
    looks = _looks(pairs, workers)
    for index in tqdm(range(len(pairs)), desc=title, unit="pair", disable=not progress):
        chosen, rejected = next(looks), next(looks)
        where = f"row {pairs.row(index)}"
        for side, look in (("chosen", chosen), ("rejected", rejected)):
            if look.error:
                found.error("unreadable picture", f"{where}, {side}: {look.error}")
            else:
                found.sizes["{}x{}".format(*look.size)] += 1
                found.notices.update(dict(look.notices))
        keys.append((chosen.digest, rejected.digest))
        if chosen.error or rejected.error:
            continue
        if chosen.digest == rejected.digest:
            found.error("the same picture on both sides", where)
        if chosen.size[0] * rejected.size[1] != chosen.size[1] * rejected.size[0]:
            sizes = "{}x{}, rejected {}x{}".format(*chosen.size, *rejected.size)
            found.warn("chosen and rejected of different shape", f"{where}: chosen {sizes}")
    return keys


def _check_repeats(pairs: PairDataset, digests: list[tuple[Digest, Digest]], found: SplitReport) -> dict[PairKey, int]:
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


def _check_leaks(
    report: CheckReport, pairs_of: dict[str, dict[PairKey, int]], prompts_of: dict[str, set[str]]
) -> None:
    """Find what is in two splits; each is told in the later one."""
    names = list(pairs_of)
    for position, name in enumerate(names):
        for earlier in names[:position]:
            shared = pairs_of[name].keys() & pairs_of[earlier].keys()
            for row, key in sorted((pairs_of[name][key], key) for key in shared):
                where = f"row {row} is row {pairs_of[earlier][key]} of {earlier}"
                report.splits[name].error("pair in two splits", where)
            for prompt in sorted(prompts_of[name] & prompts_of[earlier]):
                report.splits[name].warn("prompt in two splits", f"{prompt!r}, also in {earlier}")
