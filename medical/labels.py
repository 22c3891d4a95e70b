"""A CSV of labels, and its marriage to pictures."""

from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from unlabeled.core import progress
from unlabeled.core.errors import DataError
from unlabeled.medical import attributes as attribute_columns
from unlabeled.medical._tables import find, find_labels
from unlabeled.medical.images import NAMELESS, PNEUMONIA, UNLABELLED, ImageSet, Skip

SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Row:
    label: int
    patient: str | None
    split: str | None
    # Cells of columns that say something of the person or the picture, by column.
    further: tuple[tuple[str, str], ...] = ()


def read_labels(path: str | Path, *, finding: str = PNEUMONIA) -> dict[str, Row]:
    """Labels by picture id.

    The id's column is called id, image_id, file (or the like), the label's as the finding, or label; a column
    ``finding_labels`` may list what is there (``Cardiomegaly|Effusion``). There may be patient_id and split, and
    whatever :mod:`~unlabeled.medical.attributes` knows (age, sex, view, device, site, the original
    width and height). Which was taken for what is printed.

    Raises:
        DataError: not a CSV, a column is missing, a label is neither 0 nor 1, or one id has two labels.
    """
    import pandas as pd

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist: expected a CSV with an id and a label column")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a readable CSV: {error}") from None
    columns = [str(column) for column in table.columns]
    labelling = find_labels(columns, finding)
    roles = {role: find(columns, role) for role in ("id", "patient", "split")}
    roles["label"] = None if labelling is None else labelling.column
    for role, examples in (("id", "image_id, id or file"), ("label", f"{finding} or label")):
        if roles[role] is None:
            raise DataError(f"{path} has no {role} column ({examples}); its columns are {', '.join(columns)}")
    assert labelling is not None
    progress.say("columns of the labels: " + ", ".join(f"{role} = {name}" for role, name in roles.items() if name))
    cells = {role: table[name].str.strip().tolist() if name else [""] * len(table) for role, name in roles.items()}
    further = attribute_columns.wanted(columns)
    found: dict[str, Row] = {}
    for number, (name, label, patient, split) in enumerate(
        zip(cells["id"], cells["label"], cells["patient"], cells["split"], strict=True), start=2
    ):
        row = Row(
            label=labelling.of(label, where=f"{path.name}, line {number}"),
            patient=patient or None, split=split or None,
            further=tuple((column, str(table[column].iloc[number - 2])) for column in further),
        )  # fmt: skip
        if found.setdefault(name, row) != row:
            raise DataError(f"{path}, line {number}: {name!r} is there twice and not the same; keep one")
    if not found:
        raise DataError(f"{path} has no rows: expected one a picture")
    return found


def attach(images: ImageSet, labels: dict[str, Row]) -> ImageSet:
    """Pictures with their labels; what did not fit is added to the skips.

    An id matches a picture's own id, else its file name, else its file name without ending, when only one
    picture goes by that name.

    Raises:
        DataError: not a single id matches, or two that name one picture have different labels.
    """
    number_of = _index(images)
    values = np.full(len(images), UNLABELLED, dtype=np.int64)
    patients = images.patients.astype(object)
    splits = np.full(len(images), "", dtype=object) if images.splits is None else images.splits.astype(object)
    read_but_skipped = {name for skip in images.skipped for name in _names(skip.source)}
    unknown: list[Skip] = []
    told: dict[int, tuple[tuple[str, str], ...]] = {}
    named: dict[int, str] = {}
    for name, row in labels.items():
        number = number_of.get(name)
        if number is None:
            known = read_but_skipped.intersection(_names(name))
            reason = "label without a picture: the picture was skipped" if known else "label for an unknown id"
            unknown.append(Skip(name, reason))
            continue
        before = named.setdefault(number, name)
        if labels[before].label != row.label:
            raise DataError(
                f"'{before}' and '{name}' name the same picture and give it different labels: keep one of the lines"
            )
        values[number] = row.label
        told[number] = row.further
        patients[number] = row.patient or patients[number]
        splits[number] = row.split or splits[number]
    if len(unknown) == len(labels):
        some = ", ".join(list(labels)[:SHOWN])
        raise DataError(
            f"none of {len(labels)} labels fits a picture: ids such as {some}; pictures such as "
            f"{', '.join(images.ids[:SHOWN])}"
        )
    given = any(row.patient for row in labels.values())
    splits_known = images.splits is not None or any(row.split for row in labels.values())
    return replace(
        attribute_columns.put_some(images, told),
        labels=values,
        patients=patients.astype(np.str_),
        splits=splits.astype(np.str_) if splits_known else None,
        skipped=(*images.skipped, *unknown),
        notes=tuple(note for note in images.notes if not given or NAMELESS not in note),
    )


def _index(images: ImageSet) -> dict[str, int]:
    """Every name that leads to exactly one picture; full ids come before file names."""
    owners: dict[str, set[int]] = defaultdict(set)
    for number, identity in enumerate(images.ids):
        for name in _names(str(identity))[1:]:
            owners[name].add(number)
    index = {name: numbers.pop() for name, numbers in owners.items() if len(numbers) == 1}
    return index | {str(identity): number for number, identity in enumerate(images.ids)}


def _names(identity: str) -> list[str]:
    path = PurePosixPath(identity)
    return [identity, path.name, path.stem]
