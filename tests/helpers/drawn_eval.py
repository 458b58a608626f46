"""An evaluation whose pictures are drawn by the mini-world's rules, so that what a report must find is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from t2ialign.data.image_sets import ImageSetWriter
from t2ialign.eval.suites.options import EvalOptions
from t2ialign.eval.suites.plan import agree, make_plan
from t2ialign.eval.suites.run import run_suite
from t2ialign.generation.seeds import image_seed

Painter = Callable[[str, int], Image.Image]
"""Prompt and sample number to a picture."""


def drawn_evaluation(
    folder: Path,
    sections: str,
    prompts: Mapping[str, tuple[Sequence[tuple[str, str]], int]],
    painters: Mapping[str, Painter],
    *,
    head: str = "scorers: [oracle]",
) -> Path:
    """Draw every model's pictures, run the suite on them, and return the output folder.

    Args:
        folder: Scratch.
        sections: YAML lines of the suite's sections, indented by two.
        prompts: For each set its prompts with their categories, and pictures a prompt.
        painters: For each model what draws its pictures; the first is the base.
        head: Further lines of the suite.
    """
    lines = ["description: Drawn.", head, "prompts:"]
    for name, (texts, count) in prompts.items():
        file = folder / f"{name}.jsonl"
        file.write_text(
            "\n".join(
                json.dumps({"prompt_id": f"{name}-{i}", "prompt": text, "category": category})
                for i, (text, category) in enumerate(texts)
            )
        )
        lines.append(f"  {name}: {{source: {file}, images_per_prompt: {count}}}")
    suite = folder / "drawn.yaml"
    suite.write_text("\n".join([*lines, "sections:", sections]) + "\n")
    options = drawn_options(suite, folder / "out", list(painters))
    drawn_pictures(options, painters)
    run_suite(options)
    return folder / "out"


def drawn_options(suite: Path, output: Path, labels: Sequence[str]) -> EvalOptions:
    """Options of an evaluation of models that are called so."""
    return EvalOptions(
        suite=str(suite),
        model=[f"{label}=mini-sd" for label in labels],
        output_dir=output,
        resamples=500,
        workers=0,
        device="cpu",
    )


def drawn_pictures(options: EvalOptions, painters: Mapping[str, Painter]) -> None:
    """Write the plan, and every model's pictures as its painter draws them."""
    plan = make_plan(options)
    agree(plan)
    for name, each in plan.suite.prompts.items():
        for label, painter in painters.items():
            with ImageSetWriter(plan.set_folder(name, label), {"label": label}) as writer:
                for index, prompt in enumerate(plan.prompts[name]):
                    for sample in range(each.images_per_prompt):
                        known = {
                            **prompt.extra,
                            "prompt_id": prompt.prompt_id,
                            "prompt": prompt.prompt,
                            "sample": sample,
                            "seed": image_seed(0, prompt.prompt_id, sample),
                            "model": label,
                            "category": prompt.category,
                        }
                        writer.add(known, painter(prompt.prompt, sample), prompt_index=index)
