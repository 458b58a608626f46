"""What training leaves behind beside checkpoints: sample pictures, the trained weights, their card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from t2ialign.config import to_dict
from t2ialign.engine.task import GivenUp, StopRequested
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.models.memory import all_here
from t2ialign.trainers.model_config import ModelConfig

COLUMNS = 4
_SHOWN = (
    "model",
    "pairs",
    "method",
    "lora",
    "objective",
    "beta",
    "snr",
    "value",
    "desirable_weight",
    "undesirable_weight",
    "curriculum_stages",
    "scorer",
    "prompts",
    "num_inference_steps",
    "guidance_scale",
    "reference_weight",
    "draft_steps",
    "draft_draws",
    "first_stop",
    "last_stop",
    "reward_margin",
    "clip_range",
    "updates_per_round",
    "inner_epochs",
    "pictures_per_prompt",
    "timestep_fraction",
    "extractor",
    "shots",
    "embeddings",
    "user_dropout",
    "compat",
    "resolution",
    "steps",
    "batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler",
    "optimizer",
    "caption_dropout",
    "ema",
    "seed",
)


def write_samples(
    model: DiffusionModel,
    prompts: Sequence[str],
    file: Path,
    *,
    seed: int,
    stop: StopRequested,
    users: Sequence[Tensor] | None = None,
) -> None:
    """Draw one picture a prompt into a sheet, four a row; nothing is written once `stop()` is true.

    Args:
        model: As it is now.
        prompts: At least one.
        file: PNG to write.
        seed: Of the run; a picture's own seed follows from it and the prompt's number.
        stop: Whether to give up.
        users: For a model with a user adapter, for whom each picture is drawn, `[T, D]` each.
    """
    from t2ialign.generation.sampler import generate_images
    from t2ialign.generation.seeds import image_seed

    def give_up_if_asked() -> None:
        if stop():
            raise GivenUp

    seeds = [image_seed(seed, f"sample-{number}", 0) for number in range(len(prompts))]
    try:
        drawn = generate_images(model, prompts, seeds, batch_size=COLUMNS, users=users, between=give_up_if_asked)
        with all_here(model):
            pictures = list(drawn)
    except GivenUp:
        return
    aside = file.with_name(f".{file.name}")
    sheet(pictures).save(aside, format="PNG")
    aside.replace(file)


def sheet(pictures: Sequence[Image.Image], columns: int = COLUMNS) -> Image.Image:
    """Return pictures of one size side by side, `columns` a row."""
    width, height = pictures[0].size
    across = min(columns, len(pictures))
    whole = Image.new("RGB", (across * width, math.ceil(len(pictures) / across) * height), "white")
    for number, picture in enumerate(pictures):
        whole.paste(picture, (number % across * width, number // across * height))
    return whole


def write_final(
    model: DiffusionModel, directory: Path, config: ModelConfig, algorithm: str, facts: Mapping[str, Any]
) -> None:
    """Write the LoRA, the user adapter or the whole pipeline, with `t2ialign.json` and a card.

    Args:
        model: After training; with a moving average, its values are in place.
        directory: An empty folder.
        config: Options of the run.
        algorithm: Its name.
        facts: Figures of the last step, for the card.
    """
    from t2ialign.models.card import write_card
    from t2ialign.models.lora import save_lora
    from t2ialign.models.saving import save_pipeline
    from t2ialign.models.user_adapter import save_user_adapter

    save = {"lora": save_lora, "full": save_pipeline, "user_adapter": save_user_adapter}[config.method]
    save(model, directory, algorithm=algorithm)
    options = to_dict(config)
    summary = {name: value for name, value in facts.items() if isinstance(value, int | float | str)}
    shown = [*_SHOWN, *([options["objective"]] if "objective" in options else [])]
    if config.method != "lora":
        shown.remove("lora")
    settings = {name: options[name] for name in shown if options.get(name) is not None}
    write_card(directory, summary=summary, settings=settings, pairs=config.data_name)
