"""The light extractor: what a user's preferred pictures have, and the others lack, in the states of a CLIP.

Law: pictures alone are looked at, each prepared as the checkpoint's own preprocessing says, on Pillow; every shot has
one vote of the same size.

For each layer of the picture tower and each shot, the state of the rejected picture is taken from that of the chosen
one; the difference is scaled to a root mean square of 1, and averaged over the shots. The states are the mean over the
patches (all layers, that of the embeddings included) and the class token (all layers but that of the embeddings,
where it is the same for all pictures). `scripts/study_user_embeddings.py` compares this with other ways.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from t2ialign.data.pairs import PreferencePair
from t2ialign.errors import DataError, ModelError
from t2ialign.users.extractors import check_shots, check_whole, loaded, named, source_of, unit_tokens

logger = logging.getLogger(__name__)

LAYOUT = "votes of patch means and class tokens, version 1"
"""What the tokens mean; a change of it changes every extractor's name."""
MINI_PICTURE = (64, 64)
"""Size of the pictures that mini-clip knows."""

_STEPS = (
    "do_convert_rgb",
    "do_resize",
    "size",
    "resample",
    "do_center_crop",
    "crop_size",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
)
"""Settings of the preprocessing that enter the name."""


class ClipExtractor:
    """Votes in the states of a CLIP's picture tower, `[2 L + 1, D]` for L layers of width D.

    Args:
        checkpoint: `mini-clip`, a folder, or a hub id of a transformers `CLIPModel`.
        device: As in torch.

    Attributes:
        name: See `Extractor`.

    Raises:
        ModelError: If there is no such checkpoint, or it is no CLIP.
    """

    name: str

    def __init__(self, checkpoint: str = "mini-clip", device: str = "cpu") -> None:
        """Load the picture tower and the preprocessing."""
        self._tower, self._processor = loaded(
            "CLIPModel of transformers", checkpoint, lambda: _load(_folder(checkpoint))
        )
        self._tower = self._tower.eval().requires_grad_(False).to(device)
        self._device = torch.device(device)
        settings = {step: getattr(self._processor, step, None) for step in _STEPS}
        self.name = named("clip", checkpoint, LAYOUT, _digest(self._tower), _plain(settings))
        self._mini, self._warned = checkpoint == "mini-clip", False

    def extract(self, shots: Sequence[PreferencePair]) -> Tensor:
        """See `Extractor`; the order of the shots does not matter beyond rounding.

        Raises:
            DataError: If there are no shots, or the two pictures of every one are the same.
        """
        check_shots(shots)
        self._look_at_sizes(shots)
        votes = torch.stack([self._vote(shot) for shot in shots])
        tokens = unit_tokens(votes.mean(dim=0))
        if not bool(tokens.any(dim=-1).all()):
            raise DataError(f"the two pictures of a pair look alike in all of {len(shots)} shots; take other pairs")
        return tokens

    def _vote(self, shot: PreferencePair) -> Tensor:
        chosen, rejected = self.states([shot.chosen, shot.rejected])
        return unit_tokens(chosen - rejected)

    @torch.inference_mode()
    def states(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Return the patch means of all layers, then the class tokens of all but the first, [B, 2 L + 1, D]."""
        pixels = self._processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        layers = self._tower(pixel_values=pixels.to(self._device), output_hidden_states=True).hidden_states
        states = torch.stack(layers, dim=1)
        return torch.cat([states[:, :, 1:].mean(dim=2), states[:, 1:, 0]], dim=1)

    def _look_at_sizes(self, shots: Sequence[PreferencePair]) -> None:
        if not self._mini or self._warned or all(shot.chosen.size == MINI_PICTURE for shot in shots):
            return
        self._warned = True
        logger.warning(
            "mini-clip knows nothing but the pictures of the mini-world, which these are not: for others use an "
            "extractor such as clip:openai/clip-vit-large-patch14"
        )


def _folder(checkpoint: str) -> str:
    from t2ialign.mini import resource

    try:
        packaged = resource(checkpoint) if checkpoint == "mini-clip" else None
    except FileNotFoundError as error:
        raise ModelError(str(error)) from error
    return str(packaged) if packaged is not None else source_of(checkpoint)


def _load(source: str) -> tuple[Any, Any]:
    from transformers import AutoConfig, CLIPModel

    kind = AutoConfig.from_pretrained(source, trust_remote_code=False).model_type
    if kind != "clip":
        raise ValueError(f"it is a model of type {kind!r}")
    model, found = CLIPModel.from_pretrained(
        source, dtype=torch.float32, use_safetensors=True, output_loading_info=True
    )
    check_whole(source, [name for name in found["missing_keys"] if name.startswith("vision")])
    return model.vision_model, _processor_class().from_pretrained(source)


def _processor_class() -> Any:
    """Return the image processor that resizes with Pillow, as the checkpoints were made to be used."""
    try:
        from transformers import CLIPImageProcessorPil

        return CLIPImageProcessorPil
    except ImportError:  # transformers before 5.1 calls it so
        from transformers import CLIPImageProcessor

        return CLIPImageProcessor


def _digest(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """Bring settings to plain values, so that their text is the same in every version of the libraries."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if hasattr(value, "items"):
        return sorted((str(key), _plain(inner)) for key, inner in value.items() if inner is not None)
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, bool | str):
        return value
    return int(value) if isinstance(value, int) else float(value)
