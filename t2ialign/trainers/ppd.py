"""PPD (arXiv 2501.06655): Diffusion-DPO with the user who chose as a further condition.

    z = kappa [ (r_w - e_w(u)) - (r_l - e_l(u)) ]

with u the user's embedding, made from a few pairs that are not trained on. Only the user adapter is trained (a
cross-attention to the user beside each one to the text); the reference is the model without a user, to which the
policy is equal at the first step, and for nobody always.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from t2ialign.data.pairs import PairDataset
from t2ialign.engine.config import known
from t2ialign.engine.launch import Launch
from t2ialign.engine.randomness import Draws, Stream
from t2ialign.engine.task import StopRequested
from t2ialign.models.conditioning import Conditioning
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.models.reference import make_reference
from t2ialign.models.user_adapter import add_user_adapter
from t2ialign.trainers.dpo import PairTrainer
from t2ialign.trainers.examples import Batch, Users
from t2ialign.trainers.outputs import write_samples
from t2ialign.trainers.ppd_config import PPDConfig
from t2ialign.trainers.preference import PreferenceTask
from t2ialign.trainers.task import Autocast
from t2ialign.users.embed import embed_into, embed_users
from t2ialign.users.extractors import load_extractor
from t2ialign.users.files import UserEmbedding
from t2ialign.users.shots import ShotSettings, assert_disjoint, choose_shots, training_rows, user_rows

logger = logging.getLogger(__name__)

USERS = "users"
"""Folder of the users' files in that of the run, unless they have another."""


class PairUsers(Users):
    """The user of each pair, by one of that user's embeddings.

    Args:
        pairs: Each of a user in `users`.
        users: Embeddings by user.
        dropout: Chance of nobody.
    """

    def __init__(self, pairs: PairDataset, users: Mapping[str, UserEmbedding], dropout: float) -> None:
        self._ids = [str(user) for user in pairs.column("user_id")]
        self._tokens = {user: embedding.tokens for user, embedding in users.items()}
        self._dropout = dropout

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits of all embeddings."""
        digest = hashlib.sha256()
        for user, tokens in sorted(self._tokens.items()):
            digest.update(f"{user} {tuple(tokens.shape)}\n".encode() + tokens.contiguous().numpy().tobytes())
        return digest.hexdigest()[:32]

    def read(self, index: int, draws: Draws) -> Tensor:
        """Return one of the embeddings of the pair's user, `[T, D]`, or zeros where the draw leaves the user out."""
        tokens = self._tokens[self._ids[index]]
        if draws.chance(Stream.USER, self._dropout):
            return torch.zeros_like(tokens[0])
        return tokens[draws.integer(Stream.USER_EMBEDDING, len(tokens))]


class PPDTask(PreferenceTask):
    """Pairs of known users as a task of the engine.

    Args:
        model: As loaded; its UNet gets a user adapter.
        pairs: What to train on, none of them a shot of its user.
        users: An embedding of the user of every pair.
        config: Options with every value known.
        more: The other arguments of `PreferenceTask`.

    Raises:
        DataError: if a pair is one of its user's shots.
    """

    def __init__(
        self,
        model: DiffusionModel,
        pairs: PairDataset,
        users: Mapping[str, UserEmbedding],
        *,
        config: PPDConfig,
        **more: Any,
    ) -> None:
        assert_disjoint(pairs, users)
        self.users = dict(users)
        self._embedding = next(iter(self.users.values()))
        super().__init__(model, pairs, config=config, **more)
        self.examples.users = PairUsers(pairs, users, config.user_dropout)

    def _make_trainable(self, needs_reference: bool) -> None:
        _, tokens, width = self._embedding.tokens.shape
        extractor = self._embedding.extractor
        add_user_adapter(self.model, width=width, tokens=tokens, seed=self.config.seed, extractor=extractor)
        if needs_reference:
            self.reference = make_reference(self.model)

    @property
    def prepared(self) -> frozenset[str]:
        """The users' folder in that of the run."""
        return PPDTrainer.prepared

    def condition(self, batch: Batch) -> Conditioning:
        """Return the conditioning of both sides, 2B rows, chosen first, with the user of each."""
        text = super().condition(batch)
        return text if batch.user is None else text.with_user(batch.user.repeat(batch.sides, 1, 1))

    def write_samples(self, file: Path, stop: StopRequested) -> None:
        """Draw the sample prompts into one PNG, each for another of the users."""
        prompts = self.sample_prompts()
        everyone = [embedding.mean() for embedding in self.users.values()]
        users = [everyone[number % len(everyone)] for number in range(len(prompts))]
        write_samples(self.model, prompts, file, seed=self.config.seed, stop=stop, users=users)


class PPDTrainer(PairTrainer[PPDConfig]):
    """Trains with PPD; `PPDTrainer(PPDConfig(model=..., pairs=..., output_dir=...)).train()`."""

    algorithm = "ppd"
    prepared = frozenset({USERS})

    def build(self, model: DiffusionModel, data: PairDataset, autocast: Autocast) -> PPDTask:
        """Embed the users who have no file yet, and put model, users and the pairs that are left together."""
        users = self.embed(data, model.device)
        left = training_rows(data, users)
        logger.info(
            "%d users, %d pairs to train on; left out: %d shots, %d of users without an embedding, %d of nobody",
            len(users),
            len(left.rows),
            left.shots,
            left.unembedded,
            left.nobody,
        )
        pairs = data.select(left.rows)
        task = PPDTask(model, pairs, users, config=self.config, autocast=autocast, **self.parts(pairs))
        task.notes["users"] = {
            "count": len(users),
            "extractor": next(iter(users.values())).extractor,
            "pairs_used_as_shots": left.shots,
            "pairs_of_users_without_embedding": left.unembedded,
            "pairs_of_nobody": left.nobody,
        }
        return task

    def check_data(self, data: PairDataset) -> None:
        """Refuse pairs that name no user, and what any objective refuses."""
        user_rows(data)
        super().check_data(data)

    def embed(self, pairs: PairDataset, device: torch.device) -> dict[str, UserEmbedding]:
        """Return an embedding of each user who has pairs enough; files are made by the first process alone.

        An estimate writes nothing and looks at one user, whose embedding stands for all.
        """
        config = self.config
        extractor = load_extractor(known(config.extractor, "extractor"), str(device))
        settings = ShotSettings(config.shots, known(config.embeddings, "embeddings"), config.shot_pool, config.seed)
        if config.estimate:
            chosen = choose_shots(pairs, settings, spare=1)
            one = embed_users(pairs, extractor, settings, users=list(chosen.rows)[:1], spare=1)
            return dict.fromkeys(chosen.rows, *one.values())
        folder = Path(config.output_dir) / USERS if config.users is None else config.users
        with Launch() as launch, launch.first_goes_first():
            first = launch.rank == 0
            return embed_into(
                folder, pairs, extractor, settings, spare=1, any_shots=True, progress=first, between=launch.check
            )


def train(config: PPDConfig) -> dict[str, Any]:
    """Run `t2ialign train ppd` and return what `report.json` holds."""
    return PPDTrainer(config).train()
