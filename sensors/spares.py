"""Judging a machine while one of its sensors is broken: a flat line on one axis says nothing of the others.

What is seen of the broken axis (of a trend: indicator) is set to the mean of the normal period, and the rest is put on
the scale of a normal period that was seen in the same way: embeddings, distances, spreads and threshold are taken once
more for each that may be missing. Such snapshots can raise an alarm, smoothed and counted by themselves, and say
nothing else: what the broken one would say is not known, so that they end no alarm, and that they are quiet is no
all-clear. A well machine with a broken sensor "cannot be judged", and is listened to.

Shape suffixes: n snapshot, c channel (axis), h row of the picture (of a trend: indicator), w column, i indicator.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.errors import DataError
from unlabeled.core.normality import NormalModel
from unlabeled.sensors.level import Level, level_column, overall_rms
from unlabeled.sensors.recording import Kind, Recording
from unlabeled.sensors.views import Look, departure

if TYPE_CHECKING:
    from unlabeled.sensors.monitor import MachineMonitor

WITHOUT = "without "  # how a reason begins that names what is broken
# Rows of a trend's normal period that are embedded once more for each indicator: many indicators make do with fewer.
_ROWS, _FEWEST, _MOST = 4000, 60, 200


@dataclass(frozen=True, eq=False)
class Spare:
    """What is normal without one axis or indicator.

    Attributes:
        embedding, error, outside: (n, D), (n,), (n,) of the normal period, seen without it.
        cut: how much of that comes before the calibration part.
        normal: the scale of the score's parts.
        gain: brings its scores to the monitor's own threshold.
        level: of the other axes; ``None`` where the monitor has none, or takes conditions out of it, and of a
            trend whose level is the one that is missing.
    """

    embedding: NDArray[np.float64]
    error: NDArray[np.float64]
    outside: NDArray[np.float64]
    cut: int
    normal: NormalModel
    gain: float
    level: Level | None


def fit(
    monitor: "MachineMonitor", recording: Recording, seen: Look, cut: int, *, reach: Callable[[Spare, Look], float]
) -> dict[int, Spare]:
    """By the number of the axis or indicator that is missing, where there are several. None where regimes were found,
    which may be told apart by that very one, where a drift is followed, which would stand still meanwhile, nor where
    too little is left for a budget of false alarms.

    Args:
        monitor: fitted on all of them.
        recording: what it was fitted on.
        seen: the normal period.
        cut: how much of it comes before the calibration part.
        reach: the threshold that scores without one would have by themselves, of a look at which part of the period.
    """
    count, kind = len(recording.names), recording.kind
    if count < 2 or monitor.finds_regimes or monitor.drift:
        return {}
    if kind == "trend":
        seen, cut = _some(
            seen, cut, most=int(np.clip(_ROWS // count, _FEWEST, _MOST)), all_late=monitor.tail_ is not None
        )
    picture, indicators = monitor.scaling_.picture(seen.pictures), monitor.scaling_.indicators(seen.indicators)
    found = {}
    for number in range(count):
        pictures, left = without(picture, indicators, (number,), kind=kind)
        embedding, error = monitor.encode(pictures)
        outside = departure(left, kind)
        normal = monitor.normal_model(embedding, error, outside, cut)
        spare = Spare(embedding, error, outside, cut, normal, 1.0, None)
        try:
            own = reach(spare, seen)
        except DataError:
            continue
        if monitor.threshold_ > 0 and own > 0:
            level = _level(monitor, recording, seen, number)
            found[number] = Spare(embedding, error, outside, cut, normal, monitor.threshold_ / own, level)
    return found


def without(
    picture_nchw: NDArray[np.float32], indicators_ni: NDArray[np.float64], broken: Collection[int], *, kind: Kind
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Pictures and indicators in spreads from the normal means, with those of the ``broken`` axes or indicators at the
    means; any leading dimensions."""
    picture, indicators = picture_nchw.copy(), indicators_ni.copy()
    which = list(broken)
    if kind == "trend":
        picture[..., which, :] = 0
        indicators[..., which] = 0
        return picture, indicators
    picture[..., which, :, :] = 0
    by_axis = indicators.reshape(*indicators.shape[:-1], picture.shape[-3], -1)
    by_axis[..., which, :] = 0
    return picture, indicators


def overall_without(signal_sa: NDArray, broken: Collection[int]) -> float:
    """The overall level of the other axes of a waveform."""
    return overall_rms(signal_sa[:, [axis for axis in range(signal_sa.shape[1]) if axis not in broken]])


def told(broken: Mapping[int, str], names: Sequence[str]) -> str:
    """In words, what a snapshot was judged without; empty where it was judged whole."""
    return "; ".join(f"{WITHOUT}{names[number]}: {why}" for number, why in broken.items())


def _some(seen: Look, cut: int, *, most: int, all_late: bool) -> tuple[Look, int]:
    """At most so many of the rows before and after the cut, evenly; all of those after it where a budget of false
    alarms needs them one after another."""
    early = np.unique(np.linspace(0, cut - 1, min(cut, most)).round().astype(np.int64))
    after = len(seen.rows) - cut
    late = cut + np.unique(np.linspace(0, after - 1, after if all_late else min(after, most)).round().astype(np.int64))
    kept = np.r_[early, late]
    overall = None if seen.overall is None else seen.overall[kept]
    return Look(seen.pictures[kept], seen.indicators[kept], overall, seen.rows[kept]), len(early)


def _level(monitor: "MachineMonitor", recording: Recording, seen: Look, number: int) -> Level | None:
    if recording.kind == "trend":
        return None if level_column(recording.names) == number else monitor.level_
    if monitor.level_ is None or monitor.conditional_ is not None:
        return None
    overall = np.array([overall_without(recording.values[row], (number,)) for row in seen.rows])
    return Level.of(overall, names=recording.names, waveform=True, threshold=monitor.threshold_)
