"""What a check found: findings by kind, a report for each split, and how both are told.

Law of this file: what makes a set unfit is an error, what may be meant so is a warning; everything is counted, and the
first places are shown.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from t2ialign.data.captions import CutCaptions

EXAMPLES = 5
"""How many places are shown of each kind of fault."""


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
    """What was found in one split, of pairs or of labelled pictures.

    Attributes:
        prompts: Different prompts.
        users: Different users; 0 where the set names none.
        errors: What makes the set unfit, by kind.
        warnings: What may be meant so, by kind.
        sizes: Pictures by `WIDTHxHEIGHT`, as decoded.
        notices: What was done to pictures while decoding (see `open_image`).
        captions_cut: Captions that CLIP would cut.
    """

    prompts: int = 0
    users: int = 0
    errors: dict[str, Finding] = field(default_factory=dict)
    warnings: dict[str, Finding] = field(default_factory=dict)
    sizes: Counter[str] = field(default_factory=Counter)
    notices: Counter[str] = field(default_factory=Counter)
    captions_cut: CutCaptions | None = None

    def headline(self) -> str:
        """Say how much there is."""
        raise NotImplementedError

    def numbers(self) -> dict[str, Any]:
        """Return what `headline` says, by name."""
        raise NotImplementedError

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
        cut = self.captions_cut.to_dict() if self.captions_cut else None
        counts = {"sizes": dict(self.sizes.most_common()), "notices": dict(self.notices)}
        numbers = self.numbers() | {"prompts": self.prompts, "users": self.users}
        return {**numbers, **findings, **counts, "captions_cut": cut}


@dataclass
class PairsReport(SplitReport):
    """What was found in a split of pairs.

    Attributes:
        pairs: Rows in all, ties included.
        ties: Rows with `preference_prob` 0.5.
    """

    pairs: int = 0
    ties: int = 0

    def headline(self) -> str:
        """Say how many pairs and ties there are."""
        return f"{self.pairs:,} pairs, {self.ties:,} ties"

    def numbers(self) -> dict[str, Any]:
        """Return `pairs` and `ties`."""
        return {"pairs": self.pairs, "ties": self.ties}


@dataclass
class UnpairedReport(SplitReport):
    """What was found in a split of labelled pictures.

    Attributes:
        pictures: Rows in all.
        positives: Valid rows with the label true.
        negatives: Valid rows with the label false.
    """

    pictures: int = 0
    positives: int = 0
    negatives: int = 0

    @property
    def positive_share(self) -> float | None:
        """Share of the label true among the valid rows, in [0, 1]; `None` where there are none."""
        valid = self.positives + self.negatives
        return self.positives / valid if valid else None

    def headline(self) -> str:
        """Say how many pictures there are, and how many of them are labelled true."""
        share = self.positive_share
        told = "" if share is None else f" ({100 * share:.1f} %)"
        return f"{self.pictures:,} pictures, {self.positives:,} labelled true{told}"

    def numbers(self) -> dict[str, Any]:
        """Return `pictures`, `positives`, `negatives` and `positive_share`."""
        counts = {"pictures": self.pictures, "positives": self.positives, "negatives": self.negatives}
        return {**counts, "positive_share": self.positive_share}


R = TypeVar("R", bound=SplitReport)


@dataclass
class CheckReport(Generic[R]):
    """What a check found.

    Attributes:
        source: What was checked.
        splits: A report for each split.
    """

    source: str
    splits: dict[str, R] = field(default_factory=dict)

    @property
    def fit(self) -> bool:
        """Whether the set can be trained on: every split has rows that say something, and no row has an error."""
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
            told.append(f"{name}: {each.headline()}, {each.prompts:,} prompts{users}")
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
