"""How far a result depends on which patients happen to be labelled, on the framing and on the length of pretraining.

    python benchmarks/draws.py --store STORE --cache FOLDER

Data (not part of this repository): kermany224, as its table has the pictures (squeezed to squares) and as the intake
takes them in from DICOM files (``STORE``, of a folder that medical_run.py wrote: borders cut off, sides kept). Of each,
networks are pretrained for 30 and for 50 epochs without labels. A draw labels so many of the training patients by
chance, as ``unlabeled medical run --n-labels`` does; ours, the same network from scratch and PCA + regression get the
same labels. Thresholds come from the validation patients; the official test part, which is shifted, judges.

Counts and seeds were fixed before anything was looked at, and ten draws, of which the time on a GPU sufficed for five:
draw d uses pretraining d mod 5. Nothing is chosen here; it asks why a run of 30 epochs gained nothing
(medical_run-30.md) where five with other labels did (medical.md).
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tables import interval

from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.evaluation import roc_auc
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.progress import quiet
from unlabeled.medical import PneumoniaModel, read_images
from unlabeled.medical._finetuning import Labelled
from unlabeled.medical.baselines import PixelRegression, from_scratch
from unlabeled.medical.evaluation import Scored, point_metrics
from unlabeled.medical.images import ImageSet
from unlabeled.pipelines._medical_input import divide

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "shared/data/xray/kermany224/kermany_cxr_224.parquet"
TABLE, STORE = "table", "store"
EPOCHS = (30, 50)
PRETRAININGS = 5
SCRATCH, PIXELS = "same network from scratch", "PCA-100 + LogReg"


class Run(NamedTuple):
    """One row of one draw: ``method`` is a number of epochs for ours, else the baseline's name."""

    pictures: str
    method: int | str
    labels: int
    draw: int

    @property
    def name(self) -> str:
        return "-".join(str(part).replace(" ", "-") for part in self)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--store", type=Path, required=True, help="that the intake made of the same pictures")
    parser.add_argument("--cache", type=Path, required=True, help="folder outside the repository")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--labels", default="25,100,250", help="numbers of labels, comma-separated")
    parser.add_argument("--draws", type=int, default=5)
    given = parser.parse_args()
    quiet(True)
    torch.set_num_threads(1)
    given.cache.mkdir(parents=True, exist_ok=True)
    pictures = {TABLE: read(given.data), STORE: read(given.store)}
    plan = runs([int(count) for count in given.labels.split(",")], given.draws)
    found = [(run, kept(run, pictures[run.pictures], given.cache)) for run in plan]
    write(given, found)


def runs(counts: Sequence[int], draws: int) -> list[Run]:
    methods = (*EPOCHS, SCRATCH, PIXELS)
    return [Run(p, m, k, d) for d in range(draws) for k in counts for p in (TABLE, STORE) for m in methods]


def read(source: Path) -> ImageSet:
    """Without the table's own order of labels: chance draws them."""
    return replace(read_images(source, size=64), order=None)


def pretrained(images: ImageSet, pictures: str, epochs: int, seed: int, cache: Path) -> PneumoniaModel:
    folder = cache / f"pretrained-{pictures}-{epochs}-{seed}"
    if not folder.exists():
        model = PneumoniaModel(framing=images.framing, pretrain_epochs=epochs, random_state=seed)
        model.pretrain(divide(images, n_labels=None, seed=0).unlabelled).save(folder)
    return PneumoniaModel.load(folder)


def kept(run: Run, images: ImageSet, cache: Path) -> dict[str, float]:
    """The metrics of a run on the official test part, and its AUROC on the validation part; done once."""
    path = cache / f"{run.name}.json"
    if not path.exists():
        began = time.monotonic()
        found = judged(run, images, cache)
        write_atomically(path, json.dumps({**found, "seconds": time.monotonic() - began}))
        print(f"{time.strftime('%H:%M:%S')} {run.name} {time.monotonic() - began:.0f} s", flush=True)
    values: dict[str, float] = json.loads(path.read_text())
    return values


def judged(run: Run, images: ImageSet, cache: Path) -> dict[str, float]:
    parts = divide(images, n_labels=run.labels, seed=run.draw)
    train, val, test = parts.train, parts.validation, parts.test
    assert train.labels is not None
    assert val is not None
    assert val.labels is not None
    assert test.labels is not None
    data, chosen_on = Labelled(train.pixels, train.labels), (val.pixels, val.labels)
    logits: Callable[[NDArray[np.uint8]], NDArray[np.float64]]
    fitted: PneumoniaModel | PixelRegression
    if run.method == PIXELS:
        fitted = PixelRegression(seed=run.draw)
        fitted.fit(parts.unlabelled.pixels, data, groups=train.patients, validation=chosen_on)
        logits = fitted._logits
    else:
        if run.method == SCRATCH:
            model = PneumoniaModel(framing=images.framing, random_state=run.draw)
            fitted = from_scratch(model, data, groups=train.patients, validation=chosen_on).to("auto")
        else:
            fitted = pretrained(images, run.pictures, int(run.method), run.draw % PRETRAININGS, cache).to("auto")
            fitted.set_params(random_state=run.draw)
            fitted.finetune(train, train.labels, validation=(val, val.labels), unlabelled=parts.unlabelled)
        logits = fitted._logits
    assert fitted.decision_ is not None
    scored = Scored(fitted.decision_.probability(logits(test.pixels)), fitted.decision_)
    return {
        **point_metrics(test.labels, scored),
        "validation AUROC": roc_auc(val.labels, logits(val.pixels)),
        "positive": float(train.labels.mean()),
    }


def write(given: argparse.Namespace, found: Sequence[tuple[Run, dict[str, float]]]) -> None:
    lines = [
        "# Which patients are labelled, how pictures are framed, how long it is pretrained",
        "",
        f"`python benchmarks/draws.py --store STORE --labels {given.labels} --draws {given.draws} --cache FOLDER`",
        "",
        (__doc__ or "").split("\n\n", 2)[2].replace("\n", " ").strip(),
        "",
        f"Mean over {given.draws} draws of labels with Student's 95 % interval, the lowest and the highest; what ours "
        "gains is paired by draw. Hardware of this writing: "
        f"{', '.join(str(value) for value in describe_hardware().values())}.",
    ]
    of: dict[tuple[str, int | str, int], list[dict[str, float]]] = {}
    for run, values in found:
        of.setdefault((run.pictures, run.method, run.labels), []).append(values)
    for k in sorted({run.labels for run, _ in found}):
        lines += ["", f"## {k} labels", "", "| pictures | method | AUROC | lowest | highest | balanced accuracy |"]
        lines[-1] += " gained on scratch, AUROC | gained on PCA, AUROC |"
        lines.append("|---|---|---|---|---|---|---|---|")
        for pictures in (TABLE, STORE):
            auroc = {m: [v["AUROC"] for v in of[pictures, m, k]] for m in (*EPOCHS, SCRATCH, PIXELS)}
            for method, values in auroc.items():
                balanced = interval([v["balanced accuracy"] for v in of[pictures, method, k]])
                gains = [
                    interval(np.subtract(values, auroc[other]).tolist(), sign="+") if method in EPOCHS else ""
                    for other in (SCRATCH, PIXELS)
                ]
                called = f"ours, {method} epochs" if method in EPOCHS else method
                lines.append(
                    f"| {pictures} | {called} | {interval(values)} | {min(values):.3f} | {max(values):.3f} "
                    f"| {balanced} | {gains[0]} | {gains[1]} |"
                )
    write_atomically(given.out / "draws.md", "\n".join(lines) + "\n")
    rows = [{**run._asdict(), **values} for run, values in found]
    write_atomically(given.out / "draws.json", json.dumps(rows, indent=0) + "\n")


if __name__ == "__main__":
    main()
