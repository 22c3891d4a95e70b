"""Can a snapshot be judged at all? If not it is neither an alarm nor an all-clear, and the reason is kept."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CLIPPED_SHARE = 0.005
FEWEST_LEVELS = 16
FLAT_ROWS = 24
GONE_ROWS = 3  # an indicator that is missing for so many rows is broken, and does not only lack a cell
HELD_SHARE = 0.01  # of the samples, in one stretch that does not move: a dropout
HELD_TIMES = 20  # as long as nearly all other stretches of the same snapshot
# How far a mean may move: in shares of the RMS, or so many of its usual spreads if that is farther.
SHIFT, SHIFT_SPREADS = 0.25, 8.0
MOST_CODES = 2**24  # float32 holds no more of them apart


def waveform_flaw(signal: NDArray) -> str:
    """What is wrong with one snapshot (samples, axes), axis by axis; empty when nothing."""
    return "; ".join(waveform_flaws(signal).values())


def waveform_flaws(signal: NDArray) -> dict[int, str]:
    """What is wrong with which axis of one snapshot (samples, axes); empty when nothing is.

    Clipped means that half a percent of the samples or more sit, three or more in a row, at the very highest or
    lowest value; a dropout, that one value is held for a percent of the samples, in a signal that otherwise moves from
    sample to sample; a stuck bit, that of the converter's codes every other block of 2, 4, 8... is missing.
    """
    found = ((axis, _axis_flaw(signal[:, axis], axis + 1)) for axis in range(signal.shape[1]))
    return {axis: flaw for axis, flaw in found if flaw}


def _axis_flaw(x: NDArray, number: int) -> str:
    finite = x[np.isfinite(x)]
    bad = len(x) - len(finite)
    lost = f"{bad} sample(s) of axis {number} are not numbers" if bad else ""
    if not len(finite):
        return lost
    low, high = finite.min(), finite.max()
    if low == high:
        return f"flat-lined (axis {number} is constant)" + (f", {lost}" if lost else "")
    if lost:
        return lost
    levels = len(np.unique(x))
    if levels < FEWEST_LEVELS:
        return f"no signal (axis {number} takes {levels} different values)"
    stuck = _in_runs(x == high) + _in_runs(x == low)
    if stuck >= CLIPPED_SHARE * len(x):
        return f"clipped (axis {number}: {stuck} samples at the end of the range)"
    held = _held(x)
    if held:
        return f"dropout (axis {number} does not move for {held} samples)"
    bit = _stuck_bit(x)
    return "" if bit is None else f"stuck bit (axis {number}: bit {bit} of the converter never changes)"


def _held(x: NDArray) -> int:
    """Samples in the longest stretch of one value, where that is a dropout; else 0."""
    ends = np.flatnonzero(np.r_[np.diff(x) != 0, True])
    lengths = np.diff(np.r_[-1, ends])
    longest = int(lengths.max())
    # A slow or coarse signal rests often, and about as long each time.
    usual = np.quantile(lengths, 0.99)
    return longest if longest >= max(HELD_SHARE * len(x), HELD_TIMES * usual) else 0


def _stuck_bit(x: NDArray) -> int | None:
    """The converter's bit that never changes, counted from the lowest that does; told where all values are whole
    steps of one size, from the second bit on."""
    values = np.unique(x.astype(np.float64))
    gaps = np.diff(values)
    # The smallest gap alone is as exact as float32, which is not enough for thousands of codes.
    step = (values[-1] - values[0]) / np.round(gaps / gaps.min()).sum()
    codes = (values - values[0]) / step
    if codes[-1] >= MOST_CODES or np.abs(codes - codes.round()).max() > 0.1:
        return None
    codes = codes.round().astype(np.int64)
    span = int(codes[-1]) + 1
    # Half of the codes are missing then, everywhere alike; a signal of two levels misses most.
    if not 0.25 * span <= len(codes) <= 0.6 * span:
        return None
    bit = 1
    while 8 * 2**bit <= span:
        seen = np.bincount(codes % (2 * 2**bit), minlength=2 * 2**bit) > 0
        # Where the codes begin is not known: half of the places in a ring, next to each other, may be taken.
        around = np.convolve(np.r_[seen, seen], np.ones(2**bit, dtype=np.int64), mode="valid")[: 2 * 2**bit]
        if int(around.max()) == int(seen.sum()):
            return bit
        bit += 1
    return None


def _in_runs(at: NDArray[np.bool_], shortest: int = 3) -> int:
    """How many True stand in runs of at least ``shortest``."""
    edges = np.flatnonzero(np.diff(np.r_[False, at, False]))
    lengths = edges[1::2] - edges[::2]
    return int(lengths[lengths >= shortest].sum())


@dataclass(frozen=True)
class Offset:
    """The mean of each axis of a well machine, which belongs to the sensor and its amplifier and not to the machine.

    Attributes:
        mean: (axes,) usual.
        alternating: (axes,) usual RMS without it.
        limit: (axes,) how far it may move, in shares of the RMS (that of the snapshot, if it is larger: short pieces of
            a strong vibration have strong means of their own).
    """

    mean: tuple[float, ...]
    alternating: tuple[float, ...]
    limit: tuple[float, ...]

    @classmethod
    def of(cls, snapshots_nsa: NDArray) -> "Offset":
        """Of snapshots of the normal period."""
        every = [_mean_and_rms(snapshot[None]) for snapshot in snapshots_nsa]  # they may lie in many files
        mean_na, alternating_na = (np.concatenate(one) for one in zip(*every, strict=True))
        alternating = np.maximum(alternating_na.mean(axis=0), 1e-12)
        limit = np.maximum(SHIFT, SHIFT_SPREADS * mean_na.std(axis=0) / alternating)
        return cls(tuple(mean_na.mean(axis=0).tolist()), tuple(alternating.tolist()), tuple(limit.tolist()))

    def flaw(self, signal_sa: NDArray) -> str:
        """Whether a snapshot's mean has moved, axis by axis; empty when none has."""
        return "; ".join(self.flaws(signal_sa).values())

    def flaws(self, signal_sa: NDArray, *, but: Collection[int] = ()) -> dict[int, str]:
        """Which axes' means have moved, ``but`` of those that are known to be broken."""
        found = {}
        for axis in (axis for axis in range(len(self.mean)) if axis not in but):
            mean, alternating = (float(each[0, 0]) for each in _mean_and_rms(signal_sa[None, :, axis : axis + 1]))
            moved = abs(mean - self.mean[axis]) / max(alternating, self.alternating[axis])
            if moved > self.limit[axis]:
                found[axis] = f"offset (the mean of axis {axis + 1} has moved by {moved:.2g} times its RMS)"
        return found


def _mean_and_rms(snapshots_nsa: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return snapshots_nsa.mean(axis=1, dtype=np.float64), snapshots_nsa.std(axis=1, dtype=np.float64)


class TrendHealth:
    """Judges indicator rows one after another; remembers how long each indicator has not moved, or was not there.

    Args:
        names: of the indicators.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._last = np.full(len(names), np.nan)
        self._still = np.zeros(len(names), dtype=np.int64)
        self._gone = np.zeros(len(names), dtype=np.int64)

    def memory(self) -> dict[str, list[float]]:
        """All that it remembers, as plain JSON."""
        return {"last": self._last.tolist(), "still": self._still.tolist(), "gone": self._gone.tolist()}

    def recall(self, memory: Mapping[str, list[float]]) -> None:
        """Goes on from :meth:`memory`."""
        self._last, self._still = np.array(memory["last"], dtype=np.float64), np.array(memory["still"], dtype=np.int64)
        self._gone = np.array(memory.get("gone", np.zeros(len(self.names))), dtype=np.int64)

    def flaw(self, row: NDArray) -> str:
        """What is wrong with a row (indicators,); empty when nothing."""
        bad, stuck = self.flaws(row)
        reasons = [f"not a number: {', '.join(self.names[i] for i in bad)}"] if bad else []
        still = ", ".join(self.names[i] for i in stuck)
        reasons += [f"flat-lined ({still} has not moved for {FLAT_ROWS} rows)"] if stuck else []
        return "; ".join(reasons)

    def flaws(self, row: NDArray) -> tuple[list[int], list[int]]:
        """Which indicators of a row (indicators,) are not there, and which do not move."""
        there = np.isfinite(row)
        # A cell that is missing says neither that an indicator moved nor that it did not.
        self._still = np.where(there, np.where(row == self._last, self._still + 1, 1), self._still)
        self._last = np.where(there, row, self._last)
        self._gone = np.where(there, 0, self._gone + 1)
        return np.flatnonzero(~there).tolist(), np.flatnonzero(self._still >= FLAT_ROWS).tolist()

    def lasting(self) -> dict[int, str]:
        """Which indicators are broken and not only missing here and there, and in which way."""
        gone = {int(i): "not a number" for i in np.flatnonzero(self._gone >= GONE_ROWS)}
        return gone | {int(i): "flat-lined" for i in np.flatnonzero(self._still >= FLAT_ROWS)}
