"""Is a case like those that a model was made of? A normal model with p-values, kept as tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from unlabeled.core.calibration import p_values
from unlabeled.core.conformal import needed
from unlabeled.core.normality import Mahalanobis

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Novelty:
    """Mahalanobis distance of embeddings to those of familiar cases, judged by the distances of held-out ones.

    Only a mean, a covariance and the held-out distances are kept, never the embedding of a person.

    Attributes:
        detector: fitted on familiar cases.
        held_out: (M,) its scores of familiar cases of other groups (patients).
        groups: (M,) number of the group of each.
        rate: share of familiar cases that is flagged.
        facts: what it was fitted on (for reports).
    """

    detector: Mahalanobis
    held_out: Floats
    groups: NDArray[np.int64]
    rate: float
    facts: Mapping[str, Any]

    @property
    def can_flag(self) -> bool:
        """Whether there are enough held-out groups to promise the rate."""
        return len(np.unique(self.groups)) >= needed(self.rate)

    def score(self, embeddings: ArrayLike) -> Floats:
        """Distance (N,) of embeddings (N, D); higher is stranger. Row by row the same whatever comes with it."""
        return self.detector.score(np.asarray(embeddings, dtype=float))

    def p_values(self, scores: ArrayLike) -> Floats:
        """Of scores (N,): at or below ``rate`` for at most that share of new familiar cases."""
        return p_values(self.held_out, scores, groups=self.groups)

    def flagged(self, p: Floats) -> NDArray[np.bool_]:
        """Which p-values (N,) raise the flag."""
        raised: NDArray[np.bool_] = p <= self.rate
        return raised

    def tensors(self) -> dict[str, Tensor]:
        """What :meth:`of_tensors` reads back, in double precision."""
        arrays = {
            "mean": self.detector.mean_,
            "precision": self.detector.precision_,
            "held_out": self.held_out,
            "groups": self.groups,
        }
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}

    def manifest(self) -> dict[str, Any]:
        return {"detector": "mahalanobis", "rate": self.rate, "facts": dict(self.facts)}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> "Novelty":
        detector = Mahalanobis()
        detector.mean_, detector.precision_ = tensors["mean"].numpy(), tensors["precision"].numpy()
        return cls(
            detector=detector,
            held_out=tensors["held_out"].numpy(),
            groups=tensors["groups"].numpy(),
            rate=manifest["rate"],
            facts=manifest["facts"],
        )


def fit_novelty(
    familiar: ArrayLike,
    held_out: ArrayLike,
    *,
    groups: ArrayLike,
    rate: float = 0.05,
    facts: Mapping[str, Any] | None = None,
) -> Novelty:
    """Fits on ``familiar`` (N, D), calibrates on ``held_out`` (M, D) of other groups (patients).

    Args:
        groups: (M,) who belongs together among the held-out ones; kept as numbers.
        rate: share of familiar cases that may be flagged.
    """
    detector = Mahalanobis().fit(np.asarray(familiar, dtype=float))
    _, numbers = np.unique(np.asarray(groups), return_inverse=True)
    scores = detector.score(np.asarray(held_out, dtype=float))
    return Novelty(detector=detector, held_out=scores, groups=numbers, rate=rate, facts=dict(facts or {}))
