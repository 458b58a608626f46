"""SFT and KTO: single pictures with labels, from pairs or alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.pairs import BLUE, RED, picture
from helpers.plain_step import shake
from helpers.training import short_config, tiny_model
from t2ialign.data.pairs import PairDataset
from t2ialign.data.unpaired import UnpairedDataset, load_unpaired
from t2ialign.data.writing import write_unpaired
from t2ialign.engine.randomness import Draws
from t2ialign.errors import DataError
from t2ialign.trainers.defaults import resolve
from t2ialign.trainers.kto import KTOTrainer
from t2ialign.trainers.sft import SFTTrainer, train
from t2ialign.trainers.unpaired import UnpairedTask


def pictures(folder: Path, labels: list[bool]) -> Path:
    """A set of red pictures that are wanted and blue ones that are not."""
    rows = [
        {"prompt": f"a picture {n % 3}", "image": picture(RED if label else BLUE, n), "label": label}
        for n, label in enumerate(labels)
    ]
    return write_unpaired(rows, folder)


def kto_task(data: UnpairedDataset, **changes: Any) -> UnpairedTask:
    config = resolve(
        short_config("kto", Path("unused"), **{"beta": 500.0, **changes}),
        family="sd15",
        resolution=64,
        algorithm="kto",
    )
    task = KTOTrainer(config).build(tiny_model(), data, torch.enable_grad)
    shake(task.module)
    return task


def test_a_pair_set_is_two_pictures_a_pair(pairs: PairDataset) -> None:
    task = kto_task(UnpairedDataset.from_pairs(pairs))
    assert len(task.examples) == 2 * len(pairs)
    batch = task.examples.collate([task.examples.read(index, Draws(0, index)) for index in (0, 1, 6)])
    assert batch.facts["label"].tolist() == [True, False, True]
    assert batch.sides == 1
    assert batch.pixels is not None
    assert [bool(red > 0) for red in batch.pixels[:, 0].mean(dim=(1, 2))] == [True, False, True]


def test_each_picture_has_a_noise_and_a_timestep_of_its_own(pairs: PairDataset) -> None:
    examples = kto_task(UnpairedDataset.from_pairs(pairs)).examples
    one, two = (examples.read(index, Draws(0, index)) for index in (0, 1))
    assert one.timestep != two.timestep
    assert not torch.equal(one.noise, two.noise)


def test_the_step_is_the_published_loss_of_the_errors(pairs: PairDataset) -> None:
    task = kto_task(UnpairedDataset.from_pairs(pairs), undesirable_weight=0.5)
    batch = task.examples.collate([task.examples.read(index, Draws(3, index)) for index in range(6)])
    output = task.loss(task.module, batch)
    e, r = (output.metrics[name].double() for name in ("error_chosen", "reference_error_chosen"))
    g = r - e  # train_kto_sd_v1.5.py:1395-1519, kappa = beta / 2 here
    baseline = max(0.0, g.mean().item())
    v = torch.tensor([1.0, -1.0] * 3) * 250.0 * (g - baseline)
    expected = (torch.tensor([1.0, 0.5] * 3) * (1 - torch.sigmoid(v))).mean()
    assert output.loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert output.metrics["baseline"][0].item() == pytest.approx(250.0 * baseline, abs=1e-4)


def test_figures_are_of_one_label_each(tmp_path: Path, pairs: PairDataset) -> None:
    from t2ialign.engine.metrics import read_metrics

    config = short_config("kto", tmp_path / "run", beta=500.0, batch_size=4, steps=3)
    report = KTOTrainer(config, model=tiny_model(), pairs=UnpairedDataset.from_pairs(pairs)).train()
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert lines[0]["error_chosen"] == lines[0]["reference_error_chosen"] != lines[0]["error_rejected"]
    assert 0 <= lines[0]["desirable"] <= 1
    assert report["pictures_per_second"] > 0
    assert report["pairs"]["count"] == 2 * len(pairs)


def test_pictures_without_partners_train_from_disk(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pictures", [True, False, True, True, False])
    config = short_config("kto", tmp_path / "run", beta=500.0, pairs=str(folder), steps=2)
    report = KTOTrainer(config, model=tiny_model()).train()
    assert (report["status"], report["pairs"]["count"]) == ("done", 5)


def test_sft_sees_the_wanted_pictures_alone(tmp_path: Path, pairs: PairDataset) -> None:
    folder = pictures(tmp_path / "pictures", [True, False, True])
    for data in (load_unpaired(folder), UnpairedDataset.from_pairs(pairs)):
        config = resolve(short_config("sft", tmp_path), family="sd15", resolution=64, algorithm="sft")
        task = SFTTrainer(config).build(tiny_model(), data, torch.enable_grad)
        assert len(task.examples) == sum(data.labels) > 0
        assert all(data.labels[0:1])
        for index in range(len(task.examples)):
            pixels = task.examples.read(index, Draws(0, index)).pixels
            assert pixels is not None
            assert pixels[0, 0].mean() > 0 > pixels[0, 2].mean()
        assert not task.surveys


def test_sft_reports_no_margin(tmp_path: Path, pairs: PairDataset) -> None:
    config = short_config("sft", tmp_path / "run", steps=2)
    report = SFTTrainer(config, model=tiny_model(), pairs=UnpairedDataset.from_pairs(pairs)).train()
    assert "margin" not in report["last"]
    assert report["last"]["loss"] == pytest.approx(report["last"]["error_chosen"])


def test_labels_that_teach_nothing_are_refused(tmp_path: Path) -> None:
    bad = pictures(tmp_path / "bad", [False, False])
    with pytest.raises(DataError, match="no picture whose label is true"):
        SFTTrainer(short_config("sft", tmp_path / "run", pairs=str(bad)), model=tiny_model()).train()
    with pytest.raises(DataError, match=r"every label of .* is False"):
        KTOTrainer(short_config("kto", tmp_path / "run", pairs=str(bad)), model=tiny_model()).train()


def test_a_run_begins_from_names_alone(tmp_path: Path) -> None:
    from helpers.tiny import save_tiny

    folder = pictures(tmp_path / "pictures", [True, True])
    config = short_config("sft", tmp_path / "run", model=str(save_tiny(tmp_path, "sd15")), pairs=str(folder), steps=1)
    assert train(config)["status"] == "done"
