"""The scorers by name, and how a name with settings is read.

Law of this file: it imports a scorer's own file only when that scorer is asked for.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from t2ialign.errors import ConfigError

if TYPE_CHECKING:
    from t2ialign.reward_models.base import RewardModel

SCORERS = {
    "oracle": "prompt following in the mini-world, read off the picture without learning",
    "clipscore": "cosine of picture and prompt in CLIP's space; @CHECKPOINT, ?definition=...",
}
"""Scorers and a line on each."""

_CLIP_SETTINGS = ("definition", "prefix", "device", "dtype", "batch_size", "revision", "quick_gelu")


def parse_spec(spec: str) -> tuple[str, str | None, dict[str, str]]:
    """Split `name@checkpoint?key=value&key=value`; checkpoint and settings may be absent.

    Raises:
        ConfigError: If the name is no scorer's.
    """
    head, _, query = spec.strip().partition("?")
    name, _, checkpoint = head.partition("@")
    if name not in SCORERS:
        near = difflib.get_close_matches(name, SCORERS, 1, 0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(SCORERS)}"
        raise ConfigError(f"unknown scorer {name!r}; {hint}")
    settings = dict(parse_qsl(query, keep_blank_values=True))
    if query and not settings:
        raise ConfigError(f"cannot read the settings {query!r} of {spec!r}; write key=value&key=value")
    return name, checkpoint or None, settings


def load_scorer(spec: str, *, device: str = "auto", batch_size: int | None = None) -> RewardModel:
    """Load a scorer.

    Args:
        spec: `oracle`; `clipscore` (OpenAI's ViT-B/32, definition hessel); `clipscore@mini-clip`;
            `clipscore@openai/clip-vit-large-patch14?definition=torchmetrics`;
            `clipscore@open_clip:ViT-B-32/laion2b_s34b_b79k`. Settings are the arguments of `ClipScore`.
        device: Where to run it, unless the spec says so.
        batch_size: Pictures in a forward, unless the spec says so.

    Raises:
        ConfigError: If the name or a setting is unknown.
        ModelError: If the checkpoint cannot be loaded.
    """
    name, checkpoint, settings = parse_spec(spec)
    if name == "oracle":
        if checkpoint or settings:
            raise ConfigError(f"the oracle takes no checkpoint and no settings, but the scorer is {spec!r}")
        from t2ialign.reward_models.oracle import OracleScorer

        return OracleScorer()
    from t2ialign.reward_models.clipscore import DEFAULT_CHECKPOINT, ClipScore

    arguments: dict[str, Any] = {"device": device}
    if batch_size is not None:
        arguments["batch_size"] = batch_size
    arguments |= {key: _setting(key, value) for key, value in settings.items()}
    return ClipScore(checkpoint or DEFAULT_CHECKPOINT, **arguments)


def _setting(key: str, value: str) -> Any:
    if key not in _CLIP_SETTINGS:
        near = difflib.get_close_matches(key, _CLIP_SETTINGS, 1, 0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(_CLIP_SETTINGS)}"
        raise ConfigError(f"clipscore has no setting {key!r}; {hint}")
    if key == "batch_size":
        if not value.isdigit():
            raise ConfigError(f"batch_size is {value!r}; it must be a whole number")
        return int(value)
    if key == "quick_gelu":
        if value.lower() not in ("true", "false"):
            raise ConfigError(f"quick_gelu is {value!r}; it must be true or false")
        return value.lower() == "true"
    return value
