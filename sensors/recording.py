"""What every reader hands back: one machine's snapshots in order of time, waveforms or indicator trends."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlabeled.core.errors import DataError
from unlabeled.sensors._parted import Parted

Kind = Literal["waveform", "trend"]
NORMAL_SHARE = 0.25


class Skip(NamedTuple):
    """A row of the input that could not be placed in time, and why."""

    row: int
    time: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One machine (or one bearing), snapshot after snapshot.

    Attributes:
        asset: its name.
        values: waveforms (n, samples, axes) or indicators (n, indicators), float32; waveforms of a record that lies in
            many files are read as they are asked for (:mod:`~unlabeled.sensors._parted`).
        names: of the axes or the indicators.
        hours: (n,) since the first snapshot, strictly increasing.
        fs: sampling rate in Hz; ``None`` for a trend.
        unit: of the values (``g``, ``m/s2``, ``mm/s``...) where the file says one for all of them, else empty.
        clock: (n,) date and time of each snapshot where the file has them.
        conditions: (n, conditions) how the machine was run at each snapshot (speed, load...), NaN where that is not
            known; ``None`` where nothing is said of it.
        condition_names: of them.
        running: (n,) whether the machine ran.
        flaws: (n,) what the reader found wrong with a snapshot; empty when nothing.
        skipped: rows left out altogether.
        notes: what the user should know about how the file was read.
        source: path of the file.
        failure_h: when it failed, on the scale of ``hours``, where the file says so.
    """

    asset: str
    values: NDArray[np.float32]
    names: tuple[str, ...]
    hours: NDArray[np.float64]
    fs: float | None = None
    unit: str = ""
    clock: NDArray[np.datetime64] | None = None
    conditions: NDArray[np.float64] | None = None
    condition_names: tuple[str, ...] = ()
    running: NDArray[np.bool_]
    flaws: NDArray[np.str_]
    skipped: tuple[Skip, ...] = ()
    notes: tuple[str, ...] = ()
    source: str = ""
    failure_h: float | None = None
    index: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def __post_init__(self) -> None:
        if not len(self.index):
            object.__setattr__(self, "index", np.arange(len(self.values)))

    @property
    def kind(self) -> Kind:
        return "trend" if self.fs is None else "waveform"

    def __len__(self) -> int:
        return len(self.values)

    def conditions_at(self, row: int) -> NDArray[np.float64] | None:
        """(conditions,) of one snapshot, if anything is said of them."""
        return None if self.conditions is None else self.conditions[row]

    def rows(self, which: slice | NDArray) -> "Recording":
        """The snapshots ``which``, in order; times still count from the first snapshot of the whole."""
        clock = None if self.clock is None else self.clock[which]
        conditions = None if self.conditions is None else self.conditions[which]
        parts = {name: getattr(self, name)[which] for name in ("hours", "running", "flaws", "index")}
        values = self.values.select(which) if isinstance(self.values, Parted) else self.values[which]
        return replace(self, values=values, clock=clock, conditions=conditions, **parts)

    def since(self, moment: str) -> "Recording":
        """What came from a date (or so many hours after the first snapshot) on; times count from there, so that it has
        a normal period of its own: after a repair a machine is another one.

        Raises:
            DataError: no such date, or nothing came after it.
        """
        kept = self.rows(self.hours >= self.hours_at(moment))
        if not len(kept):
            raise DataError(f"{self.asset}: nothing was recorded after {moment}")
        began = float(kept.hours[0])
        failed = None if self.failure_h is None or self.failure_h < began else self.failure_h - began
        return replace(kept, hours=kept.hours - began, failure_h=failed)

    def normal_rows(self, *, share: float = NORMAL_SHARE, until: float | None = None) -> int:
        """How many rows the declared normal period has: the first ``share`` of them, or those up to ``until`` hours.

        Raises:
            DataError: a share outside (0, 1].
        """
        if until is not None:
            return int(np.searchsorted(self.hours, until, side="right"))
        if not 0 < share <= 1:
            raise DataError(f"the normal share must be greater than 0 and at most 1, got {share:g}")
        return int(len(self) * share)

    def hours_at(self, moment: str) -> float:
        """``2014-02-08 14:30``, or a number of hours after the first snapshot, in hours after the first snapshot.

        Raises:
            DataError: neither, or a date where the file has none.
        """
        try:
            return float(moment)
        except ValueError:
            pass
        date = pd.to_datetime(moment, errors="coerce")
        if pd.isna(date):
            raise DataError(f"{moment!r} is neither a number of hours nor a date such as '2014-02-08 14:30'")
        if self.clock is None:
            raise DataError(f"{self.asset} has no dates, only seconds: give hours after its first snapshot")
        return float((np.datetime64(date) - self.clock[0]) / np.timedelta64(1, "s")) / 3600

    def end_row(self) -> int:
        """One past the last running snapshot before the failure."""
        alive = self.running if self.failure_h is None else self.running & (self.hours <= self.failure_h)
        found = np.flatnonzero(alive)
        return int(found[-1]) + 1 if len(found) else 0

    def when(self, row: int) -> str:
        """Time of a row as the user knows it."""
        if self.clock is not None:
            return str(self.clock[row].astype("datetime64[s]")).replace("T", " ")
        return f"{self.hours[row]:.3f} h"


def joined(parts: Sequence[Recording]) -> Recording:
    """One machine's files as one recording, in order of time; of snapshots of one moment the first given counts.

    Raises:
        DataError: several files without dates, or of different machines, axes, rates or lengths.
    """
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    for one in parts:
        why = _unlike(first, one)
        if why:
            raise DataError(why)
    clock = np.concatenate([one.clock for one in parts if one.clock is not None]).astype("datetime64[ns]")
    every = len(clock)
    clock, order = np.unique(clock, return_index=True)
    twice = [f"{every - len(clock)} row(s) left out: of a moment that another file has"] if len(clock) < every else []
    conditions = [one.conditions for one in parts if one.conditions is not None]
    return replace(
        first,
        clock=clock,
        hours=(clock - clock[0]) / np.timedelta64(1, "s") / 3600,
        conditions=np.concatenate(conditions)[order] if conditions else None,
        skipped=tuple(skip for one in parts for skip in one.skipped),
        notes=tuple(dict.fromkeys([*(note for one in parts for note in one.notes), *twice])),
        source=", ".join(dict.fromkeys(one.source for one in parts)),
        failure_h=_failure(parts, clock[0]),
        index=np.arange(len(clock)),
        values=_joined([one.values for one in parts], order),
        running=np.concatenate([one.running for one in parts])[order],
        flaws=np.concatenate([one.flaws for one in parts])[order],
    )


def alike(parts: Sequence[Recording]) -> tuple[list[Recording], list[tuple[str, str]]]:
    """Those that :func:`joined` would take beside the earliest with dates, and the others' files with the reason."""
    dated = [one for one in parts if one.clock is not None]
    if len(parts) < 2 or not dated:
        return list(parts), []
    first = min(dated, key=lambda one: np.datetime64(one.clock[0], "ns") if one.clock is not None else 0)
    whys = [(one, _unlike(first, one)) for one in parts]
    return [one for one, why in whys if not why], [(Path(one.source).name, why) for one, why in whys if why]


def _unlike(first: Recording, one: Recording) -> str:
    """Why it cannot be a part of the record that the first is a part of."""
    if one.clock is None:
        return f"{one.source or one.asset} has no dates, without which files cannot be put in order"
    wrong = [name for name in ("asset", "names", "fs", "unit", "condition_names")
             if getattr(one, name) != getattr(first, name)]  # fmt: skip
    wrong += ["samples"] if one.values.shape[1:] != first.values.shape[1:] and not wrong else []
    said = "; ".join(f"{name.replace('_', ' ')} {_shown(first, name)} and {_shown(one, name)}" for name in wrong)
    return f"{first.source} and {one.source} are not alike: {said}" if wrong else ""


def _failure(parts: Sequence[Recording], begin: np.datetime64) -> float | None:
    """Hours after the beginning of the whole, where the parts that tell of a failure agree.

    Raises:
        DataError: they do not.
    """
    told = {
        (one.source, float((one.clock[0].astype("datetime64[ns]") - begin) / np.timedelta64(1, "s")) / 3600 + failure)
        for one in parts
        if one.clock is not None and (failure := one.failure_h) is not None
    }
    hours = [moment for _, moment in told]
    if hours and max(hours) - min(hours) > 1 / 3600:
        raise DataError(f"{', '.join(sorted(source for source, _ in told))} tell of failures at different times")
    return hours[0] if hours else None


def _joined(parts: Sequence[Any], order: NDArray[np.int64]) -> Any:
    if all(isinstance(one, Parted) for one in parts):
        return Parted.joined(parts).select(order)
    return np.concatenate(parts)[order]


def _shown(recording: Recording, name: str) -> object:
    return recording.values.shape[1:] if name == "samples" else getattr(recording, name)


def make(
    asset: str,
    values: NDArray,
    hours: NDArray,
    *,
    names: Sequence[str],
    fs: float | None = None,
    failure_h: float | None = None,
    conditions: NDArray | None = None,
    condition_names: Sequence[str] = (),
) -> Recording:
    """A recording from arrays that are known to be in order (simulations, tests, one's own code)."""
    n = len(values)
    return Recording(
        asset=asset,
        values=np.asarray(values, dtype=np.float32),
        names=tuple(names),
        hours=np.asarray(hours, dtype=float),
        fs=fs,
        conditions=None if conditions is None else np.asarray(conditions, dtype=float).reshape(n, -1),
        condition_names=tuple(condition_names),
        running=np.ones(n, dtype=bool),
        flaws=np.full(n, "", dtype="<U120"),
        failure_h=failure_h,
    )
