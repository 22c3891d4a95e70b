"""What a pneumonia model keeps of its AUROC when pictures change as they do from hospital to hospital.

    python benchmarks/shift.py --pretrained CACHE/pretrained-0 CACHE/pretrained-1 CACHE/pretrained-2 --cache FOLDER

Data (not part of this repository): kermany224; networks pretrained on its training pictures without labels, fine-tuned
on the first 50 and 250 of the table's label order at 64 px, judged on its validation patients. The official
test part is not looked at. The validation pictures are judged as they are and changed: stretched by 1.23 one way or
the other (all of them; by a coin; or those without pneumonia one way and those with it the other, against what the
collection does), cropped to the middle, darker, brighter, with equalised grey values, blurred, sharpened, noisy,
lit from a side, with black borders, squeezed and padded to a square with black.

Ours as it is, and with each of its two measures against a shift undone: stronger stretches, turns and contrasts in
fine-tuning, and a probe that does not use the two directions along which a stretch moves the features. These measures
were chosen on the same validation pictures with two seeds; other candidates are listed below the tables.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tables import interval
from torch import Tensor

from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.evaluation import roc_auc
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.progress import quiet
from unlabeled.core.seeds import derive
from unlabeled.medical import PneumoniaModel, read_images
from unlabeled.medical import _finetuning as finetuning
from unlabeled.medical import _planning as planning
from unlabeled.medical._finetuning import LABELLED, NUISANCE, Labelled
from unlabeled.medical._network import Member, log_odds
from unlabeled.medical.splits import first_labels
from unlabeled.medical.transforms import Augment

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "shared/data/xray/kermany224/kermany_cxr_224.parquet"
SIZE, COUNTS = 64, (50, 250)
# The strengths that fine-tuning had before (its crops were cut where they stood out; now they shrink).
MILD = Augment(rotation=5.0, stretch=0.15, contrast=0.3)
WAYS: dict[str, tuple[Augment, int]] = {
    "ours": (LABELLED, NUISANCE),
    "mild augmentation": (MILD, NUISANCE),
    "plain probe": (LABELLED, 0),
    "neither (strengths of before)": (MILD, 0),
}


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
    changed = changes(val.images, val.labels)
    runs = []
    for seed, folder in enumerate(given.pretrained):
        for count in COUNTS:
            path = given.cache / f"{folder.name}-k{count}.json"
            if not path.exists():
                labelled = first_labels(train, count, seed=0)
                assert labelled.labels is not None
                data = Labelled(labelled.images, labelled.labels)
                write_atomically(path, json.dumps(run(folder, seed, train.images, data, changed, val.labels)))
            runs += json.loads(path.read_text())
            print(folder.name, count, flush=True)
    write(given.out, runs, list(changed))


def run(
    folder: Path,
    seed: int,
    unlabelled: NDArray[np.uint8],
    data: Labelled,
    changed: dict[str, NDArray[np.uint8]],
    labels: NDArray[np.int64],
) -> list[dict[str, Any]]:
    """AUROC of every way on every change."""
    model = PneumoniaModel.load(folder)
    backbone = model.module_.backbone
    classifiers = {
        augment: finetuning.train_classifier(
            backbone, data, settings=planning.finetuning(model, len(data.labels)), batch_size=planning.FINETUNE_BATCH,
            seed=derive(seed, "finetune", 0), augment=augment,
        )[0]
        for augment in (LABELLED, MILD)
    }  # fmt: skip
    probes = {
        nuisance: finetuning.fit_probe(backbone, data, finetuning.usual(backbone, unlabelled, nuisance=nuisance))
        for nuisance in (NUISANCE, 0)
    }
    return [
        {"way": name, "seed": seed, "labels": len(data.labels), "change": change, "auroc": float(roc_auc(labels, odds))}
        for name, (augment, nuisance) in WAYS.items()
        for change, pictures in changed.items()
        for odds in [log_odds(Member(classifiers[augment], probes[nuisance]), backbone, pictures)]
    ]


def changes(images: NDArray[np.uint8], labels: NDArray[np.int64], size: int = SIZE) -> dict[str, NDArray[np.uint8]]:
    """The validation pictures (N, S, S), as they are and changed, with ``size`` rows and columns."""
    x, ill = torch.from_numpy(images)[:, None].float(), torch.from_numpy(labels == 1)
    plain = small(x, size)
    high, wide = small(middle(x, 0.81, 1.0), size), small(middle(x, 1.0, 0.81), size)
    coin = torch.rand(len(x), generator=torch.Generator().manual_seed(0)) < 0.5
    borders = plain.clone()
    edge = 6 * size // SIZE
    borders[..., :edge, :], borders[..., -edge:, :], borders[..., :edge], borders[..., -edge:] = 0, 0, 0, 0
    changed = {
        "as they are": plain,
        "stretched against the label": torch.where(ill[:, None, None, None], wide, high),
        "stretched by a coin": torch.where(coin[:, None, None, None], wide, high),
        "high": high,
        "wide": wide,
        "middle only": small(middle(x, 0.82, 0.82), size),
        "darker": small(255 * (x / 255) ** 2, size),
        "brighter": small(255 * (x / 255) ** 0.5, size),
        "equalised": small(equalised(x), size),
        "blurred": blurred(plain),
        "sharpened": 2 * plain - blurred(plain),
        "noisy": plain + 6 * torch.randn(plain.shape, generator=torch.Generator().manual_seed(0)),
        "lit from a side": plain + torch.linspace(-40, 40, size),
        "black borders": borders,
        "padded to a square": padded(x, size),
    }
    return {name: x[:, 0].clamp(0, 255).round().to(torch.uint8).numpy() for name, x in changed.items()}


def small(x_bchw: Tensor, size: int) -> Tensor:
    return F.interpolate(x_bchw, size=(size, size), mode="area")


def middle(x_bchw: Tensor, rows: float, columns: float) -> Tensor:
    """The middle, ``rows`` and ``columns`` being shares of the sides."""
    height, width = x_bchw.shape[-2:]
    r, c = round(height * rows), round(width * columns)
    top, left = (height - r) // 2, (width - c) // 2
    return x_bchw[..., top : top + r, left : left + c]


def padded(x_bchw: Tensor, size: int) -> Tensor:
    """As a film that was higher than wide looks when its aspect is kept."""
    within = F.interpolate(x_bchw, size=(size, round(0.81 * size)), mode="area")
    left = (size - within.shape[-1]) // 2
    return F.pad(within, (left, size - within.shape[-1] - left))


def blurred(x_bchw: Tensor) -> Tensor:
    line = torch.tensor([0.25, 0.5, 0.25])
    kernel = (line[:, None] * line)[None, None]
    for _ in range(2):
        x_bchw = F.conv2d(F.pad(x_bchw, (1, 1, 1, 1), mode="replicate"), kernel)
    return x_bchw


def equalised(x_bchw: Tensor) -> Tensor:
    """Each picture's 256 grey values by rank (histogram equalisation)."""
    values = x_bchw.flatten(1).long()
    counts = torch.zeros(len(values), 256).scatter_add_(1, values, torch.ones(values.shape))
    rank = (counts.cumsum(1) - counts / 2) / values.shape[1]
    return 255 * rank.gather(1, values).view_as(x_bchw)


def write(out: Path, runs: list[dict[str, Any]], names: list[str]) -> None:
    assert __doc__ is not None
    about = [" ".join(part.split()) for part in __doc__.split("\n\n")[2:4]]
    seeds = sorted({run["seed"] for run in runs})
    hardware = describe_hardware()
    lines = ["# Pneumonia models when pictures change", "", f"`{COMMAND}`", "", *about, ""]
    lines += [
        f"Mean AUROC over {len(seeds)} pretrainings with a fine-tuning each, Student's 95 % interval over them. "
        f"Hardware: {', '.join(str(value) for value in hardware.values())}.",
    ]
    for count in COUNTS:
        lines += [
            "",
            f"## {count} labels",
            "",
            "| pictures | " + " | ".join(WAYS) + " |",
            "|---" * (1 + len(WAYS)) + "|",
        ]
        for name in [*names, ""]:
            cells = []
            for way in WAYS:
                found = {
                    seed: [
                        run["auroc"]
                        for run in runs
                        if (run["way"], run["labels"], run["seed"]) == (way, count, seed)
                        and name in ("", run["change"])
                    ]
                    for seed in seeds
                }
                cells.append(interval([float(np.mean(values)) for values in found.values()]))
            lines.append(f"| {name or 'mean of all'} | " + " | ".join(cells) + " |")
    tried = out / "shift-tried.md"
    if tried.exists():
        lines += ["", tried.read_text(encoding="utf-8").strip()]
    write_atomically(out / "shift.md", "\n".join(lines) + "\n")
    content = {"command": COMMAND, "hardware": hardware, "runs": runs}
    write_atomically(out / "shift.json", json.dumps(content, indent=1) + "\n")
    print("\n".join(lines))


COMMAND = (
    "python benchmarks/shift.py --pretrained CACHE/pretrained-0 CACHE/pretrained-1 CACHE/pretrained-2 --cache FOLDER"
)

if __name__ == "__main__":
    main()
