"""Which column of a user's table means what, and how its labels are written."""

import codecs
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unlabeled.core import progress
from unlabeled.core.errors import DataError
from unlabeled.medical.images import PNEUMONIA, UNLABELLED

if TYPE_CHECKING:
    import pandas as pd

NAMES = {
    "id": ("image_id", "id", "ids", "file", "filename", "file_name", "path", "image", "image_index"),
    "patient": ("patient_id", "patient", "patients", "patientid", "subject_id"),
    "split": ("split", "part", "subset"),
    "order": ("label_order",),
    # CheXpert's: whether a film was taken from the front or from the side.
    "side": ("frontal/lateral",),
}
# Names of a column of labels that say nothing of what is labelled.
LABELS = ("label", "labels", "target", "y")
# Names of a column that lists what is there ("Cardiomegaly|Effusion", as ChestX-ray14 does).
LISTS = ("finding_labels", "findings")
POSITIVE = ("1", "1.0", "true", "yes", "positive")
NEGATIVE = ("0", "0.0", "false", "no", "normal", "negative")
# CheXpert's word for a finding that its report neither affirms nor denies.
UNCERTAIN = ("-1", "-1.0")


def read_csv(path: Path) -> "pd.DataFrame":
    """A CSV as people's programs write it, every cell as text: commas, or semicolons or tabs where the first line has
    no comma; UTF-8, UTF-16 with its mark, else Windows-1252. What is not usual is said.

    Raises:
        DataError: no such file, or no table; nothing of what it holds is quoted.
    """
    import pandas as pd

    try:
        raw = path.read_bytes()
    except OSError:
        raise DataError(f"{path} does not exist, or is no file: expected a CSV of labels") from None
    coding = "utf-16" if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        content = raw.decode(coding)
    except UnicodeDecodeError:
        coding, content = "cp1252", raw.decode("cp1252", errors="replace")
    first = content.lstrip().partition("\n")[0]
    separator = next((one for one in (",", ";", "\t") if one in first), ",")
    if coding != "utf-8-sig" or separator != ",":
        apart = {",": "commas", ";": "semicolons", "\t": "tabs"}[separator]
        progress.say(f"{path.name} is read as {'UTF-8' if coding == 'utf-8-sig' else coding}, separated by {apart}")
    try:
        return pd.read_csv(io.StringIO(content), sep=separator, dtype=str, keep_default_na=False)
    except ValueError:  # its text may quote a row
        raise DataError(
            f"{path} is not a readable CSV of labels: expected a line of names, then a line a picture"
        ) from None


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
        """1, 0, or -1 for an empty cell and one that is :data:`UNCERTAIN`.

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
        if text in UNCERTAIN:
            return UNLABELLED
        raise DataError(f"label {value!r} of {where}: expected 1/0, true/false, yes/no or {self.finding}/normal")


def say_uncertain(labelling: Labelling, values: Sequence[object]) -> None:
    """Says how many cells of a column of labels are :data:`UNCERTAIN`, if any is."""
    count = 0 if labelling.listed else sum(str(value).strip() in UNCERTAIN for value in values)
    if count:
        progress.say(f"{count} labels of {labelling.finding} are -1, which is uncertain, and count as unknown")


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


def labellings(columns: Sequence[str], findings: Sequence[str], *, where: str) -> list[Labelling]:
    """The columns that say whether each of several findings is there.

    Raises:
        DataError: nothing is said of one, the same is said of two, or one is called as a column of something else.
    """
    for name in findings:
        if any(_plain(name) in map(_plain, names) for names in NAMES.values()):
            raise DataError(f"a finding cannot be called '{name}': that is a column of something else")
    found = {name: find_labels(columns, name) for name in findings}
    missing = [name for name, labelling in found.items() if labelling is None]
    known = [labelling for labelling in found.values() if labelling is not None]
    own = [labelling.column for labelling in known if not labelling.listed]
    if missing or len(set(own)) < len(own):
        which = (
            f"nothing of {', '.join(missing)}" if missing else f"the same of {', '.join(findings)} (column {own[0]})"
        )
        raise DataError(f"{where} says {which}: it needs a column for each finding, or one that lists them")
    return known


def role_of(column: str, roles: Mapping[str, Sequence[str]]) -> str | None:
    """The role whose names a column's name is among, in whatever case and with spaces or underscores."""
    return next((role for role, names in roles.items() if _first([column], names) is not None), None)


def _first(columns: Sequence[str], names: Sequence[str]) -> str | None:
    known = {_plain(column): column for column in columns}
    return next((known[_plain(name)] for name in names if _plain(name) in known), None)


def _plain(text: str) -> str:
    """Lower case, with single spaces: "Pleural_Thickening" and "pleural thickening" are one."""
    return " ".join(text.replace("_", " ").lower().split())
