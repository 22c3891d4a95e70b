"""What a training would cost, found by training a copy for a few steps and throwing it away."""

import copy

import torch
from torch import nn

from unlabeled.core.batches import Batches
from unlabeled.core.budget import Budget
from unlabeled.core.meter import LEAST_STEPS, ONE_IN, Meter, predict
from unlabeled.core.optimization import TrainingSettings, make_optimizer, train_step
from unlabeled.core.processes import Processes
from unlabeled.core.seeds import derive


def estimate(
    module: nn.Module,
    batches: Batches,
    settings: TrainingSettings,
    *,
    seed: int = 0,
    label: str = "training",
    resumable: bool = True,
) -> Budget:
    """The cost of the whole training on this machine, as busy as it is now.

    Takes real steps on a copy, for 12 s or a tenth of a short training, whichever ends first, but ten of them;
    ``module`` and the global random state stay as they are. Nothing is logged; one training state is written to the
    system's temporary folder, timed and removed. Unlike in a training, logging is not in the prediction; validation is
    in neither.

    Args:
        module, batches, settings, seed, label: as for :func:`~unlabeled.core.training.fit`.
        resumable: whether the training will keep states to go on from.
    """
    processes = Processes(settings.device)
    device = processes.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        twin = copy.deepcopy(module).to(device).train()
        optimizer = make_optimizer(twin, settings)
        # A training too short to be foretold while it runs is foretold all the same.
        meter = Meter(max(settings.steps, LEAST_STEPS * ONE_IN), device=device)
        step = 0
        while not meter.ready:
            meter.start()
            torch.manual_seed(derive(seed, "torch", step, processes.rank))
            batch = batches.at(step, rank=processes.rank, world=processes.world, device=device)
            train_step(twin, optimizer, batch, step, settings, device)
            meter.stop()
            step += 1
        return predict(
            meter,
            twin,
            batch,
            optimizer,
            label=label,
            step=0,
            steps=settings.steps,
            seconds=meter.late_start,
            save_every=settings.checkpoint_every if resumable else None,
            world=processes.world,
        )
