"""Which column of a user's table means what, and how its labels are written."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from unlabeled.core.errors import DataError
from unlabeled.medical.images import PNEUMONIA, UNLABELLED

NAMES = {
    "id": ("image_id", "id", "ids", "file", "filename", "file_name", "path", "image"),
    "patient": ("patient_id", "patient", "patients", "patientid", "subject_id"),
    "split": ("split", "part", "subset"),
    "order": ("label_order",),
}
# Names of a column of labels that say nothing of what is labelled.
LABELS = ("label", "labels", "target", "y")
# Names of a column that lists what is there ("Cardiomegaly|Effusion", as ChestX-ray14 does).
LISTS = ("finding_labels", "finding labels", "findings")
POSITIVE = ("1", "1.0", "true", "yes", "positive")
NEGATIVE = ("0", "0.0", "false", "no", "normal", "negative")


class Labelling(NamedTuple):
    """A column of labels.

    Attributes:
        column: its name.
        finding: what it is asked about.
        listed: whether its cells list whatever is there.
    """

    column: str
    finding: str
    listed: bool

    def of(self, value: object, *, where: str) -> int:
        """1, 0, or -1 for an empty cell.

        Raises:
            DataError: neither a known word nor a number of ours.
        """
        if value is None or (isinstance(value, float) and math.isnan(value)) or str(value).strip() == "":
            return UNLABELLED
        text, finding = _plain(str(value)), _plain(self.finding)
        if self.listed:
            return int(finding in [_plain(part) for part in re.split(r"[|;,]", text)])
        if text in (*POSITIVE, finding):
            return 1
        if text in (*NEGATIVE, f"no {finding}"):
            return 0
        raise DataError(f"label {value!r} of {where}: expected 1/0, true/false, yes/no or {self.finding}/normal")


def find(columns: Sequence[str], role: str) -> str | None:
    """The column that plays ``role``, by the names people use; the first in our order wins."""
    return _first(columns, NAMES[role])


def find_labels(columns: Sequence[str], finding: str = PNEUMONIA) -> Labelling | None:
    """The column that says whether ``finding`` is there: of that name, or a column of lists, or one of plain labels.

    A column of plain labels is about pneumonia before any other: there it comes first.
    """
    own, plain = _first(columns, (finding,)), _first(columns, LABELS)
    listed = _first(columns, LISTS)
    by_name = (plain, own) if _plain(finding) == PNEUMONIA else (own,)
    for column in by_name:
        if column is not None:
            return Labelling(column, finding, listed=False)
    if listed is not None:
        return Labelling(listed, finding, listed=True)
    return None if plain is None else Labelling(plain, finding, listed=False)


def _first(columns: Sequence[str], names: Sequence[str]) -> str | None:
    known = {_plain(column): column for column in columns}
    return next((known[_plain(name)] for name in names if _plain(name) in known), None)


def _plain(text: str) -> str:
    """Lower case, with single spaces: "Pleural_Thickening" and "pleural thickening" are one."""
    return " ".join(text.replace("_", " ").lower().split())
