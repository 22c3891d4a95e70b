"""What a training state must bring back beside the weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from slope import Line
from torch import nn

from unlabeled.core.batches import Batches
from unlabeled.core.training import History, TrainingSettings, fit


def train(module: nn.Module, state: Path, *, cut_at: int | None = None) -> History:
    """Judged every ten steps by what gets no better after the twentieth, with a patience of four."""
    x = np.linspace(-1, 1, 32, dtype="float32")

    def log(values: dict[str, float], step: int) -> None:
        if step == cut_at:
            raise KeyboardInterrupt

    # In the warm-up the slope rises by lr / 50, 2 lr / 50 and so on: to 0.011 after ten steps and 0.042 after twenty.
    return fit(
        module,
        Batches(x, 3 * x, batch_size=8),
        settings=TrainingSettings(steps=500, lr=0.01, log_every=5, checkpoint_every=10),
        state=state,
        validate=lambda: min(float(next(module.parameters())), 0.03),
        validate_every=10,
        patience=4,
        log=log,
    )


@pytest.mark.parametrize("cut_at", [15, 35, 55])
def test_a_resumed_run_loses_patience_at_the_step_at_which_an_unbroken_one_does(tmp_path: Path, cut_at: int) -> None:
    whole, again = Line(), Line()
    unbroken = train(whole, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(Line(), tmp_path / "cut", cut_at=cut_at)
    resumed = train(again, tmp_path / "cut")
    assert resumed.resumed_from == cut_at - 5
    assert unbroken.best_step == resumed.best_step == 20
    assert unbroken.steps == resumed.steps == 60
    assert resumed.curves == unbroken.curves
    assert torch.equal(again.weight, whole.weight)
