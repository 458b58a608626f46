"""What a section finds: figures, each a row with an id, and blocks that show them.

Law of this file: plain values only, so that findings go to JSON and come back the same; a figure is shown by
the id of its row, never by a number of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

Block = dict[str, Any]
"""Something to be shown: `kind` is table, plot, grid, note or warning; see the makers below."""


@dataclass(frozen=True)
class Row:
    """One figure, a row of `rows.parquet`.

    Attributes:
        id: Unique in the report, for instance `preference/scenes/oracle/tuned/win_rate`.
        section: The section that measured it.
        metric: What was measured.
        value: The figure.
        low: Lower end of the 95 % interval; `None` where the figure is no estimate.
        high: Upper end.
        n: Number of units behind it.
        unit: What `n` counts: prompt, picture or pair.
        model: Label of the model.
        against: Label of the model that it is compared with; empty where it is not.
        prompts: Name of the prompt set.
        scorer: Name of the scorer, the embedder or the judge; empty where there is none.
        group: Category, country or other part of the prompts; empty for all.
        prompt_id: Prompt, for figures of one prompt or picture.
        sample: Number of the picture among those of its prompt, for figures of one picture.
        file_name: The picture, relative to the output folder.
        p: Two-sided p value.
        p_holm: The same, adjusted by Holm's method over its family.
        method: How value and interval were got.
    """

    id: str
    section: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int = 1
    unit: str = "prompt"
    model: str = ""
    against: str = ""
    prompts: str = ""
    scorer: str = ""
    group: str = ""
    prompt_id: str = ""
    sample: int | None = None
    file_name: str = ""
    p: float | None = None
    p_holm: float | None = None
    method: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no number."""
        for name in ("value", "low", "high", "p", "p_holm"):
            given = getattr(self, name)
            if given is not None and not math.isfinite(given):
                raise ValueError(f"{name} of the row {self.id!r} is {given}; a report holds finite numbers")


@dataclass(frozen=True)
class Sentence:
    """A conclusion in words.

    Attributes:
        text: What the figures allow to say.
        rows: Ids of the figures that it speaks of.
        tone: `better`, `worse`, `open` (nothing shown) or `plain`.
        headline: Whether it stands in the summary at the top too.
    """

    text: str
    rows: tuple[str, ...] = ()
    tone: str = "plain"
    headline: bool = False


@dataclass
class Findings:
    """What one section has to say.

    Attributes:
        section: Its name.
        title: Its heading.
        status: `measured`; `not_applicable`, in this world; or `not_measured`, for something is lacking.
        reason: Why, and for what is lacking the mend; empty where it was measured.
        definition: What is measured and how, in a few sentences.
        sentences: Conclusions.
        rows: Figures.
        blocks: What is shown, in order.
        info: Versions and definitions of what was used, by name.
    """

    section: str
    title: str
    status: str = "measured"
    reason: str = ""
    definition: str = ""
    sentences: list[Sentence] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def absent(cls, section: str, title: str, reason: str, definition: str = "") -> Findings:
        """Say that a section does not apply, and why."""
        return cls(section, title, status="not_applicable", reason=reason, definition=definition)

    @classmethod
    def lacking(cls, section: str, title: str, reason: str, definition: str = "") -> Findings:
        """Say that a section was not measured for something that is lacking, and how to mend it."""
        return cls(section, title, status="not_measured", reason=reason, definition=definition)

    def add(self, metric: str, value: float, *, key: Sequence[str] = (), **more: Any) -> Row:
        """Add a figure; its id is the section, what tells it apart, and the metric.

        Args:
            metric: See `Row`.
            value: See `Row`.
            key: What tells it apart from others of the same metric.
            more: Further fields of `Row`.

        Returns:
            The row.
        """
        row = Row("/".join([self.section, *key, metric]), self.section, metric, float(value), **more)
        self.rows.append(row)
        return row

    def say(self, text: str, rows: Iterable[Row] = (), tone: str = "plain", *, headline: bool = False) -> None:
        """Add a conclusion."""
        self.sentences.append(Sentence(text, tuple(row.id for row in rows), tone, headline))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Findings:
        """Read back what `to_dict` gave."""
        known = {each.name: content[each.name] for each in fields(cls)}
        known["rows"] = [Row(**row) for row in content["rows"]]
        known["sentences"] = [Sentence(**each | {"rows": tuple(each["rows"])}) for each in content["sentences"]]
        return cls(**known)


def cell(text: str, row: Row | None = None) -> Block:
    """Make a cell of a table: a text, and the figure it shows."""
    return {"text": text, "row": None if row is None else row.id}


def table(
    title: str, columns: Sequence[str], lines: Sequence[Sequence[Block | str]], groups: Sequence[str] | None = None
) -> Block:
    """Make a table.

    Args:
        title: Its caption.
        columns: Headings.
        lines: Cells by line; a bare text is a cell without a figure.
        groups: Category of each line, for the filter; `None` where lines are of all categories.
    """
    cells = [[each if isinstance(each, dict) else cell(each) for each in line] for line in lines]
    return {"kind": "table", "title": title, "columns": list(columns), "lines": cells, "groups": list(groups or [])}


def plot(shape: str, title: str, **data: Any) -> Block:
    """Make a plot; `shape` is one of `reporting.plots.SHAPES`, `data` what that shape takes."""
    return {"kind": "plot", "shape": shape, "title": title, "data": data}


def grid(title: str, columns: Sequence[str], lines: Sequence[Mapping[str, Any]], note: str = "") -> Block:
    """Make a grid of pictures, a prompt a line and a model a column.

    Args:
        title: Its caption.
        columns: Labels of the models.
        lines: `prompt_id`, `prompt`, `category`, and `cells`: for each model a list of pictures, each with `file`
            (relative to the output folder, or `None` where it is missing), `sample` and `scores`, a list of `name`,
            `text` and `row`.
        note: How the prompts were chosen.
    """
    return {"kind": "grid", "title": title, "columns": list(columns), "lines": list(lines), "note": note}


def note(text: str) -> Block:
    """Make a paragraph."""
    return {"kind": "note", "text": text}


def warning(text: str) -> Block:
    """Make a paragraph that must not be missed."""
    return {"kind": "warning", "text": text}


def percent(value: float) -> str:
    """Write a share without needless digits: `63 %`, `0.4 %`, `99.6 %`."""
    shown = 100 * value
    digits = 0 if 1 <= shown <= 99 or shown in (0, 100) else 1
    return f"{shown:.{digits}f} %".replace("100.0 %", "100 %")


def span_percent(low: float, high: float) -> str:
    """Write an interval of shares: `58 to 68`."""
    return f"{percent(low).removesuffix(' %')} to {percent(high).removesuffix(' %')}"


def number(value: float) -> str:
    """Write a figure with three significant digits, without an exponent where it can be helped."""
    return f"{value:.3g}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.2e}"


def span(low: float | None, high: float | None) -> str:
    """Write an interval: `0.41 to 0.52`; a dash where there is none."""
    return "–" if low is None or high is None else f"{number(low)} to {number(high)}"
