"""What an annotator offers.

Law of this file: an annotator works through sheets and may be stopped at any moment; what it has come to say of a
sheet is asked for afterwards, and is a function of what it left on disk. What it can not say is null.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from t2ialign.annotation.sheets import Sheet

Status = Literal["done", "stopped", "budget", "incomplete", "failed"]
"""How work ended: all asked; a signal came; the budget is spent; some questions could not be put; an error."""


@dataclass(frozen=True)
class Marks:
    """What an annotator says of a sheet.

    Attributes:
        ratings: For each aspect it rates [k] numbers from 1 to 5 or null, in the set's order.
        rationales: For each aspect [k] texts.
        problem: Why a rating is missing; empty where none is.
        raw: Answers as they came.
        params: What else is worth keeping of this sheet.
        usage: As `Annotation.usage`.
        annotator: Who it was, if not the annotator itself.
        permutation: The order in which the pictures were shown, if not the sheet's.
    """

    ratings: dict[str, list[float | None]]
    rationales: dict[str, list[str]] = field(default_factory=dict)
    problem: str = ""
    raw: list[str] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, float] = field(default_factory=dict)
    annotator: str = ""
    permutation: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Desk:
    """Where and how an annotator works.

    Attributes:
        folder: The folder of the annotations; what an annotator keeps for itself goes there.
        stop: Whether a stop was asked for.
        progress: Whether to show bars on a terminal.
        allow_gaps: Whether pictures that can not be read are passed over and counted.
    """

    folder: Path
    stop: Callable[[], bool] = lambda: False
    progress: bool = True
    allow_gaps: bool = False


@dataclass(frozen=True)
class Outcome:
    """How work ended.

    Attributes:
        status: See `Status`.
        problem: What happened, where it is not `done`.
    """

    status: Status = "done"
    problem: str = ""


class Annotator(Protocol):
    """Rates pictures.

    Attributes:
        name: What it is called in files: `oracle`, `openai:MODEL`, ...; no path of this machine, no secret.
        aspects: What it rates.
        sees_order: Whether what it says may depend on the order of the pictures; others get no second pass.
        shares: Whether `work` is shared by all processes of a launch; else the first one does it alone.
        resumes: Whether its work looks at `Desk.stop`, and what it came to can be told where an error broke it off.
    """

    name: str
    aspects: tuple[str, ...]
    sees_order: bool
    resumes: bool
    shares: bool

    def work(self, sheets: Sequence[Sheet], desk: Desk) -> Outcome:
        """Do what is left to do for these sheets.

        Raises:
            DataError: If a picture or a prompt does not fit.
            ModelError: If a model can not be asked. What was done is kept.
        """
        ...

    def marks(self, sheet: Sheet) -> Marks | None:
        """Say what came out for a sheet; `None` where the work did not get so far. After `work` alone."""
        ...

    def halt(self) -> None:
        """End pauses; called from a signal's handler when a stop is asked for."""
        ...

    def close(self) -> None:
        """Give files and memory back."""
        ...

    def identity(self) -> dict[str, Any]:
        """Say what marks depend on, as JSON values: equal identities mean that marks may be mixed."""
        ...

    def info(self) -> dict[str, Any]:
        """Say what is recorded, as JSON values."""
        ...

    def counts(self) -> Mapping[str, Any]:
        """Count what concerns this kind of annotator alone, for the report."""
        ...


class QuietAnnotator:
    """What annotators share that ask nobody and see each picture by itself."""

    name: str
    sees_order = False
    resumes = False
    shares = False

    def halt(self) -> None:
        """See `Annotator`."""

    def close(self) -> None:
        """See `Annotator`."""

    def info(self) -> dict[str, Any]:
        """See `Annotator`."""
        return self.identity()

    def identity(self) -> dict[str, Any]:
        """See `Annotator`."""
        return {"annotator": self.name}

    def counts(self) -> Mapping[str, Any]:
        """See `Annotator`."""
        return {}
