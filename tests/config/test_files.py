"""Options from YAML and overrides, and back: precedence, unknown keys, secrets, round trips."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from t2ialign.config import REQUIRED, dump_yaml, load, option, options_of, to_dict
from t2ialign.config.secrets import REDACTED, redacted
from t2ialign.errors import ConfigError


@dataclass
class Adapter:
    rank: int = option(8, "Rank.")
    alpha: float | None = option(None, "Scale.")
    targets: list[str] = option(["to_q", "to_v"], "Layers.")

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"rank is {self.rank}; it must be at least 1")


@dataclass
class Settings:
    model: str = option(REQUIRED, "The model.")
    rate: float = option(1e-4, "Learning rate.")
    precision: Literal["no", "fp16"] = option("no", "Number format.")
    output: Path = option(Path("out"), "Folder.")
    flag: bool = option(False, "A switch.")
    scorers: list[str] = option([], "Scorers.", flag="with", choices=("oracle", "clipscore"))
    size: tuple[int, int] = option((64, 64), "Height, width.")
    hub_token: str | None = option(None, "Secret.")
    lora: Adapter = field(default_factory=lambda: Adapter(rank=4))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_yaml_and_overrides_in_that_order(tmp_path: Path) -> None:
    source = write(tmp_path / "a.yaml", "model: mini-sd\nrate: 1e-3\nlora: {rank: 16, alpha: 2}\n")
    settings = load(Settings, source, {"rate": "1e-5", "lora.rank": "32", "with": "oracle"})
    assert settings.rate == 1e-5
    assert (settings.lora.rank, settings.lora.alpha, settings.lora.targets) == (32, 2.0, ["to_q", "to_v"])
    assert settings.scorers == ["oracle"]
    assert settings.precision == "no"


def test_a_default_instance_keeps_what_is_not_given() -> None:
    assert load(Settings, None, {"model": "m"}).lora.rank == 4
    assert load(Settings, None, {"model": "m", "lora.alpha": 1}).lora.rank == 4


def test_defaults_are_not_shared() -> None:
    load(Settings, None, {"model": "m"}).lora.targets.append("x")
    load(Settings, None, {"model": "m"}).scorers.append("oracle")
    assert load(Settings, None, {"model": "m"}).lora.targets == ["to_q", "to_v"]
    assert load(Settings, None, {"model": "m"}).scorers == []


def test_yaml_is_that_of_the_core_schema(tmp_path: Path) -> None:
    source = write(
        tmp_path / "a.yaml", "model: no\nprecision: no\nrate: 1e-3\nsize: [010, 8]\nflag: yes\noutput: 2024-01-01\n"
    )
    settings = load(Settings, source)
    assert (settings.model, settings.precision, settings.rate) == ("no", "no", 1e-3)
    assert (settings.size, settings.flag, settings.output) == ((10, 8), True, Path("2024-01-01"))


def test_dotted_keys_in_yaml(tmp_path: Path) -> None:
    assert load(Settings, write(tmp_path / "a.yaml", "model: m\nlora.rank: 2\n")).lora.rank == 2


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"model": "m", "lora.rnk": 1}, "did you mean 'lora.rank'"),
        ({"model": "m", "learning": 1}, "unknown option 'learning'"),
        ({"model": "m", "precison": "no"}, "did you mean 'precision'"),
        ({"model": "m", "rank": 1}, "did you mean 'lora.rank'"),
        ({"model": "m", "lora": 3}, "lora.rank, lora.alpha, lora.targets"),
        ({"model": "m", "with": "pickscor"}, "not one of oracle, clipscore"),
        ({"model": "m", "lora.rank": 0}, "at least 1"),
        ({}, "model is required: The model."),
    ],
)
def test_refusals(given_: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(Settings, None, given_)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: m\nmodel: n\n", "line 2: 'model' is given twice"),
        ("- a\n- b\n", "not a mapping"),
        ("model: [unclosed\n", "not valid YAML"),
        ("1: 2\n", "not a name"),
        ("model: m\nratte: 1\n", "did you mean 'rate'"),
        ("model: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, words: str) -> None:
    source = write(tmp_path / "bad.yaml", text)
    with pytest.raises(ConfigError) as caught:
        load(Settings, source)
    assert "bad.yaml" in str(caught.value)
    assert words in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load(Settings, tmp_path / "nowhere.yaml")


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load(Adapter, write(tmp_path / "a.yaml", "")) == Adapter()


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
words = st.sampled_from(
    ["no", "1e-5", "null", "~", "010", "2024-01-01", "true", "a: b", "# x", "-", "1_000", ".5", "'"]
)
# YAML cannot hold these characters unescaped, and line ends are normalised as in every text file.
printable = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_categories=["Cs", "Cc"]), max_size=20
)
adapters = st.builds(
    Adapter,
    rank=st.integers(1, 512),
    alpha=st.none() | st.floats(allow_nan=False),
    targets=st.lists(printable | words, max_size=3),
)


@given(
    st.builds(
        Settings,
        model=texts | words,
        rate=st.floats(allow_nan=False),
        precision=st.sampled_from(["no", "fp16"]),
        output=st.sampled_from([Path("a/b"), Path("/c"), Path("no")]),
        flag=st.booleans(),
        scorers=st.lists(st.sampled_from(["oracle", "clipscore"])),
        size=st.tuples(st.integers(), st.integers()),
        lora=adapters,
    )
)
def test_what_is_dumped_loads_back(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> None:
    target = tmp_path_factory.mktemp("dump") / "config.yaml"
    dump_yaml(settings, target)
    assert load(Settings, target) == settings
    assert load(Settings, None, to_dict(settings)) == settings
    assert [path.name for path in target.parent.iterdir()] == ["config.yaml"]


def test_secrets_are_left_out(tmp_path: Path) -> None:
    settings = Settings(model="m", hub_token="hf_very_secret")
    dump_yaml(settings, tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text(encoding="utf-8")
    assert "hf_very_secret" not in text
    assert yaml.safe_load(text)["hub_token"] == REDACTED
    assert load(Settings, tmp_path / "config.yaml").hub_token is None


def test_only_secrets_are_redacted() -> None:
    given_ = {
        "api_key": "a", "HF_TOKEN": "b", "x": {"client_secret": "c"}, "max_tokens": 4, "tokenizer": "t",
        "token": None, "annotator_api_key_env": "OPENAI_KEY",
    }  # fmt: skip
    assert redacted(given_) == {
        "api_key": REDACTED, "HF_TOKEN": REDACTED, "x": {"client_secret": REDACTED}, "max_tokens": 4,
        "tokenizer": "t", "token": None, "annotator_api_key_env": "OPENAI_KEY",
    }  # fmt: skip


def test_required_fields_may_follow_defaults_and_are_keywords() -> None:
    assert options_of(Settings)["model"].required
    with pytest.raises(TypeError):
        Settings()
    with pytest.raises(TypeError):
        Adapter(4)


def test_a_plain_class_is_refused() -> None:
    with pytest.raises(TypeError, match="not a dataclass"):
        options_of(int)
