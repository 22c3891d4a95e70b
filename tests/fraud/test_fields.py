import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from unlabeled.fraud import Transactions, transactions
from unlabeled.fraud.fields import Field, FieldCodes, quantile_field, word_field
from unlabeled.fraud.histories import Groups


def test_quantile_bins_hold_equal_shares() -> None:
    values = np.arange(1000.0)
    field = quantile_field("amount", values, bins=4)
    codes = field.codes(values)
    # Quartiles at 250, 500 and 750; further cuts at .1, .5 and 1 % and at 99, 99.5 and 99.9 %.
    assert field.edges == (1.0, 5.0, 10.0, 250.0, 500.0, 750.0, 990.0, 995.0, 999.0)
    assert field.size == 12
    assert np.bincount(codes)[2:].tolist() == [1, 4, 5, 240, 250, 250, 240, 5, 4, 1]


def test_missing_and_beyond_training_have_codes() -> None:
    field = Field("x", "number", edges=(0.0, 1.0))
    assert field.codes(np.array([np.nan, -5.0, 0.0, 0.5, 1.0, 99.0])).tolist() == [1, 2, 3, 3, 4, 4]


def test_unknown_and_rare_words_share_code_one() -> None:
    field = word_field("category", pd.Series(["food"] * 5 + ["fuel"] * 4 + ["rare"]))
    assert field.words == ("food", "fuel")
    assert field.codes(pd.Series(["fuel", "food", "rare", "never seen", None])).tolist() == [3, 2, 1, 1, 1]


def test_many_words_become_stable_buckets() -> None:
    field = word_field("shop", pd.Series([f"shop {i}" for i in range(1200)] * 2))
    assert field.kind == "hash"
    once, again = field.codes(pd.Series(["shop 7", "new", None])), field.codes(pd.Series(["new", "shop 7"]))
    assert once[0] == again[1]
    assert once[1] == again[0] > 1
    assert once[2] == 1


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=50), st.lists(st.floats(allow_nan=True), max_size=20))
def test_codes_stay_within_size_and_keep_order(training: list[float], new: list[float]) -> None:
    field = quantile_field("x", np.array(training), bins=8)
    codes = field.codes(np.array(new, dtype=float))
    assert ((codes >= 1) & (codes < field.size)).all()
    numbers = np.sort([x for x in new if x == x])
    assert (np.diff(field.codes(numbers).astype(int)) >= 0).all()


def test_bins_are_fitted_on_training_rows_only(parts: tuple[Transactions, Transactions]) -> None:
    known, _ = parts
    training = known.time < np.median(known.time)
    altered = known.frame.assign(
        amount=np.where(training, known.amount, 1e6), **{"c:category": known.frame["c:category"]}
    )
    altered.loc[~training, "c:category"] = "something new"
    other = Transactions(known.roles, altered, known.given, known.skipped)
    groups = Groups.of(known.codes("entity"))
    assert FieldCodes("entity").fit(known, training, groups).to_json() == (
        FieldCodes("entity").fit(other, training, groups).to_json()
    )


def test_what_never_changes_within_a_card_is_no_field() -> None:
    n = 200
    frame = pd.DataFrame({"time": np.arange(n) * 1000, "customer": np.arange(n) % 5, "amount": np.arange(n) % 17 + 1.0})
    frame["merchant"], frame["birth_year"] = np.arange(n) % 11, 1950 + frame["customer"]
    known = transactions(frame)
    everything = np.ones(n, dtype=bool)
    card = FieldCodes("entity").fit(known, everything, Groups.of(known.codes("entity")))
    merchant = FieldCodes("counterparty").fit(known, everything, Groups.of(known.codes("counterparty")))
    assert card.names == ["amount", "gap", "hour", "last visit"]
    assert "birth_year" in merchant.names


def test_codes_survive_json(parts: tuple[Transactions, Transactions]) -> None:
    known, new = parts
    fitted = FieldCodes("entity").fit(known, np.ones(len(known), dtype=bool), Groups.of(known.codes("entity")))
    back = FieldCodes.from_json(fitted.to_json())
    groups = Groups.of(new.codes("entity"))
    np.testing.assert_array_equal(fitted.codes(new, groups), back.codes(new, groups))
    assert fitted.codes(new, groups).min() >= 1
