"""Numbers that say whether embeddings still tell inputs apart. Pure functions of arrays.

A loss cannot say it: of a collapsed encoder, which answers every input alike, it may be as low as can be.

Shape suffixes: n row, d dimension, k neighbour, c class.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlabeled.core.evaluation import roc_auc

Floats = NDArray[np.float64]


def effective_rank(embeddings: ArrayLike) -> float:
    """How many directions the embeddings (N, D) use, from 1 to min(N, D); 0 if they are all zero.

    ``exp(-sum_k p_k log p_k)`` with ``p_k = s_k / sum_j s_j`` and ``s`` the singular values, not centred: RankMe
    (Garrido et al., ICML 2023, equation 1, after Roy and Vetterli, 2007). The paper adds 1e-7 to each ``p_k``; here
    ``0 log 0`` is 0 instead, which keeps the number within its bounds.

    Raises:
        ValueError: not a matrix of finite numbers.
    """
    s = np.linalg.svd(_matrix(embeddings), compute_uv=False)
    total = s.sum()
    if total == 0:
        return 0.0
    p = s[s > 0] / total
    return float(np.exp(-(p * np.log(p)).sum()))


def deviation(embeddings: ArrayLike) -> float:
    """Spread of the l2-normalised embeddings (N, D), from 0 (all the same direction) to 1 (all over the sphere).

    ``sqrt(D) * mean_d std_n(z_nd / |z_n|)``: the measure of Chen and He, "Exploring simple Siamese representation
    learning", CVPR 2021, section 4.1, divided by the ``1 / sqrt(D)`` that it has on a uniform sphere.

    Raises:
        ValueError: not a matrix of finite numbers.
    """
    z_nd = _on_sphere(_matrix(embeddings))
    return float(np.sqrt(z_nd.shape[1]) * z_nd.std(axis=0).mean())


def alignment(one: ArrayLike, other: ArrayLike) -> float:
    """Mean squared distance of two views of each row, both (N, D), on the sphere: 0 (same) to 4 (opposite).

    ``mean_n |x_n / |x_n| - y_n / |y_n||^2`` (Wang and Isola, ICML 2020, with alpha = 2). Of use beside
    :func:`uniformity` only: collapsed embeddings are aligned perfectly.

    Raises:
        ValueError: the views differ in shape.
    """
    x_nd, y_nd = _matrix(one), _matrix(other)
    if x_nd.shape != y_nd.shape:
        raise ValueError(f"two views of the same rows have one shape, got {x_nd.shape} and {y_nd.shape}")
    return float(((_on_sphere(x_nd) - _on_sphere(y_nd)) ** 2).sum(axis=1).mean())


def uniformity(embeddings: ArrayLike) -> float:
    """How evenly embeddings (N, D) cover the sphere: 0 when all are the same, lower (to -8) is more even.

    ``log mean over pairs n < m of exp(-2 |z_n - z_m|^2)`` (Wang and Isola, ICML 2020, with t = 2).

    Raises:
        ValueError: fewer than two rows.
    """
    z_nd = _on_sphere(_matrix(embeddings))
    if len(z_nd) < 2:
        raise ValueError("uniformity is about pairs of rows, got one row")
    squared = np.clip(2 - 2 * z_nd @ z_nd.T, 0, None)[np.triu_indices(len(z_nd), k=1)]
    return float(np.log(np.exp(-2 * squared).mean()))


def nearest_neighbours_accuracy(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    test: tuple[ArrayLike, ArrayLike] | None = None,
    k: int = 5,
    temperature: float = 0.07,
) -> float:
    """Share of rows whose label their ``k`` nearest labelled neighbours tell (Wu et al., CVPR 2018, section 3.4).

    Neighbours vote for their class with weight ``exp(cosine similarity / temperature)``.

    Args:
        embeddings: (N, D).
        labels: (N,).
        test: embeddings (M, D) and labels (M,) to judge; without it each row is judged by all others.
        k: neighbours, at most as many as there are.

    Raises:
        ValueError: lengths differ, or there are no neighbours.
    """
    z_nd, y = _on_sphere(_matrix(embeddings)), _labels(labels, embeddings)
    judged, truth = (z_nd, y) if test is None else (_on_sphere(_matrix(test[0])), _labels(test[1], test[0]))
    similarity = judged @ z_nd.T
    if test is None:
        np.fill_diagonal(similarity, -np.inf)  # nobody is a neighbour of their own
    k = min(k, len(z_nd) - (test is None))
    if k < 1:
        raise ValueError("a nearest-neighbour probe needs at least one neighbour")
    nearest_nk = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    weight_nk = np.exp((np.take_along_axis(similarity, nearest_nk, axis=1) - 1) / temperature)
    classes = np.unique(y)
    votes_nc = np.stack([(weight_nk * (y[nearest_nk] == c)).sum(axis=1) for c in classes], axis=1)
    return float((classes[votes_nc.argmax(axis=1)] == truth).mean())


def linear_probe(embeddings: ArrayLike, labels: ArrayLike, *, ridge: float = 1e-2) -> float:
    """What a linear model on the embeddings (N, D) tells about rows it did not see, from a few labels (N,).

    Area under the ROC curve for two classes (the larger label is positive), accuracy for more. Ridge regression
    on +1/-1 targets, one a class, each row predicted by the fit without it. All N fits come from one by the PRESS
    identity ``y_n - f_without_n(x_n) = (y_n - f(x_n)) / (1 - H_nn)`` (Allen, 1974), H the hat matrix
    ``1/N + X (X'X + l I)^-1 X'`` of the centred embeddings; the penalty ``l`` is ``ridge`` times the mean over rows
    of the squared length of X, so that neither scale nor rotation of the embeddings matters.

    Raises:
        ValueError: lengths differ, or a class has fewer than two rows.
    """
    x_nd, y = _matrix(embeddings), _labels(labels, embeddings)
    classes, counts = np.unique(y, return_counts=True)
    if len(classes) < 2 or counts.min() < 2:
        got = ", ".join(f"{count} x {name}" for name, count in zip(classes, counts, strict=True))
        raise ValueError(f"a linear probe needs two classes with two rows each, got {got}")
    x_nd = x_nd - x_nd.mean(axis=0)
    penalty = max(ridge * float((x_nd**2).sum()) / len(x_nd), 1e-12)
    u, s, _ = np.linalg.svd(x_nd, full_matrices=False)
    hat = 1 / len(y) + (u * (s**2 / (s**2 + penalty))) @ u.T
    target_nc = np.where(y[:, None] == classes, 1.0, -1.0)
    unseen_nc = target_nc - (target_nc - hat @ target_nc) / (1 - np.diag(hat))[:, None]
    if len(classes) == 2:
        return roc_auc(y == classes[1], unseen_nc[:, 1])
    return float((classes[unseen_nc.argmax(axis=1)] == y).mean())


def _matrix(x: ArrayLike) -> Floats:
    matrix = np.asarray(x, dtype=float)
    if matrix.ndim != 2 or not matrix.size:
        raise ValueError(f"expected embeddings of shape (N, D), got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError("embeddings must be finite numbers, got NaN or infinity")
    return matrix


def _labels(labels: ArrayLike, embeddings: ArrayLike) -> NDArray:
    y = np.asarray(labels)
    if y.shape != (len(np.asarray(embeddings)),):
        raise ValueError(f"expected one label a row, got {y.shape} for {len(np.asarray(embeddings))} rows")
    return y


def _on_sphere(x_nd: Floats) -> Floats:
    """Rows of length 1; a row of zeros stays where it is."""
    length = np.linalg.norm(x_nd, axis=1, keepdims=True)
    return x_nd / np.where(length > 0, length, 1.0)
