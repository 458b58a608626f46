"""The models of an evaluation: how they are named, what tells their weights apart, and what they were trained on.

Law of this file: nothing is loaded. A model is told by the digest of its weight files, so that a run that was
trained again is another model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2ialign.config.files import read_yaml
from t2ialign.data.sources import content_hash
from t2ialign.errors import ConfigError, T2IAlignError
from t2ialign.generation.labels import model_label, user_label
from t2ialign.models.record import read_record

_LABEL = re.compile(r"(?P<label>[\w.-]+)=(?P<rest>.+)", re.DOTALL)
_REWARD_KEYS = ("reward", "rewards", "reward_model", "reward_models", "scorer", "scorers", "judge")
_PACKAGED_JUDGES = {"mini-pairs": ("oracle",), "mini-user-pairs": ("oracle",)}
"""Who judged the pairs of the packaged sets; see their cards."""


@dataclass(frozen=True)
class Contender:
    """One model of an evaluation.

    Attributes:
        label: Its name in the report.
        model: As for `t2ialign generate`.
        adapter: A run's `final/`, or `None`.
        user: A user's file or a mix, or `None`.
    """

    label: str
    model: str
    adapter: str | None = None
    user: str | None = None

    def identity(self) -> dict[str, Any]:
        """Say what model it is, with a digest of the weights that lie here; no path of this machine."""
        adapter = None if self.adapter is None else _shown(self.adapter)
        said: dict[str, Any] = {"label": self.label, "model": _shown(self.model), "adapter": adapter}
        for name, place in (("weights", self.model), ("adapter_weights", self.adapter)):
            if place is not None and (digest := _digest(place)):
                said[name] = digest
        if self.user is not None:
            said |= {"user": user_label(self.user), "user_files": _user_digests(self.user)}
        return said

    def trained_on(self) -> dict[str, list[str]]:
        """Return the scorers that its training optimised, with where that is said.

        Returns:
            Name of a scorer to sentences; empty where nothing is known.
        """
        found: dict[str, list[str]] = {}
        for place in (self.adapter, self.model):
            for name, where in _judges(place):
                found.setdefault(name, []).append(where)
        return found


def contenders(specs: Sequence[str], adapters: Sequence[str] = (), users: Sequence[str] = ()) -> list[Contender]:
    """Read the models as given on the command line; the first is the base.

    Args:
        specs: `[LABEL=]MODEL[+ADAPTER]` each.
        adapters: As for `t2ialign generate`: several for one model, or one for each; `none` for none.
        users: The same for users.

    Raises:
        ConfigError: If there are fewer than two, two have one name, or the numbers do not go together.
    """
    parsed = [_parse(spec) for spec in specs]
    count = max(len(parsed), len(adapters), len(users))
    models = parsed * count if len(parsed) == 1 else parsed
    if len(models) != count or any(len(given) not in (0, 1, count) for given in (adapters, users)):
        raise ConfigError(
            f"{len(specs)} models, {len(adapters)} adapters and {len(users)} users do not go together; give one, or "
            "one for each ('none' for no adapter and nobody)"
        )
    if adapters and any(each.adapter for each in parsed):
        raise ConfigError("an adapter is given with + in --model and by --adapter; choose one of the two")
    made = []
    for place, each in enumerate(models):
        adapter = each.adapter or _pick(adapters, place)
        user = _pick(users, place)
        label = each.label if len(parsed) > 1 else ""
        made.append(Contender(label or _label(each.model, adapter, user), each.model, adapter, user))
    _check(made)
    return made


def _parse(spec: str) -> Contender:
    label, rest = "", spec.strip()
    match = _LABEL.fullmatch(rest)
    if match and not _is_place(rest):
        label, rest = match["label"], match["rest"]
    model, adapter = rest, None
    if "+" in rest and not _is_place(rest):
        cuts = [place for place, letter in enumerate(rest) if letter == "+"]
        cut = next((place for place in cuts if _is_place(rest[:place])), cuts[0])
        model, adapter = rest[:cut].strip(), rest[cut + 1 :].strip()
        if not model or not adapter:
            raise ConfigError(f"the model {spec!r} cannot be read; write LABEL=MODEL+ADAPTER")
    if not model:
        raise ConfigError(f"the model {spec!r} cannot be read; write LABEL=MODEL, or MODEL alone")
    return Contender(label, model, adapter)


def _is_place(text: str) -> bool:
    return text == "mini-sd" or Path(text).expanduser().exists()


def _pick(given: Sequence[str], place: int) -> str | None:
    name = "none" if not given else given[0] if len(given) == 1 else given[place]
    return None if name.lower() == "none" else name


def _label(model: str, adapter: str | None, user: str | None) -> str:
    label = model_label(model, adapter)
    return label if user is None else f"{label}-{user_label(user)}"


def _check(made: Sequence[Contender]) -> None:
    if len(made) < 2:
        raise ConfigError("one model has nothing to be compared with; give the base first, then what came of it")
    for each in made:
        if not re.fullmatch(r"[\w-][\w.-]*", each.label):
            raise ConfigError(
                f"the label {each.label!r} cannot be a folder's name; use letters, digits, '-', '_', '.'"
            )
    labels = [each.label for each in made]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"two models would both be called {label!r}; write LABEL=MODEL for each")


def _shown(place: str) -> str:
    return model_label(place) if Path(place).expanduser().exists() else place


def _digest(place: str) -> str:
    from t2ialign.mini import resource

    path = (resource(place) if place == "mini-sd" else None) or Path(place).expanduser()
    if path.is_file():
        return content_hash([path])
    if not path.is_dir():
        return ""
    return content_hash(sorted(path.rglob("*.safetensors")))


def _user_digests(spec: str) -> list[str]:
    from t2ialign.users.mix import parse_mix

    return [f"{_digest(path)}:{weight:g}" for path, weight in parse_mix(spec)]


def _judges(place: str | None) -> Iterator[tuple[str, str]]:
    """Yield scorers that a run's options and the cards of its pairs name, with words for where."""
    folder = Path(place).expanduser() if place is not None else Path()
    if place is None or not folder.is_dir():
        return
    try:
        record = read_record(folder)
        options = read_yaml(folder.parent / "config.yaml") if (folder.parent / "config.yaml").is_file() else {}
    except T2IAlignError:
        return
    yield from ((name, f"its options name {name} as {key}") for key, name in _named(options))
    pairs = str(options.get("pairs") or "")
    for name in _PACKAGED_JUDGES.get(pairs, ()):
        yield name, f"it was trained on {pairs}, whose pairs {name} judged"
    for name in _judges_of_pairs(Path(pairs)) if pairs and Path(pairs).is_dir() else ():
        yield name, f"it was trained on {Path(pairs).name}, whose pairs {name} judged"
    if record is not None and Path(record.base_model).is_dir():
        yield from _judges(record.base_model)


def _named(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _named(value)
        elif key in _REWARD_KEYS and value:
            for each in value if isinstance(value, list) else [value]:
                yield key, str(each).partition("@")[0].partition("?")[0]


def _judges_of_pairs(folder: Path) -> set[str]:
    """Read which scorers made a set of pairs, from the JSON files that say how it was made."""
    found: set[str] = set()
    for file in sorted(folder.glob("*.json")):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict):
            found |= {name for _, name in _named(content)}
    return found
