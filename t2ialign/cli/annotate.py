"""`t2ialign annotate`: ratings of pictures on four aspects, with rationales."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

from t2ialign.annotation.annotate_options import AnnotateOptions as Options
from t2ialign.cli.output import is_first_process, quiet_libraries, say

DESCRIPTION = """Have the pictures of each prompt rated from 1 to 5 on prompt_following, aesthetic, fidelity and
harmlessness, with a rationale each (VisionPrefer, arXiv 2404.15100). Writes annotations.jsonl and report.json.

Answers are kept in OUTPUT_DIR/answers.jsonl as they come; called again, it continues and pays for nothing twice.
Exit codes: 0 done; 1 failed, the budget is spent, questions were left, or nothing was rated (report.json says which);
130, 143 and 138 stopped by SIGINT, SIGTERM and SIGUSR1."""

EXAMPLES = """examples:
  t2ialign annotate sets/base --annotator oracle --output_dir ratings/oracle
  t2ialign annotate sets/base --annotator openai:gpt-4o --second_pass --scale words --output_dir ratings/gpt-4o
  t2ialign annotate sets/base --annotator openai:gpt-4o --price_prompt 2.5 --price_completion 10 --budget 20 \\
      --output_dir ratings/gpt-4o
  t2ialign annotate sets/base --annotator "openai:qwen2-vl?base_url=http://localhost:8000/v1&parallel=16" \\
      --output_dir ratings/qwen
  t2ialign annotate sets/base --annotator hf:Qwen/Qwen2.5-VL-7B-Instruct --calls per_aspect --output_dir ratings/qwen
  t2ialign annotate sets/base --annotator scorers:clipscore@mini-clip,fidelity=oracle --output_dir ratings/scorers
"""


def run(options: Options) -> int:
    """Have the pictures rated, in one process unless scorers do it, and say what came of it."""
    from t2ialign.annotation.annotate import annotate

    kind = options.annotator.partition(":")[0]
    if kind in ("hf", "scorers"):
        quiet_libraries()
    if not is_first_process() and kind != "scorers":
        return 0
    summary = annotate(options)
    say(*lines(summary.report), f"annotations: {summary.output_dir}")
    return exit_code(summary.report)


def exit_code(report: Mapping[str, Any]) -> int:
    """Return 0 when all is done and something was rated, 128 and the signal's number for a stop, else 1."""
    if report["status"] == "stopped" and report["signal"]:
        return 128 + signal.Signals[report["signal"]].value
    return 0 if report["status"] == "done" and _rated(report) else 1


def _rated(report: Mapping[str, Any]) -> int:
    return sum(counts["rated"] for counts in report["aspects"].values())


def lines(report: Mapping[str, Any]) -> list[str]:
    """Show a report: how it ended, what there is, what is missing, and what it cost."""
    made, wanted = report["annotations"], report["sheets"]
    shown = [
        f"{made['written']:,} of {wanted:,} annotations of {report['prompts']:,} prompts, {made['ok']:,} complete"
    ]
    shown += [f"  {what}: {count:,}" for what, count in made["not_ok"].items()]
    shown += [f"  left out, {what}: {count:,}" for what, count in report["left_out"].items()]
    for aspect, counts in report["aspects"].items():
        spread = " ".join(f"{mark}:{count:,}" for mark, count in counts["ratings"].items())
        missing = f", {counts['missing']:,} missing" if counts["missing"] else ""
        shown.append(f"  {aspect}: {counts['rated']:,} rated ({spread}){missing}")
    for aspect, swap in report.get("swap", {}).items():
        if swap["interval"] is not None:
            low, high = swap["interval"]
            over = f"{swap['pairs']:,} pairs of {swap['prompts']:,} prompts"
            shown.append(f"  {aspect}, same in both orders: {swap['consistency']:.3f} [{low:.3f}, {high:.3f}], {over}")
    shown += _asked(report)
    if report["status"] == "done" and not _rated(report):
        shown.append("no picture has a rating: look into annotations.jsonl for what was said")
    if report["status"] != "done":
        shown.append(f"{report['status']}: {report['problem']}; the same command continues")
    return shown


def _asked(report: Mapping[str, Any]) -> list[str]:
    if "usage" not in report:
        return []
    questions, usage, this = report["questions"], report["usage"], report["this_run"]
    cost = "" if usage["cost"] is None else f", cost {usage['cost']:.4f}"
    cut = report["who"]["model"].get("stopped_at_max_new_tokens", 0)
    hint = [f"  {cut:,} answers of this run were cut at max_new_tokens; raise --chat.max_new_tokens"] if cut else []
    return [
        f"  questions: {questions['answered']:,} answered, {questions['refused']:,} refused, "
        f"{questions['unreadable'] + questions['no_answer']:,} without a readable answer, {questions['open']:,} open; "
        f"{questions['asked_again']:,} repeated",
        f"  tokens: {usage['prompt_tokens']:,} read, {usage['completion_tokens']:,} written{cost}",
        f"  this run: {this['answers']:,} answers in {this['seconds']:.1f} s, {this['sent_again']:,} sent again",
        *hint,
    ]
