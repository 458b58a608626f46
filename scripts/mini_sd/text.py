"""Stage 2: the tokenizer, and a text encoder that learns to say what a caption asks for.

The encoder is pre-trained on captions alone, before the UNet sees it: from the end token it must
tell every attribute, and from each word's state the part that the word plays.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from mini_sd.fit import Schedule, fit
from mini_sd.pictures import caption
from t2ialign.mini.flags import CONTINENTS, FLAGS
from t2ialign.mini.world import (
    BACKGROUND_COLORS,
    OBJECT_COLORS,
    SHAPES,
    SIZES,
    Spec,
    captions_vocabulary,
    parse,
    sample,
    turn_around,
)

LENGTH = 24
"""Tokens of a caption, with start, end and padding; the longest caption of the world has 18."""
START, END = "<|startoftext|>", "<|endoftext|>"
PLACES = ("only", "left of", "right of", "above", "below")
"""Where an object of a scene stands: alone, or relative to the other one."""


def new_tokenizer(folder: Path) -> CLIPTokenizer:
    """Train byte-pair merges until every word of the world is one token; other words split."""
    words = captions_vocabulary()
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    letters = sorted({c for w in words for c in w} | set("abcdefghijklmnopqrstuvwxyz0123456789.,'-"))
    trainer = trainers.BpeTrainer(
        vocab_size=4000, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(words)] * 2, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.model.save(str(folder))
    merges = [tuple(m.split()) for m in (folder / "merges.txt").read_text().splitlines()[1:]]
    names = list(tokenizer.get_vocab())
    names = [*sorted(set(names) | {letter + "</w>" for letter in letters}), START, END]
    vocabulary = {name: i for i, name in enumerate(names)}
    made = CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        model_max_length=LENGTH,
        bos_token=START,
        eos_token=END,
        unk_token=END,
        pad_token=END,
    )
    made.save_pretrained(folder)
    split = [w for w in words if len(made(w, add_special_tokens=False).input_ids) != 1]
    if split:
        raise RuntimeError(f"these words are not one token each: {split}")
    return made


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Make an untrained text encoder: 4 layers of 128."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            projection_dim=128,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Turn captions into ids [B, LENGTH]."""
    ids = tokenizer(captions, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
    return ids.input_ids  # type: ignore[no-any-return]


def _number(values: tuple[str, ...], value: str | None) -> int:
    return 0 if value is None else 1 + values.index(value)


QUESTIONS: dict[str, tuple[str, ...]] = {
    "kind": ("scene", "flag"),
    "background": tuple(BACKGROUND_COLORS),
    "country": tuple(FLAGS),
    "continent": CONTINENTS,
    **{f"shape {place}": SHAPES for place in PLACES},
    **{f"color {place}": tuple(OBJECT_COLORS) for place in PLACES},
    "size only": SIZES,
}
"""Every attribute that a caption may ask for, and its values; 0 stands for unasked."""


def answers(spec: Spec) -> list[int]:
    """Return the answer to each of `QUESTIONS`, as far as a caption's specification says it."""
    told: dict[str, str | None] = {
        "kind": spec.kind,
        "background": spec.background,
        "country": spec.country,
        "continent": spec.continent,
    }
    sides = [spec] if len(spec.things) == 1 else [spec, turn_around(spec)] if spec.things else []
    for side in sides:
        place = side.relation or "only"
        told[f"shape {place}"] = side.things[0].shape
        told[f"color {place}"] = side.things[0].color
        if place == "only":
            told["size only"] = side.things[0].size
    return [_number(values, told.get(name)) for name, values in QUESTIONS.items()]


def roles(words: list[str]) -> list[int]:
    """Number the part that each word plays: by its kind, and by how many of the kind came before."""
    kinds: list[tuple[str, ...]] = [SHAPES, tuple(OBJECT_COLORS), SIZES, ("left", "right", "above", "below")]
    kinds += [tuple(BACKGROUND_COLORS), ("flag",)]
    seen = [0] * len(kinds)
    found = []
    for word in words:
        kind = next((i for i, values in enumerate(kinds) if word in values), None)
        if kind is None:
            found.append(0)
            continue
        found.append(1 + 2 * kind + min(seen[kind], 1))
        seen[kind] += 1
    return found


ROLES = 13


class _Heads(nn.Module):
    def __init__(self, encoder: CLIPTextModel) -> None:
        super().__init__()
        self.encoder = encoder
        self.answers = nn.ModuleList(nn.Linear(128, 1 + len(v)) for v in QUESTIONS.values())
        self.roles = nn.Linear(128, ROLES)


def train_text_encoder(work: Path, seed: int, schedule: Schedule, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Pre-train the text encoder on captions alone."""
    torch.manual_seed(seed)
    model = _Heads(new_text_encoder(tokenizer))

    def loss_of(step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        captions = [caption(sample(rng), rng)[0] for _ in range(128)]
        out = model.encoder(tokenize(tokenizer, captions))
        wanted = torch.tensor([answers(parse(c)) for c in captions])
        losses = [
            nn.functional.cross_entropy(head(out.pooler_output), wanted[:, i]) for i, head in enumerate(model.answers)
        ]
        parts = torch.full((len(captions), LENGTH), -100)
        for i, text in enumerate(captions):
            numbers = roles(text.lower().split())
            parts[i, 1 : 1 + len(numbers)] = torch.tensor(numbers)
        role = nn.functional.cross_entropy(model.roles(out.last_hidden_state).flatten(0, 1), parts.flatten())
        return torch.stack(losses).sum() + role, {"worst": float(max(losses).detach()), "role": float(role.detach())}

    fit("text", model, loss_of, schedule, work, seed=seed, save_every=250)
    return model.encoder.eval()
