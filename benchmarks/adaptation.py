"""Do thresholds carry over when pictures change, fixed and with scores that are adapted without labels?

    python benchmarks/adaptation.py --pretrained CACHE/pretrained-0 CACHE/pretrained-1 --cache FOLDER

Data (not part of this repository): kermany224; networks pretrained on its training pictures without labels, fine-tuned
on the first 250 and on all labels. Balanced accuracy on the validation pictures, as they are and changed as in
shift.py: threshold and classes come from one half of the patients (pictures as they are), the other half is judged,
with as many ill as there are (74 %), and thinned out to 30 and 5 %. Adapted: core/adaptation.py, which sees the scores
that are judged and none of their labels. The official test part is not looked at.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from shift import DATA, SIZE, changes

from unlabeled.core.adaptation import location_scale
from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.evaluation import balanced_accuracy
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.progress import quiet
from unlabeled.core.seeds import derive
from unlabeled.medical import PneumoniaModel, read_images
from unlabeled.medical import _finetuning as finetuning
from unlabeled.medical import _planning as planning
from unlabeled.medical._finetuning import Labelled
from unlabeled.medical._network import Member, log_odds
from unlabeled.medical.images import ImageSet
from unlabeled.medical.splits import first_labels, patient_folds

HERE = Path(__file__).parent
SHARES = (None, 0.3, 0.05)
WAYS = ("fixed", "adapted")
COMMAND = "python benchmarks/adaptation.py --pretrained CACHE/pretrained-0 CACHE/pretrained-1 --cache FOLDER"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--pretrained", type=Path, nargs="+", required=True, help="folders of pretrained models")
    parser.add_argument("--cache", type=Path, required=True, help="folder outside the repository")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    quiet(not sys.stderr.isatty())
    train = read_images(given.data, size=SIZE).part("train")
    val = read_images(given.data, size=224).part("val")
    assert val.labels is not None
    changed: dict[str, NDArray[np.uint8]] = changes(val.images, val.labels)
    half = patient_folds(val.patients, val.labels, folds=2, seed=0)
    rng = np.random.default_rng(0)
    found: dict[tuple[str, float | None, str], list[float]] = {}
    for seed, folder in enumerate(given.pretrained):
        for count in (250, len(train)):
            path = given.cache / f"odds-{folder.name}-k{count}.npz"
            if not path.exists():
                given.cache.mkdir(parents=True, exist_ok=True)
                np.savez(path, **asked(folder, seed, train, first_labels(train, count, seed=0), changed))
            with np.load(path, allow_pickle=False) as odds:
                judge(dict(odds), val.labels, half, rng, found)
            print(folder.name, count, flush=True)
    write(given.out, found, list(changed))


def asked(
    folder: Path, seed: int, train: ImageSet, few: ImageSet, changed: dict[str, NDArray[np.uint8]]
) -> dict[str, NDArray]:
    """Log odds of all pictures under each change."""
    model = PneumoniaModel.load(folder)
    backbone = model.module_.backbone
    assert few.labels is not None
    data = Labelled(few.images, few.labels)
    classifier, _ = finetuning.train_classifier(
        backbone, data, settings=planning.finetuning(model, len(few)), batch_size=planning.FINETUNE_BATCH,
        seed=derive(seed, "finetune", 0),
    )  # fmt: skip
    member = Member(classifier, finetuning.fit_probe(backbone, data, finetuning.usual(backbone, train.images)))
    prior = finetuning.prior_logit(few.labels)
    return {name: log_odds(member, backbone, pictures) + prior for name, pictures in changed.items()}


def judge(
    odds: dict[str, NDArray],
    labels: NDArray[np.int64],
    half: NDArray[np.int64],
    rng: np.random.Generator,
    found: dict[tuple[str, float | None, str], list[float]],
) -> None:
    """Adds the balanced accuracy of each change, share and way."""
    plain = odds["as they are"]
    for name, scores in odds.items():
        for known in (half == 0, half == 1):
            decision = finetuning.decide(labels[known], plain[known])
            threshold = decision.temperature * np.log(decision.threshold / (1 - decision.threshold))
            for share in SHARES:
                rows = thinned(np.flatnonzero(~known), labels, share, rng)
                moved = location_scale(scores[rows], held_labels=labels[known], held_logits=plain[known])
                for way, values in zip(WAYS, (scores[rows], moved.back(scores[rows])), strict=True):
                    value = balanced_accuracy(labels[rows], values >= threshold)
                    found.setdefault((name, share, way), []).append(float(value))


def thinned(
    rows: NDArray[np.int64], labels: NDArray[np.int64], share: float | None, rng: np.random.Generator
) -> NDArray[np.int64]:
    """As many of the rows as leave this share of them ill."""
    if share is None:
        return rows
    ill, well = rows[labels[rows] == 1], rows[labels[rows] == 0]
    whole = min(len(well) / (1 - share), len(ill) / share)
    return np.concatenate(
        [rng.choice(ill, int(whole * share), replace=False), rng.choice(well, int(whole * (1 - share)), replace=False)]
    )


def write(out: Path, found: dict[tuple[str, float | None, str], list[float]], names: list[str]) -> None:
    assert __doc__ is not None
    columns = [(share, way) for share in SHARES for way in WAYS]
    means = {name: [float(np.mean(found[name, share, way])) for share, way in columns] for name in names}
    means["mean of all"] = np.mean(list(means.values()), axis=0).tolist()
    worst = {way: min(v for (_, share, w), values in found.items() if w == way and share != 0.05 for v in values)
             for way in WAYS}  # fmt: skip
    hardware = describe_hardware()
    heads = [f"{way}{'' if share is None else f', {share:.0%} ill'}" for share, way in columns]
    lines = [
        "# Thresholds that move with the scores",
        "",
        f"`{COMMAND}`",
        "",
        " ".join(__doc__.split("\n\n")[2].split()),
        "",
        "Mean over two halves, two numbers of labels and the pretrainings. Hardware: "
        f"{', '.join(map(str, hardware.values()))}.",
        "",
        "| pictures | " + " | ".join(heads) + " |",
        "|---" * (1 + len(heads)) + "|",
        *(f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |" for name, values in means.items()),
        "",
        f"Worst single case with 30 % ill or more: fixed {worst['fixed']:.2f}, adapted {worst['adapted']:.2f}.",
    ]
    content = {"command": COMMAND, "hardware": hardware, "columns": heads, "means": means, "worst": worst}
    write_atomically(out / "adaptation.json", json.dumps(content, indent=1) + "\n")
    write_atomically(out / "adaptation.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
