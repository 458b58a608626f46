"""Tags: what was said becomes labels, strictly; taggers; tagging a set, stopped and continued."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.clip import save_clip
from helpers.image_sets import write_plain_set
from helpers.scripted_chat import ScriptedChat
from t2ialign.data.image_sets import ImageSet
from t2ialign.errors import DataError, ModelError
from t2ialign.eval.culture.chat_tagger import ChatTagger, read_answer
from t2ialign.eval.culture.clip_tagger import ClipTagger
from t2ialign.eval.culture.cspace import Concept, ConceptSpace
from t2ialign.eval.culture.flag_tagger import FlagTagger
from t2ialign.eval.culture.geotag import (
    COLUMNS,
    GeoTag,
    TaggedPicture,
    artifact_label,
    problem_counts,
    read_tags,
    stated_tag,
    tag_image_set,
    write_tags,
)
from t2ialign.mini.flags import FLAGS, draw_flag
from t2ialign.reward_models.registry import load_scorer

PICTURE = Image.new("RGB", (8, 8), (200, 30, 30))


@pytest.mark.parametrize(
    ("said", "tag"),
    [
        (("Asia", "Japan", " Sushi  Roll"), GeoTag("Asia", "Japan", "sushi roll")),
        (("North America", "USA", "Burger"), GeoTag("North America", "United States", "burger")),
        ((None, "Japan", "kimono"), GeoTag("Asia", "Japan", "kimono")),
        # The country's continent stands, and the contradiction is counted.
        (("Europe", "Japan", "kimono"), GeoTag("Asia", "Japan", "kimono", contradiction=True)),
        # Turkey lies in both; one label, no contradiction.
        (("Europe", "Türkiye", "kisir"), GeoTag("Asia", "Turkey", "kisir")),
        (("Africa", None, "drum"), GeoTag("Africa", None, "drum", "no country")),
        (("Africa", "Wakanda", None), GeoTag("Africa", None, None, "unknown country 'Wakanda'; no artifact")),
        (("Middle East", "unknown", "N/A"), GeoTag(problem="unknown continent 'Middle East'; no country, artifact")),
        ((None, None, None), GeoTag(problem="no continent, country, artifact")),
    ],
)
def test_what_was_said_becomes_labels(said: tuple[str | None, str | None, str | None], tag: GeoTag) -> None:
    assert stated_tag(*said) == tag


def test_labels_of_artifacts_are_compared_by_their_words() -> None:
    assert artifact_label(" Café\tAu  LAIT ") == artifact_label("cafe\u0301 au lait") == "café au lait"
    assert artifact_label("sari") != artifact_label("sarı")
    assert artifact_label("Unknown") is artifact_label(None) is None


def answer(continent: Any = "Asia", country: Any = "India", artifact: Any = "sari", **more: Any) -> str:
    return json.dumps({"continent": continent, "country": country, "artifact": artifact, **more})


@pytest.mark.parametrize("wrapped", ["{}", "```json\n{}\n```", "```\n{}\n```"])
def test_a_good_answer_is_read(wrapped: str) -> None:
    assert read_answer(wrapped.replace("{}", answer())) == (GeoTag("Asia", "India", "sari"), "")


@pytest.mark.parametrize(
    "text",
    [
        "Asia, India, sari",
        f"Sure! {answer()}",
        f"{answer()} I hope this helps",
        answer(extra="x"),
        '{"continent": "Asia", "country": "India"}',
        answer(country=["India"]),
        answer(country=1),
        answer(artifact=True),
        f"[{answer()}]",
        '{"continent": "Asia", "continent": "Africa", "country": null, "artifact": null}',
        '{"continent": NaN, "country": null, "artifact": null}',
        "",
        "[" * 50_000,
    ],
)
def test_anything_else_is_no_answer(text: str) -> None:
    tag, problem = read_answer(text)
    assert tag is None
    assert problem


def test_the_chat_tagger_asks_again_and_then_leaves_null() -> None:
    answers = {
        (200, 30, 30): ["no", "still no", answer()],
        (0, 0, 0): ["no"] * 3,
        (9, 9, 9): [answer(None, None, None)],
    }
    images = [Image.new("RGB", (8, 8), color) for color in answers]

    def reply(text: str, given: Sequence[Image.Image]) -> str:
        left = answers[given[0].getpixel((0, 0))]  # type: ignore[index]
        return left.pop(0)

    chat = ScriptedChat(reply)
    tagger = ChatTagger(chat, attempts=3, seed=7, hints=["naïve", 'quo"te'])
    found = tagger.tag(images)
    assert found[0] == GeoTag("Asia", "India", "sari")
    assert found[1].continent is found[1].country is found[1].artifact is None
    assert found[1].problem.startswith("unreadable answer")
    assert found[2] == GeoTag(problem="no continent, country, artifact")
    assert len(chat.asked) == 3 + 3 + 1
    assert sorted(set(chat.seeds)) == [7, 8, 9]
    assert '["naïve", "quo\\"te"]' in chat.asked[0]
    assert "{hints}" not in ChatTagger(chat).question


def test_a_captioner_can_not_tag() -> None:
    with pytest.raises(ModelError, match="plain captioner"):
        ChatTagger(ScriptedChat(lambda text, images: "", instructions=False))


class Directions:
    """Features by hand: a text's is listed, a picture's follows from its red."""

    name, version = "directions", "v1"

    def __init__(self, texts: dict[str, list[float]]) -> None:
        self.texts, self.batches = texts, [0]

    def embed_texts(self, prompts: Sequence[str]) -> torch.Tensor:
        self.batches.append(len(prompts))
        return 3 * torch.tensor([self.texts[prompt] for prompt in prompts])

    def embed_images(self, images: Sequence[Any]) -> torch.Tensor:
        angles = torch.tensor([image.getpixel((0, 0))[0] / 100 for image in images])
        return 5 * torch.stack([angles.cos(), angles.sin()], dim=1)

    def score_matrix(self, prompts: Sequence[str], images: Sequence[Any]) -> torch.Tensor:
        raise NotImplementedError


def at(angle: float) -> list[float]:
    return [float(np.cos(angle)), float(np.sin(angle))]


SPACE = ConceptSpace(
    "by hand",
    (
        Concept("Pizza", "Italy", "Europe"),
        Concept("pasta", "Italy", "Europe"),
        Concept("crepe", "France", "Europe"),
        Concept("sushi", "Japan", "Asia"),
        Concept("stray"),
    ),
)
PLACES = {"Pizza, Italy": at(0.0), "pasta, Italy": at(0.2), "crepe, France": at(0.6), "sushi, Japan": at(1.5)}


@pytest.mark.parametrize(
    ("red", "min_margin", "labels"),
    [
        (1, 0.0, ("Europe", "Italy", "pizza")),
        (11, 0.0, ("Europe", "Italy", "pasta")),
        (11, 0.05, ("Europe", "Italy", None)),  # two of Italy are as near
        (39, 0.05, ("Europe", None, None)),  # between Italy and France
        (105, 0.05, (None, None, None)),  # between France and Japan
        (150, 0.05, ("Asia", "Japan", "sushi")),
    ],
)
def test_clip_tags_by_margin(red: int, min_margin: float, labels: tuple[str | None, ...]) -> None:
    tagger = ClipTagger(Directions(PLACES), SPACE, min_margin=min_margin, template="{name}, {country}")
    (tag,) = tagger.tag([Image.new("RGB", (4, 4), (red, 0, 0))])
    assert (tag.continent, tag.country, tag.artifact) == labels
    assert bool(tag.problem) == (None in labels)


def test_the_margin_is_that_to_another_country() -> None:
    tagger = ClipTagger(Directions(PLACES), SPACE, template="{name}, {country}")
    (tag,) = tagger.tag([Image.new("RGB", (4, 4), (10, 0, 0))])
    assert tag.margin == pytest.approx(np.cos(0.1) - np.cos(0.5), abs=1e-6)
    assert tagger.info()["artifacts"] == 4
    assert tagger.info()["without_country"] == 1
    with pytest.raises(DataError, match="at least 2"):
        ClipTagger(Directions(PLACES), ConceptSpace("one", SPACE.concepts[3:]))


def test_a_large_space_is_embedded_some_thousand_at_a_time() -> None:
    rng = np.random.default_rng(0)
    concepts = tuple(
        Concept(f"thing {i}", *(("Italy", "Europe") if i % 2 else ("Japan", "Asia"))) for i in range(10_000)
    )
    places = {f"thing {i}": at(float(rng.uniform(0, 6))) for i in range(10_000)}
    embedder = Directions(places)
    tagger = ClipTagger(embedder, ConceptSpace("many", concepts), template="{name}")
    assert max(embedder.batches) <= 4096
    assert sum(embedder.batches) == 10_000
    (tag,) = tagger.tag([Image.new("RGB", (4, 4), (77, 0, 0))])
    nearest = max(places, key=lambda name: places[name][0] * np.cos(0.77) + places[name][1] * np.sin(0.77))
    assert tag.artifact == nearest


def test_clip_of_a_real_architecture(tmp_path: Path) -> None:
    """The tag of a picture does not depend on its neighbours, and is what plain cosines give."""
    scorer: Any = load_scorer(f"clipscore@{save_clip(tmp_path)}", device="cpu")
    concepts = tuple(Concept(flag.name, flag.name, flag.continent) for flag in list(FLAGS.values())[:6])
    space = ConceptSpace("flags", concepts)
    images = [draw_flag(key, 32) for key in list(FLAGS)[:6]]
    tagger = ClipTagger(scorer, space, template="the flag of {name}")
    found = tagger.tag(images)
    assert [tagger.tag([image])[0].artifact for image in images] == [tag.artifact for tag in found]
    texts = torch.nn.functional.normalize(scorer.embed_texts([f"the flag of {c.name}" for c in concepts]), dim=-1)
    pictures = torch.nn.functional.normalize(scorer.embed_images(images), dim=-1)
    best = (pictures @ texts.T).argmax(dim=1).tolist()
    assert [tag.artifact for tag in found] == [artifact_label(concepts[i].name) for i in best]


def test_the_oracle_tags_every_flag() -> None:
    tags = FlagTagger().tag([draw_flag(key, 64) for key in FLAGS])
    assert [tag.continent for tag in tags] == [flag.continent for flag in FLAGS.values()]
    assert len({tag.country for tag in tags}) == len({tag.artifact for tag in tags}) == 35
    assert not any(tag.problem or tag.contradiction for tag in tags)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    (lost,) = FlagTagger().tag([Image.fromarray(noise)])
    assert lost == GeoTag(problem="unreadable")


class Counting:
    """A tagger that counts, and breaks after some pictures."""

    source, batch_size = "counting", 2

    def __init__(self, breaks_after: int = 99, template: str = "a") -> None:
        self.seen, self.breaks_after, self.template = 0, breaks_after, template

    def tag(self, images: Sequence[Image.Image]) -> list[GeoTag]:
        if self.seen + len(images) > self.breaks_after:
            raise KeyboardInterrupt
        self.seen += len(images)
        return [stated_tag("Asia", "Japan" if image.getpixel((0, 0))[0] % 2 else None, "x") for image in images]  # type: ignore[index]

    def info(self) -> dict[str, Any]:
        return {"template": self.template, "versions": {"any": self.seen}}


def small_set(path: Path, n: int = 7) -> ImageSet:
    lines: list[tuple[dict[str, Any], Image.Image]] = [
        (
            {"prompt_id": f"p{i % 2}", "prompt": f"prompt {i % 2}", "sample": i // 2, "seed": i, "category": "c"},
            Image.new("RGB", (8, 8), (i, 0, 0)),
        )
        for i in range(n)
    ]
    return ImageSet(write_plain_set(path, lines))


def test_tagging_is_continued(tmp_path: Path) -> None:
    images, progress = small_set(tmp_path / "set"), tmp_path / "out" / "tags.jsonl"
    whole = tag_image_set(images, Counting())
    with pytest.raises(KeyboardInterrupt):
        tag_image_set(images, Counting(breaks_after=5), progress)
    with progress.open("a") as file:
        file.write('{"mark": "torn')
    second = Counting()
    assert tag_image_set(images, second, progress) == whole
    assert second.seen == 7 - 4
    third = Counting()
    assert tag_image_set(images, third, progress) == whole
    assert third.seen == 0
    assert [row.file_name for row in whole] == [record.file_name for record in images]
    assert problem_counts(whole) == {"no country": 4}
    with pytest.raises(DataError, match="made otherwise"):
        tag_image_set(images, Counting(template="b"), progress)
    progress.write_text("nonsense\n")
    with pytest.raises(DataError, match="holds no tags"):
        tag_image_set(images, Counting(), progress)


def test_a_stop_inside_a_letter_and_ends_of_line_in_a_text(tmp_path: Path) -> None:
    """A tag may hold what some take for the end of a line, and a stop may cut a letter of several bytes in two."""

    class Odd(Counting):
        def tag(self, images: Sequence[Image.Image]) -> list[GeoTag]:
            return [replace(tag, problem="no\u2028such\x85key") for tag in super().tag(images)]

    images, progress = small_set(tmp_path / "set"), tmp_path / "tags.jsonl"
    whole = tag_image_set(images, Odd(), progress)
    with progress.open("ab") as file:
        file.write('{"mark": "torn é'.encode()[:-1])
    again = Odd()
    assert tag_image_set(images, again, progress) == whole
    assert again.seen == 0


def test_a_changed_picture_is_tagged_again(tmp_path: Path) -> None:
    progress = tmp_path / "tags.jsonl"
    tag_image_set(small_set(tmp_path / "set"), Counting(), progress)
    lines = [
        ({"prompt_id": "p0", "prompt": "prompt 0", "sample": 0, "seed": 0}, Image.new("RGB", (8, 8), (201, 0, 0)))
    ]
    again = Counting()
    (row,) = tag_image_set(ImageSet(write_plain_set(tmp_path / "set", lines)), again, progress)
    assert again.seen == 1
    assert row.country == "Japan"


def test_rows_go_through_parquet(tmp_path: Path) -> None:
    rows = tag_image_set(small_set(tmp_path / "set"), Counting())
    rows.append(TaggedPicture("x.png", "p", None, None, None, "s", seed=2**63 + 5, margin=0.25, contradiction=True))
    path = tmp_path / "tags.parquet"
    write_tags(path, rows)
    assert read_tags(path) == rows
    from pyarrow import parquet

    assert tuple(parquet.read_schema(path).names[: len(COLUMNS)]) == COLUMNS
    parquet.write_table(parquet.read_table(path).select(["file_name", "country"]), path)
    with pytest.raises(DataError, match="lacks the column 'prompt_id'"):
        read_tags(path)
