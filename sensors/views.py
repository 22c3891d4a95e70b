"""What the monitor sees of each snapshot: a picture for the encoder and a row of physical indicators.

Shape suffixes: n snapshot, c channel, h row of the picture, w column, i indicator.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlabeled.core import progress
from unlabeled.core.errors import DataError
from unlabeled.sensors import _checks, features
from unlabeled.sensors.health import TrendHealth, waveform_flaw
from unlabeled.sensors.level import level_column, overall_rms
from unlabeled.sensors.recording import Kind, Recording

Floats = NDArray[np.float64]

PICTURE_CLIP, INDICATOR_CLIP = 10.0, 100.0
# Snapshots of a normal period that a scale can be taken from.
MIN_REFERENCE = 20


class Seen(NamedTuple):
    """One snapshot that can be judged.

    Attributes:
        picture: (C, H, W): axes, bands and time columns, or one channel with indicators and time steps.
        indicators: (I,).
        overall: level (:mod:`~unlabeled.sensors.level`), or ``None`` where a trend has none.
        level: (axes,) decibels that were taken out of a waveform's picture.
    """

    picture: Floats
    indicators: Floats
    overall: float | None
    level: Floats | None = None


class View:
    """Takes snapshots one after another and looks back only.

    A waveform is a picture of its own. A trend row is seen together with the rows before it that could be
    judged, ``window`` in all.

    Args:
        kind: waveforms or trend.
        names: axes or indicators.
        fs: sampling rate of waveforms.
        window: rows in the picture of a trend.
    """

    def __init__(self, kind: Kind, names: tuple[str, ...], fs: float | None, window: int) -> None:
        self.kind, self.names, self.window = kind, names, window
        self._health = TrendHealth(names)
        self._rows: deque[NDArray] = deque(maxlen=window)
        self._column = level_column(names)
        self.indicator_names = names if fs is None else features.indicator_names(names, fs)

    def memory(self) -> dict[str, Any]:
        """What the next snapshot will be seen with, as plain JSON."""
        return {"rows": [row.tolist() for row in self._rows], "health": self._health.memory()}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Goes on from :meth:`memory`."""
        self._rows = deque([np.array(row, dtype=np.float64) for row in memory["rows"]], maxlen=self.window)
        self._health.recall(memory["health"])

    def push(self, values: NDArray, *, flaw: str = "", running: bool = True) -> Seen | str:
        """The snapshot as it is seen, or the reason why it cannot be judged."""
        if flaw:
            return flaw
        if not running:
            return "the machine was not running"
        if self.kind == "waveform":
            wrong = waveform_flaw(values)
            if wrong:
                return wrong
            shape, level = features.shape_and_level(features.picture(values))
            return Seen(shape, features.indicators(values, shape), overall_rms(values), level)
        row = values.astype(np.float64)
        wrong = self._health.flaw(row)
        if wrong:
            return wrong
        self._rows.append(row)
        if len(self._rows) < self.window:
            return f"too early: a trend is judged from its {self.window}th row on"
        overall = None if self._column is None else float(row[self._column])
        return Seen(np.stack(self._rows, axis=1)[None], row, overall)


class Look(NamedTuple):
    """Some rows of a recording, seen.

    Attributes:
        pictures: (n, C, H, W) of the rows that can be judged.
        indicators: (n, I).
        overall: (n,) levels, or ``None`` where a trend has none.
        rows: (n,) their row numbers.
    """

    pictures: Floats
    indicators: Floats
    overall: Floats | None
    rows: NDArray[np.int64]


def look(recording: Recording, *, rows: int, window: int) -> Look:
    """Sees the first ``rows`` rows of a recording."""
    view = View(recording.kind, recording.names, recording.fs, window)
    seen: list[Seen] = []
    at = []
    for i in range(rows):
        one = view.push(recording.values[i], flaw=str(recording.flaws[i]), running=bool(recording.running[i]))
        if isinstance(one, Seen):
            seen.append(one)
            at.append(i)
    if not seen:
        return Look(np.empty((0, 1, 1, 1)), np.empty((0, 1)), None, np.empty(0, dtype=np.int64))
    levels = [s.overall for s in seen if s.overall is not None]
    overall = np.array(levels) if levels else None
    return Look(np.stack([s.picture for s in seen]), np.stack([s.indicators for s in seen]), overall, np.array(at))


class Scaling:
    """Constants from the normal period: mean and spread of each row of the picture and of each indicator.

    Args:
        picture_mean, picture_scale: (C, H, 1).
        indicator_mean, indicator_scale: (I,).
    """

    def __init__(
        self, picture_mean: Floats, picture_scale: Floats, indicator_mean: Floats, indicator_scale: Floats
    ) -> None:
        self.picture_mean, self.picture_scale = picture_mean, picture_scale
        self.indicator_mean, self.indicator_scale = indicator_mean, indicator_scale

    @classmethod
    def of(cls, pictures_nchw: Floats, indicators_ni: Floats) -> "Scaling":
        """From normal snapshots. A spread has a floor, so that a constant does not turn rounding into an alarm."""
        mean = pictures_nchw.mean(axis=(0, 3))[..., None]
        spread = pictures_nchw.std(axis=(0, 3))[..., None]
        middle, width = indicators_ni.mean(axis=0), indicators_ni.std(axis=0, ddof=1)
        return cls(mean, _floored(spread, mean), middle, _floored(width, middle))

    def picture(self, picture: Floats) -> NDArray[np.float32]:
        """In spreads from the mean, clipped; any leading dimensions."""
        z = (picture - self.picture_mean) / self.picture_scale
        return np.clip(z, -PICTURE_CLIP, PICTURE_CLIP).astype(np.float32)

    def indicators(self, indicators: Floats) -> Floats:
        """In spreads from the mean, clipped."""
        z = (indicators - self.indicator_mean) / self.indicator_scale
        return np.clip(z, -INDICATOR_CLIP, INDICATOR_CLIP)


def normal_pictures(
    fleet: Sequence[Recording], normal: Sequence[int], *, window: int
) -> tuple[NDArray[np.float32], list[str]]:
    """The pictures of normal periods, each scaled by its own, and the machines that gave some.

    Args:
        fleet: recordings of one kind.
        normal: how many rows the normal period of each has.
        window: rows of a trend that are seen together.

    Raises:
        DataError: nothing that can be judged, or machines of different kinds.
    """
    if not fleet:
        raise DataError("pretraining needs at least one recording")
    pictures, used = [], []
    for recording, rows in zip(fleet, normal, strict=True):
        _checks.alike(recording, fleet[0])
        seen = look(recording, rows=rows, window=window)
        if len(seen.rows) < MIN_REFERENCE:
            progress.say(f"{recording.asset} is left out of the pretraining: {len(seen.rows)} snapshots to learn from")
            continue
        used.append(recording.asset)
        pictures.append(Scaling.of(seen.pictures, seen.indicators).picture(seen.pictures))
    if not pictures:
        raise DataError(
            f"no recording has {MIN_REFERENCE} snapshots in its normal period that can be judged: "
            "give longer recordings, or a larger --normal-share"
        )
    return np.concatenate(pictures), used


def departure(z: Floats, kind: Kind) -> Floats:
    """Root mean square of the indicators' distances from normal over the last dimension.

    Only rises count in waveforms (faults add energy and impulses, running-in takes some away); in a trend, whose
    indicators may mean anything, falls count as well.
    """
    counted = np.maximum(z, 0.0) if kind == "waveform" else z
    return np.sqrt(np.mean(np.square(counted), axis=-1))


def _floored(spread: Floats, mean: Floats) -> Floats:
    return np.maximum(spread, 1e-6 * np.maximum(1.0, np.abs(mean)))
