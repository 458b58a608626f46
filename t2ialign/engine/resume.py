"""Whether a run may go on: into which folder it writes, and whether its options are those of the checkpoint.

Resume is asked for, never assumed. A run goes on under the options it was begun with; what does not change the
weights may differ, and a step may be split otherwise into batches and processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t2ialign.engine.checkpoints import Checkpoint
from t2ialign.errors import ConfigError

FREE = frozenset(
    {
        # where to, and how often something is written
        "output_dir",
        "resume",
        "checkpoint_every",
        "keep_checkpoints",
        "sample_every",
        "sample_prompts",
        "tracker",
        "push_to_hub",
        "estimate",
        "estimate_file",
        # what ends a run
        "max_bad_steps",
        "max_bad_share",
        "on_bad_pair",
        # how it is computed: speed and memory, and at most the last bits
        "workers",
        "batch_size",
        "gradient_accumulation_steps",
        "gradient_checkpointing",
        "cache_latents",
        "cache_text",
        "cache_dir",
        "cache_batch_size",
        "keep_encoders",
        "attention",
        "channels_last",
        "compile",
        "deterministic",
        # where the examples come from: what they are is compared by the fingerprint of their contents
        "pairs",
        "pairs_revision",
        "split",
        "prompts",
    }
)
"""Options that may differ on resume; the product of batch size, accumulation and processes is compared on its own."""

_STEADY = ("constant", "constant_with_warmup")


def check_output(output_dir: Path, resume: str | None, prepared: frozenset[str] = frozenset()) -> None:
    """Refuse to mix two runs in one folder.

    Args:
        output_dir: Of the run.
        resume: As asked for.
        prepared: Names in the folder that belong to this run already.

    Raises:
        ConfigError: if the folder holds something and `resume` is None or a checkpoint of another run.
    """
    used = output_dir.exists() and (
        not output_dir.is_dir() or any(path.name not in prepared for path in output_dir.iterdir())
    )
    named = None if resume in (None, "latest") else Path(str(resume)).resolve()
    if named is not None and not named.is_relative_to(output_dir.resolve()):
        raise ConfigError(
            f"the checkpoint {resume} is of another run than the one in {output_dir}; give a new output_dir, or that "
            "run's own"
        )
    if resume is None and used:
        raise ConfigError(
            f"output_dir {output_dir} is not empty; give --resume latest to continue that run, or another folder"
        )


def check_config(checkpoint: Checkpoint, options: Mapping[str, Any]) -> None:
    """Refuse to go on under other options than the checkpoint's.

    Args:
        checkpoint: To go on from.
        options: The run's, as `flatten` gives them.

    Raises:
        ConfigError: showing each difference.
    """
    free = set(FREE)
    if options.get("lr_scheduler") in _STEADY:
        free.add("steps")
    found = [
        f"  {name}: {checkpoint.config.get(name)!r} then, {options.get(name)!r} now"
        for name in sorted({*checkpoint.config, *options} - free)
        if checkpoint.config.get(name) != options.get(name)
    ]
    if found:
        raise ConfigError(
            "this run began under other options; resume with the same ones, or begin a new run:\n" + "\n".join(found)
        )


def flatten(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested options with dotted names and values that JSON keeps as they are."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            flat[prefix + name] = [str(item) if isinstance(item, Path) else item for item in value]
        else:
            flat[prefix + name] = str(value) if isinstance(value, Path) else value
    return flat
