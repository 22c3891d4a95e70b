"""What a monitor learns from one machine's normal period, once it has an encoder: scales, distances, threshold."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unlabeled.core import fingerprint
from unlabeled.core.errors import DataError
from unlabeled.sensors import _checks, spares, views
from unlabeled.sensors._learning import Log, learn
from unlabeled.sensors.baselines import usual_rules
from unlabeled.sensors.false_alarms import Tail, tail
from unlabeled.sensors.harmonics import Normal
from unlabeled.sensors.health import Offset
from unlabeled.sensors.level import Level
from unlabeled.sensors.outliers import named
from unlabeled.sensors.prior import Begun, Prior
from unlabeled.sensors.recording import Recording
from unlabeled.sensors.spares import Spare
from unlabeled.sensors.stream import fused
from unlabeled.sensors.views import MIN_REFERENCE, Look, Scaling, departure, look, look_under_conditions

if TYPE_CHECKING:
    from unlabeled.sensors.monitor import MachineMonitor

CALIBRATION_SHARE = 1 / 3  # of the normal period, its last part
MIN_CALIBRATION = 10


@dataclass(frozen=True, kw_only=True)
class Period:
    """The declared normal period, in row numbers: ``0..calibration-1`` fits, ``calibration..stop-1`` calibrates."""

    calibration: int
    stop: int


def fit(
    monitor: "MachineMonitor",
    recording: Recording,
    *,
    stop: int,
    usual: "MachineMonitor",
    kind: str,
    state: Path | None,
    log: Log | None,
) -> None:
    """See :meth:`~unlabeled.sensors.monitor.MachineMonitor.fit`; the normal period ends before row ``stop``."""
    _checks.bearing(monitor)
    _checks.drift(monitor)
    if monitor.detector is not None:
        named(monitor.detector, seed=0)  # there is such a one, or it is said before anything is learnt
    seen, monitor.conditional_, cut = look_under_conditions(
        recording, rows=stop, window=monitor.window, share=1 - CALIBRATION_SHARE, find=monitor.find_regimes
    )
    if cut < MIN_REFERENCE or len(seen.rows) - cut < MIN_CALIBRATION:
        known: Prior | None = getattr(monitor, "prior_", None)
        known = None if known is None else known.but(recording.asset)
        why_not = known.unfit(monitor, recording, len(seen.rows)) if known is not None else ""
        if known is not None and not why_not:
            _begin(monitor, _checks.in_order(recording, known.names), known, stop)
            return
        why = views.refusals(recording, rows=stop, window=monitor.window, normal=monitor.conditional_)
        raise DataError(
            f"{recording.asset}: {len(seen.rows)} snapshots of the normal period can be judged, at least "
            f"{MIN_REFERENCE * 3 // 2} are needed{views.in_words(why)}: {views.advice(why)}record longer, or "
            f"enlarge --normal-share / --normal-until{why_not and f' ({why_not})'}"
        )
    monitor.scaling_ = Scaling.of(seen.pictures[:cut], seen.indicators[:cut])
    pictures = monitor.scaling_.picture(seen.pictures)
    if not getattr(monitor, "pretrained_", False):
        learn(monitor, pictures[:cut], recording.fs, usual=usual, kind=kind, state=state, log=log)
        monitor.fleet_ = [recording.asset]
    _checks.grid(monitor, pictures)
    _note(monitor, recording, seen.rows[:cut], stop)
    if recording.fs is not None and monitor.shaft_hz is not None:
        normal = recording.rows(seen.rows).values
        monitor.harmonics_ = Normal.of(normal, fs=recording.fs, shaft_hz=monitor.shaft_hz)
    monitor.period_ = Period(calibration=int(seen.rows[cut]), stop=stop)
    monitor.plain_rules_ = usual_rules(recording, normal_rows=stop)
    embedding, error = monitor.encode(pictures)
    outside = departure(monitor.scaling_.indicators(seen.indicators), monitor.kind_)
    monitor.set_reference(embedding, error, outside, cut)
    whole = Spare(embedding, error, outside, cut, monitor.normal_, 1.0, None)
    monitor.threshold_, monitor.tail_ = _threshold(monitor, whole, recording.hours[seen.rows[cut:]])
    if seen.overall is not None and monitor.tail_ is None:  # a plain rule's own false alarms are in nobody's budget
        waveform = recording.kind == "waveform"
        monitor.level_ = Level.of(seen.overall, names=recording.names, waveform=waveform, threshold=monitor.threshold_)

    def reach(one: Spare, of: Look) -> float:
        return _threshold(monitor, one, recording.hours[of.rows[one.cut :]])[0]

    monitor.spares_ = spares.fit(monitor, recording, seen, cut, reach=reach)


def _begin(monitor: "MachineMonitor", recording: Recording, known: Prior, stop: int) -> None:
    """Starts from the fleet's prior: only where this machine's own normal lies is its own."""
    seen = look(recording, rows=stop, window=monitor.window)
    monitor.scaling_, pictures, indicators, cut = known.begin(seen.pictures, seen.indicators)
    _checks.grid(monitor, pictures)
    _note(monitor, recording, seen.rows, stop)
    monitor.begun_ = Begun(machines=known.machines, own=len(seen.rows))
    monitor.period_ = Period(calibration=stop, stop=stop)
    monitor.plain_rules_ = []
    embedding, error = monitor.encode(pictures)
    outside = departure(indicators, monitor.kind_)
    monitor.set_reference(embedding, error, outside, cut)
    whole = Spare(embedding, error, outside, cut, monitor.normal_, 1.0, None)
    monitor.threshold_, monitor.tail_ = _threshold(monitor, whole, np.empty(0))


def _note(monitor: "MachineMonitor", recording: Recording, rows: NDArray[np.int64], stop: int) -> None:
    """What machine it is; nothing is known of levels, harmonics and the like yet."""
    monitor.level_, monitor.vouched_, monitor.spares_, monitor.harmonics_, monitor.begun_ = None, (), {}, None, None
    monitor.asset_, monitor.kind_, monitor.fs_ = recording.asset, recording.kind, recording.fs
    monitor.names_, monitor.unit_ = recording.names, recording.unit
    waveforms = recording.kind == "waveform"
    monitor.offset_ = Offset.of(recording.rows(rows).values) if waveforms else None
    monitor.samples_ = recording.values.shape[1] if waveforms else None
    monitor.data_fingerprint_ = fingerprint.of_array(recording.values[:stop])


def _threshold(monitor: "MachineMonitor", normal: Spare, hours: NDArray[np.float64]) -> tuple[float, Tail | None]:
    """Of the smoothed score, by the calibration part of the normal period and its ``hours``, and what the scores do
    beyond the usual where it meets a budget of false alarms.

    Raises:
        DataError: too few independent peaks for a budget.
    """
    held_out = zip(*(part[normal.cut :] for part in (normal.embedding, normal.error, normal.outside)), strict=True)
    scores = np.array([fused(monitor.parts(*one, spare=normal), None) for one in held_out])
    if monitor.false_alarms is not None:
        found = tail(scores, hours, monitor.rule, what=monitor.asset_)
        return found.careful_threshold(monitor.false_alarms), found
    # Spread of single scores, not of smoothed ones: a few dozen of these hold a handful of independent values.
    return float(scores.mean() + monitor.sigmas * scores.std(ddof=1)), None
