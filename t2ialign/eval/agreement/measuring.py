"""Whether an annotator is any good: agreement, consistency and biases, put together into `agreement.json` and a page.

Law of this file: it reads, calls and gathers; what a figure is stands in the files beside it, what may be said of it
in `words`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from t2ialign.data.files import write_json
from t2ialign.errors import DataError
from t2ialign.eval.accuracy import POLICIES
from t2ialign.eval.agreement import comparing, orders, traits
from t2ialign.eval.agreement.disagreements import find_disagreements
from t2ialign.eval.agreement.page import write_page
from t2ialign.eval.agreement.sides import (
    AGGREGATE,
    OVERALL,
    Judged,
    Key,
    Rated,
    Verdict,
    is_annotations,
    rated_verdicts,
    read_judged,
    read_rated,
)
from t2ialign.eval.agreement.words import FOUND, NOT_SHOWN, NOT_TESTABLE, sentences
from t2ialign.eval.statistics import holm

logger = logging.getLogger(__name__)

FORMAT = 1
BIASES = ("position", "rationale_length", "caption_length", *traits.PICTURE_TRAITS)
LEVEL = 0.05
Found = dict[str, Any]


@dataclass(frozen=True)
class Against:
    """What the annotator is held against.

    Attributes:
        rated: A folder of annotations, or
        judged: a set of pairs.
        verdicts: On two pictures of a prompt, by what was judged: an aspect, the aggregate, or `overall`.
    """

    rated: Rated | None
    judged: Judged | None
    verdicts: dict[str, list[Verdict]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What it is called."""
        side = self.rated or self.judged
        assert side is not None
        return side.name

    def asked_of(self, aspect: str) -> str | None:
        """Return which of its verdicts ask the same as an aspect of the annotator's."""
        wanted = OVERALL if aspect == AGGREGATE and self.judged is not None else aspect
        return wanted if wanted in self.verdicts else None

    def ratings(self, aspect: str) -> Mapping[Key, float] | None:
        """Return its ratings of an aspect, if it has any."""
        return None if self.rated is None else self.rated.ratings.get(aspect)


def read_against(source: str | Path, *, split: str, reference: str | None, first_pass: bool) -> Against:
    """Read what the annotator is held against: annotations where there are any, else pairs.

    Raises:
        DataError: If it is neither.
    """
    if is_annotations(source):
        rated = read_rated(source, annotator=reference, first_pass=first_pass)
        return Against(rated, None, {a: list(rated_verdicts(rated.ratings[a], a)) for a in rated.ratings})
    judged = read_judged(source, split=split, user=reference)
    by_aspect: dict[str, list[Verdict]] = {}
    for verdict in judged.verdicts:
        by_aspect.setdefault(verdict.aspect, []).append(verdict)
    return Against(None, judged, by_aspect)


def measure_agreement(
    folder: str | Path,
    against: str | Path,
    output_dir: str | Path,
    *,
    images: str | Path | None = None,
    annotator: str | None = None,
    reference: str | None = None,
    first_pass: bool = False,
    split: str = "train",
    policy: str = "pickscore",
    shown: int = 24,
    resamples: int = 10_000,
    seed: int = 0,
) -> Found:
    """Measure an annotator; write `agreement.json` and `agreement.html`.

    Args:
        folder: Annotations (`annotations.jsonl`).
        against: Another folder of annotations, or a set of preference pairs, by people or held out.
        output_dir: Where to write.
        images: The image set that was annotated; by default the one that the annotations name.
        annotator: Take this annotator's lines alone.
        reference: Of `against`, take this annotator's lines, or this user's pairs, alone.
        first_pass: Compare the first pass alone, rather than the mean of all.
        split: Of the pairs.
        policy: What a tie is worth in the accuracy: a key of `t2ialign.eval.accuracy.POLICIES`.
        shown: Disagreements on the page, at most.
        resamples: Of bootstraps and tests.
        seed: Of both.

    Returns:
        What `agreement.json` holds; its keys are described in docs/agreement.md.

    Raises:
        DataError: If a side can not be read, or the two share no picture.
    """
    if policy not in POLICIES:
        raise DataError(f"unknown policy {policy!r}; choose {', '.join(POLICIES)}")
    root = None if images is None else Path(images)
    mine = read_rated(folder, images=root, annotator=annotator, first_pass=first_pass)
    theirs = read_against(against, split=split, reference=reference, first_pass=first_pass)
    every = read_rated(folder, images=root, annotator=annotator) if first_pass else mine
    result: Found = {"format": FORMAT, "unit": "prompt", "policy": policy, "passes": "first" if first_pass else "mean"}
    wrong = find_disagreements(mine, theirs.verdicts, theirs.rated)
    result |= _measured(mine, every, theirs, policy, resamples, seed)
    result["disagreements"] = {"n": len(wrong), "shown": [each.to_dict() for each in wrong[:shown]]}
    result["sentences"] = sentences(result)
    output = Path(output_dir)
    write_page(output / "agreement.html", result, wrong[:shown], _picture_source(mine, theirs))
    write_json(output / "agreement.json", result)
    return result


def _measured(mine: Rated, every: Rated, theirs: Against, policy: str, resamples: int, seed: int) -> Found:
    """Measure all but the disagreements."""
    pairs = comparisons(mine, theirs, policy, resamples, seed)
    matched = _matched(mine, theirs)
    logger.info("%d pictures are on both sides; they are looked at for biases", matched["pictures"])
    tested, unread = biases(mine, every, theirs, resamples, seed)
    return {
        "bootstrap": {"method": "percentile", "resamples": resamples, "seed": seed},
        "annotator": _annotator(mine, every),
        "reference": _reference(theirs),
        "matched": matched,
        "comparisons": pairs,
        "within": _within(mine, theirs, resamples, seed),
        "swaps": _swaps(every, resamples, seed),
        "biases": tested,
        "bias_verdicts": bias_verdicts(tested),
        "pictures_not_measured": unread,
    }


def comparisons(mine: Rated, theirs: Against, policy: str, resamples: int, seed: int) -> list[Found]:
    """Compare every aspect with what was asked alike, and with overall verdicts.

    Raises:
        DataError: If the two sides share nothing.
    """
    found: list[Found] = []
    for aspect in mine.ratings:
        for asked in dict.fromkeys((theirs.asked_of(aspect), OVERALL if OVERALL in theirs.verdicts else None)):
            if asked is None:
                continue
            other = theirs.ratings(aspect)
            ratings = (
                None
                if other is None
                else comparing.compare_ratings(mine.ratings[aspect], dict(other), resamples, seed)
            )
            verdicts = comparing.compare_verdicts(
                mine.ratings[aspect], theirs.verdicts[asked], policy, resamples, seed
            )
            if ratings is not None or verdicts is not None:
                found.append({"aspect": aspect, "against": asked, "ratings": ratings, "verdicts": verdicts})
    if not found:
        raise DataError(
            f"{mine.name} and {theirs.name} share no picture of the same prompt and aspect (pictures are matched by "
            f"the sha256 of their files). {mine.name} rates {', '.join(mine.ratings)}; {theirs.name} judges "
            f"{', '.join(theirs.verdicts)}. Annotate the very picture files that the reference judged"
        )
    return found


def biases(mine: Rated, every: Rated, theirs: Against, resamples: int, seed: int) -> tuple[list[Found], int]:
    """Test every bias in every aspect; return the entries, and how many pictures could not be measured.

    Args:
        mine: The annotations that are compared.
        every: All passes of them, for the position.
        theirs: The reference.
        resamples: Of bootstraps and tests.
        seed: Of both.
    """
    source = _picture_source(mine, theirs)
    keys = dict.fromkeys(key for ratings in mine.ratings.values() for key in ratings)
    shared = [key for key in keys if _shared(key, theirs)]
    measured, unread = traits.measure_pictures(shared, source)
    entries: list[Found] = []
    for aspect, ratings in mine.ratings.items():
        position = orders.position_bias(every.annotations, aspect, mine.aspects, resamples, seed)
        if position is not None:
            entries.append({"bias": "position", "aspect": aspect, "judged": "rating", **position})
        lengths = traits.rationale_lengths(mine, aspect)
        other = theirs.ratings(aspect)
        of_aspect = partial(_entry, aspect)
        if lengths:
            entries.append(
                of_aspect("rationale_length", traits.within_prompts(lengths, ratings, None, resamples, seed))
            )
        entries.append(of_aspect("caption_length", traits.caption_length(ratings, other, resamples, seed)))
        asked = theirs.asked_of(aspect)
        for number, name in enumerate(traits.PICTURE_TRAITS if asked is not None else ()):
            trait = {key: values[number] for key, values in measured.items()}
            if other is not None:
                found = traits.within_prompts(trait, ratings, other, resamples, seed)
            else:
                assert asked is not None
                found = traits.between_verdicts(trait, ratings, theirs.verdicts[asked], resamples, seed)
            entries.append(of_aspect(name, found))
    _judge(entries)
    return sorted(entries, key=lambda entry: BIASES.index(entry["bias"])), unread


def _entry(aspect: str, bias: str, found: Found) -> Found:
    return {"bias": bias, "aspect": aspect, **found}


def _judge(entries: list[Found]) -> None:
    """Adjust the p values of all tests in the file by Holm's method, and say what follows."""
    tested = [entry for entry in entries if entry["p"] is not None]
    for entry, adjusted in zip(tested, holm([entry["p"] for entry in tested]), strict=True):
        entry["p_holm"] = adjusted
    for entry in entries:
        entry.setdefault("p_holm", None)
        entry["verdict"] = NOT_TESTABLE if entry["p"] is None else FOUND if entry["p_holm"] < LEVEL else NOT_SHOWN


def bias_verdicts(entries: list[Found]) -> dict[str, Found]:
    """Say of each bias whether it was found in any aspect, and in which."""
    verdicts: dict[str, Found] = {}
    for bias in BIASES:
        mine = [entry for entry in entries if entry["bias"] == bias]
        found = [entry["aspect"] for entry in mine if entry["verdict"] == FOUND]
        testable = any(entry["verdict"] != NOT_TESTABLE for entry in mine)
        verdict = FOUND if found else NOT_SHOWN if testable else NOT_TESTABLE
        reasons = dict.fromkeys(entry["reason"] for entry in mine if entry["reason"]) or {
            "nothing to test it on": None
        }
        verdicts[bias] = {"verdict": verdict, "aspects": found}
        verdicts[bias]["reason"] = "; ".join(reasons) if verdict == NOT_TESTABLE else ""
    return verdicts


def _shared(key: Key, theirs: Against) -> bool:
    if theirs.rated is not None:
        return any(key in ratings for ratings in theirs.rated.ratings.values())
    return theirs.judged is not None and key in theirs.judged.places


def _picture_source(mine: Rated, theirs: Against) -> Callable[[Key], Path | bytes | None]:
    """Return a function that finds a picture: in the annotator's set, the reference's, or the pairs themselves."""

    def source(key: Key) -> Path | bytes | None:
        if key in mine.files:
            return mine.files[key]
        if theirs.rated is not None:
            return theirs.rated.files.get(key)
        assert theirs.judged is not None
        place = theirs.judged.places.get(key)
        if place is None:
            return None
        data: bytes = theirs.judged.pairs.encoded(*place)
        return data

    return source


def _annotator(mine: Rated, every: Rated) -> Found:
    lines = every.annotations
    return {
        "name": mine.name,
        "annotators": sorted({line.annotator for line in lines}),
        "annotations": len(lines),
        "not_ok": sum(not line.ok for line in lines),
        "problems": _counts(line.problem for line in lines if not line.ok),
        "prompts": len({line.prompt_id for line in lines}),
        "pictures": len({key for keys in mine.keys for key in keys if key is not None}),
        "passes": len({line.order for line in lines}),
        "aspects": mine.aspects,
    }


def _counts(words: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for word in words:
        found[word or "unknown"] = found.get(word or "unknown", 0) + 1
    return found


def _reference(theirs: Against) -> Found:
    if theirs.rated is not None:
        return {"kind": "annotations"} | _annotator(theirs.rated, theirs.rated)
    judged = theirs.judged
    assert judged is not None
    return {
        "kind": "pairs",
        "name": judged.name,
        "pairs": len(judged.verdicts),
        "ties": sum(verdict.label == 0.5 for verdict in judged.verdicts),
        "same_picture": judged.same,
        "users": len({verdict.user for verdict in judged.verdicts if verdict.user}),
        "prompts": len({verdict.first.prompt for verdict in judged.verdicts}),
        "aspects": list(theirs.verdicts),
    }


def _matched(mine: Rated, theirs: Against) -> Found:
    """Count what found a partner and what did not."""
    ours = {key for ratings in mine.ratings.values() for key in ratings}
    if theirs.rated is not None:
        others = {key for ratings in theirs.rated.ratings.values() for key in ratings}
    else:
        assert theirs.judged is not None
        others = {key for verdict in theirs.judged.verdicts for key in (verdict.first, verdict.second)}
    return {
        "pictures": len(ours & others),
        "prompts": len({key.prompt for key in ours & others}),
        "annotator_only": len(ours - others),
        "reference_only": len(others - ours),
        "without_digest": mine.unknown + (theirs.rated.unknown if theirs.rated is not None else 0),
        "aspects_not_compared": [a for a in theirs.verdicts if a not in (*mine.ratings, OVERALL)],
    }


def _within(mine: Rated, theirs: Against, resamples: int, seed: int) -> Found:
    """Return how far several annotators, or users, agree among themselves: what can be asked of anyone."""
    found = {"annotator": comparing.among_raters(mine.by_annotator, mine.ratings, resamples, seed)}
    if theirs.rated is not None:
        raters = comparing.among_raters(theirs.rated.by_annotator, theirs.rated.ratings, resamples, seed)
        return found | {"reference": raters}
    assert theirs.judged is not None
    return found | {"reference": comparing.among_users(theirs.judged.verdicts, resamples, seed)}


def _swaps(every: Rated, resamples: int, seed: int) -> Found:
    swaps = {a: orders.swap_consistency(every.annotations, a, every.aspects, resamples, seed) for a in every.ratings}
    return {aspect: found for aspect, found in swaps.items() if found is not None}
