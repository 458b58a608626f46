"""Keys in the environment, in options and in addresses stand in no file, no log and no error."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.annotator_server import Faults, RatingServer
from helpers.pairs import colour_pairs
from helpers.training import dpo_config, tiny_model
from t2ialign.cli.main import main
from t2ialign.config import load, redacted, without_secrets
from t2ialign.engine.checkpoints import read_manifest
from t2ialign.errors import ConfigError
from t2ialign.models.card import write_card
from t2ialign.trainers.dpo import DiffusionDPOTrainer
from t2ialign.trainers.dpo_config import DPOConfig

KEYS = {
    "HF_TOKEN": "hf_Marker0OfTheHub00000000000",
    "OPENAI_API_KEY": "marker-of-the-endpoint-1234",
    "WANDB_API_KEY": "0123456789abcdefmarker0123456789abcdef01",
    "MY_SERVICE_PASSWORD": "marker pass word",
}
PASSWORD = "marker-in-an-address"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def leaks(folder: Path, *said: str) -> list[str]:
    """Files, and texts, that hold a key."""
    found = []
    for value in (*KEYS.values(), PASSWORD):
        found += [
            f"{path} holds {value}"
            for path in folder.rglob("*")
            if path.is_file() and value.encode() in path.read_bytes()
        ]
        found += [f"said: {text[:300]}" for text in said if value in text]
    return found


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    (tmp_path / "prompts.txt").write_text("a red circle\na blue square\n")
    return tmp_path / "prompts.txt"


def test_generate_score_and_annotate(
    tmp_path: Path, prompts: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="t2ialign")
    images = tmp_path / "images"
    drawing = ["--prompts", str(prompts), "--num_inference_steps", "2", "--images_per_prompt", "2"]
    assert main(["generate", "--model", "mini-sd", *drawing, "--output_dir", str(images)]) == 0
    assert main(["score", str(images), "--with", "clipscore@mini-clip", "--workers", "0"]) == 0
    with RatingServer(Faults(malformed=0.2, busy=0.2), seed=1) as server:
        address = server.url.replace("http://", f"http://someone:{PASSWORD}@")
        annotator = f"openai:rater?base_url={address}"
        code = main(["annotate", str(images), "--annotator", annotator, "--output_dir", str(tmp_path / "ratings")])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert (tmp_path / "ratings/annotations.jsonl").is_file()
    assert not leaks(tmp_path, said.out, said.err, caplog.text)


def test_train_with_a_push_that_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="t2ialign")
    colour_pairs(tmp_path / "pairs", 4)
    run = ["--pairs", str(tmp_path / "pairs"), "--steps", "1", "--batch_size", "1", "--push_to_hub", "me/model"]
    run += ["--gradient_accumulation_steps", "1", "--mixed_precision", "no", "--output_dir", str(tmp_path / "run")]
    told = [f"a {KEYS['OPENAI_API_KEY']}", f"see https://me:{PASSWORD}@host/x?api_key={KEYS['HF_TOKEN']}"]
    for prompt in told:
        run += ["--sample_prompts", prompt]
    code = main(["train", "dpo", "--model", "mini-sd", *run, "--debug"])
    said = capsys.readouterr()
    assert code == 1
    assert "cannot push to 'me/model'" in said.err
    assert (tmp_path / "run/final/README.md").is_file()
    assert (tmp_path / "run/report.json").is_file()
    assert not leaks(tmp_path, said.out, said.err, caplog.text)


@pytest.mark.parametrize(
    "words",
    [
        ["train", "dpo", "--model", f"https://me:{PASSWORD}@host/model", "--pairs", "mini-pairs"],
        ["train", "dpo", "--model", "mini-sd", "--pairs", f"https://me:{PASSWORD}@host/pairs"],
        ["train", "dpo", "--model", "mini-sd", "--pairs", "mini-pairs", "--hub_token", KEYS["HF_TOKEN"]],
        ["train", "dpo", "--model", "mini-sd", "--pairs", "mini-pairs", "--steps", KEYS["OPENAI_API_KEY"]],
        ["generate", "--model", f"https://host/m?token={KEYS['HF_TOKEN']}", "--prompts", "none.txt"],
        ["score", "nowhere", "--with", f"clipscore@https://me:{PASSWORD}@host/clip"],
        ["annotate", "nowhere", "--annotator", f"openai:m?api_key={KEYS['OPENAI_API_KEY']}"],
        ["data", "check", f"http://me:{PASSWORD}@host/x"],
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_errors_do_not_repeat_them(
    words: list[str], debug: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    more = [] if words[0] in ("score", "data") else ["--output_dir", str(tmp_path / "out")]
    assert main([*words, *more, *(["--debug"] if debug else [])]) != 0
    said = capsys.readouterr()
    assert "error: " in said.err
    assert not leaks(tmp_path, said.out, said.err)


def test_a_configuration_with_a_key_in_it_is_refused_unseen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"model": "mini-sd", "hub_token": "hf_SomethingElse00000000"}))
    assert main(["train", "dpo", "--config", str(tmp_path / "run.yaml")]) == 2
    said = capsys.readouterr()
    assert "hub_token" in said.err
    assert "SomethingElse" not in said.err + said.out


def test_checkpoints_and_trackers_get_clean_options_and_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import Accelerator

    sent: list[object] = []
    monkeypatch.setattr(Accelerator, "init_trackers", lambda self, name, config: sent.append(config))
    monkeypatch.setattr("t2ialign.engine.processes._tracker", lambda name: None)
    pairs = colour_pairs(tmp_path / "pairs", 4)

    def train(**changes: Any) -> dict[str, Any]:
        options = {"checkpoint_every": 1, "tracker": "tensorboard", "lr_scheduler": "constant"}
        told = (f"a https://me:{PASSWORD}@host/x",)
        config = dpo_config(tmp_path / "run", sample_prompts=told, **options, **changes)
        return DiffusionDPOTrainer(config, model=tiny_model(), pairs=pairs).train()

    train(steps=1)
    manifest = read_manifest(tmp_path / "run/checkpoints/step-000001")
    assert "<redacted>@host" in json.dumps(manifest["config"])
    assert train(steps=2, resume="latest")["resumed_from"] == 1
    assert len(sent) == 2
    assert not leaks(tmp_path, repr(sent))


def test_a_card_holds_no_paths_of_the_machine_and_no_keys(tmp_path: Path) -> None:
    home = Path.home()
    base = {"kind": "lora", "base_model": str(home / "models/sd15"), "family": "sd15", "rank": 4, "alpha": 4.0}
    (tmp_path / "t2ialign.json").write_text(json.dumps(base))
    settings = {"pairs": str(home / "data/pairs"), "note": f"{KEYS['HF_TOKEN']} https://a:{PASSWORD}@host/x"}
    write_card(tmp_path, settings=settings, summary={"final": str(home / "run/final")}, pairs=str(home / "pairs"))
    text = (tmp_path / "README.md").read_text()
    assert str(home) not in text.replace("/root/.", "")
    assert not leaks(tmp_path / "README.md", text)


KEPT = (
    "hf-internal-testing/tiny-stable-diffusion",
    "openai/clip-vit-base-patch32",
    "clipscore@mini-clip?definition=torchmetrics",
    "openai:m?base_url=http://localhost:8000/v1&parallel=16&key_env=MY_KEY",
    "hf://datasets/a/b@main/x.parquet",
    "a photo of sk-learn, mail me@host",
    "https://host/path@2?page=3",
    "runs/sk-watercolor_painting_v2_long",
    "hf-internal-testing/tiny-stable-diffusion-pipe",
)


@pytest.mark.parametrize("text", KEPT)
def test_what_is_no_secret_stays(text: str) -> None:
    assert without_secrets(text) == text


@pytest.mark.parametrize("name", ["MISTRAL_KEY", "API_KEYS", "HF_TOKENS", "PGPASSWORD", "GITHUB_PAT", "MY_SECRET_2"])
def test_names_of_variables_that_hold_one(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "abcdefgh12345678")
    assert without_secrets("a abcdefgh12345678 b") == "a <redacted> b"


def test_a_short_secret_is_no_part_of_a_word_and_a_path_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "postgres")
    monkeypatch.setenv("OTHER_PASSWORD", "pass12word")
    monkeypatch.setenv("HF_TOKEN_PATH", "/home/someone/.cache/token")
    for text in ("/home/postgres/pairs", "compass12words", "/home/someone/.cache/token"):
        assert without_secrets(text) == text
    assert without_secrets("it is pass12word.") == "it is <redacted>."


def test_a_value_that_lost_a_part_is_asked_for_again(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("pairs: /home/<redacted>/pairs\nmodel: mini-sd\noutput_dir: run\n")
    with pytest.raises(ConfigError, match="give --pairs again"):
        load(DPOConfig, file, {})
    assert load(DPOConfig, file, {"pairs": "mini-pairs"}).pairs == "mini-pairs"


def test_forms_of_secrets() -> None:
    for text in (
        f"https://me:{PASSWORD}@host/x",
        f"ftp://{PASSWORD}@host",
        f"http://host/x?api_key={PASSWORD}&page=2",
        f"http://host/x?page=2&access_token={PASSWORD}",
        f"Authorization: Bearer {PASSWORD}",
        "hf_abcdefghijklmnopqrstuvwxyz",
        "sk-proj-abcdefghijklmnopqrstuvwxyz",
        "ghp_abcdefghijklmnopqrstuvwxyz0123",
    ):
        cleaned = without_secrets(f"before {text} after")
        assert PASSWORD not in cleaned
        assert "abcdefghij" not in cleaned
        assert cleaned.startswith("before ")
        assert cleaned.endswith(" after")
    nested = redacted({"a": {"api_key": "x", "list": [f"http://a:{PASSWORD}@h", 3]}, "api_key_env": "NAME", "n": 1.5})
    assert nested == {
        "a": {"api_key": "<redacted>", "list": ["http://<redacted>@h", 3]},
        "api_key_env": "NAME",
        "n": 1.5,
    }


def test_options_round_trip(tmp_path: Path) -> None:
    config = dpo_config(tmp_path, sample_prompts=("a dog",))
    from t2ialign.config import dump_yaml

    dump_yaml(config, tmp_path / "config.yaml")
    assert load(DPOConfig, tmp_path / "config.yaml") == config
