"""Preference objectives as pure functions on per-sample errors.

Law of this room: it imports nothing of ours, holds no state and draws no random number. An objective is a
composition of a score, an offset, a link, a reduction and an anchor; a new one is a new component, never a new
loop.
"""

from t2ialign.objectives.beta import kappa_from_beta
from t2ialign.objectives.components import LogRatio, LogSigmoid, mean, no_anchor, no_offset
from t2ialign.objectives.objective import BatchInfo, Errors, LossOutput, Objective, dpo, per_sample_error

__all__ = [
    "BatchInfo",
    "Errors",
    "LogRatio",
    "LogSigmoid",
    "LossOutput",
    "Objective",
    "dpo",
    "kappa_from_beta",
    "mean",
    "no_anchor",
    "no_offset",
    "per_sample_error",
]
