"""Where a medical job may write: never into what another one made and others read.

Every job that a user gives an ``--out`` asks :func:`check_out` before it reads a picture. A run's own stages do not:
they write into its folder, and go past the jobs to what works on pictures at hand.
"""

import json
from pathlib import Path
from typing import Any, Literal

from unlabeled.core.checkpoints import FORMAT, MANIFEST, WEIGHTS
from unlabeled.core.errors import DataError
from unlabeled.medical.intake.store import PICTURES, STUDIES, is_store

# The stages that a run has done.
RECORD = "run.json"
# The list of the findings that a folder has a model of, each in a folder of its own.
FINDINGS = "findings.json"

Kind = Literal["store", "model", "models", "run", "package"]
CALLED: dict[Kind, str] = {
    "store": "a store that 'intake' wrote",
    "model": "a saved model",
    "models": "the folder of the models of several findings",
    "run": "the folder of a 'medical run'",
    "package": "a package for MLflow",
}


def check_out(out: Path, *, source: Path | None = None, replaces: Kind | None = None) -> None:
    """Raises a DataError, before anything is computed, where writing to ``out`` would spoil something else.

    Args:
        out: what the user named; a folder that the same job wrote before may be written to again.
        source: the input, which results must not lie among: they would be read as input the next time.
        replaces: what the job itself writes, so that an earlier one is replaced.
    """
    target = out.resolve()
    if target.exists() and not target.is_dir():
        raise DataError(f"--out {out} is a file: name a folder")
    for place in (target, *target.parents):
        kind = _kind(place)
        if kind is None or (place == target and kind == replaces):
            continue
        where = f"is {CALLED[kind]}" if place == target else f"lies in {place}, which is {CALLED[kind]}"
        raise DataError(f"--out {out} {where}: nothing else is written there, name another folder")
    if source is not None and source.is_dir():
        given = source.resolve()
        if given == target:
            raise DataError(f"--out {out} is the input: results would be read as input later on, name another folder")
        if given in target.parents:
            raise DataError(
                f"--out {out} lies in the input {source}: results would be read as input later on, name another folder"
            )


def _kind(folder: Path) -> Kind | None:
    """What one of our jobs made of a folder, if it made anything that is read as a whole."""
    if is_store(folder) or ((folder / PICTURES).is_file() and (folder / STUDIES).is_file()):
        return "store"
    manifest = _json(folder / MANIFEST)
    # Even where the manifest is damaged, the weights beside it are somebody's training.
    weights = (folder / MANIFEST).is_file() and (folder / WEIGHTS).is_file()
    if weights or (isinstance(manifest, dict) and manifest.get("format") == FORMAT):
        return "model"
    if isinstance(_json(folder / FINDINGS), list):
        return "models"
    record = _json(folder / RECORD)
    if isinstance(record, dict) and {"plan", "stages"} <= set(record):
        return "run"
    return "package" if (folder / "MLmodel").is_file() else None


def _json(path: Path) -> Any:
    """What a file holds; ``None`` where it cannot be read as JSON, as files of that name may be anybody's."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
