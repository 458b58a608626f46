"""A vision-language judge: a mark from 1 to 5 for a picture, or which of two is better, asked in both orders.

Law of this file: what cannot be read is no answer. It is asked again a bounded number of times where asking again can
change it, then counted, and never filled in. A preference is one only if it holds in both orders.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from t2ialign.chat.base import Question
from t2ialign.chat.options import ChatOptions
from t2ialign.errors import ConfigError
from t2ialign.reward_models.asking import AskingScorer, load_asked
from t2ialign.reward_models.base import check_pairs, spans, to_rgb
from t2ialign.reward_models.judge_answers import (
    PAIRWISE,
    POINTWISE,
    Preference,
    Rating,
    preference,
    question,
    read_choice,
    read_rating,
)

if TYPE_CHECKING:
    from PIL import Image

    from t2ialign.reward_models.base import ImageInput

Read = TypeVar("Read")


class Judge(AskingScorer):
    """A vision-language model as a judge. As a scorer it gives 1 to 5; `prefer` compares two pictures.

    Args:
        checkpoint: `hf:MODEL` (also without `hf:`), a folder or a hub id of a model of transformers with a chat
            template; or `openai:MODEL`, a model behind an OpenAI-compatible endpoint.
        template: The question about one picture, with `{prompt}` where the prompt goes.
        pair_template: The question about two, likewise.
        attempts: How often a question is asked at most, until its answer can be read; a model that would only repeat
            itself (transformers without drawing) is asked once.
        max_new_tokens: The longest answer, in tokens.
        temperature: 0 takes the likeliest word each time.
        seed: Of answers that are drawn.
        device: hf: as in torch, or `"auto"`.
        dtype: hf: `"auto"` is bfloat16 on a GPU, else float32.
        batch_size: Pictures asked about at a time.
        revision: hf: of a model on the hub.
        base_url: openai: address of the endpoint; by default `OPENAI_BASE_URL`, or OpenAI's own.
        key_env: openai: name of the environment variable that holds the key.
        timeout: openai: seconds to wait for an answer.
        parallel: openai: questions under way at once.

    Raises:
        ConfigError: If a setting is out of range, or a template has no place for the prompt.
        ModelError: If the model cannot be loaded, or reads no words.
    """

    name = "judge"

    def __init__(
        self,
        checkpoint: str = "",
        *,
        template: str = POINTWISE,
        pair_template: str = PAIRWISE,
        attempts: int = 3,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int = 8,
        revision: str | None = None,
        base_url: str | None = None,
        key_env: str = "OPENAI_API_KEY",
        timeout: float = 120.0,
        parallel: int = 4,
    ) -> None:
        """Find the model; its weights are loaded when it is first asked."""
        if attempts < 1 or seed < 0:
            raise ConfigError(
                f"attempts is {attempts} and seed {seed}; attempts must be at least 1 and seed at least 0"
            )
        for given in (template, pair_template):
            if given.count("{prompt}") != 1:
                raise ConfigError(f"the template {given!r} must have {{prompt}} once, where the prompt goes")
        options = ChatOptions(
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            revision=revision,
            base_url=base_url,
            key_env=key_env,
            timeout=timeout,
            parallel=parallel,
        )
        chat, where = load_asked(self.name, checkpoint, options)
        super().__init__(chat, batch_size, where)
        self.template, self.pair_template, self.seed = template, pair_template, seed
        repeats_itself = chat.identity()["backend"] == "hf" and not temperature
        self.attempts = 1 if repeats_itself else attempts
        self.settings = {
            "formula": "the mark that the model gives, a whole number from 1 to 5",
            "template": template,
            "attempts": self.attempts,
            "seed": seed,
        }
        self.version = f"pointwise:{chat.name}@{self.digest()}"

    def score(self, prompts: Sequence[str], images: Sequence[ImageInput]) -> torch.Tensor:
        """Mark aligned pairs.

        Args:
            prompts: [B].
            images: [B], see `to_rgb`.

        Returns:
            float32 [B] on the CPU, 1 to 5; NaN where there is no readable answer.
        """
        ratings = self.rate(prompts, images)
        return torch.tensor([math.nan if each.score is None else float(each.score) for each in ratings])

    def rate(self, prompts: Sequence[str], images: Sequence[ImageInput]) -> list[Rating]:
        """Mark aligned pairs, with the model's reasons; as `score`."""
        check_pairs(prompts, images)
        ratings: list[Rating] = []
        for start, end in spans(len(prompts), self.batch_size):
            asked = [(question(self.template, prompts[i]), (to_rgb(images[i]),)) for i in range(start, end)]
            ratings += self._ask(asked, read_rating, lambda read: read.score is not None, _no_rating)
        self.note([each.problem for each in ratings if each.score is None], len(ratings))
        return ratings

    def prefer(
        self, prompts: Sequence[str], first: Sequence[ImageInput], second: Sequence[ImageInput]
    ) -> list[Preference]:
        """Compare pictures, each pair in both orders.

        Args:
            prompts: [B].
            first: [B].
            second: [B].

        Returns:
            [B]; see `judge_answers.count_preferences` for their sum.
        """
        check_pairs(prompts, first)
        check_pairs(prompts, second)
        found: list[Preference] = []
        for start, end in spans(len(prompts), self.batch_size):
            asked = []
            for i in range(start, end):
                words, one, two = question(self.pair_template, prompts[i]), to_rgb(first[i]), to_rgb(second[i])
                asked += [(words, (one, two)), (words, (two, one))]
            read = self._ask(asked, read_choice, lambda read: read[0] is not None, _no_choice)
            found += [preference(read[i], read[i + 1]) for i in range(0, len(read), 2)]
        self.note([each.problem for each in found if each.verdict is None], len(found))
        return found

    def _ask(
        self,
        asked: Sequence[tuple[str, tuple[Image.Image, ...]]],
        read: Callable[[str], Read],
        is_answer: Callable[[Read], bool],
        none: Callable[[str], Read],
    ) -> list[Read]:
        """Ask until every answer can be read, or `attempts` are used up."""
        found: dict[int, Read] = {}
        for attempt in range(self.attempts):
            left = [i for i in range(len(asked)) if i not in found or not is_answer(found[i])]
            questions = [Question(str(i), *asked[i], seed=self.seed + attempt) for i in left]
            for answer in self.chat.ask_all(questions):
                found[int(answer.key)] = none(answer.reason) if answer.text is None else read(answer.text)
        return [found[i] for i in range(len(asked))]

    def info(self) -> dict[str, Any]:
        """Say what is asked of which model, and what a score is."""
        return super().info() | {"pair_template": self.pair_template}


def _no_rating(reason: str) -> Rating:
    return Rating(None, problem=reason or "no answer")


def _no_choice(reason: str) -> tuple[str | None, str, str]:
    return None, "", reason or "no answer"
