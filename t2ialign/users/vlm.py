"""The extractor of PPD: a chat model that sees is shown a user's shots, thinks about them, and sums the user up.

Law: the text is greedy, so the shots decide it; the embedding is the state of the last generated token in every layer,
that of the embeddings included, each brought to a root mean square of 1.

This is stage 1 of PPD (arXiv 2501.06655); its model in the form of transformers is
`llava-hf/llava-onevision-qwen2-7b-ov-hf`, whose embeddings are [29, 3584]. The state of a token is what the model
predicted the next one from: as in the official code, the "last generated token" is the last step of the generation,
the one that gives the end of the text.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from t2ialign.data.pairs import PreferencePair
from t2ialign.data.sources import content_hash
from t2ialign.errors import ModelError
from t2ialign.users.extractors import check_shots, check_whole, loaded, named, source_of, unit_tokens

logger = logging.getLogger(__name__)

LAYOUT = "states of the last step in all layers, version 1"
"""What the tokens mean; a change of it or of the words below changes every extractor's name."""
MAX_NEW_TOKENS = 1024
"""Longest text, in tokens (the official code's value)."""

INTRODUCTION = "Here are pairs of pictures. In each pair, one person preferred the first picture over the second."
PAIR = "Pair {number}. Both pictures were made for the caption: {caption}"
CHOSEN = "The preferred picture:"
REJECTED = "The picture that was not preferred:"
QUESTIONS = """Look at style, visual quality and aesthetics, and answer three questions about this person.
1. What does each picture show, and how is it done?
2. In each pair, how do the preferred picture and the other one differ?
3. What do these choices have in common? Write a short profile of what this person likes and dislikes in pictures.

Use this form, and write nothing after the profile.
Pictures: [your answer to the first question]
Differences: [your answer to the second question]
User Profile: [the profile]"""

_IDENTITY = ("config.json", "tokenizer.json", "preprocessor_config.json", "processor_config.json", "chat_template.*")
"""Files of a folder that, with the weights, enter the name."""


@dataclass(frozen=True)
class Profile:
    """What the model made of some shots.

    Attributes:
        text: What it wrote, the profile last.
        tokens: The embedding, `[layers + 1, D]` float32.
        complete: Whether it came to an end by itself.
    """

    text: str
    tokens: Tensor
    complete: bool


class VlmExtractor:
    """All layers' states of the last token that a chat model wrote about a user.

    Args:
        checkpoint: A folder or a hub id that `AutoModelForImageTextToText` and `AutoProcessor` of transformers read,
            with safetensors weights and a chat template.
        device: As in torch.
        max_new_tokens: Longest text. A text that is cut gives the state of a word in the middle, not of the end.

    Attributes:
        name: See `Extractor`.

    Raises:
        ModelError: If there is no such checkpoint, or it has no chat template.
    """

    name: str

    def __init__(self, checkpoint: str, device: str = "cpu", max_new_tokens: int = MAX_NEW_TOKENS) -> None:
        """Load model and processor; in the stored precision, but in float32 on a CPU."""
        dtype: Any = torch.float32 if torch.device(device).type == "cpu" else "auto"
        self._model, self._processor = loaded(
            "image-text-to-text model of transformers", checkpoint, lambda: _load(source_of(checkpoint), dtype)
        )
        if not getattr(self._processor, "chat_template", None):
            raise ModelError(f"{checkpoint!r} has no chat template; choose a model that was tuned to chat")
        if getattr(self._model.config, "is_encoder_decoder", False):
            raise ModelError(f"{checkpoint!r} has an encoder and a decoder; choose a model with a decoder alone")
        self._model = self._model.eval().requires_grad_(False).to(device)
        self._max_new_tokens = max_new_tokens
        words = (INTRODUCTION, PAIR, CHOSEN, REJECTED, QUESTIONS)
        self.name = named("vlm", checkpoint, LAYOUT, *words, _version(checkpoint, self._model))

    def extract(self, shots: Sequence[PreferencePair]) -> Tensor:
        """See `Extractor`; shape `[layers + 1, D]`, the state of the embeddings first. The order of shots matters."""
        return self.describe(shots).tokens

    def describe(self, shots: Sequence[PreferencePair]) -> Profile:
        """Have the model write about the shots, and return text and embedding.

        Raises:
            DataError: If there are no shots.
            ModelError: If the model hands out no hidden states, or numbers that are not finite.
        """
        check_shots(shots)
        made = self._generate(self._inputs(shots))
        steps = getattr(made, "hidden_states", None)
        if not steps:
            raise ModelError(f"{self.name} hands out no hidden states; choose another model")
        tokens = unit_tokens(torch.stack([layer[0, -1] for layer in steps[-1]]))
        if not bool(torch.isfinite(tokens).all()):
            raise ModelError(f"{self.name} gave numbers that are not finite; try another device or model")
        written = made.sequences[0, -len(steps) :].tolist()
        complete = len(steps) < self._max_new_tokens or written[-1] in self._ends()
        text = self._processor.decode(written, skip_special_tokens=True).strip()
        logger.debug("%s wrote: %s", self.name, text)
        if not complete:
            logger.warning(
                "%s did not come to an end within %d tokens: the embedding is that of a word in the middle",
                self.name,
                self._max_new_tokens,
            )
        return Profile(text, tokens, complete)

    @torch.inference_mode()
    def _generate(self, inputs: Any) -> Any:
        """Write greedily, and keep the hidden states of every step."""
        try:
            return self._model.generate(
                **inputs,
                do_sample=False,
                num_beams=1,
                temperature=None,
                top_p=None,
                top_k=None,
                max_new_tokens=self._max_new_tokens,
                output_hidden_states=True,
                return_dict_in_generate=True,
            )
        except torch.cuda.OutOfMemoryError as error:
            raise ModelError(f"{self.name}: the GPU's memory is full; give fewer shots, or a smaller model") from error

    def _inputs(self, shots: Sequence[PreferencePair]) -> Any:
        inputs = self._processor.apply_chat_template(
            [{"role": "user", "content": message(shots, self._special())}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        return inputs.to(self._model.device, self._model.dtype)

    def _special(self) -> list[str]:
        """Words that the model takes for something else than text, such as the one that stands for a picture."""
        tokenizer = self._processor.tokenizer
        found = {str(word) for word in (*tokenizer.all_special_tokens, *tokenizer.get_added_vocab())}
        return sorted(found | {str(getattr(self._processor, "image_token", None) or "<image>")}, key=len, reverse=True)

    def _ends(self) -> list[int]:
        ends = self._model.generation_config.eos_token_id
        return list(ends) if isinstance(ends, list | tuple) else [ends]


def message(shots: Sequence[PreferencePair], special: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Compose what the model is asked: introduction, each pair with its caption, and three questions.

    The order is that of PPD's official prompt, the words are ours.

    Args:
        shots: The pairs.
        special: Words that are cut out of captions, because they are no text to the model.

    Returns:
        The parts of one chat message; the preferred picture of a pair stands before the other.
    """
    parts = [_text(INTRODUCTION)]
    for number, shot in enumerate(shots, 1):
        caption = shot.prompt
        for word in special:
            caption = caption.replace(word, " ")
        parts += [_text(PAIR.format(number=number, caption=caption))]
        for words, picture in ((CHOSEN, shot.chosen), (REJECTED, shot.rejected)):
            parts += [_text(words), {"type": "image", "image": picture}]
    return [*parts, _text(QUESTIONS)]


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": f"{text}\n"}


def _load(checkpoint: str, dtype: Any) -> tuple[Any, Any]:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model, found = AutoModelForImageTextToText.from_pretrained(
        checkpoint, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True
    )
    check_whole(checkpoint, list(found["missing_keys"]))
    return model, AutoProcessor.from_pretrained(checkpoint, trust_remote_code=False)


def _version(checkpoint: str, model: Any) -> str:
    """Say which model this is: the content of a folder's files (large ones by samples), or the commit on the hub."""
    folder = Path(checkpoint).expanduser()
    if not folder.is_dir():
        return str(getattr(model.config, "_commit_hash", None))
    return content_hash(sorted(file for pattern in ("*.safetensors", *_IDENTITY) for file in folder.glob(pattern)))
