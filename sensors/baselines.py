"""What any engineer would try first: one indicator, mean plus three standard deviations of the normal period."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlabeled.sensors import features
from unlabeled.sensors.alarms import AlarmRule, alarm_states
from unlabeled.sensors.health import TrendHealth, waveform_flaw
from unlabeled.sensors.recording import Recording

SIGMAS = 3.0


@dataclass(frozen=True, kw_only=True)
class ThreeSigma:
    """Distance of one indicator from its normal mean in standard deviations (n - 1), over time.

    Attributes:
        name: of the indicator.
        z: (n,) one-sided or absolute distance; nan where the snapshot cannot be judged.
        values: (n,) the indicator itself.
        mean, scale: of the normal period.
    """

    name: str
    z: NDArray[np.float64]
    values: NDArray[np.float64]
    mean: float
    scale: float

    def exceeds(self) -> NDArray[np.bool_]:
        """Rows above mean + 3 standard deviations (or outside, when two-sided)."""
        return np.nan_to_num(self.z) > SIGMAS

    def alarm(self, rule: AlarmRule) -> NDArray[np.bool_]:
        """Alarm states under the same smoothing, persistence and hysteresis as the monitor's."""
        return alarm_states(self.z, SIGMAS, rule)[1]


def indicator_table(recording: Recording) -> pd.DataFrame:
    """RMS and excess kurtosis of every axis, or a trend's own indicators, one row a snapshot.

    Snapshots that cannot be judged are nan.
    """
    if recording.kind == "trend":
        health = TrendHealth(recording.names)
        bad = [bool(health.flaw(row)) for row in recording.values.astype(np.float64)]
        table = pd.DataFrame(recording.values.astype(np.float64), columns=list(recording.names))
    else:
        bad = [bool(waveform_flaw(x)) for x in recording.values]
        with np.errstate(invalid="ignore", divide="ignore"):
            level = np.stack([features.rms(x) for x in recording.values])
            impulse = np.stack([features.excess_kurtosis(x) for x in recording.values])
        columns = {f"{axis} RMS": level[:, i] for i, axis in enumerate(recording.names)}
        columns |= {f"{axis} kurtosis": impulse[:, i] for i, axis in enumerate(recording.names)}
        table = pd.DataFrame(columns)
    table.loc[np.array(bad) | (recording.flaws != "") | ~recording.running] = np.nan
    return table


def three_sigma(
    values: NDArray, *, name: str, normal_rows: int, two_sided: bool = False, median_of: int = 1
) -> ThreeSigma:
    """Fits and applies the rule to one indicator.

    Args:
        values: (n,).
        normal_rows: how many rows, from the first, are the normal period; all of them set mean and spread.
        two_sided: a fall counts as a rise does.
        median_of: causal median filter before everything else.
    """
    x = np.asarray(values, dtype=np.float64)
    if median_of > 1:
        x = pd.Series(x).rolling(median_of, min_periods=1).median().to_numpy()
    normal = x[:normal_rows]
    mean, scale = float(np.nanmean(normal)), float(np.nanstd(normal, ddof=1))
    z = (x - mean) / max(scale, 1e-12)
    return ThreeSigma(name=name, z=np.abs(z) if two_sided else z, values=x, mean=mean, scale=scale)


def usual_baselines(recording: Recording, *, normal_rows: int) -> list[ThreeSigma]:
    """RMS and kurtosis of every axis for waveforms; every indicator of a trend.

    Indicators whose name says that they cannot but rise with a fault (RMS, kurtosis, peak...) are one-sided, all
    others (temperatures, unknown quantities) two-sided.
    """
    table = indicator_table(recording)
    return [
        three_sigma(table[name].to_numpy(), name=str(name), normal_rows=normal_rows, two_sided=not _rises(str(name)))
        for name in table.columns
        if np.isfinite(table[name].to_numpy()[:normal_rows]).sum() > 1
    ]


def _rises(name: str) -> bool:
    words = ("rms", "kurt", "peak", "crest", "std", "max", "p2p", "abs", "velocity", "acceleration")
    return any(word in name.lower() for word in words)
