"""Two kinds of data that several benchmarks train on, and how good the features of each are.

Radiographs (kermany224 at 64 px): trained on the 4,709 training pictures without labels; quality is the validation
AUROC of a logistic regression on the frozen mean token with 250 labels. Vibration: trained without labels on the first
quarters of the FEMTO runs; quality is the AUROC of a logistic regression on the frozen embedding that tells the last
tenth of a bearing's life from its second quarter, fitted on 12 snapshots of each from the first bearing of every load
and judged on the second bearings (mean over them). This looks at how runs ended, so nothing of the product is chosen by
it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unlabeled.core.batches import Transform
from unlabeled.core.encoder import Backbone
from unlabeled.core.evaluation import roc_auc
from unlabeled.core.store import chunks
from unlabeled.core.tokens import GridPatches
from unlabeled.medical import read_images
from unlabeled.medical._network import embeddings
from unlabeled.medical.splits import first_labels
from unlabeled.medical.transforms import Augment
from unlabeled.sensors import read
from unlabeled.sensors.views import Scaling, look


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of data: what is trained on, how, and how good the features are."""

    name: str
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

    def noise(self) -> torch.Tensor:
        """A batch of the right shape that holds nothing."""
        tokenizer = self.tokenizer()
        return torch.randn(self.batch, tokenizer.channels, *tokenizer.grid)


def radiographs(data: Path) -> Kind:
    images = read_images(data / "xray/kermany224/kermany_cxr_224.parquet", size=64)
    train, val = images.part("train"), images.part("val")
    labelled = first_labels(train, 250, seed=0)
    assert labelled.labels is not None
    assert val.labels is not None
    taught, truth = labelled.labels, val.labels

    def quality(backbone: Backbone) -> float:
        model = regression().fit(embeddings(backbone, labelled.images), taught)
        return roc_auc(truth, model.predict_proba(embeddings(backbone, val.images))[:, 1])

    return Kind(
        name="radiographs",
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
        model = regression().fit(_embedded(backbone, few), told)

        def one(pair: tuple[NDArray[np.float32], NDArray[np.float32]]) -> float:
            score = model.predict_proba(_embedded(backbone, np.concatenate(pair)))[:, 1]
            return roc_auc(np.repeat([0, 1], [len(side) for side in pair]), score)

        return float(np.mean([one(pair) for pair in judged]))

    return Kind(
        name="vibration",
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


def regression() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=3000))
