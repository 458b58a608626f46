"""What is packaged is what its cards say: weights that draw, a CLIP that reads, pairs that were judged."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from t2ialign.data.pairs import PairDataset, load_pairs
from t2ialign.generation.sampler import generate_images
from t2ialign.mini import ASSETS, NAMES, oracle, resource, users, world
from t2ialign.models.loading import load_model

MEGABYTES = 40


@pytest.fixture(scope="module")
def pairs() -> PairDataset:
    return load_pairs("mini-pairs", split="train")


def test_names_and_their_folders() -> None:
    for name in NAMES:
        folder = resource(name)
        assert folder is not None
        assert (folder / "README.md").is_file() or name == "mini-clip"
    assert resource("stable-diffusion") is None


def test_everything_packaged_is_small_enough() -> None:
    total = sum(f.stat().st_size for f in ASSETS.rglob("*") if f.is_file())
    assert total <= MEGABYTES * 2**20, f"{total / 2**20:.1f} MiB"


def test_weights_are_half_precision_safetensors_and_load_as_float32() -> None:
    from safetensors import safe_open

    for file in ASSETS.rglob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            kinds = {tensors.get_tensor(k).dtype for k in tensors.keys()}  # noqa: SIM118
        assert torch.float32 not in kinds, file
    assert not [f for f in ASSETS.rglob("*") if f.suffix in {".bin", ".pt", ".ckpt", ".pkl"}]
    model = load_model("mini-sd")
    assert model.dtype == torch.float32
    assert model.family == "mini-sd"
    assert 4e6 <= sum(p.numel() for p in model.unet.parameters()) <= 8e6


def test_mini_sd_draws_what_it_is_asked_for() -> None:
    rng = np.random.default_rng(8)
    prompts = [world.describe(world.sample_single(rng)) for _ in range(16)]
    pictures = list(generate_images(load_model("mini-sd"), prompts, list(range(16)), batch_size=16))
    right = sum(oracle.judge(p, i).right for p, i in zip(prompts, pictures, strict=True))
    assert right >= 11, f"{right} of 16 single-object prompts"


def test_the_card_tells_what_the_gates_measured() -> None:
    folder = resource("mini-sd")
    assert folder is not None
    figures = json.loads((folder / "gates.json").read_text())
    card = (folder / "README.md").read_text()
    for kind in ("single", "double", "flag"):
        assert f"{100 * figures['pictures'][kind]['right']['value']:.1f} %" in card
    assert figures["oracle"]["fresh_drawings"]["value"] >= 0.99
    assert figures["vae"]["round_trip"]["value"] >= 0.95
    assert figures["pictures"]["single"]["right"]["value"] >= 0.75
    assert figures["pictures"]["double"]["right"]["value"] >= 0.40
    assert figures["pictures"]["flag"]["right"]["value"] >= 0.75
    assert figures["clip"]["right_of_64"]["value"] >= 0.90


def test_mini_clip_finds_the_right_caption() -> None:
    from t2ialign.reward_models.registry import load_scorer

    rng = np.random.default_rng(9)
    specs = list({world.describe(s): s for s in (world.sample(rng) for _ in range(24))}.items())
    texts, pictures = [t for t, _ in specs], [world.render(s) for _, s in specs]
    scorer = load_scorer("clipscore@mini-clip?definition=cosine")
    scores = torch.stack([scorer.score(texts, [p] * len(texts)) for p in pictures])
    assert (scores.argmax(1) == torch.arange(len(texts))).float().mean() >= 0.8


def test_mini_pairs_are_a_thousand_and_keep_to_their_splits(pairs: PairDataset) -> None:
    assert len(pairs) >= 1000
    for split in ("train", "validation", "test"):
        rows = load_pairs("mini-pairs", split=split)
        assert {world.split_of(p) for p in rows.prompts} == {split}


def test_mini_pairs_are_as_the_oracle_judges(pairs: PairDataset) -> None:
    for i in range(0, len(pairs), 25):
        pair = pairs[i]
        assert oracle.judge(pair.prompt, pair.chosen).right
        assert not oracle.judge(pair.prompt, pair.rejected).right
        assert oracle.caption(pair.chosen) == pair.chosen_prompt
        assert oracle.caption(pair.rejected) == pair.rejected_prompt
        assert pair.scores_chosen is not None
        assert pair.scores_chosen["oracle"] == pytest.approx(oracle.score(pair.prompt, pair.chosen))


def test_mini_user_pairs_have_their_users_and_follow_their_tastes() -> None:
    train, test = (load_pairs("mini-user-pairs", split=s) for s in ("train", "test"))
    assert set(train.column("user_id")) == set(users.user_ids("train"))
    assert set(test.column("user_id")) == set(users.user_ids("test"))
    agree = 0
    for rows in (train, test):
        for user, chosen, rejected in zip(
            *(rows.column(c) for c in ("user_id", "chosen_prompt", "rejected_prompt")), strict=True
        ):
            likes = users.taste(user)
            agree += likes.utility(world.parse(chosen)) > likes.utility(world.parse(rejected))
    share = agree / (len(train) + len(test))
    assert 0.8 < share < 1.0, "choices follow the tastes, but not always"


def test_the_packaged_scorer_is_better_than_the_clip_it_was_made_of() -> None:
    from t2ialign.reward_models.registry import load_scorer

    rows = list(load_pairs("mini-pairs", split="validation"))
    prompts = [row.prompt for row in rows]
    right = {}
    for name in ("mini-clip", "mini-pickscore"):
        scorer = load_scorer(f"pickscore@{name}", device="cpu")
        margins = scorer.score(prompts, [r.chosen for r in rows]) - scorer.score(prompts, [r.rejected for r in rows])
        right[name] = float((margins > 0).float().mean())
    assert right["mini-pickscore"] > right["mini-clip"] + 0.05
