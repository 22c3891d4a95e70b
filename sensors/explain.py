"""Why a score is high: its parts, and what rose or fell against the normal period, in numbers and in words."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlabeled.core.errors import DataError
from unlabeled.sensors import bearings, features, harmonics
from unlabeled.sensors.level import LEVEL
from unlabeled.sensors.recording import Recording
from unlabeled.sensors.remaining import Remaining
from unlabeled.sensors.severity import Severity
from unlabeled.sensors.spares import overall_without, told, without
from unlabeled.sensors.views import Seen, departure

if TYPE_CHECKING:
    from unlabeled.sensors.monitor import MachineMonitor

PART_WORDS = {
    "mahalanobis": "its picture as a whole lies off the normal cloud",
    "nearest": "no normal snapshot looks like it",
    "reconstruction": "its parts no longer fit together as they used to",
    "indicators": "physical indicators left their normal range",
    LEVEL: "the overall level left its normal range",
}


@dataclass(frozen=True)
class Explanation:
    """What is away from normal over some snapshots.

    Attributes:
        parts: parts of the fused score (medians), largest first.
        changes: one row an indicator, largest contribution first: value now, normal mean, distance in normal
            spreads, and share of the indicators' part of the score.
        spectrum: (axes, bands) level now in decibels; ``None`` for a trend.
        normal_spectrum: (axes, bands) in the normal period.
        words: a few plain sentences.
        repeats: axis by axis, what stands at the rates of the bearing; empty where that or the speed is not known.
        shaft: what the lines of the shaft did; ``None`` where its speed, or what is normal at it, is not known.
        remaining: hours until the level danger, or why they are not said; ``None`` without an alarm.
        severity: axis by axis, by ISO 20816-3; empty where no class of machine was asked about.
    """

    parts: dict[str, float]
    changes: pd.DataFrame
    spectrum: NDArray[np.float64] | None
    normal_spectrum: NDArray[np.float64] | None
    words: tuple[str, ...]
    repeats: tuple[bearings.Repeats, ...] = ()
    shaft: harmonics.Comparison | None = None
    severity: tuple[Severity, ...] = ()
    remaining: Remaining | None = None


_DRIFT = "All of this is from the normal period on: what drifts slowly is taken out of scores, and not here."


def explain(monitor: "MachineMonitor", recording: Recording, *, last: int) -> Explanation:
    """Explains the last ``last`` snapshots of a recording that can be judged.

    Raises:
        DataError: none of its snapshots can be judged.
    """
    view = monitor.view()
    start = max(0, len(recording) - last - (0 if monitor.kind_ == "waveform" else monitor.window + 50))
    seen: list[Seen] = []
    rows: list[int] = []
    for i in range(start, len(recording)):
        one = view.push(
            recording.values[i], flaw=str(recording.flaws[i]), running=bool(recording.running[i]),
            conditions=recording.conditions_at(i),
        )  # fmt: skip
        if isinstance(one, Seen):
            seen.append(one)
            rows.append(i)
    if not seen:
        raise DataError(f"{recording.asset}: none of the snapshots to explain can be judged")
    # Snapshots that were seen alike: those before an axis broke tell of another machine's worth of sensors.
    broken = seen[-1].broken
    alike = [i for i, one in enumerate(seen) if set(one.broken) == set(broken)][-last:]
    seen, rows = [seen[i] for i in alike], [rows[i] for i in alike]
    spare = monitor.spare_of(seen[-1])
    every: list[dict[str, float]] = []
    for one in seen:
        picture, z = monitor.scaling_.picture(one.picture), monitor.scaling_.indicators(one.indicators)
        overall = one.overall
        if spare is not None:
            picture, z = without(picture, z, broken, kind=monitor.kind_)
            if monitor.kind_ == "waveform":
                overall = overall_without(recording.values[rows[len(every)]], broken)
        embedding, error = monitor.see(picture)
        outside = float(departure(z, monitor.kind_))
        every.append(monitor.parts(embedding, error, outside, overall, gain=one.gain, spare=spare))
    parts = {name: float(np.median([p[name] for p in every])) for name in every[0]}
    parts = dict(sorted(parts.items(), key=lambda item: -item[1]))
    now = np.median([one.indicators for one in seen], axis=0)
    changes = _changes(monitor, now, view.indicator_names, broken)
    spectrum = normal = None
    if monitor.kind_ == "waveform":
        spectrum = np.median([one.picture.mean(axis=2) for one in seen], axis=0)
        normal = monitor.scaling_.picture_mean[:, :, 0]
        spectrum[list(broken)] = normal[list(broken)]
    repeats: tuple[bearings.Repeats, ...] = ()
    if monitor.kind_ == "waveform" and monitor.bearing is not None and monitor.shaft_hz is not None:
        heard = _heard(recording.rows(np.array(rows)), broken)
        repeats = bearings.repeats(heard, monitor.bearing, monitor.shaft_hz)
    shaft, of_shaft = None, list[str]()
    if recording.fs is not None and monitor.shaft_hz is not None and not broken:
        shaft, of_shaft = harmonics.told(
            monitor.harmonics_, recording.values[rows], names=monitor.names_, fs=recording.fs,
            shaft_hz=monitor.shaft_hz,
        )  # fmt: skip
    drifting = () if not monitor.drift else (_DRIFT,)
    words = (
        *_without(broken, monitor),
        *_words(parts, changes),
        *drifting,
        *_loudest(monitor, spectrum, normal),
        *of_shaft,
        *bearings.words(repeats),
    )
    return Explanation(parts, changes, spectrum, normal, words, repeats, shaft)


def _without(broken: Mapping[int, str], monitor: "MachineMonitor") -> list[str]:
    shaft = " Lines of the shaft are not looked at then." if monitor.harmonics_ is not None else ""
    return [f"Judged {told(broken, monitor.names_)}.{shaft}"] if broken else []


def _heard(recording: Recording, broken: Collection[int]) -> Recording:
    """Without the broken axes."""
    sound = [axis for axis in range(len(recording.names)) if axis not in broken]
    names = tuple(recording.names[axis] for axis in sound)
    return replace(recording, values=recording.values[..., sound], names=names) if broken else recording


def _changes(
    monitor: "MachineMonitor", now: NDArray[np.float64], names: tuple[str, ...], broken: Collection[int]
) -> pd.DataFrame:
    """Of axes that are not broken."""
    z = monitor.scaling_.indicators(now)
    counted = np.maximum(z, 0) if monitor.kind_ == "waveform" else z
    share = np.square(counted) / max(float(np.square(counted).sum()), 1e-12)
    table = pd.DataFrame(
        {"indicator": names, "now": now, "normal": monitor.scaling_.indicator_mean, "z": z, "share": share}
    )
    kept = np.ones((len(monitor.names_), len(table) // len(monitor.names_)), dtype=bool)
    kept[list(broken)] = False
    return table[kept.reshape(-1)].sort_values("share", ascending=False, kind="stable").reset_index(drop=True)


def _words(parts: dict[str, float], changes: pd.DataFrame, most: int = 4) -> list[str]:
    leading = [
        f"{PART_WORDS.get(name, f'{name} finds it unusual')} ({value:.1f} usual spreads)"
        for name, value in parts.items()
        if value > 2
    ]
    words = ["The score: " + "; ".join(leading) + "."] if leading else ["No part of the score is unusual."]
    moved = changes[(changes["z"].abs() > 2) & (changes["share"] > 0)].head(most)
    columns = (moved[name].tolist() for name in ("indicator", "normal", "now", "z"))
    for name, normal, now, z in zip(*columns, strict=True):
        direction = "rose" if z > 0 else "fell"
        words.append(f"{name} {direction} from {normal:.3g} to {now:.3g} ({z:+.1f} normal spreads).")
    if not len(moved):
        words.append("No single indicator left its normal range.")
    return words


def _loudest(
    monitor: "MachineMonitor", spectrum: NDArray[np.float64] | None, normal: NDArray[np.float64] | None
) -> list[str]:
    """Where in the spectrum most was added."""
    if spectrum is None or normal is None or monitor.fs_ is None:
        return []
    rise = spectrum - normal
    axis, band = np.unravel_index(int(np.argmax(rise)), rise.shape)
    if rise[axis, band] < 3:
        return []
    width = monitor.fs_ / 2 / features.BANDS / 1000
    return [
        f"Most was added around {band * width:.2f}-{(band + 1) * width:.2f} kHz on the {monitor.names_[axis]} axis "
        f"({rise[axis, band]:+.1f} dB)."
    ]
