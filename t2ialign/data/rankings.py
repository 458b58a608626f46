"""Rankings: prompts with several pictures each, which people put in order. Files of ImageReward and of HPDv2.

Law of this file: lower is better, ties and gaps are kept as they are; it reads names of pictures, never pictures.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2ialign.data.files import check_whole_characters
from t2ialign.data.layouts.base import prompt_hash
from t2ialign.errors import DataError


@dataclass(frozen=True)
class Ranking:
    """The pictures of one prompt in the order of people's preference.

    Attributes:
        prompt_id: Its id; for files without one, a hash of the prompt and the names of its pictures.
        prompt: The text.
        file_names: Paths of the pictures, [n], relative to the folder of the pictures.
        ranks: Rank of each, [n]; 1 is best, equal ranks are ties. HPDv2's are averages over annotators.
    """

    prompt_id: str
    prompt: str
    file_names: tuple[str, ...]
    ranks: tuple[float, ...]


def read_rankings(path: str | Path) -> list[Ranking]:
    """Read a file of rankings.

    Args:
        path: A JSON list, of ImageReward's form (`id`, `prompt`, `generations`, `ranking`) or of HPDv2's (`prompt`,
            `image_path`, `rank`).

    Returns:
        The rankings, in the order of the file.

    Raises:
        DataError: If the file can not be read, or an entry lacks something; the entry is named.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        entries = json.loads(text)
    except FileNotFoundError as error:
        raise DataError(f"there is no file of rankings {path}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a JSON file: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: a JSON list of rankings is needed")
    check_whole_characters(text, entries, path.name)
    rankings = [_ranking(entry, f"{path.name}, entry {number}") for number, entry in enumerate(entries)]
    for prompt_id, count in Counter(ranking.prompt_id for ranking in rankings).items():
        if count > 1:
            raise DataError(f"{path}: the id {prompt_id!r} stands {count} times; give each ranking its own")
    return rankings


def _ranking(entry: Any, where: str) -> Ranking:
    if not isinstance(entry, dict) or not isinstance(entry.get("prompt"), str):
        raise DataError(f"{where}: an object with a text 'prompt' is needed")
    names, ranks = (_either(entry, keys, where) for keys in (("generations", "image_path"), ("ranking", "rank")))
    if len(names) != len(ranks) or not names:
        raise DataError(f"{where}: {len(names)} pictures and {len(ranks)} ranks; give each picture a rank")
    if not all(isinstance(name, str) and name for name in names):
        raise DataError(f"{where}: a picture's path is missing")
    if not all(isinstance(r, int | float) and not isinstance(r, bool) and math.isfinite(r) for r in ranks):
        raise DataError(f"{where}: the ranks {ranks} are not all numbers")
    given = entry.get("id")
    prompt_id = str(given) if given is not None else prompt_hash("\n".join([entry["prompt"], *names]))
    return Ranking(prompt_id, entry["prompt"], tuple(names), tuple(map(float, ranks)))


def _either(entry: dict[str, Any], keys: tuple[str, str], where: str) -> list[Any]:
    for key in keys:
        if isinstance(entry.get(key), list):
            return list(entry[key])
    raise DataError(f"{where}: a list {keys[0]!r} (ImageReward) or {keys[1]!r} (HPDv2) is needed")
