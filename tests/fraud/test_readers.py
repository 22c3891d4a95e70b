from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unlabeled.core.errors import DataError
from unlabeled.fraud import Roles, read_table, transactions
from unlabeled.fraud.labels import few, from_csv, known_by
from unlabeled.fraud.readers import joined, parse_time


def _frame(n: int = 8) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "tx_id": np.arange(n),
            "time": np.arange(n) * 3600,
            "customer": ["a", "b"] * (n // 2),
            "amount": np.full(n, 9.5),
        }
    )


def test_unusable_rows_are_listed_with_their_reasons() -> None:
    frame = _frame(10).astype({"time": float, "amount": object, "customer": object})
    frame.loc[1, "time"] = np.nan
    frame.loc[2, "amount"] = "twelve"
    frame.loc[3, "amount"] = -4.0
    frame.loc[4, "customer"] = None
    frame.loc[5, "amount"] = "7.25"
    read = transactions(frame)
    assert len(read) == 6
    assert dict(zip(read.skipped["row"], read.skipped["reason"], strict=True)) == {
        1: "time missing or not a time",
        2: "amount missing or not a number",
        3: "negative amount",
        4: "card or customer missing",
    }
    assert read.amount[1] == 7.25
    np.testing.assert_array_equal(np.isnan(read.to_given(np.zeros(6))), np.isin(np.arange(10), [1, 2, 3, 4]))


def test_a_row_id_that_comes_twice_counts_once() -> None:
    frame = _frame(6)
    frame.loc[4, "tx_id"] = 0
    read = transactions(frame)
    assert read.skipped.to_dict("list") == {"row": [4], "reason": ["row id came before"]}


def test_time_order_is_restored_and_noted() -> None:
    frame = _frame(6).iloc[::-1].reset_index(drop=True)
    read = transactions(frame)
    assert (np.diff(read.time) > 0).all()
    assert read.notes == ["5 rows stood before earlier ones: the table was put in time order"]
    assert read.frame["row"].tolist() == [5, 4, 3, 2, 1, 0]


def test_an_empty_day_is_noted() -> None:
    frame = _frame(4).assign(time=[0, 86_400, 2 * 86_400, 5 * 86_400])
    assert transactions(frame).notes == ["2 days without any payment: day 3, day 4"]


@pytest.mark.parametrize(
    "times",
    [
        pd.to_datetime(["2026-03-01 10:00", "2026-03-01 11:00"]),
        ["2026-03-01T10:00:00Z", "2026-03-01 12:00:00+01:00"],
        [1772359200, 1772362800],
        [1772359200000, 1772362800000],
        ["1772359200", "1772362800"],
    ],
)
def test_times_in_many_clothes(times: object) -> None:
    read = transactions(pd.DataFrame({"time": times, "amount": [1.0, 2.0]}))
    assert read.time.tolist() == [1772359200, 1772362800]
    assert read.when(read.time[0]) == "2026-03-01 10:00:00"
    assert parse_time("2026-03-01T10:30", read) == 1772359200 + 1800


def test_own_seconds_have_no_dates() -> None:
    read = transactions(_frame())
    assert read.when(90_061.0) == "day 1 01:01:01"
    assert parse_time("86400", read) == 86_400
    with pytest.raises(DataError, match="give seconds"):
        parse_time("2026-01-01", read)
    with pytest.raises(DataError, match="neither a number nor a date"):
        parse_time("soon", read)


def test_the_wrong_column_is_not_skipped_away() -> None:
    frame = _frame().assign(amount="much")
    with pytest.raises(DataError, match=r"8 of 8 rows cannot be used.*amount missing or not a number"):
        transactions(frame)


@pytest.mark.parametrize(("value", "shown"), [(2, "2"), ("maybe", "maybe")])
def test_labels_must_be_labels(value: object, shown: str) -> None:
    frame = _frame().assign(fraud=pd.Series([0, 1, value, None, 0, 0, 0, 0], dtype=object))
    with pytest.raises(DataError, match=f"{shown}.*row 2"):
        transactions(frame)


def test_missing_labels_are_unknown() -> None:
    frame = _frame().assign(fraud=[0, 1, np.nan, -1, 0, 0, 0, 0])
    assert transactions(frame).label.tolist() == [0, 1, -1, -1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [("a.xlsx", "x", "ends in .xlsx"), ("a.parquet", "no parquet", "cannot be read"), ("a.csv", "x,y\n", "no rows")],
)
def test_files_that_are_no_tables(tmp_path: Path, name: str, content: str, match: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=match):
        read_table(tmp_path / name)
    with pytest.raises(DataError, match="is not a file"):
        read_table(tmp_path / "absent.csv")


def test_csv_and_parquet_say_the_same(tmp_path: Path) -> None:
    frame = _frame().assign(fraud=0)
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    one, two = (transactions(read_table(tmp_path / name)) for name in ("t.csv", "t.parquet"))
    pd.testing.assert_frame_equal(one.frame, two.frame)


def test_joining_knows_where_rows_came_from() -> None:
    frame = _frame()
    early, late = transactions(frame.iloc[:5]), transactions(frame.iloc[5:])
    both, part = joined([late, early])
    assert part.tolist() == [1, 1, 1, 1, 1, 0, 0, 0]
    assert both.frame["row_id"].tolist() == list(range(8))
    with pytest.raises(DataError, match="share rows"):
        joined([early, early])


def test_a_place_becomes_a_distance() -> None:
    frame = _frame(2).assign(home_lat=[0.0, 10.0], home_long=0.0, merch_lat=[1.0, 10.0], merch_long=0.0)
    distance = transactions(frame).frame["n:distance_km"].to_numpy()
    np.testing.assert_allclose(distance, [6371 * np.pi / 180, 0], rtol=1e-9)


def test_labels_arrive_late() -> None:
    table = transactions(_frame().assign(fraud=[1, 0] * 4))
    assert known_by(table, 6 * 3600.0, delay=2 * 3600.0).tolist() == [1, 0, 1, 0, 1, -1, -1, -1]


def test_few_labels_are_a_fixed_draw() -> None:
    label = np.array([1, 0, 0] * 50, dtype=np.int8)
    kept = few(label, frauds=3, seed=0)
    assert (kept == 1).sum() == 3
    assert (kept == 0).sum() == 60
    np.testing.assert_array_equal(kept, few(label, frauds=3, seed=0))
    assert (kept != few(label, frauds=3, seed=1)).any()
    assert ((kept == -1) | (kept == label)).all()
    with pytest.raises(DataError, match="only 50 are known"):
        few(label, frauds=51, seed=0)


def test_a_label_file(tmp_path: Path) -> None:
    table = transactions(_frame())
    path = tmp_path / "labels.csv"
    path.write_text("tx_id,fraud\n3,1\n5,0\n99,1\n6,maybe\n")
    label, left = from_csv(path, table)
    assert label.tolist() == [-1, -1, -1, 1, -1, 0, -1, -1]
    assert left["row_id"].tolist() == [99, 6]
    assert left["reason"].tolist() == ["no such payment in the table", "label is neither 0, 1 nor -1"]
    path.write_text("tx_id,fraud\n99,1\n")
    with pytest.raises(DataError, match=r"no line of .* fits.*99"):
        from_csv(path, table)
    path.write_text("tx_id\n99\n")
    with pytest.raises(DataError, match="one column"):
        from_csv(path, table)
    nameless = transactions(_frame(), Roles(time="time", amount="amount"))
    with pytest.raises(DataError, match="row id"):
        from_csv(path, nameless)
