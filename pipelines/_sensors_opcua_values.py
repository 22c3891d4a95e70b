"""Values of an OPC UA server's variables, joined to readings of machines.

A machine of indicators has a reading when one of them has changed: the latest value of each, dated by the latest
source timestamp among those that changed. A machine of waveforms has one when each of its axes has. Both wait for half
a publishing interval, in which what changed together comes together, and until every node of the machine has told its
value once. What is not Good to the server cannot be judged.
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
    """

    def __init__(self, asset: str, nodes: Sequence[OpcuaNode], *, settle: float, every: float) -> None:
        self.asset, self.nodes, self.settle, self.every = asset, nodes, settle, every
        self._not_before = 0.0
        self._samples = 0
        self.forget()

    def forget(self) -> None:
        """After a break every node has to tell its value anew."""
        self._latest: dict[OpcuaNode, Value] = {}
        self._changed: set[OpcuaNode] = set()
        self._since = 0.0

    def take(self, node: OpcuaNode, value: Value, moment: float) -> None:
        """A value that came at a ``moment`` of the monotonic clock."""
        self._latest[node] = value
        if node.indicator is None and node.axis is None:
            return
        if not self._changed:
            self._since = moment
        self._changed.add(node)
        if isinstance(value.value, list | tuple) and not value.flaw:
            self._samples = len(value.value)

    def reading(self, moment: float) -> Message | None:
        """The one that is due, if one is."""
        early = moment < max(self._since + self.settle, self._not_before)
        if early or not self._changed or len(self._latest) < len(self.nodes):
            return None
        if not self._changed >= {node for node in self.nodes if node.axis is not None}:
            return None
        at = max(self._latest[node].at for node in self._changed)
        made = partial(_recording, self.asset, dict(self._latest), self.nodes, at=at, samples=self._samples)
        self._changed, self._not_before = set(), moment + self.every
        return Message("opcua", self.asset, made)


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
        return np.full(samples, np.nan)
    try:
        found = np.asarray(value.value, dtype=np.float64)
    except (TypeError, ValueError):
        found = np.empty(0)
    if found.ndim != 1 or not len(found):
        raise DataError(f"{node.node} ({_name(node)}) is no array of numbers")
    return found


def time_of(*stamps: datetime | None) -> np.datetime64:
    """The first of them that says a time (OPC UA's clock begins in 1601), or else now."""
    for stamp in stamps:
        if stamp is not None and 1970 <= stamp.year < 2262:
            return np.datetime64(stamp if stamp.tzinfo is None else stamp.astimezone(UTC).replace(tzinfo=None), "ns")
    return np.datetime64(datetime.now(UTC).replace(tzinfo=None), "ns")
