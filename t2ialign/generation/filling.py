"""Filling an image set: the pictures that it lacks are made, by one process or several, and those it has are kept.

Law of this file: which picture is made does not depend on who makes it or what else is made; a set in which several
models draw says of each of them how it draws, and holds each to that. What is missing is dealt out evenly, whoever
made what is there.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.data.files import write_json
from t2ialign.data.image_sets import VOLATILE, ImageSet, ImageSetWriter
from t2ialign.data.prompts import Prompt
from t2ialign.errors import DataError, Stopped
from t2ialign.generation.labels import Variant
from t2ialign.generation.options import GenerateOptions
from t2ialign.generation.processes import Processes
from t2ialign.generation.sampler import default_guidance, generate_images
from t2ialign.generation.users import User

if TYPE_CHECKING:
    from t2ialign.models.loading import DiffusionModel

MODELS = "models"
"""Key of `config.json` under which a set of several models describes each, by its label."""


@dataclass(frozen=True)
class Item:
    """One picture to be made.

    Attributes:
        index: Position of the prompt in its file.
        prompt: The prompt.
        sample: Number of the picture among those of the prompt.
        seed: Of its noise.
        text: What is drawn, where that is not the prompt; it is noted as `drawn_prompt`.
    """

    index: int
    prompt: Prompt
    sample: int
    seed: int
    text: str | None = None

    @property
    def drawn(self) -> str:
        """What is drawn."""
        return self.prompt.prompt if self.text is None else self.text


@dataclass(frozen=True)
class Wanted:
    """What is to be in one set, of one way of drawing.

    Attributes:
        items: The pictures, the same list in every process.
        variant: How they are drawn.
        user: For whom.
        several: Whether the set holds pictures of other variants too; their files are then named by the label.
    """

    items: list[Item]
    variant: Variant
    user: User | None = None
    several: bool = False


@contextmanager
def open_writer(
    folder: Path, config: Mapping[str, Any], processes: Processes, model: tuple[str, Mapping[str, Any]] | None = None
) -> Iterator[ImageSetWriter]:
    """Open a set in every process, the first one first, and close it there last.

    Args:
        folder: The set.
        config: How its pictures are made.
        processes: Who works together.
        model: In a set of several, the label and the description of the one that draws now.

    Raises:
        DataError: If the set, or the model's part of it, was made otherwise.
    """
    with processes.first_goes_first():
        volatile = VOLATILE if model is None else (*VOLATILE, MODELS)
        shared = dict(config) if model is None else {**config, MODELS: {}}
        writer = ImageSetWriter(folder, shared, rank=processes.rank, world_size=processes.count, volatile=volatile)
        try:
            if model is not None:
                _agree(folder, *model)
        except BaseException:
            writer.close()
            raise
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


def _agree(folder: Path, label: str, description: Mapping[str, Any]) -> None:
    """Note how a model draws, or hold it to what was noted."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    models = config.setdefault(MODELS, {})
    wanted = json.loads(json.dumps(description))
    there = models.setdefault(label, wanted)
    differing = [key for key in sorted(there | wanted) if there.get(key) != wanted.get(key)]
    if differing:
        both = ((key, json.dumps(there.get(key)), json.dumps(wanted.get(key))) for key in differing)
        shown = "; ".join(f"{key}: {old} there, {new} now" for key, old, new in both)
        raise DataError(
            f"{folder}: the pictures of {label} were made otherwise ({shown}); choose another label or folder, or the "
            "same settings"
        )
    write_json(path, config)


def fill(
    writer: ImageSetWriter, model: DiffusionModel, wanted: Wanted, options: GenerateOptions, processes: Processes
) -> tuple[int, int]:
    """Make the pictures that the set lacks; return how many all processes made, and how many were there.

    Raises:
        Stopped: after what is finished is written, where a stop is asked for.
    """
    from tqdm import tqdm

    variant = wanted.variant
    lacking = [item for item in wanted.items if (item.prompt.prompt_id, item.sample, variant.label) not in writer.done]
    kept = len(wanted.items) - len(lacking)
    processes.wait()  # nobody writes before everybody knows what is there
    todo = lacking[processes.rank :: processes.count]
    made = 0
    quiet = True if processes.rank else None
    try:
        processes.check()
        with tqdm(total=kept + len(todo), initial=kept, desc=variant.label, unit="picture", disable=quiet) as bar:
            for item, scale, picture in _pictures(model, todo, wanted, options, processes):
                fields = _fields(item, variant.label, options.negative_prompt)
                if wanted.several or variant.drawn_from:
                    fields["guidance_scale"] = default_guidance(model.family) if scale is None else float(scale)
                stem = f"{item.sample:04d}-{variant.label}" if wanted.several else None
                writer.add(fields, picture, prompt_index=item.index, file_stem=stem)
                made += 1
                bar.update()
    except Stopped as stop:
        raise Stopped(stop.number, _told(writer, wanted, processes)) from None
    return processes.total(made), kept


def _told(writer: ImageSetWriter, wanted: Wanted, processes: Processes) -> str:
    """Say what a stop leaves; where several processes stop, others may be adding their last one."""
    label = wanted.variant.label
    done = writer.done if processes.count == 1 else {record.key for record in ImageSet(writer.path)}
    there = sum((item.prompt.prompt_id, item.sample, label) in done for item in wanted.items)
    least = "" if processes.count == 1 else "at least "
    return f"{least}{there} of {len(wanted.items)} pictures of {label} are in {writer.path}; the same command goes on"


def _pictures(
    model: DiffusionModel, todo: list[Item], wanted: Wanted, options: GenerateOptions, processes: Processes
) -> Iterator[tuple[Item, float | None, Any]]:
    """Draw items, those of one guidance scale together."""
    scales: dict[float | None, list[Item]] = defaultdict(list)
    for item in todo:
        scales[wanted.variant.scale(options.seed, item.prompt.prompt_id, item.sample)].append(item)
    for scale, items in scales.items():
        pictures = generate_images(
            model,
            [item.drawn for item in items],
            [item.seed for item in items],
            num_inference_steps=options.num_inference_steps,
            guidance_scale=scale,
            negative_prompt=options.negative_prompt,
            batch_size=options.batch_size,
            height=options.height,
            width=options.width,
            scheduler=options.scheduler,
            users=None if wanted.user is None else [wanted.user.tokens] * len(items),
            user_guidance_scale=options.user_guidance_scale,
            between=processes.check,
        )
        for item, picture in zip(items, pictures, strict=True):
            yield item, scale, picture


def _fields(item: Item, label: str, negative_prompt: str) -> dict[str, Any]:
    """Return the picture's line of metadata, less what the writer knows itself."""
    prompt = item.prompt
    return {
        **prompt.extra,
        **({} if item.text is None else {"drawn_prompt": item.text}),
        "prompt_id": prompt.prompt_id,
        "prompt": prompt.prompt,
        "negative_prompt": negative_prompt,
        "sample": item.sample,
        "seed": item.seed,
        "model": label,
        "set": prompt.set,
        "category": prompt.category,
    }
