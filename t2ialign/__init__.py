"""Align text-to-image diffusion models with human preferences.

Fine-tune from preference pairs, generate image sets, score them, and compare them with confidence
intervals; as commands (`t2ialign --help`) and from Python:

    from t2ialign import DiffusionDPOTrainer, DPOConfig

The names below are imported when they are first used, so `import t2ialign` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from t2ialign.config import load as load_config
    from t2ialign.data.image_sets import ImageSet
    from t2ialign.data.pairs import PairDataset, load_pairs, write_pairs
    from t2ialign.data.prompts import read_prompts
    from t2ialign.data.unpaired import UnpairedDataset, load_unpaired, write_unpaired
    from t2ialign.eval.compare import compare_sets
    from t2ialign.eval.vendi.score import vendi_score
    from t2ialign.generation.grid import make_grid
    from t2ialign.generation.options import GenerateOptions
    from t2ialign.generation.run import generate
    from t2ialign.generation.sampler import generate_images
    from t2ialign.models.export import export_kohya
    from t2ialign.models.loading import load_model
    from t2ialign.reward_models.aesthetic import AestheticScore
    from t2ialign.reward_models.clipscore import ClipScore
    from t2ialign.reward_models.hpsv2 import HPSv2
    from t2ialign.reward_models.imagereward import ImageReward
    from t2ialign.reward_models.judge import Judge
    from t2ialign.reward_models.mps import MPS
    from t2ialign.reward_models.oracle import OracleScorer
    from t2ialign.reward_models.pickscore import PickScore
    from t2ialign.reward_models.registry import load_scorer
    from t2ialign.reward_models.scoring import score_set
    from t2ialign.reward_models.vqascore import VQAScore
    from t2ialign.trainers.dcpo import DCPOTrainer
    from t2ialign.trainers.dcpo_config import DCPOConfig
    from t2ialign.trainers.ddpo import DDPOTrainer
    from t2ialign.trainers.ddpo_config import DDPOConfig
    from t2ialign.trainers.dpo import DiffusionDPOTrainer
    from t2ialign.trainers.dpo_config import DPOConfig
    from t2ialign.trainers.kto import KTOTrainer
    from t2ialign.trainers.kto_config import KTOConfig
    from t2ialign.trainers.mapo import MaPOTrainer
    from t2ialign.trainers.mapo_config import MaPOConfig
    from t2ialign.trainers.ppd import PPDTrainer
    from t2ialign.trainers.ppd_config import PPDConfig
    from t2ialign.trainers.refl import ReFLTrainer
    from t2ialign.trainers.refl_config import ReFLConfig
    from t2ialign.trainers.sft import SFTTrainer
    from t2ialign.trainers.sft_config import SFTConfig

_EXPORTS = {
    "AestheticScore": "t2ialign.reward_models.aesthetic",
    "ClipScore": "t2ialign.reward_models.clipscore",
    "DCPOConfig": "t2ialign.trainers.dcpo_config",
    "DCPOTrainer": "t2ialign.trainers.dcpo",
    "KTOConfig": "t2ialign.trainers.kto_config",
    "KTOTrainer": "t2ialign.trainers.kto",
    "MaPOConfig": "t2ialign.trainers.mapo_config",
    "MaPOTrainer": "t2ialign.trainers.mapo",
    "PPDConfig": "t2ialign.trainers.ppd_config",
    "PPDTrainer": "t2ialign.trainers.ppd",
    "ReFLConfig": "t2ialign.trainers.refl_config",
    "ReFLTrainer": "t2ialign.trainers.refl",
    "DDPOConfig": "t2ialign.trainers.ddpo_config",
    "DDPOTrainer": "t2ialign.trainers.ddpo",
    "SFTConfig": "t2ialign.trainers.sft_config",
    "SFTTrainer": "t2ialign.trainers.sft",
    "DPOConfig": "t2ialign.trainers.dpo_config",
    "DiffusionDPOTrainer": "t2ialign.trainers.dpo",
    "GenerateOptions": "t2ialign.generation.options",
    "HPSv2": "t2ialign.reward_models.hpsv2",
    "ImageReward": "t2ialign.reward_models.imagereward",
    "ImageSet": "t2ialign.data.image_sets",
    "Judge": "t2ialign.reward_models.judge",
    "MPS": "t2ialign.reward_models.mps",
    "OracleScorer": "t2ialign.reward_models.oracle",
    "PairDataset": "t2ialign.data.pairs",
    "PickScore": "t2ialign.reward_models.pickscore",
    "UnpairedDataset": "t2ialign.data.unpaired",
    "VQAScore": "t2ialign.reward_models.vqascore",
    "compare_sets": "t2ialign.eval.compare",
    "export_kohya": "t2ialign.models.export",
    "generate": "t2ialign.generation.run",
    "generate_images": "t2ialign.generation.sampler",
    "load_config": "t2ialign.config:load",
    "load_model": "t2ialign.models.loading",
    "load_pairs": "t2ialign.data.pairs",
    "load_scorer": "t2ialign.reward_models.registry",
    "load_unpaired": "t2ialign.data.unpaired",
    "make_grid": "t2ialign.generation.grid",
    "read_prompts": "t2ialign.data.prompts",
    "score_set": "t2ialign.reward_models.scoring",
    "vendi_score": "t2ialign.eval.vendi.score",
    "write_pairs": "t2ialign.data.pairs",
    "write_unpaired": "t2ialign.data.unpaired",
}

__all__ = [
    "MPS",
    "AestheticScore",
    "ClipScore",
    "DCPOConfig",
    "DCPOTrainer",
    "DDPOConfig",
    "DDPOTrainer",
    "DPOConfig",
    "DiffusionDPOTrainer",
    "GenerateOptions",
    "HPSv2",
    "ImageReward",
    "ImageSet",
    "Judge",
    "KTOConfig",
    "KTOTrainer",
    "MaPOConfig",
    "MaPOTrainer",
    "OracleScorer",
    "PPDConfig",
    "PPDTrainer",
    "PairDataset",
    "PickScore",
    "ReFLConfig",
    "ReFLTrainer",
    "SFTConfig",
    "SFTTrainer",
    "UnpairedDataset",
    "VQAScore",
    "__version__",
    "compare_sets",
    "export_kohya",
    "generate",
    "generate_images",
    "load_config",
    "load_model",
    "load_pairs",
    "load_scorer",
    "load_unpaired",
    "make_grid",
    "read_prompts",
    "score_set",
    "vendi_score",
    "write_pairs",
    "write_unpaired",
]


def __getattr__(name: str) -> Any:
    """Import an exported name when it is first asked for (PEP 562)."""
    if name not in _EXPORTS:
        raise AttributeError(f"module 't2ialign' has no attribute {name!r}")
    module, _, attribute = _EXPORTS[name].partition(":")
    value = getattr(importlib.import_module(module), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the exported names beside what is loaded."""
    return sorted({*globals(), *_EXPORTS})
