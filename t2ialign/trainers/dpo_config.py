"""Options of Diffusion-DPO (arXiv 2311.12908) and of the family of losses on the same margin.

Law of this file: it imports nothing heavy, because the command line reads it at start-up. The options of an objective
stand under its name, and are refused where another objective is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import ClassVar

from t2ialign.config import option
from t2ialign.errors import ConfigError
from t2ialign.trainers.preference_config import PreferenceConfig

OBJECTIVES = (
    "dpo",
    "ipo",
    "hinge",
    "orpo",
    "cdpo",
    "rdpo",
    "soft",
    "offset",
    "fdpo",
    "alpha_dpo",
    "modpo",
    "directional",
    "dr_dpo",
    "kl_dro",
    "group_robust",
    "maxmin",
)
"""What `--objective` may be; docs/objectives.md explains each."""


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ConfigError(f"{name} is {value}; it must be above 0")


def _flip_rate(name: str, value: float) -> None:
    if not 0 <= value < 0.5:
        raise ConfigError(f"{name} is {value}; the share of wrong labels must be at least 0 and below 0.5")


@dataclass(kw_only=True)
class OrpoOptions:
    """ORPO with the sign set right: no reference; beta is not used."""

    weight: float = option(0.1, "Weight of the preference term beside the error of the preferred picture.")
    kappa: float = option(1.0, "Multiplier of the difference of errors; 1 as in diffusers' script.")

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        _positive("orpo.weight", self.weight)
        _positive("orpo.kappa", self.kappa)


@dataclass(kw_only=True)
class CdpoOptions:
    """Conservative DPO."""

    flip_rate: float = option(0.1, "Share of labels that are thought to be wrong, below 0.5.")

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        _flip_rate("cdpo.flip_rate", self.flip_rate)


@dataclass(kw_only=True)
class RdpoOptions:
    """Robust DPO."""

    flip_rate: float = option(0.1, "Share of labels that are thought to be wrong, below 0.5; rather less than more.")

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        _flip_rate("rdpo.flip_rate", self.flip_rate)


@dataclass(kw_only=True)
class SoftOptions:
    """Soft labels, from `preference_prob`; ties (0.5) are kept."""

    form: str = option(
        "cross_entropy", "Loss on a soft label: cross_entropy or geometric.", choices=("cross_entropy", "geometric")
    )
    temperature: float | None = option(
        None,
        "Where a pair has no preference_prob, make it sigmoid(margin / temperature). Default: refuse it.",
    )

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if self.temperature is not None:
            _positive("soft.temperature", self.temperature)


@dataclass(kw_only=True)
class OffsetOptions:
    """DPO with an offset, from `margin`."""

    scale: float = option(1.0, "Offset of the margin z for a unit of f(margin column).")
    shape: str = option("linear", "f: the margin itself, or log(1 + margin).", choices=("linear", "log"))


@dataclass(kw_only=True)
class FdpoOptions:
    """f-DPO."""

    divergence: str = option(
        "reverse_kl",
        "Divergence from the reference.",
        choices=("reverse_kl", "forward_kl", "jensen_shannon", "alpha"),
    )
    alpha: float = option(0.5, "Order of the alpha divergence; 1 is reverse_kl.")
    strength: float = option(1.0, "Multiplier of the margin; beta only makes the log-ratio (beta / 2).")

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        _positive("fdpo.strength", self.strength)


@dataclass(kw_only=True)
class AlphaDpoOptions:
    """alpha-DPO for diffusion."""

    mu: float = option(0.9999, "alpha is mu times the model's probability of the label, in (0, 1).")
    dynamic: str = option(
        "sample",
        "That probability: of the pair (the paper), its mean over the step (the published code), or fixed.",
        choices=("sample", "batch", "fixed"),
    )
    alpha: float = option(0.5, "alpha, with dynamic fixed; in (0, 1).")

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        for name in ("mu", "alpha"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"alpha_dpo.{name} is {getattr(self, name)}; it must be above 0 and below 1")


@dataclass(kw_only=True)
class ModpoOptions:
    """MODPO, from `scores_chosen` and `scores_rejected`."""

    weights: dict[str, float] = option(
        {}, "Weight of each other score; what they leave of 1 is the weight of the labels."
    )

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if any(weight < 0 for weight in self.weights.values()) or not sum(self.weights.values()) < 1:
            raise ConfigError(f"modpo.weights is {self.weights}; weights are at least 0 and together below 1")


@dataclass(kw_only=True)
class DirectionalOptions:
    """Labels along a direction in the space of scores, from `scores_chosen` and `scores_rejected`."""

    weights: dict[str, float] = option({}, "Direction: weight of each score, in units of its deviation over the set.")
    temperature: float = option(1.0, "P(chosen) is sigmoid(weighted gap / temperature); small values: hard labels.")

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        _positive("directional.temperature", self.temperature)


@dataclass(kw_only=True)
class DrDpoOptions:
    """Dr.DPO."""

    temperature: float = option(1.0, "b': smaller values trust pairs less that the model finds unlikely.")

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        _positive("dr_dpo.temperature", self.temperature)


@dataclass(kw_only=True)
class KlDroOptions:
    """The worst case in a KL ball."""

    temperature: float = option(1.0, "tau: smaller values look at hard pairs more.")

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        _positive("kl_dro.temperature", self.temperature)


GROUP_COLUMNS = ("group", "user_id", "source", "aspect")


@dataclass(kw_only=True)
class GroupRobustOptions:
    """Group-robust DPO."""

    by: str = option("group", "Column that says which group a pair belongs to.", choices=GROUP_COLUMNS)
    rate: float = option(0.05, "Step of the groups' weights; 0.01 to 0.1 is usual.")

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        _positive("group_robust.rate", self.rate)


@dataclass(kw_only=True)
class MaxminOptions:
    """MaxMin over groups."""

    by: str = option("group", "Column that says which group a pair belongs to.", choices=GROUP_COLUMNS)


@dataclass(kw_only=True)
class DPOConfig(PreferenceConfig):
    """Everything `t2ialign train dpo` can be told."""

    COMPATS: ClassVar[tuple[str, ...]] = ("none", "diffusion_dpo_official", "hf_sdxl", "hf_sd")

    objective: str = option("dpo", "The loss on the margin of a pair.", choices=OBJECTIVES)
    beta: float | None = option(
        None, "Hold on the reference, in the official convention (the margin carries beta / 2). Default: by family."
    )
    compat: str = option(
        "none",
        "Read beta, and treat pictures and captions left open, as this published script does: "
        "diffusion_dpo_official, hf_sdxl (both beta / 2) or hf_sd (beta itself).",
        choices=COMPATS,
    )
    curriculum_stages: int = option(
        1, "Curry-DPO: visit the pairs in so many stages, those with the largest margin first. 1: no order."
    )
    orpo: OrpoOptions = field(default_factory=OrpoOptions)
    cdpo: CdpoOptions = field(default_factory=CdpoOptions)
    rdpo: RdpoOptions = field(default_factory=RdpoOptions)
    soft: SoftOptions = field(default_factory=SoftOptions)
    offset: OffsetOptions = field(default_factory=OffsetOptions)
    fdpo: FdpoOptions = field(default_factory=FdpoOptions)
    alpha_dpo: AlphaDpoOptions = field(default_factory=AlphaDpoOptions)
    modpo: ModpoOptions = field(default_factory=ModpoOptions)
    directional: DirectionalOptions = field(default_factory=DirectionalOptions)
    dr_dpo: DrDpoOptions = field(default_factory=DrDpoOptions)
    kl_dro: KlDroOptions = field(default_factory=KlDroOptions)
    group_robust: GroupRobustOptions = field(default_factory=GroupRobustOptions)
    maxmin: MaxminOptions = field(default_factory=MaxminOptions)

    def __post_init__(self) -> None:
        """Refuse values outside their range, and options of an objective that is not chosen."""
        super().__post_init__()
        if self.beta is not None:
            _positive("beta", self.beta)
        self._check("curriculum_stages", lower=1)
        self._check_choice("objective", OBJECTIVES)
        self._check_choice("compat", self.COMPATS)
        for part in fields(self):
            if part.name in OBJECTIVES and part.name != self.objective:
                self._refuse_others(part.name)
        for name in ("modpo", "directional"):
            if name == self.objective and not getattr(self, name).weights:
                raise ConfigError(f"objective {name} needs weights of scores: --{name}.weights aesthetic=0.3")

    def _refuse_others(self, name: str) -> None:
        given, plain = getattr(self, name), type(getattr(self, name))()
        for part in fields(given):
            if getattr(given, part.name) != getattr(plain, part.name):
                raise ConfigError(
                    f"{name}.{part.name} is given, but the objective is {self.objective!r}; "
                    f"choose --objective {name}, or leave it out"
                )
