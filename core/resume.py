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
from unlabeled.core.history import History
from unlabeled.core.progress import say

KIND = "core.TrainingState"


@dataclass(frozen=True)
class Found:
    """A state that was read back; weights and optimiser are already in place."""

    step: int
    history: History
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
        for parameter, name in _trained(module, optimizer).items():
            tensors |= {f"optimizer.{name}/{key}": value for key, value in optimizer.state.get(parameter, {}).items()}
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
            CheckpointError: the newest readable state is of a run with another description, or one that trained other
                parameters.
        """
        for folder in reversed(self._states()):
            try:
                tensors, manifest = checkpoints.load(folder, kind=KIND)
                found = Found(
                    int(manifest["step"]),
                    History.from_saved(manifest["history"]),
                    under("best.", tensors),
                    int(manifest["stale"]),
                    [{name: float(value) for name, value in entry.items()} for entry in manifest["window"]],
                )
                described = dict(manifest["description"])
            except (CheckpointError, KeyError, TypeError, ValueError, AttributeError):
                continue  # damaged by whatever stopped the run: the one before will do
            try:
                checkpoints.check_same(described, self.description, what="the interrupted run")
            except CheckpointError as error:
                raise CheckpointError(f"{error}. Delete {self.folder} to start anew, or name another folder") from None
            checkpoints.put(module, under("module.", tensors), what=folder)
            self._put_optimizer(module, optimizer, under("optimizer.", tensors))
            return found
        return None

    def _put_optimizer(self, module: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
        """Puts what the optimiser remembers of each parameter back, by the parameter's name."""
        trained = _trained(module, optimizer)
        saved: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            parameter, key = name.rsplit("/", 1) if "/" in name else (name, "")
            saved.setdefault(parameter, {})[key] = value
        if set(saved) != set(trained.values()):
            odd = sorted(set(saved) ^ set(trained.values()))[0]
            raise CheckpointError(
                f"the interrupted run trained other parameters ('{odd}' in one of the two only). Delete {self.folder} "
                "to start anew, or name another folder"
            )
        state = optimizer.state_dict()
        state["state"] = {number: saved[name] for number, name in enumerate(trained.values())}
        optimizer.load_state_dict(state)

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


def _trained(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[nn.Parameter, str]:
    """The parameters that are trained, in the optimiser's order, and their names."""
    names = {parameter: name for name, parameter in module.named_parameters()}
    return {parameter: names[parameter] for group in optimizer.param_groups for parameter in group["params"]}
