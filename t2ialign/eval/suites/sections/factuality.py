"""The section on factuality: what a diversity intervention costs in facts.

Law of this file: it takes events and who took part in them, and pictures with and without an intervention; no suite
has them, so this section says so, and `t2ialign.eval.factuality` measures where they are given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from t2ialign.eval.suites.findings import Findings
from t2ialign.eval.suites.sections import SECTIONS

if TYPE_CHECKING:
    from t2ialign.eval.suites.evidence import Evidence

NAME = "factuality"
DEFINITION = (
    "After DoFaiR (arXiv 2407.00377): pictures of events whose participants are known, made without and with a "
    "diversity intervention in the prompt, and how much more often those with it show the wrong groups."
)
REASON = (
    "it takes instances (events and the groups that took part) and pictures made with and without an intervention; "
    "a suite makes neither. With them, t2ialign.eval.factuality.measure_factuality measures it (docs/factuality.md)"
)
MINI = "in the mini-world there are neither people nor events, and "


@dataclass
class Options:
    """There is nothing to choose."""


def measure(evidence: Evidence, options: Options) -> Findings:
    """Say why it does not apply."""
    mini = not any(evidence.oracle_world(name) for name in evidence.plan.prompts)
    return Findings.absent(NAME, SECTIONS[NAME], (MINI if mini else "") + REASON, DEFINITION)
