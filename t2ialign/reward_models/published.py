"""Published examples: values that a scorer's authors, or users of their code, printed for pictures that are at hand.

Law of this file: values and pictures are told with their source and never adjusted; a picture counts only if its
digest is right. What cannot be checked, for lack of weights or pictures, is said to be unchecked, never to be right.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from t2ialign.errors import ConfigError, MissingDependencyError, ModelError
from t2ialign.reward_models.registry import load_scorer, parse_spec
from t2ialign.reward_models.weights import file_digest

if TYPE_CHECKING:
    import torch

FOLDER_VARIABLE = "T2IALIGN_REAL_DATA"
"""Environment variable that names the folder of the pictures."""


@dataclass(frozen=True)
class PublishedPicture:
    """A picture that values were published for.

    Attributes:
        places: Where it may be in the folder: as we call it, and as in the repository it comes from.
        sha256: Of the file, in hexadecimal digits.
        source: Where to get it.
    """

    places: tuple[str, ...]
    sha256: str
    source: str


@dataclass(frozen=True)
class Noise:
    """A picture that is drawn: `torch.randint(255, (3, 224, 224))` after `torch.manual_seed(seed)`.

    Attributes:
        seed: The seed.
    """

    seed: int


@dataclass(frozen=True)
class Example:
    """What was published.

    Attributes:
        spec: The scorer that it is about, as in `registry.load_scorer`, with the default checkpoint.
        prompt: The prompt of all pictures.
        pictures: The pictures.
        values: Their scores.
        tolerance: How far a score may be off: what was published is rounded, and decoding and resizing differ a little
            between versions of the libraries.
        source: Where the values stand.
    """

    spec: str
    prompt: str
    pictures: tuple[PublishedPicture | Noise, ...]
    values: tuple[float, ...]
    tolerance: float
    source: str

    @property
    def name(self) -> str:
        """The scorer's name."""
        return parse_spec(self.spec)[0]


@dataclass(frozen=True)
class Verification:
    """What came of one example.

    Attributes:
        scorer: Name of the scorer.
        version: Its version; empty where it was not loaded.
        status: `"agrees"`, `"differs"`, or `"unchecked"`.
        published: The published values.
        computed: Ours; empty where unchecked.
        difference: The largest absolute difference; `None` where unchecked.
        tolerance: How large it may be.
        reason: Why it is unchecked; empty otherwise.
        source: Where the values stand.
    """

    scorer: str
    version: str
    status: Literal["agrees", "differs", "unchecked"]
    published: tuple[float, ...]
    computed: tuple[float, ...]
    difference: float | None
    tolerance: float
    reason: str
    source: str


_OCEAN = tuple(
    PublishedPicture(
        (f"generated_images/imagereward_{i}.webp", f"imagereward_{i}.webp", f"assets/images/{i}.webp", f"{i}.webp"),
        digest,
        f"assets/images/{i}.webp in the repository of ImageReward",
    )
    for i, digest in enumerate(
        (
            "a5fcd126763da8b3fe2a9e620fc1ba03d215d20de36c77bf6770a540a9bc972d",
            "dc13919a49a37987d19c8be3ba0c1ef2941570f820f90fb66ac91a9a9db24082",
            "ee859bac167e6a04cbcde63454757b6fc7d9b8704429c15725ca8c4accf176e3",
            "84faf59d59d9ca7ab298c9acb957d727365ae104768ac1a1ec55ab96be68aaf9",
        ),
        start=1,
    )
)
_HORN = PublishedPicture(
    ("generated_images/hpsv2_demo.jpg", "hpsv2_demo.jpg", "assets/demo_image.jpg", "demo_image.jpg"),
    "798dfb5bc544fca70ea15d21571530c4389a25536d6a511e0b0c915b0aba144d",
    "assets/demo_image.jpg in the repository of HPSv2",
)

EXAMPLES = (
    Example(
        "imagereward",
        "a painting of an ocean with clouds and birds, day time, low depth field effect",
        _OCEAN,
        (0.5811622738838196, 0.2745276093482971, -1.4131819009780884, -2.029569625854492),
        0.01,
        "README of THUDM/ImageReward",
    ),
    # A user's value, rounded; which torchvision it was computed with, and so if shrinking averaged, is not told.
    Example("hpsv2.1", "cat with horn", (_HORN,), (0.288,), 0.005, "issue 30 of tgxs002/HPSv2 (a user, rounded)"),
    Example(
        "clipscore@openai/clip-vit-base-patch16?definition=torchmetrics",
        "a photo of a cat",
        (Noise(42),),
        (24.4260,),
        0.01,
        "documentation of torchmetrics.functional.multimodal.clip_score",
    ),
)
"""All that is known; of the other scorers no values for pictures at hand were found."""


def verify(
    specs: Sequence[str] = (),
    *,
    folder: str | Path | None = None,
    device: str = "auto",
    examples: Sequence[Example] = EXAMPLES,
) -> list[Verification]:
    """Score published examples and compare.

    Args:
        specs: Scorers, with checkpoints of one's own where wanted; by default those of all examples.
        folder: Where the pictures are; by default what `T2IALIGN_REAL_DATA` names.
        device: Where scorers run.
        examples: What to compare with.

    Returns:
        One entry an example.

    Raises:
        ConfigError: If a scorer is unknown, or no example is about it.
    """
    place = folder or os.environ.get(FOLDER_VARIABLE) or None
    root = Path(place).expanduser() if place is not None else None
    chosen: Mapping[str, str] = {parse_spec(spec)[0]: spec for spec in specs}
    known = {example.name for example in examples}
    if unknown := sorted(set(chosen) - known):
        raise ConfigError(
            f"no published values of {unknown[0]} are known; there are some of {', '.join(sorted(known))}"
        )
    wanted = [example for example in examples if not chosen or example.name in chosen]
    return [_verify(example, chosen.get(example.name, example.spec), root, device) for example in wanted]


def _verify(example: Example, spec: str, folder: Path | None, device: str) -> Verification:
    pictures = [find_picture(each, folder) for each in example.pictures]
    lacking = next((each for each in pictures if isinstance(each, str)), None)
    if lacking is not None:
        return _unchecked(example, lacking)
    try:
        scorer = load_scorer(spec, device=device)
    except (ModelError, MissingDependencyError) as error:
        return _unchecked(example, str(error))
    scores = scorer.score([example.prompt] * len(pictures), [each for each in pictures if not isinstance(each, str)])
    computed = tuple(float(score) for score in scores)
    difference = largest_difference(computed, example.values)
    return Verification(
        example.name,
        scorer.version,
        "agrees" if difference <= example.tolerance else "differs",
        example.values,
        computed,
        difference,
        example.tolerance,
        "",
        example.source,
    )


def largest_difference(computed: Sequence[float], published: Sequence[float]) -> float:
    """Return the largest absolute difference; infinity where a computed value is no number."""
    if not all(map(math.isfinite, computed)):
        return math.inf
    return max(abs(ours - theirs) for ours, theirs in zip(computed, published, strict=True))


def _unchecked(example: Example, reason: str) -> Verification:
    return Verification(
        example.name, "", "unchecked", example.values, (), None, example.tolerance, reason, example.source
    )


def find_picture(picture: PublishedPicture | Noise, folder: Path | None) -> Path | torch.Tensor | str:
    """Return a picture, a path or a tensor; where it is not here, a sentence that says so."""
    if isinstance(picture, Noise):
        return noise(picture.seed)
    if folder is None:
        return f"no folder of pictures is named; set {FOLDER_VARIABLE} or give --data. Needed: {picture.source}"
    there = [folder / place for place in picture.places if (folder / place).is_file()]
    for path in there:
        if file_digest(path) == picture.sha256:
            return path
    if there:
        return f"{there[0].name} is another picture than the published one (SHA-256); needed: {picture.source}"
    return f"{picture.places[0]} is not in the folder; get {picture.source}"


def noise(seed: int) -> torch.Tensor:
    """Draw torchmetrics' example picture; uint8 [3, 224, 224]. The global generator is left alone."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    return torch.randint(255, (3, 224, 224), generator=generator).to(torch.uint8)
