"""Values of an OPC UA server's variables, joined to readings of machines.

A machine of indicators has a reading when one of them has changed: the latest value of each, dated by the latest source
timestamp of all of them. Where that is no later than the reading before, because the clock of the device that changed
is behind another's, it is dated as much later as time has passed since. A machine of waveforms has a reading when each
of its axes has changed and their source timestamps are of one moment; an axis that is older than the others is dropped,
and waited for. Both wait for half a publishing interval, in which what changed together comes together, and until every
node of the machine has told its value once.

What is not Good to the server cannot be judged, and stays so until it is told anew. Nor can a node that has told
nothing for so long that it is no longer waited for.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from unlabeled.core.errors import DataError
from unlabeled.pipelines._sensors_source import Message
from unlabeled.pipelines._sensors_source_settings import OpcuaNode
from unlabeled.sensors.recording import Recording

SECOND = np.timedelta64(10**9, "ns")
AHEAD = np.timedelta64(1, "h")


class Value(NamedTuple):
    """What a variable was told to be; ``flaw`` is its status where that is not Good."""

    value: Any
    at: np.datetime64
    flaw: str = ""


class Joined:
    """What is known of one machine.

    Args:
        asset: the machine.
        nodes: all of it.
        settle: seconds in which values that belong together come together.
        every: seconds from a reading to the next, at least.
        together: seconds by which the dates of axes of one moment differ at most.
        patience: seconds after which a node that has told nothing is no longer waited for.
        last: date of the last reading that was kept before.
        ahead: dates later than so far from now are wrong, and no later reading follows them.
    """

    def __init__(
        self,
        asset: str,
        nodes: Sequence[OpcuaNode],
        *,
        settle: float,
        every: float,
        together: float = 1.0,
        patience: float = 60.0,
        last: np.datetime64 | None = None,
        ahead: np.timedelta64 = AHEAD,
    ) -> None:
        self.asset, self.nodes, self.settle, self.every = asset, nodes, settle, every
        self.together, self.patience, self.ahead = _span(together), patience, ahead
        self._axes = [node for node in nodes if node.axis is not None]
        self._measured = [node for node in nodes if node.axis is not None or node.indicator is not None]
        self._not_before = 0.0
        self._samples = 0
        # The date of the last reading, when that was (of the monotonic clock), and what its indicators were.
        self._given, self._given_at, self._shown = last, float("nan"), dict[OpcuaNode, Value]()
        self.forget()

    def forget(self) -> None:
        """After a break every node has to tell its value anew."""
        self._latest: dict[OpcuaNode, Value] = {}
        self._changed: set[OpcuaNode] = set()
        self._since = 0.0
        self._heard: float | None = None

    def take(self, node: OpcuaNode, value: Value, moment: float) -> None:
        """A value that came at a ``moment`` of the monotonic clock."""
        if node.axis is not None and not value.flaw:
            value = value._replace(value=_compact(value.value))
            if isinstance(value.value, np.ndarray):
                self._samples = len(value.value)
        self._latest[node] = value
        self._heard = moment if self._heard is None else self._heard
        # What stands still after a break, down to its date, is told anew and nothing new.
        if node in self._measured and (node.axis is not None or self._shown.get(node) != value):
            self._change(node, moment)

    def _change(self, node: OpcuaNode, moment: float) -> None:
        if not self._changed:
            self._since = moment
        self._changed.add(node)

    def given_up(self, moment: float) -> list[OpcuaNode]:
        """Those that are no longer waited for from now on: readings are made without them, and cannot be judged."""
        if self._heard is None:
            return []
        allowed, found = max(self._heard, self._not_before) + self.patience, []
        for node in self.nodes if moment >= allowed else ():
            if node not in self._latest:
                newest = max(value.at for value in self._latest.values())
                self._latest[node] = Value(None, newest, f"silent ({node.node}: nothing for {self.patience:g} s)")
                found.append(node)
                if node in self._measured:
                    self._change(node, moment)
        come = [self._latest[node].at for node in self._axes if node in self._changed]
        if come and moment >= max(self._since, self._not_before) + self.patience:
            for node in self._axes:
                value = self._latest[node]
                if node not in self._changed and not value.flaw:
                    older = float((max(come) - value.at) / SECOND)
                    why = f"{older:g} s older than the others ({node.node})" if older > 0 else f"silent ({node.node})"
                    self._latest[node] = Value(None, value.at, why)
                    found.append(node)
        return found

    def reading(self, moment: float) -> Message | None:
        """The one that is due, if one is."""
        early = moment < max(self._since + self.settle, self._not_before)
        if early or not self._changed or len(self._latest) < len(self.nodes):
            return None
        if self._axes and not self._of_one_moment():
            return None
        self._changed, at = set(), self._date(moment)
        self._shown = {node: self._latest[node] for node in self._measured if node.indicator is not None}
        if at is None:
            return None
        self._not_before = moment + self.every
        latest = dict(self._latest)
        made = partial(_recording, self.asset, latest, self.nodes, at=at, samples=self._samples)
        arrays = [value.value for value in latest.values() if isinstance(value.value, np.ndarray)]
        size = sum(array.nbytes for array in arrays)
        return Message("opcua", self.asset, made, asset=partial(str, self.asset), size=size)

    def _of_one_moment(self) -> bool:
        """Whether all axes that are Good have come and belong together; forgets that those have that do not."""
        good = [node for node in self._axes if not self._latest[node].flaw]
        if not self._changed.issuperset(good):
            return False
        if good:
            newest = max(self._latest[node].at for node in good)
            self._changed -= {node for node in good if newest - self._latest[node].at > self.together}
        return self._changed.issuperset(good)

    def _date(self, moment: float) -> np.datetime64 | None:
        """Of a reading; none where it is what stood when the job was away, and no later than what was kept then."""
        good = [node for node in self._axes if not self._latest[node].flaw]
        at = max(self._latest[node].at for node in good or self._measured)
        if self._axes:
            return at
        if self._given is not None and at <= self._given:
            if np.isnan(self._given_at):
                self._given_at = moment
                return None
            at = self._given + max(_span(moment - self._given_at), np.timedelta64(1, "ns"))
        if at <= time_of() + self.ahead:
            self._given, self._given_at = at, moment
        return at


def _recording(
    asset: str, latest: Mapping[OpcuaNode, Value], nodes: Sequence[OpcuaNode], *, at: np.datetime64, samples: int
) -> Recording:
    """One reading.

    Raises:
        DataError: a value is of another kind than its node was said to be.
    """
    measured = [node for node in nodes if node.indicator or node.axis]
    conditions = [node for node in nodes if node.operating]
    if measured[0].axis:
        columns = [_waveform(node, latest[node], samples) for node in measured]
        if len({len(column) for column in columns}) > 1:
            lengths = ", ".join(f"{node.axis} {len(column)}" for node, column in zip(measured, columns, strict=True))
            raise DataError(f"the axes are of different lengths ({lengths})")
        values = np.stack(columns, axis=1)
    else:
        values = np.array([_number(node, latest[node]) for node in measured])
    flaws = [f"{_name(node)} is {latest[node].flaw}" for node in nodes if latest[node].flaw]
    return Recording(
        asset=asset,
        values=values[None].astype(np.float32),
        names=tuple(str(node.indicator or node.axis) for node in measured),
        hours=np.zeros(1),
        fs=measured[0].fs,
        clock=np.array([at]),
        conditions=np.array([[_number(node, latest[node]) for node in conditions]]) if conditions else None,
        condition_names=tuple(str(node.operating) for node in conditions),
        running=np.array([all(_number(node, latest[node]) != 0 for node in nodes if node.running)]),
        flaws=np.array([", ".join(flaws)], dtype="<U120"),
    )


def _name(node: OpcuaNode) -> str:
    return node.indicator or node.axis or node.operating or "running"


def _number(node: OpcuaNode, value: Value) -> float:
    if value.flaw or value.value is None:
        return float("nan")
    if not isinstance(value.value, int | float):
        raise DataError(f"{node.node} ({_name(node)}) is no number but of type {type(value.value).__name__}")
    return float(value.value)


def _waveform(node: OpcuaNode, value: Value, samples: int) -> np.ndarray:
    if value.flaw:
        if not samples:
            raise DataError(f"{node.node} ({_name(node)}) is {value.flaw}, and has not been Good before")
        return np.full(samples, np.nan, dtype=np.float32)
    try:
        found: np.ndarray = np.asarray(value.value, dtype=np.float32)
    except (TypeError, ValueError, OverflowError):
        found = np.empty(0)
    if found.ndim != 1 or not len(found):
        raise DataError(f"{node.node} ({_name(node)}) is no array of numbers")
    return found


def _compact(value: Any) -> Any:
    """An array as it is judged, which takes an eighth of a list's room; anything else as it is, to be told later."""
    if not isinstance(value, list | tuple):
        return value
    try:
        with np.errstate(over="ignore"):
            found = np.array(value, dtype=np.float32)
    except (TypeError, ValueError, OverflowError):
        return value
    return found if found.ndim == 1 else value


def _span(seconds: float) -> np.timedelta64:
    return np.timedelta64(round(seconds * 1e9), "ns")


def time_of(*stamps: datetime | None) -> np.datetime64:
    """The first of them that says a time (OPC UA's clock begins in 1601), or else now."""
    for stamp in stamps:
        if stamp is not None and 1970 <= stamp.year < 2262:
            return np.datetime64(stamp if stamp.tzinfo is None else stamp.astimezone(UTC).replace(tzinfo=None), "ns")
    return np.datetime64(datetime.now(UTC).replace(tzinfo=None), "ns")
