"""A small pretraining that a test can start, kill and start again: ``train_script.py STATE STEPS [HOLD_AT]``.

Watched every WATCH_EVERY steps where the environment says so.

Prints a line a step; in step HOLD_AT it waits for a line on its input, so that the test strikes there and nowhere
else. Prints the loss curve as JSON when it is done.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from unlabeled.core.audit.watch import RANK, Watch
from unlabeled.core.batches import Batches
from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.masking import RandomMask
from unlabeled.core.pretext import Loss, MaskedReconstruction, Pretraining
from unlabeled.core.tokens import GridPatches
from unlabeled.core.training import TrainingSettings, fit


def jitter(batch: tuple[torch.Tensor, ...], draw: torch.Generator) -> tuple[torch.Tensor, ...]:
    return (batch[0] + 0.1 * torch.randn(batch[0].shape, generator=draw).to(batch[0]),)


class Announced(Pretraining):
    """Says which step it is at, and waits there when it is the one to hold at."""

    hold_at = -1

    def forward(self, batch: tuple[torch.Tensor, ...], step: int) -> Loss:
        # One write a line, which print() is not where output is unbuffered: two workers share the pipe.
        sys.stdout.write(f"step {step}\n")
        sys.stdout.flush()
        if step == self.hold_at:
            sys.stdin.readline()
        return super().forward(batch, step)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    state, steps = Path(sys.argv[1]), int(sys.argv[2])
    Announced.hold_at = int(sys.argv[3]) if len(sys.argv) > 3 else -1
    images = np.random.default_rng(0).normal(size=(64, 1, 16, 16)).astype("float32")
    tokenizer = GridPatches(grid=(16, 16), patch=(4, 4), dim=32)
    backbone = Backbone(tokenizer, Encoder(dim=32, depth=2, heads=2))
    task = Announced(backbone, MaskedReconstruction(tokenizer, mask=RandomMask(0.75), dim=16, depth=1, heads=2))
    settings = TrainingSettings(steps=steps, log_every=4, checkpoint_every=10)
    batches = Batches(images, batch_size=16, transform=jitter)
    every = int(os.environ.get("WATCH_EVERY", "0"))
    watch = Watch.over(batches, rows=32, every=every) if every else None
    history = fit(task, batches, settings=settings, state=state, watch=watch)
    weights = float(sum(p.double().abs().sum() for p in task.parameters()))
    rank = dist.get_rank() if dist.is_initialized() else 0
    ended = {"rank": rank, "curve": history.curves["loss"], "from": history.resumed_from, "weights": weights}
    sys.stdout.write(json.dumps({**ended, "watch": history.curves.get(RANK)}) + "\n")


if __name__ == "__main__":
    main()
