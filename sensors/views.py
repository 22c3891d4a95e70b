"""What the monitor sees of each snapshot: a picture for the encoder and a row of physical indicators.

Shape suffixes: n snapshot, c channel, h row of the picture, w column, i indicator.
"""

import re
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlabeled.core import progress
from unlabeled.core.errors import DataError
from unlabeled.sensors import _checks, features, found_regimes
from unlabeled.sensors.health import Offset, TrendHealth, waveform_flaws
from unlabeled.sensors.level import level_column, overall_rms
from unlabeled.sensors.recording import Kind, Recording
from unlabeled.sensors.regimes import Conditional, Regimes

Floats = NDArray[np.float64]

PICTURE_CLIP, INDICATOR_CLIP = 10.0, 100.0
# Snapshots of a normal period that a scale can be taken from.
MIN_REFERENCE = 20


class Seen(NamedTuple):
    """One snapshot that can be judged.

    Attributes:
        picture: (C, H, W): axes, bands and time columns, or one channel with indicators and time steps.
        indicators: (I,).
        overall: level (:mod:`~unlabeled.sensors.level`), or ``None`` where a trend has none.
        level: (axes,) decibels that were taken out of a waveform's picture.
        gain: what its score is multiplied by, where it is of a regime that was learnt later.
        regime: number of the regime that it belongs to, where regimes were found.
        broken: which axes or indicators are broken in it, and how; what is seen of them says nothing, and of a waveform
            with such an axis the overall level neither.
    """

    picture: Floats
    indicators: Floats
    overall: float | None
    level: Floats | None = None
    gain: float = 1.0
    regime: int | None = None
    broken: Mapping[int, str] = MappingProxyType({})


class View:
    """Takes snapshots one after another and looks back only.

    A waveform is a picture of its own. A trend row is seen together with the rows before it that could be
    judged, ``window`` in all.

    Args:
        kind: waveforms or trend.
        names: axes or indicators.
        fs: sampling rate of waveforms.
        window: rows in the picture of a trend.
        normal: what is normal under which conditions, where that is known: it is taken out of what is seen.
        offset: where the zeros of a waveform's axes lie, where that is known.
        spared: axes or indicators without one of which a snapshot is seen all the same.
    """

    def __init__(
        self,
        kind: Kind,
        names: tuple[str, ...],
        fs: float | None,
        window: int,
        normal: Conditional | None = None,
        offset: Offset | None = None,
        spared: Collection[int] = (),
    ) -> None:
        self.kind, self.names, self.window = kind, names, window
        self.normal, self.offset, self.spared = normal, offset, frozenset(spared)
        self._health = TrendHealth(names)
        self._rows: deque[NDArray] = deque(maxlen=window)
        self._broken: deque[tuple[int, ...]] = deque(maxlen=window)  # of each of these rows
        self._column = level_column(names)
        self.indicator_names = names if fs is None else features.indicator_names(names, fs)

    def memory(self) -> dict[str, Any]:
        """What the next snapshot will be seen with, as plain JSON."""
        own = {"rows": [row.tolist() for row in self._rows], "health": self._health.memory()}
        return {**own, "broken": [list(which) for which in self._broken]} if any(self._broken) else own

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Goes on from :meth:`memory`."""
        self._rows = deque([np.array(row, dtype=np.float64) for row in memory["rows"]], maxlen=self.window)
        broken = memory.get("broken", [()] * len(self._rows))
        self._broken = deque([tuple(which) for which in broken], maxlen=self.window)
        self._health.recall(memory["health"])

    def push(
        self,
        values: NDArray,
        *,
        flaw: str = "",
        running: bool = True,
        conditions: Floats | None = None,
        without: int | None = None,
    ) -> Seen | str:
        """The snapshot as it is seen, or the reason why it cannot be judged (an
        :class:`~unlabeled.sensors.regimes.Unfamiliar` one in a new regime).

        Args:
            values: (samples, axes) or (indicators,).
            flaw: what is wrong with it already.
            running: whether the machine ran.
            conditions: (conditions,) under which it was taken.
            without: number among the known snapshots that this one is itself.
        """
        if flaw:
            return flaw
        if not running:
            return "the machine was not running"
        if self.kind == "waveform":
            broken = waveform_flaws(values)
            wrong: str = self._too_much(broken) or self._strange(conditions) or ""
            if not wrong and self.offset is not None:
                broken |= self.offset.flaws(values, but=broken)
                wrong = self._too_much(broken)
            return wrong or self._usual(waveform(values, broken), conditions, without)
        return self._trend(values.astype(np.float64), conditions, without)

    def _trend(self, row: NDArray, conditions: Floats | None, without: int | None) -> Seen | str:
        flaw, lasting = self._health.flaw(row), self._health.lasting()
        here = np.flatnonzero(~np.isfinite(row)).tolist()
        spared = bool(lasting) and set(here) <= set(lasting) and not self._too_much(lasting)
        strange = ("" if spared else flaw) or self._strange(conditions)
        if strange:
            return strange
        regime = None
        row = np.where(np.isfinite(row), row, 0.0)  # of what is broken, nothing of it is looked at
        if self.normal is not None:
            regime = self.normal.regime(row)
            row = self.normal.row(row, conditions, without=without)
        self._rows.append(row)
        self._broken.append(tuple(lasting))
        before = {i: f"broken within the last {self.window} rows" for which in self._broken for i in which}
        broken = {i: lasting.get(i, why) for i, why in before.items()}
        if len(self._rows) < self.window:
            return f"too early: a trend is judged from its {self.window}th row on"
        if len(broken) > 1:
            return "; ".join(f"{self.names[i]}: {why}" for i, why in broken.items())
        overall = None if self._column is None else float(row[self._column])
        picture = np.stack(self._rows, axis=1)[None]
        return Seen(picture, row, overall, gain=self._gain(conditions), regime=regime, broken=broken)

    def _too_much(self, broken: Mapping[int, str]) -> str:
        """What is wrong, where a snapshot cannot be seen without these axes or indicators."""
        return "" if len(broken) < 2 and self.spared.issuperset(broken) else "; ".join(broken.values())

    def _strange(self, conditions: Floats | None) -> str | None:
        return None if self.normal is None else self.normal.strange(conditions)

    def _usual(self, seen: Seen, conditions: Floats | None, without: int | None) -> Seen:
        if self.normal is None:
            return seen
        return self.normal.snapshot(seen, conditions, without=without)._replace(gain=self._gain(conditions))

    def _gain(self, conditions: Floats | None) -> float:
        return 1.0 if self.normal is None else self.normal.gain(conditions)


def waveform(values_sa: NDArray, broken: Mapping[int, str] = MappingProxyType({})) -> Seen:
    """A waveform as it is seen, of which at least one axis is sound."""
    if not broken:
        shape, level = features.shape_and_level(features.picture(values_sa))
        return Seen(shape, features.indicators(values_sa, shape), overall_rms(values_sa), level)
    sound = next(axis for axis in range(values_sa.shape[1]) if axis not in broken)
    standing_in = values_sa.copy()
    standing_in[:, list(broken)] = values_sa[:, [sound]]
    return waveform(standing_in)._replace(broken=broken)


class Look(NamedTuple):
    """Some rows of a recording, seen.

    Attributes:
        pictures: (n, C, H, W) of the rows that can be judged.
        indicators: (n, I).
        overall: (n,) levels, or ``None`` where a trend has none.
        rows: (n,) their row numbers.
    """

    pictures: Floats
    indicators: Floats
    overall: Floats | None
    rows: NDArray[np.int64]


def look(
    recording: Recording,
    *,
    rows: int,
    window: int,
    normal: Conditional | None = None,
    known: NDArray[np.int64] | None = None,
) -> Look:
    """Sees the first ``rows`` rows of a recording; where ``normal`` was made of some of them, ``known`` are these, in
    order, and none is compared with itself."""
    view = View(recording.kind, recording.names, recording.fs, window, normal)
    number_of = {} if known is None else {int(row): number for number, row in enumerate(known)}
    seen: list[Seen] = []
    at = []
    for i in range(rows):
        one = view.push(
            recording.values[i], flaw=str(recording.flaws[i]), running=bool(recording.running[i]),
            conditions=recording.conditions_at(i), without=number_of.get(i),
        )  # fmt: skip
        if isinstance(one, Seen):
            seen.append(one)
            at.append(i)
    if not seen:
        return Look(np.empty((0, 1, 1, 1)), np.empty((0, 1)), None, np.empty(0, dtype=np.int64))
    levels = [s.overall for s in seen if s.overall is not None]
    overall = np.array(levels) if levels else None
    return Look(np.stack([s.picture for s in seen]), np.stack([s.indicators for s in seen]), overall, np.array(at))


def conditional(
    recording: Recording, raw: Look, *, until: int, find: bool = False
) -> tuple[Conditional, NDArray[np.int64]] | None:
    """What is normal under which conditions by those rows of a look before row ``until`` of which these are known, and
    the rows; ``None`` where the recording says nothing of conditions and, if regimes are to be found, there is one.

    Raises:
        DataError: too few such rows, or regimes are to be found although conditions say them.
    """
    if find and recording.conditions is not None:
        raise DataError(
            f"{recording.asset} comes with {', '.join(recording.condition_names)}, which say how it is run: regimes "
            "are found only where nothing does; leave out --find-regimes or --operating"
        )
    chosen = raw.rows < until
    if recording.conditions is not None:
        chosen &= np.isfinite(recording.conditions[raw.rows]).all(axis=1)
    elif not find or not chosen.any():
        return None
    rows, waveforms = raw.rows[chosen], recording.kind == "waveform"
    indicators = raw.indicators[chosen]
    pictures = raw.pictures[chosen].mean(axis=-1) if waveforms else None
    overall = raw.overall[chosen] if waveforms and raw.overall is not None else None
    regimes: Regimes | found_regimes.FoundRegimes | None
    if recording.conditions is not None:
        regimes = Regimes.of(recording.conditions[rows], recording.condition_names)
    else:
        regimes = found_regimes.find(found_regimes.described(pictures, indicators, overall))
    return None if regimes is None else (Conditional(regimes, indicators, pictures, overall), rows)


def look_under_conditions(
    recording: Recording, *, rows: int, window: int, share: float = 1.0, find: bool = False
) -> tuple[Look, Conditional | None, int]:
    """As :func:`look`, with what conditions do taken out where a recording tells of them, or, with ``find``, what
    regimes do that are found in the same share of the rows.

    Returns:
        What is seen; what is normal under which conditions, by the first ``share`` of the rows that can be judged; and
        how many of what is seen belong to that share.
    """
    raw = look(recording, rows=rows, window=window)
    cut = int(len(raw.rows) * share)
    until = int(raw.rows[cut]) if cut < len(raw.rows) else rows
    found = conditional(recording, raw, until=until, find=find)
    if found is None:
        return raw, None, cut
    normal, known = found
    seen = look(recording, rows=rows, window=window, normal=normal, known=known)
    return seen, normal, int((seen.rows < until).sum())


class Scaling:
    """Constants from the normal period: mean and spread of each row of the picture and of each indicator. A spread has
    a floor, so that a constant does not turn rounding into an alarm.

    Args:
        picture_mean, picture_scale: (C, H, 1).
        indicator_mean, indicator_scale: (I,).
    """

    def __init__(
        self, picture_mean: Floats, picture_scale: Floats, indicator_mean: Floats, indicator_scale: Floats
    ) -> None:
        self.picture_mean, self.picture_scale = picture_mean, picture_scale
        self.indicator_mean, self.indicator_scale = indicator_mean, indicator_scale

    @classmethod
    def of(cls, pictures_nchw: Floats, indicators_ni: Floats) -> "Scaling":
        """From normal snapshots."""
        mean = pictures_nchw.mean(axis=(0, 3))[..., None]
        spread = pictures_nchw.std(axis=(0, 3))[..., None]
        middle, width = indicators_ni.mean(axis=0), indicators_ni.std(axis=0, ddof=1)
        return cls.with_floors(mean, spread, middle, width)

    @classmethod
    def with_floors(cls, mean: Floats, spread: Floats, middle: Floats, width: Floats) -> "Scaling":
        """From means and spreads of the picture and of the indicators."""
        return cls(mean, _floored(spread, mean), middle, _floored(width, middle))

    def picture(self, picture: Floats) -> NDArray[np.float32]:
        """In spreads from the mean, clipped; any leading dimensions."""
        z = (picture - self.picture_mean) / self.picture_scale
        return np.clip(z, -PICTURE_CLIP, PICTURE_CLIP).astype(np.float32)

    def indicators(self, indicators: Floats) -> Floats:
        """In spreads from the mean, clipped."""
        z = (indicators - self.indicator_mean) / self.indicator_scale
        return np.clip(z, -INDICATOR_CLIP, INDICATOR_CLIP)


def normal_pictures(
    fleet: Sequence[Recording], normal: Sequence[int], *, window: int, find: bool = False
) -> tuple[NDArray[np.float32], list[str]]:
    """The pictures of normal periods, each scaled by its own, and the machines that gave some.

    Args:
        fleet: recordings of one kind.
        normal: how many rows the normal period of each has.
        window: rows of a trend that are seen together.
        find: take out what regimes do that are found in each.

    Raises:
        DataError: nothing that can be judged, or machines of different kinds.
    """
    if not fleet:
        raise DataError("pretraining needs at least one recording")
    pictures, used, why = [], [], Counter[str]()
    for recording, rows in zip(fleet, normal, strict=True):
        _checks.alike(recording, fleet[0])
        seen, known, _ = look_under_conditions(recording, rows=rows, window=window, find=find)
        if len(seen.rows) < MIN_REFERENCE:
            progress.say(f"{recording.asset} is left out of the pretraining: {len(seen.rows)} snapshots to learn from")
            why += refusals(recording, rows=rows, window=window, normal=known)
            continue
        used.append(recording.asset)
        pictures.append(Scaling.of(seen.pictures, seen.indicators).picture(seen.pictures))
    if not pictures:
        raise DataError(
            f"no recording has {MIN_REFERENCE} snapshots in its normal period that can be judged{in_words(why)}: "
            f"{advice(why)}give longer recordings, or a larger --normal-share"
        )
    return np.concatenate(pictures), used


def refusals(recording: Recording, *, rows: int, window: int, normal: Conditional | None = None) -> Counter[str]:
    """How many of the first ``rows`` snapshots cannot be judged for each reason; reasons that differ in numbers alone
    count together, under the first of them."""
    view = View(recording.kind, recording.names, recording.fs, window, normal)
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for i in range(rows):
        why = view.push(
            recording.values[i], flaw=str(recording.flaws[i]), running=bool(recording.running[i]),
            conditions=recording.conditions_at(i),
        )  # fmt: skip
        if isinstance(why, str):
            counts[first.setdefault(re.sub(r"\d+", "0", why), str(why))] += 1
    return counts


def in_words(refused: Mapping[str, int], most: int = 3) -> str:
    """The commonest reasons with their counts in brackets, for an error; nothing where there are none."""
    common = Counter(refused).most_common(most)
    return f" ({'; '.join(f'{count} x {why}' for why, count in common)})" if common else ""


def advice(refused: Mapping[str, int]) -> str:
    """What to do about indicators that do not move or are not there, where these keep snapshots from being judged."""
    if not any(why.startswith(("flat-lined", "not a number")) for why in refused):
        return ""
    return (
        "leave a column that never moves or is empty out of the table, or name it with --operating if it says how the "
        "machine is run; else "
    )


def departure(z: Floats, kind: Kind) -> Floats:
    """Root mean square of the indicators' distances from normal over the last dimension.

    Only rises count in waveforms (faults add energy and impulses, running-in takes some away); in a trend, whose
    indicators may mean anything, falls count as well.
    """
    counted = np.maximum(z, 0.0) if kind == "waveform" else z
    return np.sqrt(np.mean(np.square(counted), axis=-1))


def _floored(spread: Floats, mean: Floats) -> Floats:
    return np.maximum(spread, 1e-6 * np.maximum(1.0, np.abs(mean)))
