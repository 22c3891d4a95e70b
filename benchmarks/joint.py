"""One encoder for three kinds of data, or one each? Features judged after the same compute.

    OMP_NUM_THREADS=1 python benchmarks/joint.py --cache FOLDER

Radiographs, vibration and card payments (cards and merchants) teach encoders of 64 x 3. Together: one set of blocks,
one batch of each kind a step. Apart: an encoder a kind, each with the same batches in the same order for the same
number of steps, so that the total compute is the same. Tasks, batch sizes and learning rate are the same on both sides.
Quality, on validation data: radiographs, AUROC of a logistic regression on the frozen mean token with 250 labels;
vibration, AUROC of late against earlier life on bearings that gave no labels (as in frontier.py); payments, average
precision in July and August with 50 labelled frauds and with none (as in fraud_tasks.py). Runs are kept in ``--cache``.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import fraud_tasks
import kinds
import numpy as np
import torch
from tables import interval

from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.progress import quiet
from unlabeled.core.several_kinds import Lesson, of_kind, teach_together
from unlabeled.core.training import History, TrainingSettings, fit
from unlabeled.fraud import FraudDetector, Size
from unlabeled.medical import PneumoniaModel, read_images
from unlabeled.sensors import MachineMonitor, read

HERE = Path(__file__).parent
DIM, DEPTH, HEADS = 64, 3, 4
WAYS = ("untrained", "apart", "together")
MEASURES = {
    "radiographs": "radiographs, AUROC",
    "machines": "vibration, AUROC",
    "few": "payments, AP, 50 frauds",
    "none": "payments, AP, no labels",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--cache", type=Path, required=True, help="folder outside the repository")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    quiet(True)
    torch.set_num_threads(1)
    given.cache.mkdir(parents=True, exist_ok=True)
    data = Data(given.data)
    rows = []
    for seed in range(given.seeds):
        for way in WAYS:
            path = given.cache / f"joint-{way}-{given.steps}-s{seed}.json"
            if not path.exists():
                found = {"way": way, "seed": seed, **run(data, way, seed, given.steps)}
                write_atomically(path, json.dumps(found))
            rows.append(json.loads(path.read_text()))
            print(rows[-1], flush=True)
        write(given, rows)


class Data:
    """What is learnt from, and how features are judged."""

    def __init__(self, folder: Path) -> None:
        images = read_images(folder / "xray/kermany224/kermany_cxr_224.parquet", size=64)
        self.images = images.part("train")
        self.radiographs, self.vibration = kinds.radiographs(folder), kinds.vibration(folder)
        runs = [read(path)[0] for path in sorted((folder / "vibration/femto").glob("*.npz"))]
        self.fleet = [one.rows(slice(0, one.normal_rows())) for one in runs]
        self.payments = fraud_tasks.read(folder / "transactions")


def run(data: Data, way: str, seed: int, steps: int) -> dict[str, Any]:
    size = {"dim": DIM, "depth": DEPTH, "heads": HEADS}
    medical = PneumoniaModel(**size, random_state=seed)
    monitor = MachineMonitor(**size, random_state=seed)
    detector = FraudDetector(size=Size(**size), random_state=seed)
    past = data.payments.take(data.payments.time < fraud_tasks.JULY)
    lessons = {
        **medical.lessons(data.images),
        **monitor.lessons(data.fleet, normal_share=1.0),
        **detector.lessons(past),
    }
    settings = TrainingSettings(steps=steps, lr=1e-3, device="cpu")
    histories = taught(lessons, way, settings, seed)
    detector.taught(past, {kind: histories[kind] for kind in ("cards", "merchants")})
    return {
        "steps": steps,
        "radiographs": data.radiographs.quality(lessons["radiographs"].module.backbone),
        "machines": data.vibration.quality(lessons["machines"].module.backbone),
        **{name: float(np.mean(found)) for name, found in fraud_tasks.judge(detector, data.payments).items() if found},
        "loss": {kind: history.curves["loss"][-1][1] for kind, history in histories.items() if history.curves},
    }


def taught(lessons: dict[str, Lesson], way: str, settings: TrainingSettings, seed: int) -> dict[str, History]:
    if way == "untrained":
        return {kind: History() for kind in lessons}
    if way == "together":
        history = teach_together(lessons, settings=settings, seed=seed)
        return {kind: of_kind(history, kind) for kind in lessons}
    return {kind: fit(lesson.module, lesson.batches, settings=settings, seed=seed) for kind, lesson in lessons.items()}


def write(given: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    seeds = 1 + max(row["seed"] for row in rows)
    content = {
        "command": f"OMP_NUM_THREADS=1 python benchmarks/joint.py --steps {given.steps} --seeds {seeds} --cache FOLDER",
        "hardware": describe_hardware(),
        "rows": rows,
    }
    assert __doc__ is not None
    lines = [
        "# One encoder for three kinds of data, or one each",
        "",
        f"`{content['command']}`",
        "",
        " ".join(__doc__.split("\n\n")[2].split()),
        "",
        f"{given.steps} steps; mean over {seeds} seeds with Student's 95 % interval, and differences seed by seed. "
        f"Hardware: {content['hardware']}.",
        "",
        "| | " + " | ".join(MEASURES.values()) + " |",
        "|" + "---|" * (1 + len(MEASURES)),
    ]
    values = {(way, name): [row[name] for row in rows if row["way"] == way] for way in WAYS for name in MEASURES}
    lines += [f"| {way} | " + " | ".join(interval(values[way, name]) for name in MEASURES) + " |" for way in WAYS]
    gains = [np.subtract(values["together", name], values["apart", name]).tolist() for name in MEASURES]
    lines.append("| together minus apart | " + " | ".join(interval(gain, sign="+") for gain in gains) + " |")
    given.out.mkdir(parents=True, exist_ok=True)
    write_atomically(given.out / "joint.json", json.dumps(content, indent=1) + "\n")
    write_atomically(given.out / "joint.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
