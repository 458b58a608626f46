"""Agreement as a whole: planted habits are found and absent ones are not, and every figure equals a plain count."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from helpers.annotated import ASPECTS, fair, first_first, likes_light, write_annotations, write_set
from t2ialign.data.pairs import write_pairs
from t2ialign.errors import DataError
from t2ialign.eval.agreement.measuring import measure_agreement

QUICK: dict[str, Any] = {"resamples": 1000}


@pytest.fixture
def records(tmp_path: Path) -> list[dict[str, Any]]:
    return write_set(tmp_path / "set")


def of(result: dict[str, Any], bias: str, aspect: str = "aggregate") -> dict[str, Any]:
    found: dict[str, Any]
    (found,) = (each for each in result["biases"] if (each["bias"], each["aspect"]) == (bias, aspect))
    return found


def compared(result: dict[str, Any], aspect: str) -> dict[str, Any]:
    found: dict[str, Any]
    (found,) = (each for each in result["comparisons"] if each["aspect"] == aspect)
    return found


def test_a_fair_annotator_agrees_and_has_no_bias(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    mine = write_annotations(tmp_path / "mine", records, fair, seed=1, passes=2)
    people = write_annotations(tmp_path / "people", records, fair, seed=2)
    result = measure_agreement(mine, people, tmp_path / "out", **QUICK)
    decided = compared(result, "aggregate")["verdicts"]["decided"]
    assert decided["value"] > 0.85
    assert decided["ci95"][0] > 0.8
    assert compared(result, "fidelity")["ratings"]["kappa_quadratic"]["value"] > 0.6
    assert "more often than chance" in " ".join(result["sentences"])
    verdicts = {name: each["verdict"] for name, each in result["bias_verdicts"].items()}
    assert verdicts == {
        "position": "not shown",
        "rationale_length": "not testable",
        "caption_length": "not shown",
        "brightness": "not shown",
        "sharpness": "not shown",
        "size": "not testable",
    }
    assert json.loads((tmp_path / "out/agreement.json").read_text()) == result
    assert measure_agreement(mine, people, tmp_path / "again", **QUICK) == result


def test_a_liking_for_the_first_is_found_and_swaps_show_it(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    mine = write_annotations(tmp_path / "mine", records, first_first, passes=2)
    people = write_annotations(tmp_path / "people", records, fair, seed=2)
    result = measure_agreement(mine, people, tmp_path / "out", **QUICK)
    assert result["bias_verdicts"]["position"]["verdict"] == "found"
    assert "aggregate" in result["bias_verdicts"]["position"]["aspects"]
    position = of(result, "position")
    assert position["by_place"][0]["ci95"][0] > 0.3
    assert position["slope"]["ci95"][1] < 0
    assert result["bias_verdicts"]["brightness"]["verdict"] == "not shown"
    swaps = result["swaps"]["aggregate"]
    assert swaps["flipped"] == swaps["to_first"] + swaps["to_last"] > 10
    assert swaps["to_first"] > 10 * swaps["to_last"]
    alone = measure_agreement(mine, people, tmp_path / "first", first_pass=True, **QUICK)
    assert alone["swaps"]["aggregate"] == swaps  # the swap needs both passes, whatever is compared
    accuracies = [compared(r, "aggregate")["verdicts"]["decided"]["value"] for r in (result, alone)]
    assert accuracies[0] > accuracies[1]  # the mean of both orders is free of much of it


def test_a_liking_for_light_is_found_beside_people_and_beside_pairs(
    tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    mine = write_annotations(tmp_path / "mine", records, likes_light)
    people = write_annotations(tmp_path / "people", records, fair, seed=2)
    by_ratings = measure_agreement(mine, people, tmp_path / "out", **QUICK)
    pairs = write_pairs(pair_rows(tmp_path, records), tmp_path / "pairs")
    by_pairs = measure_agreement(mine, pairs, tmp_path / "out", **QUICK)
    for result in (by_ratings, by_pairs):
        assert result["bias_verdicts"]["brightness"]["verdict"] == "found"
        assert of(result, "brightness")["correlation"]["ci95"][0] > 0.3
        assert result["bias_verdicts"]["position"]["verdict"] == "not shown"
    assert by_pairs["reference"]["kind"] == "pairs"


def test_people_who_like_light_too_acquit_the_annotator(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    mine = write_annotations(tmp_path / "mine", records, likes_light)
    people = write_annotations(tmp_path / "people", records, likes_light, seed=2)
    found = of(measure_agreement(mine, people, tmp_path / "out", **QUICK), "brightness")
    assert found["with_rating"]["value"] > 0.4
    assert found["with_reference"]["value"] > 0.4
    assert found["verdict"] == "not shown"


def test_half_the_scale_is_no_bias(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    """People like light; the annotator says the same, but never uses the ends of the scale."""
    mine = write_annotations(tmp_path / "mine", records, lambda r, j, g: 3 + (likes_light(r, j, g) - 3) / 2)
    people = write_annotations(tmp_path / "people", records, likes_light, seed=2)
    assert of(measure_agreement(mine, people, tmp_path / "out", **QUICK), "brightness")["verdict"] == "not shown"


def test_the_length_of_rationales_and_of_prompts(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    def habit(record: dict[str, Any], place: int, rng: Any) -> float:
        return fair(record, place, rng) + 0.5 * (len(record["prompt"].split()) - 7)

    mine = write_annotations(tmp_path / "mine", records, habit, rationale=lambda mark: "good " * int(mark))
    people = write_annotations(tmp_path / "people", records, fair, seed=2)
    result = measure_agreement(mine, people, tmp_path / "out", **QUICK)
    assert of(result, "rationale_length")["correlation"]["value"] == pytest.approx(1.0)
    assert result["bias_verdicts"]["rationale_length"]["verdict"] == "found"
    assert result["bias_verdicts"]["caption_length"]["verdict"] == "found"
    assert of(result, "caption_length")["n_prompts"] == 40


def test_an_order_that_was_always_the_same_tests_nothing(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    mine = write_annotations(tmp_path / "mine", records, first_first, shuffled=False)
    people = write_annotations(tmp_path / "people", records, fair, seed=2)
    verdict = measure_agreement(mine, people, tmp_path / "out", **QUICK)["bias_verdicts"]["position"]
    assert verdict["verdict"] == "not testable"
    assert "same order" in verdict["reason"]


def plain_counts(mine: Path, people: Path, aspect: str) -> dict[str, float]:
    """Agreement counted by hand, from the files."""
    sides = []
    for folder in (mine, people):
        lines = [json.loads(line) for line in (folder / "annotations.jsonl").read_text().splitlines()]
        sides.append({line["prompt_id"]: line["ratings"][aspect] for line in lines})
    credit, decided, right, pairs, same, marks = 0.0, 0, 0, 0, 0, 0
    for prompt, one in sides[0].items():
        two = sides[1][prompt]
        same += sum(a == b for a, b in zip(one, two, strict=True))
        marks += len(one)
        for i, j in itertools.combinations(range(len(one)), 2):
            a, b = one[i] - one[j], two[i] - two[j]
            pairs += 1
            credit += 1.0 if a * b > 0 or (a == b == 0) else 0.5 if (a == 0) != (b == 0) else 0.0
            decided += a != 0 and b != 0
            right += a * b > 0
    return {"credit": credit / pairs, "decided": right / decided, "n": decided, "pairs": pairs, "exact": same / marks}


def test_figures_are_those_counted_by_hand(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    mine = write_annotations(tmp_path / "mine", records, fair, seed=1)
    people = write_annotations(tmp_path / "people", records, likes_light, seed=2)
    found = compared(measure_agreement(mine, people, tmp_path / "out", **QUICK), "fidelity")
    counts = plain_counts(mine, people, "fidelity")
    verdicts = found["verdicts"]
    assert verdicts["accuracy"]["value"] == pytest.approx(counts["credit"])
    assert verdicts["accuracy"]["policy"] == "pickscore"
    assert verdicts["decided"]["value"] == pytest.approx(counts["decided"])
    assert (verdicts["decided"]["n_pairs"], verdicts["n_pairs"]) == (counts["n"], counts["pairs"])
    assert found["ratings"]["exact"]["value"] == pytest.approx(counts["exact"])
    assert (found["ratings"]["n_pictures"], found["ratings"]["n_prompts"]) == (120, 40)
    assert sum(map(sum, found["ratings"]["table"])) == 120


def pair_rows(root: Path, records: list[dict[str, Any]], users: tuple[str, ...] = ("u1",)) -> list[dict[str, Any]]:
    """All pairs by quality; the second user turns every third verdict, and calls close ones ties."""
    rows = []
    for number, (one, two) in enumerate(itertools.combinations(records, 2)):
        if one["prompt"] != two["prompt"]:
            continue
        better, worse = (one, two) if one["quality"] > two["quality"] else (two, one)
        for turn, user in enumerate(users):
            chosen, rejected = (worse, better) if turn and number % 3 == 0 else (better, worse)
            close = bool(turn) and abs(one["quality"] - two["quality"]) < 0.2
            rows.append(
                {
                    "prompt": one["prompt"],
                    "chosen": root / "set" / chosen["file_name"],
                    "rejected": root / "set" / rejected["file_name"],
                    "user_id": user,
                    "preference_prob": 0.5 if close else None,
                }
            )
    return rows


def test_pairs_are_matched_by_their_files_and_users_among_themselves(
    tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    mine = write_annotations(tmp_path / "mine", records, lambda r, j, g: r["quality"])
    rows = pair_rows(tmp_path, records, ("u1", "u2"))
    pairs = write_pairs(rows, tmp_path / "pairs")
    result = measure_agreement(mine, pairs, tmp_path / "out", reference="u1", **QUICK)
    decided = compared(result, "aggregate")["verdicts"]["decided"]
    assert decided["value"] == 1.0
    assert decided["ci95_wilson"][0] < 1.0
    assert compared(result, "aggregate")["against"] == "overall"
    assert compared(result, "aggregate")["ratings"] is None
    assert result["within"]["reference"] == {}
    both = measure_agreement(mine, pairs, tmp_path / "out", **QUICK)
    among = both["within"]["reference"]["overall"]
    ours = [(row["user_id"], {row["chosen"], row["rejected"]}, row["chosen"], row["preference_prob"]) for row in rows]
    first = [each for each in ours if each[0] == "u1"]
    second = [each for each in ours if each[0] == "u2"]
    equal = [a[2] == b[2] for a, b in zip(first, second, strict=True) if b[3] is None]
    assert among["n_pairs"] == len(first) == 120
    assert among["same"]["value"] == pytest.approx(sum(equal) / 120)
    assert among["decided"]["value"] == pytest.approx(sum(equal) / len(equal))
    assert both["reference"]["ties"] == sum(b[3] == 0.5 for b in second) > 0
    assert both["reference"]["users"] == 2


def test_pairs_of_an_aspect_are_held_against_that_aspect(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    mine = write_annotations(tmp_path / "mine", records, fair)
    rows = [row | {"aspect": ("fidelity", "humour")[i % 2]} for i, row in enumerate(pair_rows(tmp_path, records))]
    result = measure_agreement(mine, write_pairs(rows, tmp_path / "pairs"), tmp_path / "out", **QUICK)
    assert [(each["aspect"], each["against"]) for each in result["comparisons"]] == [("fidelity", "fidelity")]
    assert result["matched"]["aspects_not_compared"] == ["humour"]
    assert {each["aspect"] for each in result["biases"] if each["bias"] == "brightness"} == {"fidelity"}


def test_verdicts_do_not_depend_on_which_side_is_written_first(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    """Tables of verdicts are the same both ways round: with chosen pictures always first there would be no kappa."""
    mine = write_annotations(tmp_path / "mine", records, fair)
    rows = pair_rows(tmp_path, records)
    result = measure_agreement(mine, write_pairs(rows, tmp_path / "pairs"), tmp_path / "out", **QUICK)
    verdicts = compared(result, "aggregate")["verdicts"]
    table = verdicts["table"]
    assert table[0][0] == table[2][2]
    assert table[0][2] == table[2][0]
    assert verdicts["kappa"]["value"] is not None


def test_missing_ratings_are_missing(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    def refuse(line: dict[str, Any]) -> None:
        if line["prompt_id"] == "p0":
            line["ratings"]["aesthetic"] = [None, None, None]
            line |= {"ok": False, "problem": "refused"}

    mine = write_annotations(tmp_path / "mine", records, fair, change=refuse)
    people = write_annotations(tmp_path / "people", records, fair, seed=2)
    result = measure_agreement(mine, people, tmp_path / "out", **QUICK)
    counted = {each["aspect"]: each["ratings"]["n_pictures"] for each in result["comparisons"]}
    whole = dict.fromkeys(("prompt_following", "fidelity", "harmlessness"), 120)
    assert counted == whole | {"aesthetic": 117, "aggregate": 117}
    assert result["annotator"]["problems"] == {"refused": 1}
    assert of(result, "position", "aesthetic")["n_incomplete"] == 1
    assert "1 of 40 answers lack a rating (refused 1)" in result["sentences"][-1]


def test_several_annotators_are_averaged_and_compared(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    mine = write_annotations(tmp_path / "mine", records, fair, seed=1)
    people = write_annotations(tmp_path / "people", records, lambda r, j, g: 2.0, annotator="low")
    write_annotations(people, records, lambda r, j, g: 5.0, annotator="high")
    result = measure_agreement(mine, people, tmp_path / "out", **QUICK)
    assert result["within"]["annotator"] == {}
    assert result["within"]["reference"]["fidelity"]["n_raters"] == 2
    assert result["within"]["reference"]["fidelity"]["alpha_nominal"]["value"] < 0
    assert compared(result, "fidelity")["ratings"]["rounded"] == 120  # 3.5 goes to 4 for the tables
    alone = measure_agreement(mine, people, tmp_path / "out", reference="high", **QUICK)
    assert alone["reference"]["annotators"] == ["high"]
    assert compared(alone, "fidelity")["ratings"]["mean_difference"]["value"] < -1
    with pytest.raises(DataError, match="nothing of the annotator 'nobody'; it has someone"):
        measure_agreement(mine, people, tmp_path / "out", annotator="nobody")


def test_a_digest_is_taken_from_the_file_where_it_is_missing(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    mine = write_annotations(tmp_path / "mine", records, fair, change=lambda line: line.pop("sha256"))
    people = write_annotations(tmp_path / "people", records, fair, seed=2)
    assert measure_agreement(mine, people, tmp_path / "out", **QUICK)["matched"]["pictures"] == 120
    (tmp_path / "set/images/000/0.png").unlink()
    matched = measure_agreement(mine, people, tmp_path / "out", **QUICK)["matched"]
    assert (matched["pictures"], matched["without_digest"], matched["reference_only"]) == (119, 1, 1)


def test_sides_that_share_nothing_are_refused(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    def others(line: dict[str, Any]) -> None:
        line["prompt"] += " elsewhere"

    mine = write_annotations(tmp_path / "mine", records, fair)
    people = write_annotations(tmp_path / "people", records, fair, change=others)
    with pytest.raises(DataError, match="share no picture"):
        measure_agreement(mine, people, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="holds no annotations"):
        measure_agreement(tmp_path / "set", people, tmp_path / "out")


def test_the_page_is_escaped_and_alone(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    evil = '<script>alert("x")</script><img src=http://evil.example/x.png onerror=alert(1)>'
    for record in records:
        record["prompt"] += evil
    mine = write_annotations(tmp_path / "mine", records, likes_light, rationale=lambda mark: evil, annotator=evil)
    people = write_annotations(tmp_path / "people", records, fair, seed=2, rationale=lambda mark: evil)
    result = measure_agreement(mine, people, tmp_path / "out", shown=5, **QUICK)
    page = (tmp_path / "out/agreement.html").read_text()
    assert "<script" not in page
    assert "<img src=http" not in page
    assert page.count("<article>") == 5 == len(result["disagreements"]["shown"])
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 11
    assert all(each.startswith("data:image/png;base64,") or each == "#disagreements" for each in sources)
    assert "default-src 'none'" in page


def test_disagreements_are_opposite_verdicts_the_surest_first(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    mine = write_annotations(tmp_path / "mine", records, likes_light)
    people = write_annotations(tmp_path / "people", records, fair, seed=2)
    wrong = measure_agreement(mine, people, tmp_path / "out", shown=1000, **QUICK)["disagreements"]
    assert wrong["n"] == len(wrong["shown"]) > 10
    aggregates = [each for each in wrong["shown"] if each["aspect"] == "aggregate"]
    margins = [each["margin"] for each in wrong["shown"]]
    assert margins == sorted(margins, reverse=True)
    for each in aggregates:
        ours, theirs = each["ratings"]["aggregate"], each["reference_ratings"]["aggregate"]
        assert ours[0] - ours[1] == pytest.approx(each["margin"])
        assert theirs[0] < theirs[1]
    named = [(each["prompt"], each["annotators"], each["reference"]) for each in aggregates]
    others = [(e["prompt"], e["annotators"], e["reference"]) for e in wrong["shown"] if e["aspect"] in ASPECTS]
    assert len(set(named)) == len(named)
    assert not set(named) & set(others)


def test_a_picture_that_is_gone_is_counted_and_shown_as_gone(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    mine = write_annotations(tmp_path / "mine", records, likes_light)
    people = write_annotations(tmp_path / "people", records, fair, seed=2)
    for path in (tmp_path / "set/images").rglob("*.png"):
        path.write_bytes(b"torn")
    result = measure_agreement(mine, people, tmp_path / "out", shown=3, **QUICK)
    assert result["pictures_not_measured"] == 120
    assert result["bias_verdicts"]["brightness"]["verdict"] == "not testable"
    assert (tmp_path / "out/agreement.html").read_text().count("the picture is not there") == 6


def test_four_prompts_of_four_are_no_more_than_chance() -> None:
    from t2ialign.eval.agreement.words import chance_verdict

    sure = {"ci95": [1.0, 1.0], "ci95_wilson": [0.51, 1.0]}
    # All four right comes up once in eight tries of either direction: p = 0.125.
    assert chance_verdict({**sure, "sign": {"p": 0.125, "prompts_above": 4, "n": 4}}).startswith("not shown")
    assert chance_verdict({**sure, "sign": {"p": 0.03, "prompts_above": 6, "n": 6}}) == "more often than chance"
    assert chance_verdict({**sure, "sign": {"p": 0.03, "prompts_above": 0, "n": 6}}).startswith("not shown")
