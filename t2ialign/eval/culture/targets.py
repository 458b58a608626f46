"""What awareness is asked of: prompts that name an artifact of a country, and what was observed in their pictures.

Law of this file: an observation is of one picture and measure; where none could be made its value is null, and
counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from t2ialign.eval.culture.countries import Country, find_country
from t2ialign.eval.culture.cube import CubePrompt, contrast_prompts

if TYPE_CHECKING:
    from t2ialign.data.image_sets import ImageRecord

Kind = Literal["share", "mean", "median"]


@dataclass(frozen=True)
class Target:
    """A prompt that names an artifact.

    Attributes:
        prompt_id: Its id in the image set.
        prompt: Its text.
        artifact: Name of the artifact.
        country: Label of the artifact's country.
        domain: Domain, such as cuisine.
        contrasts: The prompt with another country in place of its own, by that country's label.
    """

    prompt_id: str
    prompt: str
    artifact: str
    country: str
    domain: str
    contrasts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Measure:
    """A measure of awareness.

    Attributes:
        kind: How pictures are summed up: a share or a mean of prompt means, or a median of prompt medians.
        low: The least a value can be.
        high: The most.
        meaning: In words.
    """

    kind: Kind
    low: float
    high: float
    meaning: str


_INFINITE = float("inf")
MEASURES = {
    "faithfulness": Measure("mean", 1, 5, "how well the picture shows the artifact, 1 to 5, rated"),
    "realism": Measure("mean", 1, 5, "how real the picture looks, 1 to 5, rated"),
    "top1": Measure("share", 0, 1, "the true artifact is the nearest of its domain's concept space"),
    "top5": Measure("share", 0, 1, "the true artifact is among the five nearest"),
    "rank": Measure("median", 1, _INFINITE, "rank of the true artifact in its domain's concept space, 1 is best"),
    "contrast_margin": Measure(
        "mean", -_INFINITE, _INFINITE, "score of the prompt less the mean score of the same with a wrong country"
    ),
    "contrast_best": Measure("share", 0, 1, "the prompt scores higher than with every wrong country"),
}
"""The measures of awareness, by name."""


@dataclass(frozen=True)
class Observation:
    """One measure of one picture: a row of the file of observations.

    Attributes:
        file_name: Of the picture.
        prompt_id: Of its prompt.
        country: Of the artifact.
        domain: Of the artifact.
        measure: A name of `MEASURES`.
        value: The value; `None` where none could be had.
        source: Who measured.
    """

    file_name: str
    prompt_id: str
    country: str
    domain: str
    measure: str
    value: float | None
    source: str = ""

    @classmethod
    def of(cls, target: Target, file_name: str, measure: str, value: float | None, source: str) -> Observation:
        """Make an observation of a target's picture; NaN is none."""
        there = None if value is None or value != value else float(value)
        return cls(file_name, target.prompt_id, target.country, target.domain, measure, there, source)

    def to_dict(self) -> dict[str, Any]:
        """Return the row."""
        return asdict(self)


def cube_targets(cube: Iterable[CubePrompt], countries: Sequence[Country] | None = None) -> list[Target]:
    """Return the prompts of CUBE-1K as targets; those that name another artifact than their row are left out.

    Args:
        cube: The prompts.
        countries: Those put in the prompts' place for contrast; by default the others in `cube`.
    """
    cube = list(cube)
    if countries is None:
        countries = [found for name in sorted({each.country for each in cube}) if (found := find_country(name))]
    return [
        Target(
            each.prompt_id,
            each.prompt,
            each.artifact,
            each.country,
            each.domain,
            contrast_prompts(each, countries),
        )
        for each in cube
        if each.named
    ]


def flag_targets(prompts: Mapping[str, str]) -> list[Target]:
    """Return the prompts of the mini-world that name a flag ("the flag of Japan") as targets.

    The contrasts are the flags of all countries of other continents, so that no wrong country is right by chance.

    Args:
        prompts: Texts by id; those that name no country's flag are passed over.
    """
    from t2ialign.mini.flags import FLAGS
    from t2ialign.mini.world import Spec, describe, parse

    found = []
    for prompt_id, text in prompts.items():
        try:
            country = parse(text).country
        except ValueError:
            continue
        if country is None:
            continue
        flag, nation = FLAGS[country], find_country(FLAGS[country].name)
        assert nation is not None
        wrong = {
            other.name: describe(Spec("flag", country=key))
            for key, each in FLAGS.items()
            if each.continent != flag.continent and (other := find_country(each.name))
        }
        found.append(Target(prompt_id, text, f"flag of {flag.name}", nation.name, "flags", wrong))
    return found


def targeted(records: Iterable[ImageRecord], targets: Iterable[Target]) -> list[tuple[ImageRecord, Target]]:
    """Return the pictures that targets ask for, each with its target, in the records' order."""
    by_id = {target.prompt_id: target for target in targets}
    return [(record, by_id[record.prompt_id]) for record in records if record.prompt_id in by_id]
