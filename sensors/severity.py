"""Severity by ISO 20816-3: broad-band vibration velocity on a bearing housing, and the zone that it falls into.

Velocity is the root mean square from 10 Hz (2 Hz for machines that run below 600 revolutions a minute) to 1 kHz; an
acceleration is integrated in the frequency domain. The zones (ISO 20816-3:2022, annex A; the same boundaries as ISO
10816-3) hold for machines above 15 kW, measured where the standard says: A new machines, B fit for unrestricted
long-term running, C fit for a limited time, D severe enough to cause damage. A unit is never guessed: 1 g of one sensor
is 9.81 of another.
"""

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.errors import DataError

Unit = Literal["g", "m/s2", "mm/s"]
# Standard gravity in mm/s2, and what turns the others into mm/s2 or mm/s.
_TO_MILLIMETRES = {"g": 9806.65, "m/s2": 1000.0, "mm/s": 1.0}
LOWEST, LOWEST_OF_SLOW, HIGHEST = 10.0, 2.0, 1000.0  # Hz
SLOW = 10.0  # revolutions a second, below which the band reaches lower
# Shorter snapshots hold too few periods of the lowest frequency.
PERIODS = 5
# Upper ends of zones A, B and C in mm/s: group 1 above 300 kW, group 2 from 15 to 300 kW; rigid or flexible supports.
BOUNDARIES = {
    "1-rigid": (2.3, 4.5, 7.1),
    "1-flexible": (3.5, 7.1, 11.0),
    "2-rigid": (1.4, 2.8, 4.5),
    "2-flexible": (2.3, 4.5, 7.1),
}
MEANING = {
    "A": "as new machines",
    "B": "fit for unrestricted long-term running",
    "C": "fit for a limited time only, until it can be mended",
    "D": "severe enough to cause damage",
}


class Severity(NamedTuple):
    """Of one axis: velocity in mm/s (RMS), the zone, the machine's class, the lower end of the band in Hz, and whether
    the shaft's speed is known, by which that was chosen."""

    axis: str
    velocity: float
    zone: str
    machine_class: str
    lowest: float = LOWEST
    speed_known: bool = False

    def words(self) -> str:
        taken = "" if self.speed_known else ", if it runs at 600 revolutions a minute or more (--shaft-hz tells)"
        return (
            f"Severity on the {self.axis} axis: {self.velocity:.2f} mm/s from {self.lowest:g} Hz to 1 kHz, zone "
            f"{self.zone} of ISO 20816-3 for class {self.machine_class}{taken}: {MEANING[self.zone]}."
        )


def velocity_rms(signal_sa: NDArray, *, fs: float, unit: Unit, lowest: float = LOWEST) -> NDArray[np.float64]:
    """RMS velocity of each axis from ``lowest`` Hz to 1 kHz, (axes,) in mm/s.

    Args:
        signal_sa: (samples, axes), acceleration in g or m/s2, or velocity in mm/s.
        fs: sampling rate in Hz.
        unit: of the signal.

    Raises:
        DataError: an unknown unit, a snapshot of fewer than five periods of ``lowest``, or a rate that does not reach
            1 kHz.
    """
    if unit not in get_args(Unit):
        raise DataError(f"a severity needs the signal's unit, one of {', '.join(get_args(Unit))}; got {unit!r}")
    seconds = len(signal_sa) / fs
    if seconds < PERIODS / lowest:
        raise DataError(f"a severity needs snapshots of {PERIODS / lowest:g} s or more, these have {seconds:g} s")
    if fs < 2 * HIGHEST:
        raise DataError(f"a severity needs a sampling rate of {2 * HIGHEST:g} Hz or more, this is {fs:g} Hz")
    x = np.asarray(signal_sa, dtype=np.float64) * _TO_MILLIMETRES[unit]
    # A window, or the end that does not meet the beginning would look like a slow motion, which integration enlarges.
    window = np.hanning(len(x) + 1)[:-1, None]
    spectrum = np.fft.rfft((x - x.mean(axis=0)) * window, axis=0)
    hertz = np.fft.rfftfreq(len(x), 1 / fs)
    inside = (hertz >= lowest) & (hertz <= HIGHEST)
    values = spectrum[inside]
    if unit != "mm/s":
        values = values / (2 * np.pi * hertz[inside])[:, None]
    power = 2 * np.square(np.abs(values)).sum(axis=0) / (len(x) * np.square(window).sum())
    return np.sqrt(power)


def zone(velocity: float, machine_class: str) -> str:
    """A, B, C or D; what lies on a boundary belongs to the better one.

    Raises:
        DataError: an unknown class, or no number.
    """
    if not np.isfinite(velocity):
        raise DataError(f"a velocity of {velocity} mm/s is in no zone: the axis holds samples that are no numbers")
    if machine_class not in BOUNDARIES:
        raise DataError(f"classes of machines are {', '.join(BOUNDARIES)}, got {machine_class!r}")
    return "ABCD"[sum(velocity > end for end in BOUNDARIES[machine_class])]


def severities(
    snapshots_nsa: NDArray,
    *,
    axes: tuple[str, ...],
    fs: float | None,
    unit: Unit | None,
    machine_class: str,
    shaft_hz: float | None = None,
) -> tuple[Severity, ...]:
    """Of each axis, over several snapshots (the root of the mean of their squares); ``shaft_hz``: revolutions a second.

    Raises:
        DataError: no waveform, no unit, or what :func:`velocity_rms` and :func:`zone` say.
    """
    if fs is None:
        raise DataError("a severity is worked out from a waveform, these are indicators")
    if unit is None:
        raise DataError("a severity needs the unit of the signal: say --unit g, m/s2 or mm/s")
    lowest = LOWEST_OF_SLOW if shaft_hz is not None and shaft_hz < SLOW else LOWEST
    each = np.stack([velocity_rms(one, fs=fs, unit=unit, lowest=lowest) for one in snapshots_nsa])
    level = np.sqrt(np.square(each).mean(axis=0))
    return tuple(
        Severity(axis, float(v), zone(float(v), machine_class), machine_class, lowest, shaft_hz is not None)
        for axis, v in zip(axes, level, strict=True)
    )
