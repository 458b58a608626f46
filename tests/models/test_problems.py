"""What the hub says, in one line with its mend."""

from __future__ import annotations

import re

import pytest

from t2ialign.models.problems import hub_problem, short


@pytest.mark.parametrize(
    ("kind", "mend"),
    [
        ("GatedRepoError", r"is gated: accept its terms.*hf auth login.*hf download o/m --revision r"),
        ("RevisionNotFoundError", r"no revision 'r'"),
        ("RepositoryNotFoundError", r"no model 'o/m' on the hub"),
        ("RemoteEntryNotFoundError", r"no diffusers pipeline.*model_index\.json"),
    ],
)
def test_what_the_hub_says_is_passed_on(kind: str, mend: str) -> None:
    """The errors of huggingface_hub, also as the cause of what diffusers raises."""
    from huggingface_hub import errors

    cause = getattr(errors, kind).__new__(getattr(errors, kind))
    error = OSError("cannot load model_index.json")
    error.__cause__ = cause
    assert re.search(mend, hub_problem("o/m", "r", error))


def test_short() -> None:
    assert short(OSError("\n  first line. \nsecond")) == "first line"
    assert short(KeyError()) == "KeyError"
