"""Telling families apart, and refusing what is none of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from helpers.tiny import tiny_pipeline
from t2ialign.errors import ModelError
from t2ialign.models.families import detect_family, native_resolution


def shaped(width: int, sample_size: Any = 64, channels: int = 4) -> Any:
    """A StableDiffusionPipeline in name and configuration only."""
    config = {"cross_attention_dim": width, "in_channels": channels, "sample_size": sample_size}
    unet = SimpleNamespace(config=_Config(config))
    vae = SimpleNamespace(config=_Config({"latent_channels": 4}))
    return type("StableDiffusionPipeline", (), {"unet": unet, "vae": vae, "vae_scale_factor": 8})()


class _Config(dict[str, Any]):
    def __getattr__(self, name: str) -> Any:
        return self[name]


@pytest.mark.parametrize(("width", "family"), [(768, "sd15"), (1024, "sd2"), (640, "sd")])
def test_by_the_width_of_the_text_states(width: int, family: str) -> None:
    assert detect_family(shaped(width), "owner/model") == family


def test_by_class_and_by_name() -> None:
    assert detect_family(tiny_pipeline("sdxl")) == "sdxl"
    assert detect_family(tiny_pipeline("sd15"), "mini-sd") == "mini-sd"
    assert detect_family(tiny_pipeline("sd15")) == "sd"


def test_refused() -> None:
    with pytest.raises(ModelError, match="inpainting"):
        detect_family(shaped(768, channels=9), "owner/inpainting")
    with pytest.raises(ModelError, match=r"owner/flux.*FluxPipeline"):
        detect_family(type("FluxPipeline", (), {})(), "owner/flux")
    refiner = tiny_pipeline("sdxl")
    refiner.text_encoder = None
    with pytest.raises(ModelError, match="refiner"):
        detect_family(refiner, "owner/refiner")


@pytest.mark.parametrize(("sample_size", "side"), [(64, 512), (96, 768), ((60, 64), 512)])
def test_native_resolution(sample_size: Any, side: int) -> None:
    assert native_resolution(shaped(768, sample_size)) == side
