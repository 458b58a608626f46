"""Options that every training run has, whatever its algorithm.

Law of this room: the engine knows no algorithm, and this file imports nothing heavy, because the command line
reads it at start-up. An option whose default is None is filled by the algorithm for the model's family before
the loop sees it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from t2ialign.config import REQUIRED, option
from t2ialign.errors import ConfigError

T = TypeVar("T")

OPTIMIZERS = ("adamw", "adamw8bit", "adafactor")
SCHEDULES = ("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial")
PRECISIONS = ("auto", "no", "fp16", "bf16")
BAD_PAIRS = ("raise", "drop")


@dataclass(kw_only=True)
class TrainConfig:
    """What the training loop needs to know (design, section 3)."""

    output_dir: Path = option(REQUIRED, "Folder of the run; must be new or empty unless --resume is given.")
    seed: int = option(0, "Fixes example order, noise, timesteps, crops, flips and caption dropout.")
    resume: str | None = option(None, "'latest' or a checkpoint folder to continue from; never assumed.")

    steps: int | None = option(None, "Optimizer steps. Default: by model family.")
    batch_size: int | None = option(
        None, "Pairs, or single pictures, that a process computes at once. Default: by model family."
    )
    gradient_accumulation_steps: int | None = option(
        None, "Batches added up before an optimizer step. Default: by model family."
    )
    learning_rate: float | None = option(
        None, "Peak learning rate as the optimizer uses it, never rescaled. Default: by model family and method."
    )
    lr_scheduler: str | None = option(None, "Course of the rate. Default: by model family.", choices=SCHEDULES)
    lr_warmup_steps: int | None = option(None, "Optimizer steps of linear warm-up. Default: by model family.")
    max_grad_norm: float = option(1.0, "Gradients are clipped to this norm; 0 turns clipping off.")
    optimizer: str | None = option(None, "Optimizer. Default: by model family and method.", choices=OPTIMIZERS)
    adam_beta1: float = option(0.9, "First decay of AdamW.")
    adam_beta2: float = option(0.999, "Second decay of AdamW.")
    adam_epsilon: float = option(1e-8, "Epsilon of AdamW.")
    weight_decay: float = option(1e-2, "Decoupled weight decay.")
    ema: bool = option(False, "Average the trained weights; the average is what samples and final/ show.")
    ema_decay: float = option(0.9999, "Decay of the average, reached gradually.")

    mixed_precision: str = option(
        "auto", "auto is bf16 on a GPU that has it, fp16 on an older one, no on a CPU.", choices=PRECISIONS
    )
    workers: int = option(0, "Processes that decode pictures; 0 decodes in the training process.")
    deterministic: bool = option(False, "Ask torch for deterministic algorithms (slower on a GPU).")
    on_bad_pair: str = option(
        "raise",
        "What a pair or picture that can not be read does: end the run, or drop out whole, for the next good one.",
        choices=BAD_PAIRS,
    )
    max_bad_share: float = option(
        0.01, "With --on_bad_pair drop: the run stops if more than this share of what it can look at is bad."
    )
    max_bad_steps: int = option(10, "Stop after this many steps in a row with a non-finite loss or gradient.")

    checkpoint_every: int = option(500, "Optimizer steps between checkpoints; 0 writes none but on a signal.")
    keep_checkpoints: int = option(3, "How many of the newest checkpoints stay; 0 keeps all.")
    sample_every: int = option(0, "Optimizer steps between sample pictures; 0 draws none.")
    tracker: str | None = option(
        None, "Also log to this tracker of accelerate (tensorboard, wandb, mlflow, ...); needs its package."
    )

    def __post_init__(self) -> None:
        """Refuse values outside their range.

        Raises:
            ConfigError: naming the option and the range.
        """
        for name in ("steps", "batch_size", "gradient_accumulation_steps", "max_bad_steps"):
            self._check(name, lower=1)
        for name in ("lr_warmup_steps", "workers", "checkpoint_every", "keep_checkpoints", "sample_every", "seed"):
            self._check(name, lower=0)
        for name in ("max_grad_norm", "weight_decay", "learning_rate"):
            self._check(name, lower=0)
        for name in ("adam_beta1", "adam_beta2", "ema_decay"):
            self._check(name, lower=0, below=1)
        if not 0 <= self.max_bad_share <= 1:
            raise ConfigError(f"max_bad_share is {self.max_bad_share!r}; it is a share, between 0 and 1")
        for name, choices in (
            ("optimizer", OPTIMIZERS),
            ("lr_scheduler", SCHEDULES),
            ("mixed_precision", PRECISIONS),
            ("on_bad_pair", BAD_PAIRS),
        ):
            self._check_choice(name, choices)

    def _check(self, name: str, *, lower: float, below: float | None = None) -> None:
        value = getattr(self, name)
        if value is None:
            return
        if not value >= lower or (below is not None and not value < below):
            limit = f"at least {lower:g}" + ("" if below is None else f" and below {below:g}")
            raise ConfigError(f"{name} is {value!r}; it must be {limit}")

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value is not None and value not in choices:
            raise ConfigError(f"{name} is {value!r}; choose from {', '.join(choices)}")


def known(value: T | None, name: str) -> T:
    """Return an option that must have been filled by now.

    Args:
        value: The option's value.
        name: Its name, for the message.

    Raises:
        ConfigError: if it is still None.
    """
    if value is None:
        raise ConfigError(f"{name} has no value; give --{name} or let the algorithm fill its defaults")
    return value
