"""`t2ialign train reward` from beginning to end: load, hold out, fit, measure, report.

Keys of `output_dir/report.json`, beside those of every run (`status`, `signal`, `steps`, `resumed_from`,
`skipped_steps`, `seconds`, `first`, `last`, `peak_memory_bytes`, `processes`, `mixed_precision`, `device`,
`versions`):

    algorithm "reward", head, method
    pairs_per_second               of its steps, over all processes; rankings_per_second for rankings
    model {name, digest, parameters, trainable_parameters}
    pairs {name, count, fingerprint, dropped, held_out}   examples trained on, and those measured
    groups                         how many aspects or users are told apart
    held_out                       what `calibration.measure` returns, or null; clusters are prompts
    by_aspect                      the same for each aspect, for --head aspects
    few_shot                       what `measuring.measure_few_shot` returns for users not trained on, or null
    final                          folder of the trained scorer, or null

`reliability.svg` beside it is the plot of `held_out.bins`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from accelerate import Accelerator

from t2ialign.data.pairs import PairDataset, Ties, load_pairs
from t2ialign.data.rankings import Ranking, read_rankings
from t2ialign.engine.launch import Launch
from t2ialign.engine.loop import fit
from t2ialign.engine.processes import make_accelerator
from t2ialign.engine.resume import check_output
from t2ialign.errors import ConfigError, DataError, ModelError
from t2ialign.reward_models.clip_backends import TransformersBackend
from t2ialign.reward_models.clip_loading import load_backend
from t2ialign.reward_models.heads import Head, PalHead, make_head
from t2ialign.reward_models.training.calibration import write_plot
from t2ialign.reward_models.training.config import RewardConfig
from t2ialign.reward_models.training.examples import (
    PairExamples,
    RankingExamples,
    RewardExamples,
    is_held_out,
    ranked_pairs,
    turnable,
)
from t2ialign.reward_models.training.measuring import collect, measure_few_shot, measure_net
from t2ialign.reward_models.training.net import RewardNet, make_net
from t2ialign.reward_models.training.task import RewardTask

logger = logging.getLogger(__name__)

OWNERS = {"aspects": "aspect", "pal": "user_id"}
"""Column that says whom a pair belongs to, by head."""

Data = PairDataset | list[Ranking]


class RewardTrainer:
    """Trains a scorer; `RewardTrainer(RewardConfig(model=..., pairs=..., output_dir=...)).train()`.

    Args:
        config: Options.
        pairs: Loaded pairs or rankings to train on, nothing held out of them; by default what the options name.
        held_out: Loaded pairs or rankings to measure on, when `pairs` are given.

    Attributes:
        task: The task that the engine was given.
    """

    def __init__(self, config: RewardConfig, pairs: Data | None = None, held_out: Data | None = None) -> None:
        """Take options and data."""
        self.config = config
        self._given = None if pairs is None else (pairs, held_out)
        self.task: RewardTask | None = None

    def train(self) -> dict[str, Any]:
        """Train, measure, and return what `report.json` holds.

        Raises:
            T2IAlignError: whatever a user can mend: options, pairs, model, folder, steps that are not finite.
        """
        config = self.config
        check_output(Path(config.output_dir), config.resume)
        data, held_out = self._given if self._given is not None else load_data(config)
        accelerator = make_accelerator(config)
        with Launch():
            return self._train(accelerator, data, held_out)

    def _train(self, accelerator: Accelerator, data: Data, held_out: Data | None) -> dict[str, Any]:
        config = self.config
        backend = load_backend(config.model, device=accelerator.device, dtype="float32", revision=config.revision)
        if not isinstance(backend, TransformersBackend):
            raise ModelError(f"{config.model} is a checkpoint of open_clip; training needs a transformers CLIPModel")
        digest = backend.digest
        task = self.task = build_task(config, backend, data, held_out)
        result = fit(task, config, accelerator)
        facts = asdict(result)
        rate = facts.pop("steps_per_second")
        per_step = (config.batch_size or 1) * (config.gradient_accumulation_steps or 1) * accelerator.num_processes
        report = {
            "algorithm": "reward",
            "head": config.head,
            "method": config.method,
            **facts,
            f"{task.examples.name}_per_second": None if rate is None else rate * per_step,
            "model": {"name": config.model, "digest": digest, **_count(task)},
            "pairs": {
                "name": config.pairs,
                "count": len(task.examples),
                "fingerprint": task.examples.fingerprint,
                "dropped": dict(getattr(data, "dropped", {})),
                "held_out": 0 if held_out is None else len(held_out),
            },
            "groups": len(task.net.head.groups),
            **(task.measured or {"held_out": None}),
            "processes": accelerator.num_processes,
            "mixed_precision": accelerator.mixed_precision,
            "device": str(accelerator.device),
            "final": str(Path(config.output_dir) / "final") if result.status == "done" else None,
            "versions": _versions(),
        }
        if accelerator.is_main_process:
            self._publish(report)
        return report

    def _publish(self, report: dict[str, Any]) -> None:
        output = Path(self.config.output_dir)
        if report["held_out"] is not None:
            write_plot(output / "reliability.svg", report["held_out"], f"{self.config.head}, held out")
        aside = output / ".report.json.aside"
        aside.write_text(json.dumps(report, indent=2, default=str) + "\n", encoding="utf-8")
        os.replace(aside, output / "report.json")


def load_data(config: RewardConfig) -> tuple[Data, Data | None]:
    """Open what the options name; return what is trained on and what is measured on.

    Raises:
        ConfigError: if rankings are asked for with options of pairs.
        DataError: if nothing is left to train on.
    """
    if config.images is not None:
        if config.head in OWNERS or config.eval_split is not None:
            raise ConfigError(
                f"rankings have no {OWNERS.get(config.head, 'splits')}; leave --images out and give pairs, or take "
                "--head cosine or cyclic and --holdout"
            )
        ranked = [each for each in read_rankings(config.pairs) if ranked_pairs(each.ranks)]
        kept = [each for each in ranked if not is_held_out(each.prompt, config.holdout)]
        rest = [each for each in ranked if is_held_out(each.prompt, config.holdout)]
        _check(len(kept), config)
        return kept, rest or None
    ties = cast(Ties, config.ties)
    pairs = load_pairs(config.pairs, split=config.split, revision=config.pairs_revision, ties=ties)
    if config.eval_split is not None:
        if config.eval_split == config.split:
            raise ConfigError(f"eval_split is {config.eval_split!r}, which is trained on; name another split")
        return pairs, load_pairs(config.pairs, split=config.eval_split, revision=config.pairs_revision, ties=ties)
    out = [is_held_out(prompt, config.holdout) for prompt in pairs.prompts]
    _check(out.count(False), config)
    if not any(out):
        return pairs, None
    return (
        pairs.select([index for index, flag in enumerate(out) if not flag]),
        pairs.select([index for index, flag in enumerate(out) if flag]),
    )


def _check(count: int, config: RewardConfig) -> None:
    if not count:
        raise DataError(f"{config.pairs} has nothing left to train on; lower --holdout {config.holdout}")


def build_task(
    config: RewardConfig, backend: TransformersBackend, data: Data, held_out: Data | None = None
) -> RewardTask:
    """Put model, head, data and measuring together.

    Raises:
        DataError: if a pair lacks its aspect or user.
    """
    owner = OWNERS.get(config.head)
    groups: list[str] = []
    if owner is not None:
        assert isinstance(data, PairDataset)
        groups = sorted({value for value in data.column(owner) if value is not None})
    ranked = not isinstance(data, PairDataset)
    weights = (not ranked) if config.prompt_weights is None else config.prompt_weights
    more = {
        "tokenizer": backend.tokenizer,
        "limit": backend.limit,
        "preparation": backend.preparation,
        "groups": groups,
        "prompt_weights": weights,
    }

    def examples_of(some: Data, turned: Sequence[int] = ()) -> RewardExamples:
        if isinstance(some, PairDataset):
            return PairExamples(some, owner, turned, **more)
        assert config.images is not None
        return RankingExamples(some, config.images, **more)

    head = make_head(_settings(config, groups), int(backend.model.config.projection_dim), config.seed)
    net = make_net(
        backend,
        head.to(backend.device),
        backend.preparation,
        method=config.method,
        frozen=config.frozen_layers,
        checkpointing=config.gradient_checkpointing,
    )
    others = None if held_out is None else examples_of(held_out)
    turned: list[int] = []
    if config.dual_captions and isinstance(data, PairDataset):
        turned = turnable(data, [] if others is None else others.prompts)
    examples = examples_of(data, turned)
    if others is None:
        logger.warning("nothing is held out, so nothing is measured; give --eval_split or --holdout")

    def measured(shown: RewardNet) -> dict[str, Any] | None:
        return None if others is None else measure_all(shown, others, config, backend)

    return RewardTask(net, backend, examples, save_half=config.save_precision == "fp16", measure=measured)


def measure_all(
    net: RewardNet, examples: RewardExamples, config: RewardConfig, backend: TransformersBackend
) -> dict[str, Any]:
    """Return `held_out`, and what the head adds to it."""
    features = collect(net, examples, backend.device)
    found: dict[str, Any] = {"held_out": measure_net(net, features, config.seed)}
    if isinstance(net.head, PalHead):
        pal = config.pal
        found["few_shot"] = measure_few_shot(
            net.head, features, shots=pal.shots, draws=pal.draws, prior=pal.prior, seed=config.seed
        )
    if config.head == "aspects":
        names = sorted({str(name) for name in examples.owners})
        found["by_aspect"] = {name: measure_net(net, features.of(name), config.seed) for name in names}
    return found


def _settings(config: RewardConfig, groups: list[str]) -> dict[str, Any]:
    pal = config.pal
    by_head: dict[str, dict[str, Any]] = {
        "pal": {
            "prototypes": pal.prototypes,
            "points": pal.points,
            "width": pal.width,
            "user_scale": pal.user_scale,
        },
        "cyclic": {"planes": config.cyclic.planes},
    }
    return {"kind": config.head, "groups": groups} | by_head.get(config.head, {})


def _count(task: RewardTask) -> dict[str, int]:
    parameters = list(task.net.parameters())
    trained = sum(part.numel() for part in parameters if part.requires_grad)
    return {"parameters": sum(part.numel() for part in parameters), "trainable_parameters": trained}


def _versions() -> dict[str, str]:
    from t2ialign.models.record import package_versions

    return package_versions()


def train(config: RewardConfig) -> dict[str, Any]:
    """Run `t2ialign train reward` and return what `report.json` holds."""
    return RewardTrainer(config).train()


__all__ = ["Head", "RewardTrainer", "build_task", "load_data", "train"]
