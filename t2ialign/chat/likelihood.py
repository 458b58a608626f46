"""How likely a chat model finds a given answer: log-probabilities instead of words.

Law of this file: nothing is drawn. A model of transformers is led through the answer token by token, by its own
`generate`, so that pictures, padding and positions are handled as when it answers; an endpoint tells the likeliest
first tokens, and what it does not tell is not guessed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from t2ialign.errors import ModelError

if TYPE_CHECKING:
    import torch

    from t2ialign.chat.base import Question

LISTED = 20
"""Likeliest first tokens that an endpoint is asked for; OpenAI allows no more."""


@dataclass(frozen=True)
class Likelihood:
    """How likely an answer is.

    Attributes:
        key: That of the question.
        values: Natural logarithm of the probability of each token of the answer, given those before it; minus infinity
            where the answer is not among those that an endpoint lists; `None` where the model gave nothing.
        reason: Why there is nothing; empty otherwise.
    """

    key: str
    values: tuple[float, ...] | None
    reason: str = ""


@runtime_checkable
class TellsLikelihood(Protocol):
    """A chat model that also tells how likely an answer is."""

    def likelihoods(self, questions: Iterable[Question], answer: str) -> Iterator[Likelihood]:
        """Tell how likely one answer is to each of the questions, in any order.

        Raises:
            ModelError: If the model cannot be asked, or tells no log-probabilities.
        """
        ...

    def answer_tokens(self, answer: str) -> list[str]:
        """Return the tokens of an answer whose probabilities are told."""
        ...


def forced_log_probabilities(model: Any, inputs: Mapping[str, Any], tokens: Sequence[int]) -> torch.Tensor:
    """Lead a model of transformers through an answer.

    Args:
        model: With `generate`.
        inputs: Of `generate`, for B questions.
        tokens: Numbers of the T tokens of the answer.

    Returns:
        Log-probabilities of the tokens before any processing of `generate`, float32 [B, T] on the CPU.
    """
    import torch

    told = model.generate(
        **inputs,
        max_new_tokens=len(tokens),
        do_sample=False,
        num_beams=1,
        logits_processor=_leading(tokens),
        output_logits=True,
        return_dict_in_generate=True,
    )
    steps = [logits.float().log_softmax(dim=-1)[:, token] for logits, token in zip(told.logits, tokens, strict=True)]
    return torch.stack(steps, dim=1).cpu()


def _leading(tokens: Sequence[int]) -> Any:
    """Return a processor of logits that leaves one token at each step."""
    from transformers import LogitsProcessor, LogitsProcessorList

    waiting = list(tokens)

    class Leading(LogitsProcessor):  # type: ignore[misc]
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            forced = scores.new_full(scores.shape, -math.inf)
            forced[:, waiting.pop(0)] = 0.0
            return forced

    return LogitsProcessorList([Leading()])


def listed_log_probability(completion: Any, answer: str, who: str) -> float:
    """Read the log-probability of an answer of one token off an endpoint's list of likeliest first tokens.

    Args:
        completion: A chat completion with `logprobs`.
        answer: The answer; listed tokens that equal it but for outer blanks are added up.
        who: What to call the endpoint in messages.

    Returns:
        The natural logarithm; minus infinity where the answer is not listed.

    Raises:
        ModelError: If there is no list, or the model writes the answer in several tokens.
    """
    content = getattr(getattr(completion.choices[0], "logprobs", None), "content", None)
    if not content:
        raise ModelError(
            f"{who} tells no log-probabilities; choose a model and a server that do (OpenAI's models without "
            "reasoning, vLLM, SGLang, llama.cpp), or a model of transformers with hf:"
        )
    listed = {each.token: float(each.logprob) for each in (content[0].top_logprobs or [])}
    listed.setdefault(content[0].token, float(content[0].logprob))
    begun = content[0].token.strip(_BLANKS)
    if begun and begun != answer and answer.startswith(begun):
        raise ModelError(
            f"{who} writes {answer!r} in several tokens, the first of them {begun!r}; choose another answer"
        )
    found = [value for token, value in listed.items() if token.strip(_BLANKS) == answer]
    return math.log(math.fsum(math.exp(value) for value in found)) if found else -math.inf


_BLANKS = " \t\r\n\u2581\u0120"
"""Blanks, and the marks that stand for one in the vocabularies of sentencepiece and of GPT-2."""
