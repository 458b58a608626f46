"""The options of `t2ialign label`.

Law of this file: no heavy library is imported here, for the command line reads it to print its help.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from t2ialign.config import REQUIRED, option
from t2ialign.errors import ConfigError

LONGEST_USER = 100
"""Letters of a user's id."""


@dataclass
class LabelOptions:
    """What is shown to whom, and where the answers go."""

    images: str = option(
        REQUIRED, "An image set, or a set of pairs: a folder, mini-pairs, a hub dataset id.", positional=True
    )
    output_dir: Path = option(REQUIRED, "Folder of the pairs. Several people may label into one.")
    user: str = option("me", "Who labels; it becomes user_id.")
    question: str = option("Which picture is better?", "What the page asks.")
    aspect: str | None = option(None, "What is judged, for the column aspect; for instance aesthetic.")
    pairs_per_prompt: int | None = option(None, "Pairs asked of each prompt. Default: every two of its pictures.")
    limit: int | None = option(None, "Pairs asked in all. Default: all there are; stop when you like.")
    seed: int = option(0, "With the user it decides which pairs come first, and which picture is on the left.")
    split: str = option("train", "Split of a set of pairs.")
    revision: str | None = option(None, "Branch, tag or commit of a hub dataset.")
    port: int = option(0, "Port on 127.0.0.1; 0 for any that is free.")
    open: bool = option(False, "Also open the page in the browser.")

    def __post_init__(self) -> None:
        """Check ranges, and that the user can be named."""
        for name in ("pairs_per_prompt", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1")
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port is {self.port}; it must be from 0 to 65535 (0: any that is free)")
        if not self.user.strip() or len(self.user) > LONGEST_USER or not self.user.isprintable():
            raise ConfigError(f"user is {self.user!r}; give a name of 1 to {LONGEST_USER} printable letters")
        if not self.question.strip():
            raise ConfigError("question is empty; say what the person is asked")
