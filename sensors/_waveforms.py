"""Waveform snapshots from arrays and Parquet tables.

How a machine's snapshots are sampled, and how long they are, is what the first of them says, in order of time, that is
long enough for a spectrum; whatever differs from it is marked. So no snapshot that is added to a file changes what was
said of earlier ones.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlabeled.core.errors import DataError
from unlabeled.sensors import _clock, units
from unlabeled.sensors.recording import Recording

SIGNALS = ("acc", "x", "signal", "vibration", "waveform")
ENDS = ("de", "fe", "ba")  # drive end, fan end, base plate: usual names of single sensors
PIECE_SECONDS = 0.1
LEAST = 512  # samples a snapshot that make a spectrum


def read_arrays(
    path: Path,
    content: dict[str, NDArray],
    *,
    fs: float | None,
    every: float | None,
    signal: Sequence[str] = (),
    operating: Sequence[str] = (),
    dates: _clock.Dates | None = None,
) -> list[Recording]:
    """One machine from the arrays of a file (:func:`~unlabeled.sensors._formats.arrays`)."""
    values, names = _signal(content, path, signal)
    continuous = values.ndim == 1 or (
        values.ndim == 2 and (values.shape[1] < LEAST <= len(values) or (_is_ends(names) and not signal))
    )
    rates = _rates(content.get("fs"), fs, count=1 if continuous else len(values), source=str(path))
    notes: tuple[str, ...] = ()
    if continuous:
        values, times = _cut(values, float(rates[0]))
        rates = np.full(len(values), rates[0])
        notes = (f"one continuous record, cut into {len(values)} snapshots of {values.shape[1] / rates[0]:g} s",)
        if "start" in content:
            times = _start(content["start"], path) + (times * 1e9).round().astype("timedelta64[ns]")
    else:
        if values.ndim == 2:
            values = values[:, :, None]
        times = _times(content, len(values), every, path)
    if "axes" in content and not signal:
        names = tuple(str(name) for name in np.atleast_1d(content["axes"]))
    if len(names) != values.shape[2]:
        names = _axis_names(values.shape[2])
    failure = content.get("failure_t_s")
    return [
        _recording(
            path.stem,
            values,
            rates,
            _clock.order(_clock.read(times, source=str(path), dates=dates), source=str(path)),
            names=names,
            source=str(path),
            running=content.get("running"),
            failure_s=None if failure is None else float(failure),
            conditions=_conditions(content, operating, len(values), path),
            operating=operating,
            notes=notes,
            unit=_unit(content, path),
        )
    ]


def read_table(
    table: pd.DataFrame,
    path: Path,
    *,
    fs: float | None,
    every: float | None,
    signal: Sequence[str] = (),
    operating: Sequence[str] = (),
    dates: _clock.Dates | None = None,
) -> list[Recording]:
    """Machines from a table: a list a snapshot in one or more columns (those of ``signal``, or all), or one sample a
    row (columns ``snapshot`` and ``sample``)."""
    from unlabeled.sensors._trends import asset_column, asset_name, check_operating, conditions_of, ran, unit_column

    source = str(path)
    check_operating(operating, [str(c) for c in table.columns], source)
    unit, lists, asset = unit_column(table), list_columns(table), asset_column(table)
    whole = [(path.stem, table)] if asset is None else [(asset_name(k), g) for k, g in table.groupby(asset, sort=False)]
    groups = whole if lists else [(name, _gather(g, path, skip=asset, operating=operating)) for name, g in whole]
    times = _table_times([group for _, group in groups], every, source, dates)
    recordings = []
    for (name, group), (_, all_of_it), own in zip(groups, whole, times, strict=True):
        said = "" if unit is None else units.common(all_of_it[unit].unique(), source=f"{path}, {name}")
        columns = list_columns(group)
        missing = sorted(set(signal) - set(columns))
        if missing:
            raise DataError(f"{path}: no waveforms in {', '.join(missing)} (has {', '.join(columns)})")
        columns = list(signal) or columns
        ordered = _clock.order(own, source=source)
        values, flaws = _stack([group[column].tolist() for column in columns], ordered.rows)
        rates = _rates(
            group["fs"].to_numpy(dtype=float) if "fs" in group else None, fs, count=len(group), source=source
        )
        recordings.append(
            _recording(
                name, values, rates, ordered, names=columns, source=source,
                running=ran(group["running"]) if "running" in group else None, failure_s=None, notes=(), flaws=flaws,
                conditions=conditions_of(group, operating, np.arange(len(group))), operating=operating, unit=said,
            )
        )  # fmt: skip
    return recordings


def _table_times(
    groups: Sequence[pd.DataFrame], every: float | None, source: str, dates: _clock.Dates | None
) -> list[_clock.Times]:
    """Of each machine, read in one way for all of them."""
    if every is not None and not set(map(str.lower, groups[0].columns)) & set(_clock.TIME_NAMES):
        return [_clock.read(np.arange(len(group)) * every, source=source) for group in groups]
    name = _clock.find([str(c) for c in groups[0].columns], source=source)
    times = _clock.read(pd.concat([group[name] for group in groups]).to_numpy(), source=source, dates=dates)
    ends = np.cumsum([len(group) for group in groups])
    return [times.at(np.arange(end - len(group), end)) for group, end in zip(groups, ends, strict=True)]


def list_columns(table: pd.DataFrame) -> list[str]:
    """Columns that hold a sequence of numbers in each row."""
    found = []
    for name in table.columns:
        first = next((v for v in table[name] if v is not None), None) if table[name].dtype == object else None
        if isinstance(first, list | np.ndarray):
            found.append(str(name))
    return found


def is_long(table: pd.DataFrame) -> bool:
    """One sample a row, told by the columns ``snapshot`` and ``sample``."""
    return {"snapshot", "sample"} <= set(table.columns)


def _signal(
    content: dict[str, NDArray], path: Path, chosen: Sequence[str]
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """The vibration among the arrays, and the names of its axes: those that were chosen, or one of a usual name."""
    if chosen:
        return _chosen(content, path, chosen), tuple(chosen)
    for name in SIGNALS:
        if name in content:
            signal = content[name].astype(np.float32)
            if signal.ndim not in (1, 2, 3):
                raise DataError(f"{path}: {name} has shape {signal.shape}; expected (snapshots, samples[, axes])")
            if signal.ndim == 3 and signal.shape[1] < signal.shape[2]:
                raise DataError(
                    f"{path}: {name} has shape {signal.shape}, more axes than samples; "
                    "expected (snapshots, samples, axes)"
                )
            names = _axis_names(signal.shape[2]) if signal.ndim == 3 else (name,)
            return signal, names
    ends = {end: name for end in ENDS for name in content if _end(name) == end and content[name].ndim == 1}
    if ends:
        shortest = min(len(content[name]) for name in ends.values())
        return np.stack([content[n][:shortest] for n in ends.values()], axis=1).astype(np.float32), tuple(ends)
    raise DataError(
        f"{path}: no signal array; name it one of {', '.join((*SIGNALS, *ENDS))}, or say with --signal which one it is "
        f"(has {', '.join(sorted(content)) or 'none'})"
    )


def _chosen(content: dict[str, NDArray], path: Path, chosen: Sequence[str]) -> NDArray[np.float32]:
    content = {**content, **_axes(content)}
    missing = [name for name in chosen if name not in content]
    if missing:
        raise DataError(f"{path}: no array {', '.join(missing)} (has {', '.join(sorted(content)) or 'none'})")
    shapes = {content[name].shape for name in chosen}
    if len(shapes) > 1:
        raise DataError(f"{path}: {', '.join(chosen)} are of different shapes: {sorted(shapes)}; take those alike")
    parts = [content[name].astype(np.float32) for name in chosen]
    (shape,) = shapes
    if len(parts) == 1 and len(shape) in (1, 2, 3):
        return parts[0]
    if len(shape) not in (1, 2):
        raise DataError(f"{path}: {', '.join(chosen)} have shape {shape}; expected (samples) or (snapshots, samples)")
    return np.stack(parts, axis=-1)


def _axes(content: dict[str, NDArray]) -> dict[str, NDArray]:
    """Each axis of the signal by its own name, where the file names them."""
    names = [str(name) for name in np.atleast_1d(content.get("axes", np.empty(0)))]
    found = [content[name] for name in SIGNALS if name in content and content[name].ndim > 1]
    if not found or found[0].shape[-1] != len(names):
        return {}
    return {name: found[0][..., n] for n, name in enumerate(names)}


def _end(name: str) -> str:
    """``de`` of ``de`` and of ``X097_DE_time``, as the Case Western bearing data are named."""
    told = re.fullmatch(r"X\d+_(DE|FE|BA)_time", name)
    return told[1].lower() if told else name


def _is_ends(names: Sequence[str]) -> bool:
    return set(names) <= set(ENDS)


def _axis_names(count: int) -> tuple[str, ...]:
    """Order by convention of the public bearing sets; the file's own ``axes`` array wins."""
    return ("horizontal", "vertical", "axial")[:count] if count <= 3 else tuple(f"axis {i + 1}" for i in range(count))


def _rates(stored: NDArray | None, given: float | None, *, count: int, source: str) -> NDArray[np.float64]:
    if stored is None and given is None:
        raise DataError(f"{source} does not say its sampling rate: give it with --fs (in Hz)")
    try:
        rates = np.atleast_1d(np.asarray(stored if stored is not None else given, dtype=float))
    except (TypeError, ValueError):
        raise DataError(f"{source}: its sampling rate is no number") from None
    if len(rates) not in (1, count):
        raise DataError(f"{source}: {len(rates)} sampling rates for {count} snapshots; give one, or one each")
    if stored is not None and given is not None and not (rates == given).all():
        raise DataError(f"{source} says {rates[0]:g} Hz, --fs says {given:g} Hz: leave --fs out, or correct the file")
    if not (rates > 0).all():
        raise DataError(f"{source}: a sampling rate must be positive, got {rates.min():g} Hz")
    return np.broadcast_to(rates, (count,)).copy()


def _start(said: NDArray, path: Path) -> np.datetime64:
    """The date of the first sample."""
    try:
        found = said.astype("datetime64[ns]") if said.dtype.kind in "MU" and said.size == 1 else None
    except ValueError:
        found = None
    if found is None:
        raise DataError(f"{path}: 'start' is no date")
    return np.datetime64(str(found.reshape(())), "ns")


def _times(content: dict[str, NDArray], count: int, every: float | None, path: Path) -> NDArray:
    for name in _clock.TIME_NAMES:
        if name in content:
            if len(content[name]) != count:
                raise DataError(f"{path}: {len(content[name])} times in {name} for {count} snapshots")
            return content[name]
    if every is None:
        raise DataError(f"{path} does not say when its snapshots were taken: add t_s or timestamps, or give --every")
    return np.arange(count) * every


def _unit(content: dict[str, NDArray], path: Path) -> str:
    said = [str(one) for name in units.NAMES if name in content for one in np.atleast_1d(content[name]).ravel()]
    return units.common(said, source=str(path))


def _conditions(
    content: dict[str, NDArray], operating: Sequence[str], count: int, path: Path
) -> NDArray[np.float64] | None:
    """(n, conditions) from arrays with a value a snapshot."""
    from unlabeled.sensors._trends import check_operating

    if not operating:
        return None
    check_operating(operating, list(content), str(path))
    for name in operating:
        if content[name].shape != (count,) or content[name].dtype.kind not in "fiu":
            raise DataError(
                f"{path}: {name} has shape {content[name].shape}, and an operating condition is one number for each of "
                f"the {count} snapshots"
            )
    return np.stack([content[name].astype(np.float64) for name in operating], axis=1)


def _cut(signal: NDArray[np.float32], fs: float) -> tuple[NDArray[np.float32], NDArray]:
    """A continuous record (samples[, axes]) -> snapshots (n, samples, axes) one after another, and their times in
    seconds; of slow records they are longer, so that a spectrum can be had."""
    record = signal if signal.ndim == 2 else signal[:, None]
    samples = max(LEAST, round(PIECE_SECONDS * fs))
    count = max(1, len(record) // samples)
    pieces = record[: count * samples].reshape(count, -1, record.shape[1])
    return pieces.astype(np.float32), np.arange(count) * (samples / fs)


def _gather(table: pd.DataFrame, path: Path, *, skip: str | None, operating: Sequence[str] = ()) -> pd.DataFrame:
    """Long format -> one row a snapshot with lists."""
    time = _clock.find([str(c) for c in table.columns], source=str(path))
    fixed = [c for c in (time, "fs", "running", skip, *operating) if c in table.columns]
    signal = [str(c) for c in table.select_dtypes("number").columns if c not in {"snapshot", "sample", *fixed}]
    if not signal:
        raise DataError(f"{path}: no signal column beside {[*fixed, 'snapshot', 'sample']}; add one for each axis")
    grouped = table.sort_values(["snapshot", "sample"]).groupby("snapshot", sort=True)
    rows = grouped[fixed].first()
    for name in signal:
        rows[name] = grouped[name].apply(lambda column: column.to_numpy(dtype=np.float32))
    return rows.reset_index(drop=True)


def _stack(columns: Sequence[Sequence[Any]], order: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    """Lists of possibly different lengths -> (n, samples, axes) of the first one's length, and what was wrong.

    The first is, in the ``order`` of time, the first that is long enough for a spectrum in all axes alike.
    """
    lengths = np.array([[0 if row is None else len(row) for row in column] for column in columns])
    usable = [i for i in order if lengths[0, i] >= LEAST and (lengths[:, i] == lengths[0, i]).all()]
    usual = int(lengths[0, usable[0]] if usable else lengths.max())
    n = lengths.shape[1]
    signal = np.full((n, usual, len(columns)), np.nan, dtype=np.float32)
    flaws = np.full(n, "", dtype="<U120")
    for i in range(n):
        if (lengths[:, i] != usual).any():
            flaws[i] = f"{lengths[lengths[:, i] != usual, i][0]} samples instead of {usual}"
            continue
        for axis, column in enumerate(columns):
            signal[i, :, axis] = column[i]
    return signal, flaws


def _recording(
    asset: str,
    signal: NDArray[np.float32],
    rates: NDArray[np.float64],
    ordered: _clock.Ordered,
    *,
    names: Sequence[str],
    source: str,
    running: NDArray | None,
    failure_s: float | None,
    notes: tuple[str, ...],
    flaws: NDArray[np.str_] | None = None,
    conditions: NDArray[np.float64] | None = None,
    operating: Sequence[str] = (),
    unit: str = "",
) -> Recording:
    if signal.shape[1] < LEAST:
        raise DataError(
            f"{source}: {signal.shape[1]} samples a snapshot are too few for a spectrum; expected {LEAST} or more"
        )
    rows = ordered.rows
    flaws = np.full(len(signal), "", dtype="<U120") if flaws is None else flaws
    sound = rows[flaws[rows] == ""]
    usual = float(rates[sound[0] if len(sound) else rows[0]])
    for i in np.flatnonzero(rates != usual):
        flaws[i] = f"sampled at {rates[i]:g} Hz instead of {usual:g} Hz"
    return Recording(
        asset=asset,
        values=signal[rows],
        names=tuple(names),
        hours=ordered.hours,
        fs=usual,
        unit=unit,
        clock=ordered.clock,
        conditions=None if conditions is None else conditions[rows],
        condition_names=tuple(operating),
        running=np.ones(len(rows), dtype=bool) if running is None else np.asarray(running, dtype=bool)[rows],
        flaws=flaws[rows],
        skipped=ordered.skipped,
        notes=notes + ordered.notes,
        source=source,
        failure_h=None if failure_s is None else (failure_s - ordered.start) / 3600,
        index=rows,
    )
