"""Fidelity: how far the pictures of a model lie from real ones, in the features of a named network.

    from t2ialign.eval.fidelity import fidelity
    fidelity(real_features, generated_features, features="mini-clip").to_dict()

Law of this room: no figure without the numbers of pictures that it is of, for all of these depend on them; and what is
not computed from Inception's features is not called FID or KID.

The formulas are few lines and stand here; the one part that must not be written again, the Inception network whose
features make an FID comparable, comes from torch-fidelity (`InceptionFeatures`), as it does for torchmetrics.
"""

from t2ialign.eval.fidelity.distances import frechet_distance, kernel_distance
from t2ialign.eval.fidelity.inception import INCEPTION, InceptionFeatures
from t2ialign.eval.fidelity.manifolds import Neighbourhoods, neighbourhoods
from t2ialign.eval.fidelity.measure import Estimate, Fidelity, fidelity, fidelity_difference

__all__ = [
    "INCEPTION",
    "Estimate",
    "Fidelity",
    "InceptionFeatures",
    "Neighbourhoods",
    "fidelity",
    "fidelity_difference",
    "frechet_distance",
    "kernel_distance",
    "neighbourhoods",
]
