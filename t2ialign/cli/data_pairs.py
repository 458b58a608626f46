"""`t2ialign data pairs`: preference pairs from annotations, scores or ratings."""

from __future__ import annotations

from t2ialign.annotation.pair_options import PairOptions as Options
from t2ialign.cli.output import is_first_process, quiet_libraries, say

DESCRIPTION = """Make preference pairs of pictures that were judged: folders of annotations (`t2ialign annotate`), or
image sets with scores (`t2ialign score`). Every two pictures of a prompt that were judged together are a candidate;
each becomes a pair or is counted with the reason why not. Prompts are split so that neither a prompt nor a
near-duplicate of it is in two splits."""

EXAMPLES = """examples:
  t2ialign data pairs annotated --output_dir my_pairs
  t2ialign data pairs annotated --aspect each --splits train=0.8,validation=0.1,test=0.1 --output_dir by_aspect
  t2ialign data pairs annotated --weights prompt_following=2,aesthetic=1 --veto harmlessness=2 --output_dir my_pairs
  t2ialign data pairs a_says b_says --annotators each --choose best_worst --output_dir user_pairs
  t2ialign data pairs sets/base --scores sets/base/scores.parquet --aspect clipscore --soft_labels --beta 10 \\
      --output_dir my_pairs
"""


def run(options: Options) -> int:
    """Have the pairs made, in one process, and say what was counted."""
    from t2ialign.annotation.pairs import make_pairs

    if is_first_process():
        quiet_libraries()
        say(*make_pairs(options).lines())
    return 0
