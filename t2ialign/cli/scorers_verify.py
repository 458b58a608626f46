"""`t2ialign scorers verify`: real weights against published values."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.cli.output import quiet_libraries, say
from t2ialign.config import option

if TYPE_CHECKING:
    from t2ialign.reward_models.published import Verification

DESCRIPTION = (
    "Score the pictures that a scorer's authors published values for, with the real weights, and compare. What has no "
    "weights or no pictures here is unchecked. Exit code 0 only if something was checked and nothing differs."
)
EXAMPLES = """examples:
  t2ialign scorers verify --data DIR
  t2ialign scorers verify --with imagereward@ImageReward.pt --data DIR --output verified.json
"""


@dataclass
class Options:
    """What to verify."""

    scorers: list[str] = option(
        [],
        "Scorers, several with commas, with a checkpoint of one's own where wanted: NAME, NAME@PATH_OR_ID. None "
        "of them may then stay unchecked. Default: all that values were published of.",
        flag="with",
    )
    data: Path | None = option(
        None, "Folder of the published pictures. Default: what the environment variable T2IALIGN_REAL_DATA names."
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps; auto is a CUDA GPU where there is one.")
    output: Path | None = option(None, "Also write what was found to this JSON file.")


def run(options: Options) -> int:
    """Verify and show."""
    from t2ialign.data.files import write_json
    from t2ialign.reward_models.published import verify

    quiet_libraries()
    found = verify(options.scorers, folder=options.data, device=options.device)
    ok = is_verified(found, everything=bool(options.scorers))
    say(*lines(found), "verified" if ok else "not verified")
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.output, {"verified": ok, "examples": [_plain(each) for each in found]})
    return 0 if ok else 1


def is_verified(found: list[Verification], *, everything: bool) -> bool:
    """Whether something was checked, all that was checked agrees, and, where asked for, everything was checked."""
    states = [each.status for each in found]
    return "agrees" in states and "differs" not in states and not (everything and "unchecked" in states)


def lines(found: list[Verification]) -> list[str]:
    """Show each example: how far off, or why it is unchecked, and both rows of values."""
    shown = []
    for each in found:
        if each.difference is None:
            shown.append(f"{each.scorer}: unchecked, {each.reason}")
            continue
        shown.append(
            f"{each.scorer} ({each.version}): {each.status}, off by at most {each.difference:.2g} "
            f"(tolerance {each.tolerance:g})"
        )
        shown.append(f"  published  {_row(each.published)}  ({each.source})")
        shown.append(f"  computed   {_row(each.computed)}")
    return shown


def _plain(found: Verification) -> dict[str, Any]:
    """Turn an entry into values for JSON, which has no word for a number that is none."""
    numbers = [value if math.isfinite(value) else None for value in found.computed]
    difference = found.difference if found.difference is not None and math.isfinite(found.difference) else None
    return asdict(found) | {"computed": numbers, "difference": difference}


def _row(values: tuple[float, ...]) -> str:
    return "  ".join(f"{value:9.4f}" for value in values)
