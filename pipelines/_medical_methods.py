"""A model's scores and those of its baselines, on the same pictures and by the same rules."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.errors import DataError
from unlabeled.medical._decisions import HeldOut, adapted_to, held_out
from unlabeled.medical._finetuning import Decision
from unlabeled.medical._operating import at_operating_point, decision_of
from unlabeled.medical.baselines import PixelRegression
from unlabeled.medical.evaluation import Scored
from unlabeled.medical.images import ImageSet
from unlabeled.medical.model import PneumoniaModel
from unlabeled.pipelines._medical_output import OURS, PIXELS, SCRATCH

# The folder in a model's own where its baselines are kept: whoever judges it later judges these beside it.
BESIDE = "baselines"


def everybody(
    model: PneumoniaModel,
    scratch: PneumoniaModel,
    pixels: PixelRegression,
    unseen: ImageSet,
    *,
    adapt_to: ImageSet | None = None,
) -> dict[str, Scored]:
    """Everybody's probabilities of unseen pictures, ours first; each adapted to all pictures of ``adapt_to``, if any
    (:mod:`unlabeled.core.adaptation`).

    Raises:
        DataError: one of them keeps no held-out predictions, because an earlier version saved it.
    """
    pca = partial(_scored, lambda images: pixels._logits(images.pixels), decision_of_pixels(pixels), pixels.held_out)
    return {
        OURS: _of_network(model, unseen, adapt_to),
        SCRATCH: _of_network(scratch, unseen, adapt_to),
        PIXELS: pca(unseen, adapt_to),
    }


def kept_beside(
    model: PneumoniaModel, folder: Path, unseen: ImageSet, *, adapt_to: ImageSet | None = None
) -> dict[str, Scored]:
    """Ours, and the baselines that were kept in ``folder``; a model that was saved from Python has none."""
    if not folder.is_dir():
        return {OURS: _of_network(model, unseen, adapt_to)}
    scratch, pixels = PneumoniaModel.load(folder / "scratch"), PixelRegression.load(folder / "pixels")
    return everybody(model, scratch, pixels, unseen, adapt_to=adapt_to)


def decision_of_pixels(pixels: PixelRegression) -> Decision:
    """As :func:`~unlabeled.medical._operating.decision_of` for a network."""
    try:
        return at_operating_point(pixels.decision_, pixels.held_out())
    except DataError:
        return pixels.decision_


def _of_network(model: PneumoniaModel, unseen: ImageSet, adapt_to: ImageSet | None) -> Scored:
    return _scored(model._logits, decision_of(model), lambda: held_out(model), unseen, adapt_to)


def _scored(
    logits: Callable[[ImageSet], NDArray[np.float64]],
    decision: Decision,
    held: Callable[[], HeldOut],
    unseen: ImageSet,
    adapt_to: ImageSet | None,
) -> Scored:
    raw = logits(unseen)
    if adapt_to is not None:
        raw = adapted_to(logits(adapt_to), held()).back(raw)
    return Scored(decision.probability(raw), decision)
