"""What the model must beat with the same pictures and the same labels."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.base import clone

from unlabeled.core.errors import DataError
from unlabeled.medical import _finetuning as finetuning
from unlabeled.medical._finetuning import Decision, Labelled
from unlabeled.medical.model import PneumoniaModel
from unlabeled.medical.splits import patient_folds
from unlabeled.medical.transforms import standardise

SIDE = 32


def from_scratch(
    model: PneumoniaModel,
    data: Labelled,
    *,
    groups: NDArray[np.str_],
    validation: tuple[NDArray[np.uint8], NDArray[np.int64]] | None = None,
) -> PneumoniaModel:
    """The same network, steps, augmentation and choices as ``model``, but without the pretraining."""
    fresh: PneumoniaModel = clone(model)
    return fresh.finetune(data.images, data.labels, groups=groups, validation=validation)


class PixelRegression:
    """Logistic regression on principal components of the pixels (32 x 32, each picture standardised).

    The components are learnt from every picture at hand, labelled or not, as our pretraining is; the regression
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
        unlabelled: NDArray[np.uint8],
        data: Labelled,
        *,
        groups: NDArray[np.str_],
        validation: tuple[NDArray[np.uint8], NDArray[np.int64]] | None = None,
    ) -> "PixelRegression":
        from sklearn.decomposition import PCA

        pixels = _small(unlabelled)
        count = min(self.components, len(pixels) - 1, pixels.shape[1])
        if count < 1:
            raise DataError("principal components need at least two pictures")
        self.pca_ = PCA(count, random_state=self.seed).fit(pixels)
        x = self.pca_.transform(_small(data.images))
        self.prior_ = finetuning.prior_logit(data.labels)
        if validation is not None:
            self.members_ = [self._regression(x, data.labels)]
            held_labels, held = validation[1], self._logits(validation[0])
        else:
            fold = patient_folds(groups, data.labels, folds=self.folds, seed=self.seed)
            order = np.argsort(fold, kind="stable")
            members = [self._regression(x[fold != f], data.labels[fold != f]) for f in range(self.folds)]
            parts = [m.decision_function(x[fold == f]) for f, m in enumerate(members)]
            self.members_ = members
            held_labels, held = data.labels[order], np.concatenate(parts) + self.prior_
        self.decision_: Decision = finetuning.decide(held_labels, held)
        return self

    def score(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Probability of pneumonia (N,)."""
        return self.decision_.probability(self._logits(images))

    def _logits(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        x = self.pca_.transform(_small(images))
        return np.mean([member.decision_function(x) for member in self.members_], axis=0) + self.prior_

    def _regression(self, x: NDArray[np.float64], labels: NDArray[np.int64]) -> Any:
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000, random_state=self.seed).fit(x, labels)


def _small(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, S, S) -> (N, 1024): standardised, then averaged over areas down to 32 x 32."""
    x = F.interpolate(standardise(torch.from_numpy(images)), size=(SIDE, SIDE), mode="area")
    return x.flatten(1).numpy()
