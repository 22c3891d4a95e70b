"""Tables of payments: read, checked, put in time order; what cannot be used is counted and listed."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from unlabeled.core import fingerprint
from unlabeled.core.errors import DataError
from unlabeled.fraud.roles import Roles, infer_roles

DAY = 86_400.0
_EARTH_KM = 6371.0


@dataclass(frozen=True)
class Transactions:
    """Payments in time order; rows with one time stand in the order of their row ids, else of the table.

    Attributes:
        roles: where everything came from.
        frame: columns ``time`` (seconds), ``amount``, ``label`` (-1 unknown), ``row`` (position in the table
            that was given), and, where there are such roles, ``entity``, ``counterparty``, ``row_id``,
            ``c:<category>``, ``n:<number>``.
        given: rows of the table that was given.
        skipped: ``row, reason`` of each row left out.
        notes: what was seen and put right (order, empty days).
        dated: times count from 1970, so that they can be shown as dates.
    """

    roles: Roles
    frame: pd.DataFrame
    given: int
    skipped: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    dated: bool = True

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def time(self) -> NDArray[np.float64]:
        return self.frame["time"].to_numpy()

    @property
    def amount(self) -> NDArray[np.float64]:
        return self.frame["amount"].to_numpy()

    @property
    def label(self) -> NDArray[np.int8]:
        return self.frame["label"].to_numpy()

    @property
    def day(self) -> NDArray[np.int64]:
        return np.floor(self.time / DAY).astype(np.int64)

    def codes(self, part: str) -> NDArray[np.int64] | None:
        """0, 1, 2... by first appearance for ``entity`` or ``counterparty``; ``None`` without such a role."""
        if part not in self.frame:
            return None
        return pd.factorize(self.frame[part])[0].astype(np.int64)

    def take(self, rows: ArrayLike) -> "Transactions":
        """The rows where a mask is true, or at sorted positions."""
        chosen = np.asarray(rows)
        index = np.flatnonzero(chosen) if chosen.dtype == bool else np.sort(chosen)
        return replace(self, frame=self.frame.iloc[index].reset_index(drop=True))

    def with_labels(self, y: ArrayLike) -> "Transactions":
        """The same payments with these labels (1 fraud, 0 genuine, -1 unknown)."""
        labels = np.asarray(y)
        if labels.shape != (len(self),):
            raise DataError(f"{len(self)} payments need as many labels, got an array of shape {labels.shape}")
        if not np.isin(labels, (-1, 0, 1)).all():
            raise DataError(f"labels are 1 (fraud), 0 (genuine) or -1 (unknown), got {np.unique(labels)[:6].tolist()}")
        return replace(self, frame=self.frame.assign(label=labels.astype(np.int8)))

    def to_given(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """One value a payment -> one value a row of the table that was given; NaN where a row was skipped."""
        out = np.full(self.given, np.nan)
        out[self.frame["row"].to_numpy()] = values
        return out

    def when(self, time: float) -> str:
        """A time in words."""
        if self.dated:
            return str(np.datetime64(int(time), "s")).replace("T", " ")
        clock = int(time % DAY)
        return f"day {int(time // DAY)} {clock // 3600:02d}:{clock // 60 % 60:02d}:{clock % 60:02d}"

    def fingerprint(self) -> str:
        """Short name for what was paid when, by whom and to whom; labels are no part of it."""
        parties = (self.codes(part) for part in ("entity", "counterparty"))
        return fingerprint.of_array(self.time, self.amount, *(code for code in parties if code is not None))


def read_table(path: str | Path) -> pd.DataFrame:
    """A Parquet or CSV file as a frame.

    Raises:
        DataError: not there, of another kind, damaged or empty.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} is not a file: give a table of payments as .parquet or .csv")
    kind = path.suffix.lower()
    if kind not in (".parquet", ".pq", ".csv", ".gz"):
        raise DataError(f"{path} ends in {kind or 'nothing'}: give a table of payments as .parquet or .csv")
    try:
        table = pd.read_parquet(path) if kind in (".parquet", ".pq") else pd.read_csv(path, low_memory=False)
    except Exception as error:
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{path} cannot be read as {kind}: {text[0]}") from None
    if table.empty:
        raise DataError(f"{path} holds no rows")
    return table


def transactions(table: pd.DataFrame, roles: Roles | None = None) -> Transactions:
    """A frame as payments.

    A row is skipped, and listed, when its time or amount is missing or no number, its amount is negative (a
    refund is no payment), its card is missing, or its row id came before.

    Raises:
        DataError: a column is missing, labels are no labels, or fewer than half of the rows can be used.
    """
    if not len(table):
        raise DataError("the table of payments holds no rows")
    roles = roles or infer_roles(table)
    roles.check(table.columns)
    n = len(table)
    time, dated = _seconds(table[roles.time])
    amount = _numbers(table[roles.amount])
    frame = pd.DataFrame({"time": time, "amount": amount, "label": np.int8(-1), "row": np.arange(n)})
    if roles.label is not None and roles.label in table:
        frame["label"] = _labels(table[roles.label])
    for part, name in (("entity", roles.entity), ("counterparty", roles.counterparty), ("row_id", roles.row_id)):
        if name is not None:
            frame[part] = _identifiers(table[name])
    for name in roles.categories:
        frame[f"c:{name}"] = _texts(table[name])
    for name in roles.numbers:
        frame[f"n:{name}"] = _numbers(table[name])
    if roles.places is not None:
        frame["n:distance_km"] = _distance(*(_numbers(table[name]) for name in roles.places))
    reason = _reasons(frame)
    skipped = pd.DataFrame({"row": np.flatnonzero(reason != ""), "reason": reason[reason != ""]})
    if len(skipped) > n / 2:
        most = skipped["reason"].value_counts()
        raise DataError(
            f"{len(skipped)} of {n} rows cannot be used, most because: {most.index[0]} ({most.iloc[0]}). "
            f"Is '{roles.time}' the time and '{roles.amount}' the amount? A roles file can say otherwise"
        )
    frame = frame[reason == ""]
    notes = _order_notes(frame)
    by = ["time", "row_id"] if "row_id" in frame else ["time"]
    frame = frame.sort_values(by, kind="stable", ignore_index=True)
    notes += _day_notes(frame["time"].to_numpy(), dated)
    if "row_id" not in frame:
        frame["row_id"] = frame["row"]
    return Transactions(roles, frame, n, skipped, notes, dated)


def joined(parts: Sequence[Transactions]) -> tuple[Transactions, NDArray[np.int64]]:
    """Several tables as one in time order, and for each row the table that it came from.

    Rows with one time keep the order of the row ids, or of the tables when there are none.
    """
    first = parts[0]
    frames = []
    for number, part in enumerate(parts):
        frame = part.frame.assign(part=number)
        for name in ("entity", "counterparty", "row_id"):
            if name in frame and name in first.frame and frame[name].dtype != first.frame[name].dtype:
                frame[name] = frame[name].astype(str)
        frames.append(frame)
    mixed = [
        n
        for n in ("entity", "counterparty", "row_id")
        if n in first.frame and len({str(f[n].dtype) for f in frames}) > 1
    ]
    for name in mixed:
        frames = [frame.assign(**{name: frame[name].astype(str)}) for frame in frames]
    frame = pd.concat(frames, ignore_index=True)
    named = first.roles.row_id is not None
    if named and frame["row_id"].duplicated().any():
        twice = frame["row_id"][frame["row_id"].duplicated()].iloc[0]
        raise DataError(f"the history and the table share rows (row id {twice}): a payment must come once")
    frame = frame.sort_values(["time", "row_id"] if named else ["time", "part"], kind="stable", ignore_index=True)
    which = frame.pop("part").to_numpy()
    empty = pd.DataFrame({"row": [], "reason": []})
    return Transactions(first.roles, frame, len(frame), empty, [], first.dated), which


def parse_time(text: str, table: Transactions) -> float:
    """A time given by a user, in the table's seconds: a number, or a date where times are dates."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = np.datetime64(text, "s")
    except ValueError:
        raise DataError(f"'{text}' is neither a number nor a date such as 2026-03-01 or 2026-03-01T12:00") from None
    if not table.dated:
        raise DataError(f"'{text}' is a date, but the table counts seconds from its own start: give seconds")
    return float(moment.astype(np.int64))


def _seconds(column: pd.Series) -> tuple[NDArray[np.float64], bool]:
    """Times in seconds, and whether they count from 1970."""
    if not pd.api.types.is_numeric_dtype(column.dtype):
        if not pd.api.types.is_datetime64_any_dtype(column.dtype):
            numeric = pd.to_numeric(column, errors="coerce")
            if numeric.notna().mean() > 0.5:
                return _seconds(numeric)
            column = pd.to_datetime(column.astype(str), errors="coerce", format="ISO8601", utc=True)
        if column.dt.tz is not None:
            column = column.dt.tz_convert("UTC").dt.tz_localize(None)
        seconds = column.astype("datetime64[ms]").astype("int64").to_numpy() / 1000.0
        return np.where(column.isna(), np.nan, seconds), True
    values = column.to_numpy(dtype=float, na_value=np.nan)
    middle = np.nanmedian(values) if np.isfinite(values).any() else 0.0
    if middle > 1e11:  # milliseconds since 1970
        values, middle = values / 1000.0, middle / 1000.0
    return values, middle > 3e8  # after 1979: nobody's own count of seconds


def _numbers(column: pd.Series) -> NDArray[np.float64]:
    numeric = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    return np.where(np.isfinite(numeric), numeric, np.nan)


def _identifiers(column: pd.Series) -> pd.Series:
    """Whole numbers stay numbers, everything else becomes text; missing stays missing."""
    column = column.reset_index(drop=True)
    if pd.api.types.is_integer_dtype(column.dtype):
        return column.astype("int64") if not column.isna().any() else column.astype("Int64")
    if pd.api.types.is_float_dtype(column.dtype) and (column.dropna() % 1 == 0).all():
        return column.astype("Int64") if column.isna().any() else column.astype("int64")
    return _texts(column)


def _texts(column: pd.Series) -> pd.Series:
    """Text, in which 7, 7.0 and "7" are one; missing stays missing."""
    column = column.reset_index(drop=True)
    number, values = pd.factorize(column)
    texts = [str(int(v)) if isinstance(v, float | np.floating) and v == int(v) else str(v) for v in values]
    return pd.Series(np.array([*texts, None], dtype=object)[number], dtype=object)


def _labels(column: pd.Series) -> NDArray[np.int8]:
    if pd.api.types.is_bool_dtype(column.dtype):
        return column.to_numpy().astype(np.int8)
    numeric = pd.to_numeric(column, errors="coerce")
    wrong = (numeric.isna() & column.notna() & (column.astype(str).str.strip() != "")) | ~(
        numeric.isna() | numeric.isin((-1, 0, 1))
    )
    if wrong.any():
        raise DataError(
            f"the label column '{column.name}' holds {column[wrong].iloc[0]!r} in row {int(np.argmax(wrong))}: "
            "expected 1 (fraud), 0 (genuine), and -1 or nothing (unknown)"
        )
    return numeric.fillna(-1).to_numpy().astype(np.int8)


def _reasons(frame: pd.DataFrame) -> NDArray[np.object_]:
    """Why a row cannot be used; empty where it can."""
    reason = np.full(len(frame), "", dtype=object)
    reason[frame["time"].isna().to_numpy()] = "time missing or not a time"
    free = reason == ""
    reason[free & frame["amount"].isna().to_numpy()] = "amount missing or not a number"
    reason[free & (frame["amount"] < 0).to_numpy()] = "negative amount"
    if "entity" in frame:
        reason[(reason == "") & frame["entity"].isna().to_numpy()] = "card or customer missing"
    if "row_id" in frame:
        reason[(reason == "") & frame["row_id"].isna().to_numpy()] = "row id missing"
        usable = np.flatnonzero(reason == "")
        again = frame["row_id"].iloc[usable].duplicated().to_numpy()
        reason[usable[again]] = "row id came before"
    return reason


def _order_notes(frame: pd.DataFrame) -> list[str]:
    backwards = int((np.diff(frame["time"].to_numpy()) < 0).sum())
    return [f"{backwards} rows stood before earlier ones: the table was put in time order"] if backwards else []


def _day_notes(time: NDArray[np.float64], dated: bool) -> list[str]:
    days = np.unique(np.floor(time / DAY).astype(np.int64))
    if len(days) < 3:
        return []
    empty = np.setdiff1d(np.arange(days[0], days[-1] + 1), days)
    if not len(empty):
        return []
    shown = [str(np.datetime64(int(d), "D")) if dated else f"day {d}" for d in empty[:5]]
    return [f"{len(empty)} days without any payment: {', '.join(shown)}{' ...' if len(empty) > 5 else ''}"]


def _distance(lat1: NDArray, long1: NDArray, lat2: NDArray, long2: NDArray) -> NDArray[np.float64]:
    """Great-circle distance in km (haversine formula), from degrees."""
    a1, b1, a2, b2 = (np.radians(x) for x in (lat1, long1, lat2, long2))
    h = np.sin((a2 - a1) / 2) ** 2 + np.cos(a1) * np.cos(a2) * np.sin((b2 - b1) / 2) ** 2
    return 2 * _EARTH_KM * np.arcsin(np.sqrt(np.clip(h, 0, 1)))
