"""How long captions are for a CLIP text encoder, and which of them it would cut.

Law of this file: a count is exact with a tokenizer; without one it is called an estimate, and comes with the number
that is certain.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from t2ialign.errors import DataError

MAX_TOKENS = 77
"""What CLIP text encoders take, the begin and end tokens included (Radford et al. 2021, section 2.4)."""

_PIECES = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|[^\s\w]+|_+", re.IGNORECASE)
"""What CLIP's own pattern splits a text into before merging; each piece becomes one token or more."""
_LETTERS_A_TOKEN = 6
"""A word of up to this many letters is one token for the estimate; longer ones are split."""
_BATCH = 1024


@dataclass(frozen=True)
class CutCaptions:
    """How many captions a CLIP text encoder would cut.

    Attributes:
        count: Captions longer than `limit` tokens; an estimate where `exact` is false.
        certain: Captions that are certainly longer. Equals `count` where `exact` is true.
        longest: Tokens of the longest caption, begin and end included.
        limit: The most tokens taken.
        exact: Whether a tokenizer counted.
        method: What counted.
    """

    count: int
    certain: int
    longest: int
    limit: int
    exact: bool
    method: str

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes."""
        return asdict(self)


def count_cut(prompts: Sequence[str], tokenizer: str | Path | None = None) -> CutCaptions:
    """Count the captions that are cut.

    Args:
        prompts: The captions.
        tokenizer: Folder (a tokenizer's, or a pipeline's with `tokenizer/` in it) or hub id of a CLIP tokenizer.
            `None` estimates: words of up to 6 letters, digits and runs of punctuation count one token, longer words
            more.

    Raises:
        DataError: If the tokenizer can not be loaded.
    """
    unique = list(dict.fromkeys(prompts))
    if tokenizer is None:
        least = {text: 2 + len(_PIECES.findall(text)) for text in unique}
        lengths = {text: 2 + sum(_estimate(piece) for piece in _PIECES.findall(text)) for text in unique}
        limit, method = MAX_TOKENS, "estimate without a tokenizer"
    else:
        lengths, limit, method = _tokenized(unique, tokenizer)
        least = lengths
    cut, certain = (sum(table[text] > limit for text in prompts) for table in (lengths, least))
    return CutCaptions(cut, certain, max(lengths.values(), default=0), limit, tokenizer is not None, method)


def _estimate(piece: str) -> int:
    """Count a piece; letters beyond ASCII count a token each, as CLIP's byte pairs rarely merge them."""
    foreign = sum(not letter.isascii() for letter in piece)
    return max(1, math.ceil((len(piece) - foreign) / _LETTERS_A_TOKEN) + foreign)


def _tokenized(prompts: list[str], tokenizer: str | Path) -> tuple[dict[str, int], int, str]:
    from transformers import CLIPTokenizer

    folder = Path(tokenizer).expanduser()
    folder = folder / "tokenizer" if (folder / "tokenizer").is_dir() else folder
    try:
        loaded = CLIPTokenizer.from_pretrained(str(folder if folder.exists() else tokenizer))
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"the tokenizer {tokenizer} can not be loaded ({reason}); name a folder with a CLIP one"
        ) from error
    lengths: dict[str, int] = {}
    for start in range(0, len(prompts), _BATCH):
        batch = prompts[start : start + _BATCH]
        lengths |= {text: len(ids) for text, ids in zip(batch, loaded(batch, verbose=False)["input_ids"], strict=True)}
    limit = min(int(loaded.model_max_length), MAX_TOKENS)
    return lengths, limit, f"tokenizer {folder.name if folder.exists() else tokenizer}"
