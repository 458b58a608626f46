"""User adapters on tiny models: fresh, or with weights as if trained; users to draw for; a run's folder.

Everything is a function of its arguments alone.
"""

from __future__ import annotations

from pathlib import Path

import torch

from helpers.tiny import tiny_pipeline
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.models.user_adapter import add_user_adapter, save_user_adapter, user_parameters
from t2ialign.users.files import UserEmbedding, save_user

WIDTH, TOKENS, EXTRACTOR = 6, 3, "tiny:1"


def with_adapter(
    family: str = "sd15", prediction_type: str | None = None, *, shaken: bool = True, name: str = "tiny"
) -> DiffusionModel:
    """A tiny model with a user adapter, its weights shaken unless it is to be fresh."""
    model = DiffusionModel.from_pipeline(tiny_pipeline(family, prediction_type), name)
    add_user_adapter(model, WIDTH, TOKENS, extractor=EXTRACTOR)
    if shaken:
        shake(model)
    return model


def shake(model: DiffusionModel, seed: int = 0, size: float = 0.3) -> None:
    """Adds noise to every weight of the user adapter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in user_parameters(model.unet).values():
            part.add_(torch.randn(part.shape, generator=generator).to(part) * size)


def users(count: int, seed: int = 0) -> torch.Tensor:
    """Embeddings [count, TOKENS, WIDTH]."""
    return torch.randn((count, TOKENS, WIDTH), generator=torch.Generator().manual_seed(seed))


def user_file(path: Path, seed: int = 0, extractor: str = EXTRACTOR, width: int = WIDTH) -> Path:
    """A user's file called like the user."""
    tokens = torch.randn((2, TOKENS, width), generator=torch.Generator().manual_seed(seed))
    return save_user(UserEmbedding(path.stem, tokens, extractor, (("a",), ("b",)), "pairs"), path)


def user_run(base: Path, final: Path) -> DiffusionModel:
    """A run's `final` with a user adapter trained on `base`, and the model in the state that was saved."""
    from t2ialign.models.loading import load_model

    model = load_model(base)
    add_user_adapter(model, WIDTH, TOKENS, extractor=EXTRACTOR)
    shake(model)
    save_user_adapter(model, final, algorithm="ppd")
    return model
