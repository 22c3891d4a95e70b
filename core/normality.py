"""How far from normal: distances of embeddings, normalised on held-out normal data, and their fusion.

A normal model is fitted on one normal part and normalised on another, later one: distances to the very
points that a model was fitted on are too small.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class Detector(Protocol):
    """A higher ``score`` is less normal."""

    def fit(self, normal: Floats) -> Any: ...

    def score(self, x: Floats) -> Floats: ...


class Mahalanobis:
    """Distance to the mean under a shrunk covariance (Ledoit and Wolf, 2004), divided by sqrt(dimensions)."""

    def fit(self, normal: Floats) -> "Mahalanobis":
        from sklearn.covariance import LedoitWolf

        estimate = LedoitWolf().fit(normal)
        self.mean_: Floats = estimate.location_
        self.precision_: Floats = estimate.precision_
        return self

    def score(self, x: Floats) -> Floats:
        # Row by row: the result of a row must not depend on which other rows come with it.
        centred = x - self.mean_
        return np.array([np.sqrt(max(0.0, row @ self.precision_ @ row) / len(row)) for row in centred])


class NearestNeighbour:
    """Mean distance to the ``k`` nearest normal points, after standardising each dimension.

    Args:
        k: neighbours; at most the number of normal points.
    """

    def __init__(self, k: int = 5) -> None:
        self.k = k

    def fit(self, normal: Floats) -> "NearestNeighbour":
        self.mean_ = normal.mean(axis=0)
        self.scale_ = normal.std(axis=0) + 1e-9
        self.points_ = (normal - self.mean_) / self.scale_
        return self

    def score(self, x: Floats) -> Floats:
        k = min(self.k, len(self.points_))
        scores = np.empty(len(x))
        for i, row in enumerate((x - self.mean_) / self.scale_):
            distance = np.sqrt(((self.points_ - row) ** 2).sum(axis=1))
            scores[i] = np.partition(distance, k - 1)[:k].mean()
        return scores


class PyODDetector:
    """Any PyOD detector, by instance: ``PyODDetector(IForest(random_state=0))``."""

    def __init__(self, detector: Any) -> None:
        self.detector = detector

    def fit(self, normal: Floats) -> "PyODDetector":
        self.detector.fit(normal)
        return self

    def score(self, x: Floats) -> Floats:
        return np.asarray(self.detector.decision_function(x), dtype=float)


class NormalModel:
    """Several scores of the same windows on one scale: zero is usual, one is a usual spread above it.

    Each score is centred on the median of held-out normal data and divided by its robust spread
    (1.4826 x the median absolute deviation); the fused score is the mean of the parts.

    Args:
        detectors: by name; fitted on embeddings.
    """

    def __init__(self, detectors: Mapping[str, Detector]) -> None:
        self.detectors = dict(detectors)

    def fit(
        self, normal: ArrayLike, held_out: ArrayLike, others: Mapping[str, ArrayLike] | None = None
    ) -> "NormalModel":
        """Fits on ``normal`` (N, D), normalises on ``held_out`` (M, D), both from the normal period only.

        Args:
            others: further scores of the held-out windows that need no fitting (reconstruction error,
                kurtosis), by name, each (M,).
        """
        reference, later = _matrix(normal), _matrix(held_out)
        self.scale_: dict[str, tuple[float, float]] = {}
        for name, detector in self.detectors.items():
            detector.fit(reference)
            self.scale_[name] = robust_scale(detector.score(later))
        for name, values in (others or {}).items():
            self.scale_[name] = robust_scale(values)
        return self

    def parts(self, x: ArrayLike, others: Mapping[str, ArrayLike] | None = None) -> dict[str, Floats]:
        """Each score on the common scale, by name, (N,)."""
        matrix = _matrix(x)
        raw: dict[str, Floats] = {name: detector.score(matrix) for name, detector in self.detectors.items()}
        raw |= {name: np.asarray(values, dtype=float) for name, values in (others or {}).items()}
        if set(raw) != set(self.scale_):
            raise ValueError(f"fitted on the scores {sorted(self.scale_)}, got {sorted(raw)}")
        return {name: (values - self.scale_[name][0]) / self.scale_[name][1] for name, values in raw.items()}

    def score(self, x: ArrayLike, others: Mapping[str, ArrayLike] | None = None) -> Floats:
        """The fused score, (N,)."""
        return np.mean(list(self.parts(x, others).values()), axis=0)


def robust_scale(values: ArrayLike) -> tuple[float, float]:
    """Median and 1.4826 x median absolute deviation; the spread is never zero."""
    v = np.asarray(values, dtype=float)
    middle = float(np.median(v))
    spread = 1.4826 * float(np.median(np.abs(v - middle)))
    return middle, max(spread, 1e-6 * max(1.0, abs(middle)))


def _matrix(x: ArrayLike) -> Floats:
    matrix = np.asarray(x, dtype=float)
    if matrix.ndim != 2:
        raise ValueError(f"expected embeddings of shape (N, D), got {matrix.shape}")
    return matrix
