"""What any engineer would try first: one indicator, mean plus three standard deviations of the normal period."""

from collections.abc import Sequence
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
class Rule:
    """Mean and spread (n - 1) of one indicator over the normal period; ``two_sided``: a fall counts as a rise does."""

    name: str
    mean: float
    scale: float
    two_sided: bool

    def apply(self, values: NDArray) -> "ThreeSigma":
        """The rule on values (n,) of the same indicator, from the same period or a later one."""
        x = np.asarray(values, dtype=np.float64)
        z = (x - self.mean) / max(self.scale, 1e-12)
        return ThreeSigma(rule=self, z=np.abs(z) if self.two_sided else z, values=x)


@dataclass(frozen=True, kw_only=True)
class ThreeSigma:
    """Distance of one indicator from its normal mean in standard deviations (n - 1), over time.

    Attributes:
        rule: what is normal.
        z: (n,) one-sided or absolute distance; nan where the snapshot cannot be judged.
        values: (n,) the indicator itself.
    """

    rule: Rule
    z: NDArray[np.float64]
    values: NDArray[np.float64]

    @property
    def name(self) -> str:
        """The indicator's."""
        return self.rule.name

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
    return _rule(x[:normal_rows], name=name, two_sided=two_sided).apply(x)


def usual_rules(recording: Recording, *, normal_rows: int) -> list[Rule]:
    """RMS and kurtosis of every axis for waveforms; every indicator of a trend.

    Indicators whose name says that they cannot but rise with a fault (RMS, kurtosis, peak...) are one-sided, all
    others (temperatures, unknown quantities) two-sided.
    """
    table = indicator_table(recording.rows(slice(0, normal_rows)))
    return [
        _rule(table[name].to_numpy(), name=str(name), two_sided=not rises(str(name)))
        for name in table.columns
        if np.isfinite(table[name].to_numpy()).sum() > 1
    ]


def applied(rules: Sequence[Rule], recording: Recording) -> list[ThreeSigma]:
    """The rules on a recording of the same machine."""
    table = indicator_table(recording)
    return [rule.apply(table[rule.name].to_numpy()) for rule in rules]


def _rule(normal: NDArray, *, name: str, two_sided: bool) -> Rule:
    mean, scale = float(np.nanmean(normal)), float(np.nanstd(normal, ddof=1))
    return Rule(name=name, mean=mean, scale=scale, two_sided=two_sided)


def rises(name: str) -> bool:
    """Whether an indicator's name says that it cannot but rise with a fault."""
    words = ("rms", "kurt", "peak", "crest", "std", "max", "p2p", "abs", "velocity", "acceleration")
    return any(word in name.lower() for word in words)
