"""The section of the biggest wins and losses: where a model gains and loses most against the base.

Law of this file: prompts are ranked by the mean over their pictures of the difference in score, of one scorer;
both ends are shown, equally long, whatever they look like.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from t2ialign.config import nearest, option
from t2ialign.errors import ConfigError
from t2ialign.eval.pairs import common_pairs, paired_scores, shared_scorers
from t2ialign.eval.suites.findings import Findings, grid
from t2ialign.eval.suites.sections import SECTIONS
from t2ialign.eval.suites.sections.grids import line

if TYPE_CHECKING:
    from t2ialign.eval.suites.evidence import Evidence, Kind

NAME = "wins"
DEFINITION = (
    "Prompts are ranked by the mean difference in score between a model and the base over the pictures of the "
    "prompt; the best and the worst are shown, as many of each. These are extremes, no sample of what a model does."
)


@dataclass
class Options:
    """What is shown."""

    prompts: list[str] = option([], "Prompt sets; all where none is named.")
    lines: int = option(6, "Wins, and as many losses, of each model and scorer.")
    samples: int = option(1, "Pictures of each prompt and model that are shown.")
    scorers: list[str] = option([], "Scorers to rank by; the first of the suite where none is named.")


def measure(evidence: Evidence, options: Options) -> Findings:
    """Rank prompts and lay the ends out."""
    findings = Findings(NAME, SECTIONS[NAME], definition=DEFINITION)
    for prompts in evidence.sets(options.prompts):
        base = evidence.scored(prompts, evidence.base)
        kinds = shared_scorers(base, [evidence.scored(prompts, label) for label in evidence.others], None)
        for label in evidence.others:
            for kind in _wanted(kinds, options.scorers):
                _both_ends(findings, evidence, options, (prompts, label), kind)
    return findings


def _wanted(kinds: list[Kind], names: list[str]) -> list[Kind]:
    known = [name for name, _ in kinds]
    for name in names:
        if name not in known:
            raise ConfigError(f"wins are to be ranked by {name!r}, which did not score{nearest(name, known)}")
    return [kind for kind in kinds if kind[0] in names] if names else kinds[:1]


def _both_ends(findings: Findings, evidence: Evidence, options: Options, where: tuple[str, str], kind: Kind) -> None:
    prompts, label = where
    base, other = evidence.scored(prompts, evidence.base), evidence.scored(prompts, label)
    planned = evidence.records(prompts, label)
    shared = [key for key in common_pairs(base, other) if key in planned]
    first, second = paired_scores(base, other, kind, shared)
    gains: dict[str, list[float]] = {}
    for key, one, two in zip(shared, first, second, strict=True):
        gains.setdefault(key[0], []).append(two - one)
    means = {prompt_id: sum(each) / len(each) for prompt_id, each in gains.items()}
    ranked = sorted(means, key=lambda prompt_id: (-means[prompt_id], prompt_id))
    texts = evidence.prompts(prompts)
    count = min(options.samples, evidence.plan.suite.prompts[prompts].images_per_prompt)
    for name, ends in (("wins", ranked), ("losses", ranked[::-1])):
        kept = [p for p in ends[: options.lines] if (means[p] > 0 if name == "wins" else means[p] < 0)]
        lines = []
        for prompt_id in kept:
            row = findings.add(
                "gain" if name == "wins" else "loss",
                means[prompt_id],
                key=(prompts, kind[0], label, prompt_id),
                n=len(gains[prompt_id]),
                unit="picture",
                model=label,
                against=evidence.base,
                prompts=prompts,
                scorer=f"{kind[0]} ({kind[1]})",
                prompt_id=prompt_id,
                group=evidence.category(prompts, prompt_id),
                method="mean difference over the prompt's pictures",
            )
            made = line(findings, evidence, prompts, texts[prompt_id], range(count))
            lines.append(made | {"gain": {"text": f"{row.value:+.3g}", "row": row.id}})
        title = f"Biggest {name} of {label} by {kind[0]}, {prompts}"
        if lines:
            findings.blocks.append(grid(title, evidence.plan.labels, lines))
        else:
            findings.blocks.append({"kind": "note", "text": f"{title}: there is none."})
