"""How a pneumonia model should look at a picture: once or several times, and what its probe should read.

    OMP_NUM_THREADS=1 python benchmarks/looks.py --pretrained CACHE/pretrained-0 CACHE/pretrained-1

Data (not part of this repository): kermany224; networks pretrained on its training pictures without labels, judged on
its validation pictures, as they are and changed as pictures change from hospital to hospital (shift.py). The official
test part is not looked at.

Of each look the probe reads the mean of the tokens, or that and their standard deviation, averaged over the looks. Its
labels are drawn from the training pictures, so that chance in them is seen; what is usual (mean, deviation and the two
directions of a stretch) comes from the labelled pictures, or from 1,000 others. Networks are fine-tuned on the first
draw; their log odds are averaged over the looks.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from shift import DATA, HERE, changes
from sklearn.linear_model import LogisticRegression
from tables import interval
from torch import Tensor

from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.encoder import Backbone
from unlabeled.core.evaluation import roc_auc
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.progress import quiet
from unlabeled.core.seeds import derive
from unlabeled.medical import ImageSet, PneumoniaModel, read_images
from unlabeled.medical import _network as network
from unlabeled.medical import _planning as planning
from unlabeled.medical._finetuning import NUISANCE, PROBE_C, STRETCH, USUAL, Labelled, train_classifier
from unlabeled.medical.transforms import standardise, stretched

Floats = NDArray[np.float64]
COUNTS, DRAWS, TUNED = (25, 50, 250), 6, (25, 250)
ONCE = ("once",)
THREE = ("once", "wide 1.2", "high 1.2")
# What is read of a picture: looks, whether the tokens' deviation too, whether what is usual comes from others.
BEFORE, NOW = "once, mean (before)", "**three looks (1.2), mean and deviation, usual from others**"
WAYS: dict[str, tuple[tuple[str, ...], bool, bool]] = {
    BEFORE: (ONCE, False, False),
    "once, mean and deviation": (ONCE, True, False),
    "once, mean, usual from others": (ONCE, False, True),
    "three looks (1.2), mean": (THREE, False, False),
    "three looks (1.2), mean and deviation": (THREE, True, False),
    NOW: (THREE, True, True),
    "three looks (1.1), the same": (("once", "wide 1.1", "high 1.1"), True, True),
    "three looks (1.35), the same": (("once", "wide 1.35", "high 1.35"), True, True),
    "three looks (1.2) and one at the middle, the same": ((*THREE, "middle"), True, True),
    "three looks (1.2) and a mirrored one, the same": ((*THREE, "mirrored"), True, True),
}
LOOKS = sorted({look for looks, _, _ in WAYS.values() for look in looks})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--pretrained", type=Path, nargs="+", required=True, help="folders of pretrained models")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    quiet(not sys.stderr.isatty())
    train, val = read_images(given.data, size=64).part("train"), read_images(given.data, size=224).part("val")
    assert val.labels is not None
    changed = changes(val.images, val.labels)
    runs = []
    for seed, folder in enumerate(given.pretrained):
        runs += run(PneumoniaModel.load(folder), seed, train, changed, val.labels)
        print(folder.name, flush=True)
    write(given.out, runs)


def run(
    model: PneumoniaModel, seed: int, train: ImageSet, changed: dict[str, NDArray[np.uint8]], truth: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """AUROC of every way on every change."""
    assert train.labels is not None
    backbone = model.module_.backbone
    others = np.linspace(0, len(train) - 1, USUAL).astype(int)
    taught = {look: read(backbone, train.images, look) for look in LOOKS}
    asked = {change: {look: read(backbone, pixels, look) for look in LOOKS} for change, pixels in changed.items()}
    moved = moves(backbone, train.images[others])
    runs, odds = [], {}
    for count in COUNTS:
        for draw in range(DRAWS):
            rows = np.random.default_rng(derive(draw, "labels", count) % 2**32).choice(len(train), count, replace=False)
            own = moves(backbone, train.images[rows])
            for way, (_, _, from_others) in WAYS.items():
                usual = (others, moved) if from_others else (rows, own)
                found = probe(way, rows, train.labels[rows], taught, asked, *usual)
                odds[way, count, draw] = found
                runs.append(_record(seed, count, draw, way, truth, found))
            if draw or count not in TUNED:
                continue
            tuned = train_classifier(
                backbone, Labelled(train.images[rows], train.labels[rows]), settings=planning.finetuning(model, count),
                batch_size=planning.FINETUNE_BATCH, seed=derive(seed, "finetune", 0),
            )[0]  # fmt: skip
            alone = network.Member(tuned, None)
            says = {
                change: [network.log_odds(alone, backbone, changed_as(pixels, look), EVERY) for look in THREE]
                for change, pixels in changed.items()
            }
            looks = {
                "once": {change: each[0] for change, each in says.items()},
                "three looks": {change: np.mean(each, axis=0) for change, each in says.items()},
            }
            for words, found in looks.items():
                runs.append(_record(seed, count, draw, f"network, {words}", truth, found))
            for words, way, kind in (("before", BEFORE, "once"), ("now", NOW, "three looks")):
                beside = odds[way, count, draw]
                both = {change: (looks[kind][change] + beside[change]) / 2 for change in changed}
                runs.append(_record(seed, count, draw, f"network and probe, {words}", truth, both))
    return runs


EVERY = torch.arange(64)  # all patches named: a picture is looked at once, as it is


def changed_as(pixels: NDArray[np.uint8], look: str) -> NDArray[np.uint8]:
    """Pictures (N, S, S) for one look at them."""
    kind, _, factor = look.partition(" ")
    x = torch.from_numpy(np.ascontiguousarray(pixels))
    if kind == "middle":
        edge = round(0.08 * x.shape[-1])
        x = x[:, None, edge:-edge, edge:-edge].float()
        x = torch.nn.functional.interpolate(x, size=pixels.shape[1:], mode="bilinear", align_corners=False)
        return x[:, 0].clamp(0, 255).round().to(torch.uint8).numpy()
    if kind == "mirrored":
        return x.flip(-1).numpy()
    return pixels if not factor else stretched(x, float(factor) if kind == "wide" else 1 / float(factor)).numpy()


@torch.no_grad()
def read(backbone: Backbone, pixels: NDArray[np.uint8], look: str) -> NDArray[np.float32]:
    """Mean and deviation of the tokens, (N, 2 D)."""
    backbone.eval()
    x: Tensor = torch.from_numpy(changed_as(pixels, look))
    return np.concatenate([network.summary(backbone, [standardise(part)]).numpy() for part in x.split(256)])


def moves(backbone: Backbone, pixels: NDArray[np.uint8]) -> Floats:
    """By how much a stretch moves what is read of pictures, (N, 2 D)."""
    x = torch.from_numpy(pixels)
    wide, high = (network.summaries(backbone, stretched(x, by).numpy(), once=True) for by in (STRETCH, 1 / STRETCH))
    return (wide - high).astype(np.float64)


def probe(
    way: str,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    taught: Mapping[str, NDArray[np.float32]],
    asked: Mapping[str, Mapping[str, NDArray[np.float32]]],
    usual: NDArray[np.int64],
    moved: Floats,
) -> dict[str, Floats]:
    """Log odds of each change, as the product's probe would have them.

    Args:
        usual, moved: rows of the pictures that say what is usual, and how a stretch moves them.
    """
    looks, deviations, _ = WAYS[way]

    def features(found: Mapping[str, NDArray[np.float32]]) -> Floats:
        x = np.mean([found[look] for look in looks], axis=0, dtype=np.float64)
        return x if deviations else x[:, : x.shape[1] // 2]

    x = features(taught)
    mean, deviation = x[usual].mean(axis=0), x[usual].std(axis=0) + 1e-6
    away = np.linalg.svd(moved[:, : x.shape[1]] / deviation, full_matrices=False)[2][:NUISANCE]
    kept = np.eye(x.shape[1]) - away.T @ away
    regression = LogisticRegression(C=PROBE_C, class_weight="balanced", max_iter=3000)
    regression.fit((x[rows] - mean) / deviation @ kept, labels)
    return {
        change: regression.decision_function((features(found) - mean) / deviation @ kept)
        for change, found in asked.items()
    }


def _record(
    seed: int, count: int, draw: int, way: str, truth: NDArray[np.int64], odds: Mapping[str, Floats]
) -> dict[str, Any]:
    scores = {change: float(roc_auc(truth, values)) for change, values in odds.items()}
    return {"seed": seed, "labels": count, "draw": draw, "way": way, "auroc": scores}


def write(out: Path, runs: Sequence[dict[str, Any]]) -> None:
    assert __doc__ is not None
    lines = ["# How a pneumonia model looks at a picture", "", f"`{COMMAND}`", ""]
    lines += [" ".join(part.split()) + "\n" for part in __doc__.split("\n\n")[2:4]]
    hardware = describe_hardware()
    seeds = len({run["seed"] for run in runs})
    lines.append(
        f"Mean AUROC over {seeds} pretrainings (probes: with {DRAWS} draws of labels each, the same for both, and what "
        "is gained on the first row with Student's 95 % interval over the draws). Hardware: "
        f"{', '.join(str(value) for value in hardware.values())}."
    )
    for count in COUNTS:
        lines += ["", f"## Probe alone, {count} labels", "", *_table(runs, count, list(WAYS), gains=True)]
    for count in TUNED:
        ways = list(dict.fromkeys(run["way"] for run in runs if run["way"] not in WAYS))
        lines += ["", f"## Beside a fine-tuned network, {count} labels", "", *_table(runs, count, ways, gains=False)]
    write_atomically(out / "looks.md", "\n".join(lines) + "\n")
    content = {"command": COMMAND, "hardware": hardware, "runs": runs}
    write_atomically(out / "looks.json", json.dumps(content) + "\n")
    print("\n".join(lines))


def _table(runs: Sequence[dict[str, Any]], count: int, ways: Sequence[str], *, gains: bool) -> list[str]:
    head = ["way", "as they are", "stretched against the label", "worst change", "mean of all"]
    head += ["gained"] if gains else []
    rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    first: Floats | None = None
    for way in ways:
        own = [run for run in runs if (run["way"], run["labels"]) == (way, count)]
        scores = [run["auroc"] for run in own]
        means = {change: float(np.mean([score[change] for score in scores])) for change in scores[0]}
        worst = min(means, key=lambda change: means[change])
        draws = sorted({run["draw"] for run in own})
        each = np.array([np.mean([list(run["auroc"].values()) for run in own if run["draw"] == d]) for d in draws])
        first = each if first is None else first
        cells = [
            f"{means['as they are']:.3f}",
            f"{means['stretched against the label']:.3f}",
            f"{means[worst]:.3f} ({worst})",
            f"{each.mean():.3f}",
        ]
        if gains:
            cells.append("" if way == ways[0] else interval(each - first, sign="+"))
        rows.append(f"| {way} | " + " | ".join(cells) + " |")
    return rows


COMMAND = "OMP_NUM_THREADS=1 python benchmarks/looks.py --pretrained CACHE/pretrained-0 CACHE/pretrained-1"

if __name__ == "__main__":
    main()
