"""Card: the README.md beside trained weights, which the hub shows as the model card.

Law: it says what the weights belong to, how they were made and how plain diffusers loads them, and nothing about the
machine: no paths, no tokens. What is not known (a licence) is left out, not guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t2ialign.errors import ModelError
from t2ialign.models.record import Kind, Record, read_record
from t2ialign.models.saving import is_secret, scrub

_TAGS = ("text-to-image", "diffusers", "t2ialign", "preference-alignment")
_KIND_TAGS: dict[Kind, tuple[str, ...]] = {"lora": ("lora",), "user_adapter": ("user-adapter",), "full": ()}
_FAMILY_TAGS = {"sdxl": "stable-diffusion-xl", "sd15": "stable-diffusion", "sd2": "stable-diffusion"}


def write_card(
    directory: Path | str,
    *,
    title: str | None = None,
    summary: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    pairs: str | None = None,
    license: str | None = None,
) -> Path:
    """Writes `directory/README.md` from the `t2ialign.json` there.

    Args:
        directory: A `final/` with saved weights.
        title: Heading; made from the algorithm and the base model if None.
        summary: Results, for instance the report of the run; a table of its numbers and texts (nested ones are
            joined by dots, lists are left out).
        settings: Options of the run, written alike.
        pairs: Name of the preference pairs; a path is reduced to its last part.
        license: Identifier of the licence of the base model and the weights; left out if None.

    Returns:
        The card's path.

    Raises:
        ModelError: `directory` has no `t2ialign.json`.
    """
    directory = Path(directory)
    record = read_record(directory)
    if record is None:
        raise ModelError(f"{directory} has no t2ialign.json: save the weights there before writing the card")
    base = _shown_base(record)
    heading = title or f"{base}, trained by {(record.algorithm or 'preference alignment').upper()}"
    parts = [
        _front_matter(record, pairs, license),
        f"# {scrub(heading)}",
        _what(record, base, pairs),
        "## How to load it",
        _loading(record, base),
    ]
    for name, table in (("Results", summary), ("Settings", settings)):
        lines = _table(table or {})
        if lines:
            parts += [f"## {name}", lines]
    if record.versions:
        versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
        parts += ["## Made with", versions]
    target = directory / "README.md"
    target.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return target


def _is_local(name: str) -> bool:
    return Path(name).is_absolute() or "\\" in name or name.startswith((".", "~")) or name.count("/") > 1


def _shown_base(record: Record) -> str:
    return Path(record.base_model).name if _is_local(record.base_model) else record.base_model


def _front_matter(record: Record, pairs: str | None, license: str | None) -> str:
    import yaml

    tags = [*_TAGS, *_KIND_TAGS[record.kind]]
    if record.algorithm:
        tags.append(record.algorithm)
    if record.family in _FAMILY_TAGS:
        tags.append(_FAMILY_TAGS[record.family])
    library = "t2ialign" if record.kind == "user_adapter" else "diffusers"
    front: dict[str, Any] = {"library_name": library, "pipeline_tag": "text-to-image", "tags": tags}
    if not _is_local(record.base_model):
        front["base_model"] = record.base_model
        front["base_model_relation"] = "finetune" if record.kind == "full" else "adapter"
    if pairs is not None and not _is_local(pairs) and "/" in pairs:
        front["datasets"] = [pairs]
    if license is not None:
        front["license"] = license
    return f"---\n{yaml.safe_dump(front, sort_keys=True, allow_unicode=True)}---"


def _what(record: Record, base: str, pairs: str | None) -> str:
    shape = "A whole pipeline"
    if record.kind == "lora":
        shape = f"A LoRA (rank {record.rank}, alpha {record.alpha:g}, on {', '.join(record.targets)})"
    if record.kind == "user_adapter":
        made_by = f", made by {scrub(record.user_extractor)}" if record.user_extractor else ""
        shape = f"A user adapter (for users of {record.user_token_count} tokens of width {record.user_width}{made_by})"
    origin = "a local folder of that name" if _is_local(record.base_model) else "the model of that name"
    lines = [f"{shape} made from `{base}` ({origin}; {record.prediction_type} prediction, {record.resolution} px)."]
    if record.algorithm:
        lines.append(f"Algorithm: {record.algorithm}.")
    if pairs is not None:
        lines.append(f"Preference pairs: `{Path(pairs).name if _is_local(pairs) else pairs}`.")
    return " ".join(lines)


_USER_ADAPTER = """A user is a file that `t2ialign users embed` makes from a few pairs that the person has judged. \
Without one, the model is its base exactly.

```
t2ialign generate --model path/to/this/folder --user alice.safetensors --prompts prompts.txt --output_dir images
t2ialign generate --model path/to/this/folder --user alice.safetensors:0.3,bob.safetensors:0.7 \\
    --user_guidance_scale 5 --prompts prompts.txt --output_dir images
```

```python
from t2ialign.generation.sampler import generate_images
from t2ialign.models.loading import load_model
from t2ialign.users.files import load_user

model = load_model("path/to/this/folder")
alice = load_user("alice.safetensors").mean()
image = next(generate_images(model, ["a prompt"], [0], users=[alice]))
```

Plain diffusers does not load it: a second attention, to the user, stands beside each attention to the text."""


def _loading(record: Record, base: str) -> str:
    if record.kind == "user_adapter":
        return _USER_ADAPTER
    pipeline = "StableDiffusionXLPipeline" if record.family == "sdxl" else "StableDiffusionPipeline"
    code = [f"from diffusers import {pipeline}", ""]
    if record.kind == "full":
        code.append(f'pipeline = {pipeline}.from_pretrained("path/to/this/folder", use_safetensors=True)')
    else:
        revision = f', revision="{record.base_revision}"' if record.base_revision else ""
        if record.base_model == "mini-sd":
            code[:1] = [code[0], "from t2ialign.mini import resource"]
            code.append(f'pipeline = {pipeline}.from_pretrained(resource("mini-sd"), use_safetensors=True)')
        else:
            code.append(f'pipeline = {pipeline}.from_pretrained("{base}"{revision}, use_safetensors=True)')
        code.append('pipeline.load_lora_weights("path/to/this/folder")')
    block = "```python\n" + "\n".join(code) + '\nimage = pipeline("a prompt").images[0]\n```'
    ours = "With t2ialign: `t2ialign generate --model path/to/this/folder --prompts prompts.txt --output_dir images`."
    return f"{block}\n\n{ours}"


def _table(values: Mapping[str, Any]) -> str:
    rows = [(name, scrub(value)) for name, value in _flat(values)]
    if not rows:
        return ""
    lines = ["| | |", "|---|---|"]
    for name, value in rows:
        shown = f"{value:.6g}" if isinstance(value, float) else str(value)
        lines.append(f"| {name} | {shown.replace('|', chr(92) + '|').replace(chr(10), ' ')} |")
    return "\n".join(lines)


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        name = f"{before}{key}"
        if is_secret(key):
            continue
        if isinstance(value, Mapping):
            rows += _flat(value, f"{name}.")
        elif isinstance(value, str | int | float | bool):
            rows.append((name, value))
    return rows
