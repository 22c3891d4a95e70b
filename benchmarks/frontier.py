"""What do masks that choose buy? Probe quality against compute: random, adaptive and sparse masks, two kinds of data.

    OMP_NUM_THREADS=1 python benchmarks/frontier.py --cache FOLDER

Each way trains from scratch with a budget of its own (a share of what the longest training with random masks costs) and
a schedule of that length. Compute is counted step by step from the tokens that were processed: the encoder's training
FLOPs, and those of tokenizer, encoder and decoder together. Adaptive: the places hidden follow their errors, and the
share grows as the error falls; share of each: only how much of each sequence is hidden follows its foretold error.

Radiographs (kermany224 at 64 px, encoder of 128 x 4): trained on the 4,709 training pictures without labels; quality is
the validation AUROC of a logistic regression on the frozen mean token with 250 labels. Vibration (encoder of 64 x 3, as
the product's): trained without labels on the first quarters of the FEMTO runs; quality is the AUROC of a logistic
regression on the frozen embedding that tells the last tenth of a bearing's life from its second quarter, fitted on 12
snapshots of each from the first bearing of every load and judged on the second bearings (mean over them). This looks at
how runs ended, so nothing of the product is chosen by it. Runs are kept in ``--cache``.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tables import interval
from torch import nn

from unlabeled.core.batches import Batches, Transform, chunks
from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.evaluation import roc_auc
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.masking import AdaptiveMask, Mask, RandomMask, SalientMask
from unlabeled.core.pretext import MaskedReconstruction, Pretraining
from unlabeled.core.progress import quiet
from unlabeled.core.seeds import derive
from unlabeled.core.tokens import GridPatches, Tokens
from unlabeled.core.training import TrainingSettings, fit
from unlabeled.medical import read_images
from unlabeled.medical._network import embeddings
from unlabeled.medical.splits import first_labels
from unlabeled.medical.transforms import Augment
from unlabeled.sensors import read
from unlabeled.sensors.views import Scaling, look

HERE = Path(__file__).parent
FULL, LESS, SPARSE = 1.0, 0.77, 0.35
_COSTS = (("flops", "whole"), ("encoder_flops", "whole_encoder"))
# way -> the shares of the longest training's compute that it is given
WAYS: dict[str, tuple[float, ...]] = {
    "random": (SPARSE, 0.5, LESS, FULL),
    "adaptive": (SPARSE, 0.5, LESS, FULL),
    "adaptive, share of each": (LESS,),
    "sparse": (0.15, SPARSE),
    "sparse, half random tokens": (SPARSE,),
    "sparse, random tokens": (SPARSE,),
}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of data: what is trained on, how, and how good the features are."""

    inputs: NDArray[Any]
    transform: Transform | None
    tokenizer: Callable[[], GridPatches]
    encoder: dict[str, int]
    decoder: dict[str, int]
    normalise: bool
    ratio: float
    batch: int
    steps: int  # of the longest training with random masks
    quality: Callable[[Backbone], float]


class Spent(NamedTuple):
    """Training FLOPs so far."""

    encoder: float
    whole: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--cache", type=Path, required=True, help="folder outside the repository")
    parser.add_argument("--kinds", nargs="+", default=["radiographs", "vibration"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5], help="how many, for each of the kinds")
    given = parser.parse_args()
    quiet(True)
    torch.set_num_threads(1)
    given.cache.mkdir(parents=True, exist_ok=True)
    make = {"radiographs": radiographs, "vibration": vibration}
    rows: list[dict[str, Any]] = []
    for name, seeds in zip(given.kinds, given.seeds, strict=True):
        kind = make[name](given.data)
        for seed in range(seeds):
            for way, shares in WAYS.items():
                for share in shares:
                    path = given.cache / f"{name}-{way.replace(', ', '-').replace(' ', '-')}-{share}-s{seed}.json"
                    if not path.exists():
                        found = {"kind": name, "way": way, "share": share, "seed": seed, **run(kind, way, share, seed)}
                        write_atomically(path, json.dumps(found))
                    rows.append(json.loads(path.read_text()))
                    print(path.stem, rows[-1]["quality"], flush=True)
    write(given, rows)


def radiographs(data: Path) -> Kind:
    images = read_images(data / "xray/kermany224/kermany_cxr_224.parquet", size=64)
    train, val = images.part("train"), images.part("val")
    labelled = first_labels(train, 250, seed=0)
    assert labelled.labels is not None
    assert val.labels is not None
    taught, truth = labelled.labels, val.labels

    def quality(backbone: Backbone) -> float:
        model = _regression().fit(embeddings(backbone, labelled.images), taught)
        return roc_auc(truth, model.predict_proba(embeddings(backbone, val.images))[:, 1])

    return Kind(
        inputs=train.images,
        transform=Augment(),
        tokenizer=lambda: GridPatches(grid=(64, 64), patch=(8, 8), dim=128),
        encoder={"dim": 128, "depth": 4, "heads": 4},
        decoder={"dim": 64, "depth": 2, "heads": 4},
        normalise=True,
        ratio=0.75,
        batch=128,
        steps=10 * (len(train) // 128),
        quality=quality,
    )


def vibration(data: Path) -> Kind:
    inputs, sides = [], []
    for path in sorted((data / "vibration/femto").glob("*.npz")):
        (one,) = read(path)
        seen, normal = look(one, rows=len(one), window=1), one.normal_rows()
        early = seen.rows < normal
        pictures = Scaling.of(seen.pictures[early], seen.indicators[early]).picture(seen.pictures)
        inputs.append(pictures[early])
        middle, late = (seen.rows >= normal) & (seen.rows < len(one) // 2), seen.rows >= len(one) - len(one) // 10
        sides.append((pictures[middle], pictures[late]))
    taught, judged = sides[::2], sides[1::2]  # the first bearing of each load, and the second
    few = np.concatenate([_spread(side, 12) for pair in taught for side in pair])
    told = np.tile(np.repeat([0, 1], 12), len(taught))

    def quality(backbone: Backbone) -> float:
        model = _regression().fit(_embedded(backbone, few), told)

        def one(pair: tuple[NDArray[np.float32], NDArray[np.float32]]) -> float:
            score = model.predict_proba(_embedded(backbone, np.concatenate(pair)))[:, 1]
            return roc_auc(np.repeat([0, 1], [len(side) for side in pair]), score)

        return float(np.mean([one(pair) for pair in judged]))

    return Kind(
        inputs=np.concatenate(inputs),
        transform=None,
        tokenizer=lambda: GridPatches(grid=inputs[0].shape[2:], patch=(8, 4), dim=64, channels=inputs[0].shape[1]),
        encoder={"dim": 64, "depth": 3, "heads": 4},
        decoder={"dim": 32, "depth": 1, "heads": 4},
        normalise=False,
        ratio=0.6,
        batch=64,
        steps=600,
        quality=quality,
    )


def _spread(rows: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(int)]


@torch.no_grad()
def _embedded(backbone: Backbone, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    backbone.eval()
    parts = [backbone.embed(torch.from_numpy(pictures[rows])).numpy() for rows in chunks(len(pictures), 256)]
    return np.concatenate(parts)


def _regression() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=3000))


def mask_of(kind: Kind, way: str, tokens: int, seed: int) -> Mask:
    draw, usual = derive(seed, "mask"), kind.ratio
    match way:
        case "random":
            return RandomMask(usual, seed=draw)
        case "adaptive":
            return AdaptiveMask(tokens, ratio=(usual - 0.1, usual + 0.1), spread=0.0, seed=draw)
        case "adaptive, share of each":
            return AdaptiveMask(tokens, ratio=(usual, usual), strength=0.0, seed=draw)
    chance = {"sparse": 0.2, "sparse, half random tokens": 0.5, "sparse, random tokens": 1.0}[way]
    return SalientMask(active=0.5, chance=chance, ratio=usual, seed=draw)


class Counted(MaskedReconstruction):
    """Masked reconstruction that adds up what its steps cost in training."""

    encoder_flops = 0.0
    flops = 0.0

    def loss(self, backbone: Backbone, batch: torch.Tensor, step: int) -> Any:
        seen: list[tuple[nn.Module, int, int]] = []

        def note(module: nn.Module, inputs: tuple[Tokens, ...]) -> None:
            seen.append((module, *inputs[0].x.shape[:2]))

        hooks = [m.register_forward_pre_hook(note) for m in (backbone.encoder, self.decoder)]
        found = super().loss(backbone, batch, step)
        for hook in hooks:
            hook.remove()
        for module, b, t in seen:
            assert isinstance(module, Encoder)
            each = 3.0 * b * t * module.depth * (24 * module.dim**2 + 4 * t * module.dim)
            self.flops += each
            self.encoder_flops += each if module is backbone.encoder else 0.0
        tokenizer = backbone.tokenizer
        assert isinstance(tokenizer, GridPatches)
        self.flops += 6.0 * len(batch) * tokenizer.tokens * tokenizer.numbers * tokenizer.dim
        return found


def built(kind: Kind, way: str, seed: int) -> tuple[Pretraining, Counted]:
    torch.manual_seed(derive(seed, "network"))
    tokenizer = kind.tokenizer()
    backbone = Backbone(tokenizer, Encoder(**kind.encoder))  # type: ignore[arg-type]
    mask = mask_of(kind, way, tokenizer.tokens, seed)
    task = Counted(tokenizer, mask=mask, normalise=kind.normalise, **kind.decoder)
    return Pretraining(backbone, task), task


def cost_of_a_step(kind: Kind, way: str) -> Spent:
    """Training FLOPs at the start."""
    module, task = built(kind, way, 0)
    grid = task_input(kind, module)
    with torch.no_grad():
        task.loss(module.backbone, grid, 0)
    return Spent(task.encoder_flops, task.flops)


def task_input(kind: Kind, module: Pretraining) -> torch.Tensor:
    tokenizer = module.backbone.tokenizer
    assert isinstance(tokenizer, GridPatches)
    return torch.randn(kind.batch, tokenizer.channels, *tokenizer.grid)


def run(kind: Kind, way: str, share: float, seed: int) -> dict[str, Any]:
    """One training with a share of the compute of the longest: of the encoder's for adaptive masks, which is what they
    save; of all for sparse ones."""
    full = cost_of_a_step(kind, "random")
    own = cost_of_a_step(kind, "random" if way.startswith("adaptive") else way)
    steps = max(1, round(kind.steps * share * (full.whole / own.whole)))
    module, task = built(kind, way, seed)
    untrained = kind.quality(module.backbone)
    batches = Batches(kind.inputs, batch_size=kind.batch, seed=derive(seed, "pretrain"), transform=kind.transform)
    module.train()
    fit(module, batches, settings=TrainingSettings(steps=steps, lr=1e-3, device="cpu"), seed=seed)
    return {
        "steps": steps,
        "encoder_flops": task.encoder_flops,
        "flops": task.flops,
        "whole": full.whole * kind.steps,
        "whole_encoder": full.encoder * kind.steps,
        "untrained": untrained,
        "quality": kind.quality(module.backbone),
    }


def write(given: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    kinds, seeds = " ".join(given.kinds), " ".join(map(str, given.seeds))
    content = {
        "command": f"OMP_NUM_THREADS=1 python benchmarks/frontier.py --kinds {kinds} --seeds {seeds} --cache FOLDER",
        "hardware": describe_hardware(),
        "rows": rows,
        "adaptive_reaches_at": {name: reached([r for r in rows if r["kind"] == name]) for name in given.kinds},
    }
    given.out.mkdir(parents=True, exist_ok=True)
    write_atomically(given.out / "frontier.json", json.dumps(content, indent=1) + "\n")
    write_atomically(given.out / "frontier.md", markdown(content))
    print(markdown(content))


def reached(rows: list[dict[str, Any]]) -> dict[str, list[float | None]]:
    """Seed by seed: encoder FLOPs at which adaptive masks reach what random ones end with, as a share of what those
    took, or ``None`` where they never do."""
    found: dict[str, list[float | None]] = {way: [] for way in WAYS if way.startswith(("random", "adaptive"))}
    for seed in sorted({row["seed"] for row in rows}):
        own = [row for row in rows if row["seed"] == seed]
        end = next(row for row in own if row["way"] == "random" and row["share"] == FULL)
        for way, shares in found.items():
            curve = sorted((r["encoder_flops"] / end["encoder_flops"], r["quality"]) for r in own if r["way"] == way)
            shares.append(next((x for x, y in curve if y >= end["quality"]), None))
    return found


def markdown(content: dict[str, Any]) -> str:
    assert __doc__ is not None
    about = __doc__.split("\n\n")
    lines = ["# Masks that choose: quality against compute", "", f"`{content['command']}`", ""]
    lines += [" ".join(part.split()) for part in about[2:4]]
    lines += [f"Means with Student's 95 % interval over seeds. Hardware: {content['hardware']}.", ""]
    for name, ways in content["adaptive_reaches_at"].items():
        rows = [row for row in content["rows"] if row["kind"] == name]
        lines += [f"## {name.capitalize()}, {len({row['seed'] for row in rows})} seeds", "", *_table(rows), ""]
        lines += [
            "Where they reach what random masks end with (asked: at 77 % of their encoder FLOPs), by seed; that random "
            "masks are there early themselves shows how much of this is chance:",
            "",
        ]
        for way, shares in ways.items():
            lines.append(f"- {way}: " + ", ".join("never" if x is None else f"at {x:.0%}" for x in shares))
        lines.append("")
    return "\n".join(lines)


def _table(rows: list[dict[str, Any]]) -> list[str]:
    """Kept is the mean gain as a share of the mean gain of the longest training with random masks."""
    lines = ["| masks | compute, all | compute, encoder | quality | gain over untrained | kept |", "|" + "---|" * 6]
    first = [r for r in rows if (r["way"], r["share"]) == ("random", FULL)]
    full = np.mean([r["quality"] - r["untrained"] for r in first])
    lines.append(f"| untrained | 0 | 0 | {interval([r['untrained'] for r in first])} | | |")
    for way, shares in WAYS.items():
        for share in shares:
            own = [r for r in rows if (r["way"], r["share"]) == (way, share)]
            whole, encoder = (np.mean([r[n] / r[m] for r in own]) for n, m in _COSTS)
            gains = [r["quality"] - r["untrained"] for r in own]
            lines.append(
                f"| {way} | {whole:.0%} | {encoder:.0%} | {interval([r['quality'] for r in own])} | "
                f"{interval(gains, sign='+')} | {np.mean(gains) / full:.0%} |"
            )
    return lines


if __name__ == "__main__":
    main()
