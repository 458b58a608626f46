"""Shots: which pairs of a user make the embedding, and which are left to train on.

Law: the choice is a function of the seed, the user and the user's pairs in their order, and of no other user; no pair
is both shot and training pair of one user, wherever it stands and however often; and that is checked by what the pair
is, not by its number.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from t2ialign.data.columns import TIE
from t2ialign.data.pairs import PairDataset
from t2ialign.errors import ConfigError, DataError
from t2ialign.users.files import UserEmbedding

logger = logging.getLogger(__name__)

SHOTS = 4
"""Pairs that an embedding is made from (PPD, arXiv 2501.06655, and its official code)."""

_PROMPT_DIGITS = 8
"""The first digits of a pair's id are those of its prompt, so that pictures are read only where prompts agree."""


@dataclass(frozen=True)
class ShotSettings:
    """How shots are chosen.

    Attributes:
        shots: Pairs that one embedding is made from.
        embeddings: Embeddings of a user, each of other shots; a user adapter that sees several learns the user and
            not the shots.
        pool: Pairs of a user that shots are drawn from, and that are lost to training; `shots` where it is `None`.
        seed: Seed of the choice.
    """

    shots: int = SHOTS
    embeddings: int = 1
    pool: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers below one, and more embeddings than the pool has sets of shots (ConfigError)."""
        for name in ("shots", "embeddings"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.size < self.shots:
            raise ConfigError(f"pool is {self.size}, less than the {self.shots} shots of an embedding; make it larger")
        if math.comb(self.size, self.shots) < self.embeddings:
            raise ConfigError(
                f"{self.embeddings} embeddings of {self.shots} different shots each can not be drawn from a pool of "
                f"{self.size} pairs; make it larger, for instance --pool {self.size + self.embeddings}"
            )

    @property
    def size(self) -> int:
        """Pairs in the pool."""
        return self.shots if self.pool is None else self.pool


@dataclass(frozen=True)
class ShotChoice:
    """Which pairs are shots.

    Attributes:
        rows: Of each user, in the order asked for, the positions of the shots of each embedding.
        too_few: Users without shots, and how many different pairs each of them has.
        need: How many a user needs, in words.
    """

    rows: dict[str, tuple[tuple[int, ...], ...]]
    too_few: dict[str, int]
    need: str

    def nobody(self, name: str) -> DataError:
        """Compose the error for the case that no user of a set has pairs enough."""
        user, count = max(self.too_few.items(), key=lambda item: item[1])
        who = f"{user!r} has {count}" if len(self.too_few) == 1 else f"the most is {count}, of {user!r}"
        return DataError(f"{name}: a user needs {self.need}; {who}: lower --shots or --pool, or add pairs")


@dataclass(frozen=True)
class TrainingRows:
    """Which pairs are left to train on.

    Attributes:
        rows: Their positions, in order.
        shots: Pairs left out because they are shots of their user.
        unembedded: Pairs left out because their user has no embedding.
        nobody: Pairs left out because they name no user.
    """

    rows: list[int]
    shots: int = 0
    unembedded: int = 0
    nobody: int = 0


def pair_id(pairs: PairDataset, index: int) -> str:
    """Name a pair by what it is: 32 hexadecimal digits of its prompt and its two encoded pictures.

    It does not depend on where the pair stands, in which split or copy of the set, who judged it, nor on which side
    was preferred: the same question asked again is the same pair, whatever the answer. Pictures that were encoded
    anew, in another format for instance, make another pair.

    Args:
        pairs: The set.
        index: Position in it.

    Raises:
        DataError: If a picture can not be read.
    """
    sides = sorted(hashlib.sha256(pairs.encoded(index, side)).digest() for side in ("chosen", "rejected"))
    return _prompt_digits(pairs.prompts[index]) + hashlib.sha256(b"".join(sides)).hexdigest()[: 32 - _PROMPT_DIGITS]


@lru_cache(maxsize=1 << 16)
def _prompt_digits(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()[:_PROMPT_DIGITS]


def user_rows(pairs: PairDataset, anonymous: str | None = None) -> dict[str, list[int]]:
    """Return the positions of each user's pairs, in order; users in the order in which they come.

    Args:
        pairs: The set.
        anonymous: The user of all pairs, where the set names no user at all.

    Raises:
        DataError: If no pair names a user and `anonymous` is not given.
    """
    rows: dict[str, list[int]] = {}
    for position, user in enumerate(pairs.column("user_id")):
        if user is not None:
            rows.setdefault(user, []).append(position)
    if not rows and anonymous is not None:
        return {anonymous: list(range(len(pairs)))}
    if not rows:
        raise DataError(f"{pairs.name} does not say who judged its pairs; add a column user_id")
    return rows


def choose_shots(
    pairs: PairDataset,
    settings: ShotSettings | None = None,
    *,
    users: Iterable[str] | None = None,
    anonymous: str | None = None,
    spare: int = 0,
) -> ShotChoice:
    """Choose the shots of each user.

    A user's different pairs (ties aside) are put in an order drawn from (seed, user); the first `pool` of them are
    the pool. It is shuffled and cut into sets of `shots`, as often as it takes to get `embeddings` different sets: so
    every pair of the pool is used about equally often, and where the pool is large enough, no pair twice.

    Args:
        pairs: The set.
        settings: How many.
        users: Only these, in this order; all of them by default.
        anonymous: See `user_rows`.
        spare: Different pairs that must be left over besides; 1 where the rest is to be trained on.

    Returns:
        The choice; users with too few pairs are left out, counted, and warned of (unless that is everybody).

    Raises:
        DataError: If the set names no users, or a user named in `users` is not in it.
    """
    settings = settings or ShotSettings()
    known = user_rows(pairs, anonymous)
    wanted = list(known if users is None else users)
    if missing := [user for user in wanted if user not in known]:
        raise DataError(f"{pairs.name} has no user {missing[0]!r}; it has {shortened(known)}")
    tied = [value == TIE for value in pairs.column("preference_prob")]
    rows: dict[str, tuple[tuple[int, ...], ...]] = {}
    too_few: dict[str, int] = {}
    for user in wanted:
        rng = _generator(settings.seed, user)
        different = _different(pairs, [row for row in known[user] if not tied[row]], settings.size + spare, rng)
        if len(different) < settings.size + spare:
            too_few[user] = len(different)
        else:
            rows[user] = _draw(different[: settings.size], settings, rng)
    need = f"{settings.size} different pairs for shots" + (f" and {spare} to train on" if spare else "")
    if rows and too_few:
        logger.warning(
            "%s: %d users have no %s, and get no embedding: %s", pairs.name, len(too_few), need, shortened(too_few)
        )
    return ShotChoice(rows, too_few, need)


def shortened(names: Iterable[str], most: int = 8) -> str:
    """List names, and only how many more where there are many."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _generator(seed: int, user: str) -> np.random.Generator:
    digest = hashlib.sha256(f"t2ialign/shots/{seed}/{user}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def _different(pairs: PairDataset, rows: list[int], most: int, rng: np.random.Generator) -> list[int]:
    """Return up to `most` of the rows in random order, none of which is the same pair as another."""
    found: dict[str, int] = {}
    for position in rng.permutation(len(rows)):
        if len(found) == most:
            break
        found.setdefault(pair_id(pairs, rows[int(position)]), rows[int(position)])
    return list(found.values())


def _draw(pool: list[int], settings: ShotSettings, rng: np.random.Generator) -> tuple[tuple[int, ...], ...]:
    drawn: dict[frozenset[int], tuple[int, ...]] = {}
    order = pool
    while len(drawn) < settings.embeddings:
        for start in range(0, len(order) - settings.shots + 1, settings.shots):
            shots = tuple(order[start : start + settings.shots])
            if len(drawn) < settings.embeddings:
                drawn.setdefault(frozenset(shots), shots)
        order = [pool[int(position)] for position in rng.permutation(len(pool))]
    return tuple(drawn.values())


def training_rows(pairs: PairDataset, users: Mapping[str, UserEmbedding]) -> TrainingRows:
    """Find the pairs to train on: their user has an embedding, and they are none of that user's shots.

    Pictures are read only of pairs whose prompt is that of a shot.

    Args:
        pairs: The set.
        users: Embeddings by user.

    Raises:
        DataError: If the set names no users, all pairs of an embedded user are shots, or no pair is left.
    """
    counts: Counter[str] = Counter()
    rows: list[int] = []
    left: Counter[str] = Counter()
    shots = _Shots(users)
    for position, user in enumerate(pairs.column("user_id")):
        if user is None:
            counts["nobody"] += 1
        elif user not in users:
            counts["unembedded"] += 1
        elif shots.holds(pairs, position, user):
            counts["shots"] += 1
            left[user] += 0
        else:
            rows.append(position)
            left[user] += 1
    if bare := [user for user, count in left.items() if not count]:
        raise DataError(
            f"{pairs.name}: every pair of the user {bare[0]!r} is one of the shots of the embedding, so none is left "
            "to train on; embed with fewer shots or a smaller pool, or leave the user out"
        )
    if not rows:
        raise DataError(f"{pairs.name} has no pair of an embedded user; embedded are {shortened(users) or 'none'}")
    return TrainingRows(rows, counts["shots"], counts["unembedded"], counts["nobody"])


def assert_disjoint(pairs: PairDataset, users: Mapping[str, UserEmbedding]) -> None:
    """Check that no pair of the set is one of its user's shots.

    Raises:
        DataError: If one is; it names the user and the row.
    """
    shots = _Shots(users)
    for position, user in enumerate(pairs.column("user_id")):
        if user is not None and shots.holds(pairs, position, user):
            raise DataError(
                f"{pairs.name} row {pairs.row(position)} is one of the shots that the embedding of its user {user!r} "
                "was made from; train on the pairs that are left (`training_rows`)"
            )


class _Shots:
    """The shots of each user, to look up whether a pair is among them."""

    def __init__(self, users: Mapping[str, UserEmbedding]) -> None:
        self._ids = {user: embedding.all_shots for user, embedding in users.items()}
        self._prompts = {user: {name[:_PROMPT_DIGITS] for name in ids} for user, ids in self._ids.items()}

    def holds(self, pairs: PairDataset, position: int, user: str) -> bool:
        """Whether the pair at this position is one of this user's shots."""
        prompts = self._prompts.get(user, ())
        return _prompt_digits(pairs.prompts[position]) in prompts and pair_id(pairs, position) in self._ids[user]
