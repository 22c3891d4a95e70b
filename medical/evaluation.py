"""One set of numbers for ours and every baseline, with intervals over patients."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlabeled.core import evaluation as core
from unlabeled.core.evaluation import Estimate
from unlabeled.medical._finetuning import Decision

SAMPLES = 300
METRICS = (
    "AUROC",
    "accuracy",
    "balanced accuracy",
    "sensitivity",
    "specificity",
    "sensitivity at the 95 % point",
    "specificity at the 95 % point",
    "calibration error",
)


class Scored(NamedTuple):
    """One method's probabilities (N,) on unseen pictures, and how it decides."""

    probability: NDArray[np.float64]
    decision: Decision


def metrics(
    labels: NDArray[np.int64], scored: Scored, *, patients: NDArray[np.str_], samples: int = SAMPLES
) -> dict[str, Estimate]:
    """:data:`METRICS` by name, each with a 95 % bootstrap interval over patients.

    Thresholds are those that were chosen on held-out pictures before; none is moved here.
    """
    return {
        name: core.bootstrap(measure, labels, scored.probability, groups=patients, samples=samples)
        for name, measure in _measures(scored.decision).items()
    }


def point_metrics(labels: NDArray[np.int64], scored: Scored) -> dict[str, float]:
    """The same numbers without intervals."""
    return {name: measure(labels, scored.probability) for name, measure in _measures(scored.decision).items()}


def auroc_gain(
    labels: NDArray[np.int64],
    ours: NDArray[np.float64],
    theirs: NDArray[np.float64],
    *,
    patients: NDArray[np.str_],
    samples: int = SAMPLES,
) -> Estimate:
    """Our AUROC minus theirs, paired over the same patients."""

    def difference(y: NDArray[np.int64], a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        return core.roc_auc(y, a) - core.roc_auc(y, b)

    return core.bootstrap(difference, labels, ours, theirs, groups=patients, samples=samples)


def _measures(decision: Decision) -> dict[str, Callable[..., float]]:
    plain, sensitive = decision.threshold, decision.sensitive_threshold
    return {
        "AUROC": core.roc_auc,
        "accuracy": lambda y, p: core.accuracy(y, p >= plain),
        "balanced accuracy": lambda y, p: core.balanced_accuracy(y, p >= plain),
        "sensitivity": lambda y, p: core.sensitivity_specificity(y, p >= plain)[0],
        "specificity": lambda y, p: core.sensitivity_specificity(y, p >= plain)[1],
        "sensitivity at the 95 % point": lambda y, p: core.sensitivity_specificity(y, p >= sensitive)[0],
        "specificity at the 95 % point": lambda y, p: core.sensitivity_specificity(y, p >= sensitive)[1],
        "calibration error": core.expected_calibration_error,
    }
