"""A CLIP and a head as one module: from prepared pictures and token numbers to the margins of pairs.

Law of this file: pictures are prepared as the scorer prepares them that later loads the result; features are compared
in float32 whatever the towers run in.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from t2ialign.reward_models.clip_backends import ClipBackend
from t2ialign.reward_models.heads import Head


@dataclass(frozen=True)
class Batch:
    """B examples with M pictures and P pairs of them.

    Attributes:
        pictures: As the preparation gives them, `[M, 3, S, S]`; or their features `[M, D]`, where `texts` is given.
        ids: Token numbers of each example's prompt, `[B, T]` int64.
        mask: 1 at tokens, 0 at padding, `[B, T]` int64.
        owner: Number of the example of each picture, `[M]` int64.
        first: Number of the first picture of each pair, `[P]` int64.
        second: Of the second one.
        target: Probability that the first is preferred, `[P]` float32.
        weight: Of each example, `[B]` float32.
        group: Number of the aspect or user of each example, `[B]` int64; -1 for none.
        texts: Features of each example's prompt, `[B, D]`, where the towers have been run before.
    """

    pictures: Tensor
    ids: Tensor
    mask: Tensor
    owner: Tensor
    first: Tensor
    second: Tensor
    target: Tensor
    weight: Tensor
    group: Tensor
    texts: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """Return it on a device."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(self, **{name: value.to(device) for name, value in given.items() if value is not None})


class RewardNet(nn.Module):
    """A `CLIPModel` of transformers and a head.

    Args:
        clip: The model, trained in place.
        head: On its features.
        normalise: Brings prepared pictures `[M, 3, S, S]` to what the model reads.
    """

    def __init__(self, clip: Any, head: Head, normalise: Any) -> None:
        """Put them together."""
        super().__init__()
        self.clip: Any = clip
        self.head = head
        self._normalise = normalise

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return raw features of pictures and of their prompts, `[M, D]` float32 each."""
        if batch.texts is not None:
            return batch.pictures, batch.texts[batch.owner]
        pictures = raw(self.clip.get_image_features(pixel_values=self._normalise(batch.pictures)))
        texts = raw(self.clip.get_text_features(input_ids=batch.ids, attention_mask=batch.mask))
        return pictures, texts[batch.owner]

    def scale(self) -> Tensor:
        """Return exp(logit scale), a scalar."""
        scale: Tensor = self.clip.logit_scale.float().exp()
        return scale

    def forward(self, batch: Batch) -> Tensor:
        """Return the margin of each pair, `[P]` float32."""
        pictures, texts = self.features(batch)
        return self.head.margins(
            pictures, texts, self.scale(), batch.group[batch.owner], batch.first, batch.second
        ).float()


def raw(output: Any) -> Tensor:
    """Take the projected features out of whatever a version of transformers returns; float32."""
    features: Tensor = output if torch.is_tensor(output) else output.pooler_output
    return features.float()


def make_net(
    backend: ClipBackend, head: Head, preparation: Any, *, method: str, frozen: float, checkpointing: bool
) -> RewardNet:
    """Make the module of a run and say which of its weights are trained.

    Args:
        backend: A loaded `CLIPModel`.
        head: On its features.
        preparation: How its pictures are prepared.
        method: `"full"`, or `"head"` to leave CLIP as it is.
        frozen: Share of each tower's layers, from the input on, that stay as they are, embeddings among them.
        checkpointing: Whether activations are recomputed.
    """
    clip = backend.model
    clip.requires_grad_(method == "full")
    if isinstance(head, Head) and head.kind != "cosine":
        clip.logit_scale.requires_grad_(method == "full" and head.kind == "aspects")
    if frozen > 0:
        for tower in (clip.text_model, clip.vision_model):
            tower.embeddings.requires_grad_(False)
            layers = tower.encoder.layers
            for layer in layers[: round(frozen * len(layers))]:
                layer.requires_grad_(False)
    if checkpointing:
        clip.gradient_checkpointing_enable()
    net = RewardNet(clip, head, lambda pictures: backend.normalise(pictures, preparation))
    return net.train()
