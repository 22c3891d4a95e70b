"""Judging a machine while one of its sensors is broken: a flat line on one axis says nothing of the others.

What is seen of the broken axis is set to the mean of the normal period, and the rest is put on the scale of a normal
period that was seen in the same way: embeddings, distances, spreads and threshold are taken once more for each axis
that may be missing. Such a snapshot can raise an alarm and never ends one: what the broken axis would say is not known.

Shape suffixes: n snapshot, c channel (axis), h row of the picture, w column, i indicator.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.errors import DataError
from unlabeled.core.normality import NormalModel
from unlabeled.sensors.level import Level, overall_rms
from unlabeled.sensors.recording import Recording
from unlabeled.sensors.views import Look, departure

if TYPE_CHECKING:
    from unlabeled.sensors.monitor import MachineMonitor


@dataclass(frozen=True, eq=False)
class Spare:
    """What is normal without one axis.

    Attributes:
        embedding, error, outside: (n, D), (n,), (n,) of the normal period, seen without it.
        normal: the scale of the score's parts.
        gain: brings its scores to the monitor's own threshold.
        level: of the other axes; ``None`` where the monitor has none, or takes conditions or a drift out of it.
    """

    embedding: NDArray[np.float64]
    error: NDArray[np.float64]
    outside: NDArray[np.float64]
    normal: NormalModel
    gain: float
    level: Level | None


def fit(monitor: "MachineMonitor", recording: Recording, seen: Look, cut: int) -> dict[int, Spare]:
    """By the number of the axis that is missing: for each axis of waveforms that have several. None where regimes were
    found, which may be told apart by that very axis, nor where too little is left for a budget of false alarms.

    Args:
        monitor: fitted on all axes.
        recording: what it was fitted on.
        seen: the normal period.
        cut: how much of it comes before the calibration part.
    """
    axes = len(recording.names)
    if recording.kind != "waveform" or axes < 2 or monitor.finds_regimes:
        return {}
    picture, indicators = monitor.scaling_.picture(seen.pictures), monitor.scaling_.indicators(seen.indicators)
    found = {}
    for axis in range(axes):
        pictures, left = without(picture, indicators, (axis,))
        embedding, error = monitor.encode(pictures)
        outside = departure(left, monitor.kind_)
        normal = monitor.normal_model(embedding, error, outside, cut)
        spare = Spare(embedding, error, outside, normal, 1.0, None)
        try:
            reach, _ = monitor.threshold_of(spare, recording, seen.rows, cut)
        except DataError:
            continue
        if monitor.threshold_ > 0 and reach > 0:
            level = _level(monitor, recording, seen, axis)
            found[axis] = Spare(embedding, error, outside, normal, monitor.threshold_ / reach, level)
    return found


def without(
    picture_nchw: NDArray[np.float32], indicators_ni: NDArray[np.float64], broken: Collection[int]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Pictures and indicators in spreads from the normal means, with those of the ``broken`` axes at the means; any
    leading dimensions."""
    picture, indicators = picture_nchw.copy(), indicators_ni.copy()
    axes = picture.shape[-3]
    by_axis = indicators.reshape(*indicators.shape[:-1], axes, -1)
    for axis in broken:
        picture[..., axis, :, :] = 0
        by_axis[..., axis, :] = 0
    return picture, indicators


def overall_without(signal_sa: NDArray, broken: Collection[int]) -> float:
    """The overall level of the other axes."""
    return overall_rms(signal_sa[:, [axis for axis in range(signal_sa.shape[1]) if axis not in broken]])


def told(broken: Mapping[int, str], names: Sequence[str]) -> str:
    """In words, what a snapshot was judged without; empty where it was judged whole."""
    return "; ".join(f"without {names[axis]}: {why}" for axis, why in broken.items())


def _level(monitor: "MachineMonitor", recording: Recording, seen: Look, axis: int) -> Level | None:
    if monitor.level_ is None or monitor.conditional_ is not None or monitor.drift:
        return None
    overall = np.array([overall_without(recording.values[row], (axis,)) for row in seen.rows])
    return Level.of(overall, names=recording.names, waveform=True, threshold=monitor.threshold_)
