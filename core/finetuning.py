"""Which weights of a pretrained backbone few labels may change: all, a low-rank part of each map, or none.

PyTorch's own parametrisation carries the adapters: peft would bring transformers and accelerate along, into which our
encoder would have to be dressed, for a dozen lines.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from unlabeled.core.encoder import Backbone
from unlabeled.core.errors import DataError

Tuning = Literal["full", "adapters", "head"]
RANK = 8


def prepare(backbone: Backbone, tuning: Tuning, *, rank: int = RANK) -> None:
    """Decides in place what will be trained.

    Args:
        backbone: pretrained; a copy of its own for each fine-tuning.
        tuning: ``full``, every weight; ``adapters``, a low-rank change of the blocks' linear maps
            (:class:`LowRank`), the rest frozen; ``head``, nothing of the backbone (a linear probe).
        rank: of an adapter; 8 was measured beside no other (benchmarks/results/finetuning.md).

    Raises:
        DataError: no such tuning, or a rank below 1.
    """
    if tuning not in get_args(Tuning):
        raise DataError(f"there is no tuning '{tuning}': choose one of {', '.join(get_args(Tuning))}")
    if rank < 1:
        raise DataError(f"an adapter needs a rank of at least 1, got {rank}")
    if tuning == "full":
        return
    backbone.requires_grad_(False)
    if tuning == "adapters":
        for part in _linear_maps(backbone):
            change = LowRank(*part.weight.shape, rank=rank).to(part.weight.device)
            parametrize.register_parametrization(part, "weight", change)


def merge(backbone: Backbone) -> None:
    """Adds the adapters into the weights that they change; the backbone is an ordinary one again."""
    for part in _linear_maps(backbone):
        if parametrize.is_parametrized(part, "weight"):
            parametrize.remove_parametrizations(part, "weight", leave_parametrized=True)
    backbone.requires_grad_(True)


class LowRank(nn.Module):
    """``W + B A / r`` with a frozen W (out, in), B (out, r) zero at first, A (r, in) (Hu et al., 2022, alpha = 1)."""

    def __init__(self, rows: int, columns: int, *, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, columns) * columns**-0.5)
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down / len(self.down)


def _linear_maps(backbone: Backbone) -> list[nn.Linear]:
    return [part for part in backbone.encoder.blocks.modules() if isinstance(part, nn.Linear)]
