"""Preference pairs from annotations or scores.

Law of this file: every candidate, that is every two pictures of a prompt that were judged together, once for each
aspect and, where annotators stand alone, each annotator, ends as a written pair or is counted under one reason; the
result does not depend on the order of lines.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from t2ialign.annotation import pair_rules as rules
from t2ialign.annotation.annotations import FILE as ANNOTATIONS
from t2ialign.annotation.judgements import RATINGS, SCORES, Judgements, read_ratings, read_scores
from t2ialign.annotation.pair_candidates import Tally, select
from t2ialign.annotation.pair_choice import Pair, balance
from t2ialign.annotation.pair_options import AGGREGATE, EACH, PairOptions
from t2ialign.annotation.pair_record import PairRecord, PairSummary
from t2ialign.annotation.pair_rules import Rule
from t2ialign.config.fields import nearest
from t2ialign.data.near_duplicates import normalised
from t2ialign.data.pairs import write_pairs
from t2ialign.data.prompt_splits import split_prompts
from t2ialign.errors import ConfigError, DataError

LEAST_RATING, LEAST_AGGREGATE = 1.0, 0.5
"""Margins by default. Of whole marks 1 is any difference, as VisionPrefer has it (arXiv 2404.15100); of the mean of
its four aspects half a mark is two steps, which one aspect's smallest difference does not reach."""


def make_pairs(options: PairOptions) -> PairSummary:
    """Make pairs and write them; find them there when they were written before with the same options.

    Args:
        options: See `PairOptions`.

    Returns:
        What was counted.

    Raises:
        ConfigError: If an aspect is unknown, or sources of different kinds are given together.
        DataError: If a source can not be read, the folder holds something else, or no pair is left, of all or of one
            of the splits.
    """
    begun = time.monotonic()
    target = Path(options.output_dir)
    judgements = read_sources(options)
    decided = resolve(options, judgements)
    record = PairRecord.begin(
        target, settings_of(options, judgements, decided), list(options.splits), overwrite=options.overwrite
    )
    made = not record.finished
    if made:
        pairs, tally = select(options, judgements, decided)
        if not pairs:
            raise DataError(f"no pair is left of {tally.candidates:,} candidates ({tally.told()}); {_mend(tally)}")
        splits = split_prompts(
            (each.prompt for each in judgements.found), options.splits, options.seed, options.near_duplicates
        )
        by_split: dict[str, list[Pair]] = {name: [] for name in options.splits}
        for pair in pairs:
            by_split[splits[pair.prompt]].append(pair)
        for name, members in by_split.items():
            if not members:
                raise DataError(
                    f"no pair fell into the split {name!r}, of {splits.counts[name]:,} prompts in it and "
                    f"{sum(splits.counts.values()):,} in all; give it a larger share, more prompts, or another --seed"
                )
        record.open()
        means, columns, extra = _Means(judgements), _columns(options), _extra()
        for name, members in by_split.items():
            rows = _rows(members, judgements, means, columns)
            write_pairs(rows, target, name, columns=columns, extra=extra, overwrite=True)
        record.finish(_results(judgements, tally, by_split) | splits.to_dict())
    return PairSummary(target, record.content, made, time.monotonic() - begun)


# ---------------------------------------------------------------------------------------------
# What is read, and the rules


def read_sources(options: PairOptions) -> Judgements:
    """Read the sources that the options name.

    Raises:
        ConfigError: If some are annotations and others are not, or one is given twice.
        DataError: If one can not be read.
    """
    folders = [Path(source) for source in options.sources]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigError("a source is given twice; name each once")
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}; name a folder of annotations or an image set")
        if folder.resolve().is_relative_to(Path(options.output_dir).resolve()):
            raise ConfigError(f"output_dir {options.output_dir} holds the source {folder}; choose another folder")
    rated = [folder for folder in folders if options.scores is None and (folder / ANNOTATIONS).is_file()]
    if rated and len(rated) < len(folders):
        other = next(folder for folder in folders if folder not in rated)
        raise ConfigError(f"{rated[0]} holds annotations and {other} does not; make pairs of each kind by themselves")
    if rated:
        return read_ratings(rated, options.image_set)
    if options.image_set is not None:
        raise ConfigError(f"image_set is for annotations; {folders[0]} holds no {ANNOTATIONS}")
    return read_scores(folders, options.scores)


def resolve(options: PairOptions, judgements: Judgements) -> list[Rule]:
    """Make the rules that the options ask for, one for each aspect that pairs are made of.

    Raises:
        ConfigError: If an aspect has no marks.
        DataError: If there are no marks at all.
    """
    known = judgements.aspects
    if not known:
        raise DataError(f"{', '.join(judgements.names)}: not a single mark was given; annotate or score first")
    named = [name for name in options.aspect if name not in (AGGREGATE, EACH)]
    for name in [*named, *options.weights, *options.veto]:
        if name not in known:
            raise ConfigError(f"there are no marks of {name!r}{nearest(name, known)}; there are {', '.join(known)}")
    wanted: dict[str, None] = {}
    for name in options.aspect:
        wanted |= dict.fromkeys(known if name == EACH else [name])
    if AGGREGATE in wanted and len(known) == 1 and not options.weights:
        wanted = {known[0] if name == AGGREGATE else name: None for name in wanted}
    return [_rule(options, judgements, name, known) for name in wanted]


def _rule(options: PairOptions, judgements: Judgements, name: str, known: Sequence[str]) -> Rule:
    whole = name == AGGREGATE
    weights = {name: 1.0}
    if whole:
        weights = {aspect: float(weight) for aspect, weight in options.weights.items() if weight}
        weights = weights or dict.fromkeys(known, 1.0)
    standardize = options.standardize
    if standardize is None:
        standardize = judgements.kind == SCORES and len(weights) > 1
    dominance = whole and options.rule == "pareto"
    least = options.margin
    if least is None:
        least = 0.0 if judgements.kind == SCORES or dominance else LEAST_AGGREGATE if whole else LEAST_RATING
    return Rule(
        aspect=name,
        weights=weights,
        scale=_scale(judgements, weights, standardize=whole and standardize),
        threshold=least,
        dominance=dominance,
        consistent=options.order == "consistent",
        votes=options.decide == "votes",
        veto=dict(sorted(options.veto.items())),
        overturn=whole and options.vetoed == "lose",
    )


def _scale(judgements: Judgements, weights: Mapping[str, float], *, standardize: bool) -> dict[tuple[str, str], float]:
    """Return what marks are multiplied by: -1 where less is better, over the deviation of the annotator's marks."""
    given: dict[tuple[str, str], list[float]] = defaultdict(list)
    for each in judgements.found:
        for aspect in weights:
            given[each.voice, aspect] += [mark for mark in each.marks.get(aspect, ()) if mark is not None]
    scale = {}
    for key, marks in given.items():
        deviation = statistics.pstdev(marks) if standardize and marks else 1.0
        scale[key] = (-1.0 if key[1] in judgements.lower_is_better else 1.0) / (deviation or 1.0)
    return scale


def settings_of(options: PairOptions, judgements: Judgements, decided: Sequence[Rule]) -> dict[str, Any]:
    """Say all that the result depends on, as JSON values."""
    first = decided[0]
    return {
        "sources": judgements.names,
        "kind": judgements.kind,
        "marks": judgements.fingerprint(),
        "aspects": {
            rule.aspect: {
                "weights": dict(rule.weights),
                "margin": rule.threshold,
                "rule": "pareto" if rule.dominance else "weighted",
                "scale": {f"{voice}: {aspect}": value for (voice, aspect), value in sorted(rule.scale.items())},
            }
            for rule in decided
        },
        "veto": dict(first.veto),
        "vetoed": options.vetoed,
        **{
            name: getattr(options, name)
            for name in ("order", "annotators", "decide", "soft_labels", "beta", "ties", "choose", "pairs_per_prompt")
        },
        "splits": dict(options.splits),
        "near_duplicates": options.near_duplicates,
        "seed": options.seed,
    }


def _mend(tally: Tally) -> str:
    reason = max(tally.dropped, key=tally.dropped.__getitem__, default="")
    return {
        rules.PICTURE_MISSING: "say with --image_set where the pictures are",
        rules.RATING_MISSING: "judge the pictures again, or choose an --aspect that has marks",
        rules.BELOW_MARGIN: "lower --margin",
        rules.PASSES_DISAGREE: "--order mean averages the orders",
        rules.ONE_ORDER: "finish the annotation, or use --order mean",
        rules.ASPECTS_DISAGREE: "--rule weighted weighs them up",
        "": "no prompt has two pictures that were judged together",
    }.get(reason, "more pictures of a prompt, or other marks, are needed")


# ---------------------------------------------------------------------------------------------
# Writing


def _columns(options: PairOptions) -> list[str]:
    columns = ["prompt", "chosen", "rejected"]
    columns += ["user_id"] if options.annotators == "each" else []
    columns += ["preference_prob"] if options.soft_labels or options.ties == "keep" else []
    return [*columns, "margin", "aspect", "scores_chosen", "scores_rejected", "source"]


def _extra() -> dict[str, Any]:
    from datasets import Value

    return {name: Value("string") for name in ("prompt_id", "chosen_sha256", "rejected_sha256")}


class _Means:
    """The mean marks of pictures, as given, by aspect; over the passes of all annotators or of one."""

    def __init__(self, judgements: Judgements) -> None:
        self._marks: dict[tuple[str, str], list[tuple[str, dict[str, float | None]]]] = defaultdict(list)
        for each in judgements.found:
            for place, picture in enumerate(each.pictures):
                self._marks[each.prompt_id + "\0" + each.prompt, picture].append((each.voice, each.of(place)))

    def of(self, pair: Pair, picture: str) -> tuple[dict[str, float], list[str]]:
        """Return the means by aspect, and who marked."""
        given: dict[str, list[float]] = defaultdict(list)
        voices: set[str] = set()
        for voice, marks in self._marks[pair.prompt_id + "\0" + pair.prompt, picture]:
            if pair.user is None or voice == pair.user:
                voices.add(voice)
                for aspect, mark in marks.items():
                    if mark is not None:
                        given[aspect].append(mark)
        return {aspect: statistics.fmean(marks) for aspect, marks in sorted(given.items())}, sorted(voices)


def _rows(
    pairs: Sequence[Pair], judgements: Judgements, means: _Means, columns: Sequence[str]
) -> Iterator[dict[str, Any]]:
    for pair in pairs:
        row: dict[str, Any] = {"prompt_id": pair.prompt_id}
        cells: dict[str, Any] = {"prompt": pair.prompt, "user_id": pair.user, "preference_prob": pair.probability}
        cells |= {"margin": pair.margin, "aspect": pair.aspect}
        for side in ("chosen", "rejected"):
            picture = getattr(pair, side)
            scores, voices = means.of(pair, picture)
            path = judgements.file(picture)
            cells |= {side: {"bytes": judgements.read(picture), "path": path.name}, f"scores_{side}": scores}
            cells["source"] = ", ".join(voices if judgements.kind == RATINGS else judgements.names)
            row[f"{side}_sha256"] = picture
        yield row | {name: cells[name] for name in columns}


def _results(judgements: Judgements, tally: Tally, by_split: Mapping[str, Sequence[Pair]]) -> dict[str, Any]:
    """Return what pairs.json says of the result."""
    pairs = [pair for members in by_split.values() for pair in members]
    users = {user: counts for user, counts in tally.by(1).items() if user}
    several = Counter((each.prompt_id, each.prompt) for each in judgements.found if len(each.pictures) > 1)
    prompts = {(each.prompt_id, each.prompt) for each in judgements.found}
    return {
        "read": {
            "prompts": len(prompts),
            "prompts_with_one_picture": len(prompts) - len(several),
            "prompts_without_pairs": len(prompts - {(pair.prompt_id, pair.prompt) for pair in pairs}),
            "pictures": len({picture for each in judgements.found for picture in each.pictures}),
            "judgements": len(judgements.found),
            "annotators": judgements.voices if judgements.kind == RATINGS else [],
            "asked_in_two_orders": sorted(judgements.twice),
            "repeated_lines": judgements.repeated,
            "aspects": judgements.aspects,
        },
        "candidates": tally.candidates,
        "written": tally.written,
        "dropped": tally.dropped,
        "of_written": {
            "decided_by_veto": sum(pair.by_veto for pair in pairs),
            "ties": sum(pair.tie for pair in pairs),
        },
        "by_aspect": tally.by(0),
        "by_user": users,
        "splits": {
            name: {
                "pairs": len(members),
                "pairs_per_prompt": balance(Counter(normalised(p.prompt) for p in members).values()),
            }
            for name, members in by_split.items()
        },
    }


__all__ = ["PairOptions", "PairSummary", "make_pairs", "read_sources", "resolve"]
