"""How finely a pneumonia model should look: pictures of 64 or 128 pixels, cut into patches of 4 to 16 pixels.

    python benchmarks/resolution.py --cache FOLDER --pretrain "128 px, patch 8" --seed 0     (each; on a GPU)
    OMP_NUM_THREADS=1 python benchmarks/resolution.py --cache FOLDER                        (then)

Data (not part of this repository): kermany224. Networks are pretrained on the training pictures without labels; the
product's probe (three looks, mean and deviation of the tokens) then learns from labels drawn from the training
pictures, the same for all, and is judged on the validation pictures, as they are and changed as pictures change from
hospital to hospital (shift.py; blur, sharpening and noise in pixels of the picture, so that they are weaker on a finer
one). The official test part is not looked at.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shift import DATA, HERE, changes
from tables import interval

from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.evaluation import roc_auc
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.progress import quiet
from unlabeled.core.seeds import derive
from unlabeled.medical import PneumoniaModel, read_images
from unlabeled.medical import _network as network
from unlabeled.medical._finetuning import USUAL, Labelled, fit_probe, usual

COUNTS, DRAWS = (25, 50, 250), 6
FIRST = "64 px, patch 8"
# What differs from the default of 64 px, patch 8.
WAYS: dict[str, dict[str, Any]] = {
    FIRST: {},
    "64 px, patch 4": {"patch": 4},
    "128 px, patch 8": {"image_size": 128},
    "128 px, patch 16": {"image_size": 128, "patch": 16},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--cache", type=Path, required=True, help="folder outside the repository")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--pretrain", choices=list(WAYS), help="pretrain this one and stop")
    parser.add_argument("--seed", type=int, default=0, help="of what --pretrain trains")
    given = parser.parse_args()
    quiet(not sys.stderr.isatty())
    if given.pretrain:
        model = PneumoniaModel(random_state=given.seed, **WAYS[given.pretrain])
        train = read_images(given.data, size=model.image_size).part("train")
        model.pretrain(train).save(given.cache / folder_of(given.pretrain, given.seed))
        return
    runs = [
        judged(given, PneumoniaModel.load(folder), way, seed)
        for way in WAYS
        for seed in range(5)
        if (folder := given.cache / folder_of(way, seed)).is_dir()
    ]
    write(given.out, runs)


def folder_of(way: str, seed: int) -> str:
    return f"pretrained-{way.replace(', ', '-').replace(' ', '')}-s{seed}"


def judged(given: argparse.Namespace, model: PneumoniaModel, way: str, seed: int) -> dict[str, Any]:
    """AUROC of the probe on every change, once read and kept."""
    path = given.cache / f"{folder_of(way, seed)}.json"
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    began, backbone = time.monotonic(), model.to("auto").module_.backbone
    train = read_images(given.data, size=model.image_size).part("train")
    whole = read_images(given.data, size=224).part("val")
    assert whole.labels is not None
    assert train.labels is not None
    changed = {
        name: torch.from_numpy(network.summaries(backbone, pixels))
        for name, pixels in changes(whole.images, whole.labels, model.image_size).items()
    }
    known = usual(backbone, train.images[np.linspace(0, len(train) - 1, USUAL).astype(int)])
    scores = []
    for count in COUNTS:
        for draw in range(DRAWS):
            rows = np.random.default_rng(derive(draw, "labels", count) % 2**32).choice(len(train), count, replace=False)
            probe = fit_probe(backbone, Labelled(train.images[rows], train.labels[rows]), known).cpu()
            auroc = {name: float(roc_auc(whole.labels, probe(x).double().numpy())) for name, x in changed.items()}
            scores.append({"labels": count, "draw": draw, "auroc": auroc})
    result = {"way": way, "seed": seed, "scores": scores, **describe_hardware()}
    write_atomically(path, json.dumps(result))
    print(f"{time.strftime('%H:%M:%S')} {path.stem} {time.monotonic() - began:.0f} s", flush=True)
    return result


def write(out: Path, runs: Sequence[dict[str, Any]]) -> None:
    assert __doc__ is not None
    hardware = {name: value for name, value in runs[0].items() if name.startswith(("hardware.", "python", "torch"))}
    lines = ["# How finely a pneumonia model looks", "", *(f"`{line}`  " for line in COMMANDS), ""]
    lines.append(" ".join(__doc__.split("\n\n")[2].split()) + "\n")
    lines.append(
        f"AUROC, mean over {DRAWS} draws of labels and the pretrainings; what is gained on the first row with "
        "Student's 95 % interval over the draws (of those pretrainings that both have). Judged on: "
        f"{', '.join(str(value) for value in hardware.values())}."
    )
    for count in COUNTS:
        lines += ["", f"## {count} labels", "", *_table(runs, count)]
    write_atomically(out / "resolution.md", "\n".join(lines) + "\n")
    write_atomically(out / "resolution.json", json.dumps({"commands": COMMANDS, "runs": list(runs)}) + "\n")
    print("\n".join(lines))


def _table(runs: Sequence[dict[str, Any]], count: int) -> list[str]:
    rows = [
        "| way | pretrainings | as they are | worst change | mean of all | gained |",
        "|---|---|---|---|---|---|",
    ]
    named = list(runs[0]["scores"][0]["auroc"])
    # (draws, changes) of each pretraining
    found = {
        (run["way"], run["seed"]): np.array(
            [list(one["auroc"].values()) for one in run["scores"] if one["labels"] == count]
        )
        for run in runs
    }
    for way in WAYS:
        seeds = [seed for name, seed in found if name == way]
        if not seeds:
            continue
        means = np.mean([found[way, seed] for seed in seeds], axis=(0, 1))
        worst = int(means.argmin())
        both = [seed for seed in seeds if (FIRST, seed) in found]
        gained = [
            float(np.mean([(found[way, seed] - found[FIRST, seed])[draw].mean() for seed in both]))
            for draw in range(DRAWS if both else 0)
        ]
        rows.append(
            f"| {way} | {len(seeds)} | {means[0]:.3f} | {means[worst]:.3f} ({named[worst]}) | {means.mean():.3f} | "
            f"{'' if way == FIRST or not both else interval(gained, sign='+', digits=3)} |"
        )
    return rows


COMMANDS = [
    "python benchmarks/resolution.py --cache FOLDER --pretrain WAY --seed SEED",
    "OMP_NUM_THREADS=1 python benchmarks/resolution.py --cache FOLDER",
]

if __name__ == "__main__":
    main()
