"""A fitted monitor at work, snapshot by snapshot."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from unlabeled.sensors.alarms import AlarmRule, AlarmState
from unlabeled.sensors.drift import Drift, InSpreads
from unlabeled.sensors.level import LEVEL, Level
from unlabeled.sensors.recording import Recording
from unlabeled.sensors.regimes import NEW_REGIME, Unfamiliar
from unlabeled.sensors.spares import overall_without, told, without
from unlabeled.sensors.views import Seen, departure

if TYPE_CHECKING:
    from unlabeled.sensors.monitor import MachineMonitor


NewRegime = Literal["report", "alarm"]
CANNOT_JUDGE = "cannot judge"
# States of a snapshot of which no score says anything.
UNJUDGED = (CANNOT_JUDGE, NEW_REGIME)
# What a new regime counts as, in thresholds, where it is to count: an alarm, and no danger.
AS_FAR = 1.5


class Stream:
    """A fitted monitor at work: remembers what smoothing, persistence and trend windows need, nothing else.

    Args:
        monitor: who judges.
        rule, threshold: of the alarm, where they are to be others than the monitor's.
        new_regime: whether a snapshot of a new regime is only reported, or counts as one far from normal.
    """

    def __init__(
        self,
        monitor: "MachineMonitor",
        *,
        rule: AlarmRule | None = None,
        threshold: float | None = None,
        new_regime: NewRegime = "report",
    ) -> None:
        self.monitor, self.new_regime = monitor, new_regime
        self.threshold = monitor.threshold_ if threshold is None else threshold
        self._view = monitor.view()
        self._alarm = AlarmState(rule or monitor.rule, self.threshold)
        self._drift = Drift(limit=monitor.drift, over=monitor.drift_over) if monitor.drift else None
        # What was heard while something was broken, and what that was.
        self._others, self._broken = AlarmState(self._alarm.rule, self.threshold), list[int]()

    @property
    def on(self) -> bool:
        """Whether the alarm is on."""
        return self._alarm.on

    def begin_in_alarm(self) -> "Stream":
        """Begins with the alarm on, which then ends as any other: when the scores have been calm for long enough."""
        self._alarm.on = True
        return self

    def memory(self) -> dict[str, Any]:
        """All that it remembers, as plain JSON: a new stream that recalls it goes on as this one would."""
        own: dict[str, Any] = {"view": self._view.memory(), "alarm": self._alarm.memory()}
        if self._broken:
            own |= {"broken": self._broken, "others": self._others.memory()}
        return own if self._drift is None else {**own, "drift": self._drift.memory()}

    def recall(self, memory: Mapping[str, Any]) -> "Stream":
        """Goes on from :meth:`memory`."""
        self._view.recall(memory["view"])
        self._alarm.recall(memory["alarm"])
        self._broken = list(memory.get("broken", ()))
        if self._broken:
            self._others.recall(memory["others"])
        if self._drift is not None:
            self._drift.recall(memory.get("drift", {}))
        return self

    def push_row(self, recording: Recording, row: int, *, flaw: str = "") -> dict[str, Any]:
        """Judges a row of a recording, with a further ``flaw`` if there is one."""
        return self.push(
            recording.values[row], flaw=flaw or str(recording.flaws[row]), running=bool(recording.running[row]),
            conditions=recording.conditions_at(row),
        )  # fmt: skip

    def push(
        self, values: NDArray, *, flaw: str = "", running: bool = True, conditions: NDArray | None = None
    ) -> dict[str, Any]:
        """Judges the next snapshot (samples, axes) or row (indicators,), taken under ``conditions`` (conditions,)."""
        monitor = self.monitor
        seen = self._view.push(values, flaw=flaw, running=running, conditions=conditions)
        if isinstance(seen, str):
            return self._unjudged(seen)
        scaling = monitor.scaling_
        found = InSpreads(scaling.picture(seen.picture), scaling.indicators(seen.indicators), self._level(seen))
        steady = found if self._drift is None else self._drift.without(found)
        overall = self._overall(seen, found.level - steady.level)
        spare = monitor.spare_of(seen)
        if spare is not None:
            picture, indicators = without(steady.picture, steady.indicators, seen.broken, kind=monitor.kind_)
            steady = InSpreads(picture, indicators, 0.0)
            overall = overall_without(values, seen.broken) if monitor.kind_ == "waveform" else overall
        embedding, error = monitor.see(steady.picture)
        outside = float(departure(steady.indicators, monitor.kind_))
        parts = monitor.parts(embedding, error, outside, overall, gain=seen.gain, spare=spare)
        score = fused(parts, monitor.level_ if spare is None else spare.level)
        if seen.broken:
            return self._by_the_others(seen, score, parts)
        smoothed, on = self._alarm.push(score)
        judged = {"state": "alarm" if on else "normal", "alarm": on, "score": score, "smoothed": smoothed, **parts}
        if self._drift is not None:
            if not on and smoothed <= self.threshold:
                self._drift.follow(found)
            judged["drift"] = self._drift.used
        return {**judged, "reason": "", **({} if seen.regime is None else {"regime": seen.regime})}

    def _by_the_others(self, seen: Seen, score: float, parts: Mapping[str, float]) -> dict[str, Any]:
        """An alarm, if those that are not broken say so often enough by themselves, which only whole snapshots end;
        else nothing: what the broken one would say is not known."""
        broken = sorted(seen.broken)
        if broken != self._broken:
            self._broken, self._others = broken, AlarmState(self._alarm.rule, self.threshold)
        smoothed, on = self._others.push(score)
        why = told(seen.broken, self.monitor.names_)
        self._alarm.on = self._alarm.on or on
        if not on or smoothed <= self.threshold:
            return self._unjudged(why)
        return {"state": "alarm", "alarm": True, "score": score, "smoothed": smoothed, **parts, "reason": why}

    def _level(self, seen: Seen) -> float:
        """Spreads from the normal mean; 0 where no level is looked at."""
        level = self.monitor.level_
        return 0.0 if level is None or seen.overall is None else (seen.overall - level.mean) / level.scale

    def _overall(self, seen: Seen, drifted: float) -> float | None:
        level = self.monitor.level_
        return seen.overall if level is None or seen.overall is None else seen.overall - drifted * level.scale

    def _unjudged(self, why: str) -> dict[str, Any]:
        nothing = dict.fromkeys(("score", "smoothed", *self.monitor.part_names), float("nan"))
        if self._drift is not None:
            nothing["drift"] = self._drift.used
        if not isinstance(why, Unfamiliar):
            return {"state": CANNOT_JUDGE, "alarm": self._alarm.on, **nothing, "reason": why}
        if self.new_regime == "alarm":
            nothing["smoothed"], _ = self._alarm.push(AS_FAR * self.threshold)
        return {"state": "alarm" if self._alarm.on else NEW_REGIME, "alarm": self._alarm.on, **nothing,
                "reason": str(why)}  # fmt: skip


def fused(parts: Mapping[str, float], level: Level | None) -> float:
    """The score: the mean of its parts; where the overall level is beyond its own threshold, that if it is farther."""
    own = [value for name, value in parts.items() if name != LEVEL]
    mean = sum(own) / len(own)
    return mean if level is None else max(mean, level.beyond(parts[LEVEL]))
