"""Vendi scores: the effective number of different items in a set (Friedman and Dieng, arXiv 2210.02410).

    from t2ialign import vendi_score
    vendi_score(features, q=(1, 2)).scores            # {1.0: ..., 2.0: ...}

Law of this room: exact where exactness costs nothing, which is nearly always; what is estimated says so; and a score
stands beside its number of items, since it grows with it.

`vendi_score` takes features, a stream of blocks, labels or a kernel matrix. `vendi_interval` and `vendi_difference`
give 95 % intervals over prompts, `vendi_levels` the diversity within prompts, of the whole set and of prompt means.
"""

from t2ialign.eval.vendi.intervals import VendiEstimate, vendi_difference, vendi_interval
from t2ialign.eval.vendi.kernels import (
    Cosine,
    Gaussian,
    Kernel,
    Labels,
    RandomFeatures,
    cosine_kernel,
    gaussian_kernel,
    label_kernel,
    median_sigma,
)
from t2ialign.eval.vendi.levels import VendiLevels, WithinPrompts, vendi_levels, vendi_within
from t2ialign.eval.vendi.random_features import RandomFeatureNotes
from t2ialign.eval.vendi.score import VendiScore, vendi_score

__all__ = [
    "Cosine",
    "Gaussian",
    "Kernel",
    "Labels",
    "RandomFeatureNotes",
    "RandomFeatures",
    "VendiEstimate",
    "VendiLevels",
    "VendiScore",
    "WithinPrompts",
    "cosine_kernel",
    "gaussian_kernel",
    "label_kernel",
    "median_sigma",
    "vendi_difference",
    "vendi_interval",
    "vendi_levels",
    "vendi_score",
    "vendi_within",
]
