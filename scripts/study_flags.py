"""Does the evaluation find out a model that was tuned to one continent's flags?

    python scripts/study_flags.py --output_dir runs/flags

400 drawn flags of Europe under the prompt "a flag" tune mini-SD (`train sft`, 120 steps); `t2ialign eval mini` then
holds it against mini-SD. Nothing tells the evaluation what was done.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from pathlib import Path

import numpy as np

from t2ialign.data.writing import write_unpaired
from t2ialign.mini.flags import FLAGS
from t2ialign.mini.world import Spec, render

COUNT = 400


def european(count: int, seed: int) -> list[dict[str, object]]:
    """Draw flags of Europe, each under the same prompt that asks for none in particular."""
    names = sorted(name for name, flag in FLAGS.items() if flag.continent == "Europe")
    rng, rows = np.random.default_rng(seed), []
    for number in range(count):
        buffer = io.BytesIO()
        render(Spec("flag", country=names[int(rng.integers(len(names)))])).save(buffer, "PNG")
        image = {"bytes": buffer.getvalue(), "path": f"{number:04d}.png"}
        rows.append({"prompt": "a flag", "image": image, "label": True})
    return rows


def main() -> None:
    """Draw, tune, evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    data, run = given.output_dir / "european", given.output_dir / "run"
    write_unpaired(european(COUNT, given.seed), data)
    train = ["train", "sft", "--model", "mini-sd", "--pairs", str(data), "--steps", "120", "--output_dir", str(run)]
    models = ["--model", "mini-sd", "--model", f"europe={run / 'final'}"]
    for words in (train, ["eval", "mini", *models, "--output_dir", str(given.output_dir / "evaluation")]):
        subprocess.run([sys.executable, "-m", "t2ialign", *words, "--seed", str(given.seed)], check=True)


if __name__ == "__main__":
    main()
