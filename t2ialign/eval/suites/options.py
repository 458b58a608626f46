"""The options of `t2ialign eval`.

Law of this file: no heavy library is imported here, for the command line reads it to print its help.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from t2ialign.config import REQUIRED, option
from t2ialign.errors import ConfigError
from t2ialign.eval.suites.sweep_options import SweepOptions


@dataclass
class EvalOptions:
    """Which suite, with which models, and where its report goes."""

    suite: str = option(REQUIRED, "Name of a suite (see docs/eval.md), or a YAML file.", positional=True)
    model: list[str] = option(
        REQUIRED,
        "[LABEL=]MODEL[+ADAPTER], a model as in t2ialign generate; repeat it, the base first.",
        separator=None,
    )
    output_dir: Path = option(REQUIRED, "Folder of the image sets, the scores and the report.")
    adapter: list[str] = option([], "RUN/final for each model, or several for one; `none` for no adapter.")
    user: list[str] = option([], "User's file or mix for each model, or several for one.", separator=None)
    data: Path | None = option(None, "Folder with the files of public prompt sets, for work off line.")
    scorers: list[str] = option([], "Scorers instead of the suite's.", flag="with")
    embedder: str | None = option(None, "Scorer whose features measure diversity, instead of the suite's.")
    detector: str | None = option(
        None, "Who finds objects for the section composition: oracle, zero_shot:MODEL or results:FILE."
    )
    judge: str | None = option(
        None, "Who looks at pictures for the sections awareness and factuality: oracle, hf:MODEL or openai:MODEL."
    )
    sweep: SweepOptions = option(SweepOptions, "Settings to sweep over for the section tradeoff, over the suite's.")
    limit: int | None = option(None, "At most so many prompts of each set.")
    images_per_prompt: int | None = option(None, "Pictures of each prompt, instead of the suite's.")
    num_inference_steps: int | None = option(None, "Denoising steps, instead of the suite's.")
    guidance_scale: float | None = option(None, "Classifier-free guidance, instead of the suite's.")
    batch_size: int | None = option(
        None, "Pictures made and scored at once, instead of the suite's; it changes speed and memory, not pictures."
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps; auto is a CUDA GPU where there is one.")
    dtype: str = option(
        "auto",
        "Number format of the models; auto is float32.",
        choices=("auto", "float32", "float16", "bfloat16"),
    )
    workers: int | None = option(None, "Processes that decode pictures for scoring. Default: one a processor.")
    resamples: int = option(10_000, "Bootstrap resamples.")
    seed: int = option(0, "Seed of the pictures and of the bootstraps.")
    redo: list[str] = option([], "Sections to measure again although they are there; `all` for every one.")

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        for name in ("limit", "images_per_prompt", "num_inference_steps", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1")
        if self.guidance_scale is not None and self.guidance_scale < 0:
            raise ConfigError(f"guidance_scale is {self.guidance_scale}; it must be 0 or more")
        if self.workers is not None and self.workers < 0:
            raise ConfigError(f"workers is {self.workers}; it must be 0 or more")
        if self.resamples < 100:
            raise ConfigError(f"resamples is {self.resamples}; fewer than 100 give no interval")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must be 0 or more")
