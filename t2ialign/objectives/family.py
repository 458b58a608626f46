"""The family by name: each published objective as a composition of parts, a line or two.

`kappa` multiplies the difference of mean errors; `t2ialign.objectives.beta.kappa_from_beta` has it for a beta.
"""

from __future__ import annotations

from collections.abc import Sequence

from t2ialign.objectives.beta import HALVED, kappa_from_beta
from t2ialign.objectives.links import (
    AlphaDivergence,
    Debiased,
    GeometricLabel,
    Hinge,
    LogSigmoid,
    Smoothed,
    SoftLabel,
    Squared,
)
from t2ialign.objectives.objective import Objective
from t2ialign.objectives.offsets import RewardGap, Strength
from t2ialign.objectives.reductions import ChosenError, GroupRobust, LogMeanExp, WorstGroup
from t2ialign.objectives.scores import Divergence, LogRatio, NegativeError, OddsScore


def dpo(beta: float, convention: str = HALVED) -> Objective:
    """Diffusion-DPO: `-log sigmoid(kappa [(r_w - e_w) - (r_l - e_l)])`, mean over pairs.

    Args:
        beta: Hold on the reference; 5000 in the official launchers, 2000 to 5000 for SD1.5 in the paper.
        convention: What beta means: `"official"` (kappa = beta / 2) or `"hf_sd"` (kappa = beta).

    Raises:
        ValueError: for a beta that is not above 0, or an unknown convention.
    """
    return Objective(LogRatio(kappa_from_beta(beta, convention)), LogSigmoid())


def ipo(kappa: float) -> Objective:
    """IPO: `(z - 1/2)^2`, which stops pulling once the margin is one half."""
    return Objective(LogRatio(kappa), Squared())


def hinge(kappa: float) -> Objective:
    """SLiC: `relu(1 - z)`, which stops pulling once the margin is one."""
    return Objective(LogRatio(kappa), Hinge())


def orpo(weight: float = 0.1, kappa: float = 1.0) -> Objective:
    """ORPO for diffusion, with the sign set right: `e_w - weight * log sigmoid(kappa (e_l - e_w))`; no reference."""
    return Objective(NegativeError(kappa), LogSigmoid(weight), anchor=ChosenError())


def mapo(weight: float = 0.1, strength: float = 0.5, scale: float = 1000.0) -> Objective:
    """MaPO: `e_w - weight * log sigmoid(T [S(e_w) - S(e_l)])` with the odds score S; no reference."""
    return Objective(OddsScore(scale, strength), LogSigmoid(weight), anchor=ChosenError())


def cdpo(kappa: float, flip_rate: float = 0.1) -> Objective:
    """Conservative DPO: labels smoothed by the share of them that is wrong."""
    return Objective(LogRatio(kappa), Smoothed(flip_rate))


def rdpo(kappa: float, flip_rate: float = 0.1) -> Objective:
    """Robust DPO: an unbiased estimate of the loss on clean labels."""
    return Objective(LogRatio(kappa), Debiased(flip_rate))


def soft(kappa: float, form: str = "cross_entropy") -> Objective:
    """Soft labels p: "cross_entropy", or "geometric" (`-log sigmoid((2p - 1) z)`)."""
    if form not in ("cross_entropy", "geometric"):
        raise ValueError(f"form is {form!r}; choose from cross_entropy, geometric")
    return Objective(LogRatio(kappa), SoftLabel() if form == "cross_entropy" else GeometricLabel())


def offset(kappa: float, scale: float = 1.0, shape: str = "linear") -> Objective:
    """DPO with an offset: `-log sigmoid(z - scale * f(gap))`."""
    return Objective(LogRatio(kappa), LogSigmoid(), offset=Strength(scale, shape))


def fdpo(kappa: float, divergence: str = "reverse_kl", alpha: float = 0.5, strength: float = 1.0) -> Objective:
    """f-DPO: another divergence from the reference; reverse_kl with strength 1 is DPO."""
    return Objective(Divergence(divergence, kappa, alpha, strength), LogSigmoid())


def alpha_dpo(kappa: float, mu: float = 0.9999, dynamic: str = "sample", alpha: float = 0.5) -> Objective:
    """alpha-DPO: an alpha-divergence in place of the logarithm; see `AlphaDivergence` for what it does to outliers."""
    return Objective(LogRatio(kappa), AlphaDivergence(mu, dynamic, alpha))


def modpo(kappa: float, weights: Sequence[float]) -> Objective:
    """MODPO: `-log sigmoid((z - sum_j w_j gap_j) / w_k)`, w_k being what the weights leave of 1.

    Args:
        kappa: Of the margin z.
        weights: w_j of the other objectives, each at least 0, together below 1; `[]` is DPO.

    Raises:
        ValueError: if they are not such.
    """
    own = 1 - sum(weights)
    if min(weights, default=0) < 0 or not own > 0:
        raise ValueError(f"the weights {list(weights)} must be at least 0 and together below 1")
    return Objective(LogRatio(kappa / own), LogSigmoid(), offset=RewardGap(tuple(weights), own))


def directional(kappa: float) -> Objective:
    """Directional preference alignment (after arXiv 2402.18571): soft labels from a weighted sum of score gaps.

    The label of a pair, `preference_prob`, is made from the direction beforehand and may turn the pair round.
    """
    return soft(kappa)


def dr_dpo(kappa: float, temperature: float = 1.0) -> Objective:
    """Dr.DPO: robust to wrong labels over the whole step."""
    return Objective(LogRatio(kappa), LogSigmoid(), reduce=LogMeanExp(temperature))


def kl_dro(kappa: float, temperature: float = 1.0) -> Objective:
    """The worst case in a KL ball around the step's pairs: hard pairs count more."""
    return Objective(LogRatio(kappa), LogSigmoid(), reduce=LogMeanExp(temperature, pessimistic=True))


def group_robust(kappa: float, shares: Sequence[float], rate: float = 0.05) -> Objective:
    """Group-robust DPO over groups with these shares of the pairs."""
    return Objective(LogRatio(kappa), LogSigmoid(), reduce=GroupRobust(tuple(shares), rate))


def maxmin(kappa: float, count: int) -> Objective:
    """MaxMin over `count` groups: the loss of the worst-off group of the step."""
    return Objective(LogRatio(kappa), LogSigmoid(), reduce=WorstGroup(count))
