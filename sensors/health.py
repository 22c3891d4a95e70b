"""Can a snapshot be judged at all? If not it is neither an alarm nor an all-clear, and the reason is kept."""

import numpy as np
from numpy.typing import NDArray

CLIPPED_SHARE = 0.005
FEWEST_LEVELS = 16
FLAT_ROWS = 24


def waveform_flaw(signal: NDArray) -> str:
    """What is wrong with one snapshot (samples, axes); empty when nothing.

    Clipped means that half a percent of the samples or more sit, three or more in a row, at the very highest or
    lowest value.
    """
    bad = int((~np.isfinite(signal)).sum())
    if bad:
        return f"{bad} sample(s) are not numbers"
    for axis in range(signal.shape[1]):
        x = signal[:, axis]
        low, high = x.min(), x.max()
        if low == high:
            return f"flat-lined (axis {axis + 1} is constant)"
        levels = len(np.unique(x))
        if levels < FEWEST_LEVELS:
            return f"no signal (axis {axis + 1} takes {levels} different values)"
        stuck = _in_runs(x == high) + _in_runs(x == low)
        if stuck >= CLIPPED_SHARE * len(x):
            return f"clipped (axis {axis + 1}: {stuck} samples at the end of the range)"
    return ""


def _in_runs(at: NDArray[np.bool_], shortest: int = 3) -> int:
    """How many True stand in runs of at least ``shortest``."""
    edges = np.flatnonzero(np.diff(np.r_[False, at, False]))
    lengths = edges[1::2] - edges[::2]
    return int(lengths[lengths >= shortest].sum())


class TrendHealth:
    """Judges indicator rows one after another; remembers how long each indicator has not moved.

    Args:
        names: of the indicators.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._last = np.full(len(names), np.nan)
        self._still = np.zeros(len(names), dtype=np.int64)

    def flaw(self, row: NDArray) -> str:
        """What is wrong with a row (indicators,); empty when nothing."""
        bad = [name for name, value in zip(self.names, row, strict=True) if not np.isfinite(value)]
        if bad:
            return f"not a number: {', '.join(bad)}"
        self._still = np.where(row == self._last, self._still + 1, 1)
        self._last = np.array(row)
        stuck = [name for name, count in zip(self.names, self._still, strict=True) if count >= FLAT_ROWS]
        return f"flat-lined ({', '.join(stuck)} has not moved for {FLAT_ROWS} rows)" if stuck else ""
