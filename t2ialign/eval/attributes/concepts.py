"""Concepts, their attributes and the values these may have: from a file, or proposed by a language model.

    concepts:
      - concept: cookie
        prompts: [a cookie, a cookie in a bakery]     # left out: every prompt that holds the word
        attributes:
          - name: shape
            question: What is the shape of the cookie?
            values: [round, square, heart-shaped, star-shaped]

Law of this file: values of an attribute are a closed list of at least two; a proposal is read strictly, asked for
again a bounded number of times, then counted as failed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.chat.base import Question
from t2ialign.chat.json_answers import read_object
from t2ialign.errors import DataError

if TYPE_CHECKING:
    from t2ialign.chat.base import ChatModel

PROPOSAL = """Someone draws pictures of: {concept}
Name {number} attributes in which such pictures can differ and that can be seen in a picture. For each, write a
question about the picture and a list of 3 to 10 short values that exclude each other and cover what is common.
Answer with one JSON object and nothing else:
{"attributes": [{"name": "...", "question": "...", "values": ["...", "..."]}]}"""
"""What a language model is asked, with `{concept}` and `{number}`."""


@dataclass(frozen=True)
class Attribute:
    """Something in which pictures of a concept can differ.

    Attributes:
        name: Short name.
        question: What is asked about a picture.
        values: The answers that are possible, at least two, all different.
    """

    name: str
    question: str
    values: tuple[str, ...]

    @classmethod
    def from_dict(cls, value: Any, where: str) -> Attribute:
        """Read it.

        Raises:
            DataError: If a key is missing or wrong.
        """
        if not isinstance(value, Mapping):
            raise DataError(f"{where}: {value!r} is no attribute; it needs name, question and values")
        name, question, values = (value.get(key) for key in ("name", "question", "values"))
        if not all(isinstance(text, str) and text.strip() for text in (name, question)):
            raise DataError(f"{where}: name is {name!r} and question {question!r}; both must be texts")
        if not isinstance(values, list) or not all(isinstance(each, str) and each.strip() for each in values):
            raise DataError(f"{where}, {name}: values is {values!r}; a list of texts is needed")
        bare = tuple(" ".join(each.split()) for each in values)
        if len(bare) < 2 or len({each.casefold() for each in bare}) < len(bare):
            raise DataError(f"{where}, {name}: values {list(bare)} must be at least two, and all different")
        return cls(str(name).strip(), str(question).strip(), bare)


@dataclass(frozen=True)
class Concept:
    """What pictures are of.

    Attributes:
        name: The concept.
        attributes: In which its pictures can differ.
        prompts: Words of the prompts whose pictures are of it; empty for every prompt that holds the name as a word.
    """

    name: str
    attributes: tuple[Attribute, ...]
    prompts: tuple[str, ...] = ()

    def has(self, prompt: str) -> bool:
        """Whether a prompt's pictures are of this concept."""
        words = " ".join(prompt.split())
        if self.prompts:
            return words in self.prompts
        return re.search(rf"(?<!\w){re.escape(self.name)}(?!\w)", words, re.IGNORECASE) is not None

    def to_dict(self) -> dict[str, Any]:
        """Return it as in the file."""
        attributes = [asdict(each) | {"values": list(each.values)} for each in self.attributes]
        return {"concept": self.name, "prompts": list(self.prompts), "attributes": attributes}


def read_concepts(path: str | Path) -> list[Concept]:
    """Read concepts from a JSON or YAML file: a list, or a mapping with the key `concepts`.

    Raises:
        DataError: If it can not be read, or a concept stands twice.
    """
    import yaml

    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise DataError(
            f"{path} can not be read ({str(error).splitlines()[0]}); concepts in JSON or YAML are needed"
        ) from error
    listed = content.get("concepts") if isinstance(content, Mapping) else content
    if not isinstance(listed, list) or not listed:
        raise DataError(f"{path}: a list of concepts is needed, under the key 'concepts' or alone")
    concepts = [_concept(each, f"{path}, concept {number}") for number, each in enumerate(listed, 1)]
    names = [each.name for each in concepts]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{path}: {twice[0]!r} stands twice; bring its attributes together")
    return concepts


def _concept(value: Any, where: str) -> Concept:
    if not isinstance(value, Mapping) or not isinstance(value.get("concept"), str) or not value["concept"].strip():
        raise DataError(f"{where}: 'concept' must name what pictures are of")
    attributes, prompts = value.get("attributes"), value.get("prompts") or []
    if not isinstance(attributes, list) or not attributes:
        raise DataError(f"{where}: attributes is {attributes!r}; a list is needed")
    if not isinstance(prompts, list) or not all(isinstance(each, str) for each in prompts):
        raise DataError(f"{where}: prompts is {prompts!r}; a list of texts is needed")
    read = tuple(Attribute.from_dict(each, where) for each in attributes)
    names = [each.name for each in read]
    if len(set(names)) < len(names):
        raise DataError(f"{where}: an attribute stands twice among {names}")
    return Concept(value["concept"].strip(), read, tuple(" ".join(each.split()) for each in prompts))


@dataclass(frozen=True)
class Proposal:
    """What a language model proposed.

    Attributes:
        concepts: Those with attributes.
        problems: Of each concept without, why.
        model: Name of the model.
    """

    concepts: tuple[Concept, ...]
    problems: dict[str, str]
    model: str

    def to_dict(self) -> dict[str, Any]:
        """Return a file that `read_concepts` reads, and the problems beside it."""
        concepts = [each.to_dict() for each in self.concepts]
        return {"concepts": concepts, "problems": self.problems, "model": self.model}


def propose_concepts(
    chat: ChatModel, names: Sequence[str], *, number: int = 4, attempts: int = 3, seed: int = 0
) -> Proposal:
    """Have a language model propose attributes, questions and values. Read them before you measure by them.

    Args:
        chat: The model (`t2ialign.chat.options.load_chat`).
        names: Concepts.
        number: Attributes of each.
        attempts: How often a concept is asked about at most.
        seed: Of answers that are drawn.
    """
    found: dict[str, Concept] = {}
    problems: dict[str, str] = {}
    for attempt in range(attempts):
        left = [name for name in dict.fromkeys(names) if name not in found]
        words = {name: PROPOSAL.replace("{concept}", name).replace("{number}", str(number)) for name in left}
        for answer in chat.ask_all(Question(name, words[name], seed=seed + attempt) for name in left):
            try:
                if answer.text is None:
                    raise DataError(answer.reason or "no answer")
                content = read_object(answer.text)
                found[answer.key] = _concept({"concept": answer.key} | content, "the proposal")
                problems.pop(answer.key, None)
            except (ValueError, DataError) as error:
                problems[answer.key] = str(error)
    return Proposal(tuple(found[name] for name in dict.fromkeys(names) if name in found), problems, chat.name)


def mini_concepts() -> list[Concept]:
    """Return the mini-world's shapes as concepts, with colour, size and background; flags with their continent.

    `answers.OracleAnswers` answers these questions.
    """
    from t2ialign.mini.flags import CONTINENTS
    from t2ialign.mini.world import BACKGROUND_COLORS, OBJECT_COLORS, SHAPES, SIZES

    background = Attribute("background", "What is the color of the background?", tuple(BACKGROUND_COLORS))
    concepts = []
    for shape in SHAPES:
        color = Attribute("color", f"What is the color of the {shape}?", tuple(OBJECT_COLORS))
        size = Attribute("size", f"What is the size of the {shape}?", SIZES)
        concepts.append(Concept(shape, (color, size, background)))
    continent = Attribute("continent", "Which continent is the flag from?", tuple(CONTINENTS))
    return [*concepts, Concept("flag", (continent,), ("a flag",))]
