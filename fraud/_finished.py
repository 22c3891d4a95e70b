"""One kind of history that an interrupted pretraining has learnt already, kept until the other kind is learnt too."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlabeled.core import checkpoints
from unlabeled.core.budget import Budget, Spent
from unlabeled.core.errors import CheckpointError
from unlabeled.core.progress import say
from unlabeled.core.training import History

if TYPE_CHECKING:
    from unlabeled.fraud.history_model import HistoryModel

KIND = "fraud.HistoryModel"


def write(model: "HistoryModel", folder: Path, history: History, describe: Mapping[str, Any]) -> None:
    """Keeps the weights, the curves, and the costs, which belong to the run as a whole."""
    costs = {name: asdict(cost) for name in ("predicted", "spent") if (cost := getattr(history, name))}
    manifest = {"description": describe, "curves": history.curves, "steps": history.steps, "costs": costs}
    checkpoints.save(folder, kind=KIND, tensors=model.tensors(), manifest=manifest)


def read(model: "HistoryModel", folder: Path, describe: Mapping[str, Any]) -> History | None:
    """Takes up what an interrupted pretraining had finished with; ``None`` where there is nothing, or where it can be
    read no more, which is said.

    Raises:
        CheckpointError: it is of other data or settings.
    """
    if not folder.is_dir():
        return None
    try:
        tensors, manifest = checkpoints.load(folder, kind=KIND)
    except CheckpointError as error:
        say(f"what was learnt from {model.name} histories is lost ({error}): it is learnt once more")
        shutil.rmtree(folder)  # without its manifest, nothing could be saved in its place
        return None
    try:
        checkpoints.check_same(manifest["description"], json.loads(json.dumps(describe)), what="the interrupted run")
    except CheckpointError as error:
        raise CheckpointError(f"{error}. Delete {folder.parent} to start anew, or name another folder") from None
    model.load(tensors, folder)
    curves = {name: [(at, value) for at, value in curve] for name, curve in manifest["curves"].items()}
    made = History(curves=curves, steps=manifest["steps"], resumed_from=manifest["steps"])
    costs = manifest.get("costs", {})
    made.predicted = Budget(**costs["predicted"]) if "predicted" in costs else None
    made.spent = Spent(**costs["spent"]) if "spent" in costs else None
    return made
