"""Bringing the sections together: `report.json`, `rows.parquet` and `report.html`.

Law of this file: it adds no figure. A row's number in the report is its place in `rows.parquet`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from t2ialign.data.files import write_json, written_aside
from t2ialign.errors import DataError
from t2ialign.eval.suites.findings import Findings, Row
from t2ialign.eval.suites.plan import FORMAT, Plan

FILES = ("report.json", "rows.parquet", "report.html")


def finish(plan: Plan, state: str, *, stale: bool) -> None:
    """Write the report's three files, unless they are there and of this state."""
    from t2ialign.eval.reporting.page import write_page
    from t2ialign.eval.suites.run import read_section

    if not stale and is_reported(plan, state):
        return
    found = [read_section(plan, name, state) for name in plan.suite.sections]
    sections = [each for each in found if each is not None]
    rows = [row for each in sections for row in each.rows]
    check(sections)
    write_rows(plan.folder / "rows.parquet", rows)
    report = compose(plan, sections, state)
    write_page(plan.folder / "report.html", report, plan.folder)
    write_json(plan.folder / "report.json", report)


def is_reported(plan: Plan, state: str) -> bool:
    """Tell whether the report's files are there and of this state of the folder."""
    if not all((plan.folder / name).is_file() for name in FILES):
        return False
    try:
        there = json.loads((plan.folder / "report.json").read_text(encoding="utf-8"))["state"]
        return bool(there == plan.report_state(state))
    except (ValueError, KeyError):
        return False


def compose(plan: Plan, sections: Sequence[Findings], state: str) -> dict[str, Any]:
    """Return the content of `report.json`; its keys are documented in `docs/eval.md`."""
    from t2ialign.models.record import package_versions

    places = {row.id: place for place, row in enumerate(row for each in sections for row in each.rows)}
    return {
        "format": FORMAT,
        "state": plan.report_state(state),
        "suite": plan.suite.to_dict(),
        "base": plan.base,
        "models": [_model(plan, place) for place in range(len(plan.models))],
        "prompts": {name: _prompt_set(plan, name) for name in plan.prompts},
        "pictures_per_model": plan.pictures_per_model,
        "seed": plan.seed,
        "resamples": plan.resamples,
        "unit": "prompt",
        "summary": [
            asdict(sentence) | {"section": each.section}
            for each in sections
            for sentence in each.sentences
            if sentence.headline
        ],
        "warnings": [
            {"section": each.section, "text": block["text"]}
            for each in sections
            for block in each.blocks
            if block["kind"] == "warning"
        ],
        "sections": [_section(each) for each in sections],
        "rows": {row_id: place for row_id, place in places.items()},
        "figures": {row.id: _figure(row) for each in sections for row in each.rows},
        "versions": package_versions(),
    }


def _section(findings: Findings) -> dict[str, Any]:
    content = findings.to_dict()
    content["rows"] = [row.id for row in findings.rows]
    return content


def _figure(row: Row) -> dict[str, Any]:
    return {name: value for name, value in asdict(row).items() if value not in (None, "")}


def _model(plan: Plan, place: int) -> dict[str, Any]:
    model = plan.models[place]
    made = {}
    for name in plan.prompts:
        file = plan.set_folder(name, model.label) / "config.json"
        made[name] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return model.identity() | {"trained_on": model.trained_on(), "generation": made}


def _prompt_set(plan: Plan, name: str) -> dict[str, Any]:
    prompts = plan.prompts[name]
    return {
        "source": plan.suite.prompts[name].name,
        "count": len(prompts),
        "images_per_prompt": plan.suite.prompts[name].images_per_prompt,
        "categories": dict(Counter(prompt.category or "" for prompt in prompts)),
    }


def check(sections: Sequence[Findings]) -> None:
    """Hold that ids differ, and that what is shown has a row.

    Raises:
        ValueError: If not; it is a mistake in a section.
    """
    ids = [row.id for each in sections for row in each.rows]
    twice = [row_id for row_id, count in Counter(ids).items() if count > 1]
    if twice:
        raise ValueError(f"two figures are called {twice[0]!r}")
    known = set(ids)
    for each in sections:
        for row_id in shown_rows(each.to_dict()):
            if row_id not in known:
                raise ValueError(f"the section {each.section} shows the figure {row_id!r}, which has no row")


def shown_rows(content: Any) -> list[str]:
    """Return the ids of all figures that blocks and sentences show."""
    found: list[str] = []
    if isinstance(content, Mapping):
        for key, value in content.items():
            if key == "row" and isinstance(value, str):
                found.append(value)
            elif key == "rows" and isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
                found += value
            else:
                found += shown_rows(value)
    elif isinstance(content, list | tuple):
        for each in content:
            found += shown_rows(each)
    return found


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write the figures, one a row, in the order of the report."""
    import pyarrow
    from pyarrow import parquet

    kinds = {
        "float": pyarrow.float64(),
        "float | None": pyarrow.float64(),
        "int": pyarrow.int64(),
        "int | None": pyarrow.int64(),
        "str": pyarrow.string(),
    }
    named = {
        each.name: pyarrow.array([getattr(row, each.name) for row in rows], kinds[str(each.type)])
        for each in fields(Row)
    }
    with written_aside(path) as aside:
        parquet.write_table(pyarrow.table(named), aside)


def headlines(plan: Plan) -> list[str]:
    """Return the summary's sentences from `report.json`.

    Raises:
        DataError: If it is damaged.
    """
    file = plan.folder / "report.json"
    try:
        return [each["text"] for each in json.loads(file.read_text(encoding="utf-8"))["summary"]]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{file} is damaged ({error}); delete it and run again") from error
