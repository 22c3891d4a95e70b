"""What a training is measured at: counted by hand, foretold without disturbing it, and never counted twice."""

import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from unlabeled.core import meter, training
from unlabeled.core.batches import Batches
from unlabeled.core.budget import Budget, Rates, compare
from unlabeled.core.dry_run import estimate
from unlabeled.core.encoder import Backbone, Block, Encoder
from unlabeled.core.informed_masking import AdaptiveMask
from unlabeled.core.masking import RandomMask
from unlabeled.core.pretext import EventModelling, Loss, MaskedReconstruction, Pretraining
from unlabeled.core.tokens import EventFields, GridPatches
from unlabeled.core.training import TrainingSettings, fit

IMAGES = np.random.default_rng(0).normal(size=(48, 1, 8, 8)).astype("float32")


class Wrapped(nn.Module):
    """Any layer as something that can be trained."""

    def __init__(self, layer: nn.Module, **options: bool) -> None:
        super().__init__()
        self.layer, self.options = layer, options

    def forward(self, batch: tuple[torch.Tensor, ...], step: int) -> Loss:
        return Loss(self.layer(batch[0], **self.options).square().mean(), {})


class Dropped(Pretraining):
    """Draws from the global generator in every step."""

    def forward(self, batch: tuple[torch.Tensor, ...], step: int) -> Loss:
        noisy = batch[0] + 0.1 * torch.randn(batch[0].shape).to(batch[0])
        return super().forward((noisy,), step)


def task(kind: type[Pretraining] = Dropped) -> Pretraining:
    torch.manual_seed(0)
    tokenizer = GridPatches(grid=(8, 8), patch=(4, 4), dim=16)
    return kind(
        Backbone(tokenizer, Encoder(dim=16, depth=1, heads=2)),
        MaskedReconstruction(tokenizer, mask=RandomMask(0.5), dim=8, depth=1, heads=2),
    )


def batches() -> Batches:
    return Batches(IMAGES, batch_size=8, seed=1)


def test_rounds_by_hand() -> None:
    """The first laps are paid once, and the quarter of them at the start is not taken for the rest."""
    laps = [9.0, 8.0, 1.0, 1.0, 1.0, 1.0, 3.0, 3.0]  # the median of all is 2
    foretold = meter.predict_rounds(laps, label="trees", rounds=108, learning_bytes=7, threads=3)
    assert foretold.step_seconds == 1.0
    assert foretold.seconds == 27.0 + 100 * 1.0
    assert foretold.watts == 30.0
    assert "each of 3 cores" in foretold.watts_from
    assert (foretold.steps, foretold.learning_bytes, foretold.save_seconds) == (108, 7, 0.0)
    assert (foretold.flops, foretold.tokens) == (None, None)


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def clock(monkeypatch: pytest.MonkeyPatch, tick: Callable[[], float]) -> None:
    """The meter's clock advances by ``tick()`` each time that it is read."""
    now = itertools.accumulate(iter(tick, None))
    monkeypatch.setattr(meter, "time", SimpleNamespace(monotonic=lambda: next(now)))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten steps are measured, however short, and every training is worth its counting."""
    monkeypatch.setattr(meter, "ENOUGH_SECONDS", 0.0)
    monkeypatch.setattr(meter, "WORTH_SECONDS", 0.0)


def test_flops_of_a_linear_layer_by_hand() -> None:
    layer = Wrapped(nn.Linear(5, 7))
    # One product forwards and one backwards (for the weights; nobody asks for the gradient of the data).
    assert meter.flops_of(layer, (torch.randn(11, 5),)) == 2 * (2 * 11 * 5 * 7)


@pytest.mark.parametrize("causal", [False, True])
def test_flops_of_a_block_by_hand_attention_included(causal: bool) -> None:
    b, t, d = 3, 10, 32
    block = Wrapped(Block(dim=d, heads=4), causal=causal)
    widths = d * 3 * d + d * d + 2 * (d * 4 * d)  # queries, keys, values; the way out; the two-layer network
    linear = 2 * b * t * widths
    product = 2 * b * t * t * d  # over all heads
    # Backwards twice the linear layers; of attention two products forwards, five backwards (scores anew).
    assert meter.flops_of(block, (torch.randn(b, t, d),)) == 3 * linear + 7 * product


def test_tokens_are_counted_without_padding() -> None:
    assert meter.tokens_of(task(), (torch.from_numpy(IMAGES[:8]),)) == 8 * 4
    tokenizer = EventFields(sizes=(5, 5), dim=8, length=6)
    events = Pretraining(Backbone(tokenizer, Encoder(dim=8, depth=1, heads=2, causal=True)), EventModelling(tokenizer))
    histories = torch.ones(2, 6, 2, dtype=torch.int64)
    histories[1, 2:] = 0
    assert meter.tokens_of(events, (histories,)) == (1 + 6) + (1 + 2)
    assert meter.tokens_of(Wrapped(nn.Linear(2, 2)), (torch.zeros(1, 2),)) is None


def test_memory_of_learning_is_four_numbers_a_weight_and_one_where_frozen() -> None:
    layer = nn.Linear(3, 2)
    assert meter.learning_bytes(layer) == 8 * 4 * 4
    layer.bias.requires_grad_(False)
    assert meter.learning_bytes(layer) == 6 * 4 * 4 + 2 * 4


def test_a_dry_run_leaves_module_data_and_random_state_alone() -> None:
    module, data = task(), batches()
    fit(module, batches(), settings=TrainingSettings(steps=2))
    before, gradients = weights(module), [p.grad.clone() for p in module.parameters() if p.grad is not None]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    estimate(module, data, TrainingSettings(steps=40))
    assert torch.equal(torch.rand(3), expected)
    assert same(weights(module), before)
    assert not module.training  # as fit left it
    after = [p.grad for p in module.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.equal(a, b) for a, b in zip(after, gradients, strict=True))


def test_training_after_a_dry_run_gives_the_very_same_weights() -> None:
    plain, after = task(), task()
    settings = TrainingSettings(steps=12)
    fit(plain, batches(), settings=settings, seed=3)
    data = batches()
    estimate(after, data, settings, seed=3)
    fit(after, data, settings=settings, seed=3)
    assert same(weights(plain), weights(after))


def test_predicting_within_a_training_changes_no_weight(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TrainingSettings(steps=40, checkpoint_every=7)

    def drawing() -> float:
        return float(torch.rand(1))  # a validation that draws, in the very step of the prediction

    def trained() -> tuple[dict[str, torch.Tensor], object, list[tuple[int, float]]]:
        module = task()
        history = fit(module, batches(), settings=settings, validate=drawing, validate_every=1)
        return weights(module), history.predicted, history.curves["validation"]

    with_it = trained()
    monkeypatch.setattr(meter.Meter, "ready", property(lambda self: False))
    without = trained()
    assert with_it[1] is not None
    assert without[1] is None
    assert same(with_it[0], without[0])
    assert with_it[2] == without[2]


def test_twice_the_steps_cost_twice_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, lambda: 0.5)
    once, twice = (
        estimate(task(), batches(), TrainingSettings(steps=steps), resumable=False).at(Rates(price_per_hour=3.0))
        for steps in (60, 120)
    )
    assert once.flops == 60 * meter.flops_of(task(), (torch.from_numpy(IMAGES[:8]),))
    assert once.tokens == 60 * 8 * 4
    assert once.hours == pytest.approx(60 * (0.5 + 0.5) / 3600)  # half a second a step, and as much between two
    for name in ("steps", "flops", "tokens", "hours", "kwh", "money"):
        assert getattr(twice, name) == pytest.approx(2 * getattr(once, name)), name


def test_slow_first_steps_are_paid_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, *[0.0, 9.0] * meter.WARMUP, *[0.0, 2.0] * 200])
    next(ticks)
    clock(monkeypatch, lambda: next(ticks))
    found = estimate(task(), batches(), TrainingSettings(steps=100), resumable=False)
    assert found.step_seconds == 2
    assert found.seconds == pytest.approx(100 * 2 + meter.WARMUP * (9 - 2))


def test_one_slow_step_does_not_move_the_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    laps = [1.0] * (meter.WARMUP + 4) + [20.0] + [1.0] * 200
    ticks = iter([tick for lap in laps for tick in (0.0, lap)])
    clock(monkeypatch, lambda: next(ticks))
    found = estimate(task(), batches(), TrainingSettings(steps=100), resumable=False)
    assert found.step_seconds == 1
    assert found.seconds == pytest.approx(100)


def test_steps_that_are_fast_and_slow_by_turns_are_foretold_by_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of three are fast: the median would say 12 seconds of a training that takes 24."""
    laps = [0.2] * meter.WARMUP + [0.1, 0.1, 0.4] * 200
    ticks = iter([tick for lap in laps for tick in (0.0, lap)])
    clock(monkeypatch, lambda: next(ticks))
    found = estimate(task(), batches(), TrainingSettings(steps=120), resumable=False)
    assert found.step_seconds == pytest.approx(0.2)
    assert found.seconds == pytest.approx(24)


@pytest.mark.parametrize(
    ("lap", "steps", "measured"),
    [(0.5, 10_000, 24), (0.5, 200, 20), (0.001, 10_000, 1000), (0.1, 30, 10), (2.0, 1000, 10), (11.0, 1000, 3)],
    ids=["long", "short", "fast", "very short", "slow", "very slow"],
)
def test_as_much_is_measured_as_tells_something_and_costs_little(
    monkeypatch: pytest.MonkeyPatch, lap: float, steps: int, measured: int
) -> None:
    """Twelve seconds or a tenth of the steps, whichever ends first, but ten steps; of very slow ones three."""
    ticks = itertools.cycle([0.0, lap])
    clock(monkeypatch, lambda: next(ticks))
    timed = meter.Meter(steps, device=torch.device("cpu"))
    while not timed.ready:
        timed.start()
        timed.stop()
    assert timed.steps_seen - meter.WARMUP == measured


def predicted(monkeypatch: pytest.MonkeyPatch, *, step: int, steps: int, seconds: float, world: int = 1) -> Budget:
    """The prediction at ``step`` of a training that keeps a state every ten steps: two seconds a step, one between two,
    and four more where a state was written."""
    monkeypatch.setattr(meter, "save_seconds", lambda *given: 4.0)
    gaps = [5.0 if done % 10 == 0 else 1.0 for done in range(1, step)]
    # The first start, and after the steps the two looks at the clock that time the predicting itself.
    ticks = iter([0.0, *(tick for gap in gaps for tick in (2.0, gap)), 2.0, 0.0, 0.0])
    clock(monkeypatch, lambda: next(ticks))
    timed = meter.Meter(steps, device=torch.device("cpu"))
    for _ in range(step):
        timed.start()
        timed.stop()
    module = task()
    return meter.predict(
        timed, module, (torch.from_numpy(IMAGES[:8]),), torch.optim.AdamW(module.parameters()),
        label="training", step=step, steps=steps, seconds=seconds, save_every=10, world=world,
    )  # fmt: skip


def test_states_that_are_written_already_are_not_predicted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found = predicted(monkeypatch, step=45, steps=100, seconds=150.0)
    assert found.save_seconds == 9 * 4  # of the whole training, none at the end
    # So far 150; 55 steps of two seconds and one between; five of nine states are still to come.
    assert found.seconds == pytest.approx(150 + 55 * (2 + 1) + 5 * 4)


def test_a_state_that_is_due_at_the_very_step_of_the_prediction_is_still_to_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = predicted(monkeypatch, step=40, steps=100, seconds=129.0)
    assert found.seconds == pytest.approx(129 + 60 * (2 + 1) + 6 * 4)


def test_the_work_of_all_processes_is_in_the_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    alone, together = (predicted(monkeypatch, step=45, steps=100, seconds=150.0, world=world) for world in (1, 3))
    share = (torch.from_numpy(IMAGES[:8]),)
    assert alone.flops == 100 * meter.flops_of(task(), share)
    assert together.flops == 3 * 100 * meter.flops_of(task(), share)
    assert (alone.tokens, together.tokens) == (100 * 8 * 4, 3 * 100 * 8 * 4)
    assert together.watts == 3 * alone.watts
    assert together.seconds == alone.seconds  # at the same time


def test_each_saved_state_is_in_the_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "save_seconds", lambda *given: 4.0)
    clock(monkeypatch, lambda: 0.5)
    settings = TrainingSettings(steps=100, checkpoint_every=10)
    with_states, without = (estimate(task(), batches(), settings, resumable=keep) for keep in (True, False))
    assert with_states.save_seconds == 9 * 4  # none at the end
    assert with_states.seconds - without.seconds == pytest.approx(36)


def test_writing_a_state_is_really_timed_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter.tempfile, "tempdir", str(tmp_path))
    module = task()
    assert meter.save_seconds(module, torch.optim.AdamW(module.parameters())) > 0
    assert not list(tmp_path.iterdir())


def test_a_run_logs_its_prediction_once_and_what_it_took(
    quick: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "WORTH_SAYING", 0.0)
    logged: list[tuple[str, float, int]] = []
    module = task()
    settings = TrainingSettings(steps=40)
    history = fit(
        module, batches(), settings=settings, log=lambda v, step: logged.extend((n, x, step) for n, x in v.items())
    )
    assert history.predicted is not None
    assert history.spent is not None
    predicted = [(x, step) for name, x, step in logged if name == "budget.predicted_seconds"]
    assert predicted == [(history.predicted.seconds, meter.WARMUP + meter.LEAST_STEPS)]
    assert [(x, step) for name, x, step in logged if name == "budget.spent_seconds"] == [(history.seconds, 40)]
    flops = 40 * meter.flops_of(module, (torch.from_numpy(IMAGES[:8]),))
    assert [x for name, x, _ in logged if name == "budget.flops"] == [flops] == [history.predicted.flops]
    assert "budget.error" in {name for name, _, _ in logged}
    assert "training took" in (said := capsys.readouterr().err)
    assert "predicted" in said
    assert "budget" not in " ".join(history.curves)


def test_what_cannot_be_counted_is_unknown_and_ends_no_training(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> float:
        raise OSError("no space left on device")

    monkeypatch.setattr(meter, "flops_of", full)
    monkeypatch.setattr(meter, "save_seconds", full)
    settings = TrainingSettings(steps=40, checkpoint_every=10)
    history = fit(task(), batches(), settings=settings, state=tmp_path / "state")
    assert history.steps == 40
    assert history.predicted is not None
    assert history.predicted.flops is None
    assert history.predicted.save_seconds == 0
    assert "unknown FLOP" in "\n".join(history.predicted.lines())


def test_a_resumed_run_is_predicted_once_and_counted_once(quick: None, tmp_path: Path) -> None:
    settings = TrainingSettings(steps=60, log_every=5, checkpoint_every=10)
    first: dict[str, float] = {}
    second: dict[str, float] = {}

    def interrupted(values: dict[str, float], step: int) -> None:
        first.update(values)
        if step == 35:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(task(), batches(), settings=settings, state=tmp_path / "state", log=interrupted)
    assert "budget.spent_seconds" not in first  # or the two runs' sum would count these steps twice
    history = fit(
        task(), batches(), settings=settings, state=tmp_path / "state", log=lambda values, step: second.update(values)
    )
    assert history.resumed_from == 30
    assert first["budget.predicted_seconds"] == second["budget.predicted_seconds"]
    assert second["budget.flops"] == 60 * meter.flops_of(task(), (torch.from_numpy(IMAGES[:8]),))
    assert second["budget.spent_seconds"] == history.seconds
    assert history.spent is not None
    assert history.spent.steps == 60


def test_masks_that_hide_more_and_more_are_charged_for_less_and_less(quick: None) -> None:
    """By the mean of the first and the last step, each counted."""
    tokenizer = GridPatches(grid=(8, 8), patch=(2, 2), dim=16)
    mask = AdaptiveMask(tokenizer.tokens, ratio=(0.2, 0.9), warmup=20, spread=0.0)
    easy = MaskedReconstruction(tokenizer, mask=mask, dim=16, depth=1, heads=2, normalise=False)
    module = Pretraining(Backbone(tokenizer, Encoder(dim=16, depth=1, heads=2)), easy)
    bright = Batches(IMAGES * 0.1 + 3, batch_size=8, seed=1)
    history = fit(module, bright, settings=TrainingSettings(steps=300, lr=1e-2))
    assert history.predicted is not None
    assert history.spent is not None
    assert history.predicted.flops is not None
    last = meter.flops_of(module.train(), bright.at(299))
    assert history.spent.flops == pytest.approx((history.predicted.flops + 300 * last) / 2)
    assert 300 * last < history.spent.flops < history.predicted.flops
    each = history.predicted.flops / 300
    assert history.predicted.metrics()["budget.flops_per_step"] == each
    assert f"{each / 1e6:.3g} MFLOP a step" in "\n".join(history.predicted.lines())


def test_a_run_of_few_steps_is_not_predicted_but_measured() -> None:
    logged: dict[str, float] = {}
    history = fit(
        task(), batches(), settings=TrainingSettings(steps=20), log=lambda values, step: logged.update(values)
    )
    assert history.predicted is None
    assert logged["budget.spent_seconds"] == history.seconds
    assert "budget.predicted_seconds" not in logged
    assert "budget.flops" not in logged  # unknown is left out, not nought


def test_a_training_that_stops_early_is_charged_for_its_own_steps(quick: None) -> None:
    history = fit(
        task(),
        batches(),
        settings=TrainingSettings(steps=100),
        validate=lambda: 0.0,
        validate_every=10,
        patience=3,
    )
    assert history.predicted is not None
    assert history.spent is not None
    assert history.steps == 40
    assert history.spent.flops == pytest.approx(0.4 * (history.predicted.flops or 0))
    assert compare(history.predicted, history.spent).note == "it ended after 40 of 100 steps"


def test_power_that_nobody_measured_is_called_an_assumption() -> None:
    watts, source = meter.power(torch.device("cpu"), 2)
    assert watts == 2 * meter.CORE_WATTS * torch.get_num_threads()
    assert "an assumption" in source
