"""One set of numbers for ours and every baseline, with intervals over patients."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlabeled.core import evaluation as core
from unlabeled.core.evaluation import Estimate
from unlabeled.core.intervals import square_and_add
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

    Thresholds are those that were chosen on held-out pictures before; none is moved here. Where all pictures are right
    (or wrong), the intervals come from the number of patients (:func:`unlabeled.core.evaluation.bootstrap`).
    """
    return {
        name: core.bootstrap(measure, labels, said, groups=patients, samples=samples)
        for name, (measure, said) in _measures(scored).items()
    }


def point_metrics(labels: NDArray[np.int64], scored: Scored) -> dict[str, float]:
    """The same numbers without intervals."""
    return {name: measure(labels, said) for name, (measure, said) in _measures(scored).items()}


def over_patients(
    hit: NDArray[Any], patients: NDArray[Any], *, among: NDArray[np.bool_] | None = None, samples: int = SAMPLES
) -> Estimate:
    """Share of pictures (N,), of those that are ``among``, with a 95 % interval over patients; nan where none are."""
    rows = np.ones(len(hit), dtype=bool) if among is None else among
    if not rows.any():
        return Estimate(float("nan"), float("nan"), float("nan"))
    return core.bootstrap(core.share, np.asarray(hit)[rows], groups=patients[rows], samples=samples)


def average_precision(
    labels: NDArray[np.int64], scored: Scored, *, patients: NDArray[np.str_], samples: int = SAMPLES
) -> Estimate:
    """Area under precision by recall; without any idea it is the share of the ill."""
    return core.bootstrap(core.average_precision, labels, scored.probability, groups=patients, samples=samples)


def auroc_gain(
    labels: NDArray[np.int64],
    ours: NDArray[np.float64],
    theirs: NDArray[np.float64],
    *,
    patients: NDArray[np.str_],
    samples: int = SAMPLES,
) -> Estimate:
    """Our AUROC minus theirs, paired over the same patients.

    Where no draw moves it (both are 1, say), its interval comes from those of the two AUROCs, taken for independent:
    wider than need be.
    """

    def difference(y: NDArray[np.int64], a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        return core.roc_auc(y, a) - core.roc_auc(y, b)

    gain = core.bootstrap(difference, labels, ours, theirs, groups=patients, samples=samples)
    if gain.high > gain.low:
        return gain
    a, b = (core.bootstrap(core.roc_auc, labels, p, groups=patients, samples=samples) for p in (ours, theirs))
    parts = (a.value, (a.low, a.high)), (-b.value, (-b.high, -b.low))
    return Estimate(gain.value, *square_and_add(gain.value, *parts))


def _measures(scored: Scored) -> dict[str, tuple[core.Metric, NDArray[Any]]]:
    """What each metric compares the labels with."""
    p, decision = scored
    plain, sensitive = p >= decision.threshold, p >= decision.sensitive_threshold
    return {
        "AUROC": (core.roc_auc, p),
        "accuracy": (core.accuracy, plain),
        "balanced accuracy": (core.balanced_accuracy, plain),
        "sensitivity": (core.sensitivity, plain),
        "specificity": (core.specificity, plain),
        "sensitivity at the 95 % point": (core.sensitivity, sensitive),
        "specificity at the 95 % point": (core.specificity, sensitive),
        "calibration error": (core.expected_calibration_error, p),
    }
