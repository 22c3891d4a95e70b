"""What is normal depends on how a machine is run: speed, load, temperature, whatever is measured beside its vibration.

A snapshot is compared with the snapshots of the normal period that were taken under the most similar conditions: what
they look like on average is taken out, and what all of them look like is put back, so that everything downstream
(scales, encoder, distances) sees one regime. Nearest neighbours rather than a model of how vibration grows with speed:
resonances make it anything but smooth, and nothing is foretold where nothing was seen (on taking out what conditions
do: Sohn, "Effects of environmental and operational variability on structural health monitoring", Philosophical
Transactions of the Royal Society A 365, 2007).

Conditions that are farther from all known ones than these are from each other are a new regime. There nothing can be
said of the machine: it is neither an alarm nor an all-clear, until somebody says which, or lets the monitor learn it
(:mod:`~unlabeled.sensors.vouched`).

Shape suffixes: n snapshot, m known snapshot, k condition, i indicator.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.errors import DataError
from unlabeled.sensors.found_regimes import FoundRegimes, described

if TYPE_CHECKING:
    from unlabeled.sensors.views import Seen

Floats = NDArray[np.float64]

NEW_REGIME = "new regime"
# Snapshots under similar conditions that are averaged: a share of those known, at least so many.
_SHARE, _LEAST = 0.05, 5
# Beyond the gap that this share of the known snapshots have to their nearest neighbour, by this factor, a regime is
# new; and never nearer than so many spreads of the conditions.
_GAPS, _BEYOND, _NEAREST = 0.98, 1.5, 0.25
# A condition that hardly varied has no scale of its own: this share of its mean is one.
_STEADY = 0.02


class Unfamiliar(str):
    """The reason why a snapshot of a new regime is not judged, in words."""

    __slots__ = ()


@dataclass(frozen=True, eq=False)
class Regimes:
    """The conditions that a normal period knows.

    Attributes:
        names: of the conditions.
        known: (m, k) of each known snapshot, in their own units.
        mean, scale: (k,) by which they are compared.
        limit: how far from its nearest known neighbour a snapshot may be, in spreads.
    """

    names: tuple[str, ...]
    known: Floats
    mean: Floats
    scale: Floats
    limit: float

    @classmethod
    def of(cls, known_mk: Floats, names: Sequence[str]) -> "Regimes":
        """From the conditions of a normal period's snapshots.

        Raises:
            DataError: fewer than six snapshots, or conditions that are not finite.
        """
        if len(known_mk) <= _LEAST or not np.isfinite(known_mk).all():
            raise DataError(
                f"{' and '.join(names)} must be known of {_LEAST + 1} normal snapshots or more, and is of "
                f"{len(known_mk)}"
            )
        mean = known_mk.mean(axis=0)
        scale = np.maximum(known_mk.std(axis=0), np.maximum(_STEADY * np.abs(mean), 1e-12))
        z = (known_mk - mean) / scale
        gaps = np.array([np.sort(_distances(one, z))[1] for one in z])
        return cls(tuple(names), known_mk, mean, scale, max(_BEYOND * float(np.quantile(gaps, _GAPS)), _NEAREST))

    @cached_property
    def _z(self) -> Floats:
        return (self.known - self.mean) / self.scale

    @property
    def similar(self) -> int:
        """How many known snapshots a new one is compared with."""
        return max(_LEAST, round(_SHARE * len(self.known)))

    def nearest(self, conditions_k: Floats, *, without: int | None = None) -> NDArray[np.int64]:
        """Numbers of the known snapshots under the most similar conditions, itself (``without``) left out."""
        distance = self._from(conditions_k)
        if without is not None:
            distance[without] = np.inf
        # Ties go to the earlier one, so that the answer does not depend on how a sort is made.
        return np.argsort(distance, kind="stable")[: self.similar]

    def unfamiliar(self, conditions_k: Floats) -> Unfamiliar | None:
        """Why nothing can be said under these conditions, or ``None`` where they are known."""
        distance = self._from(conditions_k)
        if distance.min() <= self.limit:
            return None
        low, high = self.known.min(axis=0), self.known.max(axis=0)
        said = (
            f"{name} {value:.4g} (the normal period had {a:.4g} to {b:.4g})"
            for name, value, a, b in zip(self.names, conditions_k, low, high, strict=True)
        )
        return Unfamiliar(f"{NEW_REGIME}: {', '.join(said)}")

    def _from(self, conditions_k: Floats) -> Floats:
        return _distances((conditions_k - self.mean) / self.scale, self._z)


@dataclass(frozen=True, eq=False)
class Conditional:
    """What normal snapshots look like under each of the known conditions; what conditions do is taken out by it.

    Attributes:
        regimes: the known conditions, or the regimes that were found where nothing is said of them.
        indicators: (m, I) of each known snapshot.
        pictures: (m, C, H) of each waveform's picture, mean over its time; ``None`` for a trend.
        overall: (m,) level of each waveform; ``None`` for a trend.
        additions: regimes that were learnt later, each asked only about conditions that nothing before it knows.
    """

    regimes: Regimes | FoundRegimes
    indicators: Floats
    pictures: Floats | None = None
    overall: Floats | None = None
    additions: tuple["Addition", ...] = ()

    def strange(self, conditions_k: Floats | None) -> str | None:
        """Why nothing can be said under these conditions: they are not known, or new. Regimes that were found excuse
        nothing."""
        if isinstance(self.regimes, FoundRegimes):
            return None
        if conditions_k is None or not np.isfinite(conditions_k).all():
            return f"{' and '.join(self.regimes.names)} not known"
        why = self.regimes.unfamiliar(conditions_k)
        return None if why is None or self.addition(conditions_k) is not None else why

    def addition(self, conditions_k: Floats | None) -> "Addition | None":
        """The regime learnt later that such conditions belong to; ``None`` where they were known from the beginning, or
        are not known at all."""
        if not self.additions or isinstance(self.regimes, FoundRegimes):
            return None
        assert conditions_k is not None
        if self.regimes.unfamiliar(conditions_k) is None:
            return None
        return next((one for one in self.additions if one.normal.strange(conditions_k) is None), None)

    def gain(self, conditions_k: Floats | None) -> float:
        """What a score under these conditions is multiplied by (:class:`Addition`)."""
        learnt = self.addition(conditions_k)
        return 1.0 if learnt is None else learnt.gain

    def row(self, row_i: Floats, conditions_k: Floats | None, *, without: int | None = None) -> Floats:
        """A trend's indicators, as they would be if the machine were run as it is on average."""
        learnt = self.addition(conditions_k)
        if learnt is not None:
            return learnt.indicator_ratio * learnt.residual_row(row_i, conditions_k) + self._means[0]
        return self._row(row_i, self.similar(conditions_k, self.regime(row_i), without=without))

    def regime(self, row_i: Floats, picture_ch: Floats | None = None, overall: float | None = None) -> int | None:
        """Number of the found regime of a trend's row, or of a waveform with this mean picture and level; ``None``
        where conditions are measured."""
        if not isinstance(self.regimes, FoundRegimes):
            return None
        pictures = None if picture_ch is None else picture_ch[None]
        return self.regimes.regime(
            described(pictures, row_i[None], None if overall is None else np.array([overall]))[0]
        )

    def snapshot(self, seen: "Seen", conditions_k: Floats | None, *, without: int | None = None) -> "Seen":
        """A waveform's picture, indicators and level, in the same way; a level grows by a factor."""
        assert self.pictures is not None
        assert self.overall is not None
        assert seen.overall is not None
        learnt = self.addition(conditions_k)
        if learnt is not None:
            indicators, picture, overall = self._means
            assert learnt.picture_ratio is not None
            left, departed = learnt.residual_picture(seen, conditions_k)
            return seen._replace(
                picture=learnt.picture_ratio[..., None] * left + picture[..., None],
                indicators=learnt.indicator_ratio * learnt.residual_row(seen.indicators, conditions_k) + indicators,
                overall=float(overall * (1 + learnt.overall_ratio * departed)),
            )
        regime = self.regime(seen.indicators, seen.picture.mean(axis=-1), seen.overall)
        similar = self.similar(conditions_k, regime, without=without)
        usual = self.pictures[similar].mean(axis=0) - self._means[1]
        return seen._replace(
            picture=seen.picture - usual[..., None],
            indicators=self._row(seen.indicators, similar),
            overall=float(seen.overall / self.overall[similar].mean() * self._means[2]),
            regime=regime,
        )

    def similar(
        self, conditions_k: Floats | None, regime: int | None = None, *, without: int | None = None
    ) -> NDArray[np.int64]:
        """Numbers of the known snapshots that one is compared with."""
        if isinstance(self.regimes, FoundRegimes):
            assert regime is not None
            return self.regimes.members(regime, without=without)
        assert conditions_k is not None
        return self.regimes.nearest(conditions_k, without=without)

    def _row(self, row_i: Floats, similar: NDArray[np.int64]) -> Floats:
        return np.asarray(row_i - self.indicators[similar].mean(axis=0) + self._means[0])

    @cached_property
    def _means(self) -> tuple[Floats, Floats, Floats]:
        """Over all known snapshots: indicators, pictures and level."""
        every = (self.indicators, self.pictures, self.overall)
        return tuple(np.empty(0) if one is None else np.asarray(one.mean(axis=0)) for one in every)  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class Addition:
    """A regime that was learnt after the normal period, put on that period's scale: what is left of a snapshot once
    what is usual in the regime is taken out, in the regime's own spreads, times the normal period's spreads.

    Attributes:
        normal: what is normal in it, by the conditions that nothing before it knew.
        indicator_ratio: (I,) spread in the normal period over spread in this regime.
        picture_ratio: (C, H) the same of each row of a waveform's picture; ``None`` for a trend.
        overall_ratio: the same of a waveform's level, as a share of what is usual.
        gain: at most 1: what the parts of a score are multiplied by, so that well snapshots of this regime reach no
            farther than those of the normal period.
    """

    normal: Conditional
    indicator_ratio: Floats
    picture_ratio: Floats | None
    overall_ratio: float
    gain: float

    def residual_row(self, row_i: Floats, conditions_k: Floats | None, *, without: int | None = None) -> Floats:
        """(I,) what the regime does not account for."""
        similar = self.normal.similar(conditions_k, without=without)
        return np.asarray(row_i - self.normal.indicators[similar].mean(axis=0))

    def residual_picture(
        self, seen: "Seen", conditions_k: Floats | None, *, without: int | None = None
    ) -> tuple[Floats, float]:
        """(C, H, W) of a picture, and by which share the level is above what is usual."""
        assert self.normal.pictures is not None
        assert self.normal.overall is not None
        assert seen.overall is not None
        similar = self.normal.similar(conditions_k, without=without)
        left = seen.picture - self.normal.pictures[similar].mean(axis=0)[..., None]
        return left, float(seen.overall / self.normal.overall[similar].mean() - 1)


def _distances(one_k: Floats, known_mk: Floats) -> Floats:
    """Euclidean, over the conditions' number, so that one more of them does not make everything farther."""
    return np.sqrt(np.square(known_mk - one_k).mean(axis=-1))
