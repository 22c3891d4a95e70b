"""Scores over time against stretches in which something was wrong, without a reward for how a stretch is cut.

Point-adjusted measures, which count a whole stretch as found for one lucky row, are left out: random scores do well by
them (Kim et al., "Towards a Rigorous Evaluation of Time-series Anomaly Detection", AAAI 2022).

Shape suffixes: n row in time, k threshold, w width of the buffer around a stretch.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlabeled.core.errors import DataError
from unlabeled.sensors.alarms import Episode, episodes

# As the authors of the volume take them, among the sorted scores; every score where there are fewer.
THRESHOLDS = 250

Floats = NDArray[np.float64]


class Volume(NamedTuple):
    """Areas under curves, averaged over buffers of 0 to a largest width around each stretch; 1 is best.

    Attributes:
        pr: of precision over recall (VUS-PR).
        roc: of recall over the false-positive rate (VUS-ROC).
    """

    pr: float
    roc: float


class Events(NamedTuple):
    """What alarms were worth, stretch by stretch.

    Attributes:
        caught, missed: stretches in which something was wrong that an alarm met, or that none did.
        false: alarms that met no such stretch.
        delays: rows from the start of each caught stretch to the first alarm in it (0: it was on already).
    """

    caught: int
    missed: int
    false: int
    delays: tuple[int, ...]

    @property
    def recall(self) -> float:
        """Share of the stretches that were caught; nan where there were none."""
        whole = self.caught + self.missed
        return self.caught / whole if whole else float("nan")

    @property
    def precision(self) -> float:
        """Caught stretches among those and false alarms: several alarms in one stretch are one catch; nan where there
        was neither."""
        whole = self.caught + self.false
        return self.caught / whole if whole else float("nan")


def events(truth: ArrayLike, alarm: ArrayLike) -> Events:
    """Counts stretches, not rows (Hundman et al., KDD 2018, section 4.2, without their pruning).

    Args:
        truth: (N,) whether something was wrong.
        alarm: (N,) whether an alarm was on.

    Raises:
        DataError: different lengths.
    """
    wrong, on = np.asarray(truth, dtype=bool), np.asarray(alarm, dtype=bool)
    _check_same_length(wrong, on)
    real, raised = episodes(wrong), episodes(on)
    met = [stretch for stretch in real if on[stretch.start : stretch.stop].any()]
    delays = tuple(int(on[stretch.start : stretch.stop].argmax()) for stretch in met)
    false = sum(not wrong[one.start : one.stop].any() for one in raised)
    return Events(len(met), len(real) - len(met), false, delays)


def volume(truth: ArrayLike, score: ArrayLike, *, buffer: int) -> Volume:
    """VUS-PR and VUS-ROC: areas under range-aware curves, averaged over the width of a soft edge around each stretch.

    A row at a distance of ``d`` from a stretch counts ``sqrt(1 - d / w)`` within ``w // 2`` rows of it, where it is
    flagged; recall is multiplied by the share of the stretches that were met at all (Paparrizos et al., "Volume Under
    the Surface: A New Accuracy Evaluation Measure for Time-Series Anomaly Detection", VLDB 2022; as RangeAUC_volume_opt
    of the TSB-AD benchmark computes it (github.com/TheDatumOrg/TSB-AD), whose numbers these can stand beside).

    Args:
        truth: (N,) whether something was wrong.
        score: (N,) the higher the more suspicious.
        buffer: largest width, in rows: about as long as what the score looks back on.

    Raises:
        DataError: different lengths, no stretch, nothing but one, a score that is not finite, or a negative width.
    """
    wrong, values = np.asarray(truth, dtype=bool), np.asarray(score, dtype=float)
    _check_same_length(wrong, values)
    real = episodes(wrong)
    if not real or wrong.all():
        raise DataError("a curve needs rows in which something was wrong and rows in which nothing was")
    if not np.isfinite(values).all():
        raise DataError("a score that is not finite ranks nowhere: leave out the rows that could not be judged")
    if buffer < 0:
        raise DataError(f"the buffer is a number of rows, 0 or more, got {buffer}")
    order = np.argsort(-values, kind="stable")
    places = np.linspace(0, len(values) - 1, min(THRESHOLDS, len(values))).astype(int)
    threshold_k = values[order][places]
    flags_k = np.searchsorted(-values[order], -threshold_k, side="right")
    areas = []
    for width in range(buffer + 1):
        soft_n = _softened(wrong, real, width)
        hit_k, true_k = (np.cumsum(x[order])[flags_k - 1] for x in (soft_n, wrong.astype(float)))
        highest = [values[start:stop].max() for start, stop in _joined(real, width, len(wrong))]
        met_k = (np.array(highest)[:, None] >= threshold_k).mean(axis=0)
        # What is flagged of the soft edges had to be found by half.
        positives_k = wrong.sum() + (hit_k - true_k) / 2
        recall_k = np.minimum(hit_k / positives_k, 1) * met_k
        false_k = (flags_k - hit_k) / (len(wrong) - positives_k)
        areas.append(_areas(recall_k, hit_k / flags_k, false_k))
    return Volume(*(float(x) for x in np.mean(areas, axis=0)))


def _areas(recall_k: Floats, precision_k: Floats, false_k: Floats) -> tuple[float, float]:
    """Under precision over recall, in steps, and under recall over the false-positive rate, in trapezoids."""
    up, across = np.r_[0.0, recall_k, 1.0], np.r_[0.0, false_k, 1.0]
    pr = np.sum(np.diff(up[:-1]) * precision_k)
    roc = np.sum(np.diff(across) * (up[1:] + up[:-1]) / 2)
    return float(pr), float(roc)


def _softened(wrong: NDArray[np.bool_], real: list[Episode], width: int) -> NDArray[np.float64]:
    """1 within the stretches, falling over ``width // 2`` rows on both sides; where edges meet they add up, to 1."""
    soft = wrong.astype(float)
    for start, stop in real:
        after = np.arange(stop, min(stop + width // 2, len(wrong)))
        before = np.arange(max(start - width // 2, 0), start)
        soft[after] += np.sqrt(1 - (after - stop + 1) / max(width, 1))
        soft[before] += np.sqrt(1 - (start - before) / max(width, 1))
    return np.minimum(soft, 1)


def _joined(real: list[Episode], width: int, n: int) -> list[Episode]:
    """Stretches with their buffers; those whose buffers overlap are one."""
    half = width // 2
    found: list[Episode] = []
    for start, stop in real:
        first, end = max(start - half, 0), min(stop + half, n)
        if found and first < found[-1].stop:
            found[-1] = Episode(found[-1].start, end)
        else:
            found.append(Episode(first, end))
    return found


def _check_same_length(truth: NDArray[np.bool_], other: NDArray[np.generic]) -> None:
    if truth.ndim != 1 or truth.shape != other.shape:
        raise DataError(f"truth and score or alarm are of one length, got shapes {truth.shape} and {other.shape}")
