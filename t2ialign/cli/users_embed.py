"""`t2ialign users embed`: a user from a few labelled pairs (PPD)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from t2ialign.cli.output import is_first_process, quiet_libraries, say
from t2ialign.config import REQUIRED, option
from t2ialign.engine.signals import StopSignal
from t2ialign.errors import ConfigError

if TYPE_CHECKING:
    from t2ialign.data.pairs import PairDataset
    from t2ialign.users.shots import ShotSettings

DESCRIPTION = """Make embeddings of users from a few pairs that they judged, to train with (PPD) and to draw for them.

With an output named *.safetensors: one user. With a folder: a file for each user. Files that are there are kept."""

EXAMPLES = """examples:
  t2ialign users embed my_pairs --output users/alice.safetensors
  t2ialign users embed mini-user-pairs --split test --output users/seven.safetensors --user user-47 --shots 12
  t2ialign users embed my_pairs --output users --extractor clip:openai/clip-vit-large-patch14
  t2ialign users embed my_pairs --output users --extractor vlm:llava-hf/llava-onevision-qwen2-7b-ov-hf
"""

_OTHER_FILES = (".bin", ".ckpt", ".json", ".jsonl", ".npy", ".npz", ".parquet", ".pt", ".pth", ".yaml")


@dataclass
class Options:
    """Whom to embed, with what, and where to."""

    pairs: str = option(REQUIRED, "mini-user-pairs, a folder of pairs, or a hub dataset id.", positional=True)
    output: Path = option(REQUIRED, "One user's file, *.safetensors, or a folder for a file of each user.")
    user: str | None = option(None, "Which user. Default: the only one, or with a folder all of them.")
    split: str = option("train", "Which split of the pairs.")
    revision: str | None = option(None, "Branch, tag or commit of a hub dataset.")
    extractor: str = option(
        "clip:mini-clip", "clip:mini-clip, clip:FOLDER_OR_ID (a CLIPModel), vlm:FOLDER_OR_ID (a chat model that sees)."
    )
    shots: int = option(4, "Pairs that one embedding is made from.")
    pool: int | None = option(None, "Pairs of a user that shots are drawn from. Default: as many as shots.")
    embeddings: int = option(1, "Embeddings of a user, each of other shots out of the pool.")
    seed: int = option(0, "Seed of the choice of shots.")
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps; auto is a CUDA GPU where there is one.")

    def __post_init__(self) -> None:
        """Refuse names that are neither a user's file nor a folder's."""
        if self.output.suffix in _OTHER_FILES:
            raise ConfigError(f"output is {str(self.output)!r}; a user's file is named *.safetensors")


def run(options: Options) -> int:
    """Embed, in one process, and say whom, from what, and where to."""
    from t2ialign.data.pairs import load_pairs
    from t2ialign.users.shots import ShotSettings

    if not is_first_process():
        return 0
    quiet_libraries()
    settings = ShotSettings(options.shots, options.embeddings, options.pool, options.seed)
    pairs = load_pairs(options.pairs, split=options.split, revision=options.revision)
    if options.output.suffix == ".safetensors":
        return _one(options, settings, pairs)
    return _folder(options, settings, pairs)


def _one(options: Options, settings: ShotSettings, pairs: PairDataset) -> int:
    from t2ialign.users.embed import embed_one
    from t2ialign.users.extractors import load_extractor
    from t2ialign.users.shots import shortened, user_rows

    anonymous = options.user or options.output.stem
    known = user_rows(pairs, anonymous)
    if options.user is None and len(known) > 1:
        raise ConfigError(
            f"{pairs.name} has {len(known)} users: choose one with --user, or give a folder as --output: "
            f"{shortened(known, 20)}"
        )
    user = options.user or next(iter(known))
    extractor = load_extractor(options.extractor, options.device)
    with StopSignal() as stop:
        embedding = embed_one(
            options.output, pairs, extractor, settings, user=user, anonymous=anonymous, between=stop.check
        )
    count, tokens, width = embedding.tokens.shape
    say(
        f"{user}: {count} x {settings.shots} shots of {pairs.name} ({len(known[user])} pairs), {extractor.name}, "
        f"{tokens} tokens of width {width}",
        f"{options.output}",
    )
    return 0


def _folder(options: Options, settings: ShotSettings, pairs: PairDataset) -> int:
    from t2ialign.users.embed import embed_into
    from t2ialign.users.extractors import load_extractor

    extractor = load_extractor(options.extractor, options.device)
    users = None if options.user is None else [options.user]
    anonymous = options.user
    with StopSignal() as stop:
        made = embed_into(
            options.output,
            pairs,
            extractor,
            settings,
            users=users,
            anonymous=anonymous,
            progress=True,
            between=stop.check,
        )
    say(f"{len(made)} users of {pairs.name}, {extractor.name}", f"{options.output}")
    return 0
