"""Whose labels may judge a pneumonia model: never those of patients that it learnt from."""

from typing import NamedTuple

import numpy as np

from unlabeled.core.errors import DataError, GateError
from unlabeled.core.fingerprint import of_array
from unlabeled.medical.images import UNLABELLED, ImageSet
from unlabeled.medical.model import PneumoniaModel
from unlabeled.medical.splits import SHOWN

STRANGE = (
    "whether the model learnt from any of these patients is not known: it knows its own by other names, and only the "
    "very same pictures would be told. To be sure, take the files in with the site key of its store (medical intake "
    "--site-key) and give the store"
)


class Judges(NamedTuple):
    """Labelled pictures that may judge a model (``None``: there are none), and what the report says about that."""

    unseen: ImageSet | None
    notes: tuple[str, ...] = ()


def judges_given(model: PneumoniaModel, images: ImageSet) -> Judges:
    """Somebody asked for these labels: what cannot be judged on is refused.

    Raises:
        GateError: the model learnt from some of these patients.
        DataError: one class only.
    """
    labelled = images.labelled()
    _refuse_seen(model, labelled)
    if _one_class(labelled):
        raise DataError("the labels hold one class only, and judge nothing: predict without --labels")
    return Judges(labelled, _strange(model, labelled))


def judges_found(model: PneumoniaModel, images: ImageSet) -> Judges:
    """Nobody asked for these labels, the input has them: they judge as far as they can, and nothing is refused."""
    if images.labels is None or not (images.labels != UNLABELLED).any():
        return Judges(None)
    labelled = images.labelled()
    if not model.digests_:
        # Saved from Python without remember(): nobody can tell whom it learnt from.
        return Judges(None, ("the input's own labels judge nothing: the model does not know whom it learnt from",))
    # By the picture too: the labels learnt from may have named patients otherwise than this input does.
    seen = model.seen(labelled.patients) | model.seen(by_pixels(labelled))
    new, strange = ~np.isin(labelled.patients, labelled.patients[seen]), _strange(model, labelled)
    left = f"{int((~new).sum())} labelled pictures of patients that the model learnt from are left out of the judging"
    if not new.any():
        return Judges(None, (f"the input's own labels judge nothing: all {left}",))
    unseen = labelled.take(new)
    if _one_class(unseen):
        return Judges(None, ("the input's own labels judge nothing: of new patients, they hold one class only", left))
    return Judges(
        unseen, (f"judged with the input's own labels, on {len(unseen)} pictures of new patients", left, *strange)
    )


def _strange(model: PneumoniaModel, images: ImageSet) -> tuple[str, ...]:
    return () if not model.digests_ or model.knows_whom(images.named_by) else (STRANGE,)


def by_pixels(images: ImageSet) -> list[str]:
    return [f"picture {of_array(pixels)}" for pixels in images.pixels]


def _one_class(labelled: ImageSet) -> bool:
    assert labelled.labels is not None
    return len(np.unique(labelled.labels)) < 2


def _refuse_seen(model: PneumoniaModel, images: ImageSet) -> None:
    """Raises a GateError that names labelled patients whose labels the model was fitted to."""
    # By the picture too: the labels learnt from may have named patients otherwise than these do.
    seen = sorted(set(images.patients[model.seen(images.patients) | model.seen(by_pixels(images))]))
    if seen:
        raise GateError(
            f"the model learnt from the labels of {len(seen)} patient(s) in this evaluation: {', '.join(seen[:SHOWN])}"
            + (f" and {len(seen) - SHOWN} more" if len(seen) > SHOWN else "")
            + ". Give labels of other patients only"
        )
