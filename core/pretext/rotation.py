"""Rotation prediction: by how many quarter turns was this picture turned?

Source: Gidaris et al., "Unsupervised Representation Learning by Predicting Image Rotations", ICLR 2018.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.core.encoder import Backbone
from unlabeled.core.pretext.base import Loss, Pretext
from unlabeled.core.seeds import generator

TURNS = 4


class Rotation(Pretext):
    """Cross-entropy of the number of quarter turns, ``-log p(turns | turned picture)``; log 4 when it knows nothing.

    Each picture of a batch (B, C, S, S) is turned by a random number of quarters. Meant for pictures that have an
    upright position, as radiographs do.

    Args:
        dim: width of the encoder.
        seed: with the step, fixes the turns.
    """

    def __init__(self, dim: int, *, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, TURNS))

    def loss(self, backbone: Backbone, batch: Tensor, step: int) -> Loss:
        turns = torch.randint(0, TURNS, (len(batch),), generator=generator(self.seed, "turns", step))
        turns = turns.to(batch.device)
        logits = self.head(backbone.embed(turned(batch, turns)))
        total = F.cross_entropy(logits, turns)
        right = (logits.detach().argmax(dim=1) == turns).float().mean()
        return Loss(total, {"rotation": total.detach(), "turns_right": right})


def turned(batch_bchw: Tensor, turns_b: Tensor) -> Tensor:
    """Each picture turned by so many quarters, counter-clockwise.

    Raises:
        ValueError: the pictures are not square.
    """
    if batch_bchw.shape[-1] != batch_bchw.shape[-2]:
        raise ValueError(f"only square pictures can be turned, got {tuple(batch_bchw.shape[-2:])}")
    out = batch_bchw.clone()
    for quarter in range(1, TURNS):
        rows = turns_b == quarter
        out[rows] = torch.rot90(batch_bchw[rows], quarter, dims=(-2, -1))
    return out
