"""PyOD's detectors by name, as one more part of a machine's score (Zhao, Nasrullah and Li, JMLR 2019)."""

import inspect
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.errors import DataError
from unlabeled.core.normality import PyODDetector

# Those that learn from a few dozen points and judge a single one in milliseconds.
NAMES = ("ABOD", "COPOD", "ECOD", "GMM", "HBOS", "IForest", "KDE", "KNN", "LODA", "LOF", "MCD", "OCSVM", "PCA")


class _OneByOne(PyODDetector):
    """Some rank the points that are scored among each other too: a score must not depend on who comes with it."""

    def score(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([super(_OneByOne, self).score(row[None]) for row in x])


def part_name(detector: str) -> str:
    """What the part is called in tables."""
    return f"pyod {detector}"


def named(detector: str, *, seed: int) -> PyODDetector:
    """A fresh one with PyOD's defaults.

    Raises:
        DataError: PyOD has none of that name, or none that fits here.
    """
    found = {name.lower(): name for name in NAMES}.get(detector.lower())
    if found is None:
        raise DataError(f"{detector!r} is no detector that can be taken here; there are {', '.join(NAMES)}")
    kind = getattr(import_module(f"pyod.models.{found.lower()}"), found)
    seeded = "random_state" in inspect.signature(kind).parameters
    return _OneByOne(kind(random_state=seed) if seeded else kind())
