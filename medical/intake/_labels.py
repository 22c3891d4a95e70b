"""A hospital's table of labels, translated to the pictures of the store.

Its cells are turned into the same keyed digests that were taken of the files, and compared with those: no name of a
file or person is kept or printed, lines are called by their numbers.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unlabeled.core.errors import DataError
from unlabeled.medical._pseudonyms import Pseudonyms
from unlabeled.medical._tables import NAMES, Labelling, find_labels, labellings, read_csv
from unlabeled.medical.images import PNEUMONIA, UNLABELLED
from unlabeled.medical.intake._film import Finding
from unlabeled.medical.intake._told import Told
from unlabeled.medical.intake.reasons import REFUSED

COLUMNS = {
    "instance": ("sopinstanceuid", "sop_instance_uid", "instance_uid", "instance"),
    "file": NAMES["id"],
    "accession": ("accession", "accession_number", "accessionnumber"),
    "study": ("studyinstanceuid", "study_instance_uid", "study_uid", "study"),
    "patient": NAMES["patient"],
}
# A finding's keys by what a column holds, the most telling first. An id may be anything.
_KEYS = {
    "instance": ("instance",),
    "file": ("path", "instance", "name", "stem", "accession", "study", "patient"),
    "accession": ("accession",),
    "study": ("study",),
    "patient": ("patient",),
}
_PURPOSES = dict.fromkeys(("path", "name", "stem"), "label file")
_ONE_ONLY = ("name", "stem")
_SPLITS = ("train", "val", "test")


@dataclass
class _Row:
    line: int
    labels: tuple[int, ...]
    split: str
    keys: tuple[str, ...]
    told: dict[str, str]
    # By key: numbers of the findings, and whether they are refused.
    found: dict[str, dict[int, bool]] = field(default_factory=lambda: defaultdict(dict))


@dataclass(frozen=True, kw_only=True)
class Translated:
    """Labels (one for each of what is looked for; none known where a row gave no more than a split) and split by the
    number of a file, how many rows of the table came to what, and what else the table says of the files."""

    labels: dict[int, tuple[tuple[int, ...], str]]
    counts: dict[str, int]
    told: Told


class Labels:
    """Reads the table at once, so that a wrong one is said before hours of work.

    Args:
        findings: what is translated of it; a table of several needs a column for each, or one that lists them.

    Raises:
        DataError: no CSV, no column that names pictures or none of labels, a label that is neither 0 nor 1, or another
            split than train, val and test.
    """

    def __init__(self, path: Path, key: bytes, *, findings: Sequence[str] = (PNEUMONIA,)) -> None:
        table = read_csv(path)
        stand_in = Pseudonyms(key)
        lowered = {"_".join(str(column).strip().lower().split()): str(column) for column in table.columns}
        column_of = {role: next((lowered[n] for n in names if n in lowered), None) for role, names in COLUMNS.items()}
        by = [(role, column) for role, column in column_of.items() if column]
        finding, columns = findings[0], list(lowered.values())
        labelling = find_labels(columns, finding)
        split = next((lowered[name] for name in NAMES["split"] if name in lowered), None)
        if not by or labelling is None:
            raise DataError(
                f"{path}: expected a column '{finding}' or 'label' and one of file, sop_instance_uid, "
                "accession_number, study_instance_uid or patient_id"
            )
        asked = labellings(columns, findings, where=str(path)) if len(findings) > 1 else [labelling]
        self.findings = tuple(findings)
        self.named_by = [role for role, _ in by]
        of = "" if self.findings == (PNEUMONIA,) else "\n".join([*findings, ""])
        other = {column for _, column in by} | {one.column for one in asked} | {split}
        self._told = Told([column for column in lowered.values() if column not in other], stand_in)
        # A store that was made when such columns were not read is no store of this table.
        of += "attributes\n" if self._told.counts else ""
        self.digest = stand_in.digest("labels", of + table.to_csv())
        self._rows: list[_Row] = []
        self._index: dict[tuple[str, str], list[int]] = defaultdict(list)
        for number, cells in enumerate(table.to_dict("records")):
            line = number + 2
            role, cell = next(((role, cells[c].strip()) for role, c in by if cells[c].strip()), ("file", ""))
            values = tuple(_value(one, cells[one.column], where=f"{path}, line {line}") for one in asked)
            said = cells[split].strip().lower() if split else ""
            if said and said not in _SPLITS:  # what it says may name somebody
                raise DataError(
                    f"{path}, line {line}: the column '{split}' says none of {', '.join(_SPLITS)}: correct it, or give "
                    "the column another name"
                )
            told = self._told.read({str(c): str(value) for c, value in cells.items()}, line=line, named=cell)
            row = _Row(line, values, said, _KEYS[role] if cell else (), told)
            for name in row.keys:
                digest = stand_in.digest(_PURPOSES.get(name, f"label {name}"), cell)
                self._index[name, digest].append(number)
            self._rows.append(row)
        self._told.say_unread()

    def look_up(self, number: int, finding: Finding, *, twin: int | None = None) -> None:
        """Notes which rows speak of a finding; where that is refused for having the very pixels of another file
        (``twin``), they speak of that one. What is said of a whole patient stays with that patient's own files."""
        elsewhere = twin is not None and bool(finding.detail)
        for name, digest in finding.keys.items():
            for row in self._index.get((name, digest), ()) if digest else ():
                if twin is None or (elsewhere and name == "patient"):
                    self._rows[row].found[name][number] = finding.state == REFUSED
                else:
                    self._rows[row].found[name][twin] = False

    def translated(self) -> Translated:
        """After all findings were looked up.

        A row without a label still says in which split its pictures are: what is kept for judging must not teach.

        Raises:
            DataError: two rows give one picture different labels, or different splits; or no row with a label fits.
        """
        labels: dict[int, tuple[tuple[int, ...], str]] = {}
        splits: dict[int, _Row] = {}
        line_of: dict[int, int] = {}
        counts = dict.fromkeys(("used", "without a label", "of refused files", "of several files", "of no file"), 0)
        for row in self._rows:
            name = next((name for name in row.keys if row.found[name]), None)
            found = row.found[name] if name else {}
            kept = [number for number, refused in found.items() if not refused]
            if not (name in _ONE_ONLY and len(found) > 1):
                for number in kept:
                    self._told.hear(number, row.told)
            if set(row.labels) == {UNLABELLED}:
                counts["without a label"] += 1
                if row.split and not (name in _ONE_ONLY and len(found) > 1):
                    for number in kept:
                        before = splits.setdefault(number, row)
                        if before.split != row.split:
                            raise _contradiction(before.line, row.line)
            elif not found:
                counts["of no file"] += 1
            elif name in _ONE_ONLY and len(found) > 1:
                counts["of several files"] += 1
            elif not kept:
                counts["of refused files"] += 1
            else:
                counts["used"] += 1
                for number in kept:
                    if labels.setdefault(number, (row.labels, row.split)) != (row.labels, row.split):
                        raise _contradiction(line_of[number], row.line)
                    line_of.setdefault(number, row.line)
        for number, row in splits.items():
            values, split = labels.get(number, (row.labels, row.split))
            if split not in ("", row.split):
                raise _contradiction(line_of[number], row.line)
            labels[number] = values, row.split
        if not counts["used"] and any(set(row.labels) != {UNLABELLED} for row in self._rows):
            said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
            raise DataError(
                f"none of {len(self._rows)} rows of the labels fits a film that is kept ({said}); films were looked "
                f"for by what stands under {', '.join(self.named_by)}. Correct the table and run the same command "
                "again: what was read of the films is kept"
            )
        return Translated(labels=labels, counts=counts, told=self._told)


def _contradiction(line: int, other: int) -> DataError:
    first, second = sorted((line, other))
    return DataError(
        f"the labels of lines {first} and {second} contradict each other: they name the same picture; keep one and run "
        "the same command again"
    )


def _value(labelling: Labelling, cell: str, *, where: str) -> int:
    """As the labelling has it; an error says where, and not what the cell says."""
    try:
        return labelling.of(cell, where="")
    except DataError:
        raise DataError(
            f"{where}: the label is none of 1/0, true/false, yes/no or {labelling.finding}/normal"
        ) from None
