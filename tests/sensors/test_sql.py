"""Trends out of a database: real queries on a real one, and nothing said of where it is."""

import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unlabeled.core.errors import DataError
from unlabeled.sensors import _sql, read


@pytest.fixture
def historian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two machines' hourly indicators, rows in no order, in a database that the environment names."""
    draw = np.random.default_rng(0)
    table = pd.DataFrame({
        "machine": np.repeat(["fan1", "fan2"], 50),
        "time": np.tile(pd.date_range("2024-03-01", periods=50, freq="h").astype(str), 2),
        "rms": draw.normal(1, 0.1, 100), "temperature": draw.normal(40, 1, 100),
    }).sample(frac=1, random_state=0)  # fmt: skip
    with sqlite3.connect(tmp_path / "secret-place.sqlite") as database:
        table.to_sql("readings", database, index=False)
    database.close()
    monkeypatch.setenv(_sql.VARIABLE, f"sqlite:///{tmp_path / 'secret-place.sqlite'}")
    table.sort_values(["machine", "time"]).to_parquet(tmp_path / "same.parquet")
    return tmp_path


def ask(folder: Path, text: str) -> Path:
    path = folder / "trend.sql"
    path.write_text(text)
    return path


def test_a_query_gives_what_a_file_of_the_same_rows_gives(historian: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sql, "_AT_ONCE", 7)  # several chunks
    found = {r.asset: r for r in read(ask(historian, "-- all of them\nSELECT * FROM readings"))}
    for expected in read(historian / "same.parquet"):
        one = found[expected.asset]
        assert one.names == ("rms", "temperature")
        np.testing.assert_array_equal(one.values, expected.values)
        assert one.clock is not None
        assert expected.clock is not None
        np.testing.assert_array_equal(one.clock, expected.clock)
    assert len(found) == 2


def test_a_folder_is_never_searched_for_queries(historian: Path) -> None:
    ask(historian, "SELECT * FROM readings")
    (historian / "secret-place.sqlite").unlink()
    assert {r.asset for r in read(historian)} == {"fan1", "fan2"}  # of the Parquet file alone


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("DROP TABLE readings", "no query that begins with SELECT or WITH"),
        ("PRAGMA writable_schema = 1", "no query that begins with SELECT or WITH"),
        ("WITH x AS (SELECT 1) DELETE FROM readings WHERE rms > 1", "attempt to write a readonly database"),
        ("SELECT * FROM nowhere", "OperationalError: no such table: nowhere"),
        ("SELECT * FROM readings; DROP TABLE readings", "the database refuses the query"),
        ("SELECT * FROM readings WHERE machine = 'none'", "holds no rows"),
    ],
)
def test_what_cannot_be_asked_is_said_and_changes_nothing(historian: Path, text: str, why: str) -> None:
    with pytest.raises(DataError, match=why) as refused:
        read(ask(historian, text))
    assert "secret-place" not in str(refused.value)
    assert [len(one) for one in read(ask(historian, "SELECT * FROM readings;"))] == [50, 50]


def test_a_colon_in_a_query_is_none_of_our_parameters(historian: Path) -> None:
    found = read(ask(historian, "SELECT * FROM readings WHERE machine != 'a:fan1' AND time > '2024-03-01 10:30:00'"))
    assert [len(one) for one in found] == [39, 39]


def test_a_database_is_asked_for_by_name_and_never_quoted(historian: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ask(historian, "SELECT 1")
    for url in (
        "sqlite:////nowhere/secret-place/x.sqlite",
        "no url at secret-place",
        "nosuch+driver://u:secret-place@h/d",
    ):
        monkeypatch.setenv(_sql.VARIABLE, url)
        with pytest.raises(DataError, match="the database cannot be reached") as refused:
            read(path)
        assert "secret-place" not in str(refused.value)
    monkeypatch.delenv(_sql.VARIABLE)
    with pytest.raises(DataError, match="set UNLABELED_DATABASE to"):
        read(path)
