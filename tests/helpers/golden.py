"""The test vector of the published losses: errors of four pairs, and the values that official code gives for them.

DiffusionDPO's train.py:1122-1145 and MaPO's utils.compute_loss were executed on them; the others follow from the
published formulas in float64.
"""

from __future__ import annotations

import torch

from t2ialign.objectives import BatchInfo, Errors

CHOSEN = [0.10, 0.25, 0.05, 0.40]
REJECTED = [0.12, 0.20, 0.05, 0.55]
REFERENCE_CHOSEN = [0.101, 0.2495, 0.0502, 0.4005]
REFERENCE_REJECTED = [0.1195, 0.2003, 0.0498, 0.5490]
MARGINS = [3.75, -2.0, 1.0, 3.75]
"""At kappa 2500, which is beta 5000."""
SHARES = [0.9, 0.6, 0.5, 1.0]
KAPPA = 2500.0


def golden_errors(dtype: torch.dtype = torch.float64, *, reference: bool = True) -> Errors:
    rows = (CHOSEN, REJECTED, REFERENCE_CHOSEN, REFERENCE_REJECTED)
    return Errors(*(torch.tensor(row, dtype=dtype) for row in (rows if reference else rows[:2])))


def golden_batch() -> BatchInfo:
    return BatchInfo(preference_prob=torch.tensor(SHARES, dtype=torch.float64))
