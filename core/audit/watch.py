"""A watch over a training: looks at embeddings of a fixed sample now and then, and tells a collapse.

The loss is no health signal: an encoder that answers every input alike may have a low one. What a look costs is
kept in proportion to what training costs (see :meth:`Watch.rhythm`), and it draws no random number, so that a
watched training goes through the very losses of an unwatched one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from unlabeled.core.audit import collapse
from unlabeled.core.batches import Batches, select
from unlabeled.core.errors import CollapseError, DataError
from unlabeled.core.pretext.base import Pretext
from unlabeled.core.seeds import derive, generator
from unlabeled.core.store import chunks

PREFIX = "watch."
RANK, DEVIATION = f"{PREFIX}effective_rank", f"{PREFIX}deviation"
PROJECTED_RANK, PROJECTED_DEVIATION = f"{PREFIX}projected_rank", f"{PREFIX}projected_deviation"
_CHUNK = 64
# Labels that a watch looks at: as many rows as it watches without any.
LOOKED_AT = 128
# What looking may cost of a training, and with labels to look at, whose user wants a curve.
SHARE, ASKED_SHARE = 0.02, 0.1

View = Callable[[Tensor, torch.Generator], Tensor]
Curves = Mapping[str, Sequence[tuple[int, float]]]


@dataclass(frozen=True)
class Health:
    """What the looks up to the latest say.

    Attributes:
        low: looks in a row, up to the latest, that were under the line; 0 is healthy.
        collapsed: whether that is too many.
        kept: step of the latest look that was not under the line, ``None`` where there was none.
        seen: the latest numbers that are low (all, where none is) beside their best so far, in words.
    """

    low: int
    collapsed: bool
    kept: int | None
    seen: str


class Watch:
    """Looks at one fixed sample every so many steps; handed to :func:`~unlabeled.core.training.fit`.

    Curves: ``watch.effective_rank`` and ``watch.deviation`` of the embeddings always (see
    :mod:`~unlabeled.core.audit.collapse`), ``watch.projected_rank`` and ``watch.projected_deviation`` where the task
    compares projections of them, ``watch.alignment`` and ``watch.uniformity`` with a second view,
    ``watch.nearest_neighbours`` and ``watch.linear_probe`` of rows that are asked about.

    Ranks and deviations decide, by how much they exceed what a collapsed encoder has (rank 1, deviation 0). A look
    is low when any such excess is less than ``least`` of the best it has risen to, or ``least`` squared of the best
    altogether; ``patience`` low looks in a row are a collapse, or a single one where the training ends with it. A
    height counts as risen to when an earlier look was lower: healthy masked reconstruction first learns what all
    inputs share, and falls to a tenth of the untrained encoder's excess before it rises. Projections know no such
    dip, so that their untrained height counts as well.

    Args:
        sample: what the backbone reads, (N, ...).
        view: the same rows, augmented otherwise.
        asked: rows of which something is known, (M, ...), and what that is, (M,): for the probes alone. Nothing is
            learnt from them, and they have no say in what a collapse is.
        every: steps between two looks; by default so many that looking costs about 2 % of the training, or 10 % with
            rows that are asked about.
        least: share under which a look is low.
        patience: low looks in a row that make a collapse.
        embed: ``embed(module, batch) -> (B, D)``; the task's embedding by default.

    Raises:
        ValueError: fewer than two rows, lengths that differ, or shares and counts out of range.
    """

    def __init__(
        self,
        sample: Tensor,
        *,
        view: Tensor | None = None,
        asked: tuple[Tensor, ArrayLike] | None = None,
        every: int | None = None,
        least: float = 0.1,
        patience: int = 2,
        embed: Callable[[nn.Module, Tensor], Tensor] | None = None,
    ) -> None:
        self.asked: tuple[Tensor, NDArray[Any]] | None = None if asked is None else (asked[0], np.asarray(asked[1]))
        if len(sample) < 2:
            raise ValueError(f"a watch needs at least two rows to tell apart, got {len(sample)}")
        if view is not None and len(view) != len(sample):
            raise ValueError("the watch's sample and view must have one length")
        if self.asked is not None and len(self.asked[0]) != len(self.asked[1]):
            raise ValueError("the rows that are asked about and what is known of them must have one length")
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
        view: View | None = None,
        asked: tuple[Tensor, ArrayLike] | None = None,
        seed: int = 0,
        every: int | None = None,
        least: float = 0.1,
        patience: int = 2,
    ) -> "Watch | None":
        """A watch over ``rows`` rows of what is trained on, drawn and augmented once, by ``seed``.

        ``None`` where there is a single row: there is nothing to tell apart.

        Args:
            view: makes another view of what is looked at (:mod:`unlabeled.core.views`), for alignment and uniformity.
            asked: as for the watch itself.
        """
        if batches.rows < 2:
            return None
        chosen = torch.randperm(batches.rows, generator=generator(seed, "watch"))[:rows].numpy()
        plain = tuple(select(array, chosen) for array in batches.arrays)
        seen = plain[0] if batches.transform is None else batches.transform(plain, generator(seed, "watch", 0))[0]
        return cls(
            seen,
            view=None if view is None else view(seen, generator(seed, "watch", 1)),
            asked=asked,
            every=every,
            least=least,
            patience=patience,
        )

    def names(self, module: nn.Module) -> tuple[str, ...]:
        """The curves of ``module``, in the order of :meth:`look`."""
        names = [RANK, DEVIATION]
        names += [] if _projection(module) is None else [PROJECTED_RANK, PROJECTED_DEVIATION]
        names += [f"{PREFIX}alignment", f"{PREFIX}uniformity"] if self.view is not None else []
        names += [f"{PREFIX}nearest_neighbours", f"{PREFIX}linear_probe"] if self.asked is not None else []
        return tuple(names)

    def rhythm(self, *, steps: int, batch_size: int, checkpoint_every: int, share: float | None = None) -> int:
        """Steps between two looks of a training.

        So many that the rows looked at are at most ``share`` of the rows trained on (2 %, or 10 % with rows that are
        asked about; one pass forwards costs less
        than a training step, masked encoders apart, where it costs about as much), and at most twelve looks a run;
        whole multiples of ``checkpoint_every``, because every healthy look keeps a training state.
        """
        if self.every is not None:
            return self.every
        share = share or (SHARE if self.asked is None else ASKED_SHARE)
        rows = len(self.sample) * (1 if self.view is None else 2) + (0 if self.asked is None else len(self.asked[0]))
        least = max(rows / (share * batch_size), steps / 12)
        return checkpoint_every * math.ceil(least / checkpoint_every)

    @torch.no_grad()
    def look(self, module: nn.Module) -> dict[str, float]:
        """The numbers of now, by the names of their curves; the module's mode is as it was afterwards.

        All of them are NaN where an embedding is not finite.
        """
        training = module.training
        module.eval()
        project = _projection(module)
        tensor = self._embeddings(module, self.sample)
        x = _array(tensor)
        if not np.isfinite(x).all():
            module.train(training)
            return dict.fromkeys(self.names(module), math.nan)
        numbers = [collapse.effective_rank(x), collapse.deviation(x)]
        if project is not None:
            projected = _array(project(tensor))
            numbers += [collapse.effective_rank(projected), collapse.deviation(projected)]
        if self.view is not None:
            numbers += [collapse.alignment(x, _array(self._embeddings(module, self.view))), collapse.uniformity(x)]
        if self.asked is not None:
            rows, labels = self.asked
            known = _array(self._embeddings(module, rows))
            if not np.isfinite(known).all():
                module.train(training)
                return dict.fromkeys(self.names(module), math.nan)
            numbers += [
                collapse.nearest_neighbours_accuracy(known, labels), collapse.linear_probe(known, labels),
            ]  # fmt: skip
        module.train(training)
        return dict(zip(self.names(module), numbers, strict=True))

    def health(self, curves: Curves, *, ended: bool = False) -> Health:
        """A function of the curves alone: a resumed training needs nothing else to go on judging.

        Args:
            ended: no look will follow the latest, so that a low one needs no others to be believed.
        """
        tracks = [track for track in _tracks() if track.name in curves]
        low, kept, said = 0, None, "no look yet"
        for looks in zip(*(curves[track.name] for track in tracks), strict=True):
            under = [track.falls(value, least=self.least) for track, (_, value) in zip(tracks, looks, strict=True)]
            low, kept = (low + 1, kept) if any(under) else (0, looks[0][0])
            shown = [t for t, below in zip(tracks, under, strict=True) if below] or tracks
            said = " and ".join(track.words() for track in shown)
        return Health(low, low >= (1 if ended else self.patience), kept, said)

    def error(self, health: Health, module: nn.Module, *, step: int, where: str) -> CollapseError:
        """What to say about a collapse; ``where`` tells what became of the last healthy weights."""
        first, second = self.remedies(module)
        often = f"and {health.low} looks in a row were that low" if health.low > 1 else "and nothing was left to train"
        return CollapseError(
            f"the embeddings collapse: at step {step} they have {health.seen}, {often}: inputs are hardly told apart. "
            f"Try {first}, or {second}. {where}",
            step=step,
            kept=health.kept,
        )

    def remedies(self, module: nn.Module) -> tuple[str, str]:
        """Two settings to try when what ``module`` learns collapses."""
        pretext = getattr(module, "pretext", None)
        return pretext.remedies if isinstance(pretext, Pretext) else Pretext.remedies

    def _embeddings(self, module: nn.Module, sample: Tensor) -> Tensor:
        device = next(module.parameters()).device
        return torch.cat([self.embed(module, sample[rows].to(device)) for rows in chunks(len(sample), _CHUNK)])


def looked_at(
    labels: ArrayLike,
    known: ArrayLike,
    *,
    rows: str,
    seed: int,
    units: ArrayLike | None = None,
    most: int = LOOKED_AT,
) -> NDArray[np.int64]:
    """Which labelled rows a watch looks at: at most ``most``, of every class as many as there are up to an even share.

    Args:
        labels: (N,).
        known: (N,) whether the label is known.
        rows: what a row is, in the plural, for the error.
        units: (N,) of whom a row is: of each, one row with each label at most, so that no row is told from another of
            the same patient.
        seed: fixes which are drawn.

    Returns:
        Positions, in order.

    Raises:
        DataError: fewer than two classes, or a class with fewer than two rows: no probe could be judged.
    """
    y, rng = np.asarray(labels), np.random.default_rng(derive(seed, "looked at") % 2**32)
    at = np.flatnonzero(np.asarray(known, dtype=bool))
    if units is not None and len(at):
        at = rng.permutation(at)
        _, unit = np.unique(np.asarray(units)[at], return_inverse=True)
        _, label = np.unique(y[at], return_inverse=True)
        at = np.sort(at[np.unique(np.stack([unit, label]), axis=1, return_index=True)[1]])
    classes, counts = np.unique(y[at], return_counts=True)
    if len(classes) < 2 or counts.min() < 2:
        got = " and ".join(f"{count} labelled {name}" for name, count in zip(classes, counts, strict=True)) or "none"
        raise DataError(
            f"a probe on the way needs two classes with at least two labelled {rows} each among those that can be "
            f"looked at, got {got}"
        )
    chosen: list[NDArray[np.int64]] = []
    for number, i in enumerate(np.argsort(counts, kind="stable")):
        share = (most - sum(map(len, chosen))) // (len(classes) - number)
        chosen.append(rng.permutation(at[y[at] == classes[i]])[:share])
    return np.sort(np.concatenate(chosen))


@dataclass
class _Track:
    """What has been seen so far of one curve that decides, by its excess over what a collapsed encoder has."""

    name: str
    called: str
    floor: float
    dips: bool
    latest: float = 0.0
    lowest: float = math.inf
    best: float = 0.0
    risen: float = 0.0

    def falls(self, value: float, *, least: float) -> bool:
        """Takes up the next look; True where it is low beside those before it."""
        excess = value - self.floor
        # Where the best is rounding noise over the floor there is nothing to fall from.
        low = any(best > 1e-3 and excess < share * best for best, share in ((self.risen, least), (self.best, least**2)))
        if excess > self.risen and (excess > self.lowest or not self.dips):
            self.risen = excess
        self.best, self.lowest, self.latest = max(self.best, excess), min(self.lowest, excess), value
        return low

    def words(self) -> str:
        return f"{self.called} of {self.latest:.3g} (at best {self.best + self.floor:.3g})"


def _tracks() -> list[_Track]:
    return [
        _Track(RANK, "an effective rank", 1.0, dips=True),
        _Track(DEVIATION, "a deviation", 0.0, dips=True),
        _Track(PROJECTED_RANK, "an effective rank of the projections", 1.0, dips=False),
        _Track(PROJECTED_DEVIATION, "a deviation of the projections", 0.0, dips=False),
    ]


def _projection(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """What the module's task compares instead of embeddings, if it has such a thing."""
    pretext = getattr(module, "pretext", None)
    return pretext.project if isinstance(pretext, Pretext) and pretext.projects else None


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.double().cpu().numpy()


def _backbone_embedding(module: nn.Module, batch: Tensor) -> Tensor:
    pretext = getattr(module, "pretext", None)
    if isinstance(pretext, Pretext):
        return pretext.embed(module.backbone, batch)  # type: ignore[arg-type]
    return module.backbone.embed(batch)  # type: ignore[operator, union-attr]
