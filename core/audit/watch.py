"""A watch over a training: looks at embeddings of a fixed sample now and then, and tells a collapse.

The loss is no health signal: an encoder that answers every input alike may have a low one. What a look costs is
kept in proportion to what training costs (see :meth:`Watch.rhythm`), and it draws no random number, so that a
watched training goes through the very losses of an unwatched one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from unlabeled.core.audit import collapse
from unlabeled.core.batches import Batches, chunks, select
from unlabeled.core.errors import CollapseError
from unlabeled.core.pretext.base import Pretext
from unlabeled.core.seeds import generator

PREFIX = "watch."
RANK, DEVIATION = f"{PREFIX}effective_rank", f"{PREFIX}deviation"
_FLOORS = {RANK: 1.0, DEVIATION: 0.0}  # what a collapsed encoder comes to
_CHUNK = 64

Curves = Mapping[str, Sequence[tuple[int, float]]]


@dataclass(frozen=True)
class Health:
    """What the looks up to the latest say.

    Attributes:
        low: looks in a row, up to the latest, that were under the line; 0 is healthy.
        collapsed: whether that is too many.
        kept: step of the latest look that was not under the line, ``None`` where there was none.
        seen: the latest numbers beside their best so far, in words.
    """

    low: int
    collapsed: bool
    kept: int | None
    seen: str


class Watch:
    """Looks at one fixed sample every so many steps; handed to :func:`~unlabeled.core.training.fit`.

    Curves: ``watch.effective_rank`` and ``watch.deviation`` always (see :mod:`~unlabeled.core.audit.collapse`),
    ``watch.alignment`` and ``watch.uniformity`` with a second view, ``watch.nearest_neighbours`` and
    ``watch.linear_probe`` with labels. The first two decide. What counts of a number is by how much it exceeds what
    a collapsed encoder has (rank 1, deviation 0); a look is under the line when that excess, of either, is less than
    ``least`` of the best so far, the untrained encoder's included; ``patience`` such looks in a row are a collapse.

    Args:
        sample: what the backbone reads, (N, ...).
        view: the same rows, augmented otherwise.
        labels: (N,), a few known ones; they are looked at, never learnt from.
        every: steps between two looks; by default so many that looking costs about 2 % of the training.
        least: share of the best excess under which a look is low.
        patience: low looks in a row that make a collapse.
        embed: ``embed(module, batch) -> (B, D)``; the backbone's embedding by default.

    Raises:
        ValueError: fewer than two rows, lengths that differ, or shares and counts out of range.
    """

    def __init__(
        self,
        sample: Tensor,
        *,
        view: Tensor | None = None,
        labels: ArrayLike | None = None,
        every: int | None = None,
        least: float = 0.1,
        patience: int = 2,
        embed: Callable[[nn.Module, Tensor], Tensor] | None = None,
    ) -> None:
        self.labels = None if labels is None else np.asarray(labels)
        if len(sample) < 2:
            raise ValueError(f"a watch needs at least two rows to tell apart, got {len(sample)}")
        if any(len(other) != len(sample) for other in (view, self.labels) if other is not None):
            raise ValueError("the watch's sample, view and labels must have one length")
        if not 0 < least < 1 or patience < 1 or (every is not None and every < 1):
            raise ValueError(f"needs 0 < least < 1, patience >= 1, every >= 1; got {least}, {patience}, {every}")
        self.sample, self.view, self.every, self.least, self.patience = sample, view, every, least, patience
        self.embed = embed or _backbone_embedding

    @classmethod
    def over(
        cls,
        batches: Batches,
        *,
        rows: int = 128,
        views: int = 1,
        labels: ArrayLike | None = None,
        seed: int = 0,
        every: int | None = None,
        least: float = 0.1,
        patience: int = 2,
    ) -> "Watch":
        """A watch over ``rows`` rows of what is trained on, drawn and augmented once, by ``seed``.

        Args:
            views: 2 for a second augmentation (and so alignment and uniformity); the batches need a transform then.
            labels: (N,) one for every row of the batches' arrays.
        """
        if views not in (1, 2) or (views == 2 and batches.transform is None):
            raise ValueError("one view, or two where the batches have a transform that makes them differ")
        chosen = torch.randperm(batches.rows, generator=generator(seed, "watch"))[:rows].numpy()
        plain = tuple(select(array, chosen) for array in batches.arrays)
        seen = [
            plain[0] if batches.transform is None else batches.transform(plain, generator(seed, "watch", number))[0]
            for number in range(views)
        ]
        return cls(
            seen[0],
            view=seen[1] if views == 2 else None,
            labels=None if labels is None else np.asarray(labels)[chosen],
            every=every,
            least=least,
            patience=patience,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The curves, in the order of :meth:`look`."""
        names = [RANK, DEVIATION]
        names += [f"{PREFIX}alignment", f"{PREFIX}uniformity"] if self.view is not None else []
        names += [f"{PREFIX}nearest_neighbours", f"{PREFIX}linear_probe"] if self.labels is not None else []
        return tuple(names)

    def rhythm(self, *, steps: int, batch_size: int, checkpoint_every: int, share: float = 0.02) -> int:
        """Steps between two looks of a training.

        So many that the rows looked at are at most ``share`` of the rows trained on (one pass forwards costs less
        than a training step, masked encoders apart, where it costs about as much), and at most twelve looks a run;
        whole multiples of ``checkpoint_every``, because every healthy look keeps a training state.
        """
        if self.every is not None:
            return self.every
        views = 1 if self.view is None else 2
        least = max(views * len(self.sample) / (share * batch_size), steps / 12)
        return checkpoint_every * math.ceil(least / checkpoint_every)

    @torch.no_grad()
    def look(self, module: nn.Module) -> dict[str, float]:
        """The numbers of now, by the names of their curves; the module's mode is as it was afterwards."""
        training = module.training
        module.eval()
        x = self._embeddings(module, self.sample)
        numbers = [collapse.effective_rank(x), collapse.deviation(x)]
        if self.view is not None:
            numbers += [collapse.alignment(x, self._embeddings(module, self.view)), collapse.uniformity(x)]
        if self.labels is not None:
            numbers += [collapse.nearest_neighbours_accuracy(x, self.labels), collapse.linear_probe(x, self.labels)]
        module.train(training)
        return dict(zip(self.names, numbers, strict=True))

    def health(self, curves: Curves) -> Health:
        """A function of the curves alone: a resumed training needs nothing else to go on judging."""
        best = dict.fromkeys(_FLOORS, (0, 0.0))
        low, kept, said = 0, None, "no look yet"
        for looks in zip(*(curves.get(name, ()) for name in _FLOORS), strict=True):
            step, under, words = looks[0][0], False, []
            for (name, floor), (_, value) in zip(_FLOORS.items(), looks, strict=True):
                at, most = best[name]
                # Where the best is rounding noise over the floor there is nothing to fall from.
                under |= most > 1e-3 and value - floor < self.least * most
                words.append(f"{_WORDS[name]} {value:.3g} (best {most + floor:.3g} at step {at})")
                if value - floor > most:
                    best[name] = (step, value - floor)
            low, kept = (low + 1, kept) if under else (0, step)
            said = " and ".join(words)
        return Health(low, low >= self.patience, kept, said)

    def error(self, health: Health, module: nn.Module, *, step: int, where: str) -> CollapseError:
        """What to say about a collapse; ``where`` tells what became of the last healthy weights."""
        first, second = getattr(getattr(module, "pretext", None), "remedies", Pretext.remedies)
        return CollapseError(
            f"the embeddings collapse: at step {step} they have {health.seen}, the {health.low}. look in a row under "
            f"{self.least:.0%} of the best; inputs are no longer told apart. Try {first}, or {second}. {where}",
            step=step,
            kept=health.kept,
        )

    def _embeddings(self, module: nn.Module, sample: Tensor) -> np.ndarray:
        device = next(module.parameters()).device
        parts = [self.embed(module, sample[rows].to(device)) for rows in chunks(len(sample), _CHUNK)]
        return torch.cat(parts).double().cpu().numpy()


_WORDS = {RANK: "effective rank", DEVIATION: "deviation"}


def _backbone_embedding(module: nn.Module, batch: Tensor) -> Tensor:
    return module.backbone.embed(batch)  # type: ignore[operator, union-attr]
