"""Problems: what other libraries say when a model cannot be loaded, turned into one line with its mend.

Law: nothing is loaded here; an error goes in and a text for a `ModelError` comes out.
"""

from __future__ import annotations

from pickle import UnpicklingError


def hub_problem(name: str, revision: str | None, error: Exception, *, kind: str, lacking: str = "") -> str:
    """What went wrong with a hub id and how to mend it, in one line, with the command that downloads it.

    Args:
        name: The hub id.
        revision: Branch, tag or commit that was asked for.
        error: What the library raised; its causes are looked at too.
        kind: What the repository should have been, for instance `"diffusers pipeline"`.
        lacking: What to do where the repository is there but lacks a file; a part of a sentence.
    """
    command = download_command(name, revision)
    kinds = {kind.__name__ for cause in _chain(error) for kind in type(cause).__mro__}
    if "GatedRepoError" in kinds:
        return f"model {name!r} is gated: accept its terms on the hub, run `hf auth login`, then `{command}`"
    if "RevisionNotFoundError" in kinds:
        return f"model {name!r} has no revision {revision!r}: check it on the hub"
    if "RepositoryNotFoundError" in kinds:
        return (
            f"no model {name!r} on the hub (or it is private and you are not logged in: `hf auth login`), nor a folder"
        )
    if "EntryNotFoundError" in kinds and "LocalEntryNotFoundError" not in kinds:
        return f"{name!r} on the hub is no {kind} ({short(error)})" + (f": {lacking}" if lacking else "")
    if "safetensors" in str(error):
        return f"model {name!r} has no safetensors weights of that variant: {short(error)}; choose another revision"
    reason = "HF_HUB_OFFLINE is set" if _off_line() else short(_chain(error)[-1])
    return (
        f"model {name!r} is neither a folder here nor in the hub's cache, and the hub cannot be reached ({reason}). "
        f"With a network, run `{command}`; off line, copy the cache (HF_HOME) from where you did"
    )


def download_command(name: str, revision: str | None = None) -> str:
    """The command that downloads a model into the hub's cache."""
    return f"hf download {name}" + (f" --revision {revision}" if revision else "")


def _off_line() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def loading_errors(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """What the libraries raise for weights that are missing, damaged, of another shape, or a pickle with code in it.

    Args:
        more: What else is taken for one.
    """
    from safetensors import SafetensorError

    return (OSError, ValueError, KeyError, RuntimeError, ImportError, UnpicklingError, SafetensorError, *more)


def short(error: BaseException) -> str:
    """The first line of an error, without its full stop, or its class where it says nothing.

    torch says of a pickle with code in it how to run that; this is not passed on.
    """
    if isinstance(error, UnpicklingError):
        return "it holds more than tensors, and opening it would run code that it names"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300].rstrip(".") if lines else type(error).__name__
