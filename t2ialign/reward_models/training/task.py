"""A CLIP, its head and its examples as a task of the engine, and what `final/` holds.

Law of this file: the loss of a step is one weighted mean over its examples, however it is split; `final/` is a folder
that the scorers load, and it is measured as it is written.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from t2ialign.engine.order import Schedule
from t2ialign.engine.task import StopRequested, Task
from t2ialign.errors import DataError
from t2ialign.objectives import LossOutput
from t2ialign.reward_models.clip_backends import TransformersBackend
from t2ialign.reward_models.training.examples import RewardExamples
from t2ialign.reward_models.training.losses import example_means, pair_loss, weighted_mean
from t2ialign.reward_models.training.net import Batch, RewardNet

logger = logging.getLogger(__name__)

CACHE_BYTES, CACHE_BATCH = 4 * 2**30, 32
"""Features of more than this many bytes are computed anew in each step; examples that run through CLIP at once."""

Measure = Callable[[RewardNet], dict[str, Any] | None]

HEAD_FILE, HEAD_NOTE = "head.safetensors", "head.json"
"""Files of a head other than the cosine, beside the `CLIPModel`."""


class RewardTask(Task):
    """A scorer in training.

    Args:
        net: What is trained.
        backend: Whose tokenizer and processor go into `final/`.
        examples: What it is trained on.
        save_half: Whether `final/` is float16.
        measure: Measures what is written.

    Attributes:
        measured: What `measure` returned, once `final/` is written.
    """

    def __init__(
        self,
        net: RewardNet,
        backend: TransformersBackend,
        examples: RewardExamples,
        *,
        save_half: bool = False,
        measure: Measure = lambda net: None,
    ) -> None:
        """Put them together."""
        self.net, self.backend, self._examples = net, backend, examples
        self.save_half, self._measure = save_half, measure
        self.measured: dict[str, Any] | None = None

    @property
    def module(self) -> nn.Module:
        """CLIP and head."""
        return self.net

    @property
    def examples(self) -> RewardExamples:
        """What is trained on."""
        return self._examples

    def setup(self, device: torch.device, schedule: Schedule, stop: StopRequested) -> None:
        """Where CLIP stays as it is, run the towers once over all examples; return early once `stop()` is true."""
        clip = self.net.clip
        frozen = not any(parameter.requires_grad for parameter in clip.parameters())
        if not frozen or len(self._examples) * 2 * 4 * clip.config.projection_dim > CACHE_BYTES:
            return
        found: list[tuple[Tensor, Tensor]] = []
        for start in range(0, len(self._examples), CACHE_BATCH):
            if stop():
                return
            rows = range(start, min(start + CACHE_BATCH, len(self._examples)))
            try:
                batch = self._examples.collate([self._examples.read(row) for row in rows]).to(device)
            except DataError as error:  # what becomes of it is the loop's to say, example by example
                logger.warning("the towers are not run beforehand: %s", error)
                return
            with torch.no_grad():
                pictures, texts = (each.cpu() for each in self.net.features(batch))
            for number in range(len(rows)):
                mine = batch.owner.cpu() == number
                found.append((pictures[mine], texts[mine][0]))
        self._examples.features = found

    @property
    def surveys(self) -> bool:
        """The weights of all examples of a step make the mean."""
        return True

    def survey(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Batch]:
        """Return the weights, `[1, B]`, and the batch."""
        device = next(self.net.parameters()).device
        return batch.weight[None].to(device), batch

    def loss(self, module: nn.Module, batch: Batch, step: Tensor | None = None) -> LossOutput:
        """Return the loss of B examples; see `losses`."""
        batch = batch.to(next(self.net.parameters()).device)
        margin = module(batch)
        owner, count = batch.owner[batch.first], len(batch.weight)
        each = example_means(pair_loss(margin, batch.target), owner, count)
        loss = weighted_mean(each, batch.weight, None if step is None else step[0])
        detached = margin.detach()
        signed = detached * (2 * batch.target - 1).sign()
        right = torch.where(signed == 0, 0.5, (signed > 0).float())
        figures = {"implicit_accuracy": example_means(right, owner, count)}
        return LossOutput(loss, example_means(signed, owner, count), figures)

    def write_samples(self, file: Path, stop: StopRequested) -> None:
        """Do nothing: a scorer draws no pictures."""

    def write_final(self, directory: Path, facts: Mapping[str, Any]) -> None:
        """Write a `CLIPModel` folder, the head beside it where there is one, and a card; measure it."""
        from t2ialign.models.saving import scrub_json

        net = self._rounded() if self.save_half else self.net
        state = {name: value.detach().contiguous() for name, value in net.head.state_dict().items()}
        clip = copy.deepcopy(net.clip).half() if self.save_half else net.clip
        clip.save_pretrained(directory, safe_serialization=True)
        self.backend.tokenizer.save_pretrained(directory)
        (directory / "preprocessor_config.json").write_text(self._processor(), encoding="utf-8")
        for name in ("config.json", "tokenizer_config.json"):
            scrub_json(directory / name)
        if net.head.kind != "cosine":
            from safetensors.torch import save_file

            save_file({name: value.cpu() for name, value in state.items()}, directory / HEAD_FILE)
            settings = net.head.settings() | {"features": int(net.clip.config.projection_dim)}
            (directory / HEAD_NOTE).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        was = net.training
        self.measured = self._measure(net.eval())
        net.train(was)
        (directory / "README.md").write_text(card(net, self.backend.checkpoint, self.measured), encoding="utf-8")

    def _rounded(self) -> RewardNet:
        """Return the net with the weights that float16 leaves of CLIP's; the head stays float32."""
        net = copy.deepcopy(self.net)
        net.clip.half().float()
        return net

    def _processor(self) -> str:
        """Return the image processor's settings, in the form of transformers."""
        from dataclasses import asdict

        from t2ialign.reward_models.preparation import LibraryPreparation, PillowPreparation, pillow_processor

        preparation, backend = self.backend.preparation, self.backend
        if isinstance(preparation, LibraryPreparation):
            processor = pillow_processor()(**json.loads(preparation.settings))
        else:
            assert isinstance(preparation, PillowPreparation)
            given = asdict(preparation)
            side = given["size"]
            processor = pillow_processor()(
                size={"shortest_edge": given["edge"] or side},
                crop_size={"height": side, "width": side},
                resample={"bilinear": 2, "bicubic": 3}[given["resample"]],
                image_mean=list(backend.mean),
                image_std=list(backend.std),
            )
        text: str = processor.to_json_string()
        return text


def card(net: RewardNet, base: str, measured: Mapping[str, Any] | None) -> str:
    """Return the model card."""
    loads = {
        "cosine": "`t2ialign score SET --with pickscore@FOLDER`, or any program that loads a `CLIPModel`",
        "cyclic": "`t2ialign.reward_models.preference.PreferenceModel(FOLDER).compare(...)`",
    }.get(net.head.kind, "`t2ialign score SET --with preference@FOLDER`")
    lines = [
        "---",
        "library_name: transformers",
        "tags: [t2ialign, reward-model, text-to-image]",
        "---",
        "",
        f"# A scorer of pictures, trained from {base}",
        "",
        f"Head: {net.head.kind}. Trained with `t2ialign train reward`. Load it with {loads}.",
    ]
    held_out = (measured or {}).get("held_out")
    if held_out:
        low, high = held_out["ci95"] or (float("nan"),) * 2
        lines += [
            "",
            "| held out | |",
            "|---|---|",
            f"| accuracy | {held_out['accuracy']:.3f} (95% interval {low:.3f} to {high:.3f}) |",
            f"| pairs | {held_out['pairs']} |",
            f"| expected calibration error | {held_out['ece']:.3f} |",
            f"| log loss | {held_out['log_loss']:.3f} |",
        ]
    return "\n".join(lines) + "\n"
