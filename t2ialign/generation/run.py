"""`t2ialign generate`: image sets from models and a prompt file, continued where they stopped.

Law of this file: a set is one way of making pictures, written down in its `config.json`; whoever
continues it with other settings, weights or prompts is refused.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from t2ialign.data.image_sets import ImageSetWriter
from t2ialign.data.prompts import Prompt, read_prompts
from t2ialign.generation.filling import Item, Wanted, fill, open_writer
from t2ialign.generation.labels import Variant, model_label, variants
from t2ialign.generation.options import GenerateOptions
from t2ialign.generation.processes import Processes
from t2ialign.generation.quiet import quiet
from t2ialign.generation.sampler import default_guidance, default_steps
from t2ialign.generation.schedulers import make_scheduler
from t2ialign.generation.seeds import image_seed
from t2ialign.generation.users import User, check_user, default_user_guidance, read_user

if TYPE_CHECKING:
    from t2ialign.models.loading import DiffusionModel

logger = logging.getLogger(__name__)

SHARED = ("negative_prompt", "seed", "prompt_set", "prompts_sha256", "device", "versions")
"""What all models of one set have in common; the rest stands there for each model by itself."""
_SAMPLED = 4096
"""Numbers of each weight tensor that enter the fingerprint."""


@dataclass(frozen=True)
class GenerationSummary:
    """What `generate` did, all processes of a launch together.

    Attributes:
        sets: Folders of the image sets, in the order of the models.
        prompts: Prompts asked for.
        made: Pictures made in this run, over all sets.
        kept: Pictures that were there already.
        truncated: Prompts that lose their end at a tokenizer's limit, the most over the models.
        seconds: Time taken, with loading.
    """

    sets: list[str]
    prompts: int
    made: int
    kept: int
    truncated: int
    seconds: float

    def __str__(self) -> str:
        """Say it in a line or two."""
        cut = f"; prompts cut at the tokenizer's limit: {self.truncated}" if self.truncated else ""
        there = f", {self.kept} were there already" if self.kept else ""
        return (
            f"{self.made} pictures of {self.prompts} prompts made in {self.seconds:.0f} s{there}{cut}\n"
            f"{', '.join(self.sets)}"
        )


def generate(options: GenerateOptions) -> GenerationSummary:
    """Make what is missing of one or several image sets.

    Under `accelerate launch` the pictures are dealt out among the processes; a picture is the same
    whichever process makes it.

    Args:
        options: See `GenerateOptions`.

    Returns:
        Where the sets are and what was done.

    Raises:
        ConfigError: If options do not go together.
        DataError: If the prompt file or a user's file cannot be read, or a set in place was made otherwise.
        ModelError: If a model or an adapter cannot be loaded, or a model cannot draw for a user.
        Stopped: If SIGINT, SIGTERM or SIGUSR1 asks for it, within one denoising step; finished pictures are kept, and
            the same call goes on.
    """
    with Processes() as processes:
        return _generate(options, processes)


def _generate(options: GenerateOptions, processes: Processes) -> GenerationSummary:
    started = time.monotonic()
    everything = variants(options)
    users = {variant.user: read_user(variant.user) for variant in everything if variant.user is not None}
    prompts = read_prompts(options.prompts)
    items = [
        Item(index, prompt, sample, image_seed(options.seed, prompt.prompt_id, sample))
        for index, prompt in enumerate(prompts[: options.limit])
        for sample in range(options.images_per_prompt)
    ]
    counts = [0, 0]
    truncated = 0
    folders: list[str] = []
    for variant, model, is_new in _loaded(everything, options, processes):
        user = None if variant.user is None else users[variant.user]
        alone = options.one_set or len(everything) == 1
        folder = Path(options.output_dir) if alone else Path(options.output_dir) / variant.label
        if user is not None:
            check_user(model, user)
        if is_new:
            cut = count_truncated(model, prompts[: options.limit], variant.label, processes)
            truncated = max(truncated, cut)
        config = describe(options, model, prompts, variant, user)
        wanted = Wanted(items, variant, user, options.one_set)
        with _opened(folder, config, variant.label, options.one_set, processes) as writer:
            made, kept = fill(writer, model, wanted, options, processes)
        counts = [counts[0] + made, counts[1] + kept]
        folders += [] if str(folder) in folders else [str(folder)]
        del model  # or it would stay in memory beside the next one
    used = len(prompts[: options.limit])
    return GenerationSummary(folders, used, counts[0], counts[1], truncated, time.monotonic() - started)


def _loaded(
    everything: list[Variant], options: GenerateOptions, processes: Processes
) -> Iterator[tuple[Variant, DiffusionModel, bool]]:
    """Load the model of each variant, one in memory at a time, and say whether it is another than before."""
    model: DiffusionModel | None = None
    before: tuple[str, str | None] | None = None
    for variant in everything:
        wanted = (variant.model, variant.adapter)
        is_new = model is None or wanted != before
        if is_new:
            processes.check()
            model = None
            gc.collect()
            model = load(options, *wanted, processes)
        before = wanted
        assert model is not None
        yield variant, model, is_new


def _opened(
    folder: Path, config: dict[str, Any], label: str, one_set: bool, processes: Processes
) -> AbstractContextManager[ImageSetWriter]:
    """Open a set of one model, or one of several, where each model has its own part of the description."""
    if not one_set:
        return open_writer(folder, config, processes)
    shared = {name: config[name] for name in SHARED}
    own = {name: value for name, value in config.items() if name not in (*SHARED, "label")}
    return open_writer(folder, shared, processes, (label, own))


def load(options: GenerateOptions, name: str, adapter: str | None, processes: Processes) -> DiffusionModel:
    """Load a model, and put a LoRA or a user adapter on it where one is given."""
    from t2ialign.models.loading import load_model
    from t2ialign.models.lora import load_adapter
    from t2ialign.models.speed import speed_up
    from t2ialign.models.user_adapter import find_user_adapter, load_user_adapter

    device = processes.device(options.device)
    dtype = "float32" if options.dtype == "auto" else options.dtype
    with quiet(warnings=False):
        model = load_model(
            name,
            dtype=getattr(torch, dtype),
            device=device,
            revision=options.revision,
            attention=options.attention,
        )
    if adapter is not None:
        with quiet():
            put = load_adapter if find_user_adapter(adapter) is None else load_user_adapter
            put(model, adapter)
    speed_up(model, channels_last=options.channels_last, compile=options.compile)
    return model


def count_truncated(model: DiffusionModel, prompts: list[Prompt], label: str, processes: Processes) -> int:
    """Count the prompts that the model does not read to their end, and warn of them."""
    count = model.count_truncated([prompt.prompt for prompt in prompts])
    if count and processes.rank == 0:
        logger.warning(
            "prompts that are longer than the tokenizer of %s reads, so that it does not see their end: %d of %d",
            label,
            count,
            len(prompts),
        )
    return count


def describe(
    options: GenerateOptions, model: DiffusionModel, prompts: list[Prompt], variant: Variant, user: User | None
) -> dict[str, Any]:
    """Describe how the pictures are made; equal descriptions mean equal pictures.

    What is said of the user stands there only where there is one, so that sets without go on as they began.
    """
    from t2ialign.models.record import package_versions

    name, adapter, label = variant.model, variant.adapter, variant.label
    guidance = default_guidance(model.family) if variant.guidance is None else float(variant.guidance)
    scheduler = make_scheduler(options.scheduler, model.pipeline.scheduler, model.family)
    listed = json.dumps([[prompt.prompt_id, prompt.prompt] for prompt in prompts], ensure_ascii=False)
    return {
        "label": label,
        "model": name if not Path(name).expanduser().exists() else model_label(name),
        "revision": options.revision,
        "adapter": None if adapter is None else model_label(adapter),
        "weights_fingerprint": weights_fingerprint(model.pipeline),
        "family": model.family,
        "prediction_type": model.prediction_type,
        "scheduler": type(scheduler).__name__,
        "num_inference_steps": options.num_inference_steps or default_steps(model.family),
        "guidance_scale": [float(scale) for scale in variant.drawn_from] or guidance,
        **({} if user is None else _user_config(options, model, user, None if variant.drawn_from else guidance)),
        "negative_prompt": options.negative_prompt,
        "height": options.height or model.resolution,
        "width": options.width or model.resolution,
        "dtype": str(model.dtype).removeprefix("torch."),
        "seed": options.seed,
        "prompt_set": Path(options.prompts).stem,
        "prompts_sha256": hashlib.sha256(listed.encode("utf-8", "surrogatepass")).hexdigest(),
        "device": model.device.type,
        "versions": package_versions(),
    }


def _user_config(
    options: GenerateOptions, model: DiffusionModel, user: User, guidance: float | None
) -> dict[str, Any]:
    shown: float | None = options.user_guidance_scale
    if shown is None and guidance is not None:
        shown = default_user_guidance(model, guidance)
    return {
        "user": user.label,
        "user_weights": [list(part) for part in user.weights],
        "user_sha256": user.sha256,
        "user_extractor": user.extractor,
        "user_guidance_scale": None if shown is None else float(shown),
    }


def weights_fingerprint(pipeline: Any) -> str:
    """Return a digest that tells weights apart: SHA-256 over evenly spaced numbers of every tensor.

    It reads at most 4096 numbers of a tensor, so that SDXL takes a moment; training changes nearly
    all numbers of a tensor that it touches.
    """
    digest = hashlib.sha256()
    for part, module in sorted(pipeline.components.items()):
        if not isinstance(module, torch.nn.Module):
            continue
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{part}.{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            flat = tensor.detach().flatten()
            picked = flat[:: max(1, flat.numel() // _SAMPLED)].contiguous().cpu()
            digest.update(picked.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
