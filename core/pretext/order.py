"""Order prediction: was this scrambled, or is it as it was?

Sources: Misra et al., "Shuffle and Learn", ECCV 2016 (order of frames); Noroozi and Favaro, "Solving Jigsaw Puzzles",
ECCV 2016 (patches of a picture).

Shape suffixes: b batch, t token, l event, f field, p numbers in a patch.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.core.encoder import Backbone
from unlabeled.core.pretext.base import Loss, Pretext
from unlabeled.core.seeds import generator
from unlabeled.core.tokens import EventFields, GridPatches


class OrderPrediction(Pretext):
    """Binary cross-entropy of "scrambled"; half of the items are, log 2 when it knows nothing.

    What changes places: patches of a picture (``patch``), columns of patches, i.e. segments in time of a spectrogram or
    trend (``segment``), or the events of a history (always whole events; padding stays at the end).

    Args:
        dim: width of the encoder.
        unit: what changes places on a grid.
        share: share of the units that change places, so that a puzzle is not given away by every edge. 0.25, 0.5 and 1
            could not be told apart on radiographs and differed by less than 0.005 on vibration
            (benchmarks/results/settings.md).
        seed: with the step, fixes what is scrambled and how.
    """

    def __init__(
        self, dim: int, *, unit: Literal["patch", "segment"] = "patch", share: float = 0.5, seed: int = 0
    ) -> None:
        super().__init__()
        if not 0 < share <= 1:
            raise ValueError(f"the share that changes places must lie in (0, 1], got {share}")
        self.unit, self.share, self.seed = unit, share, seed
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 1))

    def scrambled(self, backbone: Backbone, batch: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The batch with half of its items scrambled, and which (B,)."""
        draw = generator(self.seed, "order", step)
        which = torch.rand(len(batch), generator=draw) < 0.5
        tokenizer = backbone.tokenizer
        if isinstance(tokenizer, EventFields):
            real = (batch[..., 0] != 0).sum(dim=1).cpu()
            order = _shuffle(batch.shape[1], real, self.share, draw)
            which &= real > 1
            mixed = batch.gather(1, order.to(batch.device)[..., None].expand_as(batch))
        else:
            assert isinstance(tokenizer, GridPatches)
            patches = tokenizer.patches(batch)
            mixed = tokenizer.unpatch(self._mixed(patches, tokenizer, draw))
        which = which.to(batch.device)
        return torch.where(which.view(-1, *[1] * (batch.ndim - 1)), mixed, batch), which

    def loss(self, backbone: Backbone, batch: Tensor, step: int) -> Loss:
        mixed, which = self.scrambled(backbone, batch, step)
        logits = self.head(backbone.embed(mixed))[:, 0]
        total = F.binary_cross_entropy_with_logits(logits, which.to(logits.dtype))
        right = ((logits.detach() > 0) == which).float().mean()
        return Loss(total, {"order": total.detach(), "order_right": right})

    def _mixed(self, patches_btp: Tensor, tokenizer: GridPatches, draw: torch.Generator) -> Tensor:
        b, t, p = patches_btp.shape
        rows, columns = tokenizer.rows, tokenizer.columns
        if self.unit == "patch":
            order = _shuffle(t, torch.full((b,), t), self.share, draw)
        else:
            column = _shuffle(columns, torch.full((b,), columns), self.share, draw)
            order = (torch.arange(rows)[:, None] * columns + column[:, None, :]).view(b, t)
        return patches_btp.gather(1, order.to(patches_btp.device)[..., None].expand(b, t, p))


def _shuffle(length: int, real_b: Tensor, share: float, draw: torch.Generator) -> Tensor:
    """Orders (B, L) in which a share of the first ``real`` places (two at least) go round in a ring: each of them holds
    something else's, and everything behind stays."""
    b = len(real_b)
    place = torch.arange(length).expand(b, -1)
    key = torch.where(place < real_b[:, None], torch.rand(b, length, generator=draw), float("inf"))
    moving = key.argsort(dim=1)
    count = torch.minimum((real_b * share).round().long().clamp(min=2), real_b)
    ring = place + 1
    ring = torch.where(ring >= count[:, None], 0, ring)
    ring = torch.where(place < count[:, None], ring, place)
    return place.scatter(1, moving, moving.gather(1, ring))
