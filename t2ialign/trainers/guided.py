"""What training by a scorer shares: the prompts, the drawing, the reference, the watch.

An algorithm says how its chain is drawn and what its loss is; the scorer is handed in, for a trainer knows none.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from t2ialign.engine.config import known
from t2ialign.engine.order import Schedule
from t2ialign.engine.randomness import Draws, Stream
from t2ialign.engine.task import GivenUp, StopRequested
from t2ialign.errors import ConfigError, DataError
from t2ialign.models.conditioning import Conditioning
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.trainers.guided_config import GuidedConfig
from t2ialign.trainers.prompts import PromptBatch, PromptExamples, read_prompt_list
from t2ialign.trainers.rewards import Reward
from t2ialign.trainers.rollouts import Chain, Drawer, Predict
from t2ialign.trainers.task import Autocast, ModelTask, first_distinct
from t2ialign.trainers.trainer import ModelTrainer
from t2ialign.trainers.watching import Watch

G = TypeVar("G", bound=GuidedConfig)
T = TypeVar("T", bound="GuidedTask")

_FIRST, _WARNED = "watch", "watch.over_optimised_at"
"""Names in the task's state: the watch's first scores, and the steps at which it warned."""


class GuidedTask(ModelTask):
    """A diffusion model, prompts and a scorer as a task of the engine.

    Args:
        model: As loaded; its UNet gets the LoRA, or is trained whole.
        examples: Which prompts.
        reward: What is raised.
        config: Options with every value known.
        watch: What is not trained on, or None.
        watch_prompts: What is measured; the first prompts by default.
        autocast: Context of every prediction without gradient; none by default.

    Attributes:
        drawer: How pictures are drawn in training.
        watch: What is measured, or None.
    """

    eta = 0.0

    def __init__(
        self,
        model: DiffusionModel,
        examples: PromptExamples,
        reward: Reward,
        *,
        config: GuidedConfig,
        watch: Reward | None = None,
        watch_prompts: Sequence[str] | None = None,
        autocast: Autocast = nullcontext,
    ) -> None:
        self.reward, self._guided, self._examples = reward, config, examples
        self._stop: StopRequested = bool
        # With a LoRA the reference costs nothing, and the watch takes its distance to it.
        super().__init__(model, config.reference_weight > 0 or config.method == "lora", config, autocast)
        steps, scale = known(config.num_inference_steps, "num_inference_steps"), config.guidance_scale
        resolution = config.resolution or model.resolution
        self.drawer = Drawer(model, Chain.of(model, steps, self.eta), known(scale, "guidance_scale"), resolution)
        self.watch: Watch | None = None
        if config.watch_every:
            prompts = list(watch_prompts or examples.prompts)[: config.watch_count]
            plain = Drawer(model, Chain.of(model, steps), self.drawer.scale, resolution)
            size = known(config.batch_size, "batch_size")
            self.watch = Watch(plain, prompts, config.seed, reward, watch, size)

    @property
    def whole_only(self) -> str | None:
        """How often the UNet is called is drawn, process by process."""
        return "each process draws its own number of steps through the model"

    @property
    def examples(self) -> PromptExamples:
        """The prompts."""
        return self._examples

    def setup(self, device: torch.device, schedule: Schedule, stop: StopRequested) -> None:
        """Count the prompts that are cut, and keep whom to ask about a stop."""
        self._stop = stop
        self.count_captions(self.examples.prompts)

    def give_up_if_asked(self) -> None:
        """Raise GivenUp if this process, or one it has heard of, was asked to stop."""
        if self._stop():
            raise GivenUp

    def first_prompts(self) -> list[str]:
        """Return the first prompts."""
        return first_distinct(self.examples.prompts, 4)

    def policy(self, module: nn.Module | None = None) -> Predict:
        """Return the policy; a prediction with gradient goes through `module`, the prepared one."""
        return partial(self.model.predict, unet=module)

    def held(self) -> Predict | None:
        """Return the reference where it has a weight."""
        return self.reference.predict if self.reference is not None and self._guided.reference_weight else None

    def _cast(self, predict: Predict) -> Predict:
        """Return a prediction in the run's precision; what is around it, as a scorer, keeps its own."""

        def inside(noisy: Tensor, timesteps: Tensor, told: Conditioning) -> Tensor:
            with self._autocast():
                return predict(noisy, timesteps, told)

        return inside

    def noise(self, batch: PromptBatch, stream: Stream, shape: Sequence[int]) -> Tensor:
        """Return unit noise of each picture on the CPU, `[B, *shape]`, by its number."""
        return torch.stack([draws.normal(stream, shape) for draws in self.draws(batch)])

    def draws(self, batch: PromptBatch) -> list[Draws]:
        """Return the draws of each picture, by its number."""
        return [Draws(self._guided.seed, int(number)) for number in batch.numbers]

    @property
    def measure_every(self) -> int:
        """Optimizer steps between measurements."""
        return self._guided.watch_every

    def measure(self, step: int) -> Mapping[str, float]:
        """Score the watched prompts; see `Watch`."""
        assert self.watch is not None
        reference = None if self.reference is None else self._cast(self.reference.predict)
        figures = self.watch.measure(step, self._cast(self.policy()), reference, self.give_up_if_asked)
        self.notes["watched"] = {
            "prompts": len(self.watch.prompts),
            "first": {"step": 0, **self.watch.before(reference is not None)},
            "last": {"step": step, **figures},
            "change": dict(self.watch.changes),
            "over_optimised_at": list(self.watch.warned),
        }
        return figures

    def trace(self, n: int, index: int) -> Mapping[str, Any]:
        """Return number and prompt of a picture."""
        number = self.examples.number(n)
        return {"picture": number, "prompt": self.examples.prompts[self.examples.entry(self._guided.seed, number)]}

    def state(self) -> dict[str, Tensor]:
        """Return the watch's first scores, and when it warned."""
        if self.watch is None or self.watch.first is None:
            return {}
        return {_FIRST: self.watch.first, _WARNED: torch.tensor(self.watch.warned, dtype=torch.int64)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state.

        Raises:
            DataError: if it is of another watch.
        """
        first = state.get(_FIRST)
        if self.watch is None or first is None:
            return
        if tuple(first.shape) != (2, len(self.watch.prompts)):
            raise DataError(f"the checkpoint watched {first.shape[1]} prompts, this run {len(self.watch.prompts)}")
        self.watch.first, self.watch.warned = first, state.get(_WARNED, torch.zeros(0)).long().tolist()


class GuidedTrainer(ModelTrainer[G, T], Generic[G, T]):
    """Trains by a scorer.

    Args:
        config: Options; those left None are filled for the model's family.
        scorer: What is raised: an object with `score(prompts, images)` and, for refl, `score_tensors`, as
            `t2ialign.reward_models.registry.load_scorer` returns, or a plain callable.
        watch: What is not trained on, alike; None for nothing.
        model: A loaded model to train in place; by default the one that `config.model` names.
        prompts: Given instead of those that `config.prompts` names.
    """

    def __init__(
        self,
        config: G,
        scorer: Any,
        watch: Any | None = None,
        model: DiffusionModel | None = None,
        prompts: Sequence[str] | None = None,
    ) -> None:
        super().__init__(config, model)
        self.reward = Reward.of(scorer, config.scorer)
        self.watched = None if watch is None else Reward.of(watch, config.watch)
        self.prompts = None if prompts is None else list(dict.fromkeys(prompts))

    @abstractmethod
    def build(self, model: DiffusionModel, prompts: list[str], **more: Any) -> T:
        """Put model, prompts and scorer together, by options with every value known.

        Args:
            model: As loaded.
            prompts: Different ones.
            more: `watch`, `watch_prompts` and `autocast` of `GuidedTask`.
        """

    def check(self, prompts: Sequence[str]) -> None:
        """Refuse prompts that a scorer can not score."""
        for scorer in (self.reward, self.watched):
            if scorer is not None and scorer.check is not None:
                scorer.check(prompts)

    def make_task(self, accelerator: Accelerator) -> T:
        """Read the prompts, load the model and put them together."""
        prompts = self._read(self.config.prompts)
        watched = None if self.config.watch_prompts is None else read_prompt_list(self.config.watch_prompts)
        self.check([*(prompts or ()), *(watched or ())])
        model = self.load_model(accelerator)
        self.resolve(model, accelerator)
        if prompts is None:
            prompts = self._read(self.config.prompts)
        if prompts is None:
            raise ConfigError("no prompts are given; name a file with --prompts")
        self.check(prompts)
        self.prompts = prompts
        task = self.build(model, prompts, watch=self.watched, watch_prompts=watched, autocast=accelerator.autocast)
        task.notes["scorer"] = self.reward.name
        task.notes["watch"] = None if self.watched is None else self.watched.name
        return task

    def _read(self, name: str | None) -> list[str] | None:
        if self.prompts is not None:
            return self.prompts
        return None if name is None else read_prompt_list(name)

    def describe(self, task: T) -> dict[str, Any]:
        """Return name, count and fingerprint of the prompts."""
        examples = task.examples
        return {
            "prompts": {
                "name": self.config.prompts,
                "count": len(examples.prompts),
                "fingerprint": examples.fingerprint,
            }
        }
