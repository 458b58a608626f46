"""The record of dual captions: `captions.json`, which says how captions were made and what was counted.

Law of this file: it is written before the first question and again at the end. Whoever continues with other options is
shown the difference and refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from t2ialign.data.files import write_json
from t2ialign.data.writing import write_card
from t2ialign.errors import DataError

FILE_NAME = "captions.json"
_ABSENT = object()


@dataclass
class SideCounts:
    """What was counted on one side.

    Attributes:
        unreadable: Pictures that the captioner could not caption.
        cut: What `count_cut` says of the captions.
    """

    unreadable: int = 0
    cut: dict[str, Any] = field(default_factory=dict)


def _both_sides() -> dict[str, SideCounts]:
    return {"chosen": SideCounts(), "rejected": SideCounts()}


@dataclass
class SplitCounts:
    """What was counted in one split.

    Attributes:
        pairs: Pairs that were read.
        written: Pairs that were written.
        dropped: Pairs that were left out because a caption could not be had.
        unperturbed: Captions that the perturber gave no answer to.
        unchanged: Captions that the perturber gave back as they were.
        alike: Pairs whose two captions are the same text: for these DCPO is DPO.
        sides: Counts of each side.
    """

    pairs: int = 0
    written: int = 0
    dropped: int = 0
    unperturbed: int = 0
    unchanged: int = 0
    alike: int = 0
    sides: dict[str, SideCounts] = field(default_factory=_both_sides)

    def lines(self, split: str) -> list[str]:
        """Say it for people."""
        told = [f"{split}: {self.written:,} of {self.pairs:,} pairs written"]
        told += [f"  {what}: {count:,}" for what, count in self.notable().items() if count]
        return told

    def notable(self) -> dict[str, int]:
        """The counts with words for them."""
        counts = {f"{side} pictures that could not be captioned": s.unreadable for side, s in self.sides.items()}
        counts |= {
            "captions that the perturber gave no answer to": self.unperturbed,
            "captions that the perturber did not change": self.unchanged,
            "pairs left out for want of a caption": self.dropped,
            "pairs whose two captions are the same": self.alike,
        }
        for side, each in self.sides.items():
            exact = "" if each.cut.get("exact", True) else " (estimated)"
            counts[f"{side} captions that CLIP cuts at {each.cut.get('limit', 77)} tokens{exact}"] = each.cut.get(
                "count", 0
            )
        return counts

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> SplitCounts:
        """Read it back."""
        sides = {side: SideCounts(**counts) for side, counts in value["sides"].items()}
        return cls(**{**value, "sides": sides})


class DualRecord:
    """The file, begun or finished.

    Attributes:
        finished: Whether all pairs are written.
        splits: The counts of each split; empty until finished.
    """

    def __init__(self, target: Path, content: dict[str, Any]) -> None:
        """Take the content; use `begin`."""
        self._target = target
        self._content = content

    @property
    def finished(self) -> bool:
        """Whether all pairs are written."""
        return bool(self._content["finished"])

    @property
    def splits(self) -> dict[str, SplitCounts]:
        """The counts of each split; empty until finished."""
        return {split: SplitCounts.from_dict(value) for split, value in self._content["splits"].items()}

    @classmethod
    def begin(cls, target: Path, settings: Mapping[str, Any], splits: list[str], *, overwrite: bool) -> DualRecord:
        """Begin, or find out what is there.

        Args:
            target: The output folder.
            settings: All that the result depends on, as JSON values.
            splits: All the splits that will be in the folder.
            overwrite: Whether to begin again where the settings are others, or the folder holds something else.

        Raises:
            DataError: If the folder holds pairs of another making, or captions made otherwise.
        """
        settings = json.loads(json.dumps(settings))
        there = _read(target / FILE_NAME)
        if there is None and any((target / "data").glob("*.parquet")) and not overwrite:
            raise DataError(f"{target} holds pairs that were made otherwise; choose another folder, or --overwrite")
        if there is not None and (differing := differences(there["settings"], settings)) and not overwrite:
            raise DataError(
                f"{target} was made with other options ({'; '.join(differing)}); choose another folder, the same "
                "options, or --overwrite"
            )
        if strange := _strange_splits(target, splits):
            raise DataError(f"{target} holds further splits ({', '.join(strange)}); choose another folder")
        same = there is not None and there["settings"] == settings
        if there is not None and same and there["finished"] and _whole(target, splits):
            return cls(target, there)
        content = {"settings": settings, "finished": False, "splits": {}}
        write_json(target / FILE_NAME, content)
        return cls(target, content)

    def finish(self, splits: Mapping[str, SplitCounts], infos: Mapping[str, Any]) -> None:
        """Write that everything is there."""
        from t2ialign.models.record import package_versions

        self._content |= {"finished": True, **infos, "versions": package_versions()}
        self._store(splits)

    def describe(self, splits: Mapping[str, SplitCounts]) -> None:
        """Write the counts, and the card."""
        self._store(splits)
        write_card(self._target, _card(self._content["settings"], splits))

    def _store(self, splits: Mapping[str, SplitCounts]) -> None:
        self._content["splits"] = {split: asdict(counts) for split, counts in splits.items()}
        write_json(self._target / FILE_NAME, self._content)


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content["settings"], dict) or not isinstance(content["splits"], dict):
            raise TypeError("settings or splits are no object")
        return content | {"finished": bool(content["finished"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no record of captions ({error}); choose another folder") from error


def _whole(target: Path, splits: list[str]) -> bool:
    return all(any((target / "data").glob(f"{split}-*.parquet")) for split in splits)


def _strange_splits(target: Path, splits: list[str]) -> list[str]:
    there = {file.name.rsplit("-", 3)[0] for file in (target / "data").glob("*-*-of-*.parquet")}
    return sorted(there - set(splits))


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say which settings differ, nested ones by their dotted name."""
    old, new = _flat(there), _flat(now)
    return [
        f"{key}: {_shown(old, key)} there, {_shown(new, key)} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, _ABSENT) != new.get(key, _ABSENT)
    ]


def _shown(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key], ensure_ascii=False) if key in values else "nothing"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


_MEANING = {
    "captioning": ("a caption of the chosen picture", "a caption of the rejected picture"),
    "perturbation": ("the prompt", "the prompt, perturbed"),
    "hybrid": ("a caption of the chosen picture", "a caption of the {source} picture, perturbed"),
}


def _card(settings: Mapping[str, Any], splits: Mapping[str, SplitCounts]) -> str:
    chosen, rejected = _MEANING[settings["strategy"]]
    body = [
        f"# Dual captions for {settings['pairs']}",
        "",
        f"Preference pairs with a caption a side for DCPO (arXiv 2502.06023), strategy {settings['strategy']}: "
        f"`chosen_prompt` is {chosen}, `rejected_prompt` is {rejected.format(source=settings.get('hybrid_source'))}. "
        "Written by `t2ialign data captions`; `captions.json` has every setting.",
        "",
        "| | |",
        "|---|---|",
    ]
    rows = {"captions by": _by(settings.get("captioner")), "perturbed by": _by(settings.get("perturber"))}
    rows["strength"] = (settings.get("perturber") or {}).get("strength")
    rows["seed"] = settings.get("seed")
    rows["captions that could not be had"] = settings["on_unreadable"]
    body += [f"| {name} | {value} |" for name, value in rows.items() if value is not None]
    for split, counts in splits.items():
        body += ["", f"## {split}", "", "| | count |", "|---|---:|"]
        body += [f"| pairs read | {counts.pairs:,} |", f"| pairs written | {counts.written:,} |"]
        body += [f"| {what} | {count:,} |" for what, count in counts.notable().items() if count]
    body += [
        "",
        "Other splits came over without new captions. The licence is that of the source, and the models that ",
    ]
    body[-1] += "wrote may have terms of their own."
    return "\n".join(body)


def _by(identity: Mapping[str, Any] | None) -> str | None:
    """Name who wrote, out of an identity."""
    if identity is None:
        return None
    who = identity.get("captioner", identity.get("perturber"))
    return f"{who['backend']}:{who['model']}" if isinstance(who, dict) else str(who)
