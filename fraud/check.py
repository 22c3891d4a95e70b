"""A first honest look after fine-tuning: learn from the earlier labels, judge the later ones."""

import copy
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlabeled.fraud.baselines import baseline_scores
from unlabeled.fraud.detector import FraudDetector
from unlabeled.fraud.readers import Transactions

EARLY_SHARE = 0.7
OURS = "ours"


class ForwardCheck(NamedTuple):
    """Scores of the later labelled payments by what the earlier labels taught.

    Attributes:
        late: the later labelled payments, with their labels.
        scores: by name, ours first; each (L,).
        early_frauds: labelled frauds that taught.
    """

    late: Transactions
    scores: dict[str, NDArray[np.float64]]
    early_frauds: int


def forward_check(detector: FraudDetector, known: Transactions) -> ForwardCheck | None:
    """Fine-tunes a copy of a pretrained detector, and the baselines, on the labels before the moment by which 70 %
    of the labelled frauds had happened, and scores the labelled payments from that moment on.

    The encoder may have read the later payments, without labels. ``None`` where a side would lack frauds or genuine
    payments.
    """
    frauds = np.sort(known.time[known.label == 1])
    if len(frauds) < 2:
        return None
    cut = frauds[min(int(np.ceil(EARLY_SHARE * len(frauds))), len(frauds) - 1)]
    before = known.time < cut
    early = known.with_labels(np.where(before, known.label, -1))
    rows = np.flatnonzero(~before & (known.label >= 0))
    taught, asked = early.label[early.label >= 0], known.label[rows]
    if min(len(np.unique(taught)), len(np.unique(asked))) < 2:
        return None
    trial = copy.copy(detector)
    trial.plain_ = copy.copy(detector.plain_)
    trial.finetune(early)
    scores = {OURS: trial.score_rows(early, rows)}
    scores |= baseline_scores(
        trial.plain_columns(early),
        early.label,
        training=before,
        rows=rows,
        seed=detector.random_state,
        lightgbm=trial.baseline_,
    )
    return ForwardCheck(known.take(rows), scores, int((taught == 1).sum()))
