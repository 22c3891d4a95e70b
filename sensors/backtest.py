"""Replays a run to failure and counts: how early the alarm came, and how often it was wrong.

Times are measured back from the last running snapshot before the failure.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlabeled.core.errors import DataError
from unlabeled.sensors.alarms import HOURS_PER_MONTH, AlarmRule, episodes, latched, sustained
from unlabeled.sensors.baselines import ThreeSigma, applied
from unlabeled.sensors.monitor import MachineMonitor
from unlabeled.sensors.recording import NORMAL_SHARE, Recording


@dataclass(frozen=True, kw_only=True)
class Result:
    """One method on one run.

    Attributes:
        method, asset: whose.
        lead_h: from the start of the alarm that holds until the end (0 when there is none).
        early: that alarm began in the first half of the run.
        false_alarms: alarms that cleared again; on a machine that stayed well, all alarms.
        alarm_share: share of the monitored time, until the true alarm, spent in false alarm.
        latched_h: lead of the plain rule "from here every snapshot exceeds the threshold" (hindsight; nan if never).
        sustained_h: lead of the first of five exceedances in a row (nan if never).
        exceedances: stretches of exceedance before the latch (before the end without one).
        monitored_h: hours between the normal period and the end.
        failed: the run ended in a failure.
    """

    method: str
    asset: str
    lead_h: float
    early: bool
    false_alarms: int
    alarm_share: float
    latched_h: float
    sustained_h: float
    exceedances: int
    monitored_h: float
    failed: bool

    @property
    def false_per_month(self) -> float:
        """False alarms per 730.5 monitored hours."""
        return self.false_alarms / self.monitored_h * HOURS_PER_MONTH if self.monitored_h else float("nan")


@dataclass(frozen=True)
class Replay:
    """A run, scored, and everybody's results on it.

    Attributes:
        recording: the run.
        monitor: fitted on its normal period.
        table: the scores, one row a snapshot.
        baselines: the plain rules' values.
        results: ours first.
    """

    recording: Recording
    monitor: MachineMonitor
    table: pd.DataFrame
    baselines: list[ThreeSigma]
    results: list[Result]


def judge(
    method: str,
    recording: Recording,
    *,
    alarm: NDArray[np.bool_],
    exceeds: NDArray[np.bool_],
    normal_rows: int,
    failed: bool,
) -> Result:
    """Counts one method's alarms after the normal period.

    An alarm that was already on when the normal period ended counts from there.
    """
    end = recording.end_row()
    hours = recording.hours
    last = hours[end - 1]
    start_h = hours[min(normal_rows, end - 1)]
    found = [
        e._replace(start=e.start + normal_rows, stop=e.stop + normal_rows) for e in episodes(alarm[normal_rows:end])
    ]
    true = found[-1] if failed and found and found[-1].stop == end else None
    wrong = [e for e in found if e is not true]
    lead = last - hours[true.start] if true else 0.0
    spent = sum(hours[min(e.stop, end - 1)] - hours[e.start] for e in wrong)
    until = (hours[true.start] if true else last) - start_h
    after = exceeds[normal_rows:end]
    from_here, held = latched(after), sustained(after, rows=5)
    before = after if from_here is None else after[:from_here]
    return Result(
        method=method,
        asset=recording.asset,
        lead_h=float(lead),
        early=bool(true and hours[true.start] - hours[0] < (last - hours[0]) / 2),
        false_alarms=len(wrong),
        alarm_share=float(spent / until) if until > 0 else 0.0,
        latched_h=_lead(hours, last, from_here, normal_rows),
        sustained_h=_lead(hours, last, held, normal_rows),
        exceedances=len(episodes(before)),
        monitored_h=float(last - start_h),
        failed=failed,
    )


def backtest(
    monitor: MachineMonitor,
    recording: Recording,
    *,
    normal_share: float = NORMAL_SHARE,
    normal_until: float | None = None,
    failed: bool = True,
) -> Replay:
    """Fits on the normal period, replays the rest, and does the same with the baselines.

    Args:
        monitor: pretrained or fresh; fitted here.
        failed: whether the run ended in a failure. If not, every alarm is false.
    """
    rows = recording.normal_rows(share=normal_share, until=normal_until)
    end = recording.end_row()
    if end <= rows:
        raise DataError(f"{recording.asset}: nothing runs after the normal period's {rows} rows; declare a shorter one")
    monitor.prior_ = None  # what starts from it has no plain rules to be compared with
    monitor.fit(recording, normal_share=normal_share, normal_until=normal_until)
    table = monitor.score(recording)
    baselines = applied(monitor.plain_rules_, recording)
    results = [ours(recording, table, monitor.threshold_, normal_rows=rows, failed=failed)]
    results += [plain(recording, b, rule=monitor.rule, normal_rows=rows, failed=failed) for b in baselines]
    return Replay(recording, monitor, table, baselines, results)


def ours(
    recording: Recording, table: pd.DataFrame, threshold: float, *, normal_rows: int, failed: bool = True
) -> Result:
    """The monitor's result from its score table."""
    exceeds = (table["smoothed"] > threshold).to_numpy()
    alarm = table["alarm"].to_numpy(dtype=bool)
    return judge("ours", recording, alarm=alarm, exceeds=exceeds, normal_rows=normal_rows, failed=failed)


def plain(
    recording: Recording, baseline: ThreeSigma, *, rule: AlarmRule, normal_rows: int, failed: bool = True
) -> Result:
    """A baseline's result: its alarms under our rule, its latch and exceedances under the plain one."""
    return judge(
        f"{baseline.name} 3-sigma",
        recording,
        alarm=baseline.alarm(rule),
        exceeds=baseline.exceeds(),
        normal_rows=normal_rows,
        failed=failed,
    )


def with_failure(recording: Recording, hours: float) -> Recording:
    """The recording with the failure at ``hours`` after its first snapshot."""
    return replace(recording, failure_h=hours)


def _lead(hours: NDArray, last: float, row: int | None, offset: int) -> float:
    return float("nan") if row is None else float(last - hours[row + offset])
