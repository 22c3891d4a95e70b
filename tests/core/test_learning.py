"""What a pretext task asks is learnt where it can be told, and what it hides is not read off where it cannot."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from unlabeled.core.audit import collapse
from unlabeled.core.batches import Batches
from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.masking import RandomMask
from unlabeled.core.pretext import (
    EventModelling,
    Inpainting,
    Joint,
    MaskedReconstruction,
    MaskedTokens,
    NextPatch,
    NTXent,
    OrderPrediction,
    Pretext,
    Pretraining,
    Rotation,
    VICReg,
)
from unlabeled.core.tokens import EventFields, GridPatches
from unlabeled.core.training import TrainingSettings, fit
from unlabeled.core.views import HistorySlice, PictureView

ITEMS, BATCH = 512, 64


def grid(*, causal: bool = False) -> tuple[Backbone, GridPatches]:
    torch.manual_seed(0)
    tokenizer = GridPatches(grid=(16, 16), patch=(4, 4), dim=32)
    return Backbone(tokenizer, Encoder(dim=32, depth=2, heads=2, causal=causal)), tokenizer


def events(*sizes: int, causal: bool = False) -> tuple[Backbone, EventFields]:
    torch.manual_seed(0)
    tokenizer = EventFields(sizes=sizes, dim=32, length=8)
    return Backbone(tokenizer, Encoder(dim=32, depth=2, heads=2, causal=causal)), tokenizer


def slopes() -> NDArray[np.float32]:
    """Bright at the top: upright, turned and scrambled pictures differ."""
    noise = np.random.default_rng(0).normal(size=(ITEMS, 1, 16, 16))
    return (np.linspace(2, -2, 16)[:, None] + 0.3 * noise).astype(np.float32)


def waves() -> NDArray[np.float32]:
    """A wave along the columns, at a phase of its own: any patch tells every other one."""
    draw = np.random.default_rng(0)
    phase = draw.uniform(0, 2 * np.pi, (ITEMS, 1, 1, 1))
    wave = np.sin(2 * np.pi * np.arange(16) / 8 + phase) + 0.1 * draw.normal(size=(ITEMS, 1, 16, 16))
    return wave.astype(np.float32)


def counted() -> NDArray[np.int64]:
    """Histories that count upwards, round a ring of six, from anywhere."""
    first = np.random.default_rng(0).integers(0, 6, (ITEMS, 1))
    return ((first + np.arange(8)) % 6 + 1)[..., None]


def twice() -> NDArray[np.int64]:
    """A field that repeats its neighbour's, and events in twos: what is hidden can be told from both sides."""
    pair = np.random.default_rng(0).integers(1, 5, (ITEMS, 4, 1)).repeat(2, axis=1)
    return np.concatenate([pair, pair], axis=2)


def distinct() -> NDArray[np.float32]:
    """Pictures that have nothing in common."""
    return np.random.default_rng(0).normal(size=(ITEMS, 1, 16, 16)).astype(np.float32)


def train(backbone: Backbone, task: Pretext, data: NDArray, *, steps: int) -> dict[str, list[tuple[int, float]]]:
    history = fit(
        Pretraining(backbone, task),
        Batches(data, batch_size=BATCH),
        settings=TrainingSettings(steps=steps, lr=3e-3, weight_decay=0.0, log_every=steps // 10),
    )
    return history.curves


class Lesson(NamedTuple):
    """A task on data that answers it; the curve that tells, what guessing gets, and what is asked of it at the end."""

    make: Callable[[], tuple[Backbone, Pretext]]
    data: Callable[[], NDArray]
    curve: str
    guessing: float
    asked: float
    steps: int = 200


def lesson(made: tuple[Backbone, GridPatches], task: Callable[[GridPatches], Pretext]) -> tuple[Backbone, Pretext]:
    return made[0], task(made[1])


def lesson_of_events(
    made: tuple[Backbone, EventFields], task: Callable[[EventFields], Pretext]
) -> tuple[Backbone, Pretext]:
    return made[0], task(made[1])


LESSONS = {
    # The mean square of a standardised patch of 16 numbers, which is what guessing its mean costs.
    "reconstruction": Lesson(
        lambda: lesson(grid(), lambda t: MaskedReconstruction(t, mask=RandomMask(0.75))),
        waves,
        "masked_mse",
        15 / 16,
        0.5,
    ),
    "inpainting": Lesson(lambda: lesson(grid(), lambda t: Inpainting(t, blocks=1)), waves, "masked_mse", 15 / 16, 0.5),
    "next patch": Lesson(lambda: lesson(grid(causal=True), NextPatch), waves, "next_patch", 15 / 16, 0.5),
    "next patch in time": Lesson(
        lambda: lesson(grid(causal=True), lambda t: NextPatch(t, order="time")), waves, "next_patch", 15 / 16, 0.5
    ),
    "NT-Xent": Lesson(
        lambda: (grid()[0], NTXent(32, view=PictureView(smallest=0.9))), distinct, "matched", 1 / (2 * BATCH - 1), 0.5
    ),
    "NT-Xent of histories": Lesson(
        lambda: (events(7)[0], NTXent(32, view=HistorySlice(shortest=0.9, longest=1.0))),
        lambda: np.random.default_rng(0).integers(1, 7, (ITEMS, 8, 1)),
        "matched",
        1 / (2 * BATCH - 1),
        0.5,
    ),
    "rotation": Lesson(lambda: (grid()[0], Rotation(32)), slopes, "turns_right", 0.25, 0.95),
    "order of patches": Lesson(lambda: (grid()[0], OrderPrediction(32)), slopes, "order_right", 0.5, 0.9, steps=240),
    "order of segments": Lesson(
        lambda: (grid()[0], OrderPrediction(32, unit="segment")),
        lambda: slopes().swapaxes(2, 3).copy(),
        "order_right",
        0.5,
        0.9,
    ),
    "order of events": Lesson(lambda: (events(7)[0], OrderPrediction(32)), counted, "order_right", 0.5, 0.9, steps=300),
    "masked tokens": Lesson(
        lambda: lesson_of_events(events(5, 5), lambda t: MaskedTokens(t, ratio=0.2)),
        twice,
        "masked_token",
        math.log(4),
        0.4 * math.log(4),
        steps=300,
    ),
    "the next event": Lesson(
        lambda: lesson_of_events(events(7, causal=True), EventModelling),
        counted,
        "next_event",
        math.log(6),
        0.4 * math.log(6),
    ),
}


@pytest.mark.parametrize("name", LESSONS)
def test_what_can_be_told_is_learnt(name: str) -> None:
    one = LESSONS[name]
    curve = [value for _, value in train(*one.make(), one.data(), steps=one.steps)[one.curve]]
    better = 1 if one.asked > one.guessing else -1
    assert better * curve[-1] > better * one.asked
    assert better * curve[-1] > better * curve[0]  # the untrained encoder did not know it


@pytest.mark.parametrize("name", ["reconstruction", "inpainting", "next patch", "next patch in time"])
def test_what_nothing_tells_is_not_learnt(name: str) -> None:
    """Patches of noise have nothing to do with one another: a task that showed what it hides would do better."""
    one = LESSONS[name]
    curve = train(*one.make(), distinct(), steps=one.steps)[one.curve]
    assert curve[-1][1] > 0.95 * one.guessing


@pytest.mark.parametrize("name", ["masked tokens", "the next event"])
def test_events_that_nothing_tells_are_not_learnt(name: str) -> None:
    one = LESSONS[name]
    fields = 2 if name == "masked tokens" else 1
    codes = round(math.exp(one.guessing))
    drawn = np.random.default_rng(0).integers(1, codes + 1, (8 * ITEMS, 8, fields))
    curve = train(*one.make(), drawn, steps=150)[one.curve]
    assert curve[-1][1] > 0.95 * one.guessing


def test_two_tasks_at_once_are_both_learnt() -> None:
    backbone, tokenizer = grid()
    both = Joint({"fill": (MaskedReconstruction(tokenizer, mask=RandomMask()), 1.0), "turn": (Rotation(32), 0.5)})
    # Upright waves: their direction tells a quarter from none, their top row which half it is.
    data = waves()
    data[:, :, :2] = 2
    curves = train(backbone, both, data, steps=300)
    assert curves["fill.masked_mse"][-1][1] < 0.6
    assert curves["turn.turns_right"][-1][1] > 0.9


def test_the_variance_term_is_what_keeps_vicreg_from_a_collapse() -> None:
    def spread(variance: float) -> float:
        backbone, _ = grid()
        task = VICReg(32, view=PictureView(), variance=variance)
        train(backbone, task, distinct(), steps=100)
        with torch.no_grad():
            return collapse.deviation(task.project(backbone.embed(torch.from_numpy(distinct()[:BATCH]))).numpy())

    assert spread(25.0) > 5 * spread(0.0)
