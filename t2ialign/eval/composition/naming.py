"""Which detector is meant: `oracle`, `zero_shot:MODEL`, `results:PLACE`.

Law of this file: nothing is loaded to tell what is meant and whether it is there; what it depends on is named by its
content and never by a folder of this machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.config import nearest
from t2ialign.errors import ConfigError, DataError

if TYPE_CHECKING:
    from t2ialign.eval.composition.detectors import ResultsDetector

KINDS = {
    "auto": "the oracle where all prompts are of the mini-world, elsewhere none",
    "oracle": "the mini-world's oracle",
    "zero_shot": "zero_shot:MODEL, a zero-shot detector of transformers, by hub id or folder",
    "results": "results:PLACE, a file or a folder of detections that were made elsewhere",
}
"""Detectors by name."""


@dataclass(frozen=True)
class DetectorName:
    """A detector, read from its name.

    Attributes:
        kind: A key of `KINDS`.
        place: Model or place; empty where the kind takes none.
    """

    kind: str
    place: str = ""

    @classmethod
    def read(cls, text: str) -> DetectorName:
        """Read a name.

        Raises:
            ConfigError: If it is none.
        """
        kind, _, place = text.strip().partition(":")
        if kind not in KINDS:
            raise ConfigError(f"there is no detector {text!r}{nearest(kind, KINDS)}; write {_forms()}")
        takes_place = kind in ("zero_shot", "results")
        if takes_place != bool(place.strip()):
            raise ConfigError(f"the detector {text!r} cannot be read; write {_forms()}")
        return cls(kind, place.strip())

    def identity(self) -> dict[str, Any]:
        """Say which one it is, by content where it lies here.

        Raises:
            ConfigError: If results are named that are not there.
        """
        from t2ialign.data.sources import content_hash

        path = Path(self.place).expanduser()
        if self.kind == "results":
            if not path.exists():
                raise ConfigError(f"there is no file or folder of detections {self.place!r}; see docs/composition.md")
            files = sorted(f for f in path.rglob("*") if f.suffix in (".json", ".jsonl")) if path.is_dir() else [path]
            names = [file.relative_to(path).as_posix() for file in files] if path.is_dir() else []
            return {"detector": f"results:{path.name}", "files": names, "content": content_hash(files)}
        if self.kind == "zero_shot" and path.is_dir():
            return {"detector": f"zero_shot:{path.name}", "content": content_hash(sorted(path.rglob("*.safetensors")))}
        return {"detector": f"{self.kind}:{self.place}".rstrip(":")}


def _forms() -> str:
    return "oracle, zero_shot:MODEL or results:FILE"


def find_results(place: str, prompts: str, label: str, classes: tuple[str, ...], *, alone: bool) -> ResultsDetector:
    """Open the detections of one model's pictures.

    Args:
        place: A file of all pictures, whose `file_name`s begin with `sets/PROMPTS/LABEL/`; or a folder with
            `PROMPTS/LABEL.jsonl`, `.json`, or a folder `PROMPTS/LABEL` with a file a picture. With one set of prompts
            `PROMPTS/` may be left out.
        prompts: Name of the prompt set.
        label: Of the model.
        classes: Names that whole numbers stand for.
        alone: Whether there is one set of prompts.

    Raises:
        DataError: If there is nothing of this model, or it can not be read.
    """
    from t2ialign.eval.composition.detectors import ResultsDetector

    path = Path(place).expanduser()
    if path.is_file():
        return ResultsDetector(path, classes, prefix=f"sets/{prompts}/{label}/")
    stems = [path / prompts / label, *([path / label] if alone else [])]
    for stem in stems:
        for candidate in (stem.with_name(f"{stem.name}.jsonl"), stem.with_name(f"{stem.name}.json"), stem):
            if candidate.exists():
                return ResultsDetector(candidate, classes)
    raise DataError(
        f"{path.name} holds no detections of {label}'s pictures for {prompts}; put them into "
        f"{path.name}/{prompts}/{label}.jsonl, a line a picture"
    )
