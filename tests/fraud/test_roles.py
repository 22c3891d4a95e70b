import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unlabeled.core.errors import DataError
from unlabeled.fraud import Roles, infer_roles


def _frame(*columns: str) -> pd.DataFrame:
    return pd.DataFrame({name: [1.0, 2.0] for name in columns})


def test_a_scenario_column_is_never_an_input() -> None:
    roles = infer_roles(
        _frame("tx_id", "time_s", "customer_id", "terminal_id", "amount", "fraud", "fraud_scenario", "fraud_score")
    )
    assert (roles.time, roles.amount, roles.entity, roles.counterparty) == (
        *("time_s", "amount", "customer_id", "terminal_id"),
    )
    assert (roles.label, roles.row_id) == ("fraud", "tx_id")
    assert roles.ignored == ("fraud_scenario", "fraud_score")
    assert roles.numbers == roles.categories == ()


def test_places_words_and_numbers() -> None:
    frame = _frame("unix_time", "customer_id", "merchant_id", "amount", "city_pop", "fraud")
    frame = frame.assign(home_lat=1.0, home_long=2.0, merch_lat=1.0, merch_long=2.0, category=["a", "b"])
    roles = infer_roles(frame)
    assert roles.places == ("home_lat", "home_long", "merch_lat", "merch_long")
    assert roles.categories == ("category",)
    assert roles.numbers == ("city_pop",)


def test_without_a_card_there_is_no_entity() -> None:
    roles = infer_roles(_frame("row_id", "time_s", "V1", "V2", "amount", "fraud"))
    assert roles.entity is None
    assert roles.counterparty is None
    assert roles.numbers == ("V1", "V2")


def test_free_text_is_ignored_and_dates_are_times() -> None:
    n = 300
    frame = pd.DataFrame({"when": pd.date_range("2026-01-01", periods=n), "amount": 1.0})
    frame["remark"] = [f"remark {i}" for i in range(n)]
    frame["numbers as text"] = [str(i / 3) for i in range(n)]
    roles = infer_roles(frame)
    assert roles.time == "when"
    assert roles.ignored == ("remark",)
    assert roles.numbers == ("numbers as text",)


@pytest.mark.parametrize(
    ("columns", "part"), [(("customer_id", "amount"), "time"), (("time", "customer_id", "price in cents"), "amount")]
)
def test_a_missing_part_is_named_with_the_columns_there_are(columns: tuple[str, ...], part: str) -> None:
    with pytest.raises(DataError, match=part) as caught:
        infer_roles(_frame(*columns))
    assert all(column in str(caught.value) for column in columns)


def test_a_given_column_that_is_not_there() -> None:
    with pytest.raises(DataError, match=r"counterparty 'shop'.*columns are: time, amount"):
        Roles(time="time", amount="amount", counterparty="shop").check(["time", "amount"])
    with pytest.raises(DataError, match="card_no"):
        infer_roles(_frame("time", "amount"), entity="card_no")


def test_roles_survive_a_file(tmp_path: Path) -> None:
    roles = Roles(time="t", amount="a", entity="c", categories=("x", "y"), places=("p", "q", "r", "s"))
    assert Roles.load(roles.save(tmp_path / "roles.json")) == roles


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "not JSON"),
        ("[]", "holds a list"),
        (json.dumps({"time": "t", "amount": "a", "card": "c"}), "unknown role card"),
        (json.dumps({"time": "t"}), "no column for amount"),
        (json.dumps({"time": "t", "amount": "a", "places": ["x"]}), "four columns"),
    ],
)
def test_bad_roles_files_say_what_is_wrong(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "roles.json").write_text(text)
    with pytest.raises(DataError, match=match):
        Roles.load(tmp_path / "roles.json")


def test_rows_for_people() -> None:
    shown = dict(Roles(time="t", amount="a", numbers=("n", "m")).rows())
    assert shown["numbers"] == "n, m"
    assert shown["entity"] == "-"
    assert np.all([isinstance(value, str) for value in shown.values()])
