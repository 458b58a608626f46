"""Export: a LoRA in the form of kohya's sd-scripts, which ComfyUI, A1111 and Forge read.

Law: the exported file has the same effect as the run's own: the weights are renamed, never rescaled, and alpha goes
with them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from t2ialign.errors import ModelError
from t2ialign.models.record import Record, read_record

_ARCHITECTURE = {
    ("sd15", False): ("stable-diffusion-v1/lora", "sd_v1"),
    ("sd2", False): ("stable-diffusion-v2-512/lora", "sd_v2"),
    ("sd2", True): ("stable-diffusion-v2-768-v/lora", "sd_v2_v"),
    ("sdxl", False): ("stable-diffusion-xl-v1-base/lora", "sdxl_base_v1-0"),
    ("sdxl", True): ("stable-diffusion-xl-v1-base/lora", "sdxl_base_v1-0"),
}
"""(family, predicts v) -> ids of modelspec.architecture and ss_base_model_version, as sd-scripts writes them."""


def export_kohya(
    final_dir: Path | str, output_file: Path | str, *, half: bool = False, family: str | None = None
) -> Path:
    """Writes a run's LoRA in kohya's form.

    A module's three tensors are `lora_unet_NAME.lora_down.weight` (A, [r, in]), `.lora_up.weight` (B, [out, r]) and
    `.alpha` (a scalar), its update alpha / r times B A. NAME is diffusers' name of the module for SD 1.x and 2.x and
    the original UNet's for SDXL, dots turned to underscores, as sd-scripts writes them.

    Args:
        final_dir: A run's `final/`.
        output_file: A .safetensors file; its folder is made.
        half: Write float16 instead of float32: half the size, rounded.
        family: Needed only for a LoRA without `t2ialign.json`: "sd15", "sd2" or "sdxl".

    Returns:
        The file written.

    Raises:
        ModelError: There is no LoRA there, its family is unknown, or a weight has no kohya name.
    """
    import torch
    from safetensors.torch import save_file

    output = Path(output_file)
    if output.suffix != ".safetensors":
        raise ModelError(f"the output {output} must end in .safetensors")
    source, record = _source(Path(final_dir), family)
    pairs, alphas = read_lora(source, record)
    tensors: dict[str, Any] = {}
    dtype = torch.float16 if half else torch.float32
    for module, (down, up) in sorted(pairs.items()):
        name = kohya_name(module, record)
        tensors[f"{name}.lora_down.weight"] = down.to(dtype).contiguous()
        tensors[f"{name}.lora_up.weight"] = up.to(dtype).contiguous()
        tensors[f"{name}.alpha"] = torch.tensor(alphas[module], dtype=dtype)
    output.parent.mkdir(parents=True, exist_ok=True)
    rank = next(iter(pairs.values()))[0].shape[0]
    save_file(
        tensors, str(output), metadata=_metadata(output.stem, record, rank, next(iter(alphas.values())), tensors)
    )
    return output


def kohya_name(module: str, record: Record) -> str:
    """The kohya name of a UNet module: `lora_unet_` and the module's name with underscores.

    Raises:
        ModelError: For SDXL, the module is not in the original UNet.
    """
    from t2ialign.models.ldm_names import ldm_name

    if record.family == "sdxl":
        try:
            module = ldm_name(module, record.layers_per_block)
        except ValueError as error:
            raise ModelError(f"cannot export to kohya's form: {error}; train without this LoRA target") from error
    return "lora_unet_" + module.replace(".", "_")


def _source(final_dir: Path, family: str | None) -> tuple[Path, Record]:
    from t2ialign.models.lora import lora_file
    from t2ialign.models.user_adapter import find_user_adapter

    record = read_record(final_dir if final_dir.is_dir() else final_dir.parent)
    if record is not None and record.kind == "full":
        raise ModelError(f"{final_dir} holds a whole pipeline, not a LoRA: ComfyUI and A1111 read no LoRA from it")
    if (record is not None and record.kind == "user_adapter") or find_user_adapter(final_dir) is not None:
        raise ModelError(
            f"{final_dir} holds a user adapter, not a LoRA: ComfyUI and A1111 have no form for it; draw with it by "
            "t2ialign generate --adapter FINAL --user FILE"
        )
    source = lora_file(final_dir)
    record = record or read_record(source.parent)
    if record is None:
        if family is None:
            raise ModelError(f"{source.parent} has no t2ialign.json: say the family of its base (sd15, sd2 or sdxl)")
        record = Record("lora", base_model="", family=family)
    return source, record


def read_lora(source: Path, record: Record) -> tuple[dict[str, tuple[Any, Any]], dict[str, float]]:
    """The pairs (A, B) of every UNet module of a LoRA file, A [r, in] and B [out, r], and its alpha.

    Raises:
        ModelError: A weight is none of a LoRA on a UNet, or there are none.
    """
    import json

    from safetensors import safe_open

    halves: dict[str, dict[str, Any]] = {}
    with safe_open(source, framework="pt") as opened:
        notes = json.loads((opened.metadata() or {}).get("lora_adapter_metadata", "{}"))
        for key in list(opened.keys()):
            module, _, kind = key.removeprefix("unet.").removesuffix(".weight").rpartition(".lora")
            kind = {"_A": "down", "_B": "up", ".down": "down", ".up": "up"}.get(kind, "")
            if not key.startswith("unet.") or not kind:
                raise ModelError(f"{source}: {key!r} is no LoRA weight of a UNet; only such can be exported")
            halves.setdefault(module, {})[kind] = opened.get_tensor(key)
    if not halves:
        raise ModelError(f"{source} has no weights")
    pairs = {module: (both["down"], both["up"]) for module, both in halves.items()}
    alpha = notes.get("unet.lora_alpha", record.alpha)
    alphas = {module: float(down.shape[0] if alpha is None else alpha) for module, (down, _) in pairs.items()}
    return pairs, alphas


def _metadata(title: str, record: Record, rank: int, alpha: float, tensors: dict[str, Any]) -> dict[str, str]:
    """Notes that kohya's and other programs show: ss_* of sd-scripts and the fields of modelspec 1.0.1."""
    v = record.prediction_type == "v_prediction"
    unknown = (f"{record.family}/lora", record.family)
    architecture, version = _ARCHITECTURE.get((record.family, v)) or _ARCHITECTURE.get((record.family, False), unknown)
    return {
        "format": "pt",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": f"{alpha:g}",
        "ss_base_model_version": version,
        "ss_v2": str(record.family == "sd2"),
        "ss_output_name": title,
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": architecture,
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models"
        if record.family == "sdxl"
        else "diffusers",
        "modelspec.title": title,
        "modelspec.resolution": f"{record.resolution}x{record.resolution}",
        "modelspec.prediction_type": "v" if v else record.prediction_type,
        "modelspec.hash_sha256": _hash(tensors),
    }


def _hash(tensors: dict[str, Any]) -> str:
    """SHA-256 of the file's tensor bytes, that is of everything after its header, as modelspec defines it."""
    from safetensors.torch import save

    content = save(tensors)
    header = 8 + int.from_bytes(content[:8], "little")
    return "0x" + hashlib.sha256(content[header:]).hexdigest()
