"""Scorers as an annotator: a scorer, or the mean of several, rates an aspect.

Law of this file: what a raw score becomes is one of `MAPPINGS`, and the cut points or the ends of the scale that came
of it are recorded with the raw scores. A picture without a score has no rating.

| mapping | a score becomes |
|---|---|
| quantiles | 1 to 5 by the fifth of the set's scores in which it lies: relative to this set |
| range | 1 to 5 by five bands of equal width between the set's lowest and highest score |
| linear | 1 + 4 (score - lowest) / (highest - lowest), not rounded: no ties are made |
| as_is | itself; for scorers that rate from 1 to 5 |
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.annotation.annotations import ASPECTS, HIGHEST, LOWEST
from t2ialign.annotation.annotators.base import Desk, Marks, Outcome, QuietAnnotator
from t2ialign.errors import ConfigError, DataError
from t2ialign.reward_models.registry import load_scorer, parse_spec
from t2ialign.reward_models.score_files import VOLATILE, Key, ScoreTable

if TYPE_CHECKING:
    from t2ialign.annotation.sheets import Sheet
    from t2ialign.reward_models.base import RewardModel

MAPPINGS = ("quantiles", "range", "linear", "as_is")
SCORES = "scores.parquet"
MEASURES = {
    "clipscore": "prompt_following",
    "vqascore": "prompt_following",
    "oracle": "prompt_following",
    "aesthetic": "aesthetic",
}
"""What scorers measure that measure one of the aspects; of others it must be said."""


@dataclass(frozen=True)
class Settings:
    """How scorers are run.

    Attributes:
        mapping: One of `MAPPINGS`.
        layout: Of the image set, as in `open_set`.
        prompts: Likewise.
        batch_size: Pictures scored at once.
        workers: Processes that decode.
        device: Where scorers run.
    """

    mapping: str = "quantiles"
    layout: str | None = None
    prompts: Path | None = None
    batch_size: int = 32
    workers: int | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Scale:
    """From raw scores to ratings, for one scorer.

    Attributes:
        mapping: One of `MAPPINGS`.
        sign: 1, or -1 where a lower score is better.
        cuts: Scores, times `sign`, above which the rating is 2, 3, 4 and 5 (quantiles and range); else empty.
        ends: Lowest and highest of the set's scores, times `sign`.
    """

    mapping: str
    sign: int
    cuts: tuple[float, ...]
    ends: tuple[float, float]

    @classmethod
    def of(cls, scores: Sequence[float], mapping: str, higher_is_better: bool = True) -> Scale:
        """Find the scale of a set's scores.

        Raises:
            DataError: If there is no score, or all are the same and a mapping relative to the set is asked for.
        """
        import numpy as np

        if not scores:
            raise DataError("a scorer gave no picture of the set a score; nothing can be rated by it")
        sign = 1 if higher_is_better else -1
        values = sign * np.asarray(scores, dtype=np.float64)
        low, high = float(values.min()), float(values.max())
        if low == high and mapping != "as_is":
            raise DataError(f"a scorer gave every picture {scores[0]:.6g}; nothing can be rated by it")
        steps = np.arange(1, 5) / 5
        cuts: Sequence[float] = ()
        if mapping == "quantiles":
            cuts = np.quantile(values, steps).tolist()
        elif mapping == "range":
            cuts = (low + steps * (high - low)).tolist()
        return cls(mapping, sign, tuple(cuts), (low, high))

    def rating(self, score: float) -> float:
        """Return the rating of a score.

        Raises:
            DataError: If the score is to be a rating as it is, and lies outside 1 to 5.
        """
        value = self.sign * score
        if self.cuts:
            return LOWEST + sum(value > cut for cut in self.cuts)
        if self.mapping == "linear":
            low, high = self.ends
            return LOWEST + (HIGHEST - LOWEST) * (value - low) / (high - low)
        if not LOWEST <= score <= HIGHEST:
            raise DataError(f"a score is {score:.6g}, no rating from {LOWEST} to {HIGHEST}; choose another --mapping")
        return score

    def to_dict(self) -> dict[str, Any]:
        """Return it for the report, cut points and ends in the scorer's own sign."""
        cuts, ends = ([self.sign * value for value in values] for values in (self.cuts, self.ends))
        return {"mapping": self.mapping, "higher_is_better": self.sign > 0, "cuts": cuts, "worst_and_best": ends}


def parse_scorers(text: str) -> list[tuple[str, str]]:
    """Read `[ASPECT=]SCORER,[ASPECT=]SCORER,...` into aspects and specs.

    Raises:
        ConfigError: If none is named, a scorer is unknown, or it is not known what one measures.
    """
    found = []
    for part in (each.strip() for each in text.split(",")):
        aspect, _, rest = part.partition("=")
        spec = rest if aspect in ASPECTS else part
        name, _, _ = parse_spec(spec)
        if aspect not in ASPECTS:
            aspect = MEASURES.get(name, "")
        if not aspect:
            raise ConfigError(
                f"{name} measures none of the aspects by its name; say which it shall rate, for instance "
                f"scorers:aesthetic={spec} (aspects: {', '.join(ASPECTS)})"
            )
        found.append((aspect, spec))
    return found


class ScorersAnnotator(QuietAnnotator):
    """Rates aspects by scorers; raw scores are in `scores.parquet` of the folder. See `Annotator`."""

    shares = True

    def __init__(self, scorers: Sequence[tuple[str, RewardModel]], settings: Settings) -> None:
        """Take aspects and loaded scorers; a scorer may stand for several aspects, an aspect have several scorers."""
        self._scorers = list(scorers)
        self._settings = settings
        self.aspects = tuple(aspect for aspect in ASPECTS if any(aspect == known for known, _ in scorers))
        self.name = "scorers:" + ",".join(dict.fromkeys(scorer.name for _, scorer in scorers))
        self._table = ScoreTable(Path())
        self._names: dict[str, str] = {}
        self._scales: dict[tuple[str, str], Scale] = {}
        self._gaps: dict[str, str] = {}

    @classmethod
    def load(cls, text: str, settings: Settings) -> ScorersAnnotator:
        """Load what `parse_scorers` reads; a scorer that stands for several aspects is loaded once."""
        named = parse_scorers(text)
        loaded = {spec: load_scorer(spec, device=settings.device, batch_size=settings.batch_size) for _, spec in named}
        return cls([(aspect, loaded[spec]) for aspect, spec in named], settings)

    def work(self, sheets: Sequence[Sheet], desk: Desk) -> Outcome:
        """See `Annotator`; scores that are there already are kept."""
        from t2ialign.reward_models.scoring import score_set

        image_set, settings = sheets[0].image_set, self._settings
        unique = list({id(scorer): scorer for _, scorer in self._scorers}.values())
        summary = score_set(
            image_set.path,
            unique,
            desk.folder / SCORES,
            layout=settings.layout,
            prompts=settings.prompts,
            batch_size=settings.batch_size,
            workers=settings.workers,
            device=settings.device,
            allow_gaps=desk.allow_gaps,
            progress=desk.progress,
        )
        self._gaps = dict(summary.gaps)
        self._table = ScoreTable.read(desk.folder / SCORES)
        pictures = list(dict.fromkeys(name for sheet in sheets for name in sheet.images))
        self._names = self._table.names_in(image_set.path, pictures)
        for scorer in unique:
            scores = [score for name in pictures if (score := self._score(scorer, name)) is not None]
            scale = Scale.of(scores, settings.mapping, scorer.higher_is_better)
            self._scales[scorer.name, scorer.version] = scale
        return Outcome()

    def _score(self, scorer: RewardModel, picture: str) -> float | None:
        row = self._table.rows.get(Key(self._names[picture], scorer.name, scorer.version))
        return None if row is None else row.score

    def marks(self, sheet: Sheet) -> Marks:
        """See `Annotator`."""
        ratings: dict[str, list[float | None]] = {}
        rationales: dict[str, list[str]] = {}
        for aspect in self.aspects:
            rated = [self._rated(aspect, name) for name in sheet.images]
            ratings[aspect] = [rating for rating, _ in rated]
            rationales[aspect] = [words for _, words in rated]
        missing = any(rating is None for marks in ratings.values() for rating in marks)
        return Marks(ratings, rationales, "no score" if missing else "", params={"mapping": self._settings.mapping})

    def _rated(self, aspect: str, picture: str) -> tuple[float | None, str]:
        """Return a picture's rating, the mean over the aspect's scorers, and the scores that it comes from."""
        ratings, words = [], []
        for scorer in (scorer for known, scorer in self._scorers if known == aspect):
            score = self._score(scorer, picture)
            if score is None:
                return None, ""
            ratings.append(self._scales[scorer.name, scorer.version].rating(score))
            words.append(f"{scorer.name} {score:.6g}")
        return sum(ratings) / len(ratings), ", ".join(words)

    def identity(self) -> dict[str, Any]:
        """See `Annotator`; of what a scorer computes there is a digest."""
        told = [
            {"aspect": aspect, "scorer": scorer.name, "version": scorer.version, "info_sha256": _digest(scorer.info())}
            for aspect, scorer in self._scorers
        ]
        return {"annotator": self.name, "mapping": self._settings.mapping, "scorers": told}

    def info(self) -> dict[str, Any]:
        """See `Annotator`."""
        return self.identity() | {"infos": [scorer.info() for _, scorer in self._scorers]}

    def counts(self) -> Mapping[str, Any]:
        """See `Annotator`: for each scorer the way from its scores to ratings."""
        scales = {f"{name} ({version})": scale.to_dict() for (name, version), scale in self._scales.items()}
        return {"gaps": self._gaps, "scales": scales}


def _digest(info: Mapping[str, Any]) -> str:
    told = {key: value for key, value in info.items() if key not in VOLATILE}
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]
