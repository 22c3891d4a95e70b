"""Files to recordings: waveform snapshots and condition-indicator trends."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pandas as pd

from unlabeled.core.errors import DataError
from unlabeled.sensors import _formats, _sql, _trends, _waveforms
from unlabeled.sensors._clock import Dates
from unlabeled.sensors._parted import Parted, Shelf
from unlabeled.sensors.recording import Recording, alike, joined

RUNNING = "running"  # the column that is false while a machine stands, unless another is named
SUFFIXES = (*_formats.SUFFIXES, ".parquet", ".csv")


def read(
    *inputs: str | Path,
    fs: float | None = None,
    every: float | None = None,
    running_column: str = RUNNING,
    signal: Sequence[str] = (),
    operating: Sequence[str] = (),
    assets: Sequence[str] = (),
    all_of: str | None = None,
    dates: Dates | None = None,
    left_out: list[tuple[str, str]] | None = None,
) -> list[Recording]:
    """Reads one recording a machine from files or folders of files.

    An npz, MAT or HDF5 file holds one machine's waveforms: ``acc`` (or ``x``, ``signal``, ``de`` and ``fe``, also as
    the Case Western data name them) of shape (snapshots, samples[, axes]) with ``fs`` (Hz) and ``t_s`` (seconds) or
    ``timestamps``. An array (samples) or (samples, axes) is one continuous record and is cut into short snapshots, as
    are TDMS, WAV and FLAC files. (The extra ``formats`` reads HDF5, MAT 7.3, TDMS, WAV and FLAC.) A Parquet file holds
    waveforms as lists, or one sample a row with columns ``snapshot`` and ``sample``. Any other Parquet or CSV table
    with a time column is a trend: its numeric columns are indicators. So is what a query in a ``.sql`` file gives, of
    the database that the environment names (``UNLABELED_DATABASE``); folders are not searched for queries.

    Times are dates, best as ISO 8601, or seconds; seconds since 1970 are dates too. How a file is read shows in its
    beginning: a column of numbers by its first cells, a machine's sampling rate and length of snapshots by its first
    one. What is added to a file later changes nothing of what was read before.

    Args:
        fs: sampling rate in Hz where the file does not say; it is never guessed.
        every: seconds between snapshots where the file has no times.
        signal: names of the arrays or channels that are the vibration, one an axis, where the usual names do not tell.
        operating: names of columns (or of arrays with a value a snapshot) that say how the machine was run: its speed,
            load or temperature. They are no indicators; what is normal depends on them.
        running_column: column that is false while the machine stands still.
        assets: only these machines.
        all_of: all files are parts of this machine's record, whatever they are called, and hold one machine each. They
            are put in order of time, and waveforms are read again as they are asked for: no more than two files are
            kept in memory. With ``left_out``, files that are measured otherwise than the earliest are left out too.
        dates: whether the day or the month comes first in dates such as 05/02/2024; without it a row has to tell.
        left_out: takes the name of each file that cannot be read, and why, while the others are read all the same;
            without it the first such file is an error.

    Raises:
        DataError: what is wrong with which file, and what to do; with ``left_out``, where no file can be read.
    """
    unread: list[tuple[str, str]] = []
    recordings: list[Recording] = []

    def one(path: Path) -> list[Recording]:
        return _one(path, fs, every, running_column, signal, operating, dates)

    shelf = Shelf(lambda path: [found.values for found in one(path)])
    for path in {path.resolve(): path for path in files_in(inputs)}.values():
        try:
            shelf.note(path)
            recordings += one(path) if all_of is None else _on(shelf, path, one(path))
        except DataError as error:
            if left_out is None:
                raise
            unread.append((path.name, str(error)))
    if not recordings:
        raise DataError("; ".join(why for _, why in unread))
    if left_out is not None:
        left_out += unread
    if all_of is not None:
        parts = of_one(recordings, all_of)
        if left_out is not None:
            parts, odd = alike(parts)
            unread += odd
            left_out += odd
        recordings = [joined(parts)]
    known = [r.asset for r in recordings]
    if assets:
        missing = sorted(set(assets) - set(known))
        if missing:
            lost = f" ({', '.join(name for name, _ in unread)} could not be read)" if unread else ""
            raise DataError(f"no machine {', '.join(missing)} in the input; it has {', '.join(known)}{lost}")
        recordings = [r for r in recordings if r.asset in set(assets)]
    twice = sorted({name for name in known if known.count(name) > 1})
    if twice:
        raise DataError(f"machine {', '.join(twice)} occurs in more than one input: rename, or give one at a time")
    return recordings


def of_one(recordings: Sequence[Recording], asset: str) -> list[Recording]:
    """As recordings of this machine, whatever their files call it.

    Raises:
        DataError: a file holds several.
    """
    several = [path for path, count in Counter(one.source for one in recordings).items() if count > 1]
    if several:
        raise DataError(f"{several[0]} holds several machines: --all-of says that all are one")
    return [replace(one, asset=asset) for one in recordings]


def _on(shelf: Shelf, path: Path, found: Sequence[Recording]) -> list[Recording]:
    """With waveforms that stay in their file until they are asked for."""
    return [
        replace(one, values=cast(Any, Parted.whole(shelf, path, number, one.values)))
        if one.kind == "waveform" else one
        for number, one in enumerate(found)
    ]  # fmt: skip


def files_in(inputs: Sequence[str | Path]) -> list[Path]:
    """Files as given, and those of a known kind in folders.

    Raises:
        DataError: nothing there, or a file of an unknown kind.
    """
    found: list[Path] = []
    for given in map(Path, inputs):
        if given.is_dir():
            inside = sorted(p for p in given.iterdir() if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise DataError(f"{given} holds no {', '.join(SUFFIXES)} file")
            found += inside
        elif not given.exists():
            raise DataError(f"{given} does not exist: give a file or a folder of {', '.join(SUFFIXES)} files")
        elif given.suffix.lower() not in (*SUFFIXES, _sql.SUFFIX):
            raise DataError(f"{given} is of an unknown kind: expected {', '.join(SUFFIXES)}")
        else:
            found.append(given)
    if not found:
        raise DataError("nothing to read: give a file or a folder")
    return found


def _one(
    path: Path,
    fs: float | None,
    every: float | None,
    running_column: str,
    signal: Sequence[str],
    operating: Sequence[str],
    dates: Dates | None,
) -> list[Recording]:
    if path.suffix.lower() in _formats.SUFFIXES:
        return _waveforms.read_arrays(
            path,
            _formats.arrays(path, signal),
            fs=fs,
            every=every,
            signal=signal,
            operating=operating,
            dates=dates,
        )
    try:
        if path.suffix.lower() == _sql.SUFFIX:
            table = _sql.query(path)
        else:
            # In chunks, a word far down in a column would leave numbers and texts beside each other in it.
            is_parquet = path.suffix.lower() == ".parquet"
            table = pd.read_parquet(path) if is_parquet else pd.read_csv(path, low_memory=False)
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({str(error).splitlines()[0]}); write it again") from None
    if table.empty:
        raise DataError(f"{path} holds no rows")
    if _waveforms.is_long(table) or _waveforms.list_columns(table):
        return _waveforms.read_table(table, path, fs=fs, every=every, signal=signal, operating=operating, dates=dates)
    if signal:
        raise DataError(f"{path} is a table of indicators, of which each is judged: leave --signal out")
    return _trends.read_table(table, path, running_column=running_column, operating=operating, dates=dates)
