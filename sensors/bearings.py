"""Which part of a bearing repeats itself: kinematic frequencies, and what stands at them in the envelope spectrum.

A pit in a race or on a ball strikes once a passage; the strikes ring at whatever frequencies the machine has, so that
their rate shows in the envelope, not in the spectrum (Randall and Antoni, "Rolling element bearing diagnostics: a
tutorial", Mechanical Systems and Signal Processing 25, 2011).
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from unlabeled.core.errors import DataError
from unlabeled.sensors.recording import Recording

HARMONICS = 3
SLIP = 0.02  # balls slide a little: a defect's rate lies within two percent of its kinematic one
CERTAIN = 0.01
SHORTEST = 512  # samples of a piece
TURNS = 6  # of the shaft in a piece: the cage turns twice
NEIGHBOURS = 100  # bins on either side that say how high the spectrum is where nothing repeats itself

PARTS = {
    "BPFO": "outer race",
    "BPFI": "inner race",
    "BSF": "rolling element",
    "FTF": "cage",
}


@dataclass(frozen=True, kw_only=True)
class Bearing:
    """What the rates of a bearing follow from; both diameters in one unit.

    Attributes:
        elements: balls or rollers in a row.
        element_diameter: of one.
        pitch_diameter: of the circle through their centres.
        contact_angle: in degrees.
    """

    elements: int
    element_diameter: float
    pitch_diameter: float
    contact_angle: float = 0.0

    def __post_init__(self) -> None:
        if self.elements < 3 or not 0 < self.element_diameter < self.pitch_diameter or not 0 <= self.contact_angle < 90:
            raise DataError(
                "a bearing has at least 3 elements, an element diameter above 0 and below its pitch diameter, and a "
                f"contact angle from 0 to 90 degrees; got {self}"
            )

    def orders(self) -> dict[str, float]:
        """Passages a turn of the shaft, the outer race at rest: BPFO and BPFI (an element over a pit in the outer or
        inner race), BSF (a pit of an element over one race) and FTF (the cage)."""
        ratio = self.element_diameter / self.pitch_diameter * np.cos(np.radians(self.contact_angle))
        return {
            "BPFO": self.elements / 2 * (1 - ratio),
            "BPFI": self.elements / 2 * (1 + ratio),
            "BSF": self.pitch_diameter / (2 * self.element_diameter) * (1 - ratio**2),
            "FTF": (1 - ratio) / 2,
        }


# As their makers or the data sets that used them state them (millimetres).
CATALOGUE: Mapping[str, Bearing] = {
    "6203": Bearing(elements=8, element_diameter=6.746, pitch_diameter=28.5),
    "6205": Bearing(elements=9, element_diameter=7.94, pitch_diameter=39.04),
    "ZA-2115": Bearing(elements=16, element_diameter=8.407, pitch_diameter=71.501, contact_angle=15.17),
}


def find(name: str) -> Bearing:
    """A catalogue entry, or one of a TOML file of the user's own: ``FILE.toml`` with the attributes of
    :class:`Bearing`.

    Raises:
        DataError: neither is known; or the file does not say what it should.
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    path = Path(name)
    if path.suffix != ".toml":
        raise DataError(f"no bearing {name!r}: known are {', '.join(CATALOGUE)}; others come from a .toml file")
    try:
        return Bearing(**tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{path} does not describe a bearing ({str(error).splitlines()[0]}): it needs elements, element_diameter, "
            "pitch_diameter and, where it is not 0, contact_angle"
        ) from None


class Envelope(NamedTuple):
    """A squared envelope spectrum.

    Attributes:
        hz: (f,) middle of each bin.
        power: (f,) mean over pieces; about 1 where nothing repeats itself.
        pieces: how many spectra were averaged.
    """

    hz: NDArray[np.float64]
    power: NDArray[np.float64]
    pieces: int


def envelope(pieces_ns: NDArray, fs: float) -> Envelope:
    """Squared envelope spectrum, averaged over pieces (n, samples) of one axis.

    Every frequency of a piece is given the same power first (cepstrum pre-whitening: Borghesani et al., Mechanical
    Systems and Signal Processing 36, 2013), so that neither gears nor resonances decide what is seen.
    """
    x = np.asarray(pieces_ns, dtype=np.float64)
    spectrum = np.fft.rfft(x, axis=1)
    spectrum[:, 0] = 0  # what an offset leaves is no signal
    white = np.fft.irfft(spectrum / np.maximum(np.abs(spectrum), 1e-30), n=x.shape[1], axis=1)
    squared = white**2
    power = np.abs(np.fft.rfft(squared - squared.mean(axis=1, keepdims=True), axis=1)) ** 2
    hz = np.fft.rfftfreq(x.shape[1], 1 / fs)
    usual = np.median(power[:, 1:], axis=1, keepdims=True) / np.log(2)  # of an exponential distribution
    return Envelope(hz.astype(np.float64), (power / np.maximum(usual, 1e-30)).mean(axis=0), len(x))


class Evidence(NamedTuple):
    """What stands at one rate and its harmonics.

    Attributes:
        name: BPFO, BPFI, BSF or FTF.
        hz: the rate.
        levels: (HARMONICS,) highest power within the slip of each harmonic over its neighbourhood's, in decibels.
        p_value: chance of as much where nothing repeats itself.
    """

    name: str
    hz: float
    levels: tuple[float, ...]
    p_value: float

    def says(self) -> str:
        levels = ", ".join(f"{level:.0f}" for level in self.levels)
        chance = f"p = {self.p_value:.1g}" if self.p_value >= 1e-12 else "p < 1e-12"
        return (
            f"{PARTS[self.name]} ({self.name}, {self.hz:.1f} Hz) shows in the envelope: {levels} dB over its "
            f"surroundings at {len(self.levels)} harmonics ({chance})."
        )


def evidence(spectrum: Envelope, bearing: Bearing, shaft_hz: float) -> list[Evidence]:
    """What stands at each of a bearing's rates, most certain first; p-values are Holm's over all rates.

    Where nothing repeats itself a bin of the averaged spectrum has a gamma distribution (shape: the number of pieces);
    the highest within the slip counts, and harmonics are joined by Fisher's method. A harmonic beyond the spectrum,
    in a bin of the shaft's own, or within the slip of one of a rate that is more certain and below ``CERTAIN``, is
    left to the others; a rate of less than two bins is left out.
    """
    step = float(spectrum.hz[1])
    rates = {name: order * shaft_hz for name, order in bearing.orders().items() if order * shaft_hz >= 2 * step}
    taken = np.abs(_nearest(spectrum.hz, shaft_hz)) <= step / 2
    taken[0] = True
    found: list[Evidence] = []
    surest = 0.0
    while rates:
        some = [_at(spectrum, name, rate, taken) for name, rate in rates.items()]
        one = min(some, key=lambda found: (found.p_value, -sum(found.levels)))
        surest = max(surest, min(1.0, one.p_value * len(rates)))
        found.append(one._replace(p_value=surest))
        del rates[one.name]
        if surest < CERTAIN:
            taken |= np.abs(_nearest(spectrum.hz, one.hz)) <= np.maximum(step, SLIP * spectrum.hz)
    return found


def _nearest(hz: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    """How far each frequency is from the nearest multiple of ``rate`` above nought."""
    return hz - np.maximum(np.round(hz / rate), 1) * rate


def _at(spectrum: Envelope, name: str, rate: float, taken: NDArray[np.bool_]) -> Evidence:
    step = float(spectrum.hz[1])
    logs, levels = [], []
    for harmonic in range(1, HARMONICS + 1):
        middle = harmonic * rate / step
        reach = max(0.5, SLIP * middle)
        bins = np.arange(int(np.ceil(middle - reach)), int(np.floor(middle + reach)) + 1)
        bins = bins[bins < len(taken)]
        bins = bins[~taken[bins]]
        if not len(bins):
            continue
        height = float(spectrum.power[bins].max() / _around(spectrum, int(bins[0]), int(bins[-1])))
        # The highest of several: one minus the chance that none of them is as high, by its logarithm.
        one = float(stats.gamma.logsf(height * spectrum.pieces, spectrum.pieces))
        several = np.log(-np.expm1(len(bins) * np.log1p(-np.exp(one)))) if -30 < one < 0 else one + np.log(len(bins))
        logs.append(min(0.0, float(several)))
        levels.append(float(10 * np.log10(max(height, 1e-12))))
    p_value = float(stats.chi2.sf(-2 * sum(logs), 2 * len(logs))) if logs else 1.0
    return Evidence(name, rate, tuple(levels), p_value)


class Repeats(NamedTuple):
    """What repeats itself on one axis: its envelope spectrum, and the evidence for each rate, most certain first."""

    axis: str
    spectrum: Envelope
    evidence: tuple[Evidence, ...]


def repeats(recording: Recording, bearing: Bearing, shaft_hz: float) -> tuple[Repeats, ...]:
    """Axis by axis, over some snapshots, in :func:`pieces`. P-values are Bonferroni's over the axes."""
    assert recording.fs is not None
    values, axes = pieces(recording, shaft_hz), len(recording.names)
    found = []
    for a, axis in enumerate(recording.names):
        spectrum = envelope(values[:, :, a], recording.fs)
        every = evidence(spectrum, bearing, shaft_hz)
        found.append(
            Repeats(axis, spectrum, tuple(one._replace(p_value=min(1.0, one.p_value * axes)) for one in every))
        )
    return tuple(found)


def pieces(recording: Recording, shaft_hz: float) -> NDArray:
    """(pieces, samples, axes): snapshots, long ones cut, because slip smears rates over many turns. What is left over
    at the end of each is left out."""
    assert recording.fs is not None
    n, samples, axes = recording.values.shape
    each = max(1, min(int(samples / (TURNS / shaft_hz * recording.fs)), samples // SHORTEST))
    return recording.values[:, : samples // each * each].reshape(n * each, -1, axes)


def words(found: Sequence[Repeats]) -> list[str]:
    """A sentence for each rate that shows on an axis, or one that none does."""
    shown = [
        f"On the {one.axis} axis the {evidence.says()}" for one in found for evidence in one.evidence
        if evidence.p_value < CERTAIN
    ]  # fmt: skip
    if shown or not found:
        return shown
    if not any(evidence.levels for one in found for evidence in one.evidence):
        return ["Snapshots are too short to tell the rates of the bearing from those of the shaft: record more turns."]
    return ["Nothing shows in the envelope at the rates of the bearing."]


def _around(spectrum: Envelope, first: int, last: int) -> float:
    """Power where nothing repeats itself, near bins ``first`` to ``last``: the median, as a mean would be."""
    low, high = max(1, first - NEIGHBOURS), min(len(spectrum.power), last + 1 + NEIGHBOURS)
    near = np.r_[spectrum.power[low:first], spectrum.power[last + 1 : high]]
    usual = stats.gamma.median(spectrum.pieces) / spectrum.pieces
    return max(float(np.median(near)) / usual, 1e-12)
