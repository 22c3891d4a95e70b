"""Could the label be told without looking at the lungs? And does the model look elsewhere?

What is found here is a reason to look, not a proof: a child held upright and an adult lying down have other borders,
and may for good reasons have other prevalences. It is a fault where the reason is the ward, the machine or a marker.

Shape suffixes: n picture, d feature.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from unlabeled.core import evaluation as core
from unlabeled.core.audit.groups import holm
from unlabeled.core.audit.probe import Probed, probe
from unlabeled.core.errors import DataError
from unlabeled.core.evaluation import Estimate
from unlabeled.core.progress import say
from unlabeled.core.tokens import GridPatches
from unlabeled.medical import _network as network
from unlabeled.medical.evaluation import auroc_gain
from unlabeled.medical.images import ImageSet
from unlabeled.medical.model import PneumoniaModel

SIDE = 32
# As shares of a side: width of the border, side of a corner, side of the middle that is blanked.
BORDER, CORNER, MIDDLE = 1 / 8, 1 / 5, 0.6
GREYS = 32
WHOLE = "whole picture"
CHANCE = 0.05
# After a pretraining: pictures that are asked about, refits for chance (fewer than 100 could show nothing after Holm's
# correction for five properties), and values times refits, above which there are fewer: a probe takes seconds.
PROBED, REFITS, FITS = 2000, 100, 2400
Floats = NDArray[np.float64]


class Shortcut(NamedTuple):
    """What the label can be told from, or why that was not tried; ``adjusted`` is Holm's p over all that were tried."""

    name: str
    found: Probed | None
    adjusted: float
    note: str = ""

    @property
    def suspicious(self) -> bool:
        """Better than chance, the number of probes considered; never the whole picture, which is the yardstick."""
        return self.name != WHOLE and self.found is not None and self.adjusted < CHANCE


class Occluded(NamedTuple):
    """The model's own AUROC when some patches are not shown to it, and what it loses (paired over patients)."""

    name: str
    patches: int
    auroc: Estimate
    loss: Estimate

    @property
    def suspicious(self) -> bool:
        return self.loss.low > 0


def label_probes(images: ImageSet, *, seed: int = 0, shuffles: int = 200) -> list[Shortcut]:
    """The label from borders, corners, everything but the middle, grey values and the size of the file's picture, each
    alone, and from the whole picture at the same coarse size for comparison.

    Args:
        images: labelled.
        shuffles: refits that chance is judged by.
    """
    assert images.labels is not None
    found: dict[str, Probed | str] = {}
    for name, features in parts_of(images).items():
        if isinstance(features, str):
            found[name] = features
            continue
        try:
            found[name] = probe(features, images.labels, units=images.patients, shuffles=shuffles, seed=seed)
        except DataError as error:
            found[name] = str(error)
    tried = {name: one for name, one in found.items() if isinstance(one, Probed) and name != WHOLE}
    adjusted = dict(zip(tried, holm([one.p for one in tried.values()]), strict=True))
    return [
        Shortcut(name, one, adjusted.get(name, one.p)) if isinstance(one, Probed) else Shortcut(name, None, 1.0, one)
        for name, one in found.items()
    ]


def representation_probes(
    embeddings: NDArray[np.float32],
    attributes: Mapping[str, NDArray[np.str_]],
    patients: NDArray[np.str_],
    *,
    seed: int = 0,
    shuffles: int = 200,
) -> list[Shortcut]:
    """Who and how was pictured, from features that no label has touched (Glocker et al., eBioMedicine 2023).

    Args:
        embeddings: (N, D) of the pretrained network.
        attributes: (N,) each, by name.
    """
    found: dict[str, Probed | str] = {}
    for name, values in attributes.items():
        try:
            found[name] = probe(embeddings, values, units=patients, shuffles=shuffles, seed=seed)
        except DataError as error:
            found[name] = str(error)
    tried = {name: one for name, one in found.items() if isinstance(one, Probed)}
    adjusted = dict(zip(tried, holm([one.p for one in tried.values()]), strict=True))
    return [
        Shortcut(name, one, adjusted[name]) if isinstance(one, Probed) else Shortcut(name, None, 1.0, one)
        for name, one in found.items()
    ]


def encoded(model: PneumoniaModel, images: ImageSet) -> list[Shortcut]:
    """:func:`representation_probes` of a network as its pretraining left it, on some of the pictures that it learnt
    from (up to :data:`PROBED`, evenly spread), by its own seed: of what is known of any of them; nothing where nothing
    is. It asks where it can compute fastest, and returns to the CPU."""
    rows = np.linspace(0, len(images) - 1, min(PROBED, len(images))).astype(np.int64)
    known = {name: values[rows] for name, values in images.attributes.items() if (values[rows] != "").any()}
    if not known:
        return []
    say(f"what the features know before any label: {', '.join(known).replace('_', ' ')}")
    some = images.take(rows)
    try:
        features = network.embeddings(model.to("auto").module_.backbone, some.images)
    finally:
        model.to("cpu")
    fits = max(REFITS // 5, min(REFITS, FITS // sum(len(np.unique(values)) for values in known.values())))
    return representation_probes(features, known, some.patients, seed=model.random_state, shuffles=fits)


def occlusions(model: PneumoniaModel, images: ImageSet, *, samples: int = 300) -> list[Occluded]:
    """The model without the corners, where markers stand, and without the outermost ring of patches.

    Its encoder reads any set of patches, so that they are left out rather than painted over. Before that, what is left
    out is made neutral: a bright marker would otherwise still show in the mean and contrast of the whole picture, by
    which each picture is standardised.

    Args:
        images: labelled.
    """
    assert images.labels is not None
    regions = hidden_patches(model)
    # With all patches named, so that both sides of the comparison look at the picture once, as it is.
    whole = log_odds(model, images.pixels, torch.arange(len(next(iter(regions.values())))))
    result = []
    for name, hidden in regions.items():
        kept = torch.from_numpy(np.flatnonzero(~hidden))
        less = log_odds(model, neutral(images.pixels, hidden), kept)
        auroc = core.bootstrap(core.roc_auc, images.labels, less, groups=images.patients, samples=samples)
        loss = auroc_gain(images.labels, whole, less, patients=images.patients, samples=samples)
        result.append(Occluded(name, int(hidden.sum()), auroc, loss))
    return result


def log_odds(model: PneumoniaModel, images: NDArray[np.uint8], kept: torch.Tensor | None = None) -> Floats:
    """Mean log odds of the model's networks (N,), from all patches or from those at ``kept`` only."""
    return network.mean_log_odds(model.members_, model.module_.backbone, images, kept)


def neutral(images: NDArray[np.uint8], hidden_t: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Pictures whose hidden patches have the mean and the deviation of what is shown: a chessboard about that mean."""
    side, rows = images.shape[1], int(np.sqrt(len(hidden_t)))
    hidden = np.kron(hidden_t.reshape(rows, rows), np.ones((side // rows, side // rows), dtype=bool)).astype(bool)
    shown = images[:, ~hidden].astype(np.float32)
    sign = np.where(np.indices((side, side)).sum(axis=0)[hidden] % 2, 1.0, -1.0)
    filled = shown.mean(axis=1, keepdims=True) + sign * shown.std(axis=1, keepdims=True)
    result = images.copy()
    result[:, hidden] = np.clip(filled, 0, 255).round().astype(np.uint8)
    return result


def hidden_patches(model: PneumoniaModel) -> dict[str, NDArray[np.bool_]]:
    """Which patches (T,) lie in the corners, and which on the border."""
    tokenizer = model.module_.backbone.tokenizer
    assert isinstance(tokenizer, GridPatches)
    rows, columns = tokenizer.rows, tokenizer.columns
    corners, borders = np.zeros((rows, columns), dtype=bool), np.ones((rows, columns), dtype=bool)
    r, c = int(np.ceil(rows * CORNER)), int(np.ceil(columns * CORNER))
    for down in (slice(0, r), slice(rows - r, rows)):
        for across in (slice(0, c), slice(columns - c, columns)):
            corners[down, across] = True
    r, c = int(np.ceil(rows * BORDER)), int(np.ceil(columns * BORDER))
    borders[r : rows - r, c : columns - c] = False
    masks = {"without the corners": corners.reshape(-1), "without the borders": borders.reshape(-1)}
    return {name: hidden for name, hidden in masks.items() if not hidden.all()}


def parts_of(images: ImageSet) -> dict[str, Floats | str]:
    """Features (N, D) of what is no lung, by name, or why there are none. Each part of a picture is standardised by
    itself: in units of the whole picture, a white lung would make its borders darker."""
    small = _small(images.pixels)
    width, corner = round(SIDE * BORDER), round(SIDE * CORNER)
    ring = np.ones((SIDE, SIDE), dtype=bool)
    ring[width:-width, width:-width] = False
    corners = np.zeros((SIDE, SIDE), dtype=bool)
    for down in (slice(0, corner), slice(SIDE - corner, SIDE)):
        for across in (slice(0, corner), slice(SIDE - corner, SIDE)):
            corners[down, across] = True
    around = np.ones((SIDE, SIDE), dtype=bool)
    edge = round(SIDE * (1 - MIDDLE) / 2)
    around[edge:-edge, edge:-edge] = False
    return {
        "borders only": _standardised(small[:, ring]),
        "corners only": _standardised(small[:, corners]),
        "middle blanked": _standardised(small[:, around]),
        "grey values only": _histogram(images.pixels),
        "size and aspect only": _sizes(images),
        WHOLE: _standardised(small.reshape(len(small), -1)),
    }


def _small(images: NDArray[np.uint8]) -> Floats:
    """(N, SIDE, SIDE), averaged over areas."""
    x = F.interpolate(torch.from_numpy(images).float()[:, None], size=(SIDE, SIDE), mode="area")
    return np.asarray(x[:, 0].numpy(), dtype=float)


def _standardised(x_nd: Floats) -> Floats:
    return np.asarray((x_nd - x_nd.mean(axis=1, keepdims=True)) / (x_nd.std(axis=1, keepdims=True) + 1.0))


def _histogram(images: NDArray[np.uint8]) -> Floats:
    """Square roots of the shares of :data:`GREYS` grey levels (N, GREYS): where they lie is lost."""
    level = images.reshape(len(images), -1) // (256 // GREYS)
    return np.sqrt(np.stack([(level == g).mean(axis=1) for g in range(GREYS)], axis=1))


def _sizes(images: ImageSet) -> Floats | str:
    if images.sizes is None or (images.sizes == 0).any():
        return "the size of the original pictures is not known"
    if len(np.unique(images.sizes, axis=0)) == 1:
        rows, columns = images.sizes[0]
        return f"every picture came in one size ({columns} x {rows} pixels)"
    logs = np.log(images.sizes.astype(float))
    return np.concatenate([logs, logs[:, 1:] - logs[:, :1]], axis=1)
