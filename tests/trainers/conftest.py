from __future__ import annotations

from pathlib import Path

import pytest

from helpers.pairs import colour_pairs
from t2ialign.data.pairs import PairDataset


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> PairDataset:
    """Eight pairs, red preferred to blue."""
    folder: Path = tmp_path_factory.mktemp("colours")
    return colour_pairs(folder / "pairs")


@pytest.fixture(scope="session")
def rich(tmp_path_factory: pytest.TempPathFactory) -> PairDataset:
    """Twelve pairs of two users with captions, margins, groups and scores."""
    folder: Path = tmp_path_factory.mktemp("rich")
    return colour_pairs(
        folder / "pairs",
        12,
        chosen_prompt=lambda n: f"a red picture {n % 4}",
        rejected_prompt=lambda n: f"a blue one, number {n % 5}",
        user_id=lambda n: "ann" if n % 2 else "bob",
        group=lambda n: f"group {n % 3}",
        margin=lambda n: 0.1 * (n * 5 % 12),
        preference_prob=lambda n: 0.6 + 0.03 * n,
        scores_chosen=lambda n: {"good": 1.0 + n, "fine": float(n % 3)},
        scores_rejected=lambda n: {"good": 0.5 * n, "fine": 1.0},
    )
