"""What else could bring the training step nearer to the matrix multiplications' floor? Each change alone, in turns.

    OMP_NUM_THREADS=2 python benchmarks/speed_tried.py

The step is ours of speed.py (same network, batch, masks and pictures). Changes: ``torch.compile`` of every block
(its C++ backend fuses what stands between the products), bfloat16 autocast, GELU by its tanh approximation, half and
twice the batch, and AdamW that is not fused. What counts is the ratio within a turn.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from peers import DECODER, DEPTH, DIM, HEADS, PATCH, RATIO, SIDE
from speed import BATCH
from tables import interval
from torch import nn

from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.masking import RandomMask
from unlabeled.core.optimization import TrainingSettings, make_optimizer, train_step
from unlabeled.core.pretext import MaskedReconstruction, Pretraining
from unlabeled.core.tokens import GridPatches

HERE = Path(__file__).parent
SETTINGS = TrainingSettings(steps=10_000, device="cpu")
Step = Callable[[int], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    ways = {
        "as it is": plain(BATCH),
        "torch.compile": plain(BATCH, change=compiled),
        "bfloat16 autocast": plain(BATCH, settings=TrainingSettings(steps=10_000, device="cpu", precision="bfloat16")),
        "GELU by tanh": plain(BATCH, change=by_tanh),
        "batch of 128": plain(BATCH // 2),
        "batch of 512": plain(BATCH * 2),
        "AdamW not fused": plain(BATCH, fused=False),
    }
    sizes = {"batch of 128": BATCH // 2, "batch of 512": BATCH * 2}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    number = 0
    for turn in range(given.turns + 1):
        for name, step in ways.items():
            began = time.perf_counter()
            for _ in range(given.steps):
                step(number)
                number += 1
            if turn:  # the first is a warm-up, in which compiling happens
                rates[name].append(sizes.get(name, BATCH) * given.steps / (time.perf_counter() - began))
    write(given, rates)


def plain(
    batch: int, *, settings: TrainingSettings = SETTINGS, change: Callable[[Pretraining], None] | None = None,
    fused: bool = True,
) -> Step:  # fmt: skip
    torch.manual_seed(0)
    tokenizer = GridPatches(grid=(SIDE, SIDE), patch=(PATCH, PATCH), dim=DIM)
    dim, depth, heads = DECODER
    task = MaskedReconstruction(tokenizer, mask=RandomMask(RATIO), dim=dim, depth=depth, heads=heads)
    module = Pretraining(Backbone(tokenizer, Encoder(dim=DIM, depth=DEPTH, heads=HEADS)), task).train()
    if change is not None:
        change(module)
    optimizer = make_optimizer(module, settings)
    if not fused:
        for group in optimizer.param_groups:
            group["fused"] = None
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(batch, 1, SIDE, SIDE)).astype("float32"))

    def step(number: int) -> None:
        train_step(module, optimizer, (x,), number, settings, torch.device("cpu"))

    return step


def compiled(module: Pretraining) -> None:
    encoder, task = module.backbone.encoder, module.pretext
    assert isinstance(task, MaskedReconstruction)
    for one in (encoder, task.decoder):
        for block in one.blocks:
            block.forward = torch.compile(block.forward)  # type: ignore[method-assign]


def by_tanh(module: Pretraining) -> None:
    for part in module.modules():
        for name, child in part.named_children():
            if isinstance(child, nn.GELU):
                setattr(part, name, nn.GELU(approximate="tanh"))


def write(given: argparse.Namespace, rates: dict[str, list[float]]) -> None:
    usual = rates["as it is"]
    rows = [
        f"| {name} | {np.median(found):.0f} | {interval([a / b for a, b in zip(found, usual, strict=True)])} |"
        for name, found in rates.items()
    ]
    assert __doc__ is not None
    lines = [
        "# The step: what else was tried",
        "",
        f"`OMP_NUM_THREADS=2 python benchmarks/speed_tried.py --turns {given.turns} --steps {given.steps}`",
        "",
        " ".join(__doc__.split("\n\n")[2].split()),
        "",
        f"Hardware: {', '.join(map(str, describe_hardware().values()))}.",
        "",
        "| change | pictures a second | times as fast, mean and 95 % interval over turns |",
        "|---|---|---|",
        *rows,
    ]
    write_atomically(given.out / "speed-tried.md", "\n".join(lines) + "\n")
    write_atomically(given.out / "speed-tried.json", json.dumps({"rates": rates}, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
