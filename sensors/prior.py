"""A new machine starts from the fleet's prior: what its sisters' snapshots do about their own means.

A machine of which only a few snapshots are known has no normal period that spreads, distances and a threshold could be
taken from. Where its own normal lies, a few snapshots tell already: each mean is the empirical Bayes estimate that
weighs them by how far machines differ from one another, against how far snapshots of one machine do (Morris,
"Parametric empirical Bayes inference", JASA 1983), and each spread is the fleet's, widened by what is left uncertain of
the mean. Everything else comes from the fleet, seen as the new machine is: each of its machines in turn is taken for a
new one of which only as many first snapshots are known, and what comes after them is what normal looks like.

Shape suffixes: n snapshot, m machine, c channel, h row of the picture, w column, i indicator.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlabeled.sensors.recording import Recording
from unlabeled.sensors.views import MIN_REFERENCE, Scaling, look

if TYPE_CHECKING:
    from unlabeled.sensors.monitor import MachineMonitor

Floats = NDArray[np.float64]

FEWEST_MACHINES = 3  # how far machines differ is not known from two
FEWEST_SNAPSHOTS = 3  # of the new machine
# Of each machine: its first snapshots, which stand for a new machine's, and some from the rest of its normal period.
_FIRST, _MOST, _LOOKED_AT = 30, 90, 400
_REFERENCE_SHARE = 2 / 3


@dataclass(frozen=True, kw_only=True)
class Begun:
    """That a monitor judges by the fleet's prior: the ``machines`` it is of, and how many snapshots are its ``own``."""

    machines: tuple[str, ...]
    own: int

    def __str__(self) -> str:
        return f"the prior of {len(self.machines)} other machines and {self.own} snapshots of its own"


class _Moments(NamedTuple):
    """Of some snapshots of one machine, feature by feature: number, mean, variance of single values (n - 1) and of
    snapshots' means."""

    number: int
    mean: Floats
    variance: Floats
    of_means: Floats


@dataclass(frozen=True, eq=False)
class Prior:
    """Snapshots of normal periods, as they are seen and not scaled.

    Attributes:
        machines: their names.
        names: of their axes or indicators, in order.
        fs: sampling rate of waveforms, in Hz; ``None`` for trends.
        unit: of the values, as far as the files said one.
        pictures: (n, C, H, W) of each.
        indicators: (n, I) of each.
    """

    machines: tuple[str, ...]
    pictures: tuple[Floats, ...]
    indicators: tuple[Floats, ...]
    names: tuple[str, ...]
    fs: float | None
    unit: str

    @classmethod
    def of(cls, fleet: Sequence[Recording], normal: Sequence[int], *, window: int) -> "Prior | None":
        """Of the first ``normal`` rows of each; ``None`` where fewer than three machines give enough, are measured in
        different ways, or conditions say how they are run."""
        ways = {(recording.kind, recording.names, recording.fs, recording.unit) for recording in fleet}
        if len(ways) != 1 or any(recording.conditions is not None for recording in fleet):
            return None
        names, pictures, indicators = [], [], []
        for recording, rows in zip(fleet, normal, strict=True):
            seen = look(recording, rows=min(rows, _LOOKED_AT), window=window)
            if len(seen.rows) < 2 * MIN_REFERENCE:
                continue
            later = np.linspace(_FIRST, len(seen.rows) - 1, _MOST - _FIRST).round().astype(np.int64)
            kept = np.unique(np.r_[np.arange(min(_FIRST, len(seen.rows))), later])
            names.append(recording.asset)
            pictures.append(seen.pictures[kept])
            indicators.append(seen.indicators[kept])
        first = fleet[0]
        found = cls(tuple(names), tuple(pictures), tuple(indicators), first.names, first.fs, first.unit)
        return found if len(names) >= FEWEST_MACHINES else None

    def but(self, asset: str) -> "Prior":
        """Without a machine, which is no other one than itself."""
        kept = [m for m, name in enumerate(self.machines) if name != asset]
        return replace(
            self,
            machines=tuple(self.machines[m] for m in kept),
            pictures=tuple(self.pictures[m] for m in kept),
            indicators=tuple(self.indicators[m] for m in kept),
        )

    def unfit(self, monitor: "MachineMonitor", recording: Recording, snapshots: int) -> str:
        """Why a machine cannot start from it; empty where it can."""
        if len(self.machines) < FEWEST_MACHINES:
            return f"the fleet's prior is of fewer than {FEWEST_MACHINES} other machines"
        if set(recording.names) != set(self.names) or (recording.fs is None) != (self.fs is None):
            return f"the fleet's prior is of {', '.join(self.names)}"
        if recording.fs is not None and self.fs is not None and abs(recording.fs / self.fs - 1) > 1e-3:
            return f"the fleet's prior is of {self.fs:g} Hz, this machine is sampled at {recording.fs:g} Hz"
        if recording.unit and self.unit and recording.unit != self.unit:
            return f"the fleet's prior is in {self.unit}, this machine in {recording.unit}"
        if snapshots < FEWEST_SNAPSHOTS:
            return f"{FEWEST_SNAPSHOTS} are needed to start from the fleet's prior"
        if recording.conditions is not None or monitor.find_regimes:
            return "the fleet's prior knows no regimes"
        if monitor.false_alarms is not None:
            return (
                "no budget of false alarms can be met by the fleet's prior: leave --false-alarms out to start from it"
            )
        return ""

    def begin(self, pictures_nchw: Floats, indicators_ni: Floats) -> tuple[Scaling, NDArray[np.float32], Floats, int]:
        """Of a new machine's few snapshots.

        Returns:
            Its scaling; the fleet's scaled pictures and indicators, as they are seen where only so few are known; and
            how many of these come before the calibration part.
        """
        known = len(pictures_nchw)
        scaling = _scaling(pictures_nchw, indicators_ni, self.pictures, self.indicators)
        early, late = [], []
        for m in range(len(self.machines)):
            others = [other for other in range(len(self.machines)) if other != m]
            as_new = _scaling(
                self.pictures[m][:known],
                self.indicators[m][:known],
                [self.pictures[other] for other in others],
                [self.indicators[other] for other in others],
            )
            pictures = as_new.picture(self.pictures[m][known:])
            indicators = as_new.indicators(self.indicators[m][known:])
            cut = int(len(pictures) * _REFERENCE_SHARE)
            early.append((pictures[:cut], indicators[:cut]))
            late.append((pictures[cut:], indicators[cut:]))
        every = [*early, *late]
        before = sum(len(one) for one, _ in early)
        return scaling, np.concatenate([one for one, _ in every]), np.concatenate([one for _, one in every]), before


def _scaling(
    pictures: Floats, indicators: Floats, fleet_pictures: Sequence[Floats], fleet_indicators: Sequence[Floats]
) -> Scaling:
    mean, spread = posterior(_moments(pictures, over=(3,)), [_moments(one, over=(3,)) for one in fleet_pictures])
    middle, width = posterior(_moments(indicators), [_moments(one) for one in fleet_indicators])
    return Scaling.with_floors(mean[..., None], spread[..., None], middle, width)


def _moments(values: Floats, over: tuple[int, ...] = ()) -> _Moments:
    """Of snapshots (n, ...), each with several values ``over`` some dimensions."""
    of_each = values.mean(axis=over) if over else values
    return _Moments(
        number=len(values),
        mean=of_each.mean(axis=0),
        variance=values.var(axis=(0, *over), ddof=1),
        of_means=of_each.var(axis=0, ddof=1),
    )


def posterior(own: _Moments, fleet: Sequence[_Moments]) -> tuple[Floats, Floats]:
    """Mean of a machine, and spread of its values about that mean, by its own few snapshots and its fleet."""
    means = np.stack([one.mean for one in fleet])
    within = np.mean([one.of_means for one in fleet], axis=0)
    # How far the machines' means differ, beyond what chance makes of finite records.
    chance = np.mean([one.of_means / one.number for one in fleet], axis=0)
    between = np.maximum(means.var(axis=0, ddof=1) - chance, 0.0)
    trust = own.number * between / np.maximum(own.number * between + within, 1e-300)
    mean = trust * own.mean + (1 - trust) * means.mean(axis=0)
    left = (1 - trust) * between
    return mean, np.sqrt(np.mean([one.variance for one in fleet], axis=0) + left)
