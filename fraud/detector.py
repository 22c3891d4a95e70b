"""The user-facing estimator: learns habits without labels, then fraud from a few."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin

from unlabeled.core.budget import Budget
from unlabeled.core.errors import CheckpointError, DataError
from unlabeled.core.several_kinds import Lesson
from unlabeled.core.training import History
from unlabeled.fraud import _learning as learning
from unlabeled.fraud import _storage, reasons
from unlabeled.fraud._learning import Judge, Log
from unlabeled.fraud.baselines import LightGBM
from unlabeled.fraud.blend import Blend
from unlabeled.fraud.features import stacked
from unlabeled.fraud.history_model import HistoryModel, Reading, Size
from unlabeled.fraud.measures import within_budget
from unlabeled.fraud.readers import Transactions, joined, transactions
from unlabeled.fraud.roles import Roles
from unlabeled.fraud.tasks import SETTINGS, Masking, Question

_FEW_LABELS = 0.5  # below this share of labelled training rows, known-fraud shares say nothing


class FraudDetector(ClassifierMixin, BaseEstimator):
    """Finds fraudulent payments.

    An encoder reads each card's (and each merchant's) history and learns, without labels, to foretell the next
    payment. How far a payment surprises it, field by field, stands beside raw and velocity features in a
    LightGBM model that learns from the labels there are. Until there are any, an unsupervised score ranks; while
    there are few, it is leant on (see :class:`~unlabeled.fraud.blend.Blend`).

    A table is a frame with one payment a row, or :class:`~unlabeled.fraud.Transactions`. What is returned has one
    number a row of a frame (NaN where a row could not be used), or a payment of the transactions.

    Args:
        roles: which column is what; inferred from the pretraining table when ``None``.
        size: of the encoder and of its training.
        task: what it is pretrained on: ``events`` alone, or another task beside it (``events+contrastive``,
            ``+vicreg``, ``+order``, ``+tokens``: :func:`~unlabeled.fraud.tasks.build_task`). Payments that stand alone
            keep to ``events``.
        masking: what pretraining hides: ``random`` fields, those that matter more first (``fields``:
            :func:`~unlabeled.fraud.tasks.importance`), or a ``run`` of whole payments (``events+tokens`` alone).
        mask_ratio, temperature, augmentation: what ``events+tokens`` hides, and of tasks that compare two runs of a
            history.
        embedding: principal components of the encoder's state among the features.
        label_delay_days: days until the label of a payment is known.
        random_state: fixes everything that is drawn.

    Attributes:
        roles_, models_, plain_, history_: learnt by :meth:`pretrain`.
        fitted_: learnt by :meth:`finetune`; ``None`` before.
        baseline_: LightGBM on the plain features with the same labels, kept to be compared with wherever labels
            come with new payments; ``None`` before :meth:`finetune`.
    """

    models_: list[HistoryModel]
    history_: dict[str, History]
    fitted_: Blend | None
    baseline_: LightGBM | None
    manifest_: dict[str, Any]

    def __init__(
        self,
        *,
        roles: Roles | None = None,
        size: Size | None = None,
        task: str = "events",
        masking: Masking = "random",
        mask_ratio: float = 0.25,
        temperature: float = 0.2,
        augmentation: float = 1.0,
        embedding: int = 32,
        label_delay_days: float = 7.0,
        random_state: int = 0,
    ) -> None:
        self.roles = roles
        self.size = size
        self.task = task
        self.masking = masking
        self.mask_ratio, self.temperature, self.augmentation = mask_ratio, temperature, augmentation
        self.embedding = embedding
        self.label_delay_days = label_delay_days
        self.random_state = random_state

    def pretrain(
        self,
        table: pd.DataFrame | Transactions,
        *,
        asked: ArrayLike | None = None,
        state: Path | None = None,
        log: Log | None = None,
        judge: Judge | None = None,
    ) -> "FraudDetector":
        """Learns habits from payments; labels of the table are not looked at.

        Args:
            table: payments of the training period.
            asked: 1 fraud, 0 genuine, -1 unknown, one a row: of at most 128 of them, curves tell on the way how well
                the histories that end with them tell fraud (area under the ROC curve of a linear probe); nothing is
                learnt from them.
            state: folder in which an interrupted pretraining is kept and from which it goes on; remove it
                (:func:`~unlabeled.core.training.forget`) once the detector is saved.
            log: receives ``{curve: value}`` and the step; curves of the second kind of history bear its name.
            judge: asked at most eight times for each kind of history how good its encoder is (higher is better); of
                either kind the best is kept.

        Raises:
            DataError: no such task or masking, too few histories for the task to compare, or fewer than two known
                frauds or genuine payments in ``asked``.
            CheckpointError: ``state`` holds an interrupted pretraining of other data or settings.
            CollapseError: the embeddings of one kind of history no longer tell them apart; this detector has its last
                healthy weights, and kinds that were to come after it are as untaught as they were.
        """
        known = self.unlabelled(table)
        models = learning.begin(self, known)
        labels = None if asked is None else self._labelled(table, asked).label
        learning.learn(self, known, models, asked=labels, state=state, log=log, judge=judge)
        return self

    def lessons(self, table: pd.DataFrame | Transactions) -> dict[str, Lesson]:
        """What :meth:`pretrain` on the same would teach, for :func:`~unlabeled.core.several_kinds.teach_together`;
        :meth:`taught` takes note of it afterwards."""
        known = self.unlabelled(table)
        return {name: model.lesson(known) for name, model in learning.begin(self, known).items()}

    def taught(self, table: pd.DataFrame | Transactions, histories: Mapping[str, History]) -> "FraudDetector":
        """Ends what :meth:`lessons` on the same table began: the encoders count as pretrained."""
        learning.end(self, self.unlabelled(table), histories)
        return self

    def pretraining_cost(self, table: pd.DataFrame | Transactions) -> dict[str, Budget]:
        """What :meth:`pretrain` would cost here, by kind of history; nothing is learnt or kept. The plain features and
        the scales that follow the training are not in it."""
        known = self._read(table, self.roles)
        everything = np.ones(len(known), dtype=bool)
        return {
            name: model.pretraining_cost(known, everything, label=f"learning {name}")
            for name, model in learning.fresh(self, known.roles).items()
        }

    def finetune(self, table: pd.DataFrame | Transactions, y: ArrayLike | None = None) -> "FraudDetector":
        """Learns fraud from the labelled rows of ``table``; the others only serve as history.

        Args:
            table: payments of the training period, all of them, since histories are made of all.
            y: 1 fraud, 0 genuine, -1 unknown, one a row; the table's label column when ``None``.

        Raises:
            DataError: no labelled fraud, or no labelled genuine payment.
        """
        known, rows = self.labelled_rows(table, y)
        frauds = int((known.label == 1).sum())
        plain = self._plain_rows(known, rows)
        columns = plain | self._learnt(known, rows)[0]
        self.feature_names_ = list(columns)
        rarity = self.unsupervised_.score(columns)
        self.fitted_ = Blend(seed=self.random_state).fit(stacked(columns), rarity, known.label[rows])
        self.baseline_ = LightGBM(seed=self.random_state).fit(stacked(plain), known.label[rows])
        self.manifest_ = {
            **self.manifest_,
            "labelled_frauds": frauds,
            "labelled_genuine": len(rows) - frauds,
            "labelled_until": float(known.time[rows].max()),
        }
        return self

    def labelled_rows(
        self, table: pd.DataFrame | Transactions, y: ArrayLike | None = None
    ) -> tuple[Transactions, NDArray[np.int64]]:
        """The payments with their labels, and which of them are labelled; from now on plain features are made of labels
        too if enough are known. As :meth:`finetune`, which begins with it."""
        self._check_pretrained()
        known = self._labelled(table, y)
        rows = np.flatnonzero(known.label >= 0)
        frauds = int((known.label == 1).sum())
        if not frauds or frauds == len(rows):
            raise DataError(
                f"fine-tuning needs labelled frauds and labelled genuine payments, got {frauds} and "
                f"{len(rows) - frauds}: add labels (1 fraud, 0 genuine), or score without any"
            )
        self.plain_.risk = "counterparty" in known.frame and len(rows) >= _FEW_LABELS * len(known)
        return known, rows

    def fit(self, table: pd.DataFrame | Transactions, y: ArrayLike | None = None) -> "FraudDetector":
        """:meth:`pretrain`, then :meth:`finetune` if there are labels."""
        self.pretrain(table)
        known = self._labelled(table, y)
        return self.finetune(table, y) if (known.label == 1).any() else self

    def score(
        self, table: pd.DataFrame | Transactions, *, history: pd.DataFrame | Transactions | None = None
    ) -> NDArray[np.float64]:
        """The higher, the more suspicious: the probability of fraud, or the unsupervised score without labels.

        Each row is judged by what came before it, in ``table`` and ``history``, and by nothing later. Labels in
        either are used only where their delay has passed.

        Args:
            history: earlier payments of the same cards and merchants. A row's score is the same whether the
                rows around it are scored with it or stand in the history.
        """
        return self.explained(table, history=history)[0]

    def predict_proba(
        self, table: pd.DataFrame | Transactions, *, history: pd.DataFrame | Transactions | None = None
    ) -> NDArray[np.float64]:
        """(N, 2): genuine, fraud.

        Raises:
            DataError: not fine-tuned; an unsupervised score is no probability.
        """
        self._check_pretrained()
        if self.fitted_ is None:
            raise DataError("without labelled frauds there are no probabilities: call finetune first, or use score")
        fraud = self.score(table, history=history)
        return np.stack([1 - fraud, fraud], axis=1)

    def predict(
        self, table: pd.DataFrame | Transactions, *, history: pd.DataFrame | Transactions | None = None
    ) -> NDArray[np.int64]:
        """1 where the probability of fraud reaches one half."""
        return (self.predict_proba(table, history=history)[:, 1] >= 0.5).astype(np.int64)

    def explain(
        self,
        table: pd.DataFrame | Transactions,
        *,
        history: pd.DataFrame | Transactions | None = None,
        rows: ArrayLike | None = None,
    ) -> list[str]:
        """Why a row stands out, in words, for ``rows`` (positions; all when ``None``)."""
        _, why = self.explained(table, history=history)
        read = self._read(table, self.roles_)
        words = np.full(read.given, "skipped: see the table of skipped rows", dtype=object)
        positions = read.frame["row"].to_numpy() if isinstance(table, pd.DataFrame) else np.arange(len(read))
        words[positions] = why(np.arange(len(read)))
        chosen = np.arange(len(words)) if rows is None else np.asarray(rows)
        return [str(word) for word in words[chosen]]

    def explained(
        self, table: pd.DataFrame | Transactions, *, history: pd.DataFrame | Transactions | None = None
    ) -> tuple[NDArray[np.float64], Callable[[NDArray[np.int64]], list[str]]]:
        """Scores, and a function that gives the reasons of some payments (positions among those that could be
        used), so that only the alerts' reasons are put into words."""
        self._check_pretrained()
        wanted = self._read(table, self.roles_)
        everything, rows = wanted, np.arange(len(wanted))
        if history is not None:
            everything, part = joined([self._read(history, self.roles_), wanted])
            rows = np.flatnonzero(part == 1)
        columns, readings = self.features(everything, rows)
        scores = self._score(columns)

        def why(positions: NDArray[np.int64]) -> list[str]:
            weights = None
            if self.fitted_ is not None and len(positions):
                x = stacked({name: values[positions] for name, values in columns.items()})
                weights = self.fitted_.contributions(x)
            return reasons.in_words(self.models_, readings, columns, everything, rows, positions, weights)

        return (wanted.to_given(scores) if isinstance(table, pd.DataFrame) else scores), why

    def alerts(self, scores: ArrayLike, table: Transactions, *, per_day: int) -> NDArray[np.int64]:
        """Positions of the ``per_day`` highest scores of each day, in time order."""
        return np.flatnonzero(within_budget(scores, table.day, per_day=per_day))

    def save(self, folder: str | Path, **manifest: Any) -> Path:
        """Writes a model folder (safetensors, JSON, LightGBM's text); further entries go into its manifest."""
        self._check_pretrained()
        return _storage.save(self, folder, manifest)

    @staticmethod
    def load(folder: str | Path) -> "FraudDetector":
        """The inverse of :meth:`save`.

        Raises:
            CheckpointError: not a model of this kind, or damaged.
        """
        return _storage.load(FraudDetector, folder)

    def score_rows(self, table: Transactions, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Scores of some payments of a table, the others being their history."""
        self._check_pretrained()
        return self._score(self.features(table, rows)[0])

    def plain_columns(self, table: Transactions) -> dict[str, NDArray]:
        """The features without the encoder, as the baselines read them."""
        return self.plain_.columns(table)

    def features(self, table: Transactions, rows: NDArray[np.int64]) -> tuple[dict[str, NDArray], list[Reading]]:
        """Every feature of some rows by name, and the encoders' readings of them."""
        learnt, readings = self._learnt(table, rows)
        return self._plain_rows(table, rows) | learnt, readings

    def _plain_rows(self, table: Transactions, rows: NDArray[np.int64]) -> dict[str, NDArray]:
        return {name: values[rows] for name, values in self.plain_.columns(table).items()}

    def _learnt(self, table: Transactions, rows: NDArray[np.int64]) -> tuple[dict[str, NDArray], list[Reading]]:
        """What the encoders add to the plain features: surprises and states."""
        made: dict[str, NDArray] = {}
        readings = []
        for i, model in enumerate(self.models_):
            learnt, reading = model.features(table, rows)
            made |= learnt
            if len(self.components_) > i:
                middle, axes = self.components_[i]
                made |= {f"{model.name} state {k}": v for k, v in enumerate(((reading.state - middle) @ axes).T)}
            readings.append(reading)
        return made, readings

    def unlabelled(self, table: pd.DataFrame | Transactions) -> Transactions:
        """The payments that can be used, without what is known of them.

        Raises:
            DataError: there is no such task, or no such payments.
        """
        self.question.check()  # before a large table is read in vain
        known = self._read(table, self.roles)
        return known.with_labels(np.full(len(known), -1))

    @property
    def question(self) -> Question:
        """What the encoders are pretrained on."""
        return Question(**{name: getattr(self, name) for name in SETTINGS})

    def _score(self, columns: Mapping[str, NDArray]) -> NDArray[np.float64]:
        if self.fitted_ is None:
            return self.unsupervised_.score(columns)
        if list(columns) != self.feature_names_:
            gone = sorted(set(self.feature_names_) ^ set(columns))
            raise CheckpointError(f"the model was fitted on other features than this table gives: {', '.join(gone)}")
        return self.fitted_.score(stacked(columns), self.unsupervised_.score(columns))

    def _read(self, table: pd.DataFrame | Transactions, roles: Roles | None) -> Transactions:
        return table if isinstance(table, Transactions) else transactions(table, roles)

    def _labelled(self, table: pd.DataFrame | Transactions, y: ArrayLike | None) -> Transactions:
        known = self._read(table, self.roles_)
        if y is None:
            return known
        labels = np.asarray(y)
        if isinstance(table, pd.DataFrame):
            if labels.shape != (known.given,):
                raise DataError(f"{known.given} rows need as many labels, got an array of shape {labels.shape}")
            labels = labels[known.frame["row"].to_numpy()]
        return known.with_labels(labels)

    def _check_pretrained(self) -> None:
        if not hasattr(self, "unsupervised_"):
            raise DataError("this FraudDetector has learnt nothing yet: call pretrain or fit first")
