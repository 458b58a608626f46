"""Mixes: several users' embeddings, added up by weights.

Law: weights are used as they are given and never brought to a sum of one. `0.5` of one user alone is half as far from
nobody (zeros), and a negative weight leads away from a user.
"""

from __future__ import annotations

import math

from torch import Tensor

from t2ialign.errors import ConfigError, DataError
from t2ialign.users.files import UserEmbedding, load_user


def parse_mix(spec: str) -> list[tuple[str, float]]:
    """Read `FILE[:WEIGHT],FILE[:WEIGHT]`.

    Args:
        spec: For instance `users/alice.safetensors` or `a.safetensors:0.3,b.safetensors:0.7`. A weight that is not
            written is 1. A file's name may hold colons, but no commas.

    Returns:
        Files and weights, in the order given.

    Raises:
        ConfigError: If a file is missing, or a weight is no finite number.
    """
    return [_parse_part(part.strip(), spec) for part in spec.split(",")]


def _parse_part(part: str, spec: str) -> tuple[str, float]:
    path, colon, tail = part.rpartition(":")
    if not colon or part.endswith(".safetensors"):
        path, tail = part, "1"
    try:
        weight = float(tail)
    except ValueError:
        weight = math.nan
    if not path:
        raise ConfigError(f"user {spec!r}: a file is missing; write FILE:WEIGHT,FILE:WEIGHT")
    if not math.isfinite(weight):
        raise ConfigError(f"user {spec!r}: the weight {tail!r} is no finite number; write for instance {path}:0.5")
    return path, weight


def load_mix(spec: str) -> tuple[str, Tensor, str]:
    """Load one user, or several and add them up.

    Args:
        spec: See `parse_mix`.

    Returns:
        A label that names users and weights (`alice`, or `0.3 alice + 0.7 bob`); the sum over users of weight times
        mean embedding, `[T, D]` float32; and the extractor that made them all.

    Raises:
        ConfigError: If the spec can not be read.
        DataError: If a file can not, or if the users' extractors or shapes differ.
    """
    parts = [(load_user(path), path, weight) for path, weight in parse_mix(spec)]
    first, first_path, _ = parts[0]
    for user, path, _ in parts[1:]:
        _same_kind(first, first_path, user, path)
    label = " + ".join(f"{weight:g} {user.user_id}" for user, _, weight in parts)
    if len(parts) == 1 and parts[0][2] == 1.0:
        label = first.user_id
    mixed = sum((weight * user.mean() for user, _, weight in parts[1:]), parts[0][2] * first.mean())
    return label, mixed, first.extractor


def _same_kind(first: UserEmbedding, first_path: str, other: UserEmbedding, other_path: str) -> None:
    if first.extractor != other.extractor:
        raise DataError(
            f"{first_path} was made by {first.extractor} and {other_path} by {other.extractor}; "
            "only embeddings of one extractor can be mixed: make them again with the same one"
        )
    if first.tokens.shape[1:] != other.tokens.shape[1:]:
        raise DataError(
            f"{first_path} holds {list(first.tokens.shape[1:])} (tokens, width) and {other_path} "
            f"{list(other.tokens.shape[1:])}; only embeddings of one shape can be mixed: make them again"
        )
