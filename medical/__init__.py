"""Chest X-rays: DICOM in, a pneumonia model, an audited report out. Not a medical device."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unlabeled.medical import intake, simulate
    from unlabeled.medical._decisions import Stated, decide, per_study
    from unlabeled.medical.images import ImageSet
    from unlabeled.medical.labels import attach, read_labels
    from unlabeled.medical.model import PneumoniaModel
    from unlabeled.medical.readers import read_images
    from unlabeled.medical.splits import check_no_leak

__all__ = [
    "ImageSet",
    "PneumoniaModel",
    "Stated",
    "attach",
    "check_no_leak",
    "decide",
    "intake",
    "per_study",
    "read_images",
    "read_labels",
    "simulate",
]

_HOME = {
    "ImageSet": "images",
    "PneumoniaModel": "model",
    "Stated": "_decisions",
    "attach": "labels",
    "check_no_leak": "splits",
    "decide": "_decisions",
    "per_study": "_decisions",
    "read_images": "readers",
    "read_labels": "labels",
}


def __getattr__(name: str) -> Any:
    # Reading files needs no PyTorch, training no pydicom: each comes when it is asked for.
    if name in ("intake", "simulate"):
        return import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
