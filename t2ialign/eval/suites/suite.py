"""What a suite is, and how its YAML is read.

Law of this file: a suite names its prompts, its picture budget, its scorers and its sections, and nothing about
models or machines; an unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from t2ialign.config import REQUIRED, load, nearest, option, to_dict
from t2ialign.config.files import read_yaml
from t2ialign.errors import ConfigError
from t2ialign.eval.suites.judges import judge_identity
from t2ialign.eval.suites.sections import SECTIONS, judges, options_class
from t2ialign.eval.suites.sweep_options import SweepOptions


@dataclass
class PromptSet:
    """One set of prompts of a suite."""

    source: str = option(REQUIRED, "Own set by name, public set by name, or a prompt file.")
    images_per_prompt: int = option(1, "Pictures of each prompt and model, with the same seeds for all models.")
    limit: int | None = option(None, "At most so many prompts, chosen by a digest of their ids and not by position.")
    suffix: str = option("", "Words put behind every prompt, such as a diversity intervention.")
    rewrite: str | None = option(
        None, "Chat model that rewrites every prompt by the facts in its line (fact-augmented intervention)."
    )

    @property
    def name(self) -> str:
        """The source without the folders of this machine."""
        return PurePath(self.source).name

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        for name in ("images_per_prompt", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1")
        if self.rewrite is not None:
            from t2ialign.chat.options import parse_spec

            parse_spec(self.rewrite)

    def to_dict(self) -> dict[str, Any]:
        """Return what decides the prompts; what is not asked for is left out."""
        found: dict[str, Any] = to_dict(self) | {"source": self.name}
        del found["rewrite"]
        if not self.suffix:
            del found["suffix"]
        if self.rewrite is not None:
            found["rewrite"] = judge_identity(self.rewrite)
        return found


@dataclass
class Generation:
    """How the pictures are made; what is left out is the default of the model's family."""

    num_inference_steps: int | None = option(None, "Denoising steps.")
    guidance_scale: float | None = option(None, "Classifier-free guidance.")
    scheduler: str = option("auto", "How to denoise; see t2ialign generate.")
    negative_prompt: str = option("", "What the pictures should not show.")
    height: int | None = option(None, "Height in pixels.")
    width: int | None = option(None, "Width in pixels.")


@dataclass
class SuiteHead:
    """The plain keys of a suite's YAML."""

    description: str = option(REQUIRED, "What the suite is for, in a sentence.")
    pictures_per_model: int | None = option(
        None, "The picture budget: prompts times pictures, over all sets. None where it depends on a public set."
    )
    scorers: list[str] = option([], "Scorers, as in t2ialign score.", separator=None)
    embedder: str | None = option(None, "Scorer whose picture features diversity and fidelity are measured in.")
    batch_size: int = option(8, "Pictures made and scored at once, where the command line does not say.")
    generation: Generation = option(Generation, "How the pictures are made.")
    sweep: SweepOptions = option(SweepOptions, "Settings to sweep over, for the section tradeoff.")


@dataclass(frozen=True)
class Suite:
    """A suite as it was read.

    Attributes:
        name: Its name, the stem of its file.
        description: What it is for.
        prompts: Prompt sets by name.
        generation: How pictures are made.
        scorers: Specs of scorers.
        embedder: Spec of the scorer that embeds pictures; `None` for none.
        pictures_per_model: The budget, where it is known beforehand.
        sections: Options of each section by name, in the order of the report.
        batch_size: Pictures at once; it decides no figure.
        sweep: Settings that pictures are made at besides, for the section tradeoff; like a judge, it may come later.
    """

    name: str
    description: str
    prompts: Mapping[str, PromptSet]
    generation: Generation
    scorers: tuple[str, ...]
    embedder: str | None
    pictures_per_model: int | None
    sections: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 8
    sweep: SweepOptions = field(default_factory=SweepOptions)

    def to_dict(self) -> dict[str, Any]:
        """Return what decides the figures, as plain values for JSON."""
        return {
            "name": self.name,
            "description": self.description,
            "prompts": {name: each.to_dict() for name, each in self.prompts.items()},
            "generation": to_dict(self.generation),
            "scorers": list(self.scorers),
            "embedder": self.embedder,
            "pictures_per_model": self.pictures_per_model,
            "sections": {name: _planned(name, each) for name, each in self.sections.items()},
        }


def _planned(name: str, options: Any) -> dict[str, Any]:
    """Return a section's options without its judges, and without the folders of this machine."""
    found = to_dict(options)
    for key in judges(name):
        found.pop(key, None)
    return {key: _without_folders(value) for key, value in found.items()}


def _without_folders(value: Any) -> Any:
    is_place = isinstance(value, str) and len(PurePath(value).parts) > 1 and Path(value).expanduser().exists()
    return PurePath(value).name if is_place else value


def read_suite(path: Path) -> Suite:
    """Read a suite's YAML.

    Raises:
        ConfigError: If a key or a section is unknown, a value does not fit, or a section names a prompt set that the
            suite does not have.
    """
    content = read_yaml(path)
    groups = {name: content.pop(name, None) or {} for name in ("prompts", "sections")}
    for name, group in groups.items():
        if not isinstance(group, dict):
            raise ConfigError(f"{path.name}: {name} holds {type(group).__name__}; write a name and its options each")
    try:
        head = load(SuiteHead, None, content)
        prompts = {name: load(PromptSet, None, _mapping(each, name)) for name, each in groups["prompts"].items()}
        sections = {name: _section(name, each) for name, each in groups["sections"].items()}
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from error
    _check(path.name, prompts, sections)
    return Suite(
        path.stem,
        head.description,
        prompts,
        head.generation,
        tuple(head.scorers),
        head.embedder,
        head.pictures_per_model,
        sections,
        head.batch_size,
        head.sweep,
    )


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{name}: {value!r} is no group of options")
    return value


def _section(name: str, value: Any) -> Any:
    if name not in SECTIONS:
        raise ConfigError(f"unknown section {name!r}{nearest(name, SECTIONS)}")
    return load(options_class(name), None, _mapping(value, name))


def _check(file: str, prompts: Mapping[str, PromptSet], sections: Mapping[str, Any]) -> None:
    if not prompts or not sections:
        raise ConfigError(f"{file}: a suite needs at least one set under prompts and one section under sections")
    for name, options in sections.items():
        for wanted in getattr(options, "prompts", []):
            if wanted not in prompts:
                raise ConfigError(
                    f"{file}: the section {name} asks for the prompts {wanted!r}{nearest(wanted, prompts)}"
                )
