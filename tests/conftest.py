"""What every test gets: fixed seeds, few threads, no hub; and the fixtures that several rooms share."""

from __future__ import annotations

import atexit
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

_HUB_HOME = "T2IALIGN_TEST_HUB_HOME"
"""Set by the first process of a test run for those that it starts."""

# Before anything imports a Hugging Face library, for they read these once: an empty hub of our own, off line.
if _HUB_HOME not in os.environ:
    os.environ[_HUB_HOME] = tempfile.mkdtemp(prefix="t2ialign-tests-")
    atexit.register(shutil.rmtree, os.environ[_HUB_HOME], ignore_errors=True)
os.environ["HF_HOME"] = os.environ[_HUB_HOME]
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""

REAL_DATA = "T2IALIGN_REAL_DATA"
"""Environment variable that names a folder of real prompt files and pictures."""

settings.register_profile(
    "house", deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("house")


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> None:
    """One thread: tiny models are slower on more, and sums do not depend on the machine."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fixed_seeds() -> Iterator[None]:
    """Seed the global generators, and put back what a test could leave changed."""
    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real files that the environment names; skips where there is none."""
    folder = os.environ.get(REAL_DATA)
    if not folder:
        pytest.skip(f"{REAL_DATA} names no folder of real files")
    path = Path(folder).expanduser().resolve()
    if not path.is_dir():
        pytest.fail(f"{REAL_DATA} is {folder!r}, which is no folder")
    return path
