"""The sections of a report, one file each.

Law of this folder: a section adapts a measure of `t2ialign.eval` to the report. Its file has `Options`, a
dataclass, and `measure(evidence, options) -> Findings`; where it cannot apply it returns the reason, and it never
shows a figure that it did not measure. This file imports a section only when it is asked for.

Who judges may come after the pictures, and change: a section whose findings depend on a judge, or on a file that the
user brings, has `JUDGES`, the names of the options that say so, and `identity(options)`, which tells by content which
one it is. These options are no part of the plan; another judge makes the section be measured anew, and nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from t2ialign.eval.suites.evidence import Evidence
    from t2ialign.eval.suites.findings import Findings

SECTIONS: dict[str, str] = {
    "preference": "Preference and alignment",
    "grids": "Pictures side by side",
    "wins": "Biggest wins and losses",
    "composition": "Composition",
    "diversity": "Diversity",
    "attributes": "Defaults and attributes",
    "culture": "Cultural diversity",
    "awareness": "Cultural awareness",
    "bias": "Bias",
    "factuality": "Factuality under interventions",
    "fidelity": "Fidelity",
    "tradeoff": "Trade-offs",
    "overoptimization": "Over-optimisation",
    "certainty": "How far this can see",
}
"""Sections by name, which is the name of their file, and their headings."""


def options_class(name: str) -> type[Any]:
    """Return the options of a section."""
    found: type[Any] = _module(name).Options
    return found


def measure(name: str, evidence: Evidence, options: Any) -> Findings:
    """Have a section measure."""
    found: Findings = _module(name).measure(evidence, options)
    return found


def judges(name: str) -> tuple[str, ...]:
    """Return the options of a section that name judges, and are no part of the plan."""
    found: tuple[str, ...] = getattr(_module(name), "JUDGES", ())
    return found


def identity(name: str, options: Any) -> dict[str, Any]:
    """Say on which judges and files a section's findings depend, by their content; empty where on none.

    Raises:
        ConfigError: If one is named that is not there.
    """
    found: dict[str, Any] = _module(name).identity(options) if judges(name) else {}
    return found


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")
