"""Does keeping the best of several moments of a fine-tuning beat a fixed number of steps?

    OMP_NUM_THREADS=1 python benchmarks/early_stop.py --pretrained FOLDER... --cache FOLDER

Data (not part of this repository): kermany224 at 64 px. Each ``--pretrained`` network is fine-tuned on the first k of
the table's label order as the product does it (all weights, at least 300 steps), three times with other draws. At ten
moments it is asked about the validation patients, who are parted in two: one half chooses the moment (highest AUROC),
the other half judges it beside the last moment. Both ways round. Judged is the network alone, without the probe that
votes along in the product. The official test part is not looked at. Every training is kept in ``--cache``.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from finetuning import DATA, labelled
from tables import interval

from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.evaluation import roc_auc
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.progress import quiet
from unlabeled.core.training import fit
from unlabeled.medical import PneumoniaModel, read_images
from unlabeled.medical import _network as network
from unlabeled.medical import _planning as planning
from unlabeled.medical._finetuning import Labelled, prepare
from unlabeled.medical._network import Member
from unlabeled.medical.images import ImageSet
from unlabeled.medical.splits import first_labels, patient_folds

HERE = Path(__file__).parent
LABELS, DRAWS, MOMENTS = (50, 250), 3, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--pretrained", type=Path, nargs="+", required=True)
    parser.add_argument("--cache", type=Path, required=True, help="folder outside the repository")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    quiet(True)
    torch.set_num_threads(1)
    given.cache.mkdir(parents=True, exist_ok=True)
    images = read_images(given.data, size=64)
    train, asked = images.part("train"), images.part("val")
    rows = []
    for k in LABELS:
        taught = labelled(first_labels(train, k, seed=0))
        for number, folder in enumerate(given.pretrained):
            for draw in range(DRAWS):
                path = given.cache / f"early-{k}-{number}-{draw}.json"
                if not path.is_file():
                    write_atomically(path, json.dumps(moments(folder, draw, taught, asked)))
                rows.append({"labels": k, "pretrained": number, "draw": draw, **json.loads(path.read_text())})
                print({name: rows[-1][name] for name in ("labels", "pretrained", "draw", "last", "best")}, flush=True)
        write(given, rows)


def moments(folder: Path, draw: int, taught: Labelled, asked: ImageSet) -> dict[str, Any]:
    """AUROC of either half at each moment, and what the choice by one half is worth on the other."""
    model = PneumoniaModel.load(folder).set_params(random_state=draw)
    assert asked.labels is not None
    half = patient_folds(asked.patients, asked.labels, folds=2, seed=0)
    classifier, batches = prepare(model.module_.backbone, taught, batch_size=planning.FINETUNE_BATCH, seed=draw)
    settings = planning.finetuning(model, len(taught.labels))
    found: list[list[float]] = []

    def look() -> float:
        odds = network.log_odds(Member(classifier, None), classifier.backbone, asked.images)
        found.append([float(roc_auc(asked.labels[half == h], odds[half == h])) for h in (0, 1)])
        classifier.train()
        return found[-1][0]

    every = -(-settings.steps // MOMENTS)
    fit(classifier, batches, settings=settings, seed=draw, validate=look, validate_every=every)
    curve = np.array(found)
    chosen = curve.argmax(axis=0)  # by the first half, and by the second
    return {
        "steps": settings.steps,
        "curve": found,
        "last": float(curve[-1].mean()),
        "best": float((curve[chosen[0], 1] + curve[chosen[1], 0]) / 2),
    }


def write(given: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    hardware = describe_hardware()
    assert __doc__ is not None
    lines = [
        "# Keeping the best moment of a fine-tuning, or the last",
        "",
        "`OMP_NUM_THREADS=1 python benchmarks/early_stop.py --pretrained FOLDER... --cache FOLDER`",
        "",
        " ".join(__doc__.split("\n\n")[2].split()),
        "",
        f"Mean over {len(given.pretrained)} pretrainings with {DRAWS} draws each, Student's 95 % interval over "
        "all of them, as if draws on one pretraining had nothing in common. "
        f"{hardware['hardware.processor']}, {hardware['hardware.threads']} thread; torch {hardware['torch']}.",
        "",
        "| labels | AUROC at the last moment | at the moment that the other half chose | difference |",
        "|---|---|---|---|",
    ]
    for k in sorted({row["labels"] for row in rows}):
        last, best = ([row[name] for row in rows if row["labels"] == k] for name in ("last", "best"))
        gain = np.subtract(best, last).tolist()
        lines.append(f"| {k} | {interval(last)} | {interval(best)} | {interval(gain, sign='+')} |")
    given.out.mkdir(parents=True, exist_ok=True)
    content = {"hardware": hardware, "rows": rows}
    write_atomically(given.out / "early_stop.json", json.dumps(content, indent=1) + "\n")
    write_atomically(given.out / "early_stop.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
