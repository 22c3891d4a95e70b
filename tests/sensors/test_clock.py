"""Times are read in one way from the first row to the last, and nothing is guessed of them."""

import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from unlabeled.core.errors import DataError
from unlabeled.sensors import _clock

HOURS = pd.date_range("2024-01-20 05:00", periods=600, freq="h")


def times(cells: Any, dtype: Any = object) -> _clock.Times:
    return _clock.read(np.array(cells, dtype=dtype), source="f.csv")


def dates(cells: Any, dtype: Any = object) -> list[str]:
    clock = times(cells, dtype).clock
    assert clock is not None
    return [str(at) for at in clock.astype("datetime64[s]")]


@pytest.mark.parametrize(
    "written",
    [
        "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y/%m/%d %H:%M", "%Y.%m.%d %H:%M", "%Y%m%dT%H%M%S", "%Y%m%d%H%M%S",
        "%d/%m/%Y %H:%M", "%m/%d/%Y %I:%M:%S %p", "%d.%m.%Y %H:%M:%S", "%d-%m-%Y %H:%M:%S.000", "%d-%b-%Y %H:%M:%S",
        "%d %B %Y, %H:%M", "%b %d, %Y %I:%M %p", "%Y-%m-%d %H:%M:%S UTC", "%Y-%m-%d %H:%M:%S,000",
    ],
)  # fmt: skip
def test_every_row_is_read_in_the_one_way_that_fits_all(written: str) -> None:
    found = times(HOURS.strftime(written))
    np.testing.assert_array_equal(found.clock, HOURS.to_numpy())  # type: ignore[arg-type]
    assert not found.illegible.any()


def test_the_order_of_day_and_month_is_told_by_the_one_row_that_can_tell() -> None:
    assert dates(["05/02/2024", "13/02/2024"]) == ["2024-02-05T00:00:00", "2024-02-13T00:00:00"]
    assert dates(["05/02/2024", "02/13/2024"]) == ["2024-05-02T00:00:00", "2024-02-13T00:00:00"]
    assert times(["05/02/2024", "13/02/2024"]).notes == (
        "the dates were read day first, the only way to read '13/02/2024'",
    )
    assert times(["02/13/2024"]).notes == ("the dates were read month first, the only way to read '02/13/2024'",)
    assert times(["05/05/2024 1:00", "05/05/2024 2:00"]).notes == ()


@pytest.mark.parametrize("by", "/.-")
def test_days_and_months_that_cannot_be_told_apart_are_refused(by: str) -> None:
    cells = [f"{day:02d}{by}02{by}2024 06:00" for day in range(1, 13)]
    with pytest.raises(DataError, match=rf"f.csv, row 0: dates like '01{by}02{by}2024 06:00' may have .* 2024-02-05"):
        times(cells)
    with pytest.raises(DataError, match=r"'13/02/2024' \(row 0\) has the day first, '02/14/2024' \(row 1\) the month"):
        times(["13/02/2024", "02/14/2024"])


def test_which_comes_first_can_be_said() -> None:
    cells = ["05/02/2024", "07/02/2024 06:00"]
    for said, expected in (
        ("day-first", ["2024-02-05T00", "2024-02-07T06"]),
        ("month-first", ["2024-05-02T00", "2024-07-02T06"]),
    ):
        found = _clock.read(np.array(cells, dtype=object), source="f.csv", dates=said)  # type: ignore[arg-type]
        np.testing.assert_array_equal(found.clock, np.array(expected, dtype="datetime64[ns]"))  # type: ignore[arg-type]
    cells = ["05/02/2024", "06/02/2024", "02/13/2024"]
    found = _clock.read(np.array(cells, dtype=object), source="f.csv", dates="day-first")
    assert found.illegible.tolist() == [False, False, True]
    with pytest.raises(DataError, match="row 0: '02/13/2024' is neither a number of seconds nor a date"):
        _clock.read(np.array(["02/13/2024", "02/14/2024"], dtype=object), source="f.csv", dates="day-first")
    iso = _clock.read(np.array(["2024-02-05", "2024-02-06"], dtype=object), source="f.csv", dates="month-first")
    np.testing.assert_array_equal(iso.clock, np.array(["2024-02-05", "2024-02-06"], dtype="datetime64[ns]"))  # type: ignore[arg-type]


def test_iso_8601_of_any_precision_and_over_a_change_of_summer_time() -> None:
    found = times(["2024-03-31T00:59:59.5+01:00", "2024-03-31T03:00:00.1234567+02:00", "2024-03-31T01:30Z", None])
    assert found.clock is not None
    expected = ["2024-03-30T23:59:59.500", "2024-03-31T01:00:00.1234567", "2024-03-31T01:30", "NaT"]
    np.testing.assert_array_equal(found.clock, np.array(expected, dtype="datetime64[ns]"))


def test_a_few_cells_that_cannot_be_read_are_left_out_and_listed() -> None:
    cells = ["13/02/2024", "oops", "14/02/2024", "", "31/02/2024", "15/02/2024", "2024-02-16", "16/02/2024"]
    ordered = _clock.order(times(cells), source="f.csv")
    assert ordered.rows.tolist() == [0, 2, 5, 7]
    assert [(s.row, s.time, s.reason) for s in ordered.skipped] == [
        (3, "", "no timestamp"),
        (1, "oops", "timestamp cannot be read"),
        (4, "31/02/2024", "timestamp cannot be read"),
        (6, "2024-02-16", "timestamp cannot be read"),
    ]
    assert "3 row(s) left out: a timestamp cannot be read" in ordered.notes
    with pytest.raises(DataError, match="row 0: 'now' is neither a number of seconds nor a date; write dates as 2024"):
        times(["now", "today"])
    with pytest.raises(DataError, match=r"row 1: '2024-02-05' is neither .* as in row 0, '7'"):
        times(["7", "2024-02-05", "2024-02-06"])


def test_dates_that_cannot_be_kept_are_left_out_and_not_other_dates() -> None:
    for cells, dtype in ((["2024-02-05", "9999-12-31"], object), (["2024-02-05", "9999-12-31"], "datetime64[us]")):
        found = times(cells, dtype)
        assert found.illegible.tolist() == [False, True]
        assert dates(cells, dtype) == ["2024-02-05T00:00:00", "NaT"]
    with pytest.raises(
        DataError, match=r"not one of 1 rows has a timestamp that can be read \(row 0 says 9999-12-31\)"
    ):
        _clock.order(times(["9999-12-31"]), source="f.csv")


@pytest.mark.parametrize("factor", [1e3, 1e6, 1e9])
@pytest.mark.parametrize("dtype", [np.int64, float, object, str])
def test_numbers_that_are_too_large_for_seconds_are_refused(factor: float, dtype: Any) -> None:
    cells = np.array([1_700_000_000, 1_700_000_600]) * int(factor)
    with pytest.raises(DataError, match="can only be milliseconds, microseconds or nanoseconds since 1970"):
        times(cells.astype(dtype))


def test_seconds_since_1970_are_dates_and_other_seconds_are_not() -> None:
    found = times([1_700_000_000.25, np.nan, 1_700_003_600], float)
    assert dates(found.given, float) == ["2023-11-14T22:13:20", "NaT", "2023-11-14T23:13:20"]
    assert found.notes == ("the times are seconds since 1970, and were taken for dates (UTC)",)
    ordered = _clock.order(found, source="f.csv")
    assert ordered.start == 1_700_000_000.25
    assert (ordered.hours * 3600).tolist() == [0, 3599.75]
    for cells in ([0.0, 600.0], [1e8, 1.7e9], [2e10, 3e10]):
        assert times(cells, float).clock is None


def test_texts_and_objects_that_are_numbers_or_dates_are_read_as_such() -> None:
    assert times(["0", "600.5", "err"]).seconds[:2].tolist() == [0, 600.5]
    assert times([1, pd.NA, 3]).seconds[[0, 2]].tolist() == [1, 3]
    assert times([Decimal("1.5"), None]).seconds[0] == 1.5
    assert dates([datetime.date(2024, 1, 2), None]) == ["2024-01-02T00:00:00", "NaT"]
    assert dates([pd.Timestamp("2024-01-01", tz="Europe/Berlin")]) == ["2023-12-31T23:00:00"]
    assert dates([b"2024-01-01"], "S") == ["2024-01-01T00:00:00"]
    assert dates(["20240301", "20240302"]) == ["2024-03-01T00:00:00", "2024-03-02T00:00:00"]
