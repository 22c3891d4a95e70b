"""What one step of training makes of a gradient."""

import pytest
import torch
from torch import nn

from unlabeled.core.optimization import TrainingSettings, make_optimizer, train_step
from unlabeled.core.pretext import Loss


class Slope(nn.Module):
    """A loss whose gradient is the batch, whatever the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, batch: tuple[torch.Tensor, ...], step: int) -> Loss:
        return Loss((torch.cat([self.one, self.other]) * batch[0]).sum(), {})


@pytest.mark.parametrize(
    ("gradient", "clip", "taken"),
    [
        ([30.0, 40.0], 1.0, [0.6, 0.8]),  # of norm 50, over all weights together
        ([30.0, 40.0], 5.0, [3.0, 4.0]),
        ([0.3, 0.4], 1.0, [0.3, 0.4]),  # of norm 0.5: left as it is
    ],
)
def test_a_gradient_is_cut_to_the_largest_norm_and_keeps_its_direction(
    gradient: list[float], clip: float, taken: list[float]
) -> None:
    module, settings = Slope(), TrainingSettings(steps=10, clip=clip)
    optimizer = make_optimizer(module, settings)
    train_step(module, optimizer, (torch.tensor(gradient),), 0, settings, torch.device("cpu"))
    # The size of AdamW's first step is the same for any gradient: its means tell, (1 - 0.9) g and (1 - 0.95) g^2.
    for weight, g in zip((module.one, module.other), taken, strict=True):
        assert optimizer.state[weight]["exp_avg"].item() == pytest.approx(0.1 * g, rel=1e-5)
        assert optimizer.state[weight]["exp_avg_sq"].item() == pytest.approx(0.05 * g**2, rel=1e-5)
