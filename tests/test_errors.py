"""Errors carry their exit code, and a missing package names the extra that brings it."""

from __future__ import annotations

import pytest

from t2ialign.errors import ConfigError, DataError, MissingDependencyError, ModelError, T2IAlignError


@pytest.mark.parametrize(("kind", "code"), [(ConfigError, 2), (DataError, 1), (ModelError, 1), (T2IAlignError, 1)])
def test_exit_codes(kind: type[T2IAlignError], code: int) -> None:
    error = kind("what, where, how to mend it")
    assert isinstance(error, T2IAlignError)
    assert error.exit_code == code
    assert str(error) == "what, where, how to mend it"


def test_a_missing_package_names_its_extra() -> None:
    assert str(MissingDependencyError("xformers")) == (
        "xformers is needed but not installed: pip install 't2ialign[xformers]'"
    )
    error = MissingDependencyError("wandb", "trackers", "tracker 'wandb'")
    assert (error.package, error.extra) == ("wandb", "trackers")
    assert "for tracker 'wandb'" in str(error)
    assert "pip install 't2ialign[trackers]'" in str(error)
