"""The watch: what is called over-optimisation, and which scorers are of one family."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.guided import PROMPTS, Blue, Red, ready, train_guided
from t2ialign.trainers.prompts import MINI_PROMPTS, mini_prompts, read_prompt_list
from t2ialign.trainers.rewards import Reward
from t2ialign.trainers.watching import mean_interval


class Scripted:
    """Gives the numbers of a list, whatever the pictures."""

    def __init__(self, name: str, rows: list[list[float]]) -> None:
        self.name, self.rows = name, iter(rows)

    def score(self, prompts: Any, images: Any) -> Tensor:
        return torch.tensor(next(self.rows))


def watch_of(tmp_path: Path, mine: list[list[float]], other: list[list[float]]) -> Any:
    task = ready(
        "ddpo",
        tmp_path,
        scorer_object=Reward.of(Scripted("mine", mine), "mine"),
        watch_object=Reward(name="other", score=Scripted("other", other).score),
        watch_every=1,
        batch_size=4,
    )
    return task.watch, task.policy()


STEADY = [1.0, 2.0, 3.0, 4.0]
UP = [1.5, 2.4, 3.6, 4.5]
DOWN = [0.5, 1.4, 2.6, 3.5]
MIXED = [3.0, 0.5, 4.5, 2.0]


@pytest.mark.parametrize(
    ("mine", "other", "warned"),
    [(UP, DOWN, [5]), (UP, UP, []), (DOWN, DOWN, []), (UP, MIXED, []), (MIXED, DOWN, []), (STEADY, DOWN, [])],
)
def test_it_warns_where_the_reward_rises_and_the_watch_falls(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mine: list[float], other: list[float], warned: list[int]
) -> None:
    watch, policy = watch_of(tmp_path, [STEADY, mine], [STEADY, other])
    with caplog.at_level(logging.WARNING):
        watch.measure(0, policy, None)
        figures = watch.measure(5, policy, None)
    assert watch.warned == warned
    assert ("over-optimised" in caplog.text) == bool(warned)
    assert figures == {"watch_reward": pytest.approx(sum(mine) / 4), "watch": pytest.approx(sum(other) / 4)}


def test_the_same_noise_gives_the_same_pictures(tmp_path: Path) -> None:
    task = ready("ddpo", tmp_path, scorer_object=Red(), watch_object=Blue(), watch_every=1, watch_count=3)
    first, again = (task.measure(step) for step in (0, 1))
    assert first == again
    assert first["watch_divergence"] == 0.0
    assert len(task.watch.prompts) == 3
    task.watch.batch_size = 1
    alone = task.measure(2)
    assert alone["watch_reward"] == pytest.approx(first["watch_reward"], abs=1e-4)


def test_scorers_of_one_family_are_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ready("ddpo", tmp_path / "a", scorer_object=Red(), watch_object=Blue(), watch_every=1)
        assert "family" not in caplog.text
        ready("ddpo", tmp_path / "b", scorer_object=Red(), watch_object=Red(), watch_every=1)
    assert "of the family of red" in caplog.text


def test_a_family_is_a_class_or_a_checkpoint() -> None:
    from t2ialign.reward_models.registry import load_scorer

    clip, oracle = (Reward.of(load_scorer(name)) for name in ("clipscore@mini-clip", "oracle"))
    pick = Reward.of(load_scorer("pickscore@mini-clip"))
    assert clip.related(pick)
    assert clip.related(clip)
    assert not clip.related(oracle)
    assert clip.score_tensors is not None
    assert oracle.score_tensors is None


def test_a_lower_score_can_be_better() -> None:
    def noise(prompts: Any, images: Any) -> Tensor:
        return torch.tensor([2.0, 3.0])

    class Lower:
        name, higher_is_better = "lower", False
        score = staticmethod(noise)

    assert Reward.of(Lower()).of_pictures(["a", "b"], []).tolist() == [-2.0, -3.0]
    assert Reward.of(noise).name == "noise"
    assert Reward.of(noise).of_pictures(["a", "b"], []).tolist() == [2.0, 3.0]


def test_prompts_that_can_not_be_scored_are_refused_before_the_model(tmp_path: Path) -> None:
    from t2ialign.errors import DataError
    from t2ialign.reward_models.registry import load_scorer

    with pytest.raises(DataError, match="oracle cannot judge"):
        train_guided("ddpo", tmp_path / "run", scorer_object=load_scorer("oracle"), prompts=["a cat on a mat"])
    assert not (tmp_path / "run").exists()


def test_an_interval_leaves_out_what_is_not_known() -> None:
    mean, half = mean_interval(torch.tensor([1.0, 3.0, math.nan, 5.0]))
    assert mean == 3.0
    assert half == pytest.approx(4.302652729911275 * 2 / math.sqrt(3))  # t of 2 degrees
    assert mean_interval(torch.tensor([1.0])) == (1.0, math.inf)


def test_the_packaged_prompts_are_of_their_split() -> None:
    from t2ialign.mini.world import split_of

    lists = {split: mini_prompts(split, 100) for split in ("train", "validation", "test")}
    for split, prompts in lists.items():
        assert len(set(prompts)) == 100
        assert {split_of(prompt) for prompt in prompts} == {split}
    assert read_prompt_list(MINI_PROMPTS)[:100] == lists["train"]


def test_a_prompt_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("\n".join([*PROMPTS, PROMPTS[0]]), encoding="utf-8")
    assert read_prompt_list(str(tmp_path / "mine.txt")) == PROMPTS


def test_a_scorer_is_measured_outside_the_precision_of_the_run(tmp_path: Path) -> None:
    class Asked(Red):
        def __init__(self) -> None:
            self.seen: list[bool] = []

        def score(self, prompts: Any, images: Any) -> Tensor:
            self.seen.append(torch.is_autocast_enabled("cpu"))
            return super().score(prompts, images)

    asked = Asked()
    task = ready("ddpo", tmp_path, scorer_object=asked, watch_every=1, watch_count=2, mixed_precision="bf16")
    inside: list[bool] = []
    task.model.unet.register_forward_hook(lambda *_: inside.append(torch.is_autocast_enabled("cpu")))
    task.measure(0)
    assert asked.seen == [False]
    assert inside
    assert all(inside)
