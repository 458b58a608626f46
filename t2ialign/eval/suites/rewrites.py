"""Prompts that a language model rewrites by their facts before anything is drawn, each of them once.

Law of this file: what was rewritten is read from its file ever after, so that a prompt is drawn and judged as it was
rewritten then; prompts whose rewrite failed stay as they were and are counted in the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from t2ialign.data.files import write_json
from t2ialign.data.prompts import Prompt
from t2ialign.errors import DataError
from t2ialign.eval.suites.plan import Plan, write_prompts


def rewrite_file(plan: Plan, name: str) -> Path:
    """Return where the rewrites of a prompt set are kept."""
    return plan.folder / "rewrites" / f"{name}.json"


def is_rewritten(plan: Plan) -> bool:
    """Tell from the files alone whether every prompt that is to be rewritten has been."""
    return all(_read(plan, name) is not None for name in _wanted(plan))


def write_rewrites(plan: Plan, device: str = "auto") -> None:
    """Have prompts rewritten that have not been.

    Raises:
        DataError: If a prompt's line is no instance (name, composition, facts).
        ModelError: If the model cannot be loaded or asked.
    """
    from t2ialign.chat.options import ChatOptions, load_chat
    from t2ialign.eval.factuality import Instance, rewrite_by_facts

    for name in _wanted(plan):
        spec = plan.suite.prompts[name].rewrite
        if spec is None or _read(plan, name) is not None:
            continue
        lines = [{**prompt.extra, "prompt": prompt.prompt} for prompt in plan.prompts[name]]
        instances = [Instance.from_dict(line, f"{name}, prompt {number}") for number, line in enumerate(lines, 1)]
        found = rewrite_by_facts(load_chat(spec, ChatOptions(device=device)), instances, seed=plan.seed)
        write_json(rewrite_file(plan, name), {"of": _digest(plan.prompts[name]), **found.to_dict()})


def read_rewrites(plan: Plan) -> Plan:
    """Return the plan with prompts as they were rewritten, and their prompt files written; others are left."""
    prompts = dict(plan.prompts)
    for name in _wanted(plan):
        if (words := _read(plan, name)) is not None:
            prompts[name] = [replace(prompt, prompt=words[prompt.prompt_id]) for prompt in prompts[name]]
            write_prompts(plan.prompt_file(name), prompts[name])
    return replace(plan, prompts=prompts)


def _wanted(plan: Plan) -> list[str]:
    return [name for name, each in plan.suite.prompts.items() if each.rewrite is not None]


def _read(plan: Plan, name: str) -> dict[str, str] | None:
    file = rewrite_file(plan, name)
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        words = {str(each["name"]): str(each["prompt"]) for each in content["rewrites"]}
        return words if content["of"] == _digest(plan.prompts[name]) else None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} is damaged ({error}); delete it, and the prompts are rewritten again") from error


def _digest(prompts: Sequence[Prompt]) -> str:
    listed = [[prompt.prompt_id, prompt.prompt, prompt.extra.get("facts")] for prompt in prompts]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()
