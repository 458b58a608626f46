"""Annotators: who rates pictures from 1 to 5 on VisionPrefer's four aspects (arXiv 2404.15100).

Law of this room: one interface (`base.Annotator`); an annotator's file is imported only when it is asked for; what an
annotator can not say is null.

* `oracle`: the mini-world's oracle, by rule; `scorers`: reward models as aspects; `replay`: earlier annotations
* `chat`: chat models, behind an OpenAI-compatible endpoint or in transformers; `questions`: what they are asked and
  how answers are read; `ledger`: tokens, money and the budget
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from t2ialign.errors import ConfigError

if TYPE_CHECKING:
    from t2ialign.annotation.annotate_options import AnnotateOptions
    from t2ialign.annotation.annotators.base import Annotator


def load_annotator(options: AnnotateOptions) -> Annotator:
    """Load the annotator that the options name.

    Raises:
        ConfigError: If the name or a setting is unknown.
        ModelError: If a model can not be loaded.
        DataError: If there are no annotations to replay.
    """
    kind, _, rest = options.annotator.strip().partition(":")
    if options.budget is not None and kind not in ("openai", "hf"):
        raise ConfigError(f"a budget is kept for openai: and hf: alone, and the annotator is {kind!r}; leave it out")
    if options.annotator.strip() == "oracle":
        from t2ialign.annotation.annotators.oracle import OracleAnnotator

        return OracleAnnotator()
    if not rest:
        raise ConfigError(
            f"unknown annotator {options.annotator!r}; known are oracle, openai:MODEL, hf:MODEL, scorers:a,b and "
            "replay:DIR"
        )
    if kind in ("openai", "hf"):
        return _chat(options)
    if kind == "scorers":
        from t2ialign.annotation.annotators.scorers import ScorersAnnotator

        return ScorersAnnotator.load(rest, options.scorer_settings())
    if kind == "replay":
        from t2ialign.annotation.annotators.replay import ReplayAnnotator

        if Path(rest).expanduser().resolve() == Path(options.output_dir).resolve():
            raise ConfigError(f"output_dir {options.output_dir} is what is to be replayed; choose another folder")
        return ReplayAnnotator(rest)
    raise ConfigError(
        f"unknown annotator {options.annotator!r}; known are oracle, openai:MODEL, hf:MODEL, scorers:a,b, replay:DIR"
    )


def _chat(options: AnnotateOptions) -> Annotator:
    from t2ialign.annotation.annotators.chat import ChatAnnotator, Manner
    from t2ialign.annotation.annotators.ledger import Prices
    from t2ialign.chat.options import load_chat, parse_spec

    backend, _, _ = parse_spec(options.annotator, options.chat)
    chat = load_chat(options.annotator, options.chat)
    manner = Manner(options.scale, options.calls, options.repeats, options.longest_side, options.seed)
    prices = Prices(options.price_prompt, options.price_completion, options.budget)
    return ChatAnnotator(f"{backend}:{chat.name}", chat, manner, prices)


__all__ = ["load_annotator"]
