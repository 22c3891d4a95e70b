"""What the model must beat with the same pictures and the same labels."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.base import clone

from unlabeled.core import checkpoints
from unlabeled.core.errors import DataError
from unlabeled.core.store import Store, chunks
from unlabeled.medical import _finetuning as finetuning
from unlabeled.medical._decisions import HeldOut
from unlabeled.medical._finetuning import Decision, Labelled
from unlabeled.medical._network import CHUNK
from unlabeled.medical.model import PneumoniaModel
from unlabeled.medical.splits import patient_folds
from unlabeled.medical.transforms import standardise

SIDE = 32
# More pictures hardly change the first hundred components, and would not fit into memory.
LEARNT_FROM = 20_000
KIND = "medical.PixelRegression"


def from_scratch(
    model: PneumoniaModel,
    data: Labelled,
    *,
    groups: NDArray[np.str_],
    validation: tuple[NDArray[np.uint8], NDArray[np.int64]] | None = None,
) -> PneumoniaModel:
    """The same network, steps, augmentation and choices as ``model``, but without the pretraining."""
    # There is nothing in it yet that would be worth keeping, or that could teach another.
    fresh: PneumoniaModel = clone(model).set_params(tuning="full", layer_decay=1.0, self_training=False)
    fresh.architecture_ = model.architecture_
    return fresh.finetune(data.images, data.labels, groups=groups, validation=validation)


class PixelRegression:
    """Logistic regression on principal components of the pixels (32 x 32, each picture standardised).

    The components are learnt from every picture at hand, labelled or not, as our pretraining is (from
    :data:`LEARNT_FROM`, evenly spread, where there are more); the regression
    weighs both classes the same. Components are not whitened: with few labels, giving the last one the weight of
    the first costs a great deal (at 50 labels of children's radiographs, validation AUROC .80 against .95).
    Temperature and thresholds are chosen exactly as for the model.

    Args:
        components: principal components (fewer when there are fewer pictures).
        folds: parts by patient when no validation pictures are given.
        seed: fixes the folds and the solver.
    """

    def __init__(self, *, components: int = 100, folds: int = 3, seed: int = 0) -> None:
        self.components, self.folds, self.seed = components, folds, seed

    def fit(
        self,
        unlabelled: NDArray[np.uint8] | Store,
        data: Labelled,
        *,
        groups: NDArray[np.str_],
        validation: tuple[NDArray[np.uint8], NDArray[np.int64]] | None = None,
    ) -> "PixelRegression":
        from sklearn.decomposition import PCA

        some = np.linspace(0, len(unlabelled) - 1, min(len(unlabelled), LEARNT_FROM)).astype(int)
        pixels = _small(unlabelled, some)
        count = min(self.components, len(pixels) - 1, pixels.shape[1])
        if count < 1:
            raise DataError("principal components need at least two pictures")
        pca = PCA(count, random_state=self.seed).fit(pixels)
        self.mean_, self.axes_ = pca.mean_.astype(np.float64), pca.components_.astype(np.float64).T
        x = self._components(data.images)
        self.prior_ = finetuning.prior_logit(data.labels if validation is None else validation[1])
        if validation is not None:
            members = [self._regression(x, data.labels)]
        else:
            fold = patient_folds(groups, data.labels, folds=self.folds, seed=self.seed)
            members = [self._regression(x[fold != f], data.labels[fold != f]) for f in range(self.folds)]
        self.weights_ = np.stack([member.coef_[0] for member in members])
        self.biases_ = np.array([member.intercept_[0] for member in members])
        if validation is not None:
            held_labels, held = validation[1], self._logits(validation[0])
        else:
            each = x @ self.weights_.T + self.biases_ + self.prior_
            held_labels, held = data.labels, each[np.arange(len(x)), fold]
        self.decision_: Decision = finetuning.decide(held_labels, held)
        self.held_: tuple[NDArray[np.int64], NDArray[np.float64]] | None = (held_labels, held)
        return self

    def held_out(self) -> HeldOut:
        """Predictions on pictures that the regression did not learn from.

        Raises:
            DataError: an earlier version saved it without them.
        """
        if self.held_ is None:
            raise DataError("the PCA baseline keeps no held-out predictions to adapt by: fine-tune again")
        return HeldOut(*self.held_, np.arange(len(self.held_[0])))

    def score(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Probability of pneumonia (N,)."""
        return self.decision_.probability(self._logits(images))

    def save(self, folder: Path) -> Path:
        """Writes a model folder; no pictures."""
        arrays = {"mean": self.mean_, "axes": self.axes_, "weights": self.weights_, "biases": self.biases_}
        return checkpoints.save(
            folder,
            kind=KIND,
            tensors={name: torch.from_numpy(array) for name, array in arrays.items()},
            manifest={
                "prior": self.prior_,
                "decision": asdict(self.decision_),
                "seed": self.seed,
                "held_out": None if self.held_ is None else [values.tolist() for values in self.held_],
            },
        )

    @classmethod
    def load(cls, folder: Path) -> "PixelRegression":
        """Reads what :meth:`save` wrote.

        Raises:
            CheckpointError: missing, damaged, or of another kind.
        """
        tensors, manifest = checkpoints.load(folder, kind=KIND)
        made = cls(components=tensors["axes"].shape[1], folds=len(tensors["biases"]), seed=manifest["seed"])
        made.mean_, made.axes_ = tensors["mean"].numpy(), tensors["axes"].numpy()
        made.weights_, made.biases_ = tensors["weights"].numpy(), tensors["biases"].numpy()
        made.prior_, made.decision_ = manifest["prior"], Decision(**manifest["decision"])
        kept = manifest.get("held_out")  # an earlier version kept none
        made.held_ = None if kept is None else (np.asarray(kept[0]), np.asarray(kept[1], dtype=np.float64))
        return made

    def _logits(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        return (self._components(images) @ self.weights_.T + self.biases_).mean(axis=1) + self.prior_

    def _components(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        return (_small(images, np.arange(len(images))) - self.mean_) @ self.axes_

    def _regression(self, x: NDArray[np.float64], labels: NDArray[np.int64]) -> Any:
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000, random_state=self.seed).fit(x, labels)


def _small(images: NDArray[np.uint8] | Store, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """(N, S, S) -> (R, 1024): some pictures standardised, then averaged over areas down to 32 x 32."""
    small = np.empty((len(rows), SIDE * SIDE), dtype=np.float32)
    for part in chunks(len(rows), CHUNK):
        x = standardise(torch.from_numpy(images[rows[part]]))
        small[part] = F.interpolate(x, size=(SIDE, SIDE), mode="area").flatten(1).numpy()
    return small
