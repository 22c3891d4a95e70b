"""Times of snapshots: read, put in order, and told what was wrong with them."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlabeled.core.errors import DataError
from unlabeled.sensors.recording import Skip

TIME_NAMES = ("timestamp", "timestamps", "time", "t_s", "datetime", "date")


class Ordered(NamedTuple):
    """Rows in order of time.

    Attributes:
        rows: (m,) original row numbers, earliest first, one a moment.
        hours: (m,) since the first of them.
        clock: (m,) date and time, where there were any.
        skipped: rows without a time, and rows of a moment that was already there.
        notes: how many were out of order, how long the longest gap is.
    """

    rows: NDArray[np.int64]
    hours: NDArray[np.float64]
    clock: NDArray[np.datetime64] | None
    skipped: tuple[Skip, ...]
    notes: tuple[str, ...]


def order(times: NDArray, *, source: str) -> Ordered:
    """Puts rows in order of ``times`` (seconds as numbers, or dates); the first of equal times is kept.

    Raises:
        DataError: the column can be read neither as seconds nor as dates, or holds no time at all.
    """
    seconds, clock = _parse(times, source)
    known = np.isfinite(seconds)
    if not known.any():
        raise DataError(f"{source}: not one of {len(seconds)} rows has a timestamp; fill the time column")
    rows = np.flatnonzero(known)
    backwards = int((np.diff(seconds[rows]) < 0).sum())
    rows = rows[np.argsort(seconds[rows], kind="stable")]
    repeated = np.r_[False, np.diff(seconds[rows]) == 0]
    skipped = [Skip(int(r), "", "no timestamp") for r in np.flatnonzero(~known)]
    skipped += [Skip(int(r), str(times[r]), "timestamp seen before") for r in rows[repeated]]
    rows = rows[~repeated]
    hours = (seconds[rows] - seconds[rows[0]]) / 3600
    notes = []
    if backwards:
        notes.append(f"the clock steps back {backwards} time(s): rows were put in order of time")
    for count, why in ((int((~known).sum()), "no timestamp"), (int(repeated.sum()), "a timestamp seen before")):
        if count:
            notes.append(f"{count} row(s) left out: {why}")
    steps = np.diff(hours)
    if len(steps) and steps.max() > 10 * np.median(steps):
        count = int((steps > 10 * np.median(steps)).sum())
        notes.append(f"{count} gap(s) of more than ten usual steps, the longest {steps.max():.1f} h")
    return Ordered(rows, hours, None if clock is None else clock[rows], tuple(skipped), tuple(notes))


def find(names: list[str], *, source: str) -> str:
    """The name of the time column among ``names``."""
    lower = {name.lower(): name for name in names}
    for name in TIME_NAMES:
        if name in lower:
            return lower[name]
    raise DataError(f"{source}: no time column; name one of its columns {' or '.join(TIME_NAMES[:4])} (has {names})")


def _parse(times: NDArray, source: str) -> tuple[NDArray[np.float64], NDArray[np.datetime64] | None]:
    values = np.asarray(times)
    if values.dtype.kind in "iuf":
        return values.astype(float), None
    if values.dtype.kind == "M":
        clock = values.astype("datetime64[ns]")
    else:
        text = pd.Series(values.astype(object)).replace("", None)
        clock = pd.to_datetime(text, errors="coerce", format="mixed", utc=True).dt.tz_localize(None).to_numpy()
        clock = clock.astype("datetime64[ns]")
        wrong = np.isnat(clock) & text.notna().to_numpy()
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise DataError(f"{source}, row {row}: {text[row]!r} is neither a number of seconds nor a date")
    seconds = clock.astype("int64") / 1e9
    return np.where(np.isnat(clock), np.nan, seconds), clock
