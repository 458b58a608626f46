"""Which prompts are left out as unsafe: by a list of words, or by a column of the source.

Law of this file: where the filter can not tell, the pair is left out.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2ialign.errors import DataError

_SAFE_WORDS = {"", "0", "false", "no", "safe", "sfw", "none"}


@dataclass(frozen=True)
class UnsafeFilter:
    """Tells which prompts are left out.

    Attributes:
        pattern: Finds a listed word in a folded prompt; `None` without a list.
        column: Name of the column that says so; `None` without one.
    """

    pattern: re.Pattern[str] | None = None
    column: str | None = None

    @classmethod
    def load(cls, words: str | Path | None = None, column: str | None = None) -> UnsafeFilter:
        """Read a word list.

        Args:
            words: A UTF-8 file with a word or phrase a line; lines that begin with `#` are comments. Words are found
                whole, whatever their case or width: `ass` is not found in `class`.
            column: Name of a column.

        Raises:
            DataError: If the file can not be read or lists nothing.
        """
        if words is None:
            return cls(None, column)
        try:
            lines = Path(words).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"the word list {words} can not be read: {error}") from error
        listed = sorted({fold(line) for line in lines if line.strip() and not line.lstrip().startswith("#")})
        if not listed:
            raise DataError(f"the word list {words} lists no word; write one a line")
        either = "|".join(re.escape(word).replace(r"\ ", r"\s+") for word in listed)
        return cls(re.compile(rf"(?<!\w)(?:{either})(?!\w)"), column)

    def check_column(self, columns: list[str], where: str) -> None:
        """Refuse a source that lacks the column.

        Raises:
            DataError: If it is not among `columns`.
        """
        if self.column is not None and self.column not in columns:
            raise DataError(
                f"{where} has no column {self.column!r} to tell unsafe prompts by; it has {', '.join(columns)}"
            )

    def reason(self, prompt: object, row: Mapping[str, Any]) -> str | None:
        """Return why a pair is left out, or `None` where it stays.

        Args:
            prompt: Its prompt.
            row: The row of the source. Its column says unsafe by true, a number above 0.5, or a text other than no,
                false, 0, safe, sfw and none. An empty cell can not tell, so the pair is left out.
        """
        if self.pattern is not None and isinstance(prompt, str) and self.pattern.search(fold(prompt)):
            return "unsafe prompt (word list)"
        if self.column is None:
            return None
        value = row.get(self.column)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "unsafe column empty"
        unsafe = value > 0.5 if isinstance(value, bool | int | float) else fold(str(value)) not in _SAFE_WORDS
        return "unsafe prompt (column)" if unsafe else None


def fold(text: str) -> str:
    """Return a text without case, widths and outer blanks, for comparing."""
    return unicodedata.normalize("NFKC", text).casefold().strip()
