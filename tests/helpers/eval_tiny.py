"""A small evaluation: `python eval_tiny.py SUITE.yaml OUTPUT [SEED]`, alone or called from a test."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from t2ialign.eval.suites.options import EvalOptions

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

SUITE = """
description: A suite of a few pictures, for tests.
pictures_per_model: 18
batch_size: 1
generation:
  num_inference_steps: 2
prompts:
  scenes: {source: %s, images_per_prompt: 1}
  flags: {source: %s, images_per_prompt: 10}
scorers: [oracle, clipscore@mini-clip]
embedder: clipscore@mini-clip
sections:
  preference: {prompts: [scenes], least: 2}
  grids: {lines: 4, samples: 2}
  wins: {prompts: [scenes], lines: 2}
  composition: {prompts: [scenes]}
  diversity: {prompts: [flags], resamples: 20}
  culture: {prompts: [flags]}
  fidelity: {}
  tradeoff: {}
  certainty: {prompts: [scenes]}
"""

SCENES = (
    ("a red circle on a white background", "one object"),
    ("a blue square on a black background", "one object"),
    ("a green star on a gray background", "one object"),
    ("a yellow ring above a pink cross", "two objects"),
    ("a purple triangle left of a brown ring", "two objects"),
    ("an orange star below a red square", "two objects"),
    ("a pink circle right of a green cross", "two objects"),
)


def write_suite(folder: Path) -> Path:
    """Write the suite and its prompts; return its file."""
    import json

    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"prompt_id": f"s{i}", "prompt": text, "category": category})
        for i, (text, category) in enumerate(SCENES)
    ]
    lines.append(json.dumps({"prompt_id": "s7", "prompt": "the flag of France", "category": '<flag> & "more"'}))
    (folder / "scenes.jsonl").write_text("\n".join(lines))
    (folder / "flags.jsonl").write_text(json.dumps({"prompt_id": "f0", "prompt": "a flag", "category": "anywhere"}))
    path = folder / "tiny.yaml"
    path.write_text(SUITE % (folder / "scenes.jsonl", folder / "flags.jsonl"))
    return path


def options(suite: str, output: str, seed: str = "0") -> EvalOptions:
    """The options of the evaluation: mini-SD against itself with other words for it."""
    from t2ialign.eval.suites.options import EvalOptions

    return EvalOptions(
        suite=suite,
        model=["base=mini-sd", "again=mini-sd"],
        output_dir=Path(output),
        resamples=200,
        seed=int(seed),
        workers=0,
        device="cpu",
    )


def main(suite: str, output: str, seed: str = "0") -> None:
    """Run it with one thread."""
    import torch

    from t2ialign.eval.suites.run import run_suite

    torch.set_num_threads(1)
    run_suite(options(suite, output, seed))


if __name__ == "__main__":
    main(*sys.argv[1:])
