"""How good the prediction of a training's cost is: a dry run, then the training itself, which predicts once more.

    .venv/bin/python benchmarks/budget.py [--seconds 150] [--masking adaptive]

Writes benchmarks/results/budget.md and .json (budget-adaptive with adaptive masks). The load of the machine is
recorded: other work on it is the largest source of error, and a prediction cannot know of it.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from unlabeled.core import meter, progress
from unlabeled.core.batches import Batches
from unlabeled.core.budget import LONG_SECONDS, compare
from unlabeled.core.dry_run import estimate
from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.optimization import TrainingSettings, make_optimizer, train_step
from unlabeled.core.pretext import MaskedReconstruction, Pretraining
from unlabeled.core.tokens import GridPatches
from unlabeled.core.training import fit
from unlabeled.medical.tasks import Masking, build_mask

RESULTS = Path(__file__).parent / "results"


def build(masking: Masking) -> tuple[Pretraining, Batches]:
    """The encoder and masks of ``unlabeled medical pretrain``, on noise of 64 by 64 in batches of 128."""
    images = np.random.default_rng(0).normal(size=(2048, 1, 64, 64)).astype("float32")
    tokenizer = GridPatches(grid=(64, 64), patch=(8, 8), dim=128)
    mask = build_mask(tokenizer, masking=masking, ratio=0.75, seed=0)
    task = Pretraining(
        Backbone(tokenizer, Encoder(dim=128, depth=4, heads=4)), MaskedReconstruction(tokenizer, mask=mask)
    )
    return task, Batches(images, batch_size=128)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=150.0, help="how long the training should take")
    parser.add_argument("--masking", choices=("random", "adaptive"), default="random")
    given = parser.parse_args()
    wanted = given.seconds
    progress.quiet(True)
    task, batches = build(given.masking)
    load_before = os.getloadavg()
    trial = estimate(task, batches, TrainingSettings(steps=100))
    settings = TrainingSettings(steps=max(50, round(100 * wanted / trial.seconds)))
    began = time.monotonic()
    dry = estimate(task, batches, settings)
    dry_seconds = time.monotonic() - began
    logged: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        history = fit(
            task,
            batches,
            settings=settings,
            state=Path(folder) / "state",
            log=lambda values, step: logged.update(dict.fromkeys(values, step)),
        )
    assert history.predicted is not None
    assert history.spent is not None
    before, own = compare(dry, history.spent), compare(history.predicted, history.spent)
    record = {
        "masking": given.masking,
        "steps": settings.steps,
        "spent_seconds": history.spent.seconds,
        "dry_run": {"predicted_seconds": dry.seconds, "error": before.error, "took_seconds": dry_seconds},
        "own_first_steps": {
            "predicted_seconds": history.predicted.seconds,
            "error": own.error,
            "after_steps": logged["budget.predicted_seconds"],
            "cost_seconds": cost_of_predicting(task, batches, settings),
        },
        "seconds_per_step": history.predicted.step_seconds,
        "tokens": history.spent.tokens,
        "flops": history.spent.flops,
        "peak_bytes": {"predicted": dry.peak_bytes, "spent": history.spent.peak_bytes},
        "kwh_assumed": history.spent.kwh,
        "watts_from": history.spent.watts_from,
        "load_before": load_before,
        "load_after": os.getloadavg(),
        **describe_hardware(),
    }
    write(record)


def cost_of_predicting(task: Pretraining, batches: Batches, settings: TrainingSettings) -> float:
    """Seconds of what a run does only in order to predict: the work of one batch is counted, one state is written."""
    optimizer, batch = make_optimizer(task, settings), batches.at(0)
    train_step(task, optimizer, batch, 0, settings, torch.device("cpu"))  # the optimiser's moments are there from now
    began = time.monotonic()
    meter.tokens_of(task, batch)
    meter.flops_of(task, batch)
    meter.save_seconds(task, optimizer)
    return time.monotonic() - began


def write(record: dict) -> None:
    """The record as JSON, and as a page."""
    RESULTS.mkdir(exist_ok=True)
    name = "budget" if record["masking"] == "random" else f"budget-{record['masking']}"
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    spent, dry, own = record["spent_seconds"], record["dry_run"], record["own_first_steps"]
    loads = " and ".join(f"{record[when][0]:.1f}" for when in ("load_before", "load_after"))
    short = "" if spent > LONG_SECONDS else " Shorter than two minutes, because the machine was busy."
    page = (
        "# Cost of a training, predicted and spent\n\n"
        f"One pretraining of {record['steps']} steps (64 px, batch 128, encoder 128 wide and 4 deep, "
        f"{record['masking']} masks) on "
        f"{record['hardware.processor']}, {record['hardware.threads']} of {record['hardware.cores']} cores; load of "
        f"the machine {loads} before and after (the training itself is 1 a thread).{short}\n\n"
        "| | seconds | error |\n|---|---|---|\n"
        f"| dry run before it | {dry['predicted_seconds']:.1f} | {dry['error']:+.1%} |\n"
        f"| its own first {own['after_steps']} steps | {own['predicted_seconds']:.1f} | {own['error']:+.1%} |\n"
        f"| spent | {spent:.1f} | |\n\n"
        f"{record['tokens']:,.0f} tokens, {record['flops'] / 1e12:.2f} TFLOP "
        f"({record['flops'] / spent / 1e9:.1f} GFLOP/s), {record['kwh_assumed'] * 1000:.2f} Wh "
        f"({record['watts_from']}). Highest memory {record['peak_bytes']['predicted'] / 1e6:.0f} MB at the dry run, "
        f"{record['peak_bytes']['spent'] / 1e6:.0f} MB at the end. The dry run took {dry['took_seconds']:.1f} s; "
        f"predicting within the run cost {own['cost_seconds']:.2f} s, {own['cost_seconds'] / spent:.2%} of it.\n\n"
        "One run: an example, not a distribution.\n"
    )
    (RESULTS / f"{name}.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
