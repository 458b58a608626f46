"""What sections work on: pictures, scores and features of every model, read from the output folder.

Law of this file: everything is read once and kept; pictures of different models are matched by prompt, sample and
seed; features are computed once and kept in a file that belongs to its pictures by their digests.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
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
    """

    def __init__(self, plan: Plan, *, device: str = "auto", batch_size: int = 32) -> None:
        """Take a plan whose image sets and scores are there."""
        self.plan = plan
        self._device, self._batch_size = device, batch_size
        self._sets: dict[tuple[str, str], ImageSet] = {}
        self._scored: dict[tuple[str, str], ScoredSet] = {}
        self._features: dict[tuple[str, str], Features] = {}

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
        from t2ialign.reward_models.base import Embedder
        from t2ialign.reward_models.registry import load_scorer

        spec = self.plan.suite.embedder
        if spec is None:
            raise ConfigError("the suite has no embedder; name one with --embedder, for instance clipscore@mini-clip")
        scorer = load_scorer(spec, device=self._device, batch_size=self._batch_size)
        if not isinstance(scorer, Embedder):
            raise ConfigError(f"{spec} embeds no pictures; name clipscore, pickscore or hpsv2 as --embedder")
        return scorer

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
        found = self.embedder.embed_images([images.file(record) for record in records.values()]).numpy()
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
