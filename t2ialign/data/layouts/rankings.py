"""Pictures that people ranked, prompt by prompt: ImageRewardDB's and HPDv2's test sets, to be scored like any set.

    PROMPTS     [{"id", "prompt", "generations": [path, ...], "ranking": [1, 2, 5, 3]}, ...]     ImageReward
                [{"prompt", "image_path": [path, ...], "rank": [...]}, ...]                      HPDv2
    ROOT/path   a picture

Law of this file: it reads the pictures of a ranking as samples of its prompt, in the order of the file; what the ranks
say is `t2ialign.data.rankings`' business.
"""

from __future__ import annotations

from pathlib import Path

from t2ialign.data.image_sets import ImageRecord
from t2ialign.data.rankings import read_rankings
from t2ialign.errors import DataError


def looks_so(root: Path, prompts: Path | None) -> bool:
    """Whether the file that is named holds rankings."""
    if prompts is None or prompts.suffix.lower() != ".json" or not prompts.is_file():
        return False
    try:
        return bool(read_rankings(prompts))
    except DataError:
        return False


def read(root: Path, prompts: Path | None) -> list[ImageRecord]:
    """Return a record for every ranked picture.

    Raises:
        DataError: If no file of rankings is named, or it can not be read.
    """
    if prompts is None:
        raise DataError(f"{root}: name the file with the rankings: --prompts test.json")
    return [
        ImageRecord(
            file_name,
            ranking.prompt_id,
            ranking.prompt,
            sample=number,
            set=prompts.stem,
            extra={"rank": ranking.ranks[number]},
        )
        for ranking in read_rankings(prompts)
        for number, file_name in enumerate(ranking.file_names)
    ]
