"""Training states on disk: how an interrupted run goes on."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unlabeled.core import checkpoints
from unlabeled.core.checkpoints import under
from unlabeled.core.errors import CheckpointError
from unlabeled.core.progress import say

KIND = "core.TrainingState"


@dataclass(frozen=True)
class Found:
    """A state that was read back; weights and optimiser are already in place."""

    step: int
    history: dict[str, Any]
    best: dict[str, Tensor]
    stale: int
    window: list[dict[str, float]]


class TrainingState:
    """The last two states of one run, each a folder written atomically.

    Args:
        folder: where; made when first saved to.
        description: what the run is made of. Only a state with the same description is taken up again.
    """

    def __init__(self, folder: Path, description: Mapping[str, Any]) -> None:
        self.folder = folder
        self.description = json.loads(json.dumps(description))  # as it will be read back: tuples are lists
        self._warned = False

    def save(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        step: int,
        history: dict[str, Any],
        best: Mapping[str, Tensor],
        stale: int,
        window: list[dict[str, float]],
        protect: int | None = None,
    ) -> None:
        """Writes the state of ``step`` and removes those before the last two, except the one of step ``protect``.

        A state that cannot be written (disk full, say) must not cost the training that it is there to save: the
        user is told once, the states before stay, and the next one is tried again.
        """
        tensors = {f"module.{name}": value for name, value in module.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in best.items()}
        for number, entry in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in entry.items()}
        manifest = {"description": self.description, "step": step, "history": history, "stale": stale, "window": window}
        if not (self._at(step) / checkpoints.MANIFEST).is_file():
            shutil.rmtree(self._at(step), ignore_errors=True)  # half of a state, left by whatever stopped the run
        try:
            checkpoints.save(self._at(step), kind=KIND, tensors=tensors, manifest=manifest)
        except OSError as error:
            if not self._warned:
                latest = self.latest()
                have = "none is kept yet" if latest is None else f"the one of step {latest} stays"
                say(f"the training state of step {step} could not be saved ({error}); {have}, and training goes on")
            self._warned = True
            return
        for old in self._states()[:-2]:
            if protect is None or old != self._at(protect):
                shutil.rmtree(old, ignore_errors=True)

    def load(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> Found | None:
        """Puts the newest readable state into place; ``None`` when there is none.

        Raises:
            CheckpointError: the newest readable state is of a run with another description.
        """
        for folder in reversed(self._states()):
            try:
                tensors, manifest = checkpoints.load(folder, kind=KIND)
                found = Found(
                    manifest["step"],
                    manifest["history"],
                    under("best.", tensors),
                    manifest["stale"],
                    manifest["window"],
                )
                described = manifest["description"]
            except (CheckpointError, KeyError):
                continue  # damaged by whatever stopped the run: the one before will do
            try:
                checkpoints.check_same(described, self.description, what="the interrupted run")
            except CheckpointError as error:
                raise CheckpointError(f"{error}. Delete {self.folder} to start anew, or name another folder") from None
            checkpoints.put(module, under("module.", tensors), what=folder)
            state = optimizer.state_dict()
            state["state"] = {}
            for name, value in under("optimizer.", tensors).items():
                number, key = name.split(".", 1)
                state["state"].setdefault(int(number), {})[key] = value
            optimizer.load_state_dict(state)
            return found
        return None

    def latest(self) -> int | None:
        """Step of the newest state, readable or not."""
        states = self._states()
        return int(states[-1].name.removeprefix("step-")) if states else None

    def weights_at(self, step: int | None) -> dict[str, Tensor]:
        """The module's weights in the state of ``step``; nothing where there is none to read."""
        try:
            return {} if step is None else under("module.", checkpoints.load(self._at(step), kind=KIND)[0])
        except CheckpointError:
            return {}

    def drop_after(self, step: int | None) -> None:
        """Removes the states that are newer than ``step``."""
        for folder in self._states():
            if step is not None and folder > self._at(step):
                shutil.rmtree(folder, ignore_errors=True)

    def _at(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}"

    def _states(self) -> list[Path]:
        return sorted(self.folder.glob("step-*")) if self.folder.is_dir() else []
