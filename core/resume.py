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
from unlabeled.core.errors import CheckpointError

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
    ) -> None:
        tensors = {f"module.{name}": value for name, value in module.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in best.items()}
        for number, entry in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in entry.items()}
        manifest = {"description": self.description, "step": step, "history": history, "stale": stale, "window": window}
        checkpoints.save(self.folder / f"step-{step:09d}", kind=KIND, tensors=tensors, manifest=manifest)
        for old in self._states()[:-2]:
            shutil.rmtree(old, ignore_errors=True)

    def load(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> Found | None:
        """Puts the newest readable state into place; ``None`` when there is none.

        Raises:
            CheckpointError: the newest readable state is of a run with another description.
        """
        for folder in reversed(self._states()):
            try:
                tensors, manifest = checkpoints.load(folder, kind=KIND)
            except CheckpointError:
                continue  # damaged by whatever stopped the run: the one before will do
            try:
                checkpoints.check_same(manifest["description"], self.description, what="the interrupted run")
            except CheckpointError as error:
                raise CheckpointError(f"{error}. Delete {self.folder} to start anew, or name another folder") from None
            module.load_state_dict(_under("module.", tensors))
            state = optimizer.state_dict()
            state["state"] = {}
            for name, value in _under("optimizer.", tensors).items():
                number, key = name.split(".", 1)
                state["state"].setdefault(int(number), {})[key] = value
            optimizer.load_state_dict(state)
            return Found(
                manifest["step"], manifest["history"], _under("best.", tensors), manifest["stale"], manifest["window"]
            )
        return None

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _states(self) -> list[Path]:
        return sorted(self.folder.glob("step-*")) if self.folder.is_dir() else []


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
