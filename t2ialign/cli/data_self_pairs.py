"""`t2ialign data self_pairs`: pairs of a model with itself, a phrase added for one side (MaPO)."""

from __future__ import annotations

from t2ialign.cli.output import quiet_libraries, say
from t2ialign.generation.self_pair_options import SelfPairOptions as Options

DESCRIPTION = """Draw each prompt twice with one model: with a phrase in the prompt (or in the negative prompt) of one
side, and without. The pairs carry the plain prompt, so that training on them makes the phrase unnecessary, as MaPO
(arXiv 2406.06424) does for a style and for safety. Called again, it continues where it stopped."""

EXAMPLES = """examples:
  t2ialign data self_pairs --model mini-sd --prompts prompts.txt --phrase "on a white background" --output_dir white
  t2ialign data self_pairs --model runs/sdxl/final --prompts p.txt --phrase "pixel art of {prompt}" --output_dir pixels
  t2ialign data self_pairs --model mini-sd --prompts p.txt --phrase "gore, blood" --side rejected --output_dir safe
  t2ialign data self_pairs --model mini-sd --prompts p.txt --negative_phrase "blurry" --output_dir sharp
"""


def run(options: Options) -> int:
    """Make the pairs and say what was counted."""
    from t2ialign.generation.self_pairs import make_self_pairs

    quiet_libraries()
    say(*make_self_pairs(options).lines())
    return 0
