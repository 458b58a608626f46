"""PPD: the user as a condition; shots and training pairs kept apart; nobody is the base model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.plain_step import shake
from helpers.training import FAMILIES, short_config, tiny_model
from t2ialign.data.pairs import PairDataset
from t2ialign.engine.randomness import Draws
from t2ialign.errors import ConfigError, DataError, ModelError
from t2ialign.models.loading import load_model
from t2ialign.trainers.defaults import resolve
from t2ialign.trainers.examples import Batch
from t2ialign.trainers.ppd import PPDTask, PPDTrainer
from t2ialign.users.embed import user_file
from t2ialign.users.files import load_user, save_user
from t2ialign.users.shots import pair_id

OPTIONS: dict[str, Any] = {"extractor": "clip:mini-clip", "shots": 2, "embeddings": 1, "shot_pool": 2, "beta": 500.0}


def run(output: Path, pairs: PairDataset, family: str = "sd15", **changes: Any) -> tuple[PPDTrainer, dict[str, Any]]:
    trainer = PPDTrainer(short_config("ppd", output, **{**OPTIONS, **changes}), model=tiny_model(family), pairs=pairs)
    return trainer, trainer.train()


def task_of(
    folder: Path, pairs: PairDataset, family: str = "sd15", prediction_type: str = "epsilon", **changes: Any
) -> PPDTask:
    config = short_config("ppd", folder / "run", **{**OPTIONS, **changes})
    config = resolve(config, family=family, resolution=64, algorithm="ppd")
    return PPDTrainer(config).build(tiny_model(family, prediction_type), pairs, torch.enable_grad)


def batch_of(task: PPDTask, count: int = 4) -> Batch:
    return task.examples.collate([task.examples.read(index, Draws(0, index)) for index in range(count)])


def test_shots_are_not_trained_on(tmp_path: Path, rich: PairDataset) -> None:
    trainer, report = run(tmp_path / "run", rich, shot_pool=3, embeddings=2)
    assert report["users"]["count"] == 2
    assert isinstance(trainer.task, PPDTask)
    assert report["users"]["pairs_used_as_shots"] == sum(len(user.all_shots) for user in trainer.task.users.values())
    trained = trainer.task.examples.data
    assert isinstance(trained, PairDataset)
    used = {pair_id(trained, index) for index in range(len(trained))}
    for user in ("ann", "bob"):
        embedding = load_user(user_file(tmp_path / "run" / "users", user))
        assert embedding.tokens.shape[0] == 2
        assert not embedding.all_shots & used
    assert report["pairs"]["count"] == len(trained) == 12 - report["users"]["pairs_used_as_shots"]


def test_a_task_on_shots_is_refused(tmp_path: Path, rich: PairDataset) -> None:
    task = task_of(tmp_path, rich)
    config = short_config("ppd", tmp_path / "other", **OPTIONS)
    with pytest.raises(DataError, match="one of the shots"):
        PPDTask(tiny_model(), rich, task.users, config=config, objective=task.objective)


@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize(("family", "prediction_type"), FAMILIES)
def test_the_first_margin_is_zero_whoever_the_user_is(
    tmp_path: Path, rich: PairDataset, family: str, prediction_type: str, checkpointing: bool
) -> None:
    task = task_of(tmp_path, rich, family, prediction_type, gradient_checkpointing=checkpointing)
    output = task.loss(task.module, batch_of(task))
    assert output.margin.tolist() == [0.0] * 4
    output.loss.backward()
    moved = {name for name, part in task.module.named_parameters() if part.grad is not None and part.grad.any()}
    assert moved
    assert all(name.endswith("user_v.weight") for name in moved)


def test_the_user_moves_the_policy_and_never_the_reference(tmp_path: Path, rich: PairDataset) -> None:
    task = task_of(tmp_path, rich, user_dropout=0.0)
    shake(task.module)
    batch = task.encoded(batch_of(task))
    assert batch.user is not None
    plain, turned, nobody = (
        task.errors(task.module, replace(batch, user=user))
        for user in (batch.user, batch.user.flip(0), torch.zeros_like(batch.user))
    )
    assert plain.reference is not None
    assert not torch.equal(plain.policy, turned.policy)
    assert turned.reference is not None
    assert torch.equal(plain.reference, turned.reference)
    assert torch.equal(nobody.policy, plain.reference)


def test_users_are_left_out_as_often_as_asked_and_meet_all_their_embeddings(tmp_path: Path, rich: PairDataset) -> None:
    task = task_of(tmp_path, rich, user_dropout=0.3, embeddings=3, shot_pool=3)
    seen = [task.examples.read(0, Draws(0, n)).user for n in range(400)]
    assert 80 < sum(not user.any() for user in seen if user is not None) < 160
    user = task.users[str(task.examples.data.column("user_id")[0])]
    known = [vectors for vectors in seen if vectors is not None]
    assert all(any(torch.equal(vectors, each) for vectors in known) for each in user.tokens)
    again = task.examples.read(0, Draws(0, 17)).user
    assert again is not None
    assert seen[17] is not None
    assert torch.equal(again, seen[17])


def test_only_the_adapter_is_saved_and_nobody_is_the_base_model(tmp_path: Path, rich: PairDataset) -> None:
    from helpers.tiny import save_tiny

    base = save_tiny(tmp_path, "sd15")
    config = short_config("ppd", tmp_path / "run", **OPTIONS, model=str(base), steps=3, learning_rate=0.05)
    trainer = PPDTrainer(config, pairs=rich)
    trainer.train()
    assert {path.name for path in (tmp_path / "run" / "final").iterdir()} == {
        "README.md",
        "t2ialign.json",
        "user_adapter.safetensors",
    }
    model, plain = load_model(tmp_path / "run" / "final"), load_model(base)
    text = plain.encode_prompts(["a picture 0"])
    noisy, timesteps = torch.randn(1, 4, 8, 8), torch.tensor([500])
    user = load_user(user_file(tmp_path / "run" / "users", "ann")).mean()[None]
    with torch.no_grad():
        before = plain.predict(noisy, timesteps, text)
        assert torch.equal(model.predict(noisy, timesteps, text), before)
        assert torch.equal(model.predict(noisy, timesteps, text.with_user(torch.zeros_like(user))), before)
        assert not torch.equal(model.predict(noisy, timesteps, text.with_user(user)), before)


def test_users_with_a_file_keep_it_and_the_others_get_one(tmp_path: Path, rich: PairDataset) -> None:
    from t2ialign.users.embed import embed_into
    from t2ialign.users.extractors import load_extractor
    from t2ialign.users.shots import ShotSettings

    folder = tmp_path / "users"
    embed_into(folder, rich, load_extractor("clip:mini-clip"), ShotSettings(shots=3, seed=7), users=["ann"])
    before = user_file(folder, "ann").read_bytes()
    _, report = run(tmp_path / "run", rich, users=str(folder))
    assert user_file(folder, "ann").read_bytes() == before
    assert len(load_user(user_file(folder, "bob")).all_shots) == 2
    assert report["users"]["pairs_used_as_shots"] == 3 + 2
    assert not (tmp_path / "run" / "users").exists()


def test_a_model_with_a_user_adapter_is_not_tuned_whole(tmp_path: Path, rich: PairDataset) -> None:
    from t2ialign.models.user_adapter import add_user_adapter
    from t2ialign.trainers.dpo import DiffusionDPOTrainer

    model = tiny_model()
    add_user_adapter(model, width=4, tokens=2)
    config = short_config("dpo", tmp_path / "run", method="full", beta=500.0)
    with pytest.raises(ModelError, match="has a user adapter"):
        DiffusionDPOTrainer(config, model=model, pairs=rich).train()


def test_what_can_not_be_is_refused(tmp_path: Path, pairs: PairDataset, rich: PairDataset) -> None:
    with pytest.raises(DataError, match="user_id"):
        run(tmp_path / "run", pairs)
    with pytest.raises(DataError, match="needs 7 different pairs for shots"):
        run(tmp_path / "run", rich, shots=7, shot_pool=7)
    with pytest.raises(ConfigError, match="method"):
        run(tmp_path / "run", rich, method="lora")
    with pytest.raises(ConfigError, match="user_dropout"):
        run(tmp_path / "run", rich, user_dropout=2.0)


def test_an_estimate_looks_at_one_user_and_writes_nothing(tmp_path: Path, rich: PairDataset) -> None:
    folder = tmp_path / "users"
    for users in (None, str(folder)):
        _, report = run(tmp_path / "run", rich, estimate=True, users=users)
        assert report["trainable_parameters"] > 0
        assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_stopped_while_embedding_goes_on_with_the_users_that_are_left(
    tmp_path: Path, rich: PairDataset
) -> None:
    run(tmp_path / "first", rich, steps=1)
    (tmp_path / "run" / "users").mkdir(parents=True)
    kept = user_file(tmp_path / "run" / "users", "bob")
    kept.write_bytes(user_file(tmp_path / "first" / "users", "bob").read_bytes())
    before = kept.stat().st_mtime_ns
    _, report = run(tmp_path / "run", rich, steps=1)
    assert (report["users"]["count"], kept.stat().st_mtime_ns) == (2, before)
    with pytest.raises(ConfigError, match="not empty"):
        run(tmp_path / "run", rich, steps=1)


def test_a_run_resumes_with_the_users_it_began_with_and_no_others(tmp_path: Path, rich: PairDataset) -> None:
    output = tmp_path / "run"
    options: dict[str, Any] = {"lr_scheduler": "constant", "checkpoint_every": 2}
    run(output, rich, steps=2, **options)
    file = user_file(output / "users", "ann")
    before = file.stat().st_mtime_ns
    run(output, rich, steps=4, **options, resume="latest")
    assert file.stat().st_mtime_ns == before
    known = load_user(file)
    save_user(replace(known, tokens=known.tokens * 1.001), file)
    with pytest.raises(ConfigError, match="examples"):
        run(output, rich, steps=6, **options, resume="latest")
