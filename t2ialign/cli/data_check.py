"""`t2ialign data check`: whether a set of pairs or labelled pictures is fit to train on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from t2ialign.cli.output import is_first_process, say
from t2ialign.config import REQUIRED, option
from t2ialign.engine.signals import StopSignal
from t2ialign.errors import ConfigError, Stopped

DESCRIPTION = """Decode every picture of a set of pairs, or of labelled pictures, and look for what spoils training:
broken files, ties, duplicates, leaks between splits, sizes, captions that are cut. Exit code 1 if the set is unfit."""

EXAMPLES = """examples:
  t2ialign data check my_pairs
  t2ialign data check mini-pairs --output check.json
"""


@dataclass
class Options:
    """What to check."""

    pairs: str = option(
        REQUIRED, "mini-pairs, a folder of pairs or labelled pictures, or a hub dataset id.", positional=True
    )
    split: str | None = option(None, "One split. Default: all of them.")
    revision: str | None = option(None, "Branch, tag or commit of a hub dataset.")
    workers: int = option(0, "Processes that decode pictures; 0 decodes in this one.")
    tokenizer: str | None = option(
        None, "Tokenizer that says which captions are cut: a folder or a hub id. Default: estimate without one."
    )
    output: Path | None = option(None, "Also write the findings to this JSON file.")

    def __post_init__(self) -> None:
        """Refuse a negative number of processes."""
        if self.workers < 0:
            raise ConfigError(f"workers is {self.workers}; it must be 0 or more")


def run(options: Options) -> int:
    """Check, in one process and its workers, and show the findings."""
    from t2ialign.data.check import check_set

    if not is_first_process():
        return 0
    try:
        with StopSignal() as stop:
            report = check_set(
                options.pairs,
                split=options.split,
                revision=options.revision,
                workers=options.workers,
                tokenizer=options.tokenizer,
                progress=True,
                between=stop.check,
            )
    except Stopped as stopped:
        raise Stopped(stopped.number, "a check keeps nothing and begins anew") from None
    say(*report.lines())
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
    return 0 if report.fit else 1
