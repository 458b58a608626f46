"""The scorers by name, and how a name with settings is read.

Law of this file: it imports a scorer's own file only when that scorer is asked for. A scorer's
settings are the keyword arguments of its class, converted by their annotations; nothing is declared
twice.
"""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from t2ialign.config.convert import convert
from t2ialign.config.fields import nearest
from t2ialign.errors import ConfigError

if TYPE_CHECKING:
    from t2ialign.reward_models.base import RewardModel


@dataclass(frozen=True)
class Entry:
    """Where a scorer is.

    Attributes:
        target: `module:Class`, imported when it is asked for.
        summary: A line on what it measures.
        fixed: Arguments that the name settles; they are no settings.
    """

    target: str
    summary: str
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> type[Any]:
        """Import the scorer's class."""
        module, _, name = self.target.partition(":")
        loaded: type[Any] = getattr(importlib.import_module(f"t2ialign.reward_models.{module}"), name)
        return loaded


SCORERS: dict[str, Entry] = {
    "oracle": Entry("oracle:OracleScorer", "prompt following in the mini-world, read off without learning"),
    "clipscore": Entry("clipscore:ClipScore", "cosine of picture and prompt in CLIP's space, by four definitions"),
    "pickscore": Entry("pickscore:PickScore", "people's choice between two pictures; logit scale times cosine"),
    "hpsv2": Entry("hpsv2:HPSv2", "people's ranking of pictures, HPSv2", {"release": "2.0"}),
    "hpsv2.1": Entry("hpsv2:HPSv2", "people's ranking of pictures, HPSv2.1", {"release": "2.1"}),
    "aesthetic": Entry("aesthetic:AestheticScore", "LAION's aesthetic predictor v2; the prompt is not read"),
    "preference": Entry("preference:PreferenceModel", "a scorer trained with aspects or users, preference@FOLDER"),
    "mps": Entry("mps:MPS", "people's overall preference, MPS; needs converted weights, mps@FILE"),
    "imagereward": Entry(
        "imagereward:ImageReward", "people's ranking of pictures, ImageReward", {"release": "imagereward"}
    ),
    "vpscore": Entry(
        "imagereward:ImageReward", "a multimodal model's preference, VP-Score; vpscore@FILE", {"release": "vpscore"}
    ),
    "vqascore": Entry("vqascore:VQAScore", "P(Yes) of a vision-language model; vqascore@hf:MODEL, @openai:MODEL"),
    "judge": Entry("judge:Judge", "a vision-language model's mark, 1 to 5; judge@hf:MODEL, judge@openai:MODEL"),
}
"""Scorers by name."""

CHECKPOINT = "checkpoint"
"""The argument that what stands after `@` goes to."""


def parse_spec(spec: str) -> tuple[str, str | None, dict[str, str]]:
    """Split `name@checkpoint?key=value&key=value`; checkpoint and settings may be absent.

    Raises:
        ConfigError: If the name is no scorer's, or the settings cannot be read.
    """
    head, _, query = spec.strip().partition("?")
    name, _, checkpoint = head.partition("@")
    if name not in SCORERS:
        raise ConfigError(f"unknown scorer {name!r}{nearest(name, SCORERS)}")
    settings = dict(parse_qsl(query, keep_blank_values=True))
    if query and not settings:
        raise ConfigError(f"cannot read the settings {query!r} of {spec!r}; write key=value&key=value")
    return name, checkpoint or None, settings


def load_scorer(spec: str, *, device: str = "auto", batch_size: int | None = None) -> RewardModel:
    """Load a scorer.

    Args:
        spec: A name (`clipscore`), with a checkpoint (`clipscore@mini-clip`, `pickscore@FOLDER`) and with
            settings (`clipscore@openai/clip-vit-large-patch14?definition=torchmetrics`). Settings are the
            keyword arguments of the scorer's class.
        device: Where to run it, unless the spec says so; scorers without a device ignore it.
        batch_size: Pictures in a forward, unless the spec says so; likewise.

    Raises:
        ConfigError: If the name or a setting is unknown, or a value does not fit.
        ModelError: If the checkpoint cannot be loaded.
    """
    name, checkpoint, given = parse_spec(spec)
    entry = SCORERS[name]
    scorer = entry.load()
    known = settings_of(scorer)
    offered = {"device": device} | ({} if batch_size is None else {"batch_size": batch_size})
    arguments = {key: value for key, value in offered.items() if key in known} | dict(entry.fixed)
    if checkpoint is not None:
        if CHECKPOINT not in known:
            raise ConfigError(f"{name} takes no checkpoint, but the scorer is {spec!r}; write {name}")
        arguments[CHECKPOINT] = checkpoint
    choices = [key for key in known if key != CHECKPOINT and key not in entry.fixed]
    for key, value in given.items():
        if key not in choices:
            raise ConfigError(f"{name} has no setting {key!r}{nearest(key, choices) or '; it has none'}")
        arguments[key] = convert(value, known[key], f"{name}'s {key}")
    loaded: RewardModel = scorer(**arguments)
    return loaded


def settings_of(scorer: type[Any]) -> dict[str, Any]:
    """Return the named arguments of a scorer's class with their annotations.

    The class's constructor must be annotated with what `config.convert` knows: str, int, float, bool,
    Path, Literal, list, or a union of these.
    """
    if scorer.__init__ is object.__init__:
        return {}
    hints = typing.get_type_hints(scorer.__init__)
    names = [name for name, value in inspect.signature(scorer).parameters.items() if value.kind in _NAMED]
    return {name: hints.get(name, Any) for name in names}


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
