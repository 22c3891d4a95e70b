"""What can be said of a run before its films are read: minutes, not hours, after it was asked for."""

from collections.abc import Sequence
from pathlib import Path

from unlabeled.core import tracking
from unlabeled.core.errors import DataError
from unlabeled.medical._tables import find, find_labels, labellings, read_csv
from unlabeled.medical.images import UNLABELLED
from unlabeled.medical.intake._labels import COLUMNS, Labels
from unlabeled.medical.model import PneumoniaModel
from unlabeled.pipelines import _medical_label_need as needing
from unlabeled.pipelines import _medical_several as several
from unlabeled.pipelines._medical_run_plan import Plan

# Of a table that is only looked at: what it is digested with does not matter.
_NO_KEY = bytes(16)
# Sizes of pictures that an intake makes.
_SIZES = range(16, 2049)
# Columns that name one picture a row.
_ONE_PICTURE = (*COLUMNS["instance"], "file", "filename", "file_name", "path")


def check_settings(plan: Plan, model: PneumoniaModel) -> None:
    """Raises a DataError where a setting is out of its range, settings do not go together, or MLflow's registry would
    refuse a name.

    Args:
        model: as it would be pretrained.
    """
    if plan.size not in _SIZES:
        raise DataError(f"--size is from {_SIZES[0]} to {_SIZES[-1]} pixels, got {plan.size}")
    model.check()
    if len(plan.findings) > 1 and plan.self_training:
        raise DataError("self-training knows one finding at a time: leave it out, or name one finding")
    for name in plan.findings:
        tracking.check_registered_name(registered_name(plan, name))


def registered_name(plan: Plan, finding: str) -> str:
    """What the package of a finding is called in MLflow's registry."""
    if len(plan.findings) == 1:
        return plan.register
    return f"{plan.register}-{several.folder_of(finding)}" if plan.register else several.folder_of(finding)


def check_labels(path: Path, plan: Plan, *, folds: int) -> None:
    """Raises a DataError where a table of labels cannot be read, or could not be enough even if every row fitted a film
    of another patient.

    What is left to be seen is said when the films are known: rows that fit none, patients with several films.

    Args:
        folds: parts by patient that choose the thresholds.
    """
    Labels(path, _NO_KEY, findings=plan.findings)
    table = read_csv(path)
    if not len(table):
        raise DataError(f"{path} has no rows below its line of names: expected a label a picture")
    columns = [str(column) for column in table.columns]
    if len(plan.findings) > 1:
        asked = labellings(columns, plan.findings, where=str(path))
    else:
        asked = [one for one in (find_labels(columns, plan.findings[0]),) if one is not None]
    known = [[one.of(cell.strip(), where="") for cell in table[one.column]] for one in asked]
    column = find(columns, "split")
    splits = [""] * len(table) if column is None else [cell.strip().lower() for cell in table[column]]
    parts = [part for part in ("train", "val", "test") if part in splits]
    if parts and "train" not in parts:
        raise DataError(
            f"{path} names who judges (val, test) and nobody to learn from: mark those as train, or leave the column "
            "out (a share of the labelled patients judges then)"
        )
    # Where no part of its own chooses thresholds, each fold leaves out somebody of each kind; a finding beside others
    # must only be left in two of them.
    own = len(parts) == 3
    least = 1 if own else folds if len(asked) == 1 else 2
    for labelling, values in zip(asked, known, strict=True):
        of = "" if len(asked) == 1 else f" of {labelling.finding}"
        if len(parts) > 1:
            for part in parts:
                _check_both(path, [v for v, s in zip(values, splits, strict=True) if s == part],
                            least=least if part == "train" else 1, of=of, where=f" of split '{part}'")  # fmt: skip
        else:  # somebody of each kind judges
            _check_both(path, values, least=least + 1, of=of, where="")
    if plan.n_labels is not None:
        _check_number(
            path, plan, plan.n_labels, known, one_picture=_one_picture(columns), least=2 if own else 2 * folds
        )


def _check_both(path: Path, values: Sequence[int], *, least: int, of: str, where: str) -> None:
    """Raises a DataError where rows name too few people of a kind, were each about somebody else."""
    ill, healthy = values.count(1), values.count(0)
    if min(ill, healthy) < least:
        raise DataError(
            f"{path}: at least {least} labelled patients of each kind{of}{where} are needed, and its rows name at most "
            f"{ill} with the finding and {healthy} without: give more labels"
        )


def _check_number(
    path: Path, plan: Plan, asked: int, known: Sequence[Sequence[int]], *, one_picture: bool, least: int
) -> None:
    if asked < least:
        raise DataError(
            f"--n-labels {asked} is too few: of each kind at least {least // 2} patients must be among those that are "
            f"learnt from, so give {least} or more"
        )
    rows = sum(set(row) != {UNLABELLED} for row in zip(*known, strict=True))
    if one_picture and asked > rows:
        raise DataError(f"--n-labels {asked} were asked for, but only {rows} rows of {path} have a label")
    if plan.label_need:
        needing.counts_for(asked, None)


def _one_picture(columns: Sequence[str]) -> bool:
    """Whether a row names one picture, as far as the column's name tells: an id may be a patient's too."""
    named = {"_".join(column.strip().lower().split()) for column in columns}
    return bool(named & set(_ONE_PICTURE))
