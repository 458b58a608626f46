"""When two pictures count as from the same culture: kernels on continent, country and artifact.

Law of this file: a kernel looks at labels only, and a picture that lacks a label the kernel looks at has no place in
it; two missing labels are not equal labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from t2ialign.eval.vendi.kernels import Labels

LEVELS = ("continent", "country", "artifact")
"""From coarse to fine."""


@dataclass(frozen=True)
class CultureKernel:
    """A weighted sum of equalities of labels, `k(a, b) = sum_l w_l [a_l = b_l]`.

    Attributes:
        name: Short name, for tables.
        weights: A weight for each of `LEVELS`, at least 0, of sum 1.
        nested: A finer label counts as equal only where the coarser ones are equal too.
    """

    name: str
    weights: tuple[float, float, float]
    nested: bool = False

    def __post_init__(self) -> None:
        """Refuse weights that make no kernel."""
        if len(self.weights) != len(LEVELS):
            raise ValueError(f"{len(self.weights)} weights; a culture kernel has three: {', '.join(LEVELS)}")
        self.labels  # noqa: B018 - checks the weights

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels that the kernel looks at: those with a weight; nested, also all before the finest of them."""
        used = [i for i, weight in enumerate(self.weights) if weight > 0]
        return LEVELS[: used[-1] + 1] if self.nested else tuple(LEVELS[i] for i in used)

    @property
    def labels(self) -> Labels:
        """The same on tuples of the labels of `levels`."""
        if min(self.weights) < 0:
            return Labels(self.weights)
        return Labels(tuple(self.weights[LEVELS.index(level)] for level in self.levels), self.nested)


_THIRD = 1 / 3
KERNELS = {
    each.name: each
    for each in (
        CultureKernel("continent", (1.0, 0.0, 0.0)),
        CultureKernel("country", (0.0, 1.0, 0.0)),
        CultureKernel("artifact", (0.0, 0.0, 1.0)),
        CultureKernel("hierarchical", (_THIRD, _THIRD, _THIRD), nested=True),
        CultureKernel("uniform", (_THIRD, _THIRD, _THIRD)),
    )
}
"""CUBE's kernels. The paper's hierarchical weights are not in its code; here they are equal, and nested."""


def kernel_of(kernel: str | CultureKernel | Sequence[float]) -> CultureKernel:
    """Return a kernel by name, or of three weights.

    Raises:
        ValueError: If the name is unknown, or the weights make no kernel.
    """
    if isinstance(kernel, CultureKernel):
        return kernel
    if isinstance(kernel, str):
        if kernel not in KERNELS:
            raise ValueError(f"unknown kernel {kernel!r}; there are {', '.join(KERNELS)}, or three weights")
        return KERNELS[kernel]
    weights = tuple(float(weight) for weight in kernel)
    return CultureKernel("weights " + " ".join(f"{weight:g}" for weight in weights), weights)  # type: ignore[arg-type]
