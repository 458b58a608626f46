"""The record of a set of pairs: `pairs.json`, and the card.

Law of this file: what was asked for is written before the first pair, what was counted after the last; whoever comes
again with other options is shown the difference and refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2ialign.annotation.dual_record import differences
from t2ialign.annotation.pair_rules import REASONS
from t2ialign.data.files import write_json
from t2ialign.data.writing import write_card
from t2ialign.errors import DataError

FILE_NAME = "pairs.json"
LARGE = 0.1
"""The share of all prompts in one group of near-duplicates from which a warning is given."""


class PairRecord:
    """The file, begun or finished.

    Attributes:
        content: Its JSON values.
    """

    def __init__(self, target: Path, content: dict[str, Any]) -> None:
        """Take the content; use `begin`."""
        self._target = target
        self.content = content

    @property
    def finished(self) -> bool:
        """Whether all pairs are written."""
        return bool(self.content["finished"])

    @classmethod
    def begin(cls, target: Path, settings: Mapping[str, Any], splits: Sequence[str], *, overwrite: bool) -> PairRecord:
        """Begin, or find out what is there.

        Args:
            target: The output folder.
            settings: All that the result depends on, as JSON values.
            splits: The splits that will be in the folder.
            overwrite: Whether to begin again where the settings are others.

        Raises:
            DataError: If the folder holds something else, or pairs made otherwise.
        """
        now = json.loads(json.dumps(settings, allow_nan=False))
        there = _read(target / FILE_NAME)
        data = sorted((target / "data").glob("*.parquet"))
        if there is None and data:
            raise DataError(f"{target} holds pairs that were made otherwise; choose another folder")
        strange = _strange(target) if there is None else []
        if strange:
            raise DataError(f"{target} holds other files ({', '.join(strange[:3])}); choose an empty folder")
        if there is not None and (differing := differences(there["settings"], now)) and not overwrite:
            raise DataError(
                f"{target} was made with other options ({'; '.join(differing)}); choose another folder, the same "
                "options, or --overwrite"
            )
        whole = all(_of(data, split) for split in splits)
        if there is not None and there["settings"] == now and there["finished"] and whole:
            return cls(target, there)
        content = {"settings": now, "finished": False}
        return cls(target, content)

    def open(self) -> None:
        """Write that the work has begun, before the first pair."""
        write_json(self._target / FILE_NAME, self.content)

    def finish(self, results: Mapping[str, Any]) -> None:
        """Remove splits of earlier options, and write that everything is there, with the card."""
        from t2ialign.models.record import package_versions

        data = sorted((self._target / "data").glob("*.parquet"))
        mine = {path for split in self.content["settings"]["splits"] for path in _of(data, split)}
        for path in data:
            if path not in mine:
                path.unlink()
        self.content |= {"finished": True, **results, "versions": package_versions()}
        write_card(self._target, card(self.content))
        write_json(self._target / FILE_NAME, self.content)


def _strange(target: Path) -> list[str]:
    if not target.is_dir():
        return []
    return sorted(file.name for file in target.iterdir() if not file.name.startswith("."))


def _of(data: Sequence[Path], split: str) -> list[Path]:
    return [path for path in data if path.name.rsplit("-", 3)[0] == split]


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content["settings"], dict):
            raise TypeError("settings is no object")
        return content | {"finished": bool(content["finished"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no record of pairs ({error}); choose another folder") from error


@dataclass(frozen=True)
class PairSummary:
    """What `make_pairs` did.

    Attributes:
        output_dir: Where the pairs are.
        content: What pairs.json holds.
        made: Whether they were made now, and not found there.
        seconds: Time taken.
    """

    output_dir: Path
    content: dict[str, Any]
    made: bool
    seconds: float

    def lines(self) -> list[str]:
        """Say it for people."""
        found = self.content
        there = "" if self.made else " (they were there already)"
        told = [f"{found['written']:,} pairs of {found['candidates']:,} candidates: {self.output_dir}{there}"]
        told += [f"  {count:,} dropped: {REASONS[reason]}" for reason, count in found["dropped"].items()]
        if found["of_written"]["decided_by_veto"]:
            told.append(f"  {found['of_written']['decided_by_veto']:,} written: decided by the veto")
        if found["of_written"]["ties"]:
            told.append(f"  {found['of_written']['ties']:,} written: ties")
        for name, counts in found["by_aspect"].items():
            if len(found["by_aspect"]) > 1:
                told.append(f"  {name}: {counts['written']:,} of {counts['candidates']:,}")
        if found["by_user"]:
            told.append(f"  {len(found['by_user']):,} users")
        if found["read"]["prompts_without_pairs"]:
            told.append(
                f"  {found['read']['prompts_without_pairs']:,} of {found['read']['prompts']:,} prompts have no pair"
            )
        for name, counts in found["splits"].items():
            each = counts["pairs_per_prompt"]
            told.append(
                f"{name}: {counts['pairs']:,} pairs of {each['prompts']:,} prompts, {each['least']} to {each['most']} "
                f"a prompt (as even as {each['effective_prompts']:,.1f} prompts of equal weight)"
            )
        near = found["near_duplicates"]
        if near["prompts"]:
            told.append(
                f"{near['prompts']:,} prompts are near-duplicates, in {near['groups']:,} groups of up to "
                f"{near['largest']:,}; each group is in one split"
            )
        prompts = sum(found["prompts"].values())
        if len(found["splits"]) > 1 and near["largest"] > LARGE * prompts:
            told.append(
                f"warning: one group holds {near['largest']:,} of {prompts:,} prompts, so the shares of the splits "
                "are off; prompts made by a pattern want --near_duplicates none, or nearer to 1"
            )
        return told


def card(content: Mapping[str, Any]) -> str:
    """Write the card's body: by which rule the pairs were made, and what was dropped and why."""
    settings = content["settings"]
    made = "ratings" if settings["kind"] == "ratings" else "scores"
    body = [
        f"# Preference pairs from {made} of {', '.join(settings['sources'])}",
        "",
        "Written by `t2ialign data pairs`; `pairs.json` has every setting and count. Marks are those of the source: "
        "`scores_chosen` and `scores_rejected` are means over passes and annotators, `margin` the difference that "
        "decided; null where a veto or votes decided against it.",
        "",
        "## Rule",
        "",
        "| aspect | weights | margin at least | rule |",
        "|---|---|---|---|",
    ]
    for name, each in settings["aspects"].items():
        weights = ", ".join(f"{aspect} {weight:g}" for aspect, weight in each["weights"].items())
        body.append(f"| {name} | {weights} | {each['margin']:g} | {each['rule']} |")
    body += ["", "| | |", "|---|---|", *_told_settings(settings)]
    body += ["", "## What became of the candidates", "", "| | count |", "|---|---:|"]
    body.append(f"| candidates: two pictures judged together, once an aspect and user | {content['candidates']:,} |")
    body += [f"| dropped: {REASONS[reason]} | {count:,} |" for reason, count in content["dropped"].items()]
    body.append(f"| **written** | **{content['written']:,}** |")
    if content["of_written"]["decided_by_veto"]:
        body.append(f"| of these decided by the veto | {content['of_written']['decided_by_veto']:,} |")
    if content["of_written"]["ties"]:
        body.append(f"| of these ties | {content['of_written']['ties']:,} |")
    body += _told_aspects(content["by_aspect"])
    body += [
        "",
        "## Splits",
        "",
        "| split | pairs | prompts | pairs a prompt | effective prompts |",
        "|---|" + "---:|" * 4,
    ]
    for name, counts in content["splits"].items():
        each = counts["pairs_per_prompt"]
        spread = f"{each['least']} to {each['most']}, median {each['median']:g}"
        body.append(
            f"| {name} | {counts['pairs']:,} | {each['prompts']:,} | {spread} | {each['effective_prompts']:,.1f} |"
        )
    body += [
        "",
        "In training a prompt weighs as its pairs; effective prompts, (sum n)^2 / sum n^2, is how many prompts of "
        "equal weight would weigh as evenly.",
        "",
        _told_near(content["near_duplicates"]),
        "",
        "The licence is that of the source, and models that judged may have terms of their own.",
    ]
    return "\n".join(body)


def _told_aspects(by_aspect: Mapping[str, Any]) -> list[str]:
    if len(by_aspect) < 2:
        return []
    told = ["", "| aspect | candidates | dropped | written |", "|---|---:|---:|---:|"]
    for name, each in by_aspect.items():
        dropped = sum(each["dropped"].values())
        told.append(f"| {name} | {each['candidates']:,} | {dropped:,} | {each['written']:,} |")
    return told


def _told_settings(settings: Mapping[str, Any]) -> list[str]:
    veto = ", ".join(f"{aspect} at most {limit:g}" for aspect, limit in settings["veto"].items())
    labels = "no"
    if settings["soft_labels"]:
        labels = "share of votes" if settings["decide"] == "votes" else f"sigmoid({settings['beta']:g} x margin)"
    rows = {
        "veto": f"{veto}; such a picture is never chosen" if veto else "none",
        "two orders": "must agree" if settings["order"] == "consistent" else "averaged",
        "annotators": "together" if settings["annotators"] == "pool" else "each by itself, as `user_id`",
        "decided by": settings["decide"],
        "soft labels": labels,
        "ties": "dropped" if settings["ties"] == "drop" else "kept, `preference_prob` 0.5",
        "of a prompt's pairs": settings["choose"].replace("_", " against "),
        "pairs a prompt, at most": settings["pairs_per_prompt"] or "any",
        "seed": settings["seed"],
    }
    return [f"| {name} | {value} |" for name, value in rows.items()]


def _told_near(near: Mapping[str, Any]) -> str:
    if not near["prompts"]:
        return "No prompt is in two splits. Near-duplicate prompts: none found."
    return (
        f"No prompt is in two splits. {near['prompts']:,} prompts are near-duplicates (Jaccard index of "
        f"{near['threshold']:g} or more), in {near['groups']:,} groups, the largest of {near['largest']:,}; each "
        f"group is in one split, for which {near['moved']:,} prompts moved."
    )


__all__ = ["FILE_NAME", "PairRecord", "PairSummary", "card"]
