"""The pretraining of a detector's encoders: which there are, what is taught, and what follows it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unlabeled.core import budget
from unlabeled.core.errors import CollapseError
from unlabeled.core.progress import say
from unlabeled.core.training import History
from unlabeled.fraud.features import PlainFeatures
from unlabeled.fraud.fields import Part
from unlabeled.fraud.history_model import HistoryModel, Size
from unlabeled.fraud.readers import DAY, Transactions
from unlabeled.fraud.roles import Roles
from unlabeled.fraud.unsupervised import Unsupervised

if TYPE_CHECKING:
    from unlabeled.fraud.detector import FraudDetector

Log = Callable[[dict[str, float], int], None]
Judge = Callable[[HistoryModel], float]
# Payments of training on which the scales of scores are made.
_SCALED_ON = 20_000


def learn(
    detector: "FraudDetector",
    known: Transactions,
    models: Mapping[str, HistoryModel],
    *,
    asked: NDArray[np.int8] | None,
    state: Path | None,
    log: Log | None,
    judge: Judge | None,
) -> None:
    """See :meth:`FraudDetector.pretrain`; goes on from what :func:`begin` began."""
    everything = np.ones(len(known), dtype=bool)
    histories: dict[str, History] = {}
    try:
        for name, model in models.items():
            histories[name] = model.pretrain(
                known,
                everything,
                asked=asked,
                state=state,
                log=_prefixed(log, name) if histories else log,
                judge=None if judge is None else lambda model=model: judge(model),  # type: ignore[misc]
                label=f"learning {name}",
            )
    except CollapseError as error:
        if error.history is not None:
            untaught = [model for name, model in models.items() if name not in histories][1:]
            for model in untaught:
                model.lesson(known)
            end(detector, known, {**histories, name: error.history})
        raise
    if log is not None:
        trained = histories.values()
        log(budget.totals([h.predicted for h in trained], [h.spent for h in trained]), 0)
    end(detector, known, histories)


def fresh(detector: "FraudDetector", roles: Roles) -> dict[str, HistoryModel]:
    """An encoder for each kind of history that the table has, or one for payments that stand alone."""
    parts: list[Part | None] = [p for p in ("entity", "counterparty") if getattr(roles, p) is not None]
    names = {"entity": "cards", "counterparty": "merchants", None: "payments"}
    if not parts and detector.task != "events":
        left = "'events', with random fields" if detector.masking == "run" else "'events'"
        say(f"payments stand alone here: there is no history for '{detector.task}', and the task stays {left}")
    size, seed = detector.size or Size(), detector.random_state
    return {
        names[part]: HistoryModel(part, size=size, question=detector.question, seed=seed) for part in parts or [None]
    }


def begin(detector: "FraudDetector", known: Transactions) -> dict[str, HistoryModel]:
    """Plain features and fresh encoders for payments without labels."""
    models = fresh(detector, known.roles)
    detector.models_ = list(models.values())
    detector.roles_, detector.classes_ = known.roles, np.array([0, 1])
    plain = PlainFeatures(label_delay=detector.label_delay_days * DAY, risk=False)
    detector.plain_ = plain.fit(known, np.ones(len(known), dtype=bool))
    return models


def end(detector: "FraudDetector", known: Transactions, histories: Mapping[str, History]) -> None:
    """The detector counts as pretrained, and as taught nothing about fraud."""
    detector.history_ = dict(histories)
    _fit_scales(detector, known)
    detector.fitted_ = None
    detector.baseline_ = None
    detector.manifest_ = {"pretraining_data": known.fingerprint(), "payments": len(known)}


def _fit_scales(detector: "FraudDetector", known: Transactions) -> None:
    """Principal components of the states and the scale of the unsupervised score, on (a sample of) training."""
    detector.components_ = []
    count = min(len(known), _SCALED_ON)
    rows = np.sort(np.random.default_rng([detector.random_state, 3]).choice(len(known), count, replace=False))
    columns, readings = detector.features(known, rows)
    for reading in readings:
        middle = reading.state.mean(axis=0)
        _, _, axes = np.linalg.svd(reading.state - middle, full_matrices=False)
        # A copy in plain order: what is saved and read back multiplies in the same way.
        detector.components_.append((middle, np.ascontiguousarray(axes[: detector.embedding].T)))
    detector.unsupervised_ = Unsupervised().fit(columns)


def _prefixed(log: Log | None, name: str) -> Log | None:
    return (
        None
        if log is None
        else lambda values, step: log({f"{name} {key}": value for key, value in values.items()}, step)
    )
