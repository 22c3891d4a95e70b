"""What is known of people and pictures beside the pixels: for audits, never for learning.

Ages are put into bands at once, so that no exact age goes further. A hospital that a DICOM file names is replaced by a
stand-in; a site that a table names, or whoever takes files in, stays as it is given (in an intake's store, a table's is
replaced too).
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.errors import DataError
from unlabeled.medical import _pseudonyms
from unlabeled.medical._tables import role_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from unlabeled.medical.images import ImageSet

ATTRIBUTES = ("age_band", "sex", "view", "device", "site")
# First years of the bands, and what they are called: infants, children, adolescents, then adults as in NIH ChestX-ray14
# audits (Seyyed-Kalantari et al., 2021: 0-20, 20-40, 40-60, 60-80, 80 and more), of which the first is cut finer.
BANDS = ((0, "00 to 01"), (2, "02 to 05"), (6, "06 to 17"), (18, "18 to 39"), (40, "40 to 59"), (60, "60 to 79"))
OLDEST = (80, "80 and more")
# In days, from DICOM's age strings (PS3.5, value representation AS).
_UNITS = {"D": 1.0, "W": 7.0, "M": 30.4375, "Y": 365.25}
_OLDEST_KNOWN = 130
ADULT = 18
# Where no site key is at hand: it hides a name from a reader, not from somebody who guesses.
_KNOWN_TO_ALL = b"unlabeled.medical"

NAMES = {
    "age": ("age", "patient_age", "age_years", "patientage"),
    "age_band": ("age_band", "age_group", "ageband"),
    "sex": ("sex", "gender", "patient_sex", "patientsex", "patient_gender"),
    "view": ("view", "view_position", "viewposition", "projection", "ap/pa"),
    "device": ("device", "scanner", "manufacturer", "device_class"),
    "site": ("site", "hospital", "institution", "center", "centre"),
    # The last names are ChestX-ray14's "OriginalImage[Width,Height]", cut at its comma.
    "columns": ("orig_width", "original_width", "width", "image_width", "originalimage[width"),
    "rows": ("orig_height", "original_height", "height", "image_height", "height]"),
}
SEXES = {"f": "F", "female": "F", "w": "F", "m": "M", "male": "M", "o": "other", "other": "other", "unknown": ""}


def age_band(age: object) -> str:
    """The band of an age in years (a number, or DICOM's "034Y", "006M", "010D"); empty where it is not known.

    >>> age_band("034Y"), age_band(4.5), age_band("010D"), age_band("")
    ('18 to 39', '02 to 05', '00 to 01', '')
    """
    text = "" if age is None else str(age).strip().upper()
    if not text or text == "NAN":
        return ""
    unit = _UNITS.get(text[-1])
    try:
        years = float(text[:-1]) * unit / _UNITS["Y"] if unit else float(text)
    except ValueError:
        return ""
    if not 0 <= years <= _OLDEST_KNOWN:
        return ""
    return next(name for first, name in reversed((*BANDS, OLDEST)) if years >= first)


def band_start(years: int) -> int:
    """The first year of an age's band."""
    return next(first for first, _ in reversed((*BANDS, OLDEST)) if years >= first)


def declared(images: "ImageSet") -> str:
    """Which views and ages are among the pictures, in words: a model of children is none of adults, and a film taken
    from the front shows a larger heart than one from behind."""
    parts = []
    for what, known in who(images).items():
        left = len(images) - sum(known.values())
        if not known:
            parts.append(f"the {what} of none is known")
            continue
        said = [f"{count:,} {name}" for name, count in known.items()] + (
            [f"{left:,} of unknown {what}"] if left else []
        )
        parts.append(", ".join(said) + (" (mixed)" if len(known) > 1 else ""))
    return f"of {len(images):,} pictures: {'; '.join(parts)}"


def who(images: "ImageSet") -> dict[str, dict[str, int]]:
    """How many pictures are of which view and of which age group, as far as that is known."""
    view = images.attributes.get("view", np.full(len(images), ""))
    views = {name: int((view == name).sum()) for name in ("PA", "AP")}
    views["of another view"] = int((view != "").sum()) - sum(views.values())
    ages = dict.fromkeys(("children", "adults", "from 10 to 19 years old"), 0)
    for band in images.attributes.get("age_band", ()):
        group = _age_group(str(band))
        if group:
            ages[group] += 1
    return {
        what: {name: count for name, count in counts.items() if count}
        for what, counts in (("view", views), ("age", ages))
    }


def strangers(learnt: Mapping[str, Mapping[str, int]], images: "ImageSet") -> tuple[str, ...]:
    """A sentence for each view and age group among the pictures of which a model learnt from none, as far as both are
    known; ``learnt`` is :func:`who` of what it learnt from."""
    said = []
    for what, counts in who(images).items():
        before = learnt.get(what, {})
        for name in counts.keys() - before.keys() if before else ():
            of = ", ".join(f"{count:,} {group}" for group, count in before.items())
            said.append(
                f"{counts[name]:,} of these pictures are {name}, and the model learnt from none such (its labels were "
                f"of {of}): its probabilities and thresholds are not known to hold for them"
            )
    return tuple(sorted(said))


def _age_group(band: str) -> str:
    """Of one of :data:`BANDS`, or of a decade as earlier intakes wrote it; empty for what a table calls otherwise."""
    first = next((first for first, name in (*BANDS, OLDEST) if name == band), None)
    if first is not None:
        return "adults" if first >= ADULT else "children"
    decade = re.fullmatch(r"(\d+)0-(\d+)9|0-9|90\+", band)
    if decade is None or (decade[1] or "") != (decade[2] or ""):
        return ""
    return {"0-9": "children", "10-19": "from 10 to 19 years old"}.get(band, "adults")


def of_dicom(file: "Dataset") -> dict[str, str]:
    """:data:`ATTRIBUTES` from PatientAge or the dates of birth and study, PatientSex, ViewPosition (else
    PatientPosition), a listed maker and a stand-in for the model, because both are free text; the site is a stand-in
    for InstitutionName. What a file says in a way that cannot be read, it does not say."""
    from unlabeled.medical._confidentiality import device

    def text(tag: str) -> str:
        return _pseudonyms.text(file, tag)

    view = next((v.upper() for v in (text("ViewPosition"), text("PatientPosition")) if v.upper() in ("PA", "AP")), "")
    found = {
        "age_band": age_band(_pseudonyms.years_of(file)),
        "sex": SEXES.get(text("PatientSex").lower(), ""),
        "view": view,
        "device": " ".join(part for part in device(file, _pseudonyms.Pseudonyms(_KNOWN_TO_ALL)) if part),
        "site": _stand_in(text("InstitutionName")),
    }
    return {name: value for name, value in found.items() if value}


def joined(said: Sequence[Mapping[str, str]]) -> dict[str, NDArray[np.str_]]:
    """One picture's after the other's -> columns; those that nobody has are left out."""
    names = [name for name in ATTRIBUTES if any(name in one for one in said)]
    return {name: np.array([one.get(name, "") for one in said], dtype=np.str_) for name in names}


def wanted(columns: Sequence[str]) -> list[str]:
    """The columns of a table that say something of this kind, by the names people use."""
    return [column for column in columns if _role(column) is not None]


def put(images: "ImageSet", columns: Mapping[str, Sequence[object]]) -> "ImageSet":
    """Pictures with what a table's columns (N,) say of them; an age band of the table's own wins over one by age.

    Raises:
        DataError: a width or height that is no whole number of pixels.
    """
    return put_some(
        images, {row: tuple((name, values[row]) for name, values in columns.items()) for row in range(len(images))}
    )


def put_some(images: "ImageSet", told: Mapping[int, Sequence[tuple[str, object]]]) -> "ImageSet":
    """The same, with (column, cell) pairs of some rows; what other rows were known for stays."""
    found = {name: values.astype(object) for name, values in images.attributes.items()}
    sizes = None if images.sizes is None else images.sizes.copy()
    for row, cells in told.items():
        for name, value in _read(cells).items():
            if name in ("rows", "columns"):
                sizes = np.zeros((len(images), 2), dtype=np.int64) if sizes is None else sizes
                sizes[row, int(name == "columns")] = _pixels(value, images.ids[row])
            else:
                found.setdefault(name, np.full(len(images), "", dtype=object))[row] = value
    named = {name: found[name].astype(np.str_) for name in ATTRIBUTES if name in found}
    return replace(images, attributes=named, sizes=sizes)


def _read(cells: Sequence[tuple[str, object]]) -> dict[str, str]:
    """One row's cells by role; empty ones are left out."""
    given = {_role(name): "" if value is None or value != value else str(value).strip() for name, value in cells}
    read = {role: text for role, text in given.items() if role is not None and text}
    band = age_band(read.pop("age", ""))
    if band:
        read.setdefault("age_band", band)
    if "sex" in read:
        read["sex"] = SEXES.get(read["sex"].lower(), read["sex"])
        if not read["sex"]:
            del read["sex"]
    if "view" in read:
        read["view"] = read["view"].upper()
    return read


@cache
def _role(column: str) -> str | None:
    return role_of(column, NAMES)


def _pixels(value: str, identity: object) -> int:
    try:
        number = int(float(value))
    except (ValueError, OverflowError):
        raise DataError(f"width or height of {identity}: expected a number of pixels, got {value!r}") from None
    return max(0, number)


def _stand_in(institution: str) -> str:
    if not institution:
        return ""
    return (
        "S-"
        + hashlib.blake2b(
            institution.lower().encode(errors="surrogatepass"), digest_size=3, key=_KNOWN_TO_ALL
        ).hexdigest()
    )
