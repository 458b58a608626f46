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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from t2ialign.data.image_sets import ImageSetWriter
from t2ialign.data.prompts import Prompt, read_prompts
from t2ialign.generation.labels import Variant, model_label, variants
from t2ialign.generation.options import GenerateOptions
from t2ialign.generation.processes import Processes
from t2ialign.generation.quiet import quiet
from t2ialign.generation.sampler import default_guidance, default_steps, generate_images
from t2ialign.generation.schedulers import make_scheduler
from t2ialign.generation.seeds import image_seed
from t2ialign.generation.users import User, check_user, default_user_guidance, read_user

if TYPE_CHECKING:
    from t2ialign.models.loading import DiffusionModel

logger = logging.getLogger(__name__)

_SAMPLED = 4096
"""Numbers of each weight tensor that enter the fingerprint."""


@dataclass(frozen=True)
class GenerationSummary:
    """What `generate` did. In a launch of several processes, `made` and `kept` count this process's share.

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


@dataclass(frozen=True)
class _Item:
    """One picture to be made."""

    index: int
    prompt: Prompt
    sample: int
    seed: int


@dataclass(frozen=True)
class _Share:
    """What this process makes of one set."""

    items: list[_Item]
    label: str
    user: User | None


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
    """
    started = time.monotonic()
    everything = variants(options)
    users = {variant.user: read_user(variant.user) for variant in everything if variant.user is not None}
    prompts = read_prompts(options.prompts)
    items = [
        _Item(index, prompt, sample, image_seed(options.seed, prompt.prompt_id, sample))
        for index, prompt in enumerate(prompts[: options.limit])
        for sample in range(options.images_per_prompt)
    ]
    processes = Processes()
    counts = [0, 0]
    truncated = 0
    folders = []
    for variant in everything:
        label, user = variant.label, None if variant.user is None else users[variant.user]
        folder = Path(options.output_dir) / label if len(everything) > 1 else Path(options.output_dir)
        model = _load(options, variant.model, variant.adapter, processes)
        if user is not None:
            check_user(model, user)
        truncated = max(truncated, _count_truncated(model, prompts[: options.limit], label, processes))
        config = _config(options, model, prompts, variant, user)
        share = _Share(items[processes.rank :: processes.count], label, user)
        with _writer(folder, config, processes) as writer:
            made, kept = _fill(writer, model, share, options, processes)
        counts = [counts[0] + made, counts[1] + kept]
        folders.append(str(folder))
        del model
        gc.collect()
    used = len(prompts[: options.limit])
    return GenerationSummary(folders, used, counts[0], counts[1], truncated, time.monotonic() - started)


def _load(options: GenerateOptions, name: str, adapter: str | None, processes: Processes) -> DiffusionModel:
    from t2ialign.models.loading import load_model
    from t2ialign.models.lora import load_adapter
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
            load = load_adapter if find_user_adapter(adapter) is None else load_user_adapter
            load(model, adapter)
    return model


def _count_truncated(model: DiffusionModel, prompts: list[Prompt], label: str, processes: Processes) -> int:
    count = model.count_truncated([prompt.prompt for prompt in prompts])
    if count and processes.rank == 0:
        logger.warning(
            "prompts that are longer than the tokenizer of %s reads, so that it does not see their end: %d of %d",
            label,
            count,
            len(prompts),
        )
    return count


def _config(
    options: GenerateOptions, model: DiffusionModel, prompts: list[Prompt], variant: Variant, user: User | None
) -> dict[str, Any]:
    """Describe how the pictures are made; equal descriptions mean equal pictures.

    What is said of the user stands there only where there is one, so that sets without go on as they began.
    """
    from t2ialign.models.record import package_versions

    name, adapter, _, label = variant
    guidance = default_guidance(model.family) if options.guidance_scale is None else float(options.guidance_scale)
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
        "guidance_scale": guidance,
        **({} if user is None else _user_config(options, model, user, guidance)),
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


def _user_config(options: GenerateOptions, model: DiffusionModel, user: User, guidance: float) -> dict[str, Any]:
    scale = options.user_guidance_scale
    return {
        "user": user.label,
        "user_weights": [list(part) for part in user.weights],
        "user_sha256": user.sha256,
        "user_extractor": user.extractor,
        "user_guidance_scale": default_user_guidance(model, guidance) if scale is None else float(scale),
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


@contextmanager
def _writer(folder: Path, config: dict[str, Any], processes: Processes) -> Iterator[ImageSetWriter]:
    """Open a set in every process, the first one first, and close it there last."""
    with processes.first_goes_first():
        writer = ImageSetWriter(folder, config, rank=processes.rank, world_size=processes.count)
    try:
        yield writer
    except BaseException:
        if processes.count == 1:  # otherwise others may still be writing; the next run brings the parts together
            writer.close()
        raise
    if processes.rank != 0:
        writer.close()
    processes.wait()
    writer.close()
    processes.wait()


def _fill(
    writer: ImageSetWriter,
    model: DiffusionModel,
    share: _Share,
    options: GenerateOptions,
    processes: Processes,
) -> tuple[int, int]:
    """Make the pictures that the set lacks; return how many were made and how many were there."""
    from tqdm import tqdm

    items, label = share.items, share.label
    todo = [item for item in items if (item.prompt.prompt_id, item.sample, label) not in writer.done]
    kept = len(items) - len(todo)
    pictures = generate_images(
        model,
        [item.prompt.prompt for item in todo],
        [item.seed for item in todo],
        num_inference_steps=options.num_inference_steps,
        guidance_scale=options.guidance_scale,
        negative_prompt=options.negative_prompt,
        batch_size=options.batch_size,
        height=options.height,
        width=options.width,
        scheduler=options.scheduler,
        users=None if share.user is None else [share.user.tokens] * len(todo),
        user_guidance_scale=options.user_guidance_scale,
    )
    made = 0
    quiet = True if processes.rank else None
    try:
        with tqdm(total=len(items), initial=kept, desc=label, unit="picture", disable=quiet) as bar:
            for item, picture in zip(todo, pictures, strict=True):
                writer.add(_fields(item, label, options.negative_prompt), picture, prompt_index=item.index)
                made += 1
                bar.update()
    except KeyboardInterrupt:
        logger.warning("stopped at %d of %d pictures; the same command continues", kept + made, len(items))
        raise
    return made, kept


def _fields(item: _Item, label: str, negative_prompt: str) -> dict[str, Any]:
    """Return the picture's line of metadata, less what the writer knows itself."""
    prompt = item.prompt
    return {
        **prompt.extra,
        "prompt_id": prompt.prompt_id,
        "prompt": prompt.prompt,
        "negative_prompt": negative_prompt,
        "sample": item.sample,
        "seed": item.seed,
        "model": label,
        "set": prompt.set,
        "category": prompt.category,
    }
