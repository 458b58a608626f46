"""Comparing sets: joins, refusals, the keys of compare.json, and words that claim no more than the figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.image_sets import write_plain_set
from t2ialign.errors import DataError
from t2ialign.eval.compare import compare_scores, compare_sets
from t2ialign.reward_models.scoring import score_set


class Red:
    """Scores the red channel of the first pixel; `sign` -1 makes lower better."""

    name, version = "red", "v1"

    def __init__(self, higher_is_better: bool = True) -> None:
        self.higher_is_better = higher_is_better

    def score(self, prompts: Sequence[str], images: Sequence[Any]) -> torch.Tensor:
        return torch.tensor([float(image.getpixel((0, 0))[0]) for image in images])

    def info(self) -> dict[str, Any]:
        return {"higher_is_better": self.higher_is_better, "formula": "the red channel"}

    def count_truncated(self, prompts: Sequence[str]) -> int:
        return 3

    def aggregate(self, scores: Sequence[float]) -> float:
        return float(np.mean(scores))


def write_set(path: Path, reds: Any, **more: Any) -> Path:
    """Write a set whose picture of prompt i, sample s is `reds[i][s]` red, and score it."""
    pictures = []
    for i, row in enumerate(reds):
        for sample, red in enumerate(row):
            if (i, sample) in more.get("skip", ()):
                continue
            fields = {"prompt_id": f"p{i}", "prompt": f"{more.get('text', 'prompt')} {i}", "sample": sample}
            fields |= {"seed": 10 * i + sample + more.get("seed", 0), "model": path.name}
            pictures.append((fields, Image.new("RGB", (4, 4), (int(red), 0, 0))))
    write_plain_set(path, pictures)
    if more.get("score", True):
        score_set(path, [more.get("scorer") or Red()], more.get("scores"), progress=False)
    return path


def reds(seed: int, prompts: int = 60, samples: int = 2, shift: int = 0) -> Any:
    return np.random.default_rng(seed).integers(20, 200, (prompts, samples)) + shift


def test_keys_and_figures(tmp_path: Path) -> None:
    base, tuned = reds(0), reds(0)
    tuned[:40] += 10
    tuned[40:50] -= 10
    folders = [write_set(tmp_path / "base", base), write_set(tmp_path / "tuned", tuned)]
    result = compare_sets(folders[0], [folders[1]], output_dir=tmp_path / "out", resamples=2000)
    assert result == json.loads((tmp_path / "out/compare.json").read_text(encoding="utf-8"))
    assert set(result) == {
        "format",
        "base",
        "unit",
        "seeds_matched",
        "bootstrap",
        "sets",
        "scorers",
        "comparisons",
    }
    assert (result["format"], result["base"], result["unit"], result["seeds_matched"]) == (1, "base", "prompt", True)
    assert result["bootstrap"] == {"method": "bca", "resamples": 2000, "seed": 0}
    assert result["sets"]["tuned"] == {"directory": str(folders[1]), "pictures": 120, "prompts": 60}
    [found] = result["comparisons"]
    assert (found["set"], found["scorer"], found["version"]) == ("tuned", "red", "v1")
    assert (found["n_prompts"], found["n_pairs"]) == (60, 120)
    rate = found["win_rate"]
    assert rate["value"] == pytest.approx((40 + 5) / 60)
    assert (rate["wins"], rate["ties"], rate["losses"], rate["n"]) == (80, 20, 20, 60)
    for name in ("ci95", "ci95_percentile", "ci95_wilson"):
        assert 0.5 < rate[name][0] < rate["value"] < rate[name][1] < 1
    assert found["difference"]["mean"] == pytest.approx((400 - 100) / 60)
    assert found["difference"]["mean_base"] == pytest.approx(base.mean())
    assert found["tests"]["sign"]["n"] == 50
    assert found["verdict"] == "better"


def test_the_other_way_round_is_the_mirror(tmp_path: Path) -> None:
    a = write_set(tmp_path / "a", reds(0))
    b = write_set(tmp_path / "b", reds(0, shift=3) - 5 * (np.arange(60)[:, None] % 3 == 0))
    [there] = compare_sets(a, [b], resamples=500)["comparisons"]
    [back] = compare_sets(b, [a], resamples=500)["comparisons"]
    assert there["win_rate"]["value"] + back["win_rate"]["value"] == pytest.approx(1)
    assert (there["verdict"], back["verdict"]) == ("better", "worse")
    assert there["tests"]["wilcoxon"]["p"] == pytest.approx(back["tests"]["wilcoxon"]["p"])


def test_a_set_against_itself_shows_no_difference(tmp_path: Path) -> None:
    a, b = (write_set(tmp_path / name, reds(0)) for name in "ab")
    result = compare_sets(a, [b], output_dir=tmp_path / "out")
    [found] = result["comparisons"]
    assert found["win_rate"]["value"] == 0.5
    assert found["win_rate"]["ci95"] == [0.5, 0.5]
    assert found["tests"]["sign"]["p"] == found["tests"]["wilcoxon"]["p"] == 1.0
    assert found["difference"]["effect_size"] is None
    text = (tmp_path / "out/compare.md").read_text(encoding="utf-8")
    assert "No difference shown" in text
    assert "This does not show that the two are equal" in text
    assert "better by this measure" not in text


def test_noise_is_not_called_better() -> None:
    """Of 60 comparisons of nothing with nothing, few may be called anything."""
    generator = np.random.default_rng(0)
    prompts = [f"p{i}" for i in range(100)]
    verdicts = []
    for _ in range(60):
        first, second = generator.normal(size=(2, 100)).tolist()
        verdicts.append(compare_scores(first, second, prompts, resamples=300)["verdict"])
    assert verdicts.count("no difference shown") >= 52


def test_few_prompts_are_not_called_better(tmp_path: Path) -> None:
    """4 wins of 4: Wilson's interval excludes one half, the exact test does not."""
    a, b = (write_set(tmp_path / name, reds(0, prompts=4, shift=i)) for i, name in enumerate("ab"))
    result = compare_sets(a, [b], output_dir=tmp_path / "out", resamples=300)
    [found] = result["comparisons"]
    assert found["win_rate"]["ci95_wilson"][0] > 0.5
    assert found["tests"]["sign"]["p"] == 0.125
    assert found["verdict"] == "no difference shown"
    assert "but the exact sign test gives p = 0.12" in (tmp_path / "out/compare.md").read_text(encoding="utf-8")


def test_lower_can_be_better(tmp_path: Path) -> None:
    a = write_set(tmp_path / "a", reds(0), scorer=Red(False))
    b = write_set(tmp_path / "b", reds(0, shift=5), scorer=Red(False))
    [found] = compare_sets(a, [b], resamples=300)["comparisons"]
    assert (found["win_rate"]["value"], found["verdict"]) == (0.0, "worse")
    assert found["difference"]["mean"] == pytest.approx(-5)


def test_pictures_without_a_partner_are_left_out_and_counted(tmp_path: Path) -> None:
    a = write_set(tmp_path / "a", reds(0), skip={(0, 0), (0, 1), (1, 1)})
    b = write_set(tmp_path / "b", reds(1), skip={(5, 0)})
    result = compare_sets(a, [b], output_dir=tmp_path / "out", resamples=300)
    [found] = result["comparisons"]
    assert found["unpaired"] == {"base_only": 1, "set_only": 3}
    assert (found["n_prompts"], found["n_pairs"]) == (59, 116)
    assert "1 pictures of a, 3 of b" in (tmp_path / "out/compare.md").read_text(encoding="utf-8")


def test_seeds_must_match_unless_asked(tmp_path: Path) -> None:
    a, b = write_set(tmp_path / "a", reds(0)), write_set(tmp_path / "b", reds(1), seed=7)
    with pytest.raises(DataError, match=r"prompt p0, sample 0 has seed 0 in .*a but 7 in .*b.*--ignore_seeds"):
        compare_sets(a, [b])
    result = compare_sets(a, [b], ignore_seeds=True, output_dir=tmp_path / "out", resamples=300)
    assert not result["seeds_matched"]
    assert "Seeds were allowed to differ" in (tmp_path / "out/compare.md").read_text(encoding="utf-8")


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    a = write_set(tmp_path / "a", reds(0, prompts=3))
    with pytest.raises(DataError, match=r"prompt p0 is 'prompt 0' in .*a but 'other 0'"):
        compare_sets(a, [write_set(tmp_path / "text", reds(0, prompts=3), text="other")])
    with pytest.raises(DataError, match=r"no score file .*unscored.*t2ialign score"):
        compare_sets(a, [write_set(tmp_path / "unscored", reds(0, prompts=3), score=False)])
    far = {(i, s) for i in range(3) for s in range(2)}
    with pytest.raises(DataError, match="share no prompt and sample"):
        compare_sets(a, [write_set(tmp_path / "far", reds(0, prompts=4), skip=far)])
    one = {(i, s) for i in range(1, 3) for s in range(2)}
    with pytest.raises(DataError, match="share only the prompt p0"):
        compare_sets(a, [write_set(tmp_path / "one", reds(0, prompts=3), skip=one)])
    with pytest.raises(DataError, match="nothing to compare"):
        compare_sets(a, [])
    with pytest.raises(DataError, match=r"the scorer 'blue'.*a: red"):
        compare_sets(a, [write_set(tmp_path / "b", reds(1, prompts=3))], scorers=["blue"])


def test_missing_scores_are_counted(tmp_path: Path) -> None:
    a = write_set(tmp_path / "a", reds(0, prompts=4))
    b = write_set(tmp_path / "b", reds(0, prompts=3))
    with (b / "metadata.jsonl").open("a", encoding="utf-8") as lines:
        line = {"file_name": "images/p3/0000.png", "prompt_id": "p3", "prompt": "prompt 3", "sample": 0, "seed": 30}
        lines.write(json.dumps(line) + "\n")
    with pytest.raises(DataError, match=r"1 of 7 pictures of .*b have no red \(v1\) score.*prompt p3, sample 0"):
        compare_sets(a, [b])


def test_versions_of_a_scorer_are_not_mixed(tmp_path: Path) -> None:
    class Redder(Red):
        version = "v2"

    a = write_set(tmp_path / "a", reds(0))
    b = write_set(tmp_path / "b", reds(0), scorer=Redder())
    with pytest.raises(DataError, match=r"a: red \(v1\); b: red \(v2\)"):
        compare_sets(a, [b])


def test_one_score_file_for_all_sets_gives_the_same_figures(tmp_path: Path) -> None:
    own = [write_set(tmp_path / name, reds(i)) for i, name in enumerate(("a", "b"))]
    shared = tmp_path / "scores.parquet"
    for folder in own:
        score_set(folder, [Red()], shared, progress=False)
        (folder / "scores.parquet").rename(folder / "own.parquet")
    together = compare_sets(own[0], [own[1]], shared, resamples=300)
    for folder in own:
        (folder / "own.parquet").rename(folder / "scores.parquet")
    assert together["comparisons"] == compare_sets(own[0], [own[1]], resamples=300)["comparisons"]


def test_holm_covers_all_comparisons(tmp_path: Path) -> None:
    folders = [write_set(tmp_path / f"s{i}", reds(0, shift=i)) for i in range(4)]
    result = compare_sets(folders[0], folders[1:], resamples=300)
    assert [c["set"] for c in result["comparisons"]] == ["s1", "s2", "s3"]
    for comparison in result["comparisons"]:
        test = comparison["tests"]["sign"]
        assert test["p_holm"] == pytest.approx(3 * test["p"])


def test_names_of_sets(tmp_path: Path) -> None:
    folders = [write_set(tmp_path / side / "same", reds(i)) for i, side in enumerate(("x", "y"))]
    result = compare_sets(folders[0], [folders[1]], resamples=300)
    assert result["base"].endswith("x/same")
    named = compare_sets(folders[0], [folders[1]], labels=["before", "after"], resamples=300)
    assert list(named["sets"]) == ["before", "after"]
    with pytest.raises(DataError, match="all different"):
        compare_sets(folders[0], [folders[1]], labels=["x", "x"])


def test_report_reads_well(tmp_path: Path) -> None:
    a, b = write_set(tmp_path / "a", reds(0)), write_set(tmp_path / "b", reds(0, shift=1))
    compare_sets(a, [b], output_dir=tmp_path / "out", resamples=300)
    text = (tmp_path / "out/compare.md").read_text(encoding="utf-8")
    assert text.startswith("# Compared with a\n")
    assert "b is better by this measure: b wins 100.0 % of 60 prompts against a by red" in text
    assert "| b | red | 100.0 % |" in text
    assert "Prompts that red could not read to their end: 3." in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len(tables) == 9
    assert len({line.count("|") for line in tables[:3]}) == 1


def test_a_sign_test_that_points_the_other_way_shows_nothing() -> None:
    rows = [[1.0, 1.0, -1.0, -1.0, -1.0]] * 70 + [[1.0] * 5] * 30
    prompts = [f"p{i}" for i in range(100) for _ in range(5)]
    found = compare_scores([0.0] * 500, [value for row in rows for value in row], prompts, resamples=1000)
    assert found["win_rate"]["ci95"][0] > 0.5
    assert found["tests"]["sign"]["p"] < 0.05
    assert found["verdict"] == "no difference shown"


def test_a_win_that_is_one_of_many_comparisons_is_told_as_such() -> None:
    from t2ialign.eval.report import sentence

    rng = np.random.default_rng(0)
    base = rng.normal(size=100)
    other = base + rng.normal(0.35, 1, 100)
    found = compare_scores(base.tolist(), other.tolist(), [str(i) for i in range(100)], resamples=500)
    assert found["verdict"] == "better"
    told = found | {"set": "b", "scorer": "s"}
    told["tests"]["sign"]["p_holm"] = 0.2
    assert "may be chance" in sentence(told, "a")
    told["tests"]["sign"]["p_holm"] = 0.01
    assert "may be chance" not in sentence(told, "a")
