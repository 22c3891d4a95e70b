"""Times of snapshots: read, put in order, and told what was wrong with them.

A column of times is read in one way from its first row to its last, the way in which its first legible cell is written:
a date that begins with its year (ISO 8601 and what is close to it), a number of seconds, a date with a named month
(``5 Feb 2024``), or one of numbers that ends with its year (``05/02/2024``), of which day or month comes first.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlabeled.core.errors import DataError
from unlabeled.sensors.recording import Skip

# What comes first of a date that ends with its year.
Dates = Literal["day-first", "month-first"]
# Why a row is left out.
UNREADABLE = "timestamp cannot be read"
TIME_NAMES = ("timestamp", "timestamps", "time", "t_s", "datetime", "date")

# Numbers from 2001 on are dates; beyond the year 5138, or 1973 in milliseconds, they are no seconds.
_EPOCH, _NO_SECONDS = 1e9, 1e11
# Dates are kept in nanoseconds, of which 64 bits hold so many seconds on both sides of 1970.
_HELD = 9.2e9
_ISO = "write dates as 2024-02-05 06:00 (ISO 8601)"
# In small letters, as what is compared with it.
_TIME_OF_DAY = (
    r"(?:(?:t|,?\s+)(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<part>\d{1,9})\d*)?)?"
    r"(?:\s*(?P<half>[ap])\.?m\.?)?(?:\s*(?P<zone>z|utc|gmt|[+-]\d{2}(?::?\d{2})?))?)?"
)
_YEAR_FIRST = r"(?P<year>\d{4})(?P<by>[-/.])(?P<month>\d{1,2})(?P=by)(?P<day>\d{1,2})"
_DAY_FIRST = r"(?P<day>\d{1,2})(?P<by>[-/.])(?P<month>\d{1,2})(?P=by)(?P<year>\d{4})"
_MONTH_FIRST = r"(?P<month>\d{1,2})(?P<by>[-/.])(?P<day>\d{1,2})(?P=by)(?P<year>\d{4})"
_DAY_AND_NAME = r"(?P<day>\d{1,2})[-/ .]+(?P<name>[a-z]{3})[a-z]*\.?[-/ .,]+(?P<year>\d{4})"
_NAME_AND_DAY = r"(?P<name>[a-z]{3})[a-z]*\.?[- .]+(?P<day>\d{1,2})[-, .]+(?P<year>\d{4})"
_MONTHS = {
    "jan": "01", "feb": "02", "mar": "03", "apr": "04", "may": "05", "jun": "06",
    "jul": "07", "aug": "08", "sep": "09", "oct": "10", "nov": "11", "dec": "12",
}  # fmt: skip
# What pandas may be asked: it would take "now" for a date, and the year for the whole of one.
_ISO_LIKE = r"\d{4}-?\d{1,2}-?\d{1,2}(?:[T ].*)?|\d{4}-\d{2}"
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"


class Times(NamedTuple):
    """A column of times, as it was read.

    Attributes:
        given: (n,) the cells themselves.
        seconds: (n,) of dates since 1970; NaN where there is no time.
        clock: (n,) date and time (UTC where the cells name a zone), where there are any.
        illegible: (n,) whether there is something in a cell that is no time.
        own: whether ``seconds`` are the file's own numbers.
        notes: how it was read, where that is not plain.
    """

    given: NDArray
    seconds: NDArray[np.float64]
    clock: NDArray[np.datetime64] | None
    illegible: NDArray[np.bool_]
    own: bool
    notes: tuple[str, ...] = ()

    def at(self, rows: NDArray) -> "Times":
        """Those of some rows, of one machine for instance."""
        clock = None if self.clock is None else self.clock[rows]
        return Times(self.given[rows], self.seconds[rows], clock, self.illegible[rows], self.own, self.notes)


class Ordered(NamedTuple):
    """Rows in order of time.

    Attributes:
        rows: (m,) original row numbers, earliest first, one a moment.
        hours: (m,) since the first of them.
        clock: (m,) date and time, where there were any.
        skipped: rows without a time or with an illegible one, and rows of a moment that was already there.
        notes: how the times were read, how many were out of order, how long the longest gap is.
        start: what the file's own seconds say at the first of them; 0 where it has none.
    """

    rows: NDArray[np.int64]
    hours: NDArray[np.float64]
    clock: NDArray[np.datetime64] | None
    skipped: tuple[Skip, ...]
    notes: tuple[str, ...]
    start: float


def order(times: Times, *, source: str) -> Ordered:
    """Puts rows in order of ``times``; the first of equal times is kept.

    Raises:
        DataError: the column holds no time at all.
    """
    seconds = times.seconds
    known = np.isfinite(seconds)
    if not known.any():
        wrong = np.flatnonzero(times.illegible)
        such = f" that can be read (row {wrong[0]} says {times.given[wrong[0]]})" if len(wrong) else ""
        raise DataError(f"{source}: not one of {len(seconds)} rows has a timestamp{such}; fill the time column")
    rows = np.flatnonzero(known)
    backwards = int((np.diff(seconds[rows]) < 0).sum())
    rows = rows[np.argsort(seconds[rows], kind="stable")]
    repeated = np.r_[False, np.diff(seconds[rows]) == 0]
    left_out = (
        ("no timestamp", np.flatnonzero(~known & ~times.illegible)),
        (UNREADABLE, np.flatnonzero(times.illegible)),
        ("timestamp seen before", rows[repeated]),
    )
    skipped = [
        Skip(int(row), "" if why == "no timestamp" else str(times.given[row]), why)
        for why, those in left_out
        for row in those
    ]
    rows = rows[~repeated]
    hours = (seconds[rows] - seconds[rows[0]]) / 3600
    notes = list(times.notes)
    if backwards:
        notes.append(f"the clock steps back {backwards} time(s): rows were put in order of time")
    for why, those in left_out:
        if len(those):
            notes.append(f"{len(those)} row(s) left out: {why.replace('timestamp ', 'a timestamp ')}")
    steps = np.diff(hours)
    if len(steps) and steps.max() > 10 * np.median(steps):
        count = int((steps > 10 * np.median(steps)).sum())
        notes.append(f"{count} gap(s) of more than ten usual steps, the longest {steps.max():.1f} h")
    clock = None if times.clock is None else times.clock[rows]
    return Ordered(rows, hours, clock, tuple(skipped), tuple(notes), float(seconds[rows[0]]) if times.own else 0.0)


def find(names: list[str], *, source: str) -> str:
    """The name of the time column among ``names``."""
    lower = {name.lower(): name for name in names}
    for name in TIME_NAMES:
        if name in lower:
            return lower[name]
    raise DataError(f"{source}: no time column; name one of its columns {' or '.join(TIME_NAMES[:4])} (has {names})")


def read(times: NDArray, *, source: str, dates: Dates | None = None) -> Times:
    """Reads a whole column of times: seconds as numbers (since 1970 where all of them lie between 2001 and 2262, from
    whatever moment otherwise), dates, or texts of either.

    Texts that are not written as the first legible one are illegible, as are dates before 1678 or after 2261.

    Args:
        dates: of dates that end with their year, what comes first; without it a row has to tell.

    Raises:
        DataError: most texts are illegible; days and months cannot be told apart, or come now in one order and now in
            the other; numbers too large for seconds.
    """
    given = np.asarray(times)
    if given.dtype.kind in "iuf":
        return _numbers(given, given.astype(float), source)
    if given.dtype.kind == "M":
        return _dates(given, given, ~np.isnat(given))
    cells = pd.Series([c.decode(errors="replace") if isinstance(c, bytes) else c for c in given.astype(object)])
    there = cells.notna().to_numpy(dtype=bool)
    inside = pd.api.types.infer_dtype(cells, skipna=True)
    if inside in ("integer", "floating", "mixed-integer-float", "decimal"):
        values = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        return _numbers(given, values, source)
    if inside in ("datetime", "datetime64", "date"):
        return _dates(given, _utc(cells), there)
    texts = cells.where(there, "").map(str).str.strip()
    return _texts(given, texts, source, dates)


def _numbers(given: NDArray, seconds: NDArray[np.float64], source: str, illegible: NDArray | None = None) -> Times:
    known = np.isfinite(seconds)
    large = np.flatnonzero(known & (np.abs(seconds) > _NO_SECONDS))
    if len(large):
        raise DataError(
            f"{source}, row {large[0]}: a time of {given[large[0]]} can only be milliseconds, microseconds or "
            f"nanoseconds since 1970 (or a date in one number): give seconds, or {_ISO}"
        )
    illegible = np.zeros(len(seconds), dtype=bool) if illegible is None else illegible
    if not known.any() or seconds[known].min() < _EPOCH or seconds[known].max() > _HELD:
        return Times(given, seconds, None, illegible, own=True)
    # A double holds today's time to the microsecond and no further.
    clock = np.full(len(seconds), "NaT", dtype="datetime64[ns]")
    clock[known] = (seconds[known] * 1e6).round().astype(np.int64).astype("datetime64[us]")
    note = "the times are seconds since 1970, and were taken for dates (UTC)"
    return Times(given, seconds, clock, illegible, own=True, notes=(note,))


def _dates(given: NDArray, clock: NDArray, there: NDArray[np.bool_], notes: tuple[str, ...] = ()) -> Times:
    """From dates of any precision; ``there`` are the cells that are not empty."""
    # One that nanoseconds cannot hold would come round as another date.
    whole = clock.astype("datetime64[s]")
    held = ~np.isnat(clock) & (np.abs(np.where(np.isnat(whole), 0, whole.astype(np.int64))) < _HELD)
    exact = np.full(len(clock), "NaT", dtype="datetime64[ns]")
    exact[held] = clock[held]
    seconds = np.where(held, exact.astype(np.int64) / 1e9, np.nan)
    return Times(given, seconds, exact, there & ~held, own=False, notes=notes)


def _texts(given: NDArray, texts: pd.Series, source: str, dates: Dates | None) -> Times:
    there = (texts != "").to_numpy(dtype=bool)
    iso = _year_first(texts)
    if (np.isnat(iso) & there).any():
        numbers = pd.to_numeric(texts.where(texts.str.fullmatch(_NUMBER)), errors="coerce").to_numpy(dtype=np.float64)
        named = _either(_rewritten(texts, _DAY_AND_NAME), _rewritten(texts, _NAME_AND_DAY))
        day, month = _rewritten(texts, _DAY_FIRST), _rewritten(texts, _MONTH_FIRST)
        said = {"day-first": day, "month-first": month, None: _either(day, month)}[dates]
        legible = (~np.isnat(iso), np.isfinite(numbers), ~np.isnat(named), ~np.isnat(said))
        first = [int(np.flatnonzero(one)[0]) if one.any() else len(texts) for one in legible]
        way = int(np.argmin(first))
        wrong = np.flatnonzero(there & ~legible[way])
        if 2 * len(wrong) > there.sum():
            raise DataError(
                f"{source}, row {wrong[0]}: {texts[wrong[0]]!r} is neither a number of seconds nor a date"
                + (f" as in row {first[way]}, {texts[first[way]]!r}" if first[way] < len(texts) else "")
                + f"; {_ISO}"
            )
        if way == 1:
            return _numbers(given, numbers, source, there & ~legible[1])
        if way == 2:
            return _dates(given, named, there)
        if way == 3:
            if dates is not None:
                return _dates(given, said, there)
            clock, notes = _one_order(day, month, texts, source)
            return _dates(given, clock, there, notes)
    return _dates(given, iso, there)


def _one_order(day: NDArray, month: NDArray, texts: pd.Series, source: str) -> tuple[NDArray, tuple[str, ...]]:
    """Whichever of two readings, day or month first, fits every cell that either of them fits, and a note of it."""
    only_day, only_month = np.isnat(month) & ~np.isnat(day), np.isnat(day) & ~np.isnat(month)
    if only_day.any() and only_month.any():
        one, other = int(np.flatnonzero(only_day)[0]), int(np.flatnonzero(only_month)[0])
        raise DataError(
            f"{source}: {texts[one]!r} (row {one}) has the day first, {texts[other]!r} (row {other}) the month; {_ISO}"
        )
    if only_day.any() or only_month.any():
        clock, name, those = (day, "day", only_day) if only_day.any() else (month, "month", only_month)
        such = texts[np.flatnonzero(those)[0]]
        return clock, (f"the dates were read {name} first, the only way to read {such!r}",)
    unlike = np.flatnonzero((day != month) & ~np.isnat(day))
    if len(unlike):
        raise DataError(
            f"{source}, row {unlike[0]}: dates like {texts[unlike[0]]!r} may have the day or the month first, and no "
            "row tells which: say --dates day-first or month-first, or write them as 2024-02-05 (ISO 8601)"
        )
    return day, ()


def _year_first(texts: pd.Series) -> NDArray[np.datetime64]:
    """ISO 8601, and what is close enough to it; numbers of 8 and 14 digits are dates as well."""
    tight = texts.str.replace(r"^(\d{8})(\d{6})$", r"\1T\2", regex=True)
    found = _utc(tight.where(tight.str.fullmatch(_ISO_LIKE)))
    return _either(found, _rewritten(texts, _YEAR_FIRST)) if np.isnat(found).any() else found


def _either(one: NDArray[np.datetime64], other: NDArray[np.datetime64]) -> NDArray[np.datetime64]:
    return np.where(np.isnat(one), other, one)


def _rewritten(texts: pd.Series, pattern: str) -> NDArray[np.datetime64]:
    """Cells of a pattern as dates; all others are none."""
    like = texts.str.match(f"(?i){pattern}")
    if not like.any():
        return np.full(len(texts), "NaT", dtype="datetime64[us]")
    parts = texts.where(like).str.lower().str.extract(f"^{pattern}{_TIME_OF_DAY}$")
    if "name" in parts:
        parts["month"] = parts["name"].map(_MONTHS)
    hour, half = pd.to_numeric(parts["hour"]).fillna(0).astype(int), parts["half"]
    impossible = half.notna() & ~hour.between(1, 12)
    hour = hour.where(half.isna(), hour % 12 + 12 * (half == "p"))
    zone = parts["zone"].fillna("").replace({"utc": "z", "gmt": "z"}).str.upper()
    text = parts["year"] + "-" + parts["month"].str.zfill(2) + "-" + parts["day"].str.zfill(2)
    text += "T" + hour.astype(str).str.zfill(2) + ":" + parts["minute"].fillna("00")
    text += ":" + parts["second"].fillna("00") + "." + parts["part"].fillna("0") + zone
    return _utc(text.mask(impossible))


def _utc(cells: "pd.Series[Any]") -> NDArray[np.datetime64]:
    """Dates without a zone are taken as they stand."""
    return pd.to_datetime(cells, errors="coerce", format="ISO8601", utc=True).dt.tz_localize(None).to_numpy()
