"""One encoder for several kinds of data: pictures, spectra and histories teach the same blocks.

Each kind keeps its own tokenizer and its own pretext task; the transformer blocks between them are shared. A step takes
a batch of each kind, and each kind's loss counts relative to its own running level, so that no kind drowns the others
by the units of its loss.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from unlabeled.core.audit.watch import Curves, Health, View, Watch
from unlabeled.core.batches import Batches
from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.pretext.base import LOWER_RATE, Loss, Pretraining
from unlabeled.core.training import History, TrainingSettings, fit


class Lesson(NamedTuple):
    """What one kind of data teaches: its network with a pretext task, where its batches come from, and what makes
    another view of a batch for the watch (``None``: neither alignment nor uniformity)."""

    module: Pretraining
    batches: Batches
    view: View | None = None


def teach_together(
    lessons: Mapping[str, Lesson],
    *,
    settings: TrainingSettings,
    seed: int = 0,
    state: Path | None = None,
    describe: Mapping[str, Any] | None = None,
    log: Callable[[dict[str, float], int], None] | None = None,
) -> History:
    """Pretrains the modules of several lessons with one set of transformer blocks, that of the first.

    Afterwards each backbone has blocks of its own again, all alike, and goes on as if it had been taught alone. A step
    takes one batch of every kind.

    Args:
        lessons: by kind; their encoders are of one width, depth and number of heads.
        settings, seed, state, describe, log: see :func:`~unlabeled.core.training.fit`.

    Returns:
        The history, with the curves of each kind under its name.

    Raises:
        ValueError: encoders of different sizes.
        CollapseError: the embeddings of one kind no longer tell its rows apart.
    """
    several, batches = together(lessons)
    history = fit(
        several,
        batches,
        settings=settings,
        seed=seed,
        state=state,
        describe=describe,
        watch=WatchOfKinds.of({kind: (lesson.batches, lesson.view) for kind, lesson in lessons.items()}),
        log=log,
        label="pretraining",
    )
    for lesson in lessons.values():
        lesson.module.backbone.encoder = copy.deepcopy(lesson.module.backbone.encoder)
    return history


def together(lessons: Mapping[str, Lesson]) -> tuple["SeveralKinds", "SideBySide"]:
    """Lessons as one module and its batches; from here on their encoders share the blocks of the first.

    Raises:
        ValueError: encoders of different sizes.
    """
    trunk = next(iter(lessons.values())).module.backbone.encoder
    for kind, lesson in lessons.items():
        own = lesson.module.backbone.encoder
        if {**own.config(), "causal": None} != {**trunk.config(), "causal": None}:
            raise ValueError(
                f"the encoder of '{kind}' is {own.config()}, the first one {trunk.config()}: make them alike"
            )
        if own is not trunk:
            lesson.module.backbone.encoder = sharing(trunk, causal=own.causal)
    several = SeveralKinds({kind: lesson.module for kind, lesson in lessons.items()})
    return several, SideBySide({kind: lesson.batches for kind, lesson in lessons.items()})


def of_kind(history: History, kind: str) -> History:
    """One kind's part of a history of :func:`teach_together`: its curves under the names that they have alone. What the
    training cost cannot be told apart and is left out."""
    curves = {name.removeprefix(f"{kind}."): c for name, c in history.curves.items() if name.startswith(f"{kind}.")}
    return History(curves={"loss": history.curves.get(kind, []), **curves}, steps=history.steps)


def sharing(encoder: Encoder, *, causal: bool) -> Encoder:
    """Another encoder with the very same blocks, reading both ways or only backwards."""
    other = Encoder(**{**encoder.config(), "depth": 0, "causal": causal})
    other.depth, other.blocks, other.norm = encoder.depth, encoder.blocks, encoder.norm
    return other


class SeveralKinds(nn.Module):
    """Pretraining tasks of several kinds of data as one trainable module.

    ``total = mean over kinds of loss / level`` with ``level`` the running mean of that kind's own loss (its first loss
    at the first step), which carries no gradient. The curves hold each kind's loss and parts under its name.

    Args:
        tasks: by kind, in the order of the batches; their encoders come from :func:`sharing` one encoder.
        momentum: of the levels; not measured.
    """

    def __init__(self, tasks: Mapping[str, Pretraining], *, momentum: float = 0.98) -> None:
        super().__init__()
        if not tasks:
            raise ValueError("there must be at least one kind of data")
        first = next(iter(tasks.values())).backbone.encoder
        for kind, task in tasks.items():
            if task.backbone.encoder.blocks is not first.blocks:
                raise ValueError(f"the encoder of '{kind}' has blocks of its own: make it with sharing(encoder, ...)")
        self.tasks, self.momentum = nn.ModuleDict(tasks), momentum
        self.register_buffer("level", torch.zeros(len(tasks)))

    def forward(self, batch: tuple[Tensor, ...], step: int) -> Loss:
        """``batch`` holds one raw batch a kind."""
        level, total, parts = self.get_buffer("level"), torch.zeros((), device=batch[0].device), dict[str, Tensor]()
        for number, ((kind, task), own) in enumerate(zip(self.tasks.items(), batch, strict=True)):
            loss: Loss = task((own,), step)
            now = loss.total.detach()
            with torch.no_grad():
                before = level[number]
                level[number] = torch.where(before > 0, self.momentum * before + (1 - self.momentum) * now, now)
            total = total + loss.total / level[number].clone().clamp(min=1e-6)
            parts |= {kind: now} | {f"{kind}.{name}": value for name, value in loss.parts.items()}
        return Loss(total / len(self.tasks), parts)

    def backbone(self, kind: str) -> Backbone:
        """The backbone of one kind with blocks of its own from here on, to be fine-tuned like any other."""
        task = self.tasks[kind]
        assert isinstance(task, Pretraining)
        return copy.deepcopy(task.backbone)


class WatchOfKinds(Watch):
    """A watch over each kind of data; the training collapses when one of them does. Curves: those of
    :class:`~unlabeled.core.audit.watch.Watch` under each kind's name.

    Args:
        watches: by kind, as in the :class:`SeveralKinds` that is trained.
    """

    def __init__(self, watches: Mapping[str, Watch]) -> None:
        self.watches = dict(watches)

    @classmethod
    def of(cls, kinds: Mapping[str, tuple[Batches, View | None]]) -> "WatchOfKinds | None":
        """Over 64 rows of each kind, and another view of them where there is one; ``None`` where no kind has rows to
        tell apart."""
        found = {
            kind: watch for kind, (batches, view) in kinds.items() if (watch := Watch.over(batches, rows=64, view=view))
        }
        return cls(found) if found else None

    def names(self, module: nn.Module) -> tuple[str, ...]:
        return tuple(
            f"{kind}.{name}" for kind, watch in self.watches.items() for name in watch.names(_of(module, kind))
        )

    def look(self, module: nn.Module) -> dict[str, float]:
        return {
            f"{kind}.{name}": value
            for kind, watch in self.watches.items()
            for name, value in watch.look(_of(module, kind)).items()
        }

    def rhythm(self, *, steps: int, batch_size: int, checkpoint_every: int, share: float | None = None) -> int:
        each = batch_size // len(self.watches)
        return max(
            watch.rhythm(steps=steps, batch_size=each, checkpoint_every=checkpoint_every, share=share)
            for watch in self.watches.values()
        )

    def remedies(self, module: nn.Module) -> tuple[str, str]:
        return LOWER_RATE, "leaving that kind of data out (a pretraining of its own can choose another task)"

    def health(self, curves: Curves, *, ended: bool = False) -> Health:
        """The worst of all kinds; what is kept was healthy in all of them."""
        found = []
        for kind, watch in self.watches.items():
            own = {name.removeprefix(f"{kind}."): c for name, c in curves.items() if name.startswith(f"{kind}.")}
            one = watch.health(own, ended=ended)
            found.append(replace(one, seen=f"{one.seen} for '{kind}'"))
        worst = max(found, key=lambda one: (one.collapsed, one.low))
        kept = [one.kept for one in found]
        return replace(worst, kept=None if None in kept else min(step for step in kept if step is not None))


def _of(module: nn.Module, kind: str) -> nn.Module:
    tasks = module.tasks
    assert isinstance(tasks, nn.ModuleDict)
    return tasks[kind]


class SideBySide(Batches):
    """A batch of each kind at every step; each kind goes through its own rows at its own pace.

    Args:
        kinds: in the order of the tasks; only the first array of each is taken.
    """

    def __init__(self, kinds: Mapping[str, Batches]) -> None:
        self.kinds = dict(kinds)
        self.arrays = tuple(batches.arrays[0] for batches in kinds.values())
        self.batch_size = sum(batches.batch_size for batches in kinds.values())
        self.rows = sum(batches.rows for batches in kinds.values())
        self.per_epoch = max(batches.per_epoch for batches in kinds.values())
        self.transform = None

    def rows_at(self, step: int) -> np.ndarray:
        """Row numbers of all kinds, one after another, each counted within its own kind."""
        return np.concatenate([batches.rows_at(step) for batches in self.kinds.values()])

    def at(self, step: int, *, rank: int = 0, world: int = 1, device: torch.device | None = None) -> tuple[Tensor, ...]:
        return tuple(batches.at(step, rank=rank, world=world, device=device)[0] for batches in self.kinds.values())
