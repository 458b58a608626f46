"""`t2ialign generate`: an image set, or several, from a prompt file."""

from __future__ import annotations

from t2ialign.cli.output import quiet_libraries, say
from t2ialign.generation.options import GenerateOptions as Options

DESCRIPTION = """Make an image set: a folder with images/, metadata.jsonl and config.json.

The noise of a picture is a function of the seed, the prompt's id and the sample number alone, so that sets of
different models can be compared picture by picture. Called again, it continues where it stopped."""

EXAMPLES = """examples:
  t2ialign generate --model mini-sd --prompts prompts.txt --output_dir sets/base
  t2ialign generate --model mini-sd --adapter runs/first/final --prompts prompts.txt --output_dir sets/tuned
  t2ialign generate --model runs/ppd/final --user users/alice.safetensors --prompts prompts.txt --output_dir sets/alice
  t2ialign generate --model mini-sd --prompts prompts.tsv --limit 100 --images_per_prompt 4 --output_dir sets/base
"""


def run(options: Options) -> int:
    """Generate what is missing and say what is there now."""
    from t2ialign.generation.run import generate

    quiet_libraries()
    say(str(generate(options)))
    return 0
