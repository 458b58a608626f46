"""Attribute diversity of an image set, after GRADE.

Law of this file: every picture of a concept is asked about and gets a row; what was no value (something else, or no
answer) is in no distribution and is counted beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from t2ialign.errors import DataError
from t2ialign.eval.attributes.answers import OTHER, Answers
from t2ialign.eval.attributes.concepts import Attribute, Concept
from t2ialign.eval.attributes.entropy import RESAMPLES, EntropyEstimate, effective_size, estimate_entropy
from t2ialign.eval.statistics import Interval, clustered_bootstrap, wilson

if TYPE_CHECKING:
    from t2ialign.data.image_sets import ImageRecord, ImageSet

THRESHOLD = 0.8
"""Share from which a value is called a default; ours, to be chosen by the caller."""


@dataclass(frozen=True)
class AnswerRow:
    """An answer about a picture: one row.

    Attributes:
        file_name, prompt_id, prompt, sample, seed: Of the picture.
        concept: What it is of.
        attribute: What was asked.
        answer: A value, `OTHER`, or `None` for no answer.
        said: The very words, where they were no option.
    """

    file_name: str
    prompt_id: str
    prompt: str
    sample: int
    seed: int | None
    concept: str
    attribute: str
    answer: str | None
    said: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the row."""
        return asdict(self)


@dataclass(frozen=True)
class Default:
    """A value that pictures of a concept mostly have though nobody asked for it.

    Attributes:
        concept, attribute, value: What.
        share: Of the answers.
        interval: 95 %, Wilson's, at the effective number of pictures where there are several prompts.
        n: Answers.
        threshold: That the interval's lower end exceeds.
    """

    concept: str
    attribute: str
    value: str
    share: float
    interval: Interval
    n: int
    threshold: float

    def to_dict(self) -> dict[str, Any]:
        """Return all values; the interval is a list of two."""
        return asdict(self) | {"interval": list(self.interval)}


@dataclass(frozen=True)
class AttributeScore:
    """An attribute of a concept.

    Attributes:
        concept, attribute: What.
        entropy: Normalised, over the values; `None` where no picture had one of them.
        shares: Of each value: (share, interval); as for `Default`.
        n_pictures: Pictures asked about.
        n_prompts: Their prompts.
        n_other: Pictures with something else.
        n_no_answer: Pictures without an answer.
    """

    concept: str
    attribute: str
    entropy: EntropyEstimate | None
    shares: dict[str, tuple[float, Interval]]
    n_pictures: int
    n_prompts: int
    n_other: int
    n_no_answer: int

    @property
    def other(self) -> tuple[float, Interval]:
        """Share of pictures with something else or no answer, and Wilson's 95 % interval."""
        missed = self.n_other + self.n_no_answer
        return missed / self.n_pictures, wilson(missed, self.n_pictures)

    def to_dict(self) -> dict[str, Any]:
        """Return all values; intervals are lists of two."""
        share, interval = self.other
        return {
            "concept": self.concept,
            "attribute": self.attribute,
            "entropy": None if self.entropy is None else self.entropy.to_dict(),
            "shares": {name: {"share": each, "interval": list(ends)} for name, (each, ends) in self.shares.items()},
            "n_pictures": self.n_pictures,
            "n_prompts": self.n_prompts,
            "n_other": self.n_other,
            "n_no_answer": self.n_no_answer,
            "other": {"share": share, "interval": list(interval)},
        }


@dataclass(frozen=True)
class AttributesResult:
    """A set.

    Attributes:
        scores: A score for each attribute of each concept that has pictures.
        mean: Mean plug-in entropy over them: GRADE's figure of a model; `None` where there is none.
        mean_miller_madow: The same, corrected.
        mean_interval: 95 % of `mean_miller_madow`, for other concepts of the kind (BCa bootstrap over concepts);
            `None` below two concepts.
        defaults: Default behaviours.
        rows: A row for each answer.
        missing: Concepts without a picture.
        info: Who answered.
    """

    scores: tuple[AttributeScore, ...]
    mean: float | None
    mean_miller_madow: float | None
    mean_interval: Interval | None
    defaults: tuple[Default, ...]
    rows: tuple[AnswerRow, ...]
    missing: tuple[str, ...]
    info: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return all but the rows."""
        return {
            "mean": self.mean,
            "mean_miller_madow": self.mean_miller_madow,
            "mean_interval": None if self.mean_interval is None else list(self.mean_interval),
            "n_attributes": sum(score.entropy is not None for score in self.scores),
            "n_concepts": len({score.concept for score in self.scores}),
            "scores": [score.to_dict() for score in self.scores],
            "defaults": [each.to_dict() for each in self.defaults],
            "missing": list(self.missing),
            "info": self.info,
        }


def measure_attributes(
    image_set: ImageSet,
    concepts: Sequence[Concept],
    answers: Answers,
    *,
    threshold: float = THRESHOLD,
    batch_size: int = 16,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> AttributesResult:
    """Ask about the pictures of each concept.

    Args:
        image_set: Pictures, some hundred a concept: with few, see `EntropyEstimate.miller_madow`.
        concepts: What is asked. An attribute that a prompt states is none to ask about: leave such prompts out.
        answers: Who answers.
        threshold: Share from which a value is a default behaviour, in (0, 1).
        batch_size: Pictures handed to `answers` at a time.
        resamples: Of the bootstraps.
        seed: Of the bootstraps.

    Raises:
        DataError: If no picture is of any of the concepts, or one can not be opened.
        ValueError: If the threshold is out of range.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"threshold {threshold} is not between 0 and 1; 0.8 is usual")
    rows: list[AnswerRow] = []
    scores, defaults, missing = [], [], []
    for concept in concepts:
        records = [record for record in image_set if concept.has(record.prompt)]
        if not records:
            missing.append(concept.name)
            continue
        asked = list(_ask(image_set, records, concept, answers, batch_size))
        rows += asked
        for attribute in concept.attributes:
            own = [row for row in asked if row.attribute == attribute.name]
            score = _score(concept, attribute, own, resamples, seed)
            scores.append(score)
            defaults += _defaults(score, threshold)
    if not scores:
        raise DataError(
            f"{image_set.path}: no prompt is of {', '.join(missing[:5]) or 'any concept'}; check the concepts' prompts"
        )
    info: Any = getattr(answers, "info", dict)()
    return _result(scores, defaults, rows, missing, info, resamples, seed)


def _ask(
    image_set: ImageSet, records: Sequence[ImageRecord], concept: Concept, answers: Answers, size: int
) -> Iterator[AnswerRow]:
    for start in range(0, len(records), size):
        batch = records[start : start + size]
        images = [image_set.open(record) for record in batch]
        for attribute in concept.attributes:
            said = answers(images, attribute.question, attribute.values)
            for record, each in zip(batch, said, strict=True):
                listed = each is None or each in attribute.values or each == OTHER
                yield AnswerRow(
                    record.file_name,
                    record.prompt_id,
                    record.prompt,
                    record.sample,
                    record.seed,
                    concept.name,
                    attribute.name,
                    each if listed else OTHER,
                    None if listed else each,
                )


def _score(
    concept: Concept, attribute: Attribute, rows: Sequence[AnswerRow], resamples: int, seed: int
) -> AttributeScore:
    prompts = list(dict.fromkeys(row.prompt_id for row in rows))
    table = np.zeros((len(prompts), len(attribute.values)), dtype=np.int64)
    place = {value: column for column, value in enumerate(attribute.values)}
    line = {prompt: number for number, prompt in enumerate(prompts)}
    for row in rows:
        if row.answer in place:
            table[line[row.prompt_id], place[row.answer]] += 1
    answered = bool(table.sum())
    shares = {value: _share(table, column) for value, column in place.items()} if answered else {}
    return AttributeScore(
        concept.name,
        attribute.name,
        estimate_entropy(table.tolist(), resamples=resamples, seed=seed) if answered else None,
        shares,
        len(rows),
        len(prompts),
        sum(row.answer == OTHER for row in rows),
        sum(row.answer is None for row in rows),
    )


def _share(table: Any, column: int) -> tuple[float, Interval]:
    """Return a value's share over all answers, and Wilson's interval at the effective number of pictures."""
    sizes = table.sum(axis=1)
    own, sizes = table[sizes > 0, column], sizes[sizes > 0]
    share, size = float(own.sum() / sizes.sum()), effective_size(own, sizes)
    return share, wilson(min(share * size, size), size)


def _defaults(score: AttributeScore, threshold: float) -> list[Default]:
    n = 0 if score.entropy is None else score.entropy.n
    return [
        Default(score.concept, score.attribute, value, share, interval, n, threshold)
        for value, (share, interval) in score.shares.items()
        if share > threshold and interval.low > threshold
    ]


def _result(
    scores: Sequence[AttributeScore],
    defaults: Sequence[Default],
    rows: Sequence[AnswerRow],
    missing: Sequence[str],
    info: dict[str, Any],
    resamples: int,
    seed: int,
) -> AttributesResult:
    by_concept: dict[str, list[EntropyEstimate]] = {}
    for score in scores:
        if score.entropy is not None:
            by_concept.setdefault(score.concept, []).append(score.entropy)
    every = [each for all_of in by_concept.values() for each in all_of]
    interval = None
    if len(by_concept) > 1:
        means = np.array([np.mean([each.miller_madow for each in all_of]) for all_of in by_concept.values()])
        weights = np.array([len(all_of) for all_of in by_concept.values()], dtype=np.float64)
        spread = means * weights / weights.mean()  # its mean is the mean over attributes
        interval = clustered_bootstrap(spread, resamples=resamples, seed=seed)
        interval = Interval(max(interval.low, 0.0), min(interval.high, 1.0))
    return AttributesResult(
        tuple(scores),
        math.fsum(each.value for each in every) / len(every) if every else None,
        math.fsum(each.miller_madow for each in every) / len(every) if every else None,
        interval,
        tuple(defaults),
        tuple(rows),
        tuple(missing),
        info,
    )
