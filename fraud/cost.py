"""What learning from labels will cost, before it is done."""

import copy

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from unlabeled.core.budget import Budget
from unlabeled.fraud.baselines import COMPARISON
from unlabeled.fraud.blend import COST
from unlabeled.fraud.boosting import MEASURED, fit_lightgbm, predicted_cost
from unlabeled.fraud.detector import FraudDetector
from unlabeled.fraud.features import stacked
from unlabeled.fraud.readers import Transactions

# Labelled payments whose features are computed for it; LightGBM then sees them as often as there are labels.
SAMPLE = 2_000


def finetuning_cost(
    detector: FraudDetector, table: pd.DataFrame | Transactions, y: ArrayLike | None = None
) -> list[Budget]:
    """What the trees of :meth:`FraudDetector.finetune` on the same would cost here, and those of the plain LightGBM
    that it is compared with; ``detector`` stays as it is. Features, which come before, are not in it.

    Raises:
        DataError: as in fine-tuning.
    """
    trial = copy.copy(detector)
    trial.plain_ = copy.copy(detector.plain_)
    known, rows = trial.labelled_rows(table, y)
    some = _sample(known.label[rows])
    times = -(-len(rows) // len(some))
    label = np.tile(known.label[rows[some]], times)[: len(rows)]
    columns, _ = trial.features(known, rows[some])
    plain = stacked({name: columns[name] for name in trial.plain_columns(known)})
    found = []
    for x, name in ((stacked(columns), COST), (plain, COMPARISON)):
        many = np.tile(x, (times, 1))[: len(rows)]
        laps: list[float] = []
        fit_lightgbm(many, label, seed=detector.random_state, rounds=MEASURED, laps=laps)
        found.append(predicted_cost(laps, shape=many.shape, label=name))
    return found


def _sample(label: NDArray[np.int8]) -> NDArray[np.int64]:
    """Positions of at most :data:`SAMPLE` labels, spread over all of either kind in the proportion that they have."""
    kinds = [np.flatnonzero(label == kind) for kind in (1, 0)]
    share = min(1.0, SAMPLE / len(label))
    few = [kind[np.linspace(0, len(kind) - 1, max(1, round(share * len(kind)))).astype(int)] for kind in kinds]
    return np.sort(np.concatenate(few))
