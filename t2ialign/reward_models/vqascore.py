"""VQAScore: how likely a vision-language model finds "Yes" when asked if a picture shows its prompt (Lin et al. 2024,
arXiv 2404.01291).

Law of this file: the question, the answer and the definition are part of `version`, because published numbers of
several are about and are not comparable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from t2ialign.chat.base import Question
from t2ialign.chat.likelihood import TellsLikelihood
from t2ialign.chat.options import ChatOptions
from t2ialign.errors import ConfigError, ModelError
from t2ialign.reward_models.asking import AskingScorer, load_asked
from t2ialign.reward_models.base import check_pairs, spans, to_rgb

if TYPE_CHECKING:
    from t2ialign.reward_models.base import ImageInput

TEMPLATE = 'Does this figure show "{}"? Please answer yes or no.'
"""The question of the paper and of t2v_metrics up to 3.0; newer versions end in `Please answer Yes or No.`"""
ANSWER = "Yes"
"""The answer whose probability is the score."""
DEFINITIONS = {
    "probability": "P(answer): the product of the probabilities of its tokens",
    "geometric": "the geometric mean of the probabilities of its tokens, as t2v_metrics",
}
"""What `score` returns; both are the same where the answer is one token, as it mostly is."""


class VQAScore(AskingScorer):
    """VQAScore, in [0, 1], by any vision-language model that tells log-probabilities.

    Args:
        checkpoint: `hf:MODEL` (also without `hf:`), a folder or a hub id of a model of transformers with a chat
            template; or `openai:MODEL`, a model behind an endpoint that tells log-probabilities.
        definition: A key of `DEFINITIONS`.
        template: The question, with `{}` where the prompt goes.
        answer: The answer whose probability is the score; for an endpoint it must be one token.
        device: hf: as in torch, or `"auto"`.
        dtype: hf: `"auto"` is bfloat16 on a GPU, else float32.
        batch_size: hf: pictures in a forward; it does not change scores.
        revision: hf: of a model on the hub.
        base_url: openai: address of the endpoint; by default `OPENAI_BASE_URL`, or OpenAI's own.
        key_env: openai: name of the environment variable that holds the key.
        timeout: openai: seconds to wait for an answer.
        parallel: openai: questions under way at once.

    Raises:
        ConfigError: If a setting is out of range, or the template has no place for the prompt.
        ModelError: If the model cannot be loaded, or tells no log-probabilities.
    """

    name = "vqascore"

    def __init__(
        self,
        checkpoint: str = "",
        *,
        definition: str = "probability",
        template: str = TEMPLATE,
        answer: str = ANSWER,
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
        if definition not in DEFINITIONS:
            raise ConfigError(f"unknown VQAScore definition {definition!r}; choose one of {', '.join(DEFINITIONS)}")
        if template.count("{}") != 1 or not answer.strip():
            raise ConfigError(
                f"the template is {template!r} and the answer {answer!r}; the template must have {{}} once, where the "
                "prompt goes, and the answer must not be empty"
            )
        options = ChatOptions(
            max_new_tokens=1,
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
        if not isinstance(chat, TellsLikelihood):
            raise ModelError(f"{chat.name} tells no log-probabilities; VQAScore needs them")
        self._model = chat
        self.definition, self.template, self.answer = definition, template, answer
        self.not_listed = 0
        self.settings = {
            "definition": definition,
            "formula": DEFINITIONS[definition],
            "template": template,
            "answer": answer,
            "answer_tokens": chat.answer_tokens(answer),
        }
        self.version = f"{definition}:{chat.name}@{self.digest()}"

    def score(self, prompts: Sequence[str], images: Sequence[ImageInput]) -> torch.Tensor:
        """Score aligned pairs.

        Args:
            prompts: [B].
            images: [B], see `to_rgb`.

        Returns:
            float32 [B] on the CPU, in [0, 1]. NaN where an endpoint refuses a picture. Where an endpoint does not have
            the answer among its likeliest tokens the score is 0 (and counted in `not_listed`), as in t2v_metrics.
        """
        check_pairs(prompts, images)
        scores = torch.full((len(prompts),), math.nan)
        reasons = []
        for start, end in spans(len(prompts), self.batch_size):
            questions = [
                Question(str(i), self.template.replace("{}", prompts[i]), (to_rgb(images[i]),))
                for i in range(start, end)
            ]
            for told in self._model.likelihoods(questions, self.answer):
                if told.values is None:
                    reasons.append(told.reason)
                    continue
                total = math.fsum(told.values)
                self.not_listed += total == -math.inf
                scores[int(told.key)] = math.exp(total / (len(told.values) if self.definition == "geometric" else 1))
        self.note(reasons, len(prompts))
        return scores
