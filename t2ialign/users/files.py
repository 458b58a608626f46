"""A user's embedding and its file.

A file `alice.safetensors` holds one tensor, `tokens` `[E, T, D]` float32, and in its metadata the JSON of everything
else: the user, the extractor that made it, and of each of the E embeddings the ids of the pairs it was made from.

Law: zeros stand for nobody; so every token of a user has a root mean square of about 1, whatever the extractor.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from t2ialign.data.files import written_aside
from t2ialign.errors import DataError

FORMAT = "t2ialign user 1"


@dataclass(frozen=True)
class UserEmbedding:
    """What a user likes.

    Attributes:
        user_id: Who.
        tokens: E embeddings of T vectors of width D, `[E, T, D]` float32; several embeddings are of different shots.
        extractor: What made it, with its settings, such as `clip:mini-clip`; an adapter accepts only the embeddings
            of the extractor that it was trained with.
        shots: Of each embedding the ids of its pairs (`embed.pair_id`).
        pairs: Name of the pair set that they were taken from.
    """

    user_id: str
    tokens: Tensor
    extractor: str
    shots: tuple[tuple[str, ...], ...]
    pairs: str

    def __post_init__(self) -> None:
        """Refuse tensors of another shape, without entries or with numbers that are not finite (DataError)."""
        if self.tokens.ndim != 3 or not self.tokens.numel():
            raise DataError(f"user {self.user_id!r}: tokens have the shape {tuple(self.tokens.shape)}, not [E, T, D]")
        if len(self.shots) != len(self.tokens):
            raise DataError(
                f"user {self.user_id!r}: {len(self.shots)} lists of shots for {len(self.tokens)} embeddings"
            )
        if not bool(torch.isfinite(self.tokens).all()):
            raise DataError(f"user {self.user_id!r}: the embedding holds numbers that are not finite; make it again")

    def mean(self) -> Tensor:
        """Return the mean of the embeddings, `[T, D]`: what pictures are drawn with."""
        return self.tokens.mean(dim=0)

    @property
    def all_shots(self) -> frozenset[str]:
        """The ids of all pairs that any of the embeddings was made from."""
        return frozenset(shot for shots in self.shots for shot in shots)


def save_user(user: UserEmbedding, path: Path | str) -> Path:
    """Write a user's file, at once or not at all; return its path.

    Raises:
        DataError: If the name does not end in `.safetensors`.
    """
    from safetensors.torch import save_file

    path = Path(path)
    if path.suffix != ".safetensors":
        raise DataError(f"{path}: a user's file ends in .safetensors")
    about = {
        "user_id": user.user_id,
        "extractor": user.extractor,
        "pairs": user.pairs,
        "shots": [list(shots) for shots in user.shots],
    }
    tensors = {"tokens": user.tokens.float().cpu().contiguous()}
    with written_aside(path) as aside:
        save_file(tensors, aside, metadata={"format": FORMAT, "user": json.dumps(about, ensure_ascii=False)})
    return path


def load_user(path: Path | str) -> UserEmbedding:
    """Read a user's file.

    Raises:
        DataError: If there is none, or it is none of ours.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path).expanduser()
    if not path.is_file():
        raise DataError(f"no user's file {path}; make one with `t2ialign users embed PAIRS --output {path}`")
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT:
                raise DataError(f"{path} is no user's file of t2ialign; make one with `t2ialign users embed`")
            known = json.loads(about["user"])
            tokens = file.get_tensor("tokens")
        shots = tuple(tuple(str(shot) for shot in shots) for shots in known["shots"])
        who, extractor, pairs = (str(known[name]) for name in ("user_id", "extractor", "pairs"))
        return UserEmbedding(who, tokens.float(), extractor, shots, pairs)
    except DataError as error:
        if str(path) in str(error):
            raise
        raise DataError(f"{path}: {error}") from error
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}: {error}); make it again") from error
