"""The options of `t2ialign data self_pairs`.

Law of this file: no heavy library is imported here, for the command line reads it to print its help.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from t2ialign.config import REQUIRED, option
from t2ialign.errors import ConfigError
from t2ialign.generation.options import SCHEDULERS, GenerateOptions

SIDES = ("chosen", "rejected")
PLACE = "{prompt}"
"""Where the prompt stands in a phrase that holds it."""


@dataclass
class SelfPairOptions:
    """Which model, which prompts, and in what the two sides differ."""

    model: str = option(REQUIRED, "mini-sd, a folder, a hub id, a checkpoint file, or a run's final/.")
    prompts: str = option(REQUIRED, "Prompt file: txt (a line a prompt), jsonl, json, csv or tsv.")
    output_dir: Path = option(REQUIRED, "Folder of the pairs.")
    phrase: str | None = option(
        None, "Added behind the prompt of one side, after a comma; with {prompt} in it, it says where the prompt goes."
    )
    negative_phrase: str | None = option(None, "Added to the negative prompt of that side.")
    side: str = option("chosen", "Which side has the phrase.", choices=SIDES)
    same_noise: bool = option(True, "Begin both pictures of a pair from the same noise.")
    adapter: str | None = option(None, "LoRA of a run, RUN/final.")
    images_per_prompt: int = option(1, "Pairs of each prompt.")
    split: str = option("train", "Split that the pairs are written to.")
    num_inference_steps: int | None = option(None, "Denoising steps; default 25 for mini-sd, 50 otherwise.")
    guidance_scale: float | None = option(
        None, "Classifier-free guidance; default 4 for mini-sd, 5 for SDXL, 7.5 otherwise."
    )
    negative_prompt: str = option("", "What the pictures of both sides should not show.")
    scheduler: str = option("auto", "How to denoise; auto is ddim for mini-sd, else the model's.", choices=SCHEDULERS)
    height: int | None = option(None, "Height in pixels, a multiple of 8; default the model's own.")
    width: int | None = option(None, "Width in pixels, a multiple of 8; default the model's own.")
    batch_size: int = option(8, "Pictures made at once; it changes speed and memory, not pictures.")
    seed: int = option(0, "Seed of the run; with prompt id and sample number it makes the seed of a picture.")
    limit: int | None = option(None, "Only the first so many prompts.")
    dtype: str = option("auto", "Number format; auto is float32.", choices=("auto", "float32", "float16", "bfloat16"))
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps; auto is a CUDA GPU where there is one.")
    attention: str = option("auto", "Attention backend.", choices=("auto", "sdpa", "xformers"))
    revision: str | None = option(None, "Branch, tag or commit of the model on the hub.")

    def __post_init__(self) -> None:
        """Check that the sides differ, and what generation checks too."""
        for name in ("phrase", "negative_phrase"):
            value = getattr(self, name)
            if value is not None and not value.strip():
                raise ConfigError(f"{name} is empty; give it words, or leave it out")
        if self.phrase is None and self.negative_phrase is None:
            raise ConfigError("nothing tells the two sides apart; give --phrase or --negative_phrase")
        if self.phrase is not None and self.phrase.strip() == PLACE:
            raise ConfigError(f"phrase is {self.phrase!r}, the prompt alone; add words to it")
        if not self.split.isidentifier():
            raise ConfigError(f"split is {self.split!r}; use letters, digits and underscores, as in 'train'")
        self.generation(self.side)

    def prompt(self, prompt: str, side: str) -> str:
        """Return what is drawn for a prompt on a side."""
        if side != self.side or self.phrase is None:
            return prompt
        phrase = self.phrase.strip()
        return phrase.replace(PLACE, prompt) if PLACE in phrase else f"{prompt}, {phrase}"

    def negative(self, side: str) -> str:
        """Return the negative prompt of a side."""
        if side != self.side or self.negative_phrase is None:
            return self.negative_prompt
        return ", ".join(filter(None, (self.negative_prompt, self.negative_phrase.strip())))

    def generation(self, side: str) -> GenerateOptions:
        """Return how the pictures of a side are made."""
        return GenerateOptions(
            model=[self.model],
            prompts=self.prompts,
            output_dir=Path(self.output_dir) / "pictures" / side,
            adapter=[] if self.adapter is None else [self.adapter],
            images_per_prompt=self.images_per_prompt,
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            negative_prompt=self.negative(side),
            scheduler=self.scheduler,
            height=self.height,
            width=self.width,
            batch_size=self.batch_size,
            seed=self.seed,
            limit=self.limit,
            dtype=self.dtype,
            device=self.device,
            attention=self.attention,
            revision=self.revision,
        )
