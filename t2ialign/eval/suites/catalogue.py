"""Where suites and prompt sets are found: in this package, by the name of a public set, or as a file.

Law of this file: a name is looked up in that order and never guessed; what is not here and needs a download is
asked for with the command that brings it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from t2ialign.config import nearest
from t2ialign.data.prompts import SUFFIXES, Prompt, read_prompts
from t2ialign.errors import ConfigError, DataError
from t2ialign.eval.suites.public_prompts import PUBLIC, read_public
from t2ialign.eval.suites.suite import PromptSet, Suite, read_suite

CATALOGUE = Path(__file__).resolve().parents[1] / "catalogue"
"""The packaged copy of the repository's `eval/`."""


def suite_names() -> list[str]:
    """Return the names of the packaged suites."""
    return sorted(path.stem for path in (CATALOGUE / "suites").glob("*.yaml"))


def find_suite(name: str) -> Suite:
    """Read a suite by name, or from a YAML file.

    Raises:
        ConfigError: If there is no such suite, or it cannot be read.
    """
    packaged = CATALOGUE / "suites" / f"{name}.yaml"
    if packaged.is_file():
        return read_suite(packaged)
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml"):
        return read_suite(path)
    raise ConfigError(f"there is no suite {name!r}{nearest(name, suite_names())}; or name a YAML file")


def find_prompts(wanted: PromptSet, data: Path | None = None) -> list[Prompt]:
    """Read the prompts of a set, at most `limit` of them.

    Args:
        wanted: What the suite asks for.
        data: Folder in which public prompt files are looked for.

    Raises:
        ConfigError: If the name is no set's and no file's.
        DataError: If a public set is neither in `data` nor to be had from the hub.
    """
    name = wanted.source
    own = CATALOGUE / "prompts" / f"{name}.jsonl"
    if own.is_file():
        prompts = read_prompts(own)
    elif name in PUBLIC:
        prompts = read_public(name, data)
    elif Path(name).suffix.lower() in SUFFIXES:
        prompts = read_prompts(Path(name).expanduser())
    else:
        own_names = [path.stem for path in (CATALOGUE / "prompts").glob("*.jsonl")]
        raise ConfigError(f"there is no prompt set {name!r}{nearest(name, [*own_names, *PUBLIC])}; or name a file")
    if not prompts:
        raise DataError(f"the prompt set {name!r} is empty")
    return [_asked(prompt, wanted) for prompt in choose([_instance(prompt) for prompt in prompts], wanted.limit)]


def _instance(prompt: Prompt) -> Prompt:
    """Call a prompt by the name of its instance, where its line is one of factuality (`eval.factuality.Instance`)."""
    name = prompt.extra.get("name")
    is_instance = isinstance(name, str) and name.strip() and isinstance(prompt.extra.get("composition"), dict)
    return replace(prompt, prompt_id=str(name)) if is_instance else prompt


def _asked(prompt: Prompt, wanted: PromptSet) -> Prompt:
    """Put the set's words behind a prompt."""
    return replace(prompt, prompt=prompt.prompt + wanted.suffix) if wanted.suffix else prompt


def choose(prompts: Sequence[Prompt], limit: int | None) -> list[Prompt]:
    """Take at most `limit` prompts, those whose ids have the smallest digests, in the order of the file.

    A file is often sorted by category, so its beginning is no sample of it; a digest is as good as a draw, and a
    larger limit keeps what a smaller one took.
    """
    if limit is None or limit >= len(prompts):
        return list(prompts)
    ranked = sorted(prompts, key=lambda prompt: hashlib.sha256(prompt.prompt_id.encode()).digest())
    kept = {prompt.prompt_id for prompt in ranked[:limit]}
    return [prompt for prompt in prompts if prompt.prompt_id in kept]
