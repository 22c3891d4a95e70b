"""Which weights should few labels change? Full fine-tuning, a decaying rate, adapters, the head alone.

    OMP_NUM_THREADS=1 python benchmarks/finetuning.py --pretrained FOLDER... --cache FOLDER

Data (not part of this repository): kermany224 at 64 px. Each ``--pretrained`` folder is a model that ``unlabeled
medical pretrain`` (or benchmarks/medical.py) made of the training pictures without labels. Its network is fine-tuned on
the first k of the table's label order, 300 steps, in each way; judged is the network alone, without the probe that
votes along in the product, and the probe alone beside it, by AUROC on the validation patients. The learning rate of
each way is chosen on the first folder; the table shows the others. The official test part is not looked at. Every
result is kept in ``--cache``.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.evaluation import over_runs, roc_auc
from unlabeled.core.finetuning import Tuning
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.optimization import TrainingSettings
from unlabeled.core.progress import quiet
from unlabeled.medical import PneumoniaModel, read_images
from unlabeled.medical import _network as network
from unlabeled.medical._finetuning import Labelled, fit_probe, train_classifier, usual
from unlabeled.medical._network import Member
from unlabeled.medical.images import ImageSet
from unlabeled.medical.splits import first_labels

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "shared/data/xray/kermany224/kermany_cxr_224.parquet"
STEPS, BATCH, LABELS = 300, 32, (50, 250)
RATES: dict[Tuning, tuple[float, ...]] = {
    "full": (2e-4, 5e-4, 1e-3),
    "adapters": (1e-3, 3e-3, 1e-2),
    "head": (2e-3, 1e-2, 5e-2),
}
WAYS: dict[str, tuple[Tuning, float]] = {
    "full": ("full", 1.0),
    "full, layer decay 0.75": ("full", 0.75),
    "full, layer decay 0.5": ("full", 0.5),
    "adapters, rank 8": ("adapters", 1.0),
    "head": ("head", 1.0),
}
PROBE = "logistic regression on frozen features"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--pretrained", type=Path, nargs="+", required=True, help="the first chooses, the others judge")
    parser.add_argument("--cache", type=Path, required=True, help="folder outside the repository")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    quiet(True)
    torch.set_num_threads(1)
    given.cache.mkdir(parents=True, exist_ok=True)
    images = read_images(given.data, size=64)
    train, val = images.part("train"), images.part("val")
    taught = {k: labelled(first_labels(train, k, seed=0)) for k in LABELS}
    judged = labelled(val)
    chooser, *others = given.pretrained

    def result(folder: Path, way: str, rate: float, k: int) -> dict[str, float]:
        path = given.cache / f"{folder.name}-{way.replace(' ', '-')}-{rate:g}-{k}.json"
        if not path.is_file():
            write_atomically(path, json.dumps(one(folder, way, rate, taught[k], judged)))
        found: dict[str, float] = json.loads(path.read_text())
        print(path.stem, found, flush=True)
        return found

    def best_rate(way: str) -> float:
        def mean(rate: float) -> float:
            return float(np.mean([result(chooser, way, rate, k)["auroc"] for k in LABELS]))

        return max(RATES[WAYS[way][0]], key=mean)

    chosen = {way: best_rate(way) for way in WAYS}
    rows = []
    for k in LABELS:
        for way in (*WAYS, PROBE):
            found = [result(folder, way, chosen.get(way, 0.0), k) for folder in others]
            auroc = over_runs([entry["auroc"] for entry in found])
            rows.append(
                {
                    "labels": k,
                    "way": way,
                    "rate": chosen.get(way),
                    "auroc": auroc.value,
                    "low": auroc.low,
                    "high": auroc.high,
                    "seconds": float(np.mean([entry["seconds"] for entry in found])),
                    "trained": found[0]["trained"],
                }
            )
    write(given.out, rows, pretrainings=len(others), hardware=describe_hardware())


def labelled(part: ImageSet) -> Labelled:
    assert part.labels is not None
    return Labelled(part.pixels, part.labels)


def one(folder: Path, way: str, rate: float, data: Labelled, judged: Labelled) -> dict[str, float]:
    """Validation AUROC of one fine-tuning, its seconds and the number of weights that it trained."""
    model = PneumoniaModel.load(folder)
    backbone = model.module_.backbone
    began = time.monotonic()
    if way == PROBE:
        probe = fit_probe(backbone, data, usual(backbone, data.images, nuisance=0))
        seconds = time.monotonic() - began
        with torch.no_grad():
            odds = probe(torch.from_numpy(network.summaries(backbone, judged.images))).double().numpy()
        trained = 2 * backbone.encoder.dim + 1
    else:
        tuning, decay = WAYS[way]
        settings = TrainingSettings(steps=STEPS, lr=rate, layer_decay=decay)
        classifier, history = train_classifier(
            backbone, data, settings=settings, batch_size=BATCH, seed=model.random_state, tuning=tuning
        )
        seconds = history.seconds
        odds = network.log_odds(Member(classifier, None), backbone, judged.images)
        trained = _trained(model, tuning)
    return {"auroc": float(roc_auc(judged.labels, odds)), "seconds": round(seconds, 1), "trained": trained}


def _trained(model: PneumoniaModel, tuning: Tuning) -> int:
    """Weights that a tuning trains, head included."""
    from unlabeled.core.finetuning import prepare
    from unlabeled.core.heads import Classifier

    backbone = PneumoniaModel(**model.get_params())._fresh().backbone
    prepare(backbone, tuning)
    return sum(p.numel() for p in Classifier(backbone).parameters() if p.requires_grad)


def write(out: Path, rows: list[dict[str, Any]], *, pretrainings: int, hardware: dict[str, Any]) -> None:
    lines = [
        "# Which weights should few labels change?",
        "",
        (__doc__ or "").split("\n\n", 2)[2].strip(),
        "",
        f"Mean over {pretrainings} pretrainings that had no part in choosing the rate, 95 % interval over them. "
        f"Hardware: {', '.join(str(value) for value in hardware.values())}.",
        "",
        "| labels | way | learning rate | validation AUROC | weights trained | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        rate = "-" if row["rate"] is None else f"{row['rate']:g}"
        lines.append(
            f"| {row['labels']} | {row['way']} | {rate} | {row['auroc']:.4f} [{row['low']:.4f}, {row['high']:.4f}] | "
            f"{row['trained']:,} | {row['seconds']:.0f} |"
        )
    write_atomically(out / "finetuning.md", "\n".join(lines) + "\n")
    write_atomically(out / "finetuning.json", json.dumps({"rows": rows, "hardware": hardware}, indent=1) + "\n")


if __name__ == "__main__":
    main()
