"""The section that shows pictures side by side: prompts down, models across, the same seeds, scores below.

Law of this file: prompts are taken by a digest of their ids, a like number of each category, so that nobody chose
them; a picture that is missing is shown as missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from t2ialign.config import option
from t2ialign.eval.suites.findings import Findings, grid, number
from t2ialign.eval.suites.sections import SECTIONS

if TYPE_CHECKING:
    from t2ialign.data.prompts import Prompt
    from t2ialign.eval.pairs import PairKey
    from t2ialign.eval.suites.evidence import Evidence

NAME = "grids"
DEFINITION = (
    "Pictures in a line answer the same prompt; those with the same number start from the same noise. Prompts are "
    "taken by a digest of their ids, equally from every category, and not for how they look."
)


@dataclass
class Options:
    """What is shown."""

    prompts: list[str] = option([], "Prompt sets; all where none is named.")
    lines: int = option(12, "Prompts of each set that are shown.")
    samples: int = option(1, "Pictures of each prompt and model that are shown.")


def measure(evidence: Evidence, options: Options) -> Findings:
    """Choose prompts and lay their pictures out."""
    findings = Findings(NAME, SECTIONS[NAME], definition=DEFINITION)
    for prompts in evidence.sets(options.prompts):
        chosen = choose(evidence.plan.prompts[prompts], options.lines)
        count = min(options.samples, evidence.plan.suite.prompts[prompts].images_per_prompt)
        lines = [line(findings, evidence, prompts, prompt, range(count)) for prompt in chosen]
        shown = f"{len(chosen)} of {len(evidence.plan.prompts[prompts])} prompts"
        findings.blocks.append(grid(prompts, evidence.plan.labels, lines, shown))
    return findings


def choose(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """Take prompts in turn from every category, each category's in the order of their digests."""
    ranked = sorted(prompts, key=lambda prompt: hashlib.sha256(b"grid" + prompt.prompt_id.encode()).digest())
    turns: dict[str, int] = {}
    order = []
    for prompt in ranked:
        turn = turns[prompt.category or ""] = turns.get(prompt.category or "", -1) + 1
        order.append((turn, prompt))
    order.sort(key=lambda pair: pair[0])
    chosen = {prompt.prompt_id for _, prompt in order[:count]}
    return [prompt for prompt in prompts if prompt.prompt_id in chosen]


def line(
    findings: Findings, evidence: Evidence, prompts: str, prompt: Prompt, samples: Sequence[int] | range
) -> dict[str, Any]:
    """Lay out the pictures of one prompt, every model in its column, scores as rows of the findings."""
    cells = []
    for label in evidence.plan.labels:
        records = evidence.records(prompts, label)
        cell = []
        for sample in samples:
            record = records.get((prompt.prompt_id, sample))
            file = None if record is None else evidence.file(prompts, label, record)
            scores = (
                [] if record is None else _scores(findings, evidence, (prompts, label), (prompt.prompt_id, sample))
            )
            cell.append({"file": file, "sample": sample, "scores": scores})
        cells.append(cell)
    return {
        "prompt_id": prompt.prompt_id,
        "prompt": prompt.prompt,
        "category": prompt.category or "",
        "cells": cells,
    }


def _scores(findings: Findings, evidence: Evidence, where: tuple[str, str], key: PairKey) -> list[Mapping[str, Any]]:
    prompts, label = where
    scored = evidence.scored(prompts, label)
    record = evidence.records(prompts, label)[key]
    shown: list[Mapping[str, Any]] = []
    there = {row.id: row for row in findings.rows}
    for (name, version), values in scored.scores.items():
        if key not in values:
            continue
        words = (prompts, name, label, key[0], str(key[1]))
        known = there.get("/".join([findings.section, *words, "score"]))
        row = known or findings.add(
            "score",
            values[key],
            key=words,
            unit="picture",
            model=label,
            prompts=prompts,
            scorer=f"{name} ({version})",
            prompt_id=key[0],
            sample=key[1],
            file_name=evidence.file(prompts, label, record),
            method="as scored",
        )
        shown.append({"name": name, "text": number(row.value), "row": row.id})
    return shown
