"""One encoder for three kinds of data, or one each? Features judged after the same compute.

    OMP_NUM_THREADS=1 python benchmarks/joint.py --cache FOLDER

Radiographs, vibration and card payments (cards and merchants) teach encoders of 64 x 3. Together: one set of blocks,
one batch of each kind a step. Apart: an encoder a kind, each with the same batches in the same order for the same
number of steps, so that the total compute is the same. Tasks, batch sizes and learning rate are the same on both sides.
Then each product goes on from its encoder as it does from one of its own. Radiographs: fine-tuned on 250 labels, the
default way; AUROC on the validation part. Vibration: a monitor is fitted on the first quarter of each run to failure;
hours from its alarm to the failure (as in sensors.py), and how well the parts of its score that the encoder makes tell
the last tenth of a life from its second quarter (AUROC, mean over runs). Payments: average precision in July and August
with 50 labelled frauds and with none (as in fraud_tasks.py). Beside these, features as they are: AUROC of a logistic
regression on the frozen embedding with 250 labels, and of one that tells late from earlier life on bearings that gave
no labels (as in frontier.py). Runs are kept in ``--cache``.
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
from unlabeled.core.evaluation import roc_auc
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.progress import quiet
from unlabeled.core.several_kinds import Lesson, of_kind, teach_together
from unlabeled.core.training import History, TrainingSettings, fit
from unlabeled.fraud import FraudDetector, Size
from unlabeled.medical import PneumoniaModel, read_images
from unlabeled.medical.splits import first_labels
from unlabeled.sensors import MachineMonitor, read
from unlabeled.sensors.backtest import ours
from unlabeled.sensors.monitor import PARTS

HERE = Path(__file__).parent
DIM, DEPTH, HEADS = 64, 3, 4
WAYS = ("untrained", "apart", "together")
MEASURES = {
    "finetuned": "radiographs, fine-tuned on 250 labels, AUROC",
    "lead": "vibration, hours ahead",
    "parts": "vibration, encoder's parts, AUROC",
    "few": "payments, AP, 50 frauds",
    "none": "payments, AP, no labels",
    "radiographs": "radiographs, frozen, AUROC",
    "machines": "vibration, frozen, AUROC",
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
        self.images, self.asked = images.part("train"), images.part("val")
        self.labelled = first_labels(self.images, 250, seed=0)
        self.radiographs, self.vibration = kinds.radiographs(folder), kinds.vibration(folder)
        self.runs = [read(path)[0] for path in sorted((folder / "vibration/femto").glob("*.npz"))]
        self.fleet = [one.rows(slice(0, one.normal_rows())) for one in self.runs]
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
    frozen = {
        "radiographs": data.radiographs.quality(lessons["radiographs"].module.backbone),
        "machines": data.vibration.quality(lessons["machines"].module.backbone),
    }
    if way != "untrained":  # what has learnt nothing is trained on the labels alone
        medical.taught(data.images, histories)
    detector.taught(past, {kind: histories[kind] for kind in ("cards", "merchants")})
    return {
        "steps": steps,
        "finetuned": finetuned(medical, data),
        **watched(monitor.taught(histories), data),
        **frozen,
        **{name: float(np.mean(found)) for name, found in fraud_tasks.judge(detector, data.payments).items() if found},
        "loss": {kind: history.curves["loss"][-1][1] for kind, history in histories.items() if history.curves},
    }


def finetuned(model: PneumoniaModel, data: Data) -> float:
    """On the labels alone, or, once it has learnt, with unlabelled pictures beside them: as the product does."""
    taught, asked = data.labelled, data.asked
    assert taught.labels is not None
    assert asked.labels is not None
    model.finetune(taught, taught.labels, unlabelled=data.images)
    return roc_auc(asked.labels, model.score(asked))


def watched(monitor: MachineMonitor, data: Data) -> dict[str, float]:
    """A monitor a run, each with what is normal for it learnt anew by the same encoder."""
    leads, told = [], []
    for one in data.runs:
        normal, end = one.normal_rows(), one.end_row()
        table = monitor.fit(one).score(one)
        result = ours(one, table, monitor.threshold_, normal_rows=normal, failed=True)
        leads.append(result.lead_h or 0.0)
        score = table[list(PARTS[:3])].mean(axis=1).to_numpy()
        middle, late = score[normal : end // 2], score[end - end // 10 : end]
        truth = np.repeat([False, True], [len(middle), len(late)])
        score, known = np.concatenate([middle, late]), np.isfinite(np.concatenate([middle, late]))
        told.append(roc_auc(truth[known], score[known]))
    return {"lead": float(np.mean(leads)), "parts": float(np.mean(told))}


def taught(lessons: dict[str, Lesson], way: str, settings: TrainingSettings, seed: int) -> dict[str, History]:
    if way == "untrained":
        return {kind: History() for kind in lessons}
    if way == "together":
        history = teach_together(lessons, settings=settings, seed=seed)
        return {kind: of_kind(history, kind) for kind in lessons}
    return {kind: fit(lesson.module, lesson.batches, settings=settings, seed=seed) for kind, lesson in lessons.items()}


def write(given: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    seeds = 1 + max(row["seed"] for row in rows)
    hardware = describe_hardware()
    content = {
        "command": f"OMP_NUM_THREADS=1 python benchmarks/joint.py --steps {given.steps} --seeds {seeds} --cache FOLDER",
        "hardware": hardware,
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
        f"{hardware['hardware.processor']}, {hardware['hardware.threads']} thread of {hardware['hardware.cores']} "
        f"cores; Python {hardware['python']}, torch {hardware['torch']}.",
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
