"""Knowing whether an encoder learns: measures of embeddings, and a watch over a training."""

from unlabeled.core.audit.collapse import (
    alignment,
    deviation,
    effective_rank,
    linear_probe,
    nearest_neighbours_accuracy,
    uniformity,
)
from unlabeled.core.audit.watch import Health, Watch

__all__ = [
    "Health",
    "Watch",
    "alignment",
    "deviation",
    "effective_rank",
    "linear_probe",
    "nearest_neighbours_accuracy",
    "uniformity",
]
