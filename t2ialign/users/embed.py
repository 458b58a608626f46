"""Embedding users: from a set of pairs to embeddings in memory, or to a folder with a file for each user.

Law: a user's embedding depends on the seed, the extractor and that user's pairs; a folder is continued where it
stopped, and nothing in it is replaced.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from t2ialign.errors import DataError, Stopped
from t2ialign.users.files import UserEmbedding, load_user, save_user
from t2ialign.users.shots import ShotChoice, ShotSettings, choose_shots, pair_id, user_rows

if TYPE_CHECKING:
    from t2ialign.data.pairs import PairDataset
    from t2ialign.users.extractors import Extractor

logger = logging.getLogger(__name__)

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def embed_users(
    pairs: PairDataset,
    extractor: Extractor,
    settings: ShotSettings | None = None,
    *,
    users: Iterable[str] | None = None,
    anonymous: str | None = None,
    spare: int = 0,
    progress: bool = False,
) -> dict[str, UserEmbedding]:
    """Embed users from a few of their pairs.

    Args:
        pairs: The set.
        extractor: See `extractors.load_extractor`.
        settings: How many shots, embeddings, and which pool; see `shots.ShotSettings`.
        users: Only these; all of them by default.
        anonymous: The user of all pairs, where the set names no user at all.
        spare: Different pairs that must be left over; 1 where the rest is to be trained on.
        progress: Show a progress bar.

    Returns:
        Embeddings by user. Users with too few pairs are left out, with a warning that counts them.

    Raises:
        DataError: If nobody has pairs enough, a user of `users` is not in the set, or a picture can not be read.
    """
    choice = choose_shots(pairs, settings, users=users, anonymous=anonymous, spare=spare)
    if not choice.rows:
        raise choice.nobody(pairs.name)
    return dict(_embedded(pairs, extractor, choice.rows, progress))


def embed_into(
    folder: Path | str,
    pairs: PairDataset,
    extractor: Extractor,
    settings: ShotSettings | None = None,
    *,
    users: Iterable[str] | None = None,
    anonymous: str | None = None,
    spare: int = 0,
    any_shots: bool = False,
    progress: bool = False,
    between: Callable[[], object] | None = None,
) -> dict[str, UserEmbedding]:
    """Embed the users that have no file in a folder yet, and write a file for each as soon as it is made.

    Args:
        folder: Of the files, see `user_file`; it is made if it is not there.
        pairs: The set.
        extractor: As for `embed_users`, and so are the next four.
        settings: How many shots, embeddings, and which pool.
        users: Only these.
        anonymous: The user of all pairs, where the set names no user at all.
        spare: Different pairs that must be left over.
        any_shots: Take files of the same extractor as they are, whatever their shots; otherwise a file must be of the
            shots that would be chosen now.
        progress: Show a progress bar.
        between: Called before each embedding; what it raises ends the work, and files that are made stay.

    Returns:
        Embeddings by user, read and made, in the order of the set. With `any_shots`, users whose file is there are in
        it even where the set has too few pairs of theirs.

    Raises:
        DataError: As `embed_users`; or if a file is another user's, of another extractor or of other shots.
    """
    known = list(user_rows(pairs, anonymous)) if users is None else list(users)
    paths = {user: user_file(folder, user) for user in known}
    kept = _kept(paths, extractor.name)
    open_ones = [user for user in known if not (any_shots and user in kept)]
    choice = choose_shots(pairs, settings, users=open_ones, anonymous=anonymous, spare=spare)
    if not any_shots:
        _check_shots(paths, kept, pairs, choice)
    rows = {user: shots for user, shots in choice.rows.items() if user not in kept}
    if not rows and not kept:
        raise choice.nobody(pairs.name)
    both = dict(kept)
    try:
        for user, embedding in _embedded(pairs, extractor, rows, progress, between):
            save_user(embedding, paths[user])
            both[user] = embedding
    except Stopped as stop:
        there = f"{len(both)} of {len(kept) + len(rows)} users have a file in {folder}"
        raise Stopped(stop.number, f"{there}; the same command goes on") from None
    logger.info("%s: %d users embedded, %d were there", folder, len(rows), len(kept))
    return {user: both[user] for user in known if user in both}


def embed_one(
    path: Path | str,
    pairs: PairDataset,
    extractor: Extractor,
    settings: ShotSettings | None = None,
    *,
    user: str,
    anonymous: str | None = None,
    between: Callable[[], object] | None = None,
) -> UserEmbedding:
    """Embed one user into a file; one that is there is kept if it is what would be made.

    Args:
        path: Of the file, `*.safetensors`.
        pairs: The set.
        extractor: As for `embed_users`, and so are the next three.
        settings: How many shots, embeddings, and which pool.
        user: Whom.
        anonymous: The user of all pairs, where the set names no user at all.
        between: As for `embed_into`.

    Raises:
        DataError: As `embed_users`; or if the file is another user's, of another extractor or of other shots.
    """
    paths = {user: Path(path).expanduser()}
    kept = _kept(paths, extractor.name)
    choice = choose_shots(pairs, settings, users=[user], anonymous=anonymous)
    if kept:
        _check_shots(paths, kept, pairs, choice)
        return kept[user]
    if not choice.rows:
        raise choice.nobody(pairs.name)
    embedding = dict(_embedded(pairs, extractor, choice.rows, False, between))[user]
    save_user(embedding, paths[user])
    return embedding


def user_file(folder: Path | str, user_id: str) -> Path:
    """Return where a user's file lies in a folder of users.

    An id of up to 100 letters (of ASCII), digits, `_`, `-` and `.`, that does not begin with `-` or `.`, is the name;
    of others, the rest becomes `_` and a digest of the id makes the name its own.
    """
    name = user_id
    if not _PLAIN_NAME.fullmatch(user_id):
        readable = re.sub(r"[^A-Za-z0-9_]+", "_", user_id)[:60] or "_"
        name = f"{readable}-{hashlib.sha256(user_id.encode()).hexdigest()[:12]}"
    return Path(folder).expanduser() / f"{name}.safetensors"


def _embedded(
    pairs: PairDataset,
    extractor: Extractor,
    rows: Mapping[str, tuple[tuple[int, ...], ...]],
    progress: bool,
    between: Callable[[], object] | None = None,
) -> Iterator[tuple[str, UserEmbedding]]:
    from tqdm import tqdm

    for user, sets in tqdm(rows.items(), desc="embedding users", unit="user", disable=None if progress else True):
        shots = {row: pairs[row] for row in sorted({row for each in sets for row in each})}
        found = []
        for each in sets:
            if between is not None:
                between()
            try:
                found.append(extractor.extract([shots[row] for row in each]))
            except DataError as error:
                raise DataError(f"user {user!r} of {pairs.name}: {error}") from error
        yield user, UserEmbedding(user, torch.stack(found), extractor.name, _ids(pairs, sets), _set_name(pairs.name))


def _ids(pairs: PairDataset, sets: Iterable[tuple[int, ...]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(pair_id(pairs, row) for row in each) for each in sets)


def _set_name(name: str) -> str:
    """Name a set without saying where it lies on this machine."""
    source, bracket, split = name.rpartition("[")
    path = Path(source).expanduser()
    return f"{path.resolve().name}{bracket}{split}" if path.exists() else name


def _kept(paths: Mapping[str, Path], extractor: str) -> dict[str, UserEmbedding]:
    """Read the files that are there, and refuse another user's and another extractor's."""
    kept = {user: load_user(path) for user, path in paths.items() if path.is_file()}
    for user, embedding in kept.items():
        if embedding.user_id != user:
            raise DataError(
                f"{paths[user]} is the file of the user {embedding.user_id!r}, not of {user!r}; choose another name"
            )
        if embedding.extractor != extractor:
            raise DataError(
                f"{paths[user]} was made by {embedding.extractor}, not by {extractor}; take that extractor, or "
                "another name"
            )
    return kept


def _check_shots(
    paths: Mapping[str, Path], kept: Mapping[str, UserEmbedding], pairs: PairDataset, choice: ShotChoice
) -> None:
    """Refuse files whose shots are not those that would be chosen."""
    for user, embedding in kept.items():
        wanted = _ids(pairs, choice.rows.get(user, ()))
        if embedding.shots == wanted:
            continue
        had = f"{len(embedding.shots)} x {len(embedding.shots[0])} shots of {embedding.pairs}"
        now = f"{len(wanted)} x {len(wanted[0])} others" if wanted else "none, for the user has too few pairs"
        raise DataError(
            f"{paths[user]} was made from {had} and would now be made from {now} (another seed, pool or set); give "
            "the same options or another name, or remove the file"
        )
