"""Which column of a user's table means what, and how its labels are written."""

import math
from collections.abc import Sequence

from unlabeled.core.errors import DataError
from unlabeled.medical.images import UNLABELLED

NAMES = {
    "id": ("image_id", "id", "ids", "file", "filename", "file_name", "path", "image"),
    "patient": ("patient_id", "patient", "patients", "patientid", "subject_id"),
    "label": ("label", "labels", "pneumonia", "target", "y"),
    "split": ("split", "part", "subset"),
    "order": ("label_order",),
}
POSITIVE = ("1", "1.0", "true", "yes", "pneumonia", "positive")
NEGATIVE = ("0", "0.0", "false", "no", "normal", "negative")


def find(columns: Sequence[str], role: str) -> str | None:
    """The column that plays ``role``, by the names people use; the first in our order wins."""
    lowered = {column.strip().lower(): column for column in columns}
    return next((lowered[name] for name in NAMES[role] if name in lowered), None)


def as_label(value: object, *, where: str) -> int:
    """1, 0, or -1 for an empty cell.

    Raises:
        DataError: neither a known word nor a number of ours.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)) or str(value).strip() == "":
        return UNLABELLED
    text = str(value).strip().lower()
    if text in POSITIVE:
        return 1
    if text in NEGATIVE:
        return 0
    raise DataError(f"label {value!r} of {where}: expected 1/0, true/false, yes/no or pneumonia/normal")
