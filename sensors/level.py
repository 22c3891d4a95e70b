"""The overall level that every plant watches already: no alarm comes later than by mean + 3 sigma of it.

Of a waveform it is the root mean square over all axes together (the vector sum that ISO 20816-1 speaks of); of a trend
the indicator that is named as such, or the only one there is. Whatever else the score is made of grows more careful
where a normal period is unsteady; this part keeps it from missing what a plain rule hears, at the price of that rule's
false alarms: where a budget of false alarms is stated it has no say. (First alarms, from as many readings on as the
rule smooths over, an odd number, and with the threshold as it was fitted.)
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unlabeled.sensors.baselines import SIGMAS, rises

LEVEL = "level"  # the part's name
_NAMES = ({"rms"}, {"overall"}, {"vibration", "velocity"})


@dataclass(frozen=True, kw_only=True)
class Level:
    """What is normal of it.

    Attributes:
        mean, scale: over the normal period (n - 1).
        two_sided: a fall counts as a rise does (an indicator of which nobody says that it only rises with a fault).
        weight: times a distance in spreads it is on the scale of the fused score, on which both have one threshold.
    """

    mean: float
    scale: float
    two_sided: bool
    weight: float

    @classmethod
    def of(cls, overall_n: NDArray[np.float64], *, names: Sequence[str], waveform: bool, threshold: float) -> "Level":
        """From the normal period; three spreads are as far as the fused score's ``threshold``."""
        column = level_column(names)
        two_sided = not waveform and column is not None and not rises(names[column])
        mean, scale = float(overall_n.mean()), float(overall_n.std(ddof=1))
        floored = max(scale, 1e-6 * abs(mean), 1e-300)
        return cls(mean=mean, scale=floored, two_sided=two_sided, weight=max(threshold, 0.0) / SIGMAS)

    def spreads(self, overall: float) -> float:
        """Distance from normal."""
        z = (overall - self.mean) / self.scale
        return abs(z) if self.two_sided else z

    def beyond(self, spreads: float) -> float:
        """On the scale of the fused score; nothing up to three spreads, where the other parts say what is usual."""
        return self.weight * spreads if spreads > SIGMAS else -np.inf


def overall_rms(signal_sa: NDArray) -> float:
    """Of all axes together, in the signal's unit."""
    return float(np.sqrt(np.square(np.asarray(signal_sa, dtype=np.float64)).mean(axis=0).sum()))


def level_column(names: Sequence[str]) -> int | None:
    """Which indicator of a trend is its overall level: the first that says so, or the only one."""
    if len(names) == 1:
        return 0
    words = [set(re.split(r"[^a-z]+", name.lower())) - {""} for name in names]
    said = (i for i, found in enumerate(words) if found == {"velocity"} or any(one <= found for one in _NAMES))
    return next(said, None)
