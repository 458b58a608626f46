"""Models of transformers as chat models: with pictures and a chat template, plain captioners, and text alone.

Law of this file: safetensors only, and no code from a repository. Words that would steer the model (its own special
tokens) are taken out of a question. Where words are drawn, a question is answered alone, from its own seed; otherwise
several are answered at once, padded on the left, and an answer is the same but for rounding.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from t2ialign.chat.base import Answer, NoAnswerError, Question, Usage
from t2ialign.chat.likelihood import Likelihood, forced_log_probabilities
from t2ialign.chat.options import ChatOptions
from t2ialign.data.sources import content_hash
from t2ialign.errors import ModelError
from t2ialign.problems import hub_problem, loading_errors, short

if TYPE_CHECKING:
    from PIL import Image

Encode = Callable[[Sequence[Question]], Any]
"""Questions to the inputs of `generate`."""


class HFChat:
    """A model of transformers that writes text. Made by `load_hf`.

    The weights are loaded when it is first asked, and may be given back in between, so that several large models can
    be used one after the other.
    """

    def __init__(
        self,
        name: str,
        source: _Source,
        tokenizer: Any,
        encode: Encode,
        options: ChatOptions,
        *,
        takes_instructions: bool,
    ) -> None:
        """Take where the weights come from, and what turns questions into inputs."""
        self.name = name
        self.tokenizer = tokenizer
        self.options = options
        self.takes_instructions = takes_instructions
        self._source = source
        self._encode = encode
        self._loaded: Any = None
        self._cut = 0

    @property
    def model(self) -> Any:
        """The model with its weights, in evaluation mode.

        Raises:
            ModelError: If they can not be loaded.
        """
        if self._loaded is None:
            self._loaded = self._source.load(_dtype(self.options), _device(self.options))
        return self._loaded

    def close(self) -> None:
        """See `ChatModel`."""
        self._loaded = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def ask(self, text: str, images: Sequence[Image.Image] = (), *, seed: int = 0) -> str:
        """See `ChatModel`."""
        answer = self._answers([Question("", text, tuple(images), seed)])[0]
        if answer.text is None:
            raise NoAnswerError(answer.reason)
        return answer.text

    def ask_all(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """See `ChatModel`."""
        size = 1 if self.options.temperature else self.options.batch_size
        waiting = iter(questions)
        while batch := list(islice(waiting, size)):
            for count in sorted({len(question.images) for question in batch}):
                yield from self._answers([question for question in batch if len(question.images) == count])

    def likelihoods(self, questions: Iterable[Question], answer: str) -> Iterator[Likelihood]:
        """See `TellsLikelihood`; all tokens of the answer are told, without one that ends it."""
        tokens = self.tokenizer.encode(answer, add_special_tokens=False)
        waiting = iter(questions)
        while batch := list(islice(waiting, self.options.batch_size)):
            for count in sorted({len(question.images) for question in batch}):
                same = [question for question in batch if len(question.images) == count]
                with torch.inference_mode():
                    _, told = self._run(
                        same, lambda inputs: forced_log_probabilities(self.model, inputs, tokens).tolist()
                    )
                for question, values in zip(same, told, strict=True):
                    yield Likelihood(question.key, tuple(values))

    def answer_tokens(self, answer: str) -> list[str]:
        """See `TellsLikelihood`."""
        tokens: list[str] = self.tokenizer.convert_ids_to_tokens(
            self.tokenizer.encode(answer, add_special_tokens=False)
        )
        return tokens

    def identity(self) -> dict[str, Any]:
        """See `ChatModel`."""
        return {
            "backend": "hf",
            "model": self.name,
            "revision": self._source.commit or self.options.revision,
            "weights": self._source.digest,
            "dtype": str(_dtype(self.options)).removeprefix("torch."),
            "max_new_tokens": self.options.max_new_tokens,
            "temperature": self.options.temperature,
            "top_p": self.options.top_p,
        }

    def info(self) -> dict[str, Any]:
        """See `ChatModel`."""
        return self.identity() | {
            "architecture": self._source.model_type,
            "device": _device(self.options).type,
            "batch_size": self.options.batch_size,
            "stopped_at_max_new_tokens": self._cut,
            "versions": {name: version(name) for name in ("transformers", "torch")},
        }

    @torch.inference_mode()
    def _answers(self, questions: Sequence[Question]) -> list[Answer]:
        with self._drawing_from(questions[0].seed):
            inputs, written = self._run(questions, lambda inputs: self.model.generate(**inputs, **self._how()))
        written = _without_prompt(written, inputs.get("input_ids"))
        self._cut += sum(self._is_cut(row) for row in written)
        texts = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        read = _lengths(inputs, len(questions))
        found = zip(questions, texts, read, written, strict=True)
        return [_answer(question, text, Usage(0, count, self._length(row))) for question, text, count, row in found]

    def _run(self, questions: Sequence[Question], run: Callable[[dict[str, Any]], Any]) -> tuple[Any, Any]:
        """Encode questions and run the model on them; returns the inputs and what came out."""
        if any(question.text for question in questions) and not self.takes_instructions:
            raise ModelError(f"{self.name} is a plain captioner and reads no words; ask it with pictures alone")
        try:
            inputs = self._encode(questions).to(self.model.device)
            return inputs, run(self._typed(inputs))
        except torch.cuda.OutOfMemoryError as error:
            raise ModelError(f"{self.name}: the GPU's memory is full; lower batch_size") from error
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            raise ModelError(f"{self.name} can not answer: {type(error).__name__}: {short(error)}") from error

    def _how(self) -> dict[str, Any]:
        how: dict[str, Any] = {"max_new_tokens": self.options.max_new_tokens, "do_sample": False}
        if self.options.temperature:
            how |= {"do_sample": True, "temperature": self.options.temperature, "top_p": self.options.top_p}
            how["top_k"] = 0
        return how

    def _typed(self, inputs: Any) -> dict[str, Any]:
        """Bring pictures to the model's number format; token numbers stay whole."""
        return {
            name: value.to(self.model.dtype) if torch.is_tensor(value) and value.is_floating_point() else value
            for name, value in inputs.items()
        }

    def _drawing_from(self, seed: int) -> Any:
        from contextlib import ExitStack

        stack = ExitStack()
        if self.options.temperature:
            device = self.model.device
            stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
            torch.manual_seed(seed)
        return stack

    def _is_cut(self, row: torch.Tensor) -> bool:
        """Whether an answer was ended by `max_new_tokens`, not by the model."""
        return len(row) >= self.options.max_new_tokens and not self._ends() & set(row.tolist())

    def _length(self, row: torch.Tensor) -> int:
        """Count the tokens of an answer, up to the one that ends it."""
        ends = self._ends()
        return next((place for place, token in enumerate(row.tolist(), 1) if token in ends), len(row))

    def _ends(self) -> set[int | None]:
        ends = self.model.generation_config.eos_token_id
        return set(ends) if isinstance(ends, list) else {ends}


def _answer(question: Question, text: str, usage: Usage) -> Answer:
    text = text.strip()
    if text:
        return Answer(question.key, text, usage=usage)
    return Answer(question.key, None, "an empty answer", usage=usage)


def _lengths(inputs: Any, count: int) -> list[int | None]:
    """Count the tokens of each question, padding apart; `None` for a captioner, which reads none."""
    mask = inputs.get("attention_mask")
    return [None] * count if mask is None else mask.sum(-1).tolist()


def _without_prompt(written: torch.Tensor, prompt: torch.Tensor | None) -> torch.Tensor:
    """Take the question off the front, where a model repeats it there; [B, T]."""
    if prompt is None or written.shape[1] < prompt.shape[1]:
        return written
    repeated = torch.equal(written[:, : prompt.shape[1]], prompt.to(written.device))
    return written[:, prompt.shape[1] :] if repeated else written


@dataclass(frozen=True)
class _Source:
    """Where weights come from.

    Attributes:
        kind: Class that loads them.
        where: Folder or hub id, as transformers takes it.
        name: What the model is called.
        given: What the user wrote.
        revision: Branch, tag or commit that was asked for.
        commit: The commit of a hub model.
        digest: Of the weights in a folder, whose name alone says little.
        model_type: As the configuration has it.
    """

    kind: Any
    where: str
    name: str
    given: str
    revision: str | None
    commit: str | None
    digest: str | None
    model_type: str

    def load(self, dtype: torch.dtype, device: torch.device) -> Any:
        try:
            model = self.kind.from_pretrained(
                self.where, revision=self.revision, dtype=dtype, use_safetensors=True, trust_remote_code=False
            )
            return model.eval().requires_grad_(False).to(device)
        except torch.cuda.OutOfMemoryError as error:
            raise ModelError(f"{self.name} does not fit into the GPU's memory ({short(error)})") from error
        except loading_errors() as error:
            raise ModelError(_problem(self.name, self.given, self.revision, error)) from error

    def check(self) -> None:
        """Refuse a model without safetensors before anything is asked; a single file is fetched if need be."""
        from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

        for file in (SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME):
            if cached_file(self.where, file, revision=self.revision, _raise_exceptions_for_missing_entries=False):
                return
        at = f" at revision {self.revision}" if self.revision else ""
        raise ModelError(
            f"{self.name}{at} has no safetensors weights, and no others are read; choose a revision that has them, or "
            "save them anew with save_pretrained in a place where you trust the file"
        )


def load_hf(source: str, options: ChatOptions) -> HFChat:
    """Find a model of transformers, with its tokenizer; its weights are loaded when it is first asked.

    Args:
        source: A folder or a hub id of an image-text-to-text model with a chat template (LLaVA, Qwen-VL, ...), a plain
            captioner (BLIP, GIT, ViT-GPT2), a causal language model with a chat template, or a text-to-text one (T5).
        options: See `ChatOptions`.

    Raises:
        ModelError: If it is not there, is of another kind, or has no safetensors weights.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForSeq2SeqLM
    from transformers.models.auto import modeling_auto as auto

    folder = Path(source).expanduser()
    where = str(folder) if folder.is_dir() else source
    name = folder.resolve().name if folder.is_dir() else source
    kinds = (
        (auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoModelForImageTextToText, _with_pictures),
        (auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, AutoModelForSeq2SeqLM, _text_to_text),
        (auto.MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, _text_chat),
    )
    try:
        config = AutoConfig.from_pretrained(where, revision=options.revision, trust_remote_code=False)
        found = next(((model, prepare) for known, model, prepare in kinds if type(config) in known), None)
        if found is None:
            raise ModelError(f"{name} is a {config.model_type} model, which writes no text about pictures or texts")
        kind, prepare = found
        commit = getattr(config, "_commit_hash", None)
        digest = content_hash(sorted(folder.glob("*.safetensors"))) if folder.is_dir() else None
        weights = _Source(kind, where, name, source, options.revision, commit, digest, config.model_type)
        weights.check()
        tokenizer, encode, takes_instructions = prepare(name, where, options)
    except loading_errors() as error:
        raise ModelError(_problem(name, source, options.revision, error)) from error
    return HFChat(name, weights, tokenizer, encode, options, takes_instructions=takes_instructions)


def _device(options: ChatOptions) -> torch.device:
    if options.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(options.device)


def _dtype(options: ChatOptions) -> torch.dtype:
    if options.dtype == "auto":
        return torch.bfloat16 if _device(options).type == "cuda" else torch.float32
    found: torch.dtype = getattr(torch, options.dtype)
    return found


def _problem(name: str, source: str, revision: str | None, error: Exception) -> str:
    if Path(source).expanduser().exists() or not isinstance(error, OSError):
        return f"{name} can not be loaded as a chat model of transformers: {short(error)}"
    return hub_problem(source, revision, error, kind="chat model of transformers")


def _loaded(kind: Any, where: str, options: ChatOptions) -> Any:
    """Load a tokenizer or processor, from the model's place or from the one named for it."""
    if options.tokenizer is not None:
        folder = Path(options.tokenizer).expanduser()
        try:
            return kind.from_pretrained(str(folder) if folder.is_dir() else options.tokenizer, trust_remote_code=False)
        except loading_errors() as error:
            raise ModelError(_problem(options.tokenizer, options.tokenizer, None, error)) from error
    return kind.from_pretrained(where, revision=options.revision, trust_remote_code=False)


def _ready(tokenizer: Any) -> Any:
    """Have a tokenizer pad on the left, where answers are written on the right."""
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _harmless(text: str, tokenizer: Any, processor: Any = None) -> str:
    """Take the model's special tokens (the mark of a picture among them) out of a text."""
    marks = {*tokenizer.all_special_tokens, getattr(processor, "image_token", None)}
    for mark in sorted((mark for mark in marks if isinstance(mark, str) and mark), key=len, reverse=True):
        text = text.replace(mark, " ")
    return text


def _with_pictures(name: str, where: str, options: ChatOptions) -> tuple[Any, Encode, bool]:
    """Prepare an image-text-to-text model: by its chat template, or as a plain captioner where it has none."""
    from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

    processor = _loaded(AutoProcessor, where, options)
    whole = hasattr(processor, "image_processor") and hasattr(processor, "tokenizer")
    tokenizer = _ready(processor.tokenizer if whole else _loaded(AutoTokenizer, where, options))
    if whole and getattr(processor, "chat_template", None):
        return tokenizer, lambda questions: _chat_inputs(processor, questions), True
    prepare = processor if whole else _loaded(AutoImageProcessor, where, options)

    def pictures(questions: Sequence[Question]) -> Any:
        if any(len(question.images) != 1 for question in questions):
            raise ModelError(f"{name} is a plain captioner: it takes one picture a question")
        return prepare(images=[question.images[0] for question in questions], return_tensors="pt")

    return tokenizer, pictures, False


def _chat_inputs(processor: Any, questions: Sequence[Question]) -> Any:
    tokenizer = processor.tokenizer
    prompts = []
    for question in questions:
        content = [
            {"type": "text", "text": _harmless(part, tokenizer, processor)} if isinstance(part, str) else _IMAGE
            for part in question.parts()
        ]
        prompts.append(_prompt(processor, content))
    pictures = [list(question.images) for question in questions] if questions[0].images else None
    begun = bool(tokenizer.bos_token) and prompts[0].startswith(tokenizer.bos_token)
    return processor(text=prompts, images=pictures, padding=True, return_tensors="pt", add_special_tokens=not begun)


_IMAGE = {"type": "image"}


def _prompt(templated: Any, content: Any) -> str:
    messages = [{"role": "user", "content": content}]
    return str(templated.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))


def _text_chat(name: str, where: str, options: ChatOptions) -> tuple[Any, Encode, bool]:
    """Prepare a causal language model that has a chat template."""
    from transformers import AutoTokenizer

    tokenizer = _ready(_loaded(AutoTokenizer, where, options))
    if not tokenizer.chat_template:
        raise ModelError(f"{name} has no chat template: it continues texts and answers no questions; choose another")

    def encode(questions: Sequence[Question]) -> Any:
        _refuse_pictures(name, questions)
        prompts = [_prompt(tokenizer, _harmless(question.text, tokenizer)) for question in questions]
        return tokenizer(prompts, padding=True, return_tensors="pt", add_special_tokens=False)

    return tokenizer, encode, True


def _text_to_text(name: str, where: str, options: ChatOptions) -> tuple[Any, Encode, bool]:
    """Prepare an encoder and decoder of text: the question's words are its input as they are."""
    from transformers import AutoTokenizer

    tokenizer = _loaded(AutoTokenizer, where, options)

    def encode(questions: Sequence[Question]) -> Any:
        _refuse_pictures(name, questions)
        return tokenizer([question.text for question in questions], padding=True, return_tensors="pt")

    return tokenizer, encode, True


def _refuse_pictures(name: str, questions: Sequence[Question]) -> None:
    if any(question.images for question in questions):
        raise ModelError(f"{name} reads no pictures, and it was asked about one; choose a vision-language model")
