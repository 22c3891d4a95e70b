"""Which harmonics of the shaft's speed rose against the normal period, each beyond its own surroundings.

A line at 1x of the shaft or at a low multiple of it belongs to the shaft, its couplings or what holds it. Many things
share a line: what is said of a rise is where to look first and never a diagnosis (R. B. Randall, "Vibration-based
Condition Monitoring", section 2.2, Wiley 2011; procedures in ISO 13373-1:2002 and ISO 13373-3:2015).

The shaft has one speed, ``shaft_hz``, that may wander by ``SLIP``. A column of operating conditions that happens to be
a speed is not looked at (its unit would be a guess): a machine whose speed is varied shows no lines here, and its load
widens what is normal. A strong line that is not the shaft's but as near as that (at 2x of a two-pole motor: twice the
mains) cannot be told from it.

Shape suffixes: n snapshot, s sample, a axis, k order, f bin.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

ORDERS = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0)  # multiples of the shaft's speed
SLIP = 0.02  # the speed lies within so much of the one that is stated
CERTAIN = 0.01  # chance that anything is named where nothing changed
LEAST = 3.0  # decibels (an amplitude that is 1.4 times as high): less is not worth a sentence, however certain
STEADIEST = 0.1  # decibels: spread of a line that never moves
LONGEST = 50  # turns in one spectrum: over more a wandering speed smears the higher orders
HALVES = 20  # turns in one spectrum from which half orders can be told from their neighbours
SHORTEST = 512  # samples of a spectrum, unless a snapshot is shorter
LOBE = 2  # bins on either side over which a Hann window spreads a line
MANY = 8  # stretches as long as the one that is judged, at least, into which a normal period is cut
_FLOOR = 1e-24


class Levels(NamedTuple):
    """Of some snapshots, in decibels.

    Attributes:
        level: (n, axes, orders) amplitude of each line, against one of the signal's unit.
        over: (n, axes, orders) level over the line's surroundings.
        spectrum: (axes, bins) mean power, as squared amplitudes of lines.
    """

    level: Floats
    over: Floats
    spectrum: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Normal:
    """What is normal at one shaft speed.

    Attributes:
        shaft_hz: revolutions a second.
        orders: that snapshots of this length and rate tell apart; perhaps none.
        level, over: (n, axes, orders) of the normal period's snapshots, in order (:class:`Levels`).
        spectrum: (axes, bins) their mean.
    """

    shaft_hz: float
    orders: tuple[float, ...]
    level: Floats
    over: Floats
    spectrum: Floats

    @classmethod
    def of(cls, values_nsa: NDArray, *, fs: float, shaft_hz: float) -> "Normal":
        """From the snapshots of a normal period, sampled at ``fs`` Hz."""
        orders = judged(values_nsa.shape[1], fs=fs, shaft_hz=shaft_hz)
        return cls(shaft_hz=shaft_hz, orders=orders, **measure(values_nsa, fs=fs, shaft_hz=shaft_hz)._asdict())


class Harmonic(NamedTuple):
    """One line of the shaft, now against the normal period.

    Attributes:
        axis: where it was measured.
        order: times the shaft's speed.
        normal, now: level in decibels against one of the signal's unit (as amplitude).
        rise: of the level, in decibels.
        beyond: rise of the level over its surroundings, in decibels.
        spreads: ``rise`` in spreads of single normal snapshots.
        p_level: chance of so much rise where nothing changed; Holm's over all axes and orders.
        p_value: chance of so much both alone and beyond the surroundings; Holm's too.
    """

    axis: str
    order: float
    normal: float
    now: float
    rise: float
    beyond: float
    spreads: float
    p_level: float
    p_value: float

    @property
    def rose(self) -> bool:
        """By ``LEAST`` at least, and with a p-value below ``CERTAIN``."""
        return self.p_value < CERTAIN and min(self.rise, self.beyond) >= LEAST

    @property
    def rose_with_others(self) -> bool:
        """As certainly and as much, but not so beyond its surroundings."""
        return not self.rose and self.p_level < CERTAIN and self.rise >= LEAST


class Comparison(NamedTuple):
    """The shaft's lines over some snapshots.

    Attributes:
        shaft_hz: revolutions a second.
        turns: of the shaft in one spectrum.
        harmonics: axis by axis, in order; empty where snapshots tell none apart.
        hz: (bins,) up to a little above the highest order.
        now, normal: (axes, bins) decibels against one of the signal's unit.
    """

    shaft_hz: float
    turns: float
    harmonics: tuple[Harmonic, ...]
    hz: Floats
    now: Floats
    normal: Floats


def _pieces(samples: int, *, fs: float, shaft_hz: float) -> tuple[int, int, float]:
    """How many equal pieces a snapshot is cut into, samples of each, and turns of the shaft in each, which is also
    the number of bins from one whole order to the next."""
    count = max(1, min(int(samples * shaft_hz / fs / LONGEST), samples // SHORTEST))
    length = samples // count
    return count, length, length * shaft_hz / fs


def _finest(turns: float) -> float:
    return 0.5 if turns >= HALVES else 1.0


def _bins(length: int, turns: float) -> int:
    """That are looked at: below half the sampling rate, and up to two whole orders above the highest."""
    return int(min(length // 2, (max(ORDERS) + 2) * turns + 1))


def _free(length: int, turns: float) -> NDArray[np.bool_]:
    """Bins that belong to no order that can be told apart."""
    bins, finest = np.arange(_bins(length, turns)), _finest(turns)
    nearest = np.maximum(np.round(bins / (finest * turns)), 1) * finest * turns
    free = np.abs(bins - nearest) > LOBE + SLIP * nearest
    free[:2] = False  # what an offset leaves
    return np.asarray(free)


def _around(free: NDArray[np.bool_], order: float, turns: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Free bins below and above a line, up to two whole orders away."""
    bins = np.flatnonzero(free)
    away = bins - order * turns
    return bins[(away < 0) & (away > -2 * turns)], bins[(away > 0) & (away < 2 * turns)]


def judged(samples: int, *, fs: float, shaft_hz: float) -> tuple[float, ...]:
    """Those of ``ORDERS`` that a snapshot of so many samples tells apart: two bins from zero or more, below half the
    sampling rate with all its slip, and with bins of no line within two orders on either side."""
    _, length, turns = _pieces(samples, fs=fs, shaft_hz=shaft_hz)
    free = _free(length, turns)
    return tuple(
        order
        for order in ORDERS
        if order >= _finest(turns)
        and order * turns >= 2
        and order * turns * (1 + SLIP) + LOBE < length // 2
        and all(len(side) for side in _around(free, order, turns))
    )


def measure(values_nsa: NDArray, *, fs: float, shaft_hz: float) -> Levels:
    """Levels of the orders that can be judged (:func:`judged`), snapshot by snapshot.

    A snapshot is cut into pieces of up to ``2 * LONGEST`` turns whose Hann-windowed power spectra are averaged. A line
    is the highest sum of three neighbouring bins within the slip of its order, which holds a line's power to 0.1 dB
    wherever it lies between bins. Its surroundings are as high as the higher of the medians of the free bins on either
    side, so that the skirt of a strong neighbour is no line of its own.
    """
    n, samples, axes = values_nsa.shape
    count, length, turns = _pieces(samples, fs=fs, shaft_hz=shaft_hz)
    orders, bins = judged(samples, fs=fs, shaft_hz=shaft_hz), _bins(length, turns)
    window = np.hanning(length + 1)[:-1, None]
    power = np.empty((n, bins, axes))
    for i in range(n):
        x = values_nsa[i][: count * length].astype(np.float64).reshape(count, length, axes)
        x = (x - x.mean(axis=1, keepdims=True)) * window
        power[i] = (np.abs(np.fft.rfft(x, axis=1)[:, :bins]) ** 2).mean(axis=0) * 4 / window.sum() ** 2
    three = power.copy()
    three[:, 1:-1] += power[:, :-2] + power[:, 2:]
    three /= 1.5  # bins that a Hann window's noise is as wide as
    free = _free(length, turns)
    level, over = np.empty((2, n, axes, len(orders)))
    for k, order in enumerate(orders):
        reach = 0.5 + SLIP * order * turns
        first, last = int(np.ceil(order * turns - reach)), int(np.floor(order * turns + reach))
        level[..., k] = _decibels(three[:, first : last + 1].max(axis=1))
        below, above = (np.median(power[:, side], axis=1) for side in _around(free, order, turns))
        over[..., k] = level[..., k] - _decibels(np.maximum(below, above))
    return Levels(level, over, np.ascontiguousarray(power.mean(axis=0).T))


def compare(normal: Normal, values_nsa: NDArray, *, names: tuple[str, ...], fs: float) -> Comparison:
    """Some snapshots against what is normal.

    Their median of each level is held against the medians of as many normal snapshots in a row, so that what wanders
    slowly in the normal period is not taken for certain, by Student's t. Both the level and the level over its
    surroundings have to have risen: the less certain of the two counts.

    Args:
        names: of the axes.
    """
    samples = values_nsa.shape[1]
    _, length, turns = _pieces(samples, fs=fs, shaft_hz=normal.shaft_hz)
    now = measure(values_nsa, fs=fs, shaft_hz=normal.shaft_hz)
    usual, level, p_level = _risen(normal.level, now.level)
    _, over, p_over = _risen(normal.over, now.over)
    p_values, p_level = _holm(np.maximum(p_level, p_over)), _holm(p_level)
    spread = np.maximum(normal.level.std(axis=0, ddof=1), STEADIEST)
    harmonics = tuple(
        Harmonic(
            axis=axis, order=order, normal=float(usual[a, k]), now=float(usual[a, k] + level[a, k]),
            rise=float(level[a, k]), beyond=float(over[a, k]), spreads=float(level[a, k] / spread[a, k]),
            p_level=float(p_level[a, k]), p_value=float(p_values[a, k]),
        )
        for a, axis in enumerate(names)
        for k, order in enumerate(normal.orders)
    )  # fmt: skip
    hz = np.arange(_bins(length, turns)) * fs / length
    shown = (hz > 0) & (hz <= (max(ORDERS) + 0.5) * normal.shaft_hz)
    spectra = (_decibels(spectrum[:, shown]) for spectrum in (now.spectrum, normal.spectrum))
    return Comparison(normal.shaft_hz, turns, harmonics, hz[shown], *spectra)


def _risen(normal_nak: Floats, now_nak: Floats) -> tuple[Floats, Floats, Floats]:
    """What is normal, by how much the median is above it, and the chance of that: (axes, orders) each."""
    n = len(normal_nak)
    row = max(1, min(len(now_nak), n // MANY))  # a shorter stretch than is judged has a wider spread: careful
    medians = np.median(np.lib.stride_tricks.sliding_window_view(normal_nak, row, axis=0), axis=-1)
    usual = medians.mean(axis=0)
    # Stretches overlap and share the mean that they are held against: their variance is too small by row / n.
    variance = np.maximum(medians.var(axis=0) / (1 - row / n), STEADIEST**2)
    rise = np.median(now_nak, axis=0) - usual
    return usual, rise, stats.t.sf(rise / np.sqrt(variance * (1 + row / n)), n // row - 1)


def _holm(p_values: Floats) -> Floats:
    """Adjusted for as many questions as there are."""
    flat = p_values.reshape(-1)
    order = np.argsort(flat, kind="stable")
    steps = flat[order] * np.arange(len(flat), 0, -1)
    adjusted = np.empty_like(flat)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted.reshape(p_values.shape)


def _decibels(power: Floats) -> Floats:
    return np.asarray(10 * np.log10(power + _FLOOR))


def told(
    normal: Normal | None, values_nsa: NDArray, *, names: tuple[str, ...], fs: float, shaft_hz: float
) -> tuple[Comparison | None, list[str]]:
    """What the shaft's lines did, and in words; no comparison where what is normal at this speed is not known."""
    if normal is None or normal.shaft_hz != shaft_hz:
        known = "not known" if normal is None else f"known at {normal.shaft_hz:g} Hz, not at {shaft_hz:g} Hz"
        return None, [f"What is normal at the harmonics of the shaft is {known}: fit with --shaft-hz {shaft_hz:g}."]
    found = compare(normal, values_nsa, names=names, fs=fs)
    return found, words(found)


def words(found: Comparison) -> list[str]:
    """A sentence for each line that rose and one on what that goes with, or one that none did."""
    orders = tuple(dict.fromkeys(one.order for one in found.harmonics))
    if not orders:
        return [
            f"Snapshots of {found.turns:.1f} turns do not tell the harmonics of the shaft ({found.shaft_hz:.4g} Hz) "
            "apart: record six turns or more, twenty for half orders, at a rate above four times the shaft's."
        ]
    said = [
        f"On the {one.axis} axis {one.order:g}x of the shaft ({one.order * found.shaft_hz:.1f} Hz) rose by "
        f"{one.rise:.1f} dB against the normal period ({one.spreads:+.1f} normal spreads), {one.beyond:.1f} dB beyond "
        f"its surroundings ({'p < 1e-12' if one.p_value < 1e-12 else f'p = {one.p_value:.1g}'})."
        for one in found.harmonics
        if one.rose
    ]
    left_out = [f"{order:g}x" for order in ORDERS if order not in orders]
    besides = [f"Snapshots as long and as fast as these do not tell {', '.join(left_out)} apart."] if left_out else []
    with_others = [f"{one.order:g}x ({one.axis})" for one in found.harmonics if one.rose_with_others]
    if with_others:
        skirt = "" if found.turns >= HALVES else ", or in snapshots as short as these the skirt of a strong line"
        besides.append(
            f"Levels at {', '.join(with_others)} rose together with their surroundings: the load, the gain or "
            f"broad-band vibration{skirt}, which are not told apart here."
        )
    if said:
        return [*said, _meaning({one.order for one in found.harmonics if one.rose}), *besides]
    listed = ", ".join(f"{order:g}x" for order in orders)
    none = f"No harmonic of the shaft ({found.shaft_hz:.4g} Hz; {listed}) rose against the normal period"
    return [f"{none} beyond its surroundings.", *besides]


def _meaning(risen: set[float]) -> str:
    """What such rises go with, most often (Randall, section 2.2)."""
    if 0.5 in risen or len(risen) > 2:
        what = "Half orders, or many harmonics at once, often go with looseness or rubbing"
    elif 2.0 in risen:
        what = "2x, with or without 1x, often goes with misalignment; a crack, or a motor's supply near 2x, looks alike"
    elif risen == {1.0}:
        what = "1x alone often goes with unbalance; a bent shaft, or a resonance near the speed, looks alike"
    else:
        what = "Higher harmonics alone often go with as many blades, vanes or coupling jaws a turn"
    return f"{what}. This is where to look first, not a diagnosis."
