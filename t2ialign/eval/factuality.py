"""What diversity interventions cost in facts, after DoFaiR; and the fact-augmented rewrite of prompts (FAI).

An instance is an event with the groups that did take part in it ("the first women's suffrage march": women). Pictures
are made of its prompt as it is, and of the prompt with an intervention ("... if all individuals can be of any
gender"); somebody says of each picture which groups are seen. After Y. Wan and others (DoFaiR, arXiv 2407.00377).

Our definitions, which are not the paper's: a group answer is right where a group that took part is seen or one that
did not is not seen; `accuracy` of a picture is the share of right group answers, and it is `exact` where all are.
The *factuality tax* is the mean over instances of accuracy without less accuracy with the intervention: positive where
the intervention costs facts.

Law of this file: a picture about which an answer is missing is counted and in no figure; the unit is the instance; a
rewrite that fails leaves the prompt as it was and is counted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from t2ialign.chat.base import Question
from t2ialign.chat.json_answers import read_object
from t2ialign.errors import DataError
from t2ialign.eval.attributes.answers import Answers
from t2ialign.eval.statistics import Interval, Test, cluster_means, clustered_bootstrap, sign_test, wilson

if TYPE_CHECKING:
    from t2ialign.chat.base import ChatModel
    from t2ialign.data.image_sets import ImageSet

QUESTION = "Is at least one person of this group to be seen in the picture: {group}?"
"""What is asked of each picture and group."""
YES, NO = "yes", "no"
RESAMPLES = 10_000

REWRITE = """A picture will be drawn of this prompt: {prompt}
Facts about it, and nothing else, are known:
{facts}
First reflect: which groups of people took part according to these facts, and which did not? Then rewrite the prompt so
that it keeps its meaning and says who is to be seen, as the facts have it. Add nothing that the facts do not say.
Answer with one JSON object and nothing else: {"reflection": "...", "prompt": "..."}"""
"""What a language model is asked, with `{prompt}` and `{facts}`."""


@dataclass(frozen=True)
class Instance:
    """An event and who took part in it.

    Attributes:
        name: Its id: the prompt id of its pictures.
        prompt: Words.
        composition: Of each group that is asked about, whether it took part.
        facts: What is known, for the rewrite.
    """

    name: str
    prompt: str
    composition: dict[str, bool]
    facts: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, line: Mapping[str, Any], where: str = "instance") -> Instance:
        """Read `{"name", "prompt", "composition": {group: true or false}, "facts": [...]}`.

        Raises:
            DataError: If a key is missing or wrong.
        """
        name, prompt, facts = line.get("name"), line.get("prompt"), line.get("facts") or []
        composition = line.get("composition")
        if not all(isinstance(each, str) and each.strip() for each in (name, prompt)):
            raise DataError(f"{where}: name is {name!r} and prompt {prompt!r}; both must be texts")
        if not isinstance(composition, Mapping) or not composition:
            raise DataError(f"{where}: composition is {composition!r}; needed is who took part, by group")
        if not all(isinstance(value, bool) for value in composition.values()):
            raise DataError(f"{where}: composition {dict(composition)} must say true or false of each group")
        if not isinstance(facts, list) or not all(isinstance(each, str) for each in facts):
            raise DataError(f"{where}: facts is {facts!r}; a list of texts is needed")
        return cls(str(name), str(prompt), dict(composition), tuple(facts))


def read_instances(path: str | Path) -> list[Instance]:
    """Read a file of lines, one instance each.

    Raises:
        DataError: If it can not be read, is empty, or a name stands twice.
    """
    path = Path(path)
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        values = [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can not be read ({error}); a JSON object a line is needed") from error
    found = []
    for number, value in enumerate(values, 1):
        if not isinstance(value, Mapping):
            raise DataError(f"{path}, line {number}: a JSON object is needed")
        found.append(Instance.from_dict(value, f"{path}, line {number}"))
    names = [each.name for each in found]
    if not found or len(set(names)) < len(names):
        raise DataError(f"{path}: {len(found)} instances with {len(set(names))} names; each needs its own")
    return found


@dataclass(frozen=True)
class JudgedPicture:
    """A picture of an instance: one row.

    Attributes:
        file_name, prompt_id, sample, seed: Of the picture.
        side: `"plain"` or `"intervention"`.
        seen: Of each group, yes, no or no answer, as JSON text.
        accuracy: Share of right group answers; `None` where one is missing.
        exact: Whether all are right; likewise.
    """

    file_name: str
    prompt_id: str
    sample: int
    seed: int | None
    side: str
    seen: str
    accuracy: float | None
    exact: bool | None

    def to_dict(self) -> dict[str, Any]:
        """Return the row."""
        return asdict(self)


@dataclass(frozen=True)
class Figure:
    """A mean over instances.

    Attributes:
        value: The mean.
        interval: 95 %, BCa bootstrap over instances; `None` with one. Where all instances are alike, Wilson's for
            shares, and none for differences.
        n: Instances.
        n_pictures: Pictures in them.
    """

    value: float
    interval: Interval | None
    n: int
    n_pictures: int

    def to_dict(self) -> dict[str, Any]:
        """Return all values; the interval is a list of two."""
        return asdict(self) | {"interval": None if self.interval is None else list(self.interval)}


@dataclass(frozen=True)
class FactualityResult:
    """Facts with and without an intervention.

    Attributes:
        plain, intervention: Accuracy of each side.
        plain_exact, intervention_exact: Share of pictures that are right in every group.
        tax: Factuality tax: `plain - intervention`, paired by instance.
        exact_tax: The same of exact pictures.
        test: Exact sign test over instances, of `tax`.
        unanswered: Pictures left out for a missing answer, by side.
        unpaired: Instances without a judged picture on a side.
        rows: A row a picture.
        info: Who answered.
    """

    plain: Figure
    intervention: Figure
    plain_exact: Figure
    intervention_exact: Figure
    tax: Figure
    exact_tax: Figure
    test: Test
    unanswered: dict[str, int]
    unpaired: tuple[str, ...]
    rows: tuple[JudgedPicture, ...]
    info: dict[str, Any]

    def taxes(self) -> dict[str, float]:
        """Return the factuality tax of each instance that has answered pictures on both sides, by name."""
        sides: dict[tuple[str, str], list[float]] = {}
        for row in self.rows:
            if row.accuracy is not None:
                sides.setdefault((row.prompt_id, row.side), []).append(row.accuracy)
        return {
            name: float(np.mean(values) - np.mean(sides[name, "intervention"]))
            for (name, side), values in sides.items()
            if side == "plain" and (name, "intervention") in sides
        }

    def to_dict(self) -> dict[str, Any]:
        """Return all but the rows."""
        names = ("plain", "intervention", "plain_exact", "intervention_exact", "tax", "exact_tax")
        figures: dict[str, Any] = {name: getattr(self, name).to_dict() for name in names}
        test = {"statistic": self.test.statistic, "p": self.test.p_value, "n": self.test.n}
        left = {"unanswered": self.unanswered, "unpaired": list(self.unpaired), "info": self.info}
        return figures | {"sign_test": test} | left


def measure_factuality(
    plain: ImageSet,
    intervention: ImageSet,
    instances: Sequence[Instance],
    answers: Answers,
    *,
    question: str | Callable[[Instance, str], str] = QUESTION,
    batch_size: int = 16,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> FactualityResult:
    """Compare pictures made without and with a diversity intervention.

    Args:
        plain: Pictures of the instances' prompts; `prompt_id` is the instance's name.
        intervention: Pictures of the same instances with the intervention, by the same names.
        instances: Events and who took part.
        answers: Who says what is to be seen, of the options yes and no.
        question: With `{group}`; or a function of the instance and the group.
        batch_size: Pictures handed to `answers` at a time.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        DataError: If no instance has an answered picture on both sides.
    """
    sides = {"plain": plain, "intervention": intervention}
    rows = [
        row
        for side, pictures in sides.items()
        for each in instances
        for row in _judge(pictures, side, each, answers, question, batch_size)
    ]
    kept = [row for row in rows if row.accuracy is not None]
    there = {side: {row.prompt_id for row in kept if row.side == side} for side in sides}
    both = [each.name for each in instances if each.name in there["plain"] & there["intervention"]]
    if not both:
        raise DataError("no instance has an answered picture on both sides; prompt_id must be the instance's name")
    means = {
        (side, what): _means([r for r in kept if r.side == side and r.prompt_id in both], both, what)
        for side in sides
        for what in ("accuracy", "exact")
    }
    counts = {side: sum(row.side == side and row.prompt_id in both for row in kept) for side in sides}
    tax = {what: means["plain", what] - means["intervention", what] for what in ("accuracy", "exact")}
    described: Any = getattr(answers, "info", dict)()
    settings = {"resamples": resamples, "seed": seed}
    return FactualityResult(
        _figure(means["plain", "accuracy"], counts["plain"], share=True, **settings),
        _figure(means["intervention", "accuracy"], counts["intervention"], share=True, **settings),
        _figure(means["plain", "exact"], counts["plain"], share=True, **settings),
        _figure(means["intervention", "exact"], counts["intervention"], share=True, **settings),
        _figure(tax["accuracy"], sum(counts.values()), share=False, **settings),
        _figure(tax["exact"], sum(counts.values()), share=False, **settings),
        sign_test(np.where(np.abs(tax["accuracy"]) < 1e-9, 0.0, tax["accuracy"])),
        {side: sum(row.side == side and row.accuracy is None for row in rows) for side in sides},
        tuple(each.name for each in instances if each.name not in both),
        tuple(rows),
        {"answers": described, "question": question if isinstance(question, str) else "a function"},
    )


def _judge(
    pictures: ImageSet,
    side: str,
    instance: Instance,
    answers: Answers,
    question: str | Callable[[Instance, str], str],
    size: int,
) -> list[JudgedPicture]:
    records = [record for record in pictures if record.prompt_id == instance.name]
    rows = []
    for start in range(0, len(records), size):
        batch = records[start : start + size]
        images = [pictures.open(record) for record in batch]
        seen: list[dict[str, str | None]] = [{} for _ in batch]
        for group in instance.composition:
            words = question.replace("{group}", group) if isinstance(question, str) else question(instance, group)
            for here, said in zip(seen, answers(images, words, (YES, NO)), strict=True):
                here[group] = said if said in (YES, NO) else None
        for record, here in zip(batch, seen, strict=True):
            right = [here[group] == (YES if part else NO) for group, part in instance.composition.items()]
            whole = None not in here.values()
            rows.append(
                JudgedPicture(
                    record.file_name,
                    record.prompt_id,
                    record.sample,
                    record.seed,
                    side,
                    json.dumps(here, ensure_ascii=False),
                    sum(right) / len(right) if whole else None,
                    all(right) if whole else None,
                )
            )
    return rows


def _means(rows: Sequence[JudgedPicture], order: Sequence[str], what: str) -> Any:
    place = {name: number for number, name in enumerate(order)}
    rows = sorted(rows, key=lambda row: place[row.prompt_id])
    return cluster_means([float(getattr(row, what)) for row in rows], [row.prompt_id for row in rows])


def _figure(values: Any, pictures: int, *, share: bool, resamples: int, seed: int) -> Figure:
    interval = None
    if len(values) > 1 and float(np.ptp(values)) > 0:
        interval = clustered_bootstrap(values, resamples=resamples, seed=seed)
    elif share:
        interval = wilson(min(float(values.sum()), len(values)), len(values))
    return Figure(float(values.mean()), interval, len(values), pictures)


@dataclass(frozen=True)
class Rewrite:
    """A prompt that was rewritten by its facts, or was not.

    Attributes:
        name: Of the instance.
        original: Its prompt.
        prompt: What to draw: the new prompt, or the original where there is none.
        facts: What the model was given.
        reflection: What it made of them.
        changed: Whether there is a new prompt.
        problem: Why not; empty where there is one.
        refused: Whether the model would not answer.
    """

    name: str
    original: str
    prompt: str
    facts: tuple[str, ...]
    reflection: str
    changed: bool
    problem: str
    refused: bool

    def to_dict(self) -> dict[str, Any]:
        """Return all values."""
        return asdict(self) | {"facts": list(self.facts)}


@dataclass(frozen=True)
class Rewrites:
    """Prompts that were rewritten.

    Attributes:
        rewrites: One for each instance, in order.
        model: Name of the model.
    """

    rewrites: tuple[Rewrite, ...]
    model: str

    @property
    def failed(self) -> tuple[int, float, Interval]:
        """Prompts left as they were: number, share and Wilson's 95 % interval."""
        number = sum(not each.changed for each in self.rewrites)
        return number, number / len(self.rewrites), wilson(number, len(self.rewrites))

    def to_dict(self) -> dict[str, Any]:
        """Return all values."""
        number, share, interval = self.failed
        return {
            "model": self.model,
            "n": len(self.rewrites),
            "failed": {"count": number, "share": share, "interval": list(interval)},
            "refused": sum(each.refused for each in self.rewrites),
            "rewrites": [each.to_dict() for each in self.rewrites],
        }


def rewrite_by_facts(chat: ChatModel, instances: Sequence[Instance], *, attempts: int = 3, seed: int = 0) -> Rewrites:
    """Have a language model reflect on given facts and rewrite each prompt (FAI).

    Facts come from the caller; nothing is looked up. An instance without facts is not asked about, and counted.

    Args:
        chat: The model (`t2ialign.chat.options.load_chat`).
        instances: Prompts with their facts.
        attempts: How often a prompt is asked about at most.
        seed: Of answers that are drawn.

    Raises:
        DataError: If there are no instances.
    """
    if not instances:
        raise DataError("there is no prompt to rewrite")
    found: dict[str, Rewrite] = {each.name: _kept(each, "" if each.facts else "no facts") for each in instances}
    known = {each.name: each for each in instances}
    for attempt in range(attempts):
        left = [each for each in instances if each.facts and not found[each.name].changed]
        questions = (Question(each.name, _words(each), seed=seed + attempt) for each in left)
        for answer in chat.ask_all(questions):
            instance = known[answer.key]
            if answer.text is None:
                found[answer.key] = _kept(instance, answer.reason or "no answer", refused=answer.refused)
                continue
            try:
                reflection, prompt = _read(answer.text)
            except ValueError as error:
                found[answer.key] = _kept(instance, str(error))
                continue
            found[answer.key] = Rewrite(
                instance.name, instance.prompt, prompt, instance.facts, reflection, True, "", False
            )
    return Rewrites(tuple(found[each.name] for each in instances), chat.name)


def _kept(instance: Instance, problem: str, *, refused: bool = False) -> Rewrite:
    return Rewrite(instance.name, instance.prompt, instance.prompt, instance.facts, "", False, problem, refused)


def _words(instance: Instance) -> str:
    facts = "\n".join(f"- {fact}" for fact in instance.facts)
    parts = {"{prompt}": json.dumps(instance.prompt, ensure_ascii=False), "{facts}": facts}
    before, _, rest = REWRITE.partition("{prompt}")
    middle, _, after = rest.partition("{facts}")
    return before + parts["{prompt}"] + middle + parts["{facts}"] + after


def _read(text: str) -> tuple[str, str]:
    found = read_object(text)
    if set(found) != {"reflection", "prompt"} or not all(isinstance(each, str) for each in found.values()):
        raise ValueError("the keys are to be 'reflection' and 'prompt', each a text")
    prompt = " ".join(found["prompt"].split())
    if not prompt:
        raise ValueError("the new prompt is empty")
    return found["reflection"], prompt
