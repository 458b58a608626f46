"""The errors that a user can mend.

Law of this file: every message names the offending value and the mend, in one or two lines. The
command line prints it as `error: <message>` and shows a traceback only with `--debug`. A programming
mistake is no `T2IAlignError`: pure functions raise `ValueError` for arguments out of their range.
"""

from __future__ import annotations

import signal


class T2IAlignError(Exception):
    """Something went wrong that the user can mend. The command line exits with `exit_code`."""

    exit_code = 1


class ConfigError(T2IAlignError):
    """An option is unknown, missing, of the wrong type or out of range: wrong usage, exit code 2."""

    exit_code = 2


class DataError(T2IAlignError):
    """A picture, a table, a prompt file or an image set cannot be read or does not fit."""


class SourceError(T2IAlignError):
    """What is read while it is needed can not be had any more: it vanished, it changed, or the network fails.

    It is no `DataError`, for no picture or row is at fault: nothing may be left out and gone on without.
    """

    def __str__(self) -> str:
        """Return the message alone; torch's data loader puts a worker's traceback before it."""
        return super().__str__().rsplit(f"{type(self).__name__}: ", 1)[-1].strip()


class ModelError(T2IAlignError):
    """A model, an adapter or a checkpoint cannot be found, loaded, or used as asked."""


class OtherProcessError(T2IAlignError):
    """Another process of the launch failed, and this one ends with it.

    Args:
        message: What happened.
        told: Whether the other process has told why, so that there is nothing to add.
    """

    def __init__(self, message: str, told: bool = True) -> None:
        """Keep whether there is something to tell."""
        self.told = told
        super().__init__(message)


class Stopped(KeyboardInterrupt):
    """A signal asked for a stop, and work was left where it can be gone on with. It is no error.

    As a `KeyboardInterrupt` it passes through what catches errors, and ends a script as Ctrl-C does.

    Args:
        number: The signal.
        told: What is saved, and how to go on.
    """

    def __init__(self, number: signal.Signals, told: str = "the same command goes on") -> None:
        """Compose the message."""
        self.number = number
        self.told = told
        super().__init__(f"stopped by {number.name}: {told}")

    @property
    def exit_code(self) -> int:
        """128 and the number of the signal, as shells and schedulers have it."""
        return 128 + self.number.value


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


__all__ = [
    "ConfigError",
    "DataError",
    "MissingDependencyError",
    "ModelError",
    "OtherProcessError",
    "SourceError",
    "Stopped",
    "T2IAlignError",
]
