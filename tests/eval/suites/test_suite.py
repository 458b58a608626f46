"""Suites are read or refused; the packaged ones load, keep their budget, and equal the repository's."""

from __future__ import annotations

from pathlib import Path

import pytest

from t2ialign.errors import ConfigError
from t2ialign.eval.suites.catalogue import CATALOGUE, choose, find_prompts, find_suite, suite_names
from t2ialign.eval.suites.public_prompts import PUBLIC
from t2ialign.eval.suites.sections import SECTIONS, options_class
from t2ialign.eval.suites.suite import PromptSet, Suite, read_suite
from t2ialign.reward_models.registry import parse_spec

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("composition", "culture", "diversity", "full", "mini", "preference", "quick")


def relative_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for part in ("suites", "prompts")
        for path in sorted((folder / part).rglob("*"))
        if path.is_file()
    }


def test_the_packaged_catalogue_equals_the_repository_s() -> None:
    assert relative_files(CATALOGUE) == relative_files(ROOT / "eval")


def test_there_is_every_suite() -> None:
    assert tuple(suite_names()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_suite_loads_and_its_scorers_exist(name: str) -> None:
    suite = find_suite(name)
    assert suite.name == name
    for spec in (*suite.scorers, *([suite.embedder] if suite.embedder else [])):
        parse_spec(spec)
    assert suite.description.endswith(".")


def count(each: PromptSet) -> int:
    """Prompts of a set, of public ones as published."""
    size = PUBLIC[each.source].size if each.source in PUBLIC else len(find_prompts(PromptSet(source=each.source)))
    return min(size, each.limit or size)


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_budget_is_what_it_says(name: str) -> None:
    suite = find_suite(name)
    assert suite.pictures_per_model == sum(count(each) * each.images_per_prompt for each in suite.prompts.values())


def test_own_prompts_are_of_the_mini_world_and_held_out() -> None:
    from t2ialign.mini.world import parse, split_of

    prompts = find_prompts(PromptSet(source="mini"))
    assert len({prompt.prompt for prompt in prompts}) == len(prompts)
    assert {split_of(prompt.prompt) for prompt in prompts} == {"test"}
    for name in ("mini_open", "mini_flags"):
        for prompt in find_prompts(PromptSet(source=name)):
            parse(prompt.prompt)


@pytest.mark.parametrize("path", sorted((ROOT / "eval" / "prompts").glob("*.jsonl")), ids=lambda path: path.stem)
def test_own_prompts_have_ids_and_categories(path: Path) -> None:
    prompts = find_prompts(PromptSet(source=path.stem))
    assert len({prompt.prompt_id for prompt in prompts}) == len(prompts)
    assert all(prompt.category for prompt in prompts)


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


HEAD = "description: Mine.\nprompts:\n  a: {source: quick}\n"


def test_a_suite_of_one_s_own(tmp_path: Path) -> None:
    suite = find_suite(str(written(tmp_path, HEAD + "sections:\n  grids: {lines: 3}\n")))
    assert isinstance(suite, Suite)
    assert suite.sections["grids"].lines == 3
    assert suite.to_dict()["prompts"]["a"] == {"source": "quick", "images_per_prompt": 1, "limit": None}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD + "sections:\n  gids: {}\n", "unknown section 'gids'.*grids"),
        (HEAD + "sections:\n  grids: {linse: 3}\n", "unknown option 'linse'.*lines"),
        (HEAD + "sections:\n  grids: {prompts: [b]}\n", "asks for the prompts 'b'"),
        (HEAD + "sections:\n  grids: 3\n", "no group of options"),
        (HEAD, "at least one set"),
        (HEAD + "scorer: [oracle]\nsections:\n  grids: {}\n", "unknown option 'scorer'.*scorers"),
        ("prompts:\n  a: {source: quick, limit: 0}\nsections:\n  grids: {}\ndescription: x\n", "limit is 0"),
        ("prompts: 3\nsections:\n  grids: {}\ndescription: x\n", "prompts holds int"),
    ],
)
def test_what_is_wrong_in_a_suite_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"mine\.yaml.*{words}"):
        read_suite(written(tmp_path, text))


def test_an_unknown_suite_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no suite 'minni'.*mini"):
        find_suite("minni")
    with pytest.raises(ConfigError, match=r"no prompt set 'partyprompts'.*partiprompts"):
        find_prompts(PromptSet(source="partyprompts"))


def test_every_section_has_options_and_a_heading() -> None:
    for name, heading in SECTIONS.items():
        assert options_class(name)()
        assert heading


def test_a_larger_limit_keeps_what_a_smaller_one_took() -> None:
    prompts = find_prompts(PromptSet(source="quick"))
    few, more = choose(prompts, 10), choose(prompts, 25)
    assert len(few) == 10
    assert {each.prompt_id for each in few} < {each.prompt_id for each in more}
    assert few == [each for each in prompts if each in few]
    assert len({each.category for each in few}) > 3
    assert choose(prompts, None) == choose(prompts, 999) == prompts
