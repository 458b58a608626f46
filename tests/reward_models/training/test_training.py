"""`train reward`: its step is the published criterion, it resumes to the same bits, and its `final/` scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from helpers.clip import save_clip
from helpers.pairs import BLUE, RED, colour_pairs, picture
from t2ialign.data.pairs import PairDataset
from t2ialign.engine.metrics import read_metrics
from t2ialign.errors import ConfigError, DataError, ModelError
from t2ialign.reward_models.clip_loading import load_backend
from t2ialign.reward_models.registry import load_scorer
from t2ialign.reward_models.training.config import RewardConfig
from t2ialign.reward_models.training.examples import is_held_out, ranked_pairs
from t2ialign.reward_models.training.trainer import RewardTrainer, build_task, load_data

SHORT: dict[str, Any] = {
    "steps": 4,
    "batch_size": 2,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-3,
    "lr_scheduler": "constant",
    "lr_warmup_steps": 0,
    "mixed_precision": "no",
    "checkpoint_every": 0,
    "keep_checkpoints": 0,
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> PairDataset:
    """Eight pairs on three prompts, two of them ties."""
    folder: Path = tmp_path_factory.mktemp("pairs")
    return load_kept(folder, preference_prob=lambda n: 0.5 if n % 4 == 3 else 1.0)


def load_kept(folder: Path, count: int = 8, **columns: Any) -> PairDataset:
    from t2ialign.data.pairs import load_pairs

    colour_pairs(folder / "pairs", count, **columns)
    return load_pairs(folder / "pairs", ties="keep")


def config(clip: Path, output: Path, **changes: Any) -> RewardConfig:
    return RewardConfig(model=str(clip), output_dir=output, **{"pairs": "given", **SHORT, **changes})


def run(
    clip: Path, output: Path, data: Any, held_out: Any = None, **changes: Any
) -> tuple[RewardTrainer, dict[str, Any]]:
    trainer = RewardTrainer(config(clip, output, **changes), data, held_out)
    return trainer, trainer.train()


def weights(output: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in sorted((output / "final").glob("*.safetensors")):
        found |= {f"{file.stem}.{name}": value for name, value in load_file(file).items()}
    return found


def task_of(clip: Path, data: Any, **changes: Any) -> Any:
    backend = load_backend(str(clip), device=torch.device("cpu"), dtype="float32")
    return build_task(config(clip, Path("unused"), **changes), backend, data)  # type: ignore[arg-type]


def test_a_step_is_pickscores_criterion(clip: Path, pairs: PairDataset) -> None:
    """A twin on transformers alone: softmax over the pair, log 1/2 for ties, a prompt's pairs weigh one together."""
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    task = task_of(clip, pairs)
    batch = task.examples.collate([task.examples.read(index) for index in range(6)])
    output = task.loss(task.module, batch)
    output.loss.backward()

    model = CLIPModel.from_pretrained(clip)
    processor, tokenizer = CLIPImageProcessorPil.from_pretrained(clip), CLIPTokenizer.from_pretrained(clip)
    rows = [pairs[index] for index in range(6)]
    sides = []
    ids = tokenizer([row.prompt for row in rows], padding=True, return_tensors="pt")["input_ids"]
    text = model.get_text_features(input_ids=ids).pooler_output
    for side in ("chosen", "rejected"):
        pixels = processor(images=[getattr(row, side) for row in rows], return_tensors="pt")["pixel_values"]
        image = model.get_image_features(pixel_values=pixels).pooler_output
        cosine = (image / image.norm(dim=1, keepdim=True) * text / text.norm(dim=1, keepdim=True)).sum(dim=1)
        sides.append(model.logit_scale.exp() * cosine)
    logits = torch.stack(sides, dim=1)
    tie = torch.tensor([row.preference_prob == 0.5 for row in rows])
    labels = torch.where(tie[:, None], torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0]]))
    each = -(labels * logits.log_softmax(dim=1)).sum(dim=1) + tie * np.log(0.5)
    weight = torch.tensor([1 / pairs.prompts.count(row.prompt) for row in rows])
    loss = (each * weight / weight.sum()).sum()
    loss.backward()

    assert int(tie.sum()) == 1
    assert len(set(weight.tolist())) == 2
    assert output.loss.item() == pytest.approx(loss.item(), abs=1e-5)
    mine = dict(task.net.clip.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(mine[name].grad, parameter.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_a_step_of_four_is_four_of_one(tmp_path: Path, clip: Path, pairs: PairDataset) -> None:
    # A large epsilon makes AdamW's update proportional to the gradient, so that rounding is not blown up.
    plain: dict[str, Any] = {"steps": 2, "adam_epsilon": 1.0, "learning_rate": 1e-2}
    run(clip, tmp_path / "whole", pairs, batch_size=4, **plain)
    run(clip, tmp_path / "parts", pairs, batch_size=1, gradient_accumulation_steps=4, **plain)
    mine, theirs = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-5)
    losses = [
        [line["loss"] for line in read_metrics(tmp_path / each / "metrics.jsonl")] for each in ("whole", "parts")
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.parametrize("head", ["cosine", "pal", "cyclic"])
def test_a_resumed_run_equals_a_straight_one_bit_for_bit(tmp_path: Path, clip: Path, head: str) -> None:
    data = load_kept(tmp_path, user_id=lambda n: "ann" if n % 2 else "bob")
    options: dict[str, Any] = {"head": head, "gradient_accumulation_steps": 2, "checkpoint_every": 1, "ema": True}
    run(clip, tmp_path / "straight", data, **options)
    run(clip, tmp_path / "other", data, **options)
    checkpoint = tmp_path / "other" / "checkpoints" / "step-000002"
    _, report = run(clip, tmp_path / "other", data, **options, resume=str(checkpoint))
    assert report["resumed_from"] == 2
    mine, theirs = weights(tmp_path / "straight"), weights(tmp_path / "other")
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
    for file in (tmp_path / "straight" / "checkpoints" / "step-000004").glob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "other" / "checkpoints" / "step-000004" / file.name).read_bytes()


def test_it_learns_and_its_final_is_a_clip_that_pickscore_loads(tmp_path: Path, clip: Path) -> None:
    data = load_kept(tmp_path, 12)
    held_out = load_kept(tmp_path / "held", 6, first=40)
    before = load_scorer(f"pickscore@{clip}", device="cpu")
    _, report = run(clip, tmp_path / "run", data, held_out, steps=12, learning_rate=3e-3, save_precision="fp16")
    assert report["held_out"]["accuracy"] == 1.0
    assert report["pairs"] | {"fingerprint": ""} == {
        "name": "given",
        "count": 12,
        "fingerprint": "",
        "dropped": {},
        "held_out": 6,
    }
    final = tmp_path / "run" / "final"
    assert {value.dtype for value in load_file(final / "model.safetensors").values()} == {torch.float16}
    after = load_scorer(f"pickscore@{final}", device="cpu")
    rows = [held_out[index] for index in range(6)]
    prompts, chosen, rejected = ([getattr(row, name) for row in rows] for name in ("prompt", "chosen", "rejected"))
    margin = after.score(prompts, chosen) - after.score(prompts, rejected)
    earlier = before.score(prompts, chosen) - before.score(prompts, rejected)
    assert margin.min() > earlier.mean()
    loss = torch.nn.functional.softplus(-margin).mean().item()
    assert report["held_out"]["log_loss"] == pytest.approx(loss, abs=1e-5)
    assert load_scorer(f"clipscore@{final}", device="cpu").preparation.size == 32  # type: ignore[attr-defined]
    assert json.loads((tmp_path / "run" / "report.json").read_text())["head"] == "cosine"
    assert "<svg" in (tmp_path / "run" / "reliability.svg").read_text()
    assert "held out" in (final / "README.md").read_text()
    assert str(tmp_path) not in "".join(path.read_text() for path in final.glob("*.json"))


def users(folder: Path, count: int, names: tuple[str, ...], first: int = 0) -> PairDataset:
    """Users whose names begin with r like red, the others blue: nobody is right for all."""
    from t2ialign.data.pairs import load_pairs, write_pairs

    rows = []
    for number in range(first, first + count):
        user = names[number % len(names)]
        liked, other = (RED, BLUE) if user.startswith("r") else (BLUE, RED)
        rows.append(
            {
                "prompt": f"a picture {number % 3}",
                "chosen": picture(liked, 2 * number),
                "rejected": picture(other, 2 * number + 1),
                "user_id": user,
            }
        )
    return load_pairs(write_pairs(rows, folder))


def test_pal_follows_users_who_disagree_and_new_ones_from_four_pairs(tmp_path: Path, clip: Path) -> None:
    data = users(tmp_path / "train", 24, ("rose", "bea", "rita", "ben"))
    unseen = users(tmp_path / "new", 24, ("ruth", "bill"), first=100)
    seen = users(tmp_path / "seen", 16, ("rose", "bea", "rita", "ben"), first=200)
    common: dict[str, Any] = {"head": "pal", "method": "head", "steps": 30, "batch_size": 8, "learning_rate": 3e-2}
    one = {"pal": {"prototypes": 1, "width": 8}, **common}
    many = {"pal": {"prototypes": 4, "width": 8, "draws": 2}, **common}
    from t2ialign.reward_models.training.config import PalOptions

    for options in (one, many):
        options["pal"] = PalOptions(**options["pal"])
    trainer, report = run(clip, tmp_path / "pal", data, unseen, **many)
    _, single = run(clip, tmp_path / "single", data, unseen, **one)
    few = report["few_shot"]
    assert (few["users"], few["shots"], few["fitted"]["pairs"]) == (2, 4, 2 * 2 * (12 - 4))
    assert few["fitted"]["accuracy"] == 1.0
    assert single["few_shot"]["fitted"]["accuracy"] == pytest.approx(0.5, abs=0.01)
    assert trainer.task is not None
    assert all(not value.requires_grad for value in trainer.task.net.clip.parameters())

    final = tmp_path / "pal" / "final"
    rows = [seen[index] for index in range(len(seen))]
    for user in ("rose", "bea"):
        mine = [row for row in rows if row.user_id == user]
        scorer: Any = load_scorer(f"preference@{final}?group={user}", device="cpu")
        prompts = [row.prompt for row in mine]
        assert scorer.compare(prompts, [r.chosen for r in mine], [r.rejected for r in mine]).min() > 0.5
        assert user in scorer.version
    stranger: Any = load_scorer(f"preference@{final}", device="cpu")
    mine = [row for row in rows if row.user_id == "ben"]
    plain = stranger.version
    mixture = stranger.fit_user(
        [r.prompt for r in mine], [r.chosen for r in mine], [r.rejected for r in mine], prior=0.01
    )
    assert mixture.sum().item() == pytest.approx(1.0, abs=1e-5)
    assert stranger.version != plain
    others = [row for row in rows if row.user_id == "bea"]
    assert (
        stranger.compare([r.prompt for r in others], [r.chosen for r in others], [r.rejected for r in others]).min()
        > 0.5
    )
    with pytest.raises(ConfigError, match="group 'zoe' is not known"):
        load_scorer(f"preference@{final}?group=zoe", device="cpu")


def test_aspects_and_cyclic_train_and_load(tmp_path: Path, clip: Path) -> None:
    data = load_kept(tmp_path, 12, aspect=lambda n: "fine" if n % 2 else "true")
    _, report = run(clip, tmp_path / "aspects", data, data, head="aspects")
    assert sorted(report["by_aspect"]) == ["fine", "true"]
    assert report["by_aspect"]["fine"]["pairs"] == 6
    row = data[0]
    fine, both = (
        load_scorer(f"preference@{tmp_path / 'aspects' / 'final'}{more}", device="cpu") for more in ("?group=fine", "")
    )
    assert fine.score([row.prompt], [row.chosen]) != both.score([row.prompt], [row.chosen])
    pixels = torch.rand(1, 3, 40, 40, requires_grad=True)
    fine.score_tensors([row.prompt], pixels).backward()  # type: ignore[attr-defined]
    assert pixels.grad is not None
    assert pixels.grad.abs().max() > 0

    run(clip, tmp_path / "cyclic", data, data, head="cyclic", steps=2)
    cyclic: Any = load_scorer(f"preference@{tmp_path / 'cyclic' / 'final'}", device="cpu")
    forth = cyclic.compare([row.prompt], [row.chosen], [row.rejected])
    back = cyclic.compare([row.prompt], [row.rejected], [row.chosen])
    assert (forth + back).item() == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(ConfigError, match="ask compare for two"):
        cyclic.score([row.prompt], [row.chosen])
    with pytest.raises(ModelError, match=r"has no head\.json"):
        load_scorer(f"preference@{clip}", device="cpu")


def rankings(folder: Path) -> Path:
    """Three rankings of 4, 3 and 2 pictures, with ties and gaps."""
    (folder / "images").mkdir(parents=True)
    entries = []
    for number, ranks in enumerate(([1, 2, 2, 5], [3, 1, 2], [1, 1], [2, 1])):
        names = [f"{number}_{place}.png" for place in range(len(ranks))]
        for place, name in enumerate(names):
            shade = int(250 - 40 * ranks[place])
            Image.new("RGB", (32, 32), (shade, 255 - shade, 10 * number)).save(folder / "images" / name)
        entries.append({"id": number, "prompt": f"prompt {number}", "generations": names, "ranking": ranks})
    (folder / "rankings.json").write_text(json.dumps(entries))
    return folder / "rankings.json"


def test_rankings_are_the_mean_over_all_untied_pairs(tmp_path: Path, clip: Path) -> None:
    """ImageReward's loss, by a twin: every untied pair of every ranking alike."""
    file = rankings(tmp_path)
    options: dict[str, Any] = {"pairs": str(file), "images": tmp_path / "images", "holdout": 0.0}
    data, held_out = load_data(config(clip, tmp_path / "run", **options))
    assert held_out is None
    assert len(data) == 3  # one ranking is a tie throughout
    task = task_of(clip, data, **options)
    output = task.loss(task.module, task.examples.collate([task.examples.read(index) for index in range(3)]))
    scorer: Any = load_scorer(f"pickscore@{clip}", device="cpu")
    each = []
    for entry in json.loads(file.read_text()):
        paths = [tmp_path / "images" / name for name in entry["generations"]]
        scores = scorer.score([entry["prompt"]] * len(paths), paths)
        for i, better in enumerate(entry["ranking"]):
            for j, worse in enumerate(entry["ranking"]):
                if better < worse:
                    each.append(-torch.nn.functional.logsigmoid(scores[i] - scores[j]))
    assert len(each) == 5 + 3 + 1
    assert output.loss.item() == pytest.approx(torch.stack(each).mean().item(), abs=1e-5)
    _, report = run(clip, tmp_path / "run", None, steps=2, **options)
    assert report["rankings_per_second"] > 0
    with pytest.raises(ConfigError, match="rankings have no user_id"):
        load_data(config(clip, tmp_path / "other", head="pal", **options))


def test_what_is_held_out_is_a_matter_of_the_prompt(tmp_path: Path, clip: Path) -> None:
    prompts = [f"prompt {number}" for number in range(400)]
    assert 0.2 < sum(is_held_out(prompt, 0.3) for prompt in prompts) / 400 < 0.4
    assert all(is_held_out(prompt, 0.6) for prompt in prompts if is_held_out(prompt, 0.3))
    colour_pairs(tmp_path / "pairs", 12)
    shares = [
        share
        for share in (0.2, 0.4, 0.5, 0.6, 0.7)
        if 0 < sum(is_held_out(f"a picture {number}", share) for number in range(3)) < 3
    ]
    data, held_out = load_data(config(clip, tmp_path / "run", pairs=str(tmp_path / "pairs"), holdout=shares[0]))
    assert isinstance(data, PairDataset)
    assert isinstance(held_out, PairDataset)
    assert not set(data.prompts) & set(held_out.prompts)
    assert len(data) + len(held_out) == 12


def test_ranks_become_pairs() -> None:
    assert ranked_pairs([1, 2, 2, 5]) == [(0, 1, 1.0), (0, 2, 1.0), (0, 3, 1.0), (1, 3, 1.0), (2, 3, 1.0)]
    assert ranked_pairs([1, 1]) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "pall"}, "head is 'pall'"),
        ({"method": "head"}, "leaves nothing to train"),
        ({"sample_every": 2}, "draws no sample pictures"),
        ({"holdout": 1.0}, "holdout is 1.0"),
        ({"eval_split": "train", "pairs": "mini-pairs"}, "which is trained on"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, clip: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_data(config(clip, tmp_path, **changes))


def test_a_pair_without_its_user_is_named(tmp_path: Path, clip: Path) -> None:
    data = load_kept(tmp_path, 4, user_id=lambda n: None if n == 2 else "ann")
    with pytest.raises(DataError, match="row 2 has no user_id"):
        task_of(clip, data, head="pal")


def test_frozen_layers_stay_as_they_are(tmp_path: Path, clip: Path, pairs: PairDataset) -> None:
    run(clip, tmp_path / "run", pairs, steps=2, frozen_layers=0.5)
    before = load_file(clip / "model.safetensors")
    after = load_file(tmp_path / "run" / "final" / "model.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [name for name in moved if ".layers.0." in name or "embeddings" in name]
    assert [name for name in moved if "text_model.encoder.layers.1." in name]
    assert [name for name in moved if "vision_model.encoder.layers.1." in name]


def test_a_turned_pair_prefers_the_rejected_picture_by_its_own_caption(tmp_path: Path, clip: Path) -> None:
    data = load_kept(
        tmp_path,
        6,
        chosen_prompt=lambda n: "a red one",
        rejected_prompt=lambda n: [None, "a blue one", "a red one"][n % 3],
    )
    task = task_of(clip, data, dual_captions=True)
    examples = task.examples
    assert len(examples) == 6 + 2
    assert examples.turned == (1, 4)
    assert examples.prompts[6:] == ["a blue one", "a blue one"]
    assert examples.pictures(6) == list(reversed(examples.pictures(1)))
    assert examples.fingerprint != task_of(clip, data).examples.fingerprint
    twice = examples.read(6)
    assert (list(twice.pairs), twice.weight) == ([(0, 1, 1.0)], 0.5)
    with pytest.raises(DataError, match="no rejected_prompt to turn"):
        task_of(clip, data.select([0, 3]), dual_captions=True)


def test_features_that_are_kept_are_those_that_are_computed(tmp_path: Path, clip: Path) -> None:
    data = load_kept(tmp_path, 6, user_id=lambda n: "ann" if n % 2 else "bob")
    options: dict[str, Any] = {"head": "pal", "method": "head"}
    kept, plain = task_of(clip, data, **options), task_of(clip, data, **options)
    kept.setup(torch.device("cpu"), None, lambda: False)
    assert kept.examples.features is not None
    losses = []
    for task in (kept, plain):
        batch = task.examples.collate([task.examples.read(index) for index in (4, 1, 3)])
        losses.append(task.loss(task.module, batch).loss.item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    full = task_of(clip, data, head="pal")
    full.setup(torch.device("cpu"), None, lambda: False)
    assert full.examples.features is None
