"""A module that several tests train."""

import torch
from torch import nn

from unlabeled.core.pretext import Loss


class Line(nn.Module):
    """y = w x, squared error."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, batch: tuple[torch.Tensor, ...], step: int) -> Loss:
        return Loss((self.weight * batch[0] - batch[1]).square().mean(), {})
