"""The pretraining of a monitor's encoder: what is trained, on what, and what is looked at on the way."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from unlabeled.core import fingerprint
from unlabeled.core.audit.watch import Watch
from unlabeled.core.batches import Batches
from unlabeled.core.hardware import one_thread
from unlabeled.core.pretext import Pretraining
from unlabeled.core.seeds import derive
from unlabeled.core.training import TrainingSettings, fit
from unlabeled.core.views import SignalView
from unlabeled.sensors import _checks
from unlabeled.sensors.states import Asked

if TYPE_CHECKING:
    from unlabeled.sensors.monitor import MachineMonitor

JUDGED = 8  # about so often is a judge asked in one pretraining

Log = Callable[[dict[str, float], int], None]
Judge = Callable[[Pretraining], float]


def planned(
    monitor: "MachineMonitor", pictures: NDArray[np.float32], fs: float | None
) -> tuple[Pretraining, Batches, TrainingSettings]:
    """A fresh encoder with its task, the batches and the settings of its pretraining."""
    channels, *grid = pictures.shape[1:]
    monitor.build(channels, (grid[0], grid[1]), fs)
    return (
        Pretraining(monitor.backbone_, monitor.pretext_),
        Batches(pictures, batch_size=monitor.batch_size, seed=derive(monitor.random_state, "sensors", "order")),
        TrainingSettings(steps=monitor.steps, lr=monitor.lr, checkpoint_every=max(1, monitor.steps // 5), device="cpu"),
    )


def learn(
    monitor: "MachineMonitor",
    pictures: NDArray[np.float32],
    fs: float | None,
    *,
    usual: "MachineMonitor",
    kind: str,
    asked: Asked | None = None,
    state: Path | None = None,
    log: Log | None = None,
    judge: Judge | None = None,
) -> None:
    """Trains a fresh encoder on scaled pictures; ``monitor`` has it, and its curves, afterwards."""
    with one_thread():
        module, batches, settings = planned(monitor, pictures, fs)
        named = ("dim", "depth", "task", "masking", "mask_ratio", "shaft_hz", "lr")
        describe = {"model": kind, "data": fingerprint.of_array(pictures), **{n: getattr(monitor, n) for n in named}}
        # What an earlier version began knows nothing of these: it took the defaults.
        later = ("temperature", "augmentation")
        describe |= {name: getattr(monitor, name) for name in later if getattr(monitor, name) != getattr(usual, name)}
        known = None
        if asked is not None:
            _checks.grid(monitor, asked.pictures)
            known = (torch.from_numpy(asked.pictures), asked.labels)
            describe["looked at"] = fingerprint.of_array(*asked)
        monitor.history_ = fit(
            module,
            batches,
            settings=settings,
            seed=monitor.random_state,
            state=state,
            describe=describe,
            validate=None if judge is None else lambda: judge(module),
            validate_every=max(1, settings.steps // JUDGED),
            watch=Watch.over(batches, rows=64, view=SignalView(), asked=known),
            log=log,
            label="pretraining",
        )
