"""Problems: what other libraries say when a pipeline cannot be loaded, turned into one line with its mend.

Law: nothing is loaded here; an error goes in and a text for a `ModelError` comes out.
"""

from __future__ import annotations

from t2ialign.problems import download_command, short
from t2ialign.problems import hub_problem as any_hub_problem


def hub_problem(name: str, revision: str | None, error: Exception) -> str:
    """What went wrong with a hub id and how to mend it, in one line, with the command that downloads it."""
    lacking = (
        f"choose one with model_index.json; a LoRA is named as a folder, after "
        f"`{download_command(name, revision)} --local-dir FOLDER`"
    )
    return any_hub_problem(name, revision, error, kind="diffusers pipeline", lacking=lacking)


__all__ = ["hub_problem", "short"]
