"""Who rates faithfulness and realism beside people: the mini-world's oracle, and what a judge said, kept in a file.

Law of this file: a rating that was not given is kept nowhere and asked for again; one that was given is never asked
for twice, for somebody may have paid for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.data.files import write_text

if TYPE_CHECKING:
    import torch

    from t2ialign.reward_models.base import ImageInput, RewardModel


class FlagRater:
    """The mini-world's oracle as a rater, from 1 to 5; an analogue by rule, no opinion.

    Faithfulness is `1 + 4 s` with the oracle's graded score s of the picture for its prompt: some 5 for the flag that
    is asked for, some 3 for another flag, 1 for what cannot be read. Realism is `1 + 4 c` with the confidence c of the
    reading whatever was asked for: how closely the picture is given back when what was read is drawn again; 1 for what
    cannot be read.
    """

    name, version, higher_is_better = "oracle", "v1", True

    def __init__(self, measure: str) -> None:
        """Take `"faithfulness"` or `"realism"`.

        Raises:
            ValueError: If it is neither.
        """
        if measure not in ("faithfulness", "realism"):
            raise ValueError(f"the oracle rates faithfulness and realism, not {measure!r}")
        self.measure = measure

    def score(self, prompts: Sequence[str], images: Sequence[ImageInput]) -> torch.Tensor:
        """Rate aligned pairs; float32 [B], 1 to 5."""
        import torch

        from t2ialign.mini.oracle import judge
        from t2ialign.reward_models.base import to_rgb

        found = []
        for prompt, image in zip(prompts, images, strict=True):
            verdict = judge(prompt, to_rgb(image))
            part = verdict.score if self.measure == "faithfulness" else verdict.reading.confidence
            found.append(1 + 4 * part)
        return torch.tensor(found)

    def info(self) -> dict[str, Any]:
        """Say what a rating is."""
        formula = {
            "faithfulness": "1 + 4 * the oracle's graded score for the prompt",
            "realism": "1 + 4 * the confidence of the oracle's reading, whatever the prompt",
        }
        return {"scorer": self.name, "measure": self.measure, "formula": formula[self.measure], "range": [1.0, 5.0]}

    def count_truncated(self, prompts: Sequence[str]) -> int:
        """Return 0: nothing is cut."""
        return 0

    def aggregate(self, scores: Sequence[float]) -> float:
        """Return the mean."""
        return sum(scores) / len(scores)


class KeptRater:
    """A rater, and a file of lines in which ratings are kept as they come, by picture and prompt."""

    higher_is_better = True

    def __init__(self, rater: RewardModel, file: Path) -> None:
        """Read what is there; lines of another version, and a torn last one, are passed over."""
        self.rater, self.file = rater, file
        self.name, self.version = rater.name, rater.version
        self._kept: dict[str, float] = {}
        if file.is_file():
            whole, kept = file.read_text(encoding="utf-8", errors="replace"), ""
            for text in whole.splitlines(keepends=True):
                try:
                    line = json.loads(text) if text.endswith("\n") else {}
                    if line["version"] == self.version:
                        self._kept[line["mark"]] = float(line["rating"])
                except (ValueError, KeyError, TypeError):
                    continue
                kept += text
            if kept != whole:
                write_text(file, kept)

    def score(self, prompts: Sequence[str], images: Sequence[ImageInput]) -> torch.Tensor:
        """Rate aligned pairs, asking only about those that have no rating yet; NaN where none was given."""
        import torch

        from t2ialign.reward_models.base import to_rgb

        pictures = [to_rgb(image) for image in images]
        marks = [_mark(prompt, picture) for prompt, picture in zip(prompts, pictures, strict=True)]
        left = [i for i, mark in enumerate(marks) if mark not in self._kept]
        if left:
            asked = self.rater.score([prompts[i] for i in left], [pictures[i] for i in left]).tolist()
            given = {marks[i]: value for i, value in zip(left, asked, strict=True) if not math.isnan(value)}
            lines = [{"mark": mark, "version": self.version, "rating": value} for mark, value in given.items()]
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf-8") as out:
                out.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
            self._kept |= given
        return torch.tensor([self._kept.get(mark, math.nan) for mark in marks])

    def info(self) -> dict[str, Any]:
        """Say what the rater says."""
        return self.rater.info()

    def count_truncated(self, prompts: Sequence[str]) -> int:
        """Ask the rater."""
        return self.rater.count_truncated(prompts)

    def aggregate(self, scores: Sequence[float]) -> float:
        """Ask the rater."""
        return self.rater.aggregate(scores)


def _mark(prompt: str, picture: Any) -> str:
    """Tell a picture and its prompt apart by their content."""
    import hashlib

    content = f"{prompt}\0{picture.size}\0".encode("utf-8", "surrogatepass") + picture.tobytes()
    return hashlib.sha256(content).hexdigest()
