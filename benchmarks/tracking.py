"""What tracking costs: the same training with and without a tracked run, in turns, in one process.

    .venv/bin/python benchmarks/tracking.py

Writes benchmarks/results/tracking.md and .json.
"""

import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from unlabeled.core import progress, tracking
from unlabeled.core.batches import Batches
from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.masking import RandomMask
from unlabeled.core.pretext import MaskedReconstruction, Pretraining
from unlabeled.core.tokens import GridPatches
from unlabeled.core.training import TrainingSettings, fit

RESULTS = Path(__file__).parent / "results"
TURNS, STEPS = 5, 60


def train(run: tracking.Run | None) -> float:
    """Seconds of one small pretraining that logs every tenth step, as the verticals do."""
    images = np.random.default_rng(0).normal(size=(512, 1, 64, 64)).astype("float32")
    tokenizer = GridPatches(grid=(64, 64), patch=(8, 8), dim=128)
    task = Pretraining(
        Backbone(tokenizer, Encoder(dim=128, depth=4, heads=4)), MaskedReconstruction(tokenizer, mask=RandomMask())
    )
    history = fit(
        task,
        Batches(images, batch_size=64),
        settings=TrainingSettings(steps=STEPS),
        log=None if run is None else run.metrics,
    )
    return history.seconds


def main() -> None:
    progress.quiet(True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        train(None)
        without, tracked = [], []
        for _ in range(TURNS):
            without.append(train(None))
            with tracking.run("benchmark", "turn") as run:
                tracked.append(train(run))
        # The sending thread alone, without the noise of training: processor seconds of one run's sending.
        before, wall = time.process_time(), time.monotonic()
        with tracking.run("benchmark", "only sending") as run:
            for step in range(10, STEPS + 1, 10):
                run.metrics({"loss": 1.0, "masked_mse": 1.0}, step)
        sending = time.process_time() - before
        wall = time.monotonic() - wall
    ratio = statistics.median(tracked) / statistics.median(without)
    record = {
        "ratio_of_medians": ratio,
        "seconds_without": without,
        "seconds_tracked": tracked,
        "cpu_seconds_to_open_send_and_close_one_run": sending,
        "wall_seconds_to_open_send_and_close_one_run": wall,
        "threads": threading.active_count(),
        **describe_hardware(),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "tracking.json").write_text(json.dumps(record, indent=1) + "\n")
    (RESULTS / "tracking.md").write_text(
        f"# What tracking costs\n\n{TURNS} turns of {STEPS} pretraining steps (64 px, batch 64), with and without a "
        f"tracked run, in turns; SQLite store; {record['hardware.processor']}, "
        f"{record['hardware.threads']} threads.\n\n"
        f"| | median seconds of training |\n|---|---|\n| without | {statistics.median(without):.2f} |\n"
        f"| tracked | {statistics.median(tracked):.2f} |\n| ratio | {ratio:.3f} |\n\n"
        f"Opening a run, sending {STEPS // 10} points of two curves and closing it takes {wall:.2f} s "
        f"({sending:.2f} processor seconds) once the store exists; a run pays this once.\n"
    )
    print((RESULTS / "tracking.md").read_text())


if __name__ == "__main__":
    main()
