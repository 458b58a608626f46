"""Bias of pictures of target prompts (professions) against identity prompts, in an embedding; after Stable Bias.

Law of this file: nobody in a picture is given a gender or an ethnicity. Pictures are compared with pictures of prompts
that name an identity, and what is counted are regions of the embedding. After A. S. Luccioni and others, Stable Bias
(arXiv 2303.11408), in which identity pictures are clustered and those of professions assigned to the clusters.
The tests are exact binomial tests on pictures where a target has one prompt; with several prompts their effective
number of pictures is smaller, and it is that number which is tested.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from t2ialign.errors import DataError
from t2ialign.eval.attributes.entropy import EntropyEstimate, effective_size, estimate_entropy
from t2ialign.eval.statistics import Interval, holm, wilson

if TYPE_CHECKING:
    from t2ialign.data.image_sets import ImageRecord, ImageSet
    from t2ialign.reward_models.base import Embedder

Array = npt.NDArray[np.float64]
GroupOf = Callable[["ImageRecord"], str | None]
"""Which target or identity a picture's prompt names; `None` leaves the picture out."""
RESAMPLES = 2000


@dataclass(frozen=True)
class AssignedPicture:
    """A picture of a target: one row.

    Attributes:
        picture: Its name, or its number among the features.
        prompt_id: Of its prompt.
        target: What its prompt names.
        group: Identity or cluster that it is nearest to.
        cosine: To that centre.
        margin: By how much that is more than to the second nearest.
    """

    picture: str
    prompt_id: str
    target: str
    group: str
    cosine: float
    margin: float

    def to_dict(self) -> dict[str, Any]:
        """Return the row."""
        return asdict(self)


@dataclass(frozen=True)
class GroupShare:
    """How often a target's pictures lie with a group.

    Attributes:
        group: Identity or cluster.
        count: Pictures.
        share: Of the target's pictures.
        interval: 95 %, Wilson's, at the effective number of pictures.
        reference: Share that it is compared with.
        ratio: `share / reference`; `None` where the reference is 0.
        p: Of an exact binomial test against the reference, two-sided.
        p_holm: The same, corrected by Holm over all targets and groups.
        finding: `"over"` or `"under"` where `p_holm` < 0.05 and the interval excludes the reference, else empty.
    """

    group: str
    count: int
    share: float
    interval: Interval
    reference: float
    ratio: float | None
    p: float
    p_holm: float
    finding: Literal["over", "under", ""]

    def to_dict(self) -> dict[str, Any]:
        """Return all values; the interval is a list of two."""
        return asdict(self) | {"interval": list(self.interval)}


@dataclass(frozen=True)
class TargetBias:
    """A target (profession).

    Attributes:
        target: Its name.
        n_pictures: Its pictures.
        n_prompts: Its prompts.
        shares: Of each group.
        entropy: Of the shares, normalised by log(groups).
    """

    target: str
    n_pictures: int
    n_prompts: int
    shares: tuple[GroupShare, ...]
    entropy: EntropyEstimate

    def to_dict(self) -> dict[str, Any]:
        """Return all values."""
        shares = [each.to_dict() for each in self.shares]
        counts = {"target": self.target, "n_pictures": self.n_pictures, "n_prompts": self.n_prompts}
        return counts | {"shares": shares, "entropy": self.entropy.to_dict()}


@dataclass(frozen=True)
class BiasResult:
    """All targets.

    Attributes:
        method: `"identities"` (nearest identity centroid) or `"clusters"` (k-means of identity pictures).
        targets: A figure each.
        groups: What targets are assigned to.
        composition: Of each group, the identities of the identity pictures that lie in it, as shares: it tells what a
            cluster is, and how well identities can be told apart at all.
        separation: Share of identity pictures that lie with their own identity, measured on pictures that the
            centroids have not seen, and Wilson's 95 % interval; (`None`, `None`) for clusters.
        reference: Where the reference is from.
        rows: A row a picture of a target.
        info: What figures depend on.
    """

    method: str
    targets: tuple[TargetBias, ...]
    groups: tuple[str, ...]
    composition: dict[str, dict[str, float]]
    separation: tuple[float | None, Interval | None]
    reference: str
    rows: tuple[AssignedPicture, ...]
    info: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return all but the rows."""
        share, interval = self.separation
        return {
            "method": self.method,
            "targets": [each.to_dict() for each in self.targets],
            "groups": list(self.groups),
            "composition": self.composition,
            "separation": {"share": share, "interval": None if interval is None else list(interval)},
            "reference": self.reference,
            "info": self.info,
        }


def measure_bias(
    targets: ImageSet,
    identities: ImageSet,
    embedder: Embedder,
    target_of: GroupOf,
    identity_of: GroupOf,
    *,
    clusters: int | None = None,
    reference: Mapping[str, float] | None = None,
    batch_size: int = 64,
    seed: int = 0,
) -> BiasResult:
    """Embed both sets and compare them (`bias_of_features`).

    Args:
        targets: Pictures of prompts that name a target.
        identities: Pictures of prompts that name an identity, of the same model.
        embedder: A scorer with features (`load_scorer("clipscore@...")`).
        target_of: Target of a picture's prompt, such as `lambda record: record.extra["profession"]`.
        identity_of: Identity, likewise.
        clusters: As for `bias_of_features`.
        reference: Likewise.
        batch_size: Pictures embedded at a time.
        seed: Likewise.
    """
    one, two = (
        _embedded(targets, embedder, target_of, batch_size),
        _embedded(identities, embedder, identity_of, batch_size),
    )
    described: Any = getattr(embedder, "info", dict)()
    return bias_of_features(
        one[0],
        one[1],
        two[0],
        two[1],
        prompts=one[2],
        names=one[3],
        clusters=clusters,
        reference=reference,
        seed=seed,
        info={"embedder": described},
    )


def _embedded(
    image_set: ImageSet, embedder: Embedder, group_of: GroupOf, size: int
) -> tuple[Array, list[str], list[str], list[str]]:
    kept = [(record, group) for record in image_set if (group := group_of(record)) is not None]
    if not kept:
        raise DataError(f"{image_set.path}: no picture has a group; check the function that reads it off the prompt")
    parts = []
    for start in range(0, len(kept), size):
        found: Any = embedder.embed_images([image_set.open(record) for record, _ in kept[start : start + size]])
        parts.append(np.asarray(found.detach().cpu().numpy() if hasattr(found, "detach") else found, dtype=np.float64))
    return (
        np.concatenate(parts),
        [group for _, group in kept],
        [record.prompt_id for record, _ in kept],
        [record.file_name for record, _ in kept],
    )


def bias_of_features(
    targets: npt.ArrayLike,
    target_names: Sequence[str],
    identities: npt.ArrayLike,
    identity_names: Sequence[str],
    *,
    prompts: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    clusters: int | None = None,
    reference: Mapping[str, float] | None = None,
    seed: int = 0,
    info: Mapping[str, Any] | None = None,
) -> BiasResult:
    """Compare features of target pictures with those of identity pictures.

    Args:
        targets: [T, D], of any length; they are brought to unit length.
        target_names: Target of each, [T].
        identities: [I, D].
        identity_names: Identity of each, [I].
        prompts: Prompt id of each target picture; the target itself where it is not given.
        names: Name of each target picture, for the rows; its number where it is not given.
        clusters: Number of seeded k-means clusters of the identity pictures that targets are assigned to; `None` for
            the nearest identity centroid.
        reference: Share that each group should have, summing to 1; a stated distribution for identities. `None` for
            the mix of the identity pictures, assigned by the same rule.
        seed: Of k-means and the bootstrap.
        info: Recorded beside the result.

    Raises:
        DataError: If shapes do not fit, a feature is 0 or not finite, or there are fewer than two groups.
    """
    t, i = _unit(targets, target_names, "target"), _unit(identities, identity_names, "identity")
    if t.shape[1] != i.shape[1]:
        raise DataError(f"features of {t.shape[1]} and {i.shape[1]} numbers cannot be compared; use one embedding")
    labels = list(dict.fromkeys(identity_names))
    if len(labels) < 2:
        raise DataError(f"identities are {labels}; at least two are needed")
    centres, groups, separation = _groups(i, identity_names, labels, clusters, seed)
    assigned = (i @ centres.T).argmax(axis=1)
    goal, source = _reference(reference, groups, assigned)
    units = list(prompts) if prompts is not None else list(target_names)
    called = list(names) if names is not None else [str(number) for number in range(len(t))]
    rows = _rows(t @ centres.T, groups, target_names, units, called)
    return BiasResult(
        "identities" if clusters is None else "clusters",
        _targets(rows, groups, goal, seed),
        tuple(groups),
        _composition(assigned, groups, identity_names, labels),
        separation,
        source,
        tuple(rows),
        dict(info or {}) | {"clusters": clusters, "seed": seed, "n_identity_pictures": len(i)},
    )


def _unit(features: npt.ArrayLike, names: Sequence[str], what: str) -> Array:
    array = np.asarray(features, dtype=np.float64)
    if array.ndim != 2 or len(array) != len(names) or not len(array):
        raise DataError(f"{what} features of shape {array.shape} for {len(names)} names; [N, D] is needed")
    lengths = np.linalg.norm(array, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise DataError(f"{what} feature {int(np.argmin(np.isfinite(lengths) & (lengths > 0)))} is 0 or not finite")
    return np.asarray(array / lengths)


def _groups(
    features: Array, names: Sequence[str], labels: list[str], clusters: int | None, seed: int
) -> tuple[Array, list[str], tuple[float | None, Interval | None]]:
    """Return unit centres, their names, and how well identities are told apart (leaving each picture out in turn)."""
    if clusters is not None:
        if not 2 <= clusters <= len(features):
            raise DataError(f"{clusters} clusters of {len(features)} identity pictures do not exist; 2 at least")
        return kmeans(features, clusters, seed=seed), [f"cluster {n}" for n in range(clusters)], (None, None)
    codes = np.array([labels.index(name) for name in names])
    sums = np.stack([features[codes == code].sum(axis=0) for code in range(len(labels))])
    counts = np.bincount(codes)
    right = known = 0
    for feature, code in zip(features, codes, strict=True):
        if counts[code] > 1:
            left = sums.copy()
            left[code] -= feature
            right += int(np.argmax(_directions(left) @ feature) == code)
            known += 1
    told = (right / known, wilson(right, known)) if known else (None, None)
    return _directions(sums), labels, told


def _directions(sums: Array) -> Array:
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.asarray(sums / np.where(lengths > 0, lengths, 1.0))


def kmeans(features: Array, clusters: int, *, seed: int = 0, starts: int = 10, steps: int = 100) -> Array:
    """Return the unit centres of spherical k-means (greatest sum of cosines of several seeded starts), [K, D].

    Starts are drawn as in k-means++, with 1 - cosine for the squared distance. An empty cluster takes the picture that
    is farthest from its own.
    """
    best, centres = -math.inf, features[:clusters]
    for start in range(starts):
        generator = np.random.default_rng([seed, start])
        picked = [int(generator.integers(len(features)))]
        while len(picked) < clusters:
            far = np.clip(1 - (features @ features[picked].T).max(axis=1), 0, None)
            weights = far / far.sum() if far.sum() > 0 else np.full(len(far), 1 / len(far))
            picked.append(int(generator.choice(len(features), p=weights)))
        found = features[picked]
        for _ in range(steps):
            cosines = features @ found.T
            codes = cosines.argmax(axis=1)
            for code in np.flatnonzero(np.bincount(codes, minlength=clusters) == 0):
                codes[int(cosines.max(axis=1).argmin())] = code
            moved = _directions(np.stack([features[codes == code].sum(axis=0) for code in range(clusters)]))
            if np.allclose(moved, found):
                break
            found = moved
        total = float((features @ found.T).max(axis=1).sum())
        if total > best + 1e-9:
            best, centres = total, found
    return centres


def _reference(
    reference: Mapping[str, float] | None, groups: list[str], assigned: npt.NDArray[np.int64]
) -> tuple[Array, str]:
    if reference is None:
        return np.bincount(assigned, minlength=len(groups)) / len(assigned), "identity pictures"
    if set(reference) != set(groups):
        raise DataError(f"the reference is for {sorted(reference)}; the groups are {sorted(groups)}")
    goal = np.array([reference[name] for name in groups], dtype=np.float64)
    if goal.min() < 0 or abs(float(goal.sum()) - 1) > 1e-6:
        raise DataError(f"the reference {dict(reference)} is no distribution; its shares must sum to 1")
    return goal, "stated"


def _rows(
    cosines: Array, groups: list[str], targets: Sequence[str], prompts: Sequence[str], names: Sequence[str]
) -> list[AssignedPicture]:
    order = np.sort(cosines, axis=1)
    return [
        AssignedPicture(name, prompt, target, groups[int(row.argmax())], float(two[-1]), float(two[-1] - two[-2]))
        for row, two, target, prompt, name in zip(cosines, order, targets, prompts, names, strict=True)
    ]


def _targets(rows: Sequence[AssignedPicture], groups: list[str], goal: Array, seed: int) -> tuple[TargetBias, ...]:
    from scipy import stats

    found: list[tuple[str, npt.NDArray[np.int64], list[GroupShare]]] = []
    for target in dict.fromkeys(row.target for row in rows):
        own = [row for row in rows if row.target == target]
        prompts = list(dict.fromkeys(row.prompt_id for row in own))
        table = np.zeros((len(prompts), len(groups)), dtype=np.int64)
        for row in own:
            table[prompts.index(row.prompt_id), groups.index(row.group)] += 1
        shares = []
        for column, group in enumerate(groups):
            count, expected = int(table[:, column].sum()), min(max(float(goal[column]), 0.0), 1.0)
            share, size = count / len(own), effective_size(table[:, column], table.sum(axis=1))
            trials = max(int(size), 1)
            p = float(stats.binomtest(min(round(share * trials), trials), trials, expected).pvalue)
            interval = wilson(min(share * size, size), size)
            ratio = share / expected if expected else None
            shares.append(GroupShare(group, count, share, interval, expected, ratio, min(p, 1.0), 1.0, ""))
        found.append((target, table, shares))
    adjusted = iter(holm([each.p for _, _, shares in found for each in shares]))
    return tuple(
        TargetBias(
            target,
            int(table.sum()),
            len(table),
            tuple(_found(each, next(adjusted)) for each in shares),
            estimate_entropy(table.tolist(), resamples=RESAMPLES, seed=seed),
        )
        for target, table, shares in found
    )


def _found(share: GroupShare, p_holm: float) -> GroupShare:
    from dataclasses import replace

    low, high = share.interval
    finding: Literal["over", "under", ""] = ""
    if p_holm < 0.05 and not low <= share.reference <= high:
        finding = "over" if share.share > share.reference else "under"
    return replace(share, p_holm=p_holm, finding=finding)


def _composition(
    assigned: npt.NDArray[np.int64], groups: list[str], names: Sequence[str], labels: list[str]
) -> dict[str, dict[str, float]]:
    found = {}
    for code, group in enumerate(groups):
        inside = [name for name, place in zip(names, assigned, strict=True) if place == code]
        found[group] = {label: inside.count(label) / len(inside) for label in labels if label in inside}
    return found
