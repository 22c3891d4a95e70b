"""A CSV of labels, and its marriage to pictures."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from unlabeled.core import progress
from unlabeled.core.errors import DataError
from unlabeled.medical import attributes as attribute_columns
from unlabeled.medical._people import MOST_NAMES, UNKNOWN, renamed, without_placeholders
from unlabeled.medical._tables import find, find_labels, read_csv, say_uncertain
from unlabeled.medical.images import NAMELESS, PNEUMONIA, TABLE, UNLABELLED, ImageSet, Skip

SHOWN = 5
# A folder that CheXpert's paths name the patient by.
_FOLDER = re.compile(r"(?:^|/)(patient\d+)/")
# Folders that a path needs, below which pictures are found by the rest of it.
_TELLING = 2


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
    width and height). Which was taken for what is printed. Case, and spaces for underscores, do not matter.

    The tables of ChestX-ray14 and CheXpert are read as they are. Of the latter, patients are named by their folders
    (where no column names them), an uncertain label (-1) is unknown, and so is that of a film taken from the side.

    Raises:
        DataError: not a CSV, a column is missing, a label is neither 0 nor 1, or one id has two labels.
    """
    path = Path(path)
    table = read_csv(path)
    columns = [str(column) for column in table.columns]
    labelling = find_labels(columns, finding)
    roles = {role: find(columns, role) for role in ("id", "patient", "split", "side")}
    roles["label"] = None if labelling is None else labelling.column
    for role, examples in (("id", "image_id, id or file"), ("label", f"{finding} or label")):
        if roles[role] is None:
            raise DataError(f"{path} has no {role} column ({examples}); its columns are {', '.join(columns)}")
    assert labelling is not None
    progress.say("columns of the labels: " + ", ".join(f"{role} = {name}" for role, name in roles.items() if name))
    cells = {role: table[name].str.strip().tolist() if name else [""] * len(table) for role, name in roles.items()}
    if not roles["patient"]:
        cells["patient"] = _folders(cells["id"])
    say_uncertain(labelling, cells["label"])
    lateral = [cell.lower() == "lateral" for cell in cells["side"]]
    if any(lateral):
        progress.say(f"{sum(lateral)} rows are of films taken from the side: their labels are left aside")
    further = attribute_columns.wanted(columns)
    found: dict[str, Row] = {}
    for number, (name, label, patient, split) in enumerate(
        zip(cells["id"], cells["label"], cells["patient"], cells["split"], strict=True), start=2
    ):
        value = labelling.of(label, where=f"{path.name}, line {number}")
        row = Row(
            label=UNLABELLED if lateral[number - 2] else value,
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

    An id matches a picture's own id, else the end of its path (the file's name, with or without its ending, is
    enough), when only one picture goes by that name; or it ends in the picture's own id, where that has two folders.

    A patient whom the table names for one picture has that name on every picture that was theirs before.

    Raises:
        DataError: not a single id matches, or two that name one picture have different labels.
    """
    number_of = _matched(images, labels)
    values = np.full(len(images), UNLABELLED, dtype=np.int64)
    splits = np.full(len(images), "", dtype=object) if images.splits is None else images.splits.astype(object)
    read_but_skipped = {name for skip in images.skipped for name in _names(skip.source)}
    unknown: list[Skip] = []
    told: dict[int, tuple[tuple[str, str], ...]] = {}
    named: dict[int, str] = {}
    given: dict[int, list[str]] = defaultdict(list)
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
        if row.patient:
            given[number].append(row.patient)
        splits[number] = row.split or splits[number]
    if len(unknown) == len(labels):
        some = ", ".join(list(labels)[:SHOWN])
        raise DataError(
            f"none of {len(labels)} labels fits a picture: ids such as {some}; pictures such as "
            f"{', '.join(images.ids[:SHOWN])}"
        )
    known_as, placeholders = without_placeholders(images.patients, given, images.studies)
    patients, several, torn = renamed(known_as, given)
    nameless = np.char.startswith(patients, UNKNOWN).any()
    notes = [note for note in images.notes if nameless or NAMELESS not in note]
    if placeholders:
        notes.append(
            f"{placeholders} patient id(s) stand for more than {MOST_NAMES} patients of the labels each, and count as "
            "none: what no label names is told apart by study"
        )
    if several:
        some = ", ".join(str(images.ids[row]) for row in several[0][:SHOWN])
        notes.append(f"{len(several)} patients have several names in the labels, and count as one each (as on {some})")
    if torn.any():
        some = ", ".join(images.ids[torn][:SHOWN])
        notes.append(
            f"{int(torn.sum())} pictures without a patient share a study (or their pixels) with pictures that the "
            f"labels give to several patients, and count as somebody else's: {some}"
        )
    splits_known = images.splits is not None or any(row.split for row in labels.values())
    return replace(
        attribute_columns.put_some(images, told),
        labels=values,
        patients=patients,
        named_by=TABLE if given else images.named_by,
        splits=splits.astype(np.str_) if splits_known else None,
        skipped=(*images.skipped, *unknown),
        notes=tuple(dict.fromkeys(notes)),
    )


def _matched(images: ImageSet, names: Iterable[str]) -> dict[str, int]:
    """The picture of each name that leads to one."""
    index = _index(images)
    found = {name: index[name] for name in names if name in index}
    # Names such as "CheXpert-v1.0/train/patient1/study1/view1.jpg", where pictures were read from a folder further
    # down. That of a folder alone may be another's of the same name ("test/NORMAL/1.jpeg" of "train").
    whole = {str(identity): number for number, identity in enumerate(images.ids)}
    longer: dict[str, int] = {}
    for name in names:
        tail = next((tail for tail in _tails(name) if tail in whole and tail.count("/") >= _TELLING), None)
        if name not in found and tail is not None:
            longer[name] = whole[tail]
    taken = Counter([*found.values(), *longer.values()])
    return found | {name: number for name, number in longer.items() if taken[number] == 1}


def _index(images: ImageSet) -> dict[str, int]:
    """Every name that leads to exactly one picture; full ids come before file names."""
    owners: dict[str, set[int]] = defaultdict(set)
    for number, identity in enumerate(images.ids):
        for name in (*_tails(str(identity))[1:], PurePosixPath(str(identity)).stem):
            owners[name].add(number)
    index = {name: numbers.pop() for name, numbers in owners.items() if len(numbers) == 1}
    return index | {str(identity): number for number, identity in enumerate(images.ids)}


def _tails(path: str) -> list[str]:
    """A path, and what is left of it without its first folder, its first two..."""
    parts = path.split("/")
    return ["/".join(parts[first:]) for first in range(len(parts))]


def _folders(ids: list[str]) -> list[str]:
    """The patient of each path by its folder; nobody's, where one of the paths has no such folder."""
    found = [_FOLDER.search(name) for name in ids]
    folders = [match[1] for match in found if match]
    if not folders or len(folders) < len(ids):
        return [""] * len(ids)
    progress.say("patients are named by the folders of their pictures")
    return folders


def _names(identity: str) -> list[str]:
    path = PurePosixPath(identity)
    return [identity, path.name, path.stem]
