"""mini-SD, the embedded default: its world, its oracle, its weights and its preference pairs.

Law of this room: everything here works offline and from an installed wheel, and nothing imports
another room but `objectives` and `errors`.
"""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
"""Folder of the packaged weights and pairs."""

NAMES = ("mini-sd", "mini-clip", "mini-pickscore", "mini-pairs", "mini-user-pairs")


def resource(name: str) -> Path | None:
    """Return the packaged folder of that name, or `None` where the name is not ours.

    Args:
        name: For instance one of `NAMES`.

    Raises:
        FileNotFoundError: If the name is ours, but this installation lacks the folder.
    """
    if name not in NAMES:
        return None
    folder = ASSETS / name
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{name!r} is packaged with t2ialign, but {folder.name}/ is missing from this installation; "
            "install the wheel again, or build it with scripts/build_mini_sd.py"
        )
    return folder


__all__ = ["ASSETS", "NAMES", "resource"]
