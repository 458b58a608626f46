"""What a prompt of GenEval asks for, from its file, its folders, an image set's lines, or the mini-world's grammar.

Law of this file: a requirement that cannot be read is an error that names the line; none is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.errors import DataError
from t2ialign.eval.composition.position import RELATIONS

if TYPE_CHECKING:
    from t2ialign.data.image_sets import ImageRecord

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
"""GenEval's six tasks; its overall figure is their unweighted mean."""


@dataclass(frozen=True)
class Requirement:
    """One kind of object that is asked for, or not wanted.

    Attributes:
        name: Class.
        count: How many at least; among what is not wanted, from how many on it is wrong.
        color: That all `count` of them must have.
        relation: How it lies to the objects of an earlier requirement.
        target: Number of that requirement, from 0.
    """

    name: str
    count: int = 1
    color: str | None = None
    relation: str | None = None
    target: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it in GenEval's keys."""
        found: dict[str, Any] = {"class": self.name, "count": self.count}
        if self.color is not None:
            found["color"] = self.color
        if self.relation is not None:
            found["position"] = [self.relation, self.target]
        return found


@dataclass(frozen=True)
class Task:
    """A prompt and what must be seen.

    Attributes:
        tag: Its task, mostly one of `TAGS`.
        prompt: Words.
        include: What must be there.
        exclude: What must not.
    """

    tag: str
    prompt: str
    include: tuple[Requirement, ...]
    exclude: tuple[Requirement, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes that the rules look at, each once."""
        return tuple(dict.fromkeys(each.name for each in self.include + self.exclude))

    def to_dict(self) -> dict[str, Any]:
        """Return the line of GenEval's file."""
        found: dict[str, Any] = {"tag": self.tag, "include": [each.to_dict() for each in self.include]}
        if self.exclude:
            found["exclude"] = [each.to_dict() for each in self.exclude]
        return found | {"prompt": self.prompt}

    @classmethod
    def from_dict(cls, line: Mapping[str, Any], where: str = "task") -> Task:
        """Read a line of GenEval's file.

        Raises:
            DataError: If a key is missing or has a wrong value; `where` is named.
        """
        tag, prompt, include = line.get("tag"), line.get("prompt"), line.get("include")
        if not isinstance(tag, str) or not tag or not isinstance(prompt, str) or not prompt.strip():
            raise DataError(f"{where}: tag is {tag!r} and prompt {prompt!r}; both must be texts")
        if not isinstance(include, list) or not include:
            raise DataError(f"{where}: include is {include!r}; a list of what must be seen is needed")
        wanted = tuple(_requirement(each, place, where) for place, each in enumerate(include))
        unwanted = line.get("exclude") or []
        if not isinstance(unwanted, list):
            raise DataError(f"{where}: exclude is {unwanted!r}; a list is needed")
        return cls(tag, prompt, wanted, tuple(_requirement(each, 0, where) for each in unwanted))


def _requirement(value: Any, place: int, where: str) -> Requirement:
    if not isinstance(value, Mapping) or not isinstance(value.get("class"), str) or not value["class"]:
        raise DataError(f"{where}: {value!r} is no requirement; it needs a 'class'")
    count, color, position = value.get("count", 1), value.get("color"), value.get("position")
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise DataError(f"{where}: count is {count!r}; a whole number of at least 1 is needed")
    if color is not None and not isinstance(color, str):
        raise DataError(f"{where}: color is {color!r}; a text is needed")
    if position is None:
        return Requirement(value["class"], count, color)
    if not isinstance(position, list) or len(position) != 2 or position[0] not in RELATIONS:
        raise DataError(f"{where}: position is {position!r}; needed is [relation, number], relation in {RELATIONS}")
    if isinstance(position[1], bool) or not isinstance(position[1], int) or not 0 <= position[1] < place:
        raise DataError(f"{where}: position speaks of requirement {position[1]!r}; only earlier ones can be meant")
    return Requirement(value["class"], count, color, position[0], position[1])


def read_tasks(path: str | Path) -> list[Task]:
    """Read GenEval's `evaluation_metadata.jsonl`.

    Raises:
        DataError: If a line can not be read, or the file is empty.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path} can not be read ({error}); GenEval's evaluation_metadata.jsonl is needed") from error
    tasks = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: no JSON ({error})") from error
        if not isinstance(value, dict):
            raise DataError(f"{path}, line {number}: a JSON object is needed, not {type(value).__name__}")
        tasks.append(Task.from_dict(value, f"{path}, line {number}"))
    if not tasks:
        raise DataError(f"{path} holds no tasks")
    return tasks


def task_of_record(record: ImageRecord) -> Task | None:
    """Read the task that stands in a picture's own line (GenEval's layout keeps it there); `None` where none does."""
    if "include" not in record.extra:
        return None
    line = {"tag": record.extra.get("tag") or record.category, "prompt": record.prompt} | record.extra
    return Task.from_dict(line, record.file_name)


def mini_task(prompt: str) -> Task | None:
    """Turn a prompt of the mini-world into a task, shapes being the classes.

    One object is `single_object`, or `colors` where it has a colour; two are `position`, with their colours. Sizes and
    backgrounds are not looked at. `None` for flags, and where both objects have one shape: the rule, which takes the
    surest object of a class, cannot tell them apart.

    Raises:
        ValueError: If the prompt is none of the mini-world.
    """
    from t2ialign.mini.world import INVERSE, parse

    spec = parse(prompt)
    things = spec.things
    if spec.kind != "scene" or len({thing.shape for thing in things}) < len(things):
        return None
    if len(things) == 1:
        tag = "colors" if things[0].color else "single_object"
        return Task(tag, prompt, (Requirement(things[0].shape, 1, things[0].color),))
    one, two = things
    relation = INVERSE[spec.relation or ""]
    include = (Requirement(one.shape, 1, one.color), Requirement(two.shape, 1, two.color, relation, 0))
    return Task("position", prompt, include)
