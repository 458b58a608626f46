"""The word-level perturber: changes words of a caption by rule, without any weights.

Law of this file: the result is a function of (seed, text, strength); it is never the text itself and never empty; a
stronger one makes all the changes of a weaker one, and as many or more. A text of the mini-world stays in its grammar.

How it works. A text has *edits*, in an order that chance gives (seeded by the text), on words that do not overlap:

1. a word of a class (`word_classes`: colours, numbers, sizes, places, animals, ...) gives way to another of that
   class, and a number in digits to another number;
2. two other words of like form (both ending in -ing, in -ly, both capitalised, ...) change places;
3. a word that stands before the word it belongs to (`highly detailed`) is dropped.

A strength makes the first edits of that order until they touch its share of the words that can be touched; those of
the first kind come first. A text that has no edits gets a word or two put before it instead. `a` and `an` follow the
next word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from t2ialign.annotation import draws
from t2ialign.annotation.word_classes import ADDED, CLASS_OF, CLASSES, FUNCTION_WORDS
from t2ialign.mini import world
from t2ialign.mini.flags import CONTINENTS, FLAGS

SHARES = {"weak": 0.25, "medium": 0.5, "strong": 0.75}
"""The share of the words that can be changed which each strength changes; at least one edit is made."""

_WORD = re.compile(r"(?<![\d_])[^\W\d_]+(?:['’-][^\W\d_]+)*(?![\d_])|(?<![\w.:,/])\d{1,6}(?![\w.:,/%]*\d|[\w%])")
_FORMS = ("ing", "ly", "ed", "s")


@dataclass(frozen=True)
class Edit:
    """One change.

    Attributes:
        places: Numbers of the words that it touches, from 0.
        words: What stands there afterwards; empty where a word is dropped.
    """

    places: tuple[int, ...]
    words: tuple[str, ...]


def perturb_words(text: str, strength: str = "medium", seed: int = 0) -> str:
    """Change words of a caption.

    Args:
        text: The caption; in the mini-world's grammar, or any text. The word classes are English.
        strength: One of `SHARES`.
        seed: With the text it decides which words change, and into what.

    Returns:
        Another text. A text of the mini-world becomes one that `world.parse` reads and that asks for something else.

    Raises:
        ValueError: If the text is blank or the strength is none of these.
    """
    if strength not in SHARES:
        raise ValueError(f"strength is {strength!r}; it must be one of {', '.join(SHARES)}")
    if not text.strip():
        raise ValueError("a blank text has no words to change")
    try:
        spec = world.parse(text)
    except ValueError:
        return _perturb_any(text, SHARES[strength], seed)
    return _perturb_mini(spec, SHARES[strength], seed)


def _how_many(share: float, count: int) -> int:
    """The share of a count, rounded to the nearest (halves up), at least one."""
    return max(1, int(share * count + 0.5))


# ---------------------------------------------------------------------------------------------
# The mini-world


def _perturb_mini(spec: world.Spec, share: float, seed: int) -> str:
    """Change attributes that a text asks for: colours, shapes, sizes, the relation, the background, the country."""
    text = world.describe(spec)
    if spec.kind == "flag":
        return world.describe(_other_flag(spec, seed, text))
    slots = [(name, index) for index in range(len(spec.things)) for name in ("color", "shape", "size")]
    slots += [("relation", -1), ("background", -1)]
    asked = [slot for slot in slots if _value(spec, slot) is not None]
    changed = spec
    for slot in draws.shuffled(asked, seed, text)[: _how_many(share, len(asked))]:
        others = [value for value in _VALUES[slot[0]] if value != _value(spec, slot)]
        changed = _with_value(changed, slot, draws.pick(others, seed, text, f"{slot[0]} {slot[1]}"))
    if world.turn_around(changed) == spec:  # all words changed, and yet it is the same scene from the other side
        changed = replace(changed, relation=_across(spec.relation or ""))
    return world.describe(changed)


_VALUES: dict[str, Sequence[str]] = {
    "color": tuple(world.OBJECT_COLORS),
    "shape": world.SHAPES,
    "size": world.SIZES,
    "relation": world.RELATIONS,
    "background": tuple(world.BACKGROUND_COLORS),
}


def _value(spec: world.Spec, slot: tuple[str, int]) -> str | None:
    name, index = slot
    found: str | None = getattr(spec if index < 0 else spec.things[index], name)
    return found


def _with_value(spec: world.Spec, slot: tuple[str, int], value: str) -> world.Spec:
    name, index = slot
    change: dict[str, Any] = {name: value}
    if index < 0:
        return replace(spec, **change)
    things = list(spec.things)
    things[index] = replace(things[index], **change)
    return replace(spec, things=tuple(things))


def _across(relation: str) -> str:
    """A relation in the other direction of the picture."""
    return "above" if relation in ("left of", "right of") else "left of"


def _other_flag(spec: world.Spec, seed: int, text: str) -> world.Spec:
    if spec.continent is not None:
        others = [name for name in CONTINENTS if name != spec.continent]
        return replace(spec, continent=draws.pick(others, seed, text))
    return replace(spec, country=draws.pick([name for name in FLAGS if name != spec.country], seed, text))


# ---------------------------------------------------------------------------------------------
# Any text


def _perturb_any(text: str, share: float, seed: int) -> str:
    matches = list(_WORD.finditer(text))
    words = [match.group() for match in matches]
    gaps = [text[a.end() : b.start()] for a, b in pairwise(matches)]
    chosen = _first(edits(words, gaps, text, seed), share)
    if not chosen:
        return _with_more(text, matches, share, seed)
    after: list[str | None] = list(words)
    for edit in chosen:
        for place, word in zip(edit.places, edit.words or (None,), strict=True):
            after[place] = word
    kept = [index for index, word in enumerate(after) if word is not None]
    pieces = [text[: matches[0].start()]]
    for index, following in zip(kept, [*kept[1:], None], strict=True):
        touched = following is not None and (following != index + 1 or after[following] != words[following])
        pieces.append(
            _article(str(after[index]), str(after[following])) if touched and following else str(after[index])
        )
        pieces.append(gaps[index] if following is not None else text[matches[-1].end() :])
    return "".join(pieces)


def edits(words: Sequence[str], gaps: Sequence[str], text: str, seed: int) -> list[Edit]:
    """List the edits of a text, in the order in which they are made.

    Args:
        words: Its words.
        gaps: What stands between each word and the next.
        text: The whole text; with the seed it decides the order.
        seed: See `perturb_words`.
    """
    content = [index for index, word in enumerate(words) if word.lower() not in FUNCTION_WORDS]
    swaps = [
        Edit((index,), (_like(words[index], other),))
        for index in content
        if (other := _another(words[index], seed, text, index)) is not None
    ]
    plain = [index for index in content if not words[index].isdigit() and words[index].lower() not in CLASS_OF]
    exchanges, single = _exchanges(words, plain, text, seed)
    drops = [
        Edit((index,), ())
        for index in single
        if index + 1 < len(words) and index + 1 in content and not gaps[index].strip()
    ]
    return draws.shuffled(swaps, seed, text, "swaps") + draws.shuffled(exchanges + drops, seed, text, "others")


def _first(order: Sequence[Edit], share: float) -> list[Edit]:
    """Take edits until they touch a share of all words that can be touched."""
    wanted = _how_many(share, sum(len(edit.places) for edit in order))
    chosen: list[Edit] = []
    for edit in order:
        if sum(len(each.places) for each in chosen) >= wanted:
            break
        chosen.append(edit)
    return chosen


def _another(word: str, seed: int, text: str, index: int) -> str | None:
    """Another word of the same class, or another number; `None` for a word without a class."""
    if word.isdigit():
        return str(int(word) + 1 + draws.number(seed, text, str(index)) % 9)
    name = CLASS_OF.get(word.lower())
    if name is None:
        return None
    others = [other for other in CLASSES[name] if other != word.lower() and {other, word.lower()} != {"gray", "grey"}]
    return draws.pick(others, seed, text, str(index))


def _exchanges(words: Sequence[str], places: Sequence[int], text: str, seed: int) -> tuple[list[Edit], list[int]]:
    """Pair off words of like form that differ; return the exchanges, and the places left single."""
    groups: dict[str, list[int]] = {}
    for place in places:
        groups.setdefault(_form(words[place], first=place == 0), []).append(place)
    found, single = [], []
    for form, members in groups.items():
        waiting: list[int] = []
        for place in draws.shuffled(members, seed, text, form):
            partner = next((other for other in waiting if words[other].lower() != words[place].lower()), None)
            if partner is None:
                waiting.append(place)
                continue
            waiting.remove(partner)
            a, b = sorted((partner, place))
            found.append(Edit((a, b), (_like(words[a], words[b]), _like(words[b], words[a]))))
        single += waiting
    return found, single


def _form(word: str, *, first: bool) -> str:
    """The form of a word, by which it may stand where another of that form stood."""
    if word[0].isupper() and not first:
        return "capitalised"
    ending = next((ending for ending in _FORMS if word.lower().endswith(ending) and len(word) > len(ending) + 2), "")
    return ending or "plain"


def _like(model: str, word: str) -> str:
    """Write a word with the capitals of the one whose place it takes."""
    if len(model) > 1 and model.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if model[:1].isupper() else word.lower()


def _article(word: str, following: str) -> str:
    if word.lower() not in ("a", "an"):
        return word
    return _like(word[:1], "an") if following[:1].lower() in tuple("aeiou") else word[:1]


def _with_more(text: str, matches: Sequence[re.Match[str]], share: float, seed: int) -> str:
    """Put one to three words before the first word that means something, where nothing can be changed."""
    names = ADDED[: _how_many(share, len(ADDED))]
    added = " ".join(draws.pick(CLASSES[name], seed, text, name) for name in names)
    content = [match for match in matches if match.group().lower() not in FUNCTION_WORDS]
    if not content:
        return f"{added} {text.strip()}"
    start = content[0].start()
    before = text[:start]
    article = re.search(r"\b(an?)\s+$", before, re.IGNORECASE)
    if article is not None:
        before = before[: article.start()] + _article(article.group(1), added) + before[article.end(1) :]
    added = _like(content[0].group()[0], added) if not before.strip() and content[0].group()[0].isupper() else added
    return f"{before}{added} {text[start:]}"
