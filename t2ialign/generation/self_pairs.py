"""Pairs of a model with itself: a phrase is added to the prompt of one side, and the other side goes without.

So MaPO (arXiv 2406.06424) made its pairs for a style and for safety: both pictures come from the model that will be
trained, and the trained prompt is the plain one, so that the model learns to draw as if the phrase stood there, or as
if it never did.

Law of this file: the two sides differ by the phrase, and by the noise only if that is asked for; what they differ in
is written into the card and into every row; two pictures that came out equal are no pair, and are counted.

    PAIRS/pictures/chosen/         an image set, and so is rejected/
    PAIRS/data/                    the pairs
    PAIRS/self_pairs.json          what was made and counted
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.data.files import write_json
from t2ialign.data.image_sets import ImageRecord, ImageSet
from t2ialign.data.prompts import Prompt, read_prompts
from t2ialign.data.writing import write_pairs
from t2ialign.errors import DataError
from t2ialign.generation.filling import Item, Wanted, fill, open_writer
from t2ialign.generation.labels import Variant, variants
from t2ialign.generation.processes import Processes
from t2ialign.generation.run import count_truncated, describe, load
from t2ialign.generation.seeds import image_seed
from t2ialign.generation.self_pair_options import SIDES, SelfPairOptions

if TYPE_CHECKING:
    from t2ialign.models.loading import DiffusionModel

logger = logging.getLogger(__name__)

REPORT = "self_pairs.json"


@dataclass(frozen=True)
class SelfPairSummary:
    """What `make_self_pairs` did, all processes of a launch together.

    Attributes:
        output_dir: Where the pairs are.
        pairs: How many there are.
        identical: Pairs left out because both pictures are the same.
        cut: Prompts whose end, with the phrase, the model does not read.
        made: Pictures made in this run.
        kept: Pictures that were there already.
        seconds: Time taken.
    """

    output_dir: Path
    pairs: int
    identical: int
    cut: int
    made: int
    kept: int
    seconds: float

    def lines(self) -> list[str]:
        """Say it for people."""
        there = f", {self.kept} were there already" if self.kept else ""
        told = [f"{self.pairs} pairs; {self.made} pictures made in {self.seconds:.0f} s{there}", f"{self.output_dir}"]
        if self.identical:
            told.append(f"left out, for both pictures are the same: {self.identical}")
        if self.cut:
            told.append(f"prompts that are cut at the tokenizer's limit, with the phrase: {self.cut}")
        return told


def make_self_pairs(options: SelfPairOptions) -> SelfPairSummary:
    """Make the pictures of both sides and write the pairs; continue where it was stopped.

    Args:
        options: See `SelfPairOptions`.

    Returns:
        What was done and counted.

    Raises:
        DataError: If the prompts can not be read, the folder holds something else or was made otherwise, or no two
            pictures differ.
        ModelError: If the model or the adapter can not be loaded.
        Stopped: As `generate`.
    """
    with Processes() as processes:
        return _make(options, processes)


def _make(options: SelfPairOptions, processes: Processes) -> SelfPairSummary:
    started = time.monotonic()
    target = Path(options.output_dir)
    _check_place(target)
    prompts = read_prompts(options.prompts)
    variant = variants(options.generation(options.side))[0]
    model = load(options.generation(options.side), variant.model, variant.adapter, processes)
    drawn = [replace(each, prompt=options.prompt(each.prompt, options.side)) for each in prompts[: options.limit]]
    cut = count_truncated(model, drawn, variant.label, processes)
    made = kept = 0
    settings: dict[str, Any] = {}
    for side in SIDES:
        config = _config(options, model, prompts, variant, side)
        settings = settings or config
        wanted = Wanted(_items(options, prompts, side), variant)
        generation = options.generation(side)
        with open_writer(generation.output_dir, config, processes) as writer:
            new, old = fill(writer, model, wanted, generation, processes)
        made, kept = made + new, kept + old
    if processes.rank == 0:
        _write(target, options, settings, cut, anew=made > 0)
    processes.wait()
    report = json.loads((target / REPORT).read_text(encoding="utf-8"))
    seconds = time.monotonic() - started
    return SelfPairSummary(target, report["pairs"], report["identical"], cut, made, kept, seconds)


def _check_place(target: Path) -> None:
    ours = {"pictures", "data", "README.md", REPORT}
    names = [each.name for each in target.glob("*") if not each.name.startswith(".")] if target.is_dir() else []
    foreign = sorted(set(names) - ours) or (sorted(names) if names and "pictures" not in names else [])
    if foreign:
        raise DataError(
            f"{target} holds {foreign[0]!r}, which is of something else; give a new folder as --output_dir"
        )


def _items(options: SelfPairOptions, prompts: list[Prompt], side: str) -> list[Item]:
    """List the pictures of a side. With noise of its own, the side with the phrase takes the odd sample numbers."""

    def seed(prompt: Prompt, sample: int) -> int:
        number = sample if options.same_noise else 2 * sample + (side == options.side)
        return image_seed(options.seed, prompt.prompt_id, number)

    return [
        Item(index, prompt, sample, seed(prompt, sample), options.prompt(prompt.prompt, side))
        for index, prompt in enumerate(prompts[: options.limit])
        for sample in range(options.images_per_prompt)
    ]


def _config(
    options: SelfPairOptions, model: DiffusionModel, prompts: list[Prompt], variant: Variant, side: str
) -> dict[str, Any]:
    """Describe how a side is made; whoever continues it with another phrase is refused."""
    return {
        **describe(options.generation(side), model, prompts, variant, None),
        "side": side,
        "phrase": options.phrase,
        "negative_phrase": options.negative_phrase,
        "phrase_side": options.side,
        "same_noise": options.same_noise,
        "split": options.split,
    }


def _write(target: Path, options: SelfPairOptions, settings: dict[str, Any], cut: int, *, anew: bool) -> None:
    """Write the pairs of all pictures that are there, unless they are written already."""
    sides = {side: ImageSet(options.generation(side).output_dir) for side in SIDES}
    partners = {(record.prompt_id, record.sample): record for record in sides["rejected"].records}
    keys = [(record.prompt_id, record.sample) for record in sides["chosen"].records]
    both = [(c, partners[key]) for c, key in zip(sides["chosen"].records, keys, strict=True) if key in partners]
    different = [(chosen, rejected) for chosen, rejected in both if chosen.sha256 != rejected.sha256]
    if not different:
        raise DataError(
            f"no two of the {len(both)} pairs of pictures differ: the model does not read the phrase; put it first, "
            "as in 'a photo of {prompt}', or choose another"
        )
    report = {
        "format": 1,
        "split": options.split,
        "pairs": len(different),
        "identical": len(both) - len(different),
        "cut": cut,
        "prompts": len({chosen.prompt_id for chosen, _ in both}),
        "settings": {name: value for name, value in settings.items() if name not in ("side", "negative_prompt")}
        | {f"negative_prompt_{side}": options.negative(side) for side in SIDES},
    }
    written = _read_report(target)
    there = list((target / "data").glob(f"{options.split}-*.parquet"))
    if anew or not there or any(written.get(name) != report[name] for name in ("pairs", "split")):
        rows = _rows(different, sides, _source(options, settings))
        write_pairs(rows, target, options.split, _card(options, report), overwrite=True)
    write_json(target / REPORT, report)


def _read_report(target: Path) -> dict[str, Any]:
    try:
        report = json.loads((target / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}


def _rows(
    pairs: list[tuple[ImageRecord, ImageRecord]], sides: dict[str, ImageSet], source: str
) -> Iterator[dict[str, Any]]:
    for chosen, rejected in pairs:
        yield {
            "prompt": chosen.prompt,
            "chosen": sides["chosen"].file(chosen),
            "rejected": sides["rejected"].file(rejected),
            "source": source,
        }


def _difference(options: SelfPairOptions) -> str:
    """Say in words what one side has and the other has not."""
    parts = []
    if options.phrase is not None:
        parts.append(f"{options.phrase.strip()!r} added to the prompt")
    if options.negative_phrase is not None:
        parts.append(f"{options.negative_phrase.strip()!r} added to the negative prompt")
    return f"{options.side}: {' and '.join(parts)}"


def _source(options: SelfPairOptions, settings: dict[str, Any]) -> str:
    return f"self_pairs of {settings['label']}; {_difference(options)}"


def _card(options: SelfPairOptions, report: dict[str, Any]) -> str:
    settings = report["settings"]
    noise = "the same noise" if options.same_noise else "noise of its own"
    left_out = f" {report['identical']} were left out, for both pictures are the same." if report["identical"] else ""
    return "\n".join(
        [
            f"# Pairs of {settings['label']} with itself",
            "",
            f"Both pictures of a pair are drawn by `{settings['model']}`"
            + (f" with the adapter `{settings['adapter']}`" if settings["adapter"] else "")
            + ". What tells them apart:",
            "",
            f"* {_difference(options)}",
            f"* each picture of a pair begins from {noise}",
            "",
            "`prompt` is the plain prompt, without the phrase.",
            "",
            f"{report['pairs']} pairs of {report['prompts']} prompts of `{settings['prompt_set']}`.{left_out} "
            f"{settings['num_inference_steps']} steps of {settings['scheduler']}, guidance "
            f"{settings['guidance_scale']:g}, seed {settings['seed']}; `self_pairs.json` has all settings.",
        ]
    )
