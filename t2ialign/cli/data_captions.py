"""`t2ialign data captions`: a caption for each side of every pair (dual captions, for DCPO)."""

from __future__ import annotations

from t2ialign.annotation.dual_options import DualCaptionOptions as Options
from t2ialign.cli.output import is_first_process, quiet_libraries, say

DESCRIPTION = """Write a set of pairs anew with chosen_prompt and rejected_prompt: captions of the pictures, the prompt
perturbed, or both (DCPO, arXiv 2502.06023). Everything else comes over as it is.

Answers of models are kept in OUTPUT_DIR/answers.jsonl as they come. Called again, it continues where it stopped."""

EXAMPLES = """examples:
  t2ialign data captions mini-pairs --strategy hybrid --output_dir dual_pairs
  t2ialign data captions my_pairs --strategy perturbation --perturber dipper --strength weak --output_dir dual_pairs
  t2ialign data captions my_pairs --strategy hybrid --captioner hf:llava-hf/llava-v1.6-34b-hf --output_dir dual_pairs
  t2ialign data captions my_pairs --strategy captioning --captioner openai:gpt-4o --limit 9 --output_dir dual_pairs
"""


def run(options: Options) -> int:
    """Have the captions written, in one process, and say what was counted."""
    from t2ialign.annotation.dual_captions import write_dual_captions

    quiet_libraries()
    if is_first_process():
        say(*write_dual_captions(options).lines())
    return 0
