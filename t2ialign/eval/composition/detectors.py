"""Detectors: a zero-shot detector of transformers, results of mmdet in files, the mini-world's oracle.

Law of this file: a detector depends on one picture and the classes asked for, nothing else. Weights are safetensors,
no code comes from a repository.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from t2ialign.errors import DataError, ModelError
from t2ialign.eval.composition.coco import ALIASES
from t2ialign.eval.composition.detections import Detection, Detections
from t2ialign.eval.composition.position import Box
from t2ialign.problems import loading_errors, short

if TYPE_CHECKING:
    from PIL import Image

    from t2ialign.data.image_sets import ImageRecord


class ZeroShotDetector:
    """A zero-shot detector of transformers: OWL-ViT, OWLv2, Grounding DINO and their kin.

    It is asked for the classes of the prompt, so, other than a detector with fixed classes, it may call a thing by the
    only name it was offered; `distractors` offers it others. It has no masks. Its scores are not those of GenEval's
    Mask2Former: choose `Thresholds` for it on pictures that you know.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        name: str = "",
        template: str = "a photo of a {name}",
        distractors: Sequence[str] = (),
        least: float = 0.05,
    ) -> None:
        """Take a loaded model and its processor (`load` brings both).

        Args:
            model: For zero-shot object detection.
            processor: Its processor, with `post_process_grounded_object_detection`.
            name: What to call it in records.
            template: How a class is said, with `{name}`.
            distractors: Classes offered beside those of the prompt, such as GenEval's eighty; not for Grounding DINO,
                which is asked for one class at a time.
            least: Score below which nothing is handed out.
        """
        self.model, self.processor, self.name, self.template = model, processor, name, template
        self.distractors, self.least = tuple(distractors), least
        self.takes_one_class = "grounding" in type(processor).__name__.lower()
        if self.takes_one_class and distractors:
            raise ValueError(
                "Grounding DINO is asked for one class at a time and takes no distractors; leave them out"
            )

    @classmethod
    def load(
        cls, checkpoint: str, *, revision: str | None = None, device: str = "cpu", **settings: Any
    ) -> ZeroShotDetector:
        """Load a checkpoint such as `google/owlv2-base-patch16-ensemble` or a folder.

        Raises:
            ModelError: If it can not be loaded.
        """
        from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

        try:
            model = AutoModelForZeroShotObjectDetection.from_pretrained(
                checkpoint, revision=revision, use_safetensors=True, trust_remote_code=False
            )
            processor = AutoProcessor.from_pretrained(checkpoint, revision=revision, trust_remote_code=False)
        except loading_errors() as error:
            raise ModelError(
                f"no zero-shot detector can be loaded from {checkpoint!r}: {short(error)}; name a folder or a hub id "
                "with safetensors weights and a processor"
            ) from error
        return cls(model.to(device).eval(), processor, name=Path(checkpoint).name, **settings)

    def detect(self, image: Image.Image, classes: Sequence[str], record: ImageRecord | None = None) -> Detections:
        """Find objects; boxes are cut at the picture's edges.

        Grounding DINO is asked for one class at a time, since it answers with pieces of the text it was given.
        """
        if self.takes_one_class:
            found = {name: self._boxes(image, [name]) for name in classes}
            return {name: [one for _, one in boxes] for name, boxes in found.items() if boxes}
        kept: dict[str, list[Detection]] = {}
        for name, one in self._boxes(image, list(dict.fromkeys([*classes, *self.distractors]))):
            if name in classes:
                kept.setdefault(name, []).append(one)
        return kept

    def _boxes(self, image: Image.Image, asked: list[str]) -> list[tuple[str, Detection]]:
        import torch

        words = [self.template.format(name=each) for each in asked]
        text: Any = f"{words[0]}." if self.takes_one_class else [words]
        inputs = self.processor(text=text, images=image, return_tensors="pt").to(self.model.device)
        with torch.inference_mode():
            outputs = self.model(**inputs)
        settings: dict[str, Any] = {"threshold": self.least, "target_sizes": [image.size[::-1]]}
        settings |= {"input_ids": inputs["input_ids"]} if self.takes_one_class else {}
        found = self.processor.post_process_grounded_object_detection(outputs, **settings)[0]
        boxes, scores = found["boxes"].tolist(), found["scores"].tolist()
        places = [0] * len(boxes) if self.takes_one_class else found["labels"].tolist()
        return [
            (asked[place], Detection(_inside(box, image.size), float(score)))
            for box, score, place in zip(boxes, scores, places, strict=True)
        ]

    def info(self) -> dict[str, Any]:
        """Say what is asked of which model."""
        from importlib.metadata import version

        return {
            "detector": type(self.model).__name__,
            "name": self.name,
            "template": self.template,
            "distractors": list(self.distractors),
            "least": self.least,
            "versions": {"transformers": version("transformers"), "torch": version("torch")},
        }


def _inside(box: Sequence[float], size: tuple[int, int]) -> Box:
    left, top, right, bottom = box
    width, height = size
    return Box(
        min(max(left, 0.0), width),
        min(max(top, 0.0), height),
        min(max(right, 0.0), width),
        min(max(bottom, 0.0), height),
    )


class ResultsDetector:
    """Results that mmdet, or anybody, left in a file or a folder.

    Three forms, told apart by themselves:

    * lines, one a picture, as mmdet 3's `DetInferencer` writes predictions, with the picture's name:
      `{"file_name": "...", "labels": [0, "dog", ...], "scores": [...], "bboxes": [[x1, y1, x2, y2], ...]}`; a whole
      number is a place in `classes`, and `"colors": ["red", null, ...]` may say colours;
    * a folder with such an object for each picture, in a file called as the picture is, but `.json`;
    * COCO: `{"images": [{"id", "file_name"}], "categories": [{"id", "name"}], "annotations": [{"image_id",
      "category_id", "bbox": [x, y, width, height], "score"}]}`, mmdet's `bbox.json` being the annotations.

    `file_name` is relative to the image set. A picture without a line is an error: nothing found is an empty list.
    Where a class is asked for by GenEval's name and stands there by COCO's own, that is taken (`coco.ALIASES`).
    """

    def __init__(self, path: str | Path, classes: Sequence[str] = (), *, prefix: str = "") -> None:
        """Read the file.

        Args:
            path: A file, or a folder with one a picture.
            classes: Names that whole numbers stand for.
            prefix: What stands before a picture's own name in the file, such as `sets/geneval/base/`.

        Raises:
            DataError: If it can not be read or a value is wrong.
        """
        self.path, self.classes, self.prefix = Path(path), tuple(classes), prefix
        try:
            if self.path.is_dir():
                self._found = self._lines(_folder_lines(self.path))
            else:
                self._found = self._file(self.path.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeError) as error:
            raise DataError(f"{path} can not be read ({error}); a file of detections is needed") from error
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise DataError(
                f"{path} holds no detections that can be read ({type(error).__name__}: {error}); docs/composition.md "
                "shows the forms"
            ) from error
        self.knows_colors = any(
            each.color is not None
            for classes_found in self._found.values()
            for all_of in classes_found.values()
            for each in all_of
        )

    def _file(self, text: str) -> dict[str, dict[str, list[Detection]]]:
        try:
            whole = json.loads(text)
        except ValueError:
            whole = None
        if isinstance(whole, dict) and "annotations" in whole:
            return _coco(whole)
        return self._lines([json.loads(line) for line in text.splitlines() if line.strip()])

    def _lines(self, lines: list[dict[str, Any]]) -> dict[str, dict[str, list[Detection]]]:
        found: dict[str, dict[str, list[Detection]]] = {}
        for line in lines:
            if line["file_name"] in found:
                raise ValueError(f"{line['file_name']} has two lines")
            here = found.setdefault(line["file_name"], {})
            colors = line.get("colors") or [None] * len(line["labels"])
            for label, score, box, color in zip(line["labels"], line["scores"], line["bboxes"], colors, strict=True):
                if isinstance(label, int) and not 0 <= label < len(self.classes):
                    raise ValueError(f"label {label} is no place among {len(self.classes)} classes; name the classes")
                name = self.classes[label] if isinstance(label, int) else str(label)
                one = Detection(Box(*map(float, box)), float(score), color=None if color is None else str(color))
                here.setdefault(name, []).append(one)
        return found

    def detect(self, image: Image.Image, classes: Sequence[str], record: ImageRecord | None = None) -> Detections:
        """Look a picture up.

        Raises:
            DataError: If the file has nothing of it.
        """
        name = self.prefix + (record.file_name if record is not None else "")
        found = self._found.get(_stem(name) if self.path.is_dir() else name)
        if found is None:
            raise DataError(f"{self.path}: no detections of {name!r}; a picture without objects has empty lists")
        return found | {
            asked: found[there]
            for there, asked in ALIASES.items()
            if asked in classes and asked not in found and there in found
        }

    def info(self) -> dict[str, Any]:
        """Name the file by its content."""
        files = sorted(self.path.rglob("*.json")) if self.path.is_dir() else [self.path]
        digest = hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()
        return {"detector": "results", "file": self.path.name, "sha256": digest, "classes": list(self.classes)}


def _folder_lines(folder: Path) -> list[dict[str, Any]]:
    """Read a folder of one file a picture."""
    files = sorted(folder.rglob("*.json"))
    if not files:
        raise ValueError("there is no .json file in it")
    found = []
    for file in files:
        value = json.loads(file.read_text(encoding="utf-8-sig"))
        found.append({**value, "file_name": _stem(file.relative_to(folder).as_posix())})
    return found


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _coco(whole: Mapping[str, Any]) -> dict[str, dict[str, list[Detection]]]:
    files = {each["id"]: each["file_name"] for each in whole["images"]}
    names = {each["id"]: each["name"] for each in whole["categories"]}
    found: dict[str, dict[str, list[Detection]]] = {name: {} for name in files.values()}
    for each in whole["annotations"]:
        x, y, width, height = map(float, each["bbox"])
        one = Detection(Box(x, y, x + width, y + height), float(each["score"]))
        found[files[each["image_id"]]].setdefault(names[each["category_id"]], []).append(one)
    return found


class OracleDetector:
    """The mini-world's oracle: shapes are classes, and it knows their colours. What it cannot read holds nothing."""

    def detect(self, image: Image.Image, classes: Sequence[str], record: ImageRecord | None = None) -> Detections:
        """Read a picture of the mini-world; the score is the oracle's readability, 1."""
        from t2ialign.mini.oracle import read
        from t2ialign.mini.world import SIZE

        reading = read(image)
        if reading.spec is None:
            return {}
        wide, high = image.width / SIZE, image.height / SIZE
        found: dict[str, list[Detection]] = {}
        for thing in reading.spec.things:
            x, y, r = thing.x, thing.y, thing.radius
            box = Box((x - r) * wide, (y - r) * high, (x + r) * wide, (y + r) * high)
            found.setdefault(thing.shape, []).append(Detection(box, 1.0, color=thing.color))
        return found

    def info(self) -> dict[str, Any]:
        """Say who reads."""
        return {"detector": "mini-world oracle"}
