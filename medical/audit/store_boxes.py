"""Boxes that readers drew on a hospital's films, brought to the pictures that an intake made of them."""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from unlabeled.core.errors import DataError
from unlabeled.medical._names import name_of
from unlabeled.medical.audit.heatmaps import BORDERS, Box
from unlabeled.medical.intake.borders import Border
from unlabeled.medical.intake.store import STUDIES

_COLUMNS = ["file", "instance", "path"]


def of_store(boxes: Mapping[str, Sequence[Box]], store: Path, *, names: Path | None = None) -> dict[str, list[Box]]:
    """Boxes by the store's own ids, with the borders that its intake cut off where a box does not say them.

    Args:
        boxes: by the store's ids or, with ``names``, by files: path below the folder, name, or name without its ending.
        store: folder of the store.
        names: the intake's private list of which file stands behind which picture (``*-files.csv`` beside the ledger).
            It is looked into, and nothing of it is written anywhere.

    Raises:
        DataError: no such list, a name that two of its files have, or nothing that names a picture of the store.
    """
    import pandas as pd

    table = pd.read_parquet(store / STUDIES, columns=["instance", *BORDERS])
    cut = {str(instance): Border(*(int(n) for n in lines)) for instance, *lines in table.itertuples(index=False)}
    called = {} if names is None else _called(names, cut)
    found: dict[str, list[Box]] = {}
    for identity, drawn in boxes.items():
        instances = {identity} if identity in cut else called.get(identity, set())
        if len(instances) > 1:
            raise DataError(
                f"{len(instances)} films of the store are called '{identity}' in the boxes: give their paths"
            )
        for instance in instances:
            there = [box if box.cut is not None else box._replace(cut=cut[instance]) for box in drawn]
            found.setdefault(instance, []).extend(there)
    if boxes and not found:
        how = "by its own ids, or give --names" if names is None else f"by its own ids or as in {names.name}"
        raise DataError(f"none of {len(boxes)} pictures with boxes is in the store: name them {how}")
    return found


def _called(path: Path, known: Mapping[str, Border]) -> dict[str, set[str]]:
    """Instances by all that their files may be called."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            header, *rows = csv.reader(stream)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as an intake's list of files ({type(error).__name__})") from None
    if header != _COLUMNS:
        raise DataError(f"{path} is no intake's list of files: expected the columns {', '.join(_COLUMNS)}")
    found: dict[str, set[str]] = defaultdict(set)
    for _, instance, written in rows:
        if instance in known:
            # A cell that a spreadsheet would take for a formula begins with an apostrophe.
            name = name_of(written.removeprefix("'"))
            for one in {name, PurePosixPath(name).name, PurePosixPath(name).stem}:
                found[one].add(instance)
    return found
