"""Few-label pneumonia detection on children's radiographs: ours, the same network from scratch, PCA + regression.

Data (not part of this repository): kermany224, 5,856 chest X-rays with a split by patient. Pretraining reads the
4,709 training pictures without labels; fine-tuning reads the first k of the table's ``label_order``. Everything is
chosen on the validation split; the official test split, which is shifted, is scored once at the end. The in-domain
view splits the validation patients in two halves: temperature and thresholds are chosen on one and judged on the
other, and the other way round, so that no picture is judged by a threshold that it helped to choose.

Results of every (seed, k) are kept in ``--cache``, so an interrupted run goes on where it was.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unlabeled.core.adaptation import location_scale
from unlabeled.core.evaluation import Estimate, bootstrap, over_runs, roc_auc
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.progress import quiet, say
from unlabeled.medical import _finetuning as finetuning
from unlabeled.medical import read_images
from unlabeled.medical._finetuning import Decision, Labelled
from unlabeled.medical.baselines import PixelRegression, from_scratch
from unlabeled.medical.evaluation import METRICS, Scored, point_metrics
from unlabeled.medical.images import ImageSet
from unlabeled.medical.model import PneumoniaModel
from unlabeled.medical.splits import check_no_leak, patient_folds

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "shared/data/xray/kermany224/kermany_cxr_224.parquet"
OURS, SCRATCH, PIXELS, PUBLISHED = "ours", "same network from scratch", "PCA-100 + LogReg", "PCA-150 whitened + LogReg"
# Ours, whose networks teach others from the training pictures without labels.
STUDENT = "ours, self-training"
# Without pretraining the usual number of steps may be too few: what does patience alone give?
PATIENT, PATIENT_STEPS = "same network from scratch, 1200 steps", 1200
DOMAINS = ("in-domain", "official test (shifted)", "official test, scores adapted")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--cache", type=Path, required=True, help="folder outside the repository")
    parser.add_argument("--seeds", type=int, default=5, help="fine-tuning seeds 0..n-1")
    parser.add_argument("--pretrainings", type=int, default=5, help="fine-tuning seed s uses pretraining s mod n")
    parser.add_argument("--labels", default="50,250,all", help="numbers of labels, comma-separated")
    parser.add_argument("--size", type=int, default=64, help="side of the pictures in pixels (patches of 8)")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--without-patient", action="store_true", help="leave the 1200 steps from scratch out")
    parser.add_argument("--students", default="", help="numbers of labels that get a row of ours with self-training")
    parser.add_argument("--name", default="medical", help="of the result's files")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    began = time.monotonic()
    torch.set_num_threads(given.threads)
    quiet(not sys.stderr.isatty())
    given.cache.mkdir(parents=True, exist_ok=True)
    images = read_images(given.data, size=given.size)
    parts = {name: images.part(name) for name in ("train", "val", "test")}
    check_no_leak(parts)
    ranked = parts["train"].take(np.argsort(_order(parts["train"]), kind="stable"))
    counts = [len(ranked) if k == "all" else int(k) for k in given.labels.split(",")]
    runs: list[dict[str, object]] = []
    for seed in range(given.seeds):
        for count in counts:
            runs += [
                _cached(given.cache / f"{name.replace(' ', '-')}-seed{seed}-k{count}.json", work)
                for name, work in _methods(given, parts, ranked.take(range(count)), seed)
            ]
        _write(given, parts, runs, seconds=time.monotonic() - began)
    print(f"written to {given.out}/{given.name}.md in {time.monotonic() - began:.0f} s")


def _methods(
    given: argparse.Namespace, parts: dict[str, ImageSet], train: ImageSet, seed: int
) -> list[tuple[str, Callable[[], dict[str, object]]]]:
    assert train.labels is not None
    assert parts["val"].labels is not None
    data, val = Labelled(train.images, train.labels), (parts["val"].images, parts["val"].labels)
    judges = parts["val"], parts["val"].labels

    def ours() -> dict[str, object]:
        model = _pretrained(given, parts["train"], seed % given.pretrainings).set_params(random_state=seed)
        model.finetune(train, data.labels, validation=judges, unlabelled=parts["train"])
        return _record(parts, OURS, seed, train, model._logits)

    def student() -> dict[str, object]:
        model = _pretrained(given, parts["train"], seed % given.pretrainings)
        model.set_params(random_state=seed, self_training=True)
        model.finetune(train, data.labels, validation=judges, unlabelled=parts["train"])
        return _record(parts, STUDENT, seed, train, model._logits)

    def scratch() -> dict[str, object]:
        model = PneumoniaModel(random_state=seed, image_size=given.size)
        model = from_scratch(model, data, groups=train.patients, validation=val)
        return _record(parts, SCRATCH, seed, train, model.to("auto")._logits)

    def patient() -> dict[str, object]:
        model = PneumoniaModel(random_state=seed, image_size=given.size, finetune_steps=PATIENT_STEPS)
        model = from_scratch(model, data, groups=train.patients, validation=val)
        return _record(parts, PATIENT, seed, train, model.to("auto")._logits)

    def pixels() -> dict[str, object]:
        model = PixelRegression(seed=seed).fit(parts["train"].images, data, groups=train.patients, validation=val)
        return _record(parts, PIXELS, seed, train, model._logits)

    def published() -> dict[str, object]:
        return _record(parts, PUBLISHED, seed, train, _published_row(parts["train"].images, data))

    rows = [
        (OURS, ours),
        *([(STUDENT, student)] if str(len(train)) in given.students.split(",") else []),
        (SCRATCH, scratch),
        *([] if given.without_patient else [(PATIENT, patient)]),
    ]
    if seed == 0:  # deterministic given the labels
        rows.append((PIXELS, pixels))
        if len(train) == len(parts["train"]):
            rows.append((PUBLISHED, published))
    return rows


def _pretrained(given: argparse.Namespace, train: ImageSet, seed: int) -> PneumoniaModel:
    folder = given.cache / f"pretrained-{seed}"
    if not folder.exists():
        model = PneumoniaModel(random_state=seed, image_size=given.size, pretrain_epochs=given.epochs)
        model.pretrain(train, state=given.cache / f"state-{seed}").save(folder)
    return PneumoniaModel.load(folder).to("auto")


def _published_row(unlabelled: NDArray[np.uint8], data: Labelled) -> Callable[[NDArray[np.uint8]], NDArray[np.float64]]:
    """The reference row: 150 whitened components of raw 32 x 32 pixels, default logistic regression."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression

    def small(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        x = torch.from_numpy(images)[:, None].float() / 255
        return torch.nn.functional.interpolate(x, size=(32, 32), mode="area").flatten(1).numpy()

    pca = PCA(150, whiten=True, random_state=0).fit(small(unlabelled))
    regression = LogisticRegression(max_iter=2000).fit(pca.transform(small(data.images)), data.labels)
    return lambda images: regression.decision_function(pca.transform(small(images)))


def _record(
    parts: dict[str, ImageSet],
    name: str,
    seed: int,
    train: ImageSet,
    logits: Callable[[NDArray[np.uint8]], NDArray[np.float64]],
) -> dict[str, object]:
    return {
        "method": name,
        "seed": seed,
        "labels": len(train),
        "val": [round(float(z), 5) for z in logits(parts["val"].images)],
        "test": [round(float(z), 5) for z in logits(parts["test"].images)],
    }


def _cached(path: Path, work: Callable[[], dict[str, object]]) -> dict[str, object]:
    if not path.exists():
        began = time.monotonic()
        result = work()
        new = path.with_suffix(".new")
        new.write_text(json.dumps({**result, "seconds": round(time.monotonic() - began, 1)}))
        new.replace(path)
        say(f"{path.stem}: {time.monotonic() - began:.0f} s")
        print(f"{time.strftime('%H:%M:%S')} {path.stem} {time.monotonic() - began:.0f} s", flush=True)
    return json.loads(path.read_text())


def _judge(run: dict[str, object], parts: dict[str, ImageSet]) -> dict[str, dict[str, object]]:
    """Both views of one run: numbers, and what the intervals over patients need."""
    val, test = parts["val"], parts["test"]
    assert val.labels is not None
    assert test.labels is not None
    on_val, on_test = np.array(run["val"]), np.array(run["test"])
    half = patient_folds(val.patients, val.labels, folds=2, seed=0)
    decisions = [finetuning.decide(val.labels[half == 1 - h], on_val[half == 1 - h]) for h in (0, 1)]
    calls = np.where(half == 0, *(on_val_calls(d, on_val) for d in decisions))
    inside = _across_halves(val.labels, on_val, half, decisions)
    whole = finetuning.decide(val.labels, on_val)
    scored = Scored(whole.probability(on_test), whole)
    shifted = point_metrics(test.labels, scored)
    moved = location_scale(on_test, held_labels=val.labels, held_logits=on_val)
    adapted = Scored(whole.probability(moved.back(on_test)), whole)
    return {
        DOMAINS[0]: {"metrics": inside, "score": on_val, "right": calls == val.labels, "part": val},
        DOMAINS[1]: {
            "metrics": shifted,
            "score": on_test,
            "right": (scored.probability >= whole.threshold) == test.labels,
            "part": test,
        },
        DOMAINS[2]: {
            "metrics": point_metrics(test.labels, adapted),
            "score": on_test,
            "right": (adapted.probability >= whole.threshold) == test.labels,
            "part": test,
        },
    }


def on_val_calls(decision: Decision, logits: NDArray[np.float64]) -> NDArray[np.bool_]:
    return decision.probability(logits) >= decision.threshold


def _across_halves(
    labels: NDArray[np.int64], logits: NDArray[np.float64], half: NDArray[np.int64], decisions: list[Decision]
) -> dict[str, float]:
    """Mean over the two halves, each judged by what was chosen on the other; AUROC on both together."""
    per_half = [
        point_metrics(labels[half == h], Scored(decisions[h].probability(logits[half == h]), decisions[h]))
        for h in (0, 1)
    ]
    means = {name: float(np.mean([values[name] for values in per_half])) for name in METRICS}
    return {**means, "AUROC": roc_auc(labels, logits)}


def _write(
    given: argparse.Namespace, parts: dict[str, ImageSet], runs: list[dict[str, object]], *, seconds: float
) -> None:
    rows, gains = _tables(parts, runs)
    hardware = describe_hardware()
    versions = {name: version(name) for name in ("torch", "numpy", "scikit-learn", "monai", "pydicom")}
    seeds = sorted({int(str(run["seed"])) for run in runs})
    trained = {str(run["method"]): float(str(run["seconds"])) for run in runs}
    command = "python benchmarks/medical.py " + " ".join(
        f"--{name} {getattr(given, name)}"
        for name in ("seeds", "pretrainings", "labels", "students", "size", "epochs", "threads")
        if getattr(given, name) != ""
    )
    command += " --without-patient" if given.without_patient else ""
    used = sorted({seed % given.pretrainings for seed in seeds})
    facts = {
        "data": {name: {"pictures": len(part), "fingerprint": part.fingerprint()} for name, part in parts.items()},
        "command": f"{command} --cache FOLDER",
        "size": given.size,
        "seeds": seeds,
        "pretraining_seeds": used,
        "hardware": hardware,
        "versions": {"python": platform.python_version(), **versions},
        "seconds_this_call": round(seconds),
        "seconds_of_the_last_run": trained,
        "rows": rows,
        "gains": gains,
    }
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / f"{given.name}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (given.out / f"{given.name}.md").write_text(_markdown(facts), encoding="utf-8")


def _tables(
    parts: dict[str, ImageSet], runs: list[dict[str, object]]
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    judged = [(run, _judge(run, parts)) for run in runs]
    rows: list[dict[str, object]] = []
    gains: list[dict[str, object]] = []
    for domain in DOMAINS:
        for count in sorted({int(str(run["labels"])) for run in runs}):
            of = {
                name: [views[domain] for run, views in judged if run["labels"] == count and run["method"] == name]
                for name in (OURS, STUDENT, SCRATCH, PATIENT, PIXELS, PUBLISHED)
            }
            rows += [_row(domain, count, name, views) for name, views in of.items() if views]
            gains += [
                {"method": method, **_gain(domain, count, name, of[method], of[name])}
                for method in (OURS, STUDENT)
                for name in (SCRATCH, PATIENT, PIXELS)
                if of[method] and of[name]
            ]
    return rows, gains


def _row(domain: str, count: int, name: str, views: list[dict[str, object]]) -> dict[str, object]:
    """Mean over seeds with its t interval, and the patient bootstrap of the mean AUROC and accuracy."""
    over_seeds = {m: over_runs([view["metrics"][m] for view in views])._asdict() for m in METRICS}  # type: ignore[index]
    part = views[0]["part"]
    assert isinstance(part, ImageSet)
    scores = [view["score"] for view in views]
    right = [np.asarray(view["right"], dtype=float) for view in views]
    auroc = bootstrap(
        lambda y, *s: float(np.mean([roc_auc(y, each) for each in s])),
        part.labels,
        *scores,
        groups=part.patients,
        samples=300,
    )
    correct = bootstrap(lambda *r: float(np.mean(r)), *right, groups=part.patients, samples=300)
    return {
        "view": domain,
        "labels": count,
        "method": name,
        "runs": len(views),
        "over_seeds": _finite(over_seeds),
        "over_patients": {"AUROC": auroc._asdict(), "accuracy": correct._asdict()},
    }


def _gain(
    domain: str, count: int, name: str, ours: list[dict[str, object]], theirs: list[dict[str, object]]
) -> dict[str, object]:
    """Accuracy over theirs, minus one: means over the seeds, interval over patients (paired)."""
    part = ours[0]["part"]
    assert isinstance(part, ImageSet)
    mine = np.mean([np.asarray(view["right"], dtype=float) for view in ours], axis=0)
    other = np.mean([np.asarray(view["right"], dtype=float) for view in theirs], axis=0)
    relative: Estimate = bootstrap(
        lambda a, b: float(a.mean() / b.mean() - 1), mine, other, groups=part.patients, samples=1000
    )
    return {"view": domain, "labels": count, "against": name, "relative_accuracy_gain": relative._asdict()}


def _finite(table: dict[str, dict[str, float]]) -> dict[str, dict[str, float | None]]:
    """An interval over one run is empty; JSON writes that as null."""
    return {m: {k: (v if np.isfinite(v) else None) for k, v in values.items()} for m, values in table.items()}


def _markdown(facts: dict[str, object]) -> str:
    rows, gains = facts["rows"], facts["gains"]
    assert isinstance(rows, list)
    assert isinstance(gains, list)
    lines = [
        f"# Pneumonia from few labels (kermany224, {facts['size']} px, area-averaged)",
        "",
        f"`{facts['command']}`",
        "",
        f"Fine-tuning seeds {facts['seeds']}, pretraining seeds {facts['pretraining_seeds']} (fine-tuning seed s uses "
        "pretraining s mod their number; labels are the same for all seeds, by the table's order). Mean over seeds; in "
        "brackets Student's 95 % interval over seeds, then the 95 % bootstrap interval over patients (the only one "
        "where there is one run). Thresholds and temperature come from validation patients only; in-domain numbers "
        "judge each half of the validation patients by what was chosen on the other. The design of ours (a probe "
        "beside the fine-tuned network) and the baseline's penalty were also chosen on the validation patients, so the "
        "in-domain numbers of both lean to the kind side. The probe was added after numbers of fine-tuning alone on "
        "the official test set had been seen (medical-first.md); what fine-tuning and probe do against shifts was "
        "chosen on changed validation pictures, after the numbers before it had been seen (shift.md); so were the "
        "three looks at each picture and what the probe reads of them (looks.md; numbers before: medical-once.md), "
        "self-training, in which each network teaches another from the training pictures without labels, and the "
        "adaptation of scores to the official test's pictures by all of them together, without their labels. "
        f"Hardware: {facts['hardware']}. Versions: {facts['versions']}.",
    ]
    for domain in DOMAINS:
        lines += ["", f"## {domain}", "", "| labels | method | runs | " + " | ".join(METRICS) + " |"]
        lines.append("|" + "---|" * (3 + len(METRICS)))
        for row in (r for r in rows if r["view"] == domain):
            cells = [_cell(row["over_seeds"][m], row["over_patients"].get(m)) for m in METRICS]
            lines.append(f"| {row['labels']} | {row['method']} | {row['runs']} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "## Relative gain in accuracy of ours",
        "",
        "| view | labels | method | against | gain, % |",
        "|---|---|---|---|---|",
    ]
    for gain in gains:
        value, low, high = (100 * gain["relative_accuracy_gain"][key] for key in ("value", "low", "high"))
        lines.append(
            f"| {gain['view']} | {gain['labels']} | {gain['method']} | {gain['against']} | {value:+.1f} "
            f"[{low:+.1f}, {high:+.1f}] |"
        )
    return "\n".join(lines) + "\n"


def _cell(seeds: dict[str, float | None], patients: dict[str, float] | None) -> str:
    text = f"{seeds['value']:.3f}"
    if seeds["low"] is not None:
        text += f" [{seeds['low']:.3f}, {seeds['high']:.3f}]"
    if patients:
        text += f" [{patients['low']:.3f}, {patients['high']:.3f}]"
    return text


def _order(images: ImageSet) -> NDArray[np.int64]:
    assert images.order is not None
    return np.where(images.order < 0, np.iinfo(np.int64).max, images.order)


if __name__ == "__main__":
    main()
