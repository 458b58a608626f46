"""The errors that a user can mend.

Law of this file: every message names the offending value and the mend, in one or two lines. The
command line prints it as `error: <message>` and shows a traceback only with `--debug`. A programming
mistake is no `T2IAlignError`: pure functions raise `ValueError` for arguments out of their range.
"""

from __future__ import annotations


class T2IAlignError(Exception):
    """Something went wrong that the user can mend. The command line exits with `exit_code`."""

    exit_code = 1


class ConfigError(T2IAlignError):
    """An option is unknown, missing, of the wrong type or out of range: wrong usage, exit code 2."""

    exit_code = 2


class DataError(T2IAlignError):
    """A picture, a table, a prompt file or an image set cannot be read or does not fit."""


class ModelError(T2IAlignError):
    """A model, an adapter or a checkpoint cannot be found, loaded, or used as asked."""


class MissingDependencyError(T2IAlignError):
    """An optional package is needed and absent.

    Args:
        package: The package that could not be imported, for instance `"xformers"`.
        extra: The extra of t2ialign that brings it. Defaults to the package's own name.
        purpose: What it is needed for, for instance `"attention 'xformers'"`.
    """

    def __init__(self, package: str, extra: str | None = None, purpose: str | None = None) -> None:
        """Compose the message from the package, the extra and the purpose."""
        self.package = package
        self.extra = extra or package
        need = f" for {purpose}" if purpose else ""
        super().__init__(f"{package} is needed{need} but not installed: pip install 't2ialign[{self.extra}]'")


__all__ = ["ConfigError", "DataError", "MissingDependencyError", "ModelError", "T2IAlignError"]
