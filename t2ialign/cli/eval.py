"""`t2ialign eval`: a suite with several models, from pictures to the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from t2ialign.cli.output import quiet_libraries, say
from t2ialign.eval.suites.options import EvalOptions as Options

if TYPE_CHECKING:
    from t2ialign.eval.suites.run import EvalSummary

DESCRIPTION = """Make the pictures that are missing, score them, compare every model with the first one, and report.

Suites: mini (mini-SD, off line, minutes), quick, preference, diversity, culture, composition, full, or a YAML file of
your own. Writes report.html, one file that needs no network, report.json, and rows.parquet with every figure. Called
again, it continues where it stopped; when all is there it does nothing."""

EXAMPLES = """examples:
  t2ialign eval mini --model mini-sd --model runs/first/final --output_dir reports/first
  t2ialign eval quick --model base=stabilityai/stable-diffusion-xl-base-1.0 \\
      --model tuned=stabilityai/stable-diffusion-xl-base-1.0+runs/dpo/final --output_dir reports/dpo
  t2ialign eval preference --model base=sd15 --model tuned=sd15+runs/dpo/final --data prompt_files --output_dir report
"""

__all__ = ["DESCRIPTION", "EXAMPLES", "Options", "run"]


def run(options: Options) -> int:
    """Run the suite and show the summary."""
    from t2ialign.eval.suites.run import run_suite

    summary = run_suite(options, before_loading=quiet_libraries)
    say(*lines(summary))
    return 0


def lines(summary: EvalSummary) -> list[str]:
    """Show the conclusions, what was done for them, and where the report is."""
    done = []
    if summary.made:
        done.append(f"{summary.made} pictures made")
    if summary.scored:
        done.append(f"{summary.scored} image sets scored")
    if summary.measured:
        done.append(f"sections measured: {', '.join(summary.measured)}")
    what = "; ".join(done) or "everything was there already"
    return [*summary.headlines, f"{what} ({summary.seconds:.0f} s)", f"report: {summary.page}"]
