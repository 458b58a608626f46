"""Detections that are kept as they come, so that a stop costs a picture at most.

Law of this file: a file belongs to one detector as it describes itself; what stands in it of a picture is used only if
the picture is the same, byte for byte, and the same classes are asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.data.files import write_text
from t2ialign.eval.composition.detections import Detection, Detections, Detector
from t2ialign.eval.composition.position import Box

if TYPE_CHECKING:
    from PIL import Image

    from t2ialign.data.image_sets import ImageRecord


class KeptDetector:
    """A detector, and a file of lines in which its boxes are kept. Masks are not kept."""

    def __init__(self, detector: Detector, folder: Path, name: str) -> None:
        """Read what is there.

        Args:
            detector: Who finds objects; it must have no masks.
            folder: Of the file.
            name: Beginning of the file's name; a digest of `detector.info()`, without versions, follows.
        """
        self.detector = detector
        described = {key: value for key, value in detector.info().items() if key != "versions"}
        digest = hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()[:12]
        self.file = folder / f"{name}.{digest}.jsonl"
        self._found = self._read()

    def _read(self) -> dict[str, Detections]:
        """Read the lines; a torn last one is taken back, and so is one that cannot be read with all after it."""
        if not self.file.is_file():
            return {}
        whole = self.file.read_text(encoding="utf-8", errors="replace")
        found: dict[str, Detections] = {}
        kept = ""
        for text in whole.splitlines(keepends=True):
            try:
                line = json.loads(text) if text.endswith("\n") else {}
                found[line["mark"]] = {
                    name: [Detection(Box(*box[:4]), box[4], color=box[5]) for box in boxes]
                    for name, boxes in line["found"].items()
                }
            except (ValueError, KeyError, TypeError, IndexError, AttributeError):
                break
            kept += text
        if kept != whole:
            write_text(self.file, kept)
        return found

    def detect(self, image: Image.Image, classes: Sequence[str], record: ImageRecord | None = None) -> Detections:
        """Find objects, or remember what was found."""
        if record is None or not record.sha256:
            return self.detector.detect(image, classes, record)
        mark = f"{record.file_name} {record.sha256} {json.dumps(list(classes))}"
        if mark not in self._found:
            self._found[mark] = self.detector.detect(image, classes, record)
            self._append(mark, self._found[mark])
        return self._found[mark]

    def _append(self, mark: str, found: Detections) -> None:
        boxes = {name: [[*each.box, each.score, each.color] for each in all_of] for name, all_of in found.items()}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"mark": mark, "found": boxes}, ensure_ascii=False) + "\n")

    def info(self) -> dict[str, Any]:
        """Say what the detector says."""
        return self.detector.info()
