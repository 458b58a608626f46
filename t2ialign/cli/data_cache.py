"""`t2ialign data cache`: encode pictures and captions once, into a folder that training runs share."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from t2ialign.cli.output import figures, is_first_process, quiet_libraries, say
from t2ialign.config import REQUIRED, option
from t2ialign.engine.config import BAD_PAIRS, PRECISIONS
from t2ialign.errors import ConfigError
from t2ialign.trainers.model_config import VAE_TYPES
from t2ialign.trainers.preference_config import CACHE_TYPES, CROPS, EMPTY_CAPTIONS, FLIPS, POSTERIORS, PreferenceConfig

DESCRIPTION = """Encode every picture and every caption of a set of pairs, or of labelled pictures, once, into a folder
that `t2ialign train ... --cache_dir` reads. What is there already is kept, damaged files are set aside and filled
again, and called again after a stop it continues. With --list it shows what a folder holds."""

EXAMPLES = """examples:
  t2ialign data cache mini-pairs --model mini-sd --cache_dir cache
  t2ialign data cache my_pairs --model stabilityai/stable-diffusion-xl-base-1.0 --cache_dir cache
  t2ialign data cache my_pairs --model mini-sd --crop random --crop_positions 8 --flip joint --cache_dir cache
  t2ialign data cache --list --cache_dir cache
"""

CAPTIONS = ("prompt", "dual", "both")


@dataclass
class Options:
    """What to encode, how, and where to."""

    pairs: str | None = option(
        None, "mini-pairs, a folder of pairs or labelled pictures, or a hub dataset id.", positional=True
    )
    cache_dir: Path = option(REQUIRED, "Folder of caches; several sets and models can share it.")
    model: str | None = option(None, "mini-sd, a pipeline folder, a hub id, or an earlier run's final/.")
    revision: str | None = option(None, "Revision of a model on the hub.")
    pairs_revision: str | None = option(None, "Revision of a pair set on the hub.")
    split: str = option("train", "Split of the pair set.")
    streaming: bool = option(
        False, "Read the pictures of parquet files, or of a hub dataset, while they are needed: no download, no copy."
    )
    streaming_buffer: int = option(512, "MiB of pictures that each process keeps of a streamed set.")

    resolution: int | None = option(None, "Side of the training pictures, pixels. Default: the model's own.")
    crop: str = option("center", "Where a picture longer than wide is cut.", choices=CROPS)
    crop_positions: int = option(0, "With --crop random: of how many places a cut is one; at least 1.")
    flip: str = option("none", "With joint or independent the mirrored pictures are encoded too.", choices=FLIPS)
    aspect_buckets: bool = option(
        False, "Sizes of about resolution x resolution pixels that suit each pair's shape, in place of squares."
    )
    bucket_step: int | None = option(None, "Sides of these sizes are multiples of it, pixels. Default: by family.")
    bucket_ratio: float = option(4.0, "Their longer side over the shorter is at most this.")
    captions: str = option(
        "prompt", "Which captions: the prompt, the two of each pair (DCPO), or both.", choices=CAPTIONS
    )
    empty_caption: str | None = option(
        None,
        "The empty caption of SDXL, as in training. Default: zeros where its configuration says so.",
        choices=EMPTY_CAPTIONS,
    )
    posterior: str = option(
        "sample",
        "For training on samples of what the VAE sees in a picture, or on its mean: half the size.",
        choices=POSTERIORS,
    )

    latents: bool = option(True, "Encode the pictures.")
    text: bool = option(True, "Encode the captions.")
    mixed_precision: str = option("auto", "As in training: the encoders work in it.", choices=PRECISIONS)
    vae_dtype: str = option("auto", "Number format of the VAE, as in training.", choices=VAE_TYPES)
    cache_dtype: str = option(
        "auto", "Number format in which rows are kept. auto is the one they are computed in.", choices=CACHE_TYPES
    )
    batch_size: int | None = option(
        None, "Pictures that are encoded at once. Default: 2 megapixels, 32 pictures at most."
    )
    on_bad_pair: str = option("raise", "A pair that can not be read ends it, or is left out.", choices=BAD_PAIRS)
    max_bad_share: float = option(0.01, "With --on_bad_pair drop: it stops if more than this share is bad.")
    list: bool = option(False, "Show what is in the folder, and do nothing.")

    def __post_init__(self) -> None:
        """Refuse values outside their range, by the rules of training."""
        if not self.list:
            if self.pairs is None or self.model is None:
                missing = "pairs" if self.pairs is None else "model"
                raise ConfigError(f"{missing} is missing; give {'PAIRS' if self.pairs is None else '--model'}")
            self.training()

    def training(self) -> PreferenceConfig:
        """Return the options of a training run that these stand for."""
        own = {"captions", "latents", "text", "list", "batch_size"}
        names = [field.name for field in fields(self) if field.name not in own]
        values: dict[str, Any] = {name: getattr(self, name) for name in names}
        return PreferenceConfig(
            **values,
            output_dir=self.cache_dir,
            cache_latents=self.latents,
            cache_text=self.text,
            cache_batch_size=self.batch_size,
        )


def run(options: Options) -> int:
    """Fill the caches, or list them."""
    if options.list:
        from t2ialign.trainers.caches.overview import lines, look

        say(*lines(look(options.cache_dir)))
        return 0
    import signal

    from t2ialign.trainers.caches.build import build_caches

    quiet_libraries()
    report = build_caches(options.training(), captions=options.captions, progress=is_first_process())
    flat = {name: value for name, value in report.items() if not isinstance(value, dict)}
    for kind in ("texts", "latents"):
        flat |= {f"{kind}.{name}": value for name, value in (report[kind] or {}).items() if name != "ingredients"}
    flat["bad"] = report["bad"]["count"]
    say(*figures(flat))
    name = report["signal"]
    return 0 if report["status"] == "done" or name is None else 128 + signal.Signals[name].value
