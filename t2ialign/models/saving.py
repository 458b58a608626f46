"""Saving a fully fine-tuned pipeline, and keeping machine paths out of what is written.

Law: what leaves a run can be published as it is: safetensors only, no local paths, no secrets.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from t2ialign.config import without_secrets
from t2ialign.errors import ModelError
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.models.record import Record
from t2ialign.models.user_adapter import installed

CONFIG_NAMES = ("model_index.json", "config.json", "scheduler_config.json", "tokenizer_config.json")

_POSIX = re.compile(r"(?<![\w:/.])~?/(?:[^\s/'\"`]+/)+([^\s/'\"`]*)")
_WINDOWS = re.compile(r"(?<!\w)[A-Za-z]:\\(?:[^\s\\'\"`]+\\)*([^\s\\'\"`]*)")
_TOKENS = re.compile(r"\b(?:(?:hf|ghp|gho|wandb)_|sk-)[A-Za-z0-9]{12,}")
_SECRET_KEY = re.compile(r"(^|_)(token|secret|password|api_?key)s?$", re.IGNORECASE)


def save_pipeline(model: DiffusionModel, directory: Path | str, *, algorithm: str | None = None) -> Path:
    """Saves the whole pipeline as diffusers does, safetensors only, with `t2ialign.json` beside it.

    `load_model` and `DiffusionPipeline.from_pretrained` read the folder. Paths of this machine that diffusers notes
    in configurations are reduced to their last part.

    Raises:
        ModelError: The model has a user adapter, which a pipeline folder cannot hold.
    """
    if installed(model.unet) is not None:
        raise ModelError(
            f"the model {model.name!r} has a user adapter, which a pipeline folder cannot hold: save it with "
            "t2ialign.models.user_adapter.save_user_adapter, or take it off (remove_user_adapter) first"
        )
    directory = Path(directory)
    model.pipeline.save_pretrained(directory, safe_serialization=True)
    for name in CONFIG_NAMES:
        for path in directory.rglob(name):
            scrub_json(path)
    Record.of(model, "full", algorithm=algorithm).write(directory)
    return directory


def scrub(value: Any) -> Any:
    """The same value without local paths (their last part stays), without tokens and without entries named so.

    Works on texts, lists and mappings; numbers and None are returned as they are. Addresses (https://...) stay.
    """
    if isinstance(value, str):
        for pattern in (_POSIX, _WINDOWS):
            value = pattern.sub(lambda match: match.group(1) or "folder", value)
        return without_secrets(_TOKENS.sub("[removed]", value))
    if isinstance(value, dict):
        return {key: scrub(part) for key, part in value.items() if not is_secret(key)}
    if isinstance(value, list | tuple):
        return [scrub(part) for part in value]
    return value


def is_secret(key: object) -> bool:
    """Whether an entry of that name is never written: `hub_token`, `api_key`, `secret`, but not `pad_token`."""
    name = str(key)
    text_token = name.endswith("_token") and name.split("_")[0] in ("pad", "bos", "eos", "unk", "cls", "sep", "mask")
    return bool(_SECRET_KEY.search(name)) and not text_token


def scrub_json(path: Path) -> None:
    """Rewrites a JSON file through `scrub` if that changes anything."""
    content = json.loads(path.read_text(encoding="utf-8"))
    clean = scrub(content)
    if clean != content:
        path.write_text(json.dumps(clean, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
