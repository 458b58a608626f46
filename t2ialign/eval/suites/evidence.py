"""What sections work on: pictures, scores and features of every model, read from the output folder.

Law of this file: everything is read once and kept; pictures of different models are matched by prompt, sample and
seed; features are computed once and kept in a file that belongs to its pictures by their digests.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from t2ialign.data.files import written_aside
from t2ialign.data.image_sets import ImageSet
from t2ialign.errors import ConfigError
from t2ialign.eval.pairs import PairKey, ScoredSet, read_scored_set

if TYPE_CHECKING:
    from PIL import Image

    from t2ialign.data.image_sets import ImageRecord
    from t2ialign.data.prompts import Prompt
    from t2ialign.eval.suites.plan import Plan

Kind = tuple[str, str]
"""Name and version of a scorer."""


@dataclass(frozen=True)
class Features:
    """Features of a set's pictures.

    Attributes:
        keys: (prompt id, sample) of each row.
        values: [N, D], float64, as the embedder gives them, not normalised.
        embedder: What the embedder says of itself.
    """

    keys: tuple[PairKey, ...]
    values: npt.NDArray[np.float64]
    embedder: Mapping[str, Any]


class Evidence:
    """Pictures, scores and features of all models of a plan.

    Attributes:
        plan: What was to be made.
        sweep: Evidence of the sweep, whose models are its points; `None` where there is none.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        device: str = "auto",
        batch_size: int = 32,
        between: Callable[[], object] | None = None,
        swept: Plan | None = None,
        beside: Evidence | None = None,
    ) -> None:
        """Take a plan whose image sets and scores are there.

        Args:
            plan: What was to be made.
            device: Where models run.
            batch_size: Pictures that are looked at together.
            between: Called before a picture is opened and before a batch is embedded; what it raises ends the section.
            swept: The plan of the sweep, whose evidence is `sweep` then.
            beside: Evidence whose embedder is used.
        """
        self.plan = plan
        self._between = between or (lambda: None)
        self._device, self._batch_size = device, batch_size
        self._sets: dict[tuple[str, str], ImageSet] = {}
        self._scored: dict[tuple[str, str], ScoredSet] = {}
        self._features: dict[tuple[str, str], Features] = {}
        self._loaded: dict[str, Any] = {}
        self._chats: dict[str, Any] = {}
        self.sweep: Evidence | None = None
        if swept is not None:
            self.sweep = Evidence(swept, device=device, batch_size=batch_size, between=between, beside=self)
        self._beside = beside

    @property
    def base(self) -> str:
        """Label of the base."""
        return self.plan.base

    @property
    def others(self) -> list[str]:
        """Labels of the models that are compared with the base."""
        return self.plan.labels[1:]

    def sets(self, wanted: Sequence[str]) -> list[str]:
        """Return the prompt sets that a section asks for; all where it names none."""
        return list(wanted) or list(self.plan.prompts)

    def prompts(self, name: str) -> Mapping[str, Prompt]:
        """Return the prompts of a set by id."""
        return {prompt.prompt_id: prompt for prompt in self.plan.prompts[name]}

    def category(self, name: str, prompt_id: str) -> str:
        """Return a prompt's category; empty where it has none."""
        return self._categories[name].get(prompt_id) or ""

    @cached_property
    def _categories(self) -> dict[str, dict[str, str | None]]:
        return {name: {p.prompt_id: p.category for p in prompts} for name, prompts in self.plan.prompts.items()}

    def image_set(self, prompts: str, label: str) -> ImageSet:
        """Return the planned pictures of a model for a prompt set."""
        key = (prompts, label)
        if key not in self._sets:
            images = ImageSet(self.plan.set_folder(prompts, label))
            count = self.plan.suite.prompts[prompts].images_per_prompt
            planned = {prompt.prompt_id for prompt in self.plan.prompts[prompts]}
            images.records = [r for r in images.records if r.prompt_id in planned and r.sample < count]
            self._sets[key] = images
        return self._sets[key]

    def records(self, prompts: str, label: str) -> dict[PairKey, ImageRecord]:
        """Return the planned pictures of a set by (prompt id, sample), in the order of the plan."""
        there = {(r.prompt_id, r.sample): r for r in self.image_set(prompts, label).records}
        count = self.plan.suite.prompts[prompts].images_per_prompt
        wanted = [(p.prompt_id, sample) for p in self.plan.prompts[prompts] for sample in range(count)]
        return {key: there[key] for key in wanted if key in there}

    def picture(self, prompts: str, label: str, record: ImageRecord) -> Image.Image:
        """Open a picture."""
        self._between()
        return self.image_set(prompts, label).open(record)

    def file(self, prompts: str, label: str, record: ImageRecord) -> str:
        """Return a picture's path from the output folder, with forward slashes."""
        return (self.plan.set_folder(prompts, label).relative_to(self.plan.folder) / record.file_name).as_posix()

    def scored(self, prompts: str, label: str) -> ScoredSet:
        """Return a set with its scores."""
        key = (prompts, label)
        if key not in self._scored:
            folder = self.plan.set_folder(prompts, label)
            self._scored[key] = read_scored_set(folder, None, label)
        return self._scored[key]

    def features(self, prompts: str, label: str) -> Features:
        """Return the features of a set's pictures, from their file or computed now.

        Raises:
            ConfigError: If the suite has no embedder, or its scorer embeds no pictures.
        """
        key = (prompts, label)
        if key not in self._features:
            self._features[key] = self._read_features(prompts, label) or self._make_features(prompts, label)
        return self._features[key]

    @cached_property
    def embedder(self) -> Any:
        """The suite's embedder, loaded when it is first asked for.

        Raises:
            ConfigError: If the suite names none, or its scorer embeds no pictures.
        """
        if self._beside is not None:
            return self._beside.embedder
        spec = self.plan.suite.embedder
        if spec is None:
            raise ConfigError("the suite has no embedder; name one with --embedder, for instance clipscore@mini-clip")
        return self.load_embedder(spec)

    def load_embedder(self, spec: str) -> Any:
        """Load a scorer that embeds pictures, on the evaluation's device.

        Raises:
            ConfigError: If it embeds none.
            ModelError: If it cannot be loaded.
        """
        from t2ialign.reward_models.base import Embedder
        from t2ialign.reward_models.registry import load_scorer

        scorer = load_scorer(spec, device=self._device, batch_size=self._batch_size)
        if not isinstance(scorer, Embedder):
            raise ConfigError(f"{spec} embeds no pictures; name clipscore, pickscore or hpsv2 as --embedder")
        return scorer

    def zero_shot(self, checkpoint: str, template: str, offered: Sequence[str]) -> Any:
        """Load a zero-shot detector, or return the one that is loaded, with the classes that it is offered beside.

        Raises:
            ModelError: If it cannot be loaded.
        """
        from t2ialign.eval.composition.detectors import ZeroShotDetector
        from t2ialign.reward_models.base import pick_device

        if (loaded := self._loaded.get(checkpoint)) is None:
            loaded = ZeroShotDetector.load(checkpoint, device=str(pick_device(self._device)))
            self._loaded[checkpoint] = loaded
        more = () if loaded.takes_one_class else tuple(offered)
        settings: dict[str, Any] = {"name": loaded.name, "template": template, "distractors": more}
        return ZeroShotDetector(loaded.model, loaded.processor, **settings)

    def judge(self, spec: str, template: str) -> Any:
        """Return a vision-language judge with a question of its own; judges of one model share it.

        Raises:
            ConfigError: If a setting does not fit.
            ModelError: If the model cannot be loaded.
        """
        from t2ialign.reward_models.judge import Judge

        key = f"judge {spec} {template}"
        if key not in self._loaded:
            made = Judge(spec, template=template, device=self._device, batch_size=self._batch_size)
            if (chat := self._chats.get(spec)) is None:
                self._chats[spec] = made.chat
            else:
                made.chat = chat
            self._loaded[key] = made
        return self._loaded[key]

    def chat(self, spec: str) -> Any:
        """Return a chat model, loaded once.

        Raises:
            ConfigError: If a setting does not fit.
            ModelError: If it cannot be loaded.
        """
        from t2ialign.chat.options import ChatOptions, load_chat

        if spec not in self._chats:
            self._chats[spec] = load_chat(spec, ChatOptions(device=self._device, batch_size=self._batch_size))
        return self._chats[spec]

    def _feature_file(self, prompts: str, label: str) -> Path:
        return self.plan.folder / "features" / prompts / f"{label}.safetensors"

    def _belongs(self, prompts: str, label: str) -> str:
        """Return a digest of the pictures and of the embedder's spec."""
        records = self.records(prompts, label).values()
        listed = [self.plan.suite.embedder, *(record.sha256 for record in records)]
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()

    def _read_features(self, prompts: str, label: str) -> Features | None:
        from safetensors import safe_open

        file = self._feature_file(prompts, label)
        if not file.is_file():
            return None
        with safe_open(str(file), framework="np") as content:
            head = content.metadata() or {}
            if head.get("pictures") != self._belongs(prompts, label):
                return None
            values = content.get_tensor("features").astype(np.float64)
        return Features(tuple(self.records(prompts, label)), values, json.loads(head["embedder"]))

    def _make_features(self, prompts: str, label: str) -> Features:
        from safetensors.numpy import save_file

        records = self.records(prompts, label)
        images = self.image_set(prompts, label)
        files = [images.file(record) for record in records.values()]
        parts = []
        for start in range(0, len(files), self._batch_size):
            self._between()
            parts.append(self.embedder.embed_images(files[start : start + self._batch_size]).numpy())
        found = np.concatenate(parts)
        info = dict(self.embedder.info())
        head = {"pictures": self._belongs(prompts, label), "embedder": json.dumps(info, ensure_ascii=False)}
        with written_aside(self._feature_file(prompts, label)) as aside:
            save_file({"features": np.ascontiguousarray(found, dtype=np.float32)}, str(aside), head)
        return Features(tuple(records), found.astype(np.float64), info)

    def oracle_world(self, prompts: str) -> str:
        """Return why the mini-world's oracle cannot judge a set; empty where it can."""
        from t2ialign.mini.world import parse

        for prompt in self.plan.prompts[prompts]:
            try:
                parse(prompt.prompt)
            except ValueError:
                return f"{prompt.prompt!r} is no prompt of the mini-world"
        return ""
