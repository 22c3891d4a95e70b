"""Whether recordings and monitors belong together; each failure says what was expected and what came."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from numpy.typing import NDArray

from unlabeled.core.errors import DataError
from unlabeled.sensors.recording import Recording

# What axes are called that nobody has named.
AXES = ("horizontal", "vertical", "axial")

if TYPE_CHECKING:
    from unlabeled.sensors.monitor import MachineMonitor


def alike(one: Recording, other: Recording) -> None:
    """Two machines can share an encoder."""
    if (
        one.kind != other.kind
        or one.values.shape[2:] != other.values.shape[2:]
        or (one.kind == "trend" and one.names != other.names)
    ):
        raise DataError(
            f"{one.asset} ({one.kind}: {', '.join(one.names)}) and {other.asset} ({other.kind}: "
            f"{', '.join(other.names)}) are not of one kind: pretrain on machines measured alike"
        )


def bearing(monitor: "MachineMonitor") -> None:
    """A shaft's speed is one, and what a bearing's rates follow from is known."""
    if monitor.shaft_hz is not None and not 0 < monitor.shaft_hz < float("inf"):
        raise DataError(f"a shaft's speed is a number of revolutions a second above 0, got {monitor.shaft_hz:g}")
    if monitor.bearing is not None and monitor.shaft_hz is None:
        raise DataError("the rates of a bearing follow from the shaft's speed: give --shaft-hz too")


def drift(monitor: "MachineMonitor") -> None:
    """What may drift is a number of spreads, over a number of snapshots."""
    if not monitor.drift >= 0 or monitor.drift_over < 1:
        raise DataError("drift is a number of spreads from 0 on, over 1 snapshot or more")


def grid(monitor: "MachineMonitor", pictures: NDArray) -> None:
    """The encoder was made for such pictures."""
    if pictures.shape[1:] != (monitor.channels_, *monitor.grid_):
        raise DataError(
            f"the encoder was pretrained on pictures of shape {(monitor.channels_, *monitor.grid_)} "
            f"(axes or channels, bands or indicators, columns), this machine gives {pictures.shape[1:]}: "
            "pretrain on machines measured alike"
        )


def ordered(monitor: "MachineMonitor", recording: Recording) -> Recording:
    """With its axes or indicators in the order that the monitor knows them in, where they are the same ones."""
    return in_order(recording, getattr(monitor, "names_", recording.names))


def in_order(recording: Recording, wanted: tuple[str, ...]) -> Recording:
    """With its axes or indicators in this order, where they are the same ones."""
    names = recording.names
    if names == wanted or len(set(names)) < len(names) or set(names) != set(wanted):
        return recording
    columns = [names.index(name) for name in wanted]
    return replace(recording, values=recording.values[..., columns], names=wanted)


def _another(names: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether several axes are called otherwise, and by names of their own: a file that names none has the usual."""
    return len(names) > 1 and set(names) != set(wanted) and not (_usual(names) or _usual(wanted))


def _usual(names: Sequence[str]) -> bool:
    return all(name in AXES or re.fullmatch(r"(axis )?\d+", name) is not None for name in names)


def fits(monitor: "MachineMonitor", recording: Recording) -> None:
    """The recording can be scored by this monitor."""
    if not hasattr(monitor, "threshold_"):
        raise DataError("this monitor is not fitted yet: call fit on the machine's normal period first")
    if (
        recording.kind != monitor.kind_
        or len(recording.names) != len(monitor.names_)
        or (monitor.kind_ == "trend" and recording.names != monitor.names_)
        or (monitor.kind_ == "waveform" and _another(recording.names, monitor.names_))
    ):
        raise DataError(
            f"fitted on {monitor.kind_} data ({', '.join(monitor.names_)}), {recording.asset} is {recording.kind} data "
            f"({', '.join(recording.names)}): score the machine that was fitted, or fit anew"
        )
    wanted = () if monitor.conditional_ is None else monitor.conditional_.regimes.names
    if recording.condition_names != wanted:
        raise DataError(
            f"fitted with {', '.join(wanted) or 'no'} operating conditions, {recording.asset} comes with "
            f"{', '.join(recording.condition_names) or 'none'}: name the same with --operating, or fit anew"
        )
    if recording.fs is not None and monitor.fs_ is not None and abs(recording.fs / monitor.fs_ - 1) > 1e-3:
        raise DataError(
            f"fitted at {monitor.fs_:g} Hz, {recording.asset} is sampled at {recording.fs:g} Hz: resample or fit anew"
        )
    if recording.unit and monitor.unit_ and recording.unit != monitor.unit_:
        raise DataError(
            f"fitted on values in {monitor.unit_}, those of {recording.asset} are in {recording.unit}: convert them or "
            "fit anew"
        )
    if monitor.samples_ is not None and recording.values.shape[1] != monitor.samples_:
        raise DataError(
            f"fitted on snapshots of {monitor.samples_} samples, {recording.asset} has {recording.values.shape[1]}: "
            "cut them alike or fit anew"
        )
