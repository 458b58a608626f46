"""The oracle as a scorer."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from t2ialign.errors import DataError
from t2ialign.mini import oracle, world
from t2ialign.reward_models.base import RewardModel
from t2ialign.reward_models.oracle import OracleScorer

PROMPTS = ["a large red circle on a white background", "a blue star above a green ring", "the flag of France"]


def test_passes_the_oracles_scores_on() -> None:
    scorer: RewardModel = OracleScorer()
    assert isinstance(scorer, RewardModel)
    flag = world.render(world.parse(PROMPTS[2]))
    scores = scorer.score([PROMPTS[2], PROMPTS[0]], [flag, flag])
    assert scores.dtype == torch.float32
    assert scores.tolist() == pytest.approx([oracle.score(PROMPTS[2], flag), oracle.score(PROMPTS[0], flag)])
    assert scores[0] > 0.9 > scores[1]


def test_a_prompt_from_outside_is_named() -> None:
    with pytest.raises(DataError, match=r"'a photo of a cat'.*clipscore"):
        OracleScorer().score([PROMPTS[2], "a photo of a cat"], [Image.new("RGB", (64, 64))] * 2)


def test_info() -> None:
    info = OracleScorer().info()
    json.dumps(info)
    assert len(info["code_sha256"]) == 64
    assert info == OracleScorer().info()
    assert OracleScorer().count_truncated(["x" * 10_000]) == 0
    assert OracleScorer().aggregate([0.0, 1.0]) == 0.5
