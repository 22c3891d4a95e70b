"""What a GPU must not change: every task, a training, its states and its cost. Skips where there is none."""

from pathlib import Path

import pytest
import torch
from every_task import IMAGES, TASKS

from unlabeled.core.audit.watch import Watch
from unlabeled.core.batches import Batches
from unlabeled.core.dry_run import estimate
from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.informed_masking import AdaptiveMask, SalientMask
from unlabeled.core.masking import BlockMask, Mask, RandomMask
from unlabeled.core.pretext import MaskedReconstruction, Pretraining
from unlabeled.core.processes import Processes
from unlabeled.core.tokens import GridPatches
from unlabeled.core.training import History, TrainingSettings, fit

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
MASKS = {
    "random": lambda: RandomMask(prior=torch.linspace(1, 3, 16)),
    "block": lambda: BlockMask((4, 4), blocks=2),
    "adaptive": lambda: AdaptiveMask(16, warmup=2),
    "salient": lambda: SalientMask(),
}


def pretraining(mask: Mask) -> Pretraining:
    torch.manual_seed(0)
    tokenizer = GridPatches(grid=(16, 16), patch=(4, 4), dim=32)
    task = MaskedReconstruction(tokenizer, mask=mask, dim=16, depth=1, heads=2)
    return Pretraining(Backbone(tokenizer, Encoder(dim=32, depth=2, heads=2)), task)


def train(
    module: Pretraining, device: str, *, steps: int = 40, stop_at: int | None = None, state: Path | None = None
) -> History:
    """Watched, judged, and with points of the curve between two saved states."""
    judged_on: list[str] = []

    def log(values: dict[str, float], step: int) -> None:
        if step == stop_at:
            raise KeyboardInterrupt

    def validate() -> float:
        judged_on.append(next(module.parameters()).device.type)
        with torch.no_grad():
            return -float(module((IMAGES[:8].to(judged_on[-1]),), 0).total)

    batches = Batches(IMAGES, batch_size=8)
    history = fit(
        module, batches, settings=TrainingSettings(steps=steps, device=device, log_every=7, checkpoint_every=10),
        state=state, log=log, validate=validate, validate_every=20, watch=Watch.over(batches, rows=16, every=20),
    )  # fmt: skip
    assert set(judged_on) == {device}
    return history


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_the_loss_and_the_gradients_of_the_cpu(name: str) -> None:
    found = []
    for device in ("cpu", "cuda"):
        backbone, task, batch = TASKS[name]()
        torch.manual_seed(0)
        task.to(device)
        backbone.to(device)
        loss = task.loss(backbone, batch.to(device), 3).total
        loss.backward()
        found.append((loss.detach().cpu(), [p.grad.cpu() for p in backbone.parameters() if p.grad is not None]))
    (loss, gradients), (other, others) = found
    torch.testing.assert_close(other, loss, rtol=1e-4, atol=1e-5)
    assert len(gradients) == len(others)
    for one, two in zip(gradients, others, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("mask", MASKS)
def test_a_training_follows_that_of_the_cpu_and_leaves_the_module_where_it_was(mask: str) -> None:
    modules = {device: pretraining(MASKS[mask]()) for device in ("cpu", "cuda")}
    curves = {device: dict(train(module, device).curves["loss"]) for device, module in modules.items()}
    assert next(modules["cuda"].parameters()).device.type == "cpu"
    for step, loss in curves["cpu"].items():
        assert curves["cuda"][step] == pytest.approx(loss, rel=2e-2)


@pytest.mark.parametrize(("before", "after"), [("cuda", "cuda"), ("cuda", "cpu"), ("cpu", "cuda")])
def test_a_state_of_either_is_taken_up_by_the_other(tmp_path: Path, before: str, after: str) -> None:
    """What is trained on is not part of what a run is made of."""
    unbroken, cut = train(pretraining(RandomMask()), after), pretraining(RandomMask())
    with pytest.raises(KeyboardInterrupt):
        train(cut, before, stop_at=28, state=tmp_path)
    assert next(cut.parameters()).device.type == "cpu"
    resumed = train(pretraining(RandomMask()), after, state=tmp_path)
    assert resumed.resumed_from == 20
    assert resumed.curves["loss"][-1][1] == pytest.approx(unbroken.curves["loss"][-1][1], rel=2e-2)


def test_a_dry_run_measures_the_card() -> None:
    module, batches = pretraining(RandomMask()), Batches(IMAGES, batch_size=8)
    found = estimate(module, batches, TrainingSettings(steps=400))
    assert found.peak_bytes is not None
    assert 0 < found.peak_bytes < 2**30  # of the card, not of the process
    assert "card" in found.watts_from
    assert found.tokens == estimate(module, batches, TrainingSettings(steps=400, device="cpu")).tokens
    assert next(module.parameters()).device.type == "cpu"


def test_a_process_without_a_gpu_of_its_own_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "64")
    with pytest.raises(ValueError, match="process 64 of this machine has no GPU of its own"):
        Processes("auto")
    assert Processes("cpu").device.type == "cpu"


def test_bfloat16_trains_too() -> None:
    module = pretraining(RandomMask())
    settings = TrainingSettings(steps=200, precision="bfloat16")
    losses = [loss for _, loss in fit(module, Batches(IMAGES, batch_size=8), settings=settings).curves["loss"]]
    assert losses[-1] < 0.9 * losses[0]
    assert all(p.dtype == torch.float32 for p in module.parameters())
