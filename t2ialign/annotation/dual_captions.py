"""Dual captions: a caption for each side of every pair, for DCPO (arXiv 2502.06023).

| strategy | `chosen_prompt` | `rejected_prompt` |
|---|---|---|
| captioning | caption of the chosen picture | caption of the rejected picture |
| perturbation | the prompt | the prompt, perturbed |
| hybrid | caption of the chosen picture | caption of the rejected (ablation: of the chosen) picture, perturbed |

Law of this file: everything else of a pair comes over untouched, pictures to the byte, and so do the other splits.
Every answer is in OUTPUT/answers.jsonl before the next is asked for, under all that it depends on, so the work can be
stopped at any moment, and nothing is paid for twice. What could not be captioned is counted and follows the policy.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.annotation import draws
from t2ialign.annotation.answer_book import AnswerBook, question_key
from t2ialign.annotation.captioners import Captioner, load_captioner
from t2ialign.annotation.dual_options import ALL, GIVEN, DualCaptionOptions
from t2ialign.annotation.dual_record import DualRecord, SideCounts, SplitCounts
from t2ialign.annotation.perturbers import Perturber, load_perturber
from t2ialign.chat.base import Question
from t2ialign.data import columns as cols
from t2ialign.data.captions import count_cut
from t2ialign.data.images import open_image
from t2ialign.data.pairs import PairDataset, load_pairs, write_pairs
from t2ialign.data.sources import local_path, split_names
from t2ialign.engine.signals import StopSignal
from t2ialign.errors import ConfigError, DataError, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable

    from t2ialign.chat.base import Answer

logger = logging.getLogger(__name__)

CAPTIONS = {"chosen": "chosen_prompt", "rejected": "rejected_prompt"}
Captions = Sequence[tuple[str | None, str | None] | None]
"""The two captions of each row of a split; `None` for a row that is left out."""
ANSWERS = "answers.jsonl"
CHUNK = 64
"""Rows that are in memory at once while a split is written."""


@dataclass(frozen=True)
class DualCaptionSummary:
    """What `write_dual_captions` did; `captions.json` in the output folder holds the counts too.

    Attributes:
        output_dir: Where the pairs are.
        splits: What happened in each split that got captions.
        asked: Questions that were answered in this run.
        kept: Questions whose answers were there already.
        seconds: Time taken.
    """

    output_dir: Path
    splits: dict[str, SplitCounts]
    asked: int
    kept: int
    seconds: float

    def lines(self) -> list[str]:
        """Say it for people."""
        told = [f"{self.asked:,} answers got, {self.kept:,} were there: {self.output_dir}"]
        for split, counts in self.splits.items():
            told += counts.lines(split)
        return told


def write_dual_captions(
    options: DualCaptionOptions,
    *,
    captioner: Captioner | None = None,
    perturber: Perturber | None = None,
    progress: bool = True,
) -> DualCaptionSummary:
    """Write a set of pairs with a caption a side; continue it where it was stopped.

    Args:
        options: See `DualCaptionOptions`.
        captioner: One of your own, instead of the one that the options name.
        perturber: The same.
        progress: Whether to show bars on a terminal.

    Returns:
        What was done and counted.

    Raises:
        ConfigError: If options do not go together or a name is unknown.
        DataError: If the pairs can not be read, the folder holds something else or was made otherwise, a picture can
            not be captioned and the policy is `error`, or no picture at all can.
        ModelError: If a model can not be loaded or does not answer any more; the same call continues.
        Stopped: If SIGINT, SIGTERM or SIGUSR1 asks for it; answers under way are waited for and kept.
    """
    begun = time.monotonic()
    target = Path(options.output_dir)
    _check_place(options.pairs, target)
    wanted, others = _splits(options)
    if options.captioned and captioner is None and options.captioner != GIVEN:
        captioner = load_captioner(
            options.captioner,
            with_prompt=options.with_prompt,
            instruction=options.instruction,
            options=options.chat,
        )
    if options.perturbs and perturber is None:
        perturber = load_perturber(
            options.perturber,
            options.strength,
            options.seed,
            instruction=options.perturb_instruction,
            options=options.chat,
        )
    work = _Work(options, captioner if options.captioned else None, perturber if options.perturbs else None, progress)
    settings = work.settings(wanted, others)
    record = DualRecord.begin(target, settings, [*wanted, *others], overwrite=options.overwrite)
    if not record.finished:
        with StopSignal() as stop, AnswerBook(target / ANSWERS) as book:
            work.stop = stop
            found = {split: work.caption(pairs, split, book) for split, pairs in wanted.items()}
            work.close()
            for split, each in found.items():
                work.perturb(each, split, book)
        _write(target, found, others)
        record.finish({split: each.counts for split, each in found.items()}, work.infos())
    splits = {split: _cut_counted(target, split, each, options.tokenizer) for split, each in record.splits.items()}
    record.describe(splits)
    return DualCaptionSummary(target, splits, work.asked, work.kept, time.monotonic() - begun)


def _check_place(source: str, target: Path) -> None:
    path = local_path(source)
    if path is not None and path.resolve().is_relative_to(target.resolve()):
        raise ConfigError(f"output_dir {target} holds the set itself; choose another folder, the set stays as it is")


def _splits(options: DualCaptionOptions) -> tuple[dict[str, PairDataset], dict[str, PairDataset]]:
    """Open the splits that get captions, and those that come over; all of them before anything is paid for."""
    names = split_names(options.pairs, options.revision)
    chosen = names if options.split == [ALL] else options.split
    opened = {}
    for name in dict.fromkeys([*chosen, *names]):
        opened[name] = load_pairs(options.pairs, split=name, revision=options.revision, ties="keep")
    wanted = {name: opened[name] for name in chosen}
    if options.limit is not None:
        wanted = {name: pairs.select(range(min(options.limit, len(pairs)))) for name, pairs in wanted.items()}
    return wanted, {name: pairs for name, pairs in opened.items() if name not in wanted}


@dataclass
class _Split:
    """A split on its way.

    Attributes:
        pairs: Its pairs.
        texts: The captions of each side, a text a row; only those of `kept` rows are all there.
        kept: The rows that are not left out.
        counts: What was counted.
    """

    pairs: PairDataset
    texts: dict[str, list[str | None]]
    kept: list[int]
    counts: SplitCounts

    def captions(self) -> list[tuple[str | None, str | None] | None]:
        """The two captions of each row, or `None` for a row that is left out."""
        rows: list[tuple[str | None, str | None] | None] = [None] * len(self.pairs)
        for row in self.kept:
            rows[row] = (self.texts["chosen"][row], self.texts["rejected"][row])
        return rows


class _Work:
    """Asks what has to be asked, split by split."""

    def __init__(
        self, options: DualCaptionOptions, captioner: Captioner | None, perturber: Perturber | None, progress: bool
    ) -> None:
        self.options = options
        self.captioner = captioner
        self.perturber = perturber
        self.progress = progress
        self.asked = 0
        self.kept = 0
        self.stop = StopSignal()

    def settings(self, wanted: Mapping[str, PairDataset], others: Mapping[str, PairDataset]) -> dict[str, Any]:
        """Say all that the result depends on."""
        options = self.options
        path = local_path(options.pairs)
        settings: dict[str, Any] = {
            "pairs": options.pairs if path is None or str(options.pairs).startswith("mini-") else path.name,
            "fingerprints": {name: pairs.fingerprint for name, pairs in [*wanted.items(), *others.items()]},
            "split": list(wanted),
            "limit": options.limit,
            "strategy": options.strategy,
            "on_unreadable": options.on_unreadable,
        }
        if options.captioned:
            settings["captioner"] = self.captioner.identity() if self.captioner else {"captioner": GIVEN}
        if self.perturber is not None:
            settings |= {"perturber": self.perturber.identity(), "seed": options.seed}
        if options.strategy == "hybrid":
            settings["hybrid_source"] = options.hybrid_source
        return settings

    def infos(self) -> dict[str, Any]:
        """Say what is recorded about who wrote."""
        infos = {"captioner": self.captioner, "perturber": self.perturber}
        return {name: writer.info() for name, writer in infos.items() if writer is not None}

    def caption(self, pairs: PairDataset, split: str, book: AnswerBook) -> _Split:
        """Have the pictures of a split captioned; nothing is asked that the book knows."""
        captioned = self.options.captioned
        counts = SplitCounts(pairs=len(pairs))
        texts: dict[str, list[str | None]] = {side: list(pairs.prompts) for side in cols.PICTURES}
        for side in captioned:
            texts[side] = self._pictures(pairs, side, split, book)
            counts.sides[side].unreadable = sum(text is None for text in texts[side])
        if captioned and all(text is None for side in captioned for text in texts[side]):
            raise DataError(self._nothing(pairs))
        kept = self._by_policy(pairs, texts, captioned, counts, range(len(pairs)))
        return _Split(pairs, texts, kept, counts)

    def perturb(self, found: _Split, split: str, book: AnswerBook) -> None:
        """Have the rejected captions of a split perturbed, and finish its counts."""
        texts, kept, counts = found.texts, found.kept, found.counts
        if self.perturber is not None:
            source = texts[self.options.hybrid_source] if self.options.strategy == "hybrid" else texts["rejected"]
            texts["rejected"] = self._perturbed(source, kept, split, book)
            counts.unperturbed = sum(texts["rejected"][row] is None for row in kept)
            counts.unchanged = sum(texts["rejected"][row] == source[row] for row in kept)
            found.kept = self._by_policy(found.pairs, texts, ("rejected",), counts, kept)
        counts.written = len(found.kept)
        counts.alike = sum(texts["chosen"][row] == texts["rejected"][row] for row in found.kept)

    def close(self) -> None:
        """Give the captioner's memory back; the perturber may need it."""
        if self.captioner is not None:
            self.captioner.close()

    def _by_policy(
        self,
        pairs: PairDataset,
        texts: dict[str, list[str | None]],
        sides: Iterable[str],
        counts: SplitCounts,
        rows: Iterable[int],
    ) -> list[int]:
        """Fill in, leave out or refuse what is missing; return the rows that stay."""
        kept = []
        for row in rows:
            missing = [side for side in sides if texts[side][row] is None]
            if missing and self.options.on_unreadable == "error":
                raise DataError(
                    f"{pairs.name} row {pairs.row(row)}, {missing[0]}: there is no caption; --on_unreadable prompt "
                    "takes the prompt instead, drop leaves the pair out"
                )
            if missing and self.options.on_unreadable == "drop":
                counts.dropped += 1
                continue
            for side in missing:
                texts[side][row] = pairs.prompts[row]
            kept.append(row)
        return kept

    def _nothing(self, pairs: PairDataset) -> str:
        if self.captioner is None:
            return (
                f"{pairs.name} has no captions in chosen_prompt and rejected_prompt; name a captioner with --captioner"
            )
        hint = "it knows the mini-world alone; name --captioner hf:MODEL or openai:MODEL"
        more = hint if self.captioner.name == "oracle" else "look at answers.jsonl for what it said"
        return f"the captioner {self.captioner.name} could read none of the pictures of {pairs.name}: {more}"

    def _pictures(self, pairs: PairDataset, side: str, split: str, book: AnswerBook) -> list[str | None]:
        """Caption the pictures of one side; equal pictures are asked about once."""
        captioner = self.captioner
        if captioner is None:
            return [text if text and text.strip() else None for text in pairs.column(CAPTIONS[side])]
        identity = captioner.identity()
        keys = []
        for row, prompt in enumerate(pairs.prompts):
            about = (pairs.encoded(row, side), *([prompt.encode()] if captioner.uses_prompt else []))
            keys.append(question_key("caption", identity, *about))

        def question(row: int) -> Question:
            name = f"{pairs.name} row {pairs.row(row)}, {side}"
            picture = open_image(pairs.encoded(row, side), name=name)
            return Question(keys[row], pairs.prompts[row], (picture,), draws.number(self.options.seed, keys[row]))

        self._ask(f"{split}, {side}", keys, range(len(keys)), question, captioner.captions, book)
        return [book[key].text for key in keys]

    def _perturbed(self, texts: list[str | None], rows: list[int], split: str, book: AnswerBook) -> list[str | None]:
        """Perturb the texts of some rows; equal texts are perturbed once."""
        perturber = self.perturber
        assert perturber is not None
        identity = {"by": perturber.identity(), "seed": self.options.seed}
        keys = {row: question_key("perturb", identity, str(texts[row]).encode()) for row in rows}

        def question(row: int) -> Question:
            return Question(keys[row], str(texts[row]), seed=draws.number(self.options.seed, str(texts[row])))

        self._ask(f"{split}, perturbed", [*keys.values()], rows, question, perturber.perturb, book)
        return [book[keys[row]].text if row in keys else None for row in range(len(texts))]

    def _ask(
        self,
        title: str,
        keys: list[str],
        rows: Iterable[int],
        question: Callable[[int], Question],
        ask: Callable[[Iterator[Question]], Iterator[Answer]],
        book: AnswerBook,
    ) -> None:
        """Ask what the book does not know, and write each answer into it as it comes."""
        from tqdm import tqdm

        todo = {key: row for key, row in zip(keys, rows, strict=True) if key not in book}
        self.kept += len(set(keys)) - len(todo)
        quiet = None if self.progress else True
        with tqdm(total=len(todo), desc=title, unit="caption", disable=quiet) as bar:
            for answer in ask(question(row) for row in todo.values() if not self.stop()):
                book.add(answer)
                self.asked += 1
                bar.update()
        if self.stop():
            assert self.stop.received is not None
            told = f"{self.asked} answers of this run are in {ANSWERS}; the same command goes on"
            raise Stopped(self.stop.received, told)


def _write(target: Path, captioned: Mapping[str, _Split], others: Mapping[str, PairDataset]) -> None:
    """Write all splits, those without captions with empty columns, so that every split has the same ones."""
    for split, found in captioned.items():
        _write_split(target, split, found.pairs, found.captions())
    for split, pairs in others.items():
        chosen, rejected = (pairs.column(name) for name in CAPTIONS.values())
        _write_split(target, split, pairs, list(zip(chosen, rejected, strict=True)))


def _write_split(target: Path, split: str, pairs: PairDataset, captions: Captions) -> None:
    present = {*pairs.column_names, *CAPTIONS.values()}
    columns = [name for name in cols.COLUMNS if name in present]
    extra = {name: pairs.feature(name) for name in pairs.column_names if name not in cols.COLUMNS}
    write_pairs(_rows(pairs, captions), target, split, columns=columns, extra=extra, overwrite=True)


def _rows(pairs: PairDataset, captions: Captions) -> Iterator[dict[str, Any]]:
    """Read a split some rows at a time and put the captions in; pictures stay encoded."""
    plain = [name for name in pairs.column_names if name not in cols.PICTURES]
    for start in range(0, len(pairs), CHUNK):
        part = pairs.select(range(start, min(start + CHUNK, len(pairs))))
        values = {name: part.column(name) for name in pairs.column_names}
        for index in range(len(part)):
            texts = captions[start + index]
            if texts is None:
                continue
            row = {name: values[name][index] for name in plain}
            for side in cols.PICTURES:
                row[side] = {"bytes": part.encoded(index, side), "path": _file_name(values[side][index])}
            yield row | dict(zip(CAPTIONS.values(), texts, strict=True))


def _file_name(cell: Any) -> str | None:
    path = cell.get("path") if isinstance(cell, Mapping) else cell
    return Path(path).name if isinstance(path, str) else None


def _cut_counted(target: Path, split: str, counts: SplitCounts, tokenizer: str | None) -> SplitCounts:
    """Count the captions that CLIP's text encoder would cut, and warn of them."""
    pairs = load_pairs(target, split=split, ties="keep")
    for side, name in CAPTIONS.items():
        texts = [str(text) for text in pairs.column(name)]
        cut = count_cut(texts, tokenizer)
        counts.sides[side] = SideCounts(counts.sides[side].unreadable, cut.to_dict())
        if cut.count:
            about = "" if cut.exact else "about "
            logger.warning(
                "%s of %s that a CLIP text encoder cuts at %d tokens: %s%d of %d (the longest has %d)",
                name, split, cut.limit, about, cut.count, len(texts), cut.longest,
            )  # fmt: skip
    return counts
