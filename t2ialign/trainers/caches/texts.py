"""Captions, encoded once: hidden states of the text encoders, and for SDXL the pooled embedding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from t2ialign.errors import ModelError
from t2ialign.models.conditioning import Conditioning
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.trainers.caches.filling import Filled, Way, Work, fill
from t2ialign.trainers.caches.keys import caption_keys
from t2ialign.trainers.caches.store import Rows, Store

CAPTIONS_AT_ONCE = 32


@dataclass(frozen=True)
class TextCache:
    """Encoded captions.

    Attributes:
        rows: Where they are.
        places: Of each caption.
        filled: What filling it did, if it was.
    """

    rows: Rows
    places: Mapping[str, int]
    filled: Filled | None = None

    def read(self, captions: Sequence[str]) -> Conditioning:
        """Return a row for each caption."""
        found = [self.rows.read(self.places[caption]) for caption in captions]
        pooled = torch.stack([row["pooled"] for row in found]) if "pooled" in found[0] else None
        return Conditioning(torch.stack([row["hidden"] for row in found]), pooled)


def fill_texts(
    model: DiffusionModel,
    captions: Sequence[str],
    store: Store,
    *,
    zeros: bool,
    stored: torch.dtype | None = None,
    way: Way | None = None,
) -> TextCache | None:
    """Encode every caption that is not in a store; None if it was interrupted.

    Args:
        model: Whose text encoders encode.
        captions: Different ones.
        store: Of rows that share what `keys.text_ingredients` says.
        zeros: Whether zeros stand for an empty caption where the model's configuration asks for it.
        stored: Number format of the rows; that of the encoders by default.
        way: How.

    Raises:
        DataError: for a disk that is full.
        ModelError: if a caption's hidden states are not finite.
    """
    way = way or Way()
    keys = caption_keys(model, captions, zeros=zeros)
    jobs = dict(zip(reversed(keys), reversed(captions), strict=True))  # of captions that the encoder cuts, the first
    jobs = {key: jobs[key] for key in dict.fromkeys(keys)}

    @torch.no_grad()
    def encode(some: Sequence[tuple[bytes, str]]) -> Iterator[tuple[bytes, dict[str, Tensor]]]:
        """Yield the rows of some captions, encoded together."""
        plain = [caption for _, caption in some]
        text = model.encode_prompts(plain, force_zeros_for_empty_prompt=zeros, steady=True)
        parts = {"hidden": text.hidden} | ({} if text.pooled is None else {"pooled": text.pooled})
        parts = {name: part.to(device="cpu", dtype=stored or part.dtype) for name, part in parts.items()}
        for number, (key, caption) in enumerate(some):
            row = {name: part[number] for name, part in parts.items()}
            if not all(bool(part.isfinite().all()) for part in row.values()):
                raise ModelError(
                    f"the caption {caption[:80]!r}: its hidden states are not finite (the text encoders of "
                    f"{model.name} work in half precision?); use --mixed_precision bf16 or no"
                )
            yield key, row

    def make(wanted: Iterable[tuple[bytes, str]]) -> Iterator[tuple[bytes, dict[str, Tensor]]]:
        some: list[tuple[bytes, str]] = []
        for each in wanted:
            some.append(each)
            if len(some) == CAPTIONS_AT_ONCE:
                yield from encode(some)
                some = []
        if some:
            yield from encode(some)

    size = caption_bytes(model, stored) if jobs else 0
    filled = fill(store, Work("captions", jobs, lambda caption: size, make), way)
    if filled is None:
        return None
    places = dict(zip(captions, (int(place) for place in store.places(keys)), strict=True))
    return TextCache(store.rows, places, filled)


def caption_bytes(model: DiffusionModel, stored: torch.dtype | None = None) -> int:
    """Return the size of an encoded caption."""
    text = model.encode_prompts([""])
    parts = [text.hidden] + ([] if text.pooled is None else [text.pooled])
    return sum(part.numel() * (stored or part.dtype).itemsize for part in parts)
