"""The network behind :class:`~unlabeled.medical.model.PneumoniaModel`: how it is built, read and questioned.

Shape suffixes: b batch, c channel, h/w rows and columns, t token, k kept, p numbers in a patch.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unlabeled.core.batches import chunks
from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.heads import Classifier
from unlabeled.core.masking import RandomMask
from unlabeled.core.pretext import MaskedReconstruction, Pretraining
from unlabeled.core.seeds import derive
from unlabeled.core.tokens import GridPatches, take
from unlabeled.medical.transforms import standardise

CHUNK = 256


def build_backbone(*, image_size: int, patch: int, dim: int, depth: int, heads: int, seed: int) -> Backbone:
    """A fresh backbone whose weights depend on ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "backbone"))
        tokenizer = GridPatches(grid=(image_size, image_size), patch=(patch, patch), dim=dim)
        return Backbone(tokenizer, Encoder(dim=dim, depth=depth, heads=heads))


def build_pretraining(backbone: Backbone, *, mask_ratio: float, seed: int) -> Pretraining:
    """The backbone and its masked-reconstruction task (decoder of width 64 and depth 2)."""
    assert isinstance(backbone.tokenizer, GridPatches)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "pretext"))
        mask = RandomMask(mask_ratio, seed=derive(seed, "mask"))
        return Pretraining(backbone, MaskedReconstruction(backbone.tokenizer, mask=mask))


@torch.no_grad()
def positive_logits(classifier: Classifier, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Log odds of pneumonia (N,), picture by picture the same whatever else is asked at once."""
    classifier.eval()
    device = next(classifier.parameters()).device
    parts = []
    for rows in chunks(len(images), CHUNK):
        logits = classifier.logits(standardise(torch.from_numpy(images[rows])).to(device))
        parts.append((logits[:, 1] - logits[:, 0]).double().cpu().numpy())
    return np.concatenate(parts)


@torch.no_grad()
def leave_out_map(classifier: Classifier, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How much the log odds fall when a 3 x 3 neighbourhood of patches is not shown, (N, rows, columns).

    The encoder reads whatever tokens it is given, so the patches are left out rather than painted grey: no
    artificial edge is put into the picture (compare Zeiler and Fergus, 2014, section 4.2).
    """
    classifier.eval()
    tokenizer = classifier.backbone.tokenizer
    assert isinstance(tokenizer, GridPatches)
    rows, columns = tokenizer.rows, tokenizer.columns
    device = next(classifier.parameters()).device
    index = torch.arange(tokenizer.tokens).view(rows, columns)
    whole = positive_logits(classifier, images)
    result = np.zeros((len(images), rows, columns))
    for chunk in chunks(len(images), CHUNK):
        tokens = classifier.backbone.tokens(standardise(torch.from_numpy(images[chunk])).to(device))
        for r in range(rows):
            for c in range(columns):
                shown = torch.ones(rows, columns, dtype=torch.bool)
                shown[max(0, r - 1) : r + 2, max(0, c - 1) : c + 2] = False
                kept = index[shown].to(device).expand(len(tokens.x), -1)
                pooled = classifier.backbone.encoder.embed(tokens.take(kept))
                logits = classifier.linear(classifier.norm(pooled))
                result[chunk, r, c] = whole[chunk] - (logits[:, 1] - logits[:, 0]).double().cpu().numpy()
    return result


class Reconstruction(NamedTuple):
    """Pictures in units of their own standard deviation, (N, H, W).

    Attributes:
        original: what was there.
        shown: the same, hidden patches at their mean.
        filled: the same, hidden patches as predicted.
    """

    original: NDArray[np.float32]
    shown: NDArray[np.float32]
    filled: NDArray[np.float32]


@torch.no_grad()
def reconstruct(module: Pretraining, images: NDArray[np.uint8]) -> Reconstruction:
    """Fills hidden patches in.

    The task predicts each patch up to its own mean and contrast, which are therefore taken from the original;
    ``shown`` is given the same mean, so that comparing the two measures the predicted structure alone.
    """
    module.eval()
    pretext, tokenizer = module.pretext, module.backbone.tokenizer
    assert isinstance(pretext, MaskedReconstruction)
    assert isinstance(tokenizer, GridPatches)
    device = next(module.parameters()).device
    x_bchw = standardise(torch.from_numpy(images)).to(device)
    predicted, masked = pretext.reconstruct(module.backbone, x_bchw, 0)
    patches = tokenizer.patches(x_bchw)
    hidden = take(patches, masked)
    mean, deviation = hidden.mean(dim=-1, keepdim=True), (hidden.var(dim=-1, keepdim=True) + 1e-4).sqrt()

    def put(values_bmp: Tensor) -> NDArray[np.float32]:
        index = masked[..., None].expand(-1, -1, tokenizer.numbers)
        pasted = patches.scatter(1, index, values_bmp.expand_as(hidden).contiguous())
        return tokenizer.unpatch(pasted)[:, 0].cpu().numpy()

    return Reconstruction(x_bchw[:, 0].cpu().numpy(), put(mean), put(predicted * deviation + mean))
