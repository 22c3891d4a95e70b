"""Which pretext task and which mask teach most at equal compute? Radiographs, a linear probe on few labels.

    OMP_NUM_THREADS=1 python benchmarks/pretext.py --cache FOLDER

Data (not part of this repository): kermany224 at 64 px. Every task trains the same encoder on the 4,709 training
pictures without labels, for as many steps as give the same training FLOPs as masked reconstruction over ``--epochs``
passes. Then a logistic regression on the frozen mean token, fitted on the first k of the table's label order, is judged
on the validation patients. The official test part is not looked at. Results of every (task, masking, seed) are kept
in ``--cache``.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from kinds import regression
from tables import interval
from torch.utils.flop_counter import FlopCounterMode

from unlabeled.core.batches import Batches
from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.evaluation import roc_auc
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.pretext import Pretraining
from unlabeled.core.progress import quiet
from unlabeled.core.seeds import derive
from unlabeled.core.training import TrainingSettings, fit
from unlabeled.medical import _network as network
from unlabeled.medical import read_images
from unlabeled.medical.images import ImageSet
from unlabeled.medical.splits import first_labels
from unlabeled.medical.transforms import Augment

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "shared/data/xray/kermany224/kermany_cxr_224.parquet"
ENCODER = {"image_size": 64, "patch": 8, "dim": 128, "depth": 4, "heads": 4}
BATCH, LABELS = 128, (50, 250)
# name -> task, masking, mask ratio
WAYS: dict[str, tuple[str, str, float]] = {
    "masked, random 0.75": ("masked", "random", 0.75),
    "masked, random 0.85": ("masked", "random", 0.85),
    "masked, lungs 0.75": ("masked", "lungs", 0.75),
    "inpainting, two blocks 0.5": ("masked", "blocks", 0.5),
    "adaptive, 0.65 to 0.85": ("masked", "adaptive", 0.75),
    "sparse, half of the patches": ("masked", "sparse", 0.75),
    "NT-Xent": ("contrastive", "random", 0.75),
    "VICReg": ("vicreg", "random", 0.75),
    "rotation": ("rotation", "random", 0.75),
    "order of patches": ("order", "random", 0.75),
    "joint: masked and NT-Xent": ("joint", "random", 0.75),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--cache", type=Path, required=True, help="folder outside the repository")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    quiet(True)
    torch.set_num_threads(1)
    given.cache.mkdir(parents=True, exist_ok=True)
    images = read_images(given.data, size=64)
    train, val = images.part("train"), images.part("val")
    budget = flops_of("masked", "random", 0.75) * given.epochs * (len(train) // BATCH)
    for seed in range(given.seeds):
        rows = [_cached(given.cache, name, seed, budget, train, val, given.epochs) for name in WAYS]
        print(json.dumps({r["name"]: r["auroc"] for r in rows}), flush=True)
        write(given, budget, seeds=seed + 1)


def flops_of(task: str, masking: str, ratio: float) -> float:
    """Training FLOPs of one step: three times the forward pass's, decoder and head included."""
    module = _module(task, masking, ratio, seed=0)
    batch = (torch.randn(BATCH, 1, 64, 64),)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(batch, 0)
    return 3.0 * counter.get_total_flops()


def _module(task: str, masking: str, ratio: float, *, seed: int) -> Pretraining:
    backbone = network.build_backbone(**ENCODER, seed=seed)
    return network.build_pretraining(backbone, task=task, masking=masking, mask_ratio=ratio, seed=seed)  # type: ignore[arg-type]


def _cached(
    cache: Path, name: str, seed: int, budget: float, train: ImageSet, val: ImageSet, epochs: int
) -> dict[str, Any]:
    path = cache / f"{name.replace(' ', '-').replace(':', '')}-e{epochs}-s{seed}.json"
    if not path.exists():
        path.write_text(json.dumps(run(name, seed, budget, train, val)))
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def run(name: str, seed: int, budget: float, train: ImageSet, val: ImageSet) -> dict[str, Any]:
    task, masking, ratio = WAYS[name]
    module = _module(task, masking, ratio, seed=seed)
    each = flops_of(task, masking, ratio)
    steps = max(1, round(budget / each))
    batches = Batches(train.images, batch_size=BATCH, seed=derive(seed, "pretrain"), transform=Augment())
    before = probe(module, train, val)
    fit(module, batches, settings=TrainingSettings(steps=steps, lr=1e-3), seed=seed)
    return {
        "name": name,
        "seed": seed,
        "steps": steps,
        "flops_a_step": each,
        "untrained": before,
        "auroc": probe(module, train, val),
    }


def probe(module: Pretraining, train: ImageSet, val: ImageSet) -> dict[str, float]:
    """Validation AUROC of a logistic regression on the frozen mean token, by number of labels."""
    assert val.labels is not None
    found = {}
    on_val = network.embeddings(module.backbone, val.images)
    for count in LABELS:
        few = first_labels(train, count, seed=0)
        assert few.labels is not None
        fitted = regression().fit(network.embeddings(module.backbone, few.images), few.labels)
        found[str(count)] = roc_auc(val.labels, fitted.decision_function(on_val))
    return found


def write(given: argparse.Namespace, budget: float, *, seeds: int) -> None:
    rows = [
        json.loads((given.cache / f"{name.replace(' ', '-').replace(':', '')}-e{given.epochs}-s{s}.json").read_text())
        for name in WAYS
        for s in range(seeds)
    ]
    content = {
        "command": "OMP_NUM_THREADS=1 python benchmarks/pretext.py "
        f"--epochs {given.epochs} --seeds {seeds} --cache FOLDER",
        "hardware": describe_hardware(),
        "training_flops": budget,
        "rows": rows,
    }
    given.out.mkdir(parents=True, exist_ok=True)
    write_atomically(given.out / "pretext.json", json.dumps(content, indent=1) + "\n")
    lines = [
        "# Pretext tasks on radiographs at equal training FLOPs",
        "",
        f"`{content['command']}`",
        "",
        f"kermany224, 64 px, encoder of width 128 and depth 4; {budget:.2e} training FLOPs each (masked reconstruction "
        f"over {given.epochs} passes: a short training, so that this says which task teaches early, not which ends "
        "highest). Validation AUROC of a logistic regression on the frozen mean token, mean over "
        f"{seeds} seeds with Student's 95 % interval. Settings are the tasks' defaults. Hardware: "
        f"{content['hardware']}.",
        "",
        "| task | steps | " + " | ".join(f"AUROC, {k} labels" for k in LABELS) + " |",
        "|" + "---|" * (2 + len(LABELS)),
    ]
    untrained = [
        interval([row["untrained"][str(k)] for row in rows if row["name"] == next(iter(WAYS))]) for k in LABELS
    ]
    lines.append("| no training | 0 | " + " | ".join(untrained) + " |")
    for name in WAYS:
        own = [row for row in rows if row["name"] == name]
        cells = [interval([row["auroc"][str(k)] for row in own]) for k in LABELS]
        lines.append(f"| {name} | {own[0]['steps']} | " + " | ".join(cells) + " |")
    write_atomically(given.out / "pretext.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
