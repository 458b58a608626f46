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
