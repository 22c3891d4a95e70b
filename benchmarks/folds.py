"""Few-label pneumonia detection within one hospital: every picture judged once, by five folds of patients.

Data (not part of this repository): kermany224 without its official test part, in the table's five folds by patient.
For each fold: it judges; the next one holds temperature and threshold (no picture chooses what judges it); the other
three teach. Their pictures pretrain a network without labels; the first k of the table's ``label_order`` among them
fine-tune it. Ours, the same network from scratch and PCA + regression get the same labels. The judged folds are pooled:
intervals are over all patients, paired for the gain.

What is done is kept in ``--cache``, so an interrupted run goes on where it was; numbers of labels are taken in the
order given, each over all folds before the next. Rows of other numbers, which an earlier run left in the results, stay.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from tables import interval

from unlabeled.core.evaluation import accuracy, balanced_accuracy, bootstrap, expected_calibration_error, roc_auc
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.progress import quiet
from unlabeled.medical import _finetuning as finetuning
from unlabeled.medical import read_images
from unlabeled.medical._finetuning import Labelled
from unlabeled.medical.baselines import PixelRegression, from_scratch
from unlabeled.medical.images import ImageSet
from unlabeled.medical.model import PneumoniaModel
from unlabeled.medical.splits import check_no_leak

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "shared/data/xray/kermany224/kermany_cxr_224.parquet"
OURS, SCRATCH, PIXELS = "ours", "same network from scratch", "PCA-100 + LogReg"
METHODS = (OURS, SCRATCH, PIXELS)
FOLDS = 5
SAMPLES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--cache", type=Path, required=True, help="folder outside the repository")
    parser.add_argument("--labels", default="25,100,500,50,250", help="numbers of labels, comma-separated, or all")
    parser.add_argument("--size", type=int, default=64, help="side of the pictures in pixels")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    quiet(True)
    given.cache.mkdir(parents=True, exist_ok=True)
    images, fold = _with_folds(given.data, given.size)
    for k in given.labels.split(","):
        for f in range(FOLDS):
            parts = _parts(images, fold, f)
            for method in METHODS:
                path = given.cache / f"{method.replace(' ', '-')}-fold{f}-k{k}.json"
                if not path.exists():
                    _keep(path, _scores(given, parts, f, k, method))
        _write(given, images, fold, [k for k in given.labels.split(",") if _whole(given.cache, k)])


def _with_folds(path: Path, size: int) -> tuple[ImageSet, NDArray[np.int64]]:
    images = read_images(path, size=size)
    table = pq.read_table(path, columns=["image_id", "fold"]).to_pydict()
    of = dict(zip(table["image_id"], table["fold"], strict=True))
    fold = np.array([of[str(name)] for name in images.ids])
    return images.take(fold >= 0), fold[fold >= 0]


def _parts(images: ImageSet, fold: NDArray[np.int64], judged: int) -> dict[str, ImageSet]:
    held = (judged + 1) % FOLDS
    teaching = images.take((fold != judged) & (fold != held))
    assert teaching.order is not None
    late = np.where(teaching.order < 0, np.iinfo(np.int64).max, teaching.order)
    parts = {
        "train": teaching.take(np.argsort(late, kind="stable")),
        "val": images.take(fold == held),
        "judged": images.take(fold == judged),
    }
    check_no_leak(parts)
    return parts


def _scores(given: argparse.Namespace, parts: dict[str, ImageSet], f: int, k: str, method: str) -> dict[str, object]:
    train, val = parts["train"], parts["val"]
    assert val.labels is not None
    few = train if k == "all" else train.take(range(int(k)))
    assert few.labels is not None
    data, began = Labelled(few.images, few.labels), time.monotonic()
    logits: Callable[[NDArray[np.uint8]], NDArray[np.float64]]
    if method == OURS:
        model = _pretrained(given, train, f).set_params(random_state=f)
        model.finetune(few, data.labels, validation=(val, val.labels), unlabelled=train)
        logits = model._logits
    elif method == SCRATCH:
        model = PneumoniaModel(random_state=f, image_size=given.size)
        scratch = from_scratch(model, data, groups=few.patients, validation=(val.images, val.labels))
        logits = scratch.to("auto")._logits
    else:
        pixels = PixelRegression(seed=f)
        logits = pixels.fit(train.images, data, groups=few.patients, validation=(val.images, val.labels))._logits
    found = {part: [round(float(z), 5) for z in logits(parts[part].images)] for part in ("val", "judged")}
    return {**found, "seconds": round(time.monotonic() - began, 1)}


def _pretrained(given: argparse.Namespace, train: ImageSet, f: int) -> PneumoniaModel:
    folder = given.cache / f"pretrained-{f}"
    if not folder.exists():
        model = PneumoniaModel(random_state=f, image_size=given.size, pretrain_epochs=given.epochs)
        model.pretrain(train, state=given.cache / f"state-{f}").save(folder)
    return PneumoniaModel.load(folder).to("auto")


def _keep(path: Path, result: dict[str, object]) -> None:
    new = path.with_suffix(".new")
    new.write_text(json.dumps(result))
    new.replace(path)
    print(f"{time.strftime('%H:%M:%S')} {path.stem} {result['seconds']} s", flush=True)


def _whole(cache: Path, k: str) -> bool:
    return all((cache / f"{m.replace(' ', '-')}-fold{f}-k{k}.json").exists() for m in METHODS for f in range(FOLDS))


def _judged(
    cache: Path, images: ImageSet, fold: NDArray[np.int64], k: str, method: str
) -> tuple[NDArray[np.float64], NDArray[np.bool_], list[float]]:
    """Of every picture: its probability and its call, by the fold that judged it; and the AUROC of each fold."""
    assert images.labels is not None
    probability, call, auroc = np.zeros(len(fold)), np.zeros(len(fold), dtype=bool), []
    for f in range(FOLDS):
        run = json.loads((cache / f"{method.replace(' ', '-')}-fold{f}-k{k}.json").read_text())
        rows, held = fold == f, fold == (f + 1) % FOLDS
        decision = finetuning.decide(images.labels[held], np.array(run["val"]))
        probability[rows] = decision.probability(np.array(run["judged"]))
        call[rows] = probability[rows] >= decision.threshold
        auroc.append(roc_auc(images.labels[rows], np.array(run["judged"])))
    return probability, call, auroc


def _write(given: argparse.Namespace, images: ImageSet, fold: NDArray[np.int64], counts: list[str]) -> None:
    hardware = ", ".join(str(value) for value in describe_hardware().values())
    rows = [{**row, "hardware": hardware} for k in counts for row in _rows(given, images, fold, k)]
    facts = {
        "command": "python benchmarks/folds.py --cache FOLDER",
        "data": {"pictures": len(images), "patients": len(set(images.patients)), "fingerprint": images.fingerprint()},
        "versions": {"python": platform.python_version(), "torch": version("torch"), "monai": version("monai")},
    }
    before = given.out / "folds.json"
    if before.exists():
        known = json.loads(before.read_text(encoding="utf-8"))
        assert known["data"] == facts["data"], "the results are of other data"
        rows += [row for row in known["rows"] if row["labels"] not in counts]
    rows.sort(
        key=lambda row: (10**9 if row["labels"] == "all" else int(str(row["labels"])), METHODS.index(row["method"]))
    )
    facts["rows"] = rows
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "folds.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (given.out / "folds.md").write_text(_markdown(facts, rows), encoding="utf-8")


def _rows(given: argparse.Namespace, images: ImageSet, fold: NDArray[np.int64], k: str) -> list[dict[str, object]]:
    y, patients = images.labels, images.patients
    assert y is not None
    found = {method: _judged(given.cache, images, fold, k, method) for method in METHODS}
    right_of_ours = (found[OURS][1] == y).astype(float)
    rows: list[dict[str, object]] = []
    for method, (probability, call, auroc) in found.items():
        right = (call == y).astype(float)
        measured = {
            "accuracy": bootstrap(accuracy, y, call, groups=patients, samples=SAMPLES),
            "balanced accuracy": bootstrap(balanced_accuracy, y, call, groups=patients, samples=SAMPLES),
            "calibration error": bootstrap(
                expected_calibration_error, y, probability, groups=patients, samples=SAMPLES
            ),
            "gain": bootstrap(
                lambda a, b: float(a.mean() / b.mean() - 1), right_of_ours, right, groups=patients, samples=SAMPLES
            ),
            "errors left": bootstrap(
                lambda a, b: float((1 - a.mean()) / (1 - b.mean())),
                right_of_ours,
                right,
                groups=patients,
                samples=SAMPLES,
            ),
        }
        rows.append(
            {"labels": k, "method": method, "AUROC of folds": auroc, **{n: e._asdict() for n, e in measured.items()}}
        )
    return rows


def _markdown(facts: dict[str, object], rows: list[dict[str, object]]) -> str:
    lines = [
        "# Pneumonia from few labels within one hospital, by folds of patients",
        "",
        *(str(__doc__).strip().splitlines()[2:8]),
        "",
        f"Data: {facts['data']}. `{facts['command']}`. One pretraining and one fine-tuning a fold (seed = fold). "
        "AUROC: mean over the five folds, Student's 95 % interval over them; the others: all judged pictures together, "
        f"95 % bootstrap interval over patients. Hardware: {_hardware(rows)}. Versions: {facts['versions']}.",
        "",
        "| labels | method | AUROC | accuracy | balanced accuracy | calibration error | accuracy of ours against it, "
        "relative, % | errors of ours against it |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [_cell(row[name]) for name in ("accuracy", "balanced accuracy", "calibration error")]
        gain = "" if row["method"] == OURS else _cell(row["gain"], scale=100, form="+.1f")
        left = "" if row["method"] == OURS else _cell(row["errors left"], form=".2f")
        lines.append(
            f"| {row['labels']} | {row['method']} | {interval(row['AUROC of folds'])} | "  # type: ignore[arg-type]
            + " | ".join([*cells, gain, left])
            + " |"
        )
    return "\n".join(lines) + "\n"


def _hardware(rows: list[dict[str, object]]) -> str:
    """What each number of labels was measured on."""
    of: dict[object, list[str]] = {}
    for row in rows:
        labels = of.setdefault(row["hardware"], [])
        labels += [str(row["labels"])] if str(row["labels"]) not in labels else []
    return "; ".join(f"{name} ({', '.join(labels)} labels)" for name, labels in of.items())


def _cell(estimate: object, *, scale: float = 1, form: str = ".3f") -> str:
    assert isinstance(estimate, dict)
    value, low, high = (scale * estimate[key] for key in ("value", "low", "high"))
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


if __name__ == "__main__":
    main()
