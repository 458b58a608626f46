"""How models are named, told apart, and what is known of their training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from t2ialign.errors import ConfigError
from t2ialign.eval.suites.contenders import contenders


def run_at(folder: Path, **options: object) -> Path:
    """A run's `final/` with a weight file, and its options."""
    final = folder / "final"
    final.mkdir(parents=True)
    (final / "pytorch_lora_weights.safetensors").write_bytes(b"weights of " + folder.name.encode())
    (folder / "config.yaml").write_text(yaml.safe_dump(options))
    record = {"kind": "lora", "base_model": "mini-sd", "family": "mini-sd"}
    (final / "t2ialign.json").write_text(json.dumps(record))
    return final


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("mini-sd", ("mini-sd", "mini-sd", None)),
        ("base=mini-sd", ("base", "mini-sd", None)),
        ("org/name", ("name", "org/name", None)),
        ("x=org/name+runs/a/final", ("x", "org/name", "runs/a/final")),
        ("org/name+runs/a/final", ("a", "org/name", "runs/a/final")),
        ("mini-sd+c++/final", ("c", "mini-sd", "c++/final")),
    ],
)
def test_a_model_is_read(spec: str, expected: tuple[str, str, str | None]) -> None:
    found = contenders([spec, "other=mini-sd"])[0]
    assert (found.label, found.model, found.adapter) == expected


def test_a_path_with_signs_is_a_path(tmp_path: Path) -> None:
    odd = tmp_path / "a=b+c"
    odd.mkdir()
    found = contenders(["mini-sd", f"tuned={odd}", f"more={odd}+{odd}"])
    assert (found[1].model, found[1].adapter) == (str(odd), None)
    assert (found[2].model, found[2].adapter) == (str(odd), str(odd))


def test_adapters_and_users_as_in_generate() -> None:
    found = contenders(["mini-sd"], ["none", "runs/a/final", "runs/b/final"])
    assert [(each.label, each.adapter) for each in found] == [
        ("mini-sd", None),
        ("a", "runs/a/final"),
        ("b", "runs/b/final"),
    ]
    found = contenders(["runs/p/final"], [], ["none", "users/alice.safetensors"])
    assert [(each.label, each.user) for each in found] == [("p", None), ("p-alice", "users/alice.safetensors")]


@pytest.mark.parametrize(
    ("specs", "adapters", "words"),
    [
        (["mini-sd"], [], "nothing to be compared with"),
        (["mini-sd", "mini-sd"], [], "both be called 'mini-sd'"),
        (["mini-sd", "x=a/b"], ["a", "b", "c"], "do not go together"),
        (["mini-sd+a", "x=a/b"], ["a", "b"], "by --adapter"),
        (["mini-sd", "x="], [], None),
        (["mini-sd", "x=a/b+"], [], "cannot be read"),
        (["mini-sd", "..=a/b"], [], "cannot be a folder's name"),
    ],
)
def test_what_does_not_go_together_is_refused(specs: list[str], adapters: list[str], words: str | None) -> None:
    if words is None:
        assert contenders(specs)[1].model == "x="
        return
    with pytest.raises(ConfigError, match=words):
        contenders(specs, adapters)


def test_weights_tell_models_apart_and_paths_stay_here(tmp_path: Path) -> None:
    one, two = run_at(tmp_path / "one"), run_at(tmp_path / "two")
    first = contenders(["mini-sd", f"x={one}"])[1].identity()
    second = contenders(["mini-sd", f"x={two}"])[1].identity()
    assert first["weights"] != second["weights"]
    assert str(tmp_path) not in json.dumps([first, second])
    assert contenders(["mini-sd", f"x=mini-sd+{one}"])[1].identity()["adapter_weights"] == first["weights"]
    (one / "pytorch_lora_weights.safetensors").write_bytes(b"trained again")
    assert contenders(["mini-sd", f"x={one}"])[1].identity()["weights"] != first["weights"]


def test_the_reward_of_a_run_is_known_from_its_options(tmp_path: Path) -> None:
    final = run_at(tmp_path / "refl", pairs="", reward="clipscore@mini-clip", lora={"rank": 4})
    (trained,) = [each for each in contenders(["mini-sd", f"x=mini-sd+{final}"]) if each.adapter]
    assert list(trained.trained_on()) == ["clipscore"]
    assert contenders(["mini-sd", f"x={final}"])[0].trained_on() == {}


def test_the_judge_of_the_pairs_is_known(tmp_path: Path) -> None:
    packaged = run_at(tmp_path / "dpo", pairs="mini-pairs")
    assert list(contenders(["mini-sd", f"x={packaged}"])[1].trained_on()) == ["oracle"]
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    (pairs / "pairs.json").write_text(json.dumps({"made": {"scorer": "pickscore@weights?scale=cosine"}}))
    own = run_at(tmp_path / "own", pairs=str(pairs))
    assert list(contenders(["mini-sd", f"x={own}"])[1].trained_on()) == ["pickscore"]
