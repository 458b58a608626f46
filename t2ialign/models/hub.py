"""Hub: publishing a run's `final/`.

Law: what goes up is staged in a folder first and can be looked at: weights, configurations, the card; no pickles, no
checkpoints, no local paths. The token comes from the environment or `hf auth login`, never from an option.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from t2ialign.errors import ModelError
from t2ialign.models.record import FILE_NAME
from t2ialign.models.saving import CONFIG_NAMES, scrub_json

_SUFFIXES = (".safetensors", ".json", ".md", ".txt", ".model", ".png", ".jpg", ".webp")
_CLEANED = (*CONFIG_NAMES, FILE_NAME, "report.json")


def stage(directory: Path | str, target: Path | str) -> list[str]:
    """Makes the folder that `push` uploads.

    Files of known harmless kinds are linked or copied; hidden ones, pickles and temporary ones are left out; local
    paths in configurations are reduced to their last part.

    Args:
        directory: A run's `final/`.
        target: An empty or new folder.

    Returns:
        The staged files, relative, sorted.

    Raises:
        ModelError: `directory` has no card or no weights.
    """
    directory, target = Path(directory), Path(target)
    staged = []
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory)
        hidden = any(part.startswith(".") for part in name.parts)
        if hidden or not path.is_file() or path.is_symlink() or path.suffix not in _SUFFIXES:
            continue
        _place(path, target / name)
        staged.append(name.as_posix())
    if "README.md" not in staged or not any(name.endswith(".safetensors") for name in staged):
        raise ModelError(
            f"{directory} is no finished run: it needs README.md and safetensors weights; push its final/"
        )
    return staged


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.name in _CLEANED:
        shutil.copyfile(source, target)
        scrub_json(target)
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def push(
    directory: Path | str,
    repo_id: str,
    *,
    private: bool = True,
    revision: str | None = None,
    message: str | None = None,
) -> str:
    """Uploads a run's `final/` to the hub.

    Args:
        directory: A run's `final/`.
        repo_id: `owner/name`; made if it is not there.
        private: Whether a new repository is private.
        revision: Branch to upload to; the default one if None.
        message: Message of the commit.

    Returns:
        The address of the commit.

    Raises:
        ModelError: The folder is no finished run, nobody is logged in, or the hub refuses.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    with tempfile.TemporaryDirectory(prefix="t2ialign-push-") as folder:
        stage(directory, folder)
        if get_token() is None:
            raise ModelError(f"cannot push to {repo_id!r}: nobody is logged in; set HF_TOKEN or run `hf auth login`")
        api = HfApi()
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                revision=revision,
                commit_message=message or "Upload a model trained with t2ialign",
            )
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise ModelError(f"cannot push to {repo_id!r}: {str(error).splitlines()[0]}") from error
    return str(commit.commit_url)
