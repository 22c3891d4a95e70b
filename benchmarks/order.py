"""Can an encoder tell whether the segments of a steady vibration were scrambled?

    OMP_NUM_THREADS=1 python benchmarks/order.py

The FEMTO runs' first quarters, without labels, by the width of a patch in time (of 8 columns): the share of snapshots
of which it is told rightly whether half of their segments changed places, mean over the last 40 of 300 steps. Half is
chance.
"""

import argparse
from pathlib import Path

import kinds
import numpy as np
import torch

from unlabeled.core.batches import Batches
from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.pretext import OrderPrediction, Pretraining
from unlabeled.core.progress import quiet
from unlabeled.core.tokens import GridPatches
from unlabeled.core.training import TrainingSettings, fit

HERE = Path(__file__).parent
WIDTHS = (4, 2, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    quiet(True)
    kind = kinds.vibration(given.data)
    told = {width: right(kind, width) for width in WIDTHS}
    assert __doc__ is not None
    lines = ["# Order of steady vibration", "", "`OMP_NUM_THREADS=1 python benchmarks/order.py`", ""]
    lines += [" ".join(__doc__.split("\n\n")[2].split()), ""]
    lines += [f"One seed. Hardware: {', '.join(map(str, describe_hardware().values()))}.", ""]
    lines += ["| columns a patch | told rightly |", "|---|---|"]
    lines += [f"| {width} | {share:.3f} |" for width, share in told.items()]
    write_atomically(given.out / "order.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


def right(kind: kinds.Kind, width: int) -> float:
    torch.manual_seed(0)
    usual = kind.tokenizer()
    tokenizer = GridPatches(grid=(64, 8), patch=(8, width), dim=64, channels=usual.channels)
    backbone = Backbone(tokenizer, Encoder(**kind.encoder))
    history = fit(
        Pretraining(backbone, OrderPrediction(64, unit="segment", seed=1)),
        Batches(kind.inputs, batch_size=kind.batch, seed=0),
        settings=TrainingSettings(steps=300, lr=1e-3, device="cpu"),
    )
    return float(np.mean([value for _, value in history.curves["order_right"][-4:]]))


if __name__ == "__main__":
    main()
