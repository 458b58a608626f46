"""What the published `vendi_score` package answers, also where it is wrong; for comparing with numbers made by it.

Of vertaix/Vendi-Score, version 0.0.3 (commit c791c30). It differs from the definition in these ways:

* orders below about 0.5 on kernels of low rank: eigenvalues that are round-off (1e-17) count, since all positive ones
  are kept, so that order 0 is no rank;
* `score_X` and the embedding functions take q and compute order 1;
* the quality of a quality-weighted score is averaged without the weights;
* nothing refuses a kernel or a quality for which no score exists.

Law of this file: nothing of ours calls it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from t2ialign.eval.vendi.spectrum import Array, Order


def published_score_k(kernel: npt.ArrayLike, q: Order = 1, p: npt.ArrayLike | None = None) -> float:
    """Answer as its `score_K`.

    Args:
        kernel: [n, n].
        q: A number, or "inf".
        p: Probability weights, [n], of sum 1; not checked.
    """
    matrix = np.asarray(kernel, dtype=np.float64)
    if p is None:
        weighted = matrix / len(matrix)
    else:
        roots = np.sqrt(np.asarray(p, dtype=np.float64))
        weighted = matrix * np.outer(roots, roots)
    return _from_eigenvalues(_eigenvalues(weighted), q)


def published_score_x(features: npt.ArrayLike, q: Order = 1, p: npt.ArrayLike | None = None) -> float:
    """Answer as its `score_X`: order 1 whatever `q` is; cosine kernel."""
    rows = _unit(features)
    return published_score_k(rows @ rows.T, 1, p)


def published_score_dual(features: npt.ArrayLike, q: Order = 1) -> float:
    """Answer as its `score_dual` with normalisation, which takes no weights."""
    rows = _unit(features)
    return _from_eigenvalues(_eigenvalues(rows.T @ rows / len(rows)), q)


def published_quality_score(
    kernel: npt.ArrayLike, quality: npt.ArrayLike, q: Order = 1, p: npt.ArrayLike | None = None
) -> float:
    """Answer as the published quality-weighted score: the plain mean of the qualities, also under weights."""
    return float(np.mean(np.asarray(quality, dtype=np.float64))) * published_score_k(kernel, q, p)


def _unit(features: npt.ArrayLike) -> Array:
    array = np.asarray(features, dtype=np.float64)
    return np.asarray(array / np.linalg.norm(array, axis=1, keepdims=True))


def _eigenvalues(matrix: Array) -> Array:
    from scipy import linalg

    found: Any = linalg.eigvalsh(matrix)
    return np.asarray(found)


def _from_eigenvalues(values: Array, q: Order) -> float:
    kept = values[values > 0]
    if q == "inf" or q == float("inf"):
        return float(1 / kept.max())
    if q == 1:
        return float(np.exp(-np.sum(kept * np.log(kept))))
    order = float(q)
    return float(np.exp(np.log(np.sum(kept**order)) / (1 - order)))
