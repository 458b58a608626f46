r"""Precision, recall, density and coverage, from balls around pictures that reach to their k-th neighbour.

With `R_k(x)` the distance of a picture to its k-th nearest neighbour in its own set, itself not counted, and B(x) the
closed ball of that radius:

* precision: part of the generated pictures in a ball of any real one (Kynkaanniemi et al., arXiv 1904.06991);
* recall: part of the real pictures in a ball of any generated one (likewise);
* density: balls of real pictures that a generated one lies in, on average, over k (Naeem et al., arXiv 2002.09797);
* coverage: part of the real pictures whose ball holds a generated one (likewise).

The first two take k = 3, the others k = 5, as their papers do. The code published with the second takes open balls,
which differs where distances are equal to the last bit, and one k for all four.

Law of this file: a picture never is its own neighbour, but a copy of it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from t2ialign.eval.fidelity.distances import Array, as_cloud

_BLOCK = 1024
_ZERO = 1e-12
"""Squared distance, over the largest squared length, below which two features are one."""


@dataclass(frozen=True)
class Neighbourhoods:
    """The four figures.

    Attributes:
        precision: In [0, 1]: realism.
        recall: In [0, 1]: diversity.
        density: At least 0; 1 in expectation where both sets are of one distribution.
        coverage: In [0, 1].
    """

    precision: float
    recall: float
    density: float
    coverage: float


class SquaredDistances:
    """Squared distances within and between two clouds, held, for figures of many subsets of them."""

    def __init__(self, real: npt.ArrayLike, generated: npt.ArrayLike) -> None:
        """Compute the three matrices: [n, n], [m, m] and [n, m]."""
        one, two = as_cloud(real, "real"), as_cloud(generated, "generated")
        if one.shape[1] != two.shape[1]:
            raise ValueError(f"features of width {one.shape[1]} and {two.shape[1]} are not of one network")
        centre = one.mean(axis=0)
        one, two = one - centre, two - centre
        scale = float(max(np.sum(one**2, axis=1).max(), np.sum(two**2, axis=1).max()))
        self.real, self.generated = _squares(one, one, scale), _squares(two, two, scale)
        self.between = _squares(one, two, scale)

    def figures(
        self,
        k: tuple[int, int] = (3, 5),
        real: npt.NDArray[np.integer] | None = None,
        generated: npt.NDArray[np.integer] | None = None,
    ) -> Neighbourhoods:
        """The four figures of some rows of each cloud, or of all.

        Args:
            k: Neighbours for precision and recall, and for density and coverage.
            real: Rows of the real cloud.
            generated: Rows of the generated one.

        Raises:
            ValueError: If a cloud has no more than k pictures.
        """
        one = self.real if real is None else self.real[np.ix_(real, real)]
        two = self.generated if generated is None else self.generated[np.ix_(generated, generated)]
        rows = slice(None) if real is None else real
        columns = slice(None) if generated is None else generated
        between = self.between[rows][:, columns]
        few, many = k
        balls = _radii(one, few), _radii(two, few), _radii(one, many)
        held = between <= balls[2][:, None]
        return Neighbourhoods(
            precision=float((between <= balls[0][:, None]).any(axis=0).mean()),
            recall=float((between <= balls[1][None, :]).any(axis=1).mean()),
            density=float(held.sum(axis=0).mean() / many),
            coverage=float(held.any(axis=1).mean()),
        )


def neighbourhoods(real: npt.ArrayLike, generated: npt.ArrayLike, *, k: tuple[int, int] = (3, 5)) -> Neighbourhoods:
    """Return precision, recall, density and coverage.

    Args:
        real: Features, [n, d].
        generated: Features, [m, d].
        k: Neighbours for precision and recall, and for density and coverage.

    Raises:
        ValueError: If the shapes do not fit, or there are no more than k pictures in a set.
    """
    return SquaredDistances(real, generated).figures(k)


def inside(real: npt.ArrayLike, generated: npt.ArrayLike, *, k: int = 3) -> npt.NDArray[np.bool_]:
    """Tell of each generated picture whether it lies in a ball of any real one; their mean is precision.

    Args:
        real: Features, [n, d].
        generated: Features, [m, d].
        k: Neighbours.

    Raises:
        ValueError: As `neighbourhoods`.
    """
    one, two = as_cloud(real, "real"), as_cloud(generated, "generated")
    if one.shape[1] != two.shape[1]:
        raise ValueError(f"features of width {one.shape[1]} and {two.shape[1]} are not of one network")
    centre = one.mean(axis=0)
    one, two = one - centre, two - centre
    scale = float(max(np.sum(one**2, axis=1).max(), np.sum(two**2, axis=1).max()))
    radii = _radii(_squares(one, one, scale), k)
    return np.asarray((_squares(one, two, scale) <= radii[:, None]).any(axis=0))


def _squares(one: Array, two: Array, scale: float) -> Array:
    found = np.empty((len(one), len(two)))
    lengths = np.einsum("ij,ij->i", two, two)
    for start in range(0, len(one), _BLOCK):
        part = one[start : start + _BLOCK]
        found[start : start + _BLOCK] = np.einsum("ij,ij->i", part, part)[:, None] + lengths - 2 * (part @ two.T)
    found[found < _ZERO * scale] = 0
    return found


def _radii(squares: Array, k: int) -> Array:
    """Squared distance to the k-th neighbour; place 0 of each sorted row is the picture itself (or a copy of it)."""
    if k < 1 or len(squares) <= k:
        raise ValueError(
            f"the {k}-th neighbour of {len(squares)} pictures; k must be at least 1, and below their number"
        )
    return np.asarray(np.partition(squares, k, axis=1)[:, k])
