"""How long until the features are as good as the usual recipe's? Wall time against a linear probe with 250 labels.

    OMP_NUM_THREADS=2 python benchmarks/time_to_quality.py --cache FOLDER

Data (not part of this repository): kermany224 at 64 px; its 4,709 training pictures without labels are what everybody
trains on, with the same crops; the probe is a logistic regression on the frozen mean token, fitted on the first 250 of
the table's label order and judged on the validation patients. The official test part is not looked at.

The usual recipe: transformers' ViTMAEForPreTraining with an encoder of 192 x 6, a decoder of 96 x 2, 75 % hidden,
batches of 256, 100 epochs, AdamW with warm-up and a cosine descent (its position embeddings, which transformers 5.23
leaves at zero in a model made from a config, are set by the library's own functions; without them it learns nothing).
Ours have the same encoder and a third of ViTMAE's wall time, one row a third of MONAI's. Wall time is steps times the
seconds of a step; those are medians of turns that all ways take within one process with two threads, data included and
drawn alike: what else the machine does while the networks are trained does not matter. Batch size, mask and share
predicted were seen with seed 0; later seeds are fresh trainings, judged by the same labels and patients. A row of one
seed tells a lever's order of size, no more. MONAI's network takes the usual recipe's 100 epochs too; where linear maps
begin as its do, a step takes as long as with batches of 64. Runs are kept in ``--cache``; ``--only`` trains some of
them.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import DECODER, DEPTH, DIM, HEADS, PATCH, SIDE, Peer, monai_mae, plain_optimizer, plain_step, vit_mae
from tables import interval
from torch import Tensor, nn

from unlabeled.core.batches import Batches
from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.evaluation import roc_auc
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.optimization import TrainingSettings, learning_rate, make_optimizer, train_step
from unlabeled.core.pretext import MaskedReconstruction, Pretraining
from unlabeled.core.progress import quiet
from unlabeled.core.seeds import derive
from unlabeled.core.store import chunks
from unlabeled.core.tokens import GridPatches, Tokens
from unlabeled.medical import read_images
from unlabeled.medical._network import embeddings
from unlabeled.medical.images import ImageSet
from unlabeled.medical.splits import first_labels
from unlabeled.medical.tasks import Masking, build_mask
from unlabeled.medical.transforms import Augment, standardise

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "shared/data/xray/kermany224/kermany_cxr_224.parquet"
EPOCHS, LABELS, LR = 100, 250, 1e-3
CURVE = (10, 20, 33, 50, 75)


@dataclass(frozen=True, kw_only=True)
class Way:
    """How to train: ``share`` of a usual recipe's wall time (1: its epochs); ``peer``: another library's network."""

    share: float = 1 / 3
    of: str = "usual"  # whose wall time
    batch: int = 64
    ratio: float = 0.75
    predicted: float = 1.0
    masking: Masking = "random"
    decoder: tuple[int, int, int] = DECODER
    masks: int = 1  # so often is each loaded picture in a batch, every time under another mask (data2vec 2.0)
    stem: bool = False
    lr: float = LR
    plain: bool = False  # linear maps begin as PyTorch's do, as MONAI's: smaller than by Xavier's rule
    peer: Callable[[], Peer] | None = None


USUAL = Way(share=1.0, batch=256, peer=vit_mae)
# What is kept on disk bears the short name.
WAYS: dict[str, tuple[str, Way]] = {
    "usual": ("usual recipe (transformers ViTMAE)", USUAL),
    "m": ("usual recipe (MONAI MaskedAutoEncoderViT)", Way(share=1.0, batch=256, peer=monai_mae)),
    "p": ("usual recipe in batches of 64, a shorter schedule (transformers ViTMAE)", Way(batch=64, peer=vit_mae)),
    "a": ("ours: the same recipe, shorter schedule", Way(batch=256)),
    "b": ("ours: batches of 64", Way(batch=64)),
    "t": ("batches of 64, for a third of MONAI's time", Way(batch=64, of="m")),
    "c": ("batches of 64, a quarter of the hidden patches predicted", Way(batch=64, predicted=0.25)),
    "h": ("batches of 64, 85 % hidden", Way(batch=64, ratio=0.85)),
    "d": ("batches of 64, a quarter predicted, 85 % hidden", Way(batch=64, predicted=0.25, ratio=0.85)),
    "k": ("batches of 64, lungs first", Way(batch=64, masking="lungs")),
    "s": ("batches of 64, half of the patches take part (sparse)", Way(batch=64, masking="sparse")),
    "n": ("batches of 64, a decoder of 64 x 1", Way(batch=64, decoder=(64, 1, 4))),
    "v": ("batches of 64, 16 pictures under 4 masks each", Way(batch=64, masks=4)),
    "x": ("batches of 64, a convolutional stem in each patch", Way(batch=64, stem=True)),
    "l": ("batches of 64, twice the learning rate", Way(batch=64, lr=2 * LR)),
    "e": ("batches of 32", Way(batch=32)),
    "i": ("batches of 64, linear maps begin as PyTorch's do", Way(batch=64, plain=True)),
}
Step = Callable[[Tensor, int, TrainingSettings], None]


class Stem(GridPatches):
    """Two convolutions within each patch in place of one linear map (after Xiao et al., "Early Convolutions Help
    Transformers See Better", NeurIPS 2021); nothing of a hidden patch reaches a visible one."""

    def __init__(self) -> None:
        super().__init__(grid=(SIDE, SIDE), patch=(PATCH, PATCH), dim=DIM)
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, 24, 3, stride=2, padding=1), nn.GELU(), nn.Conv2d(24, 48, 3, stride=2, padding=1), nn.GELU()
        )
        self.join = nn.Linear(48 * (PATCH // 4) ** 2, DIM)

    def forward(self, batch: Tensor) -> Tokens:
        patches = self.patches(batch)
        b, t, _ = patches.shape
        x = self.convolutions(patches.reshape(b * t, 1, PATCH, PATCH))
        return Tokens(self.join(x.flatten(1)).view(b, t, DIM), self.position)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--cache", type=Path, required=True, help="folder outside the repository")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="*", choices=list(WAYS), help="train these and stop")
    given = parser.parse_args()
    quiet(True)
    given.cache.mkdir(parents=True, exist_ok=True)
    images = read_images(given.data, size=SIDE)
    train, val = images.part("train"), images.part("val")
    speed: dict[str, float] = _kept(given.cache / "seconds.json", lambda: seconds(train))
    speed = with_new(speed, train)
    write_atomically(given.cache / "seconds.json", json.dumps(speed))
    hardware = describe_hardware()
    torch.set_num_threads(1)
    whole = {name: planned(way, len(train)) * speed[name] for name, (_, way) in WAYS.items() if way.share == 1}
    for seed in given.seeds:
        for name in given.only or ():
            way = WAYS[name][1]
            steps = planned(way, len(train), whole[way.of] / speed[name])
            path = given.cache / f"{name}-s{seed}.json"
            found = _kept(path, lambda way=way, steps=steps, seed=seed: run(way, steps, seed, train, val))
            print(seed, name, steps, found["curve"], found["auroc"], flush=True)
    if not given.only:
        write(given, speed, whole, hardware)


def planned(way: Way, pictures: int, fitting: float = 0.0) -> int:
    """Steps: all epochs of a usual recipe, or the share of as many as fit into its wall time."""
    return EPOCHS * (pictures // way.batch) if way.share == 1 else round(way.share * fitting)


def _kept(path: Path, make: Callable[[], Any]) -> Any:
    if not path.exists():
        write_atomically(path, json.dumps(make()))
    return json.loads(path.read_text())


def build(way: Way, seed: int) -> tuple[Pretraining | Peer, Step]:
    """The network and what one step of its training is."""
    return _theirs(way, seed) if way.peer else _ours(way, seed)


def _ours(way: Way, seed: int) -> tuple[Pretraining, Step]:
    torch.manual_seed(derive(seed, "network"))
    tokenizer = Stem() if way.stem else GridPatches(grid=(SIDE, SIDE), patch=(PATCH, PATCH), dim=DIM)
    mask = build_mask(tokenizer, masking=way.masking, ratio=way.ratio, seed=derive(seed, "mask"))
    dim, depth, heads = way.decoder
    task = MaskedReconstruction(tokenizer, mask=mask, dim=dim, depth=depth, heads=heads, predicted=way.predicted)
    module = Pretraining(Backbone(tokenizer, Encoder(dim=DIM, depth=DEPTH, heads=HEADS)), task).train()
    for part in module.modules() if way.plain else ():
        if isinstance(part, nn.Linear):
            part.reset_parameters()
    optimizer = make_optimizer(module, TrainingSettings(steps=1))

    def step(batch: Tensor, number: int, settings: TrainingSettings) -> None:
        train_step(module, optimizer, (batch.repeat(way.masks, 1, 1, 1),), number, settings, torch.device("cpu"))

    return module, step


def _theirs(way: Way, seed: int) -> tuple[Peer, Step]:
    torch.manual_seed(derive(seed, "network"))
    assert way.peer is not None
    peer = way.peer()
    optimizer = plain_optimizer(peer.model, LR)

    def step(batch: Tensor, number: int, settings: TrainingSettings) -> None:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(number, settings)
        plain_step(peer.model, optimizer, peer.loss(batch))

    return peer, step


def with_new(speed: dict[str, float], train: ImageSet) -> dict[str, float]:
    """Seconds of ways that came later, relative to those of "b" in the same process."""
    new = [name for name in WAYS if name not in speed]
    if not new:
        return speed
    found = seconds(train, names=["b", *new])
    return {**speed, **{name: found[name] / found["b"] * speed["b"] for name in new}}


def seconds(
    train: ImageSet, *, turns: int = 12, steps: int = 4, names: Sequence[str] = tuple(WAYS)
) -> dict[str, float]:
    """Median seconds a step, data included, by way; turns are taken in one process on all its threads."""
    contenders = {name: build(WAYS[name][1], 0)[1] for name in names}
    data = {name: _batches(train, WAYS[name][1], 0) for name in names}
    took: dict[str, list[float]] = {name: [] for name in names}
    settings = TrainingSettings(steps=10_000)
    for turn in range(turns + 1):
        for name, step in contenders.items():
            began = time.perf_counter()
            for number in range(turn * steps, (turn + 1) * steps):
                step(data[name].at(number)[0], number, settings)
            if turn:  # the first is a warm-up
                took[name].append((time.perf_counter() - began) / steps)
    return {name: float(np.median(values)) for name, values in took.items()}


def _batches(train: ImageSet, way: Way, seed: int) -> Batches:
    return Batches(train.images, batch_size=way.batch // way.masks, seed=derive(seed, "pretrain"), transform=Augment())


def run(way: Way, steps: int, seed: int, train: ImageSet, val: ImageSet) -> dict[str, Any]:
    network, step = build(way, seed)
    batches, settings = _batches(train, way, seed), TrainingSettings(steps=steps, lr=way.lr)
    torch.manual_seed(derive(seed, "masks of the peer"))
    points = {round(steps * share / 100): share for share in CURVE}
    before, curve = probe(network, train, val), {}
    for number in range(steps):
        step(batches.at(number)[0], number, settings)
        if number + 1 in points:
            curve[str(points[number + 1])] = probe(network, train, val)
    return {**about(way), "seed": seed, "steps": steps, "untrained": before, "curve": curve,
            "auroc": probe(network, train, val)}  # fmt: skip


def about(way: Way) -> dict[str, Any]:
    return {**asdict(way), "peer": way.peer.__name__ if way.peer else None}


@torch.no_grad()
def features(network: Pretraining | Peer, pictures: np.ndarray) -> np.ndarray:
    """Mean tokens (N, D) of unmasked pictures."""
    if isinstance(network, Pretraining):
        return embeddings(network.backbone, pictures)
    parts = [network.features(standardise(torch.from_numpy(pictures[rows]))) for rows in chunks(len(pictures), 256)]
    return torch.cat(parts).numpy()


def probe(network: Pretraining | Peer, train: ImageSet, val: ImageSet) -> float:
    """Validation AUROC of a logistic regression on 250 labels, both classes weighing the same."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    module = network if isinstance(network, Pretraining) else network.model
    module.eval()
    labelled = first_labels(train, LABELS, seed=0)
    judge = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=3000))
    judge.fit(features(network, labelled.images), labelled.labels)
    score = judge.predict_proba(features(network, val.images))[:, 1]
    module.train()
    return roc_auc(val.labels, score)


def write(
    given: argparse.Namespace, speed: dict[str, float], whole: dict[str, float], hardware: dict[str, Any]
) -> None:
    """The results of all runs that are kept."""
    runs = {name: [json.loads(p.read_text()) for p in sorted(given.cache.glob(f"{name}-s*.json"))] for name in WAYS}
    content = {
        "command": "OMP_NUM_THREADS=2 python benchmarks/time_to_quality.py --cache FOLDER (the seconds; then with "
        "--only NAME... the trainings; then again for this page)",
        "hardware": hardware,
        "seconds_a_step": speed,
        "runs": {name: found for name, found in runs.items() if found},
    }
    rows = []
    for name, found in runs.items():
        title, way = WAYS[name]
        found = [one for one in found if one["seed"] in given.seeds] or found
        seeds = ", ".join(str(one["seed"]) for one in found) or "not trained"
        steps = found[0]["steps"] if found else round(way.share * whole[way.of] / speed[name])
        rate, usual = way.batch / speed[name], USUAL.batch / speed["usual"]
        took = steps * speed[name]
        rows.append(
            f"| {title} | {rate:.0f} ({rate / usual:.2f}) | {steps} | {took / 60:.1f} ({took / whole['usual']:.0%}) | "
            f"{seeds} | {interval([one['auroc'] for one in found], digits=4) if found else ''} |"
        )
    usual_runs = [one for one in runs["usual"] if one["seed"] in given.seeds]
    late = (
        {point: interval([one["curve"][str(point)] for one in usual_runs], digits=4) for point in CURVE}
        if usual_runs
        else {}
    )
    assert __doc__ is not None
    about = [" ".join(part.split()) for part in __doc__.split("\n\n")[2:4]]
    lines = [
        "# Time to quality of a masked autoencoder",
        "",
        f"`{content['command']}`",
        "",
        *about,
        "",
        f"Mean and Student's 95 % interval over seeds. Hardware: {content['hardware']}.",
        "",
        "| training | pictures/s (times the usual) | steps | minutes (share) | seeds | validation AUROC, 250 labels |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        "The usual recipe on its way (share of its time: AUROC; its learning rate still falls): "
        + "; ".join(f"{point} %: {value}" for point, value in late.items())
        + ".",
    ]
    given.out.mkdir(parents=True, exist_ok=True)
    write_atomically(given.out / "time_to_quality.json", json.dumps(content, indent=1) + "\n")
    write_atomically(given.out / "time_to_quality.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
