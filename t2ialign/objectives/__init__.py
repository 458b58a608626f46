"""Preference objectives as pure functions on per-sample errors.

Law of this room: it imports nothing of ours, holds no state and draws no random number. An objective is a
composition of a score, an offset, a link, a reduction and an anchor; a new one is a new component, never a new
loop. What changes from step to step (the weights of groups) comes in with a batch and goes out with its loss.

* `objective`: the composition, what it takes and gives; `family`: the published ones by name
* `scores`, `offsets`, `links`, `reductions`: the parts; `unpaired`: objectives on single pictures
* `beta`: what the published betas mean
"""

from t2ialign.objectives import family
from t2ialign.objectives.beta import convert_beta, kappa_from_beta
from t2ialign.objectives.family import dpo
from t2ialign.objectives.objective import BatchInfo, Errors, LossOutput, Objective, Step, per_sample_error
from t2ialign.objectives.unpaired import KTO, ErrorOf, Supervised

__all__ = [
    "KTO",
    "BatchInfo",
    "ErrorOf",
    "Errors",
    "LossOutput",
    "Objective",
    "Step",
    "Supervised",
    "convert_beta",
    "dpo",
    "family",
    "kappa_from_beta",
    "per_sample_error",
]
