"""`t2ialign label`: a page where a person picks the better of two pictures."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from t2ialign.annotation.label.options import LabelOptions
from t2ialign.cli.output import quiet_libraries, say
from t2ialign.config import option
from t2ialign.errors import ConfigError

DESCRIPTION = """Serve a page on 127.0.0.1 where a person picks the better of two pictures: left and right arrow, t for
a tie, s to skip, u or backspace to undo. Every answer is on disk, and in the pairs, before the next question comes.

Ctrl-C or the page's Finish ends it; the same command goes on. Nothing but this machine can reach the page."""

EXAMPLES = """examples:
  t2ialign label sets/base --output_dir labels --user alice
  t2ialign label sets/base --output_dir labels --user alice --limit 8 --embed_user users/alice.safetensors
  t2ialign label my_pairs --output_dir second_opinion --user bob --open
"""


@dataclass
class Options(LabelOptions):
    """What is shown to whom, where the answers go, and what becomes of them."""

    embed_user: Path | None = option(
        None, "When finished, embed the user from the labels into this file, *.safetensors (users embed)."
    )
    extractor: str = option("clip:mini-clip", "What makes the embedding; see users embed.")

    def __post_init__(self) -> None:
        """Refuse a file that users embed would not write."""
        super().__post_init__()
        if self.embed_user is not None and self.embed_user.suffix != ".safetensors":
            raise ConfigError(f"embed_user is {str(self.embed_user)!r}; a user's file is named *.safetensors")


def run(options: Options) -> int:
    """Serve the page, then say what was labelled and what comes next."""
    from t2ialign.annotation.label.run import label

    summary = label(options, _started(options.open))
    say(*summary.lines())
    if options.embed_user is not None:
        _embed(options, options.embed_user)
    elif summary.preferred:
        words = ["t2ialign", "users", "embed", str(options.output_dir), "--user", options.user]
        file = f"users/{options.user if options.user.isidentifier() else 'user'}.safetensors"
        say(f"next: {shlex.join([*words, '--output', file])}")
    return 0


def _embed(options: Options, output: Path) -> None:
    from t2ialign.data.pairs import load_pairs
    from t2ialign.users.embed import embed_one
    from t2ialign.users.extractors import load_extractor

    quiet_libraries()
    pairs, extractor = load_pairs(options.output_dir), load_extractor(options.extractor)
    embedding = embed_one(output, pairs, extractor, user=options.user)
    say(f"{options.user}: {len(embedding.shots[0])} shots, {extractor.name}", f"{output}")


def _started(open_page: bool) -> Callable[[str], None]:
    def tell(url: str) -> None:
        print(f"{url}\nOpen this address; Ctrl-C ends.", flush=True)
        if open_page:
            import webbrowser

            webbrowser.open(url)

    return tell
