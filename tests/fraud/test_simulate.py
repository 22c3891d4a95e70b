import pandas as pd

from unlabeled.fraud import infer_roles, simulate, transactions


def test_the_same_seed_makes_the_same_world() -> None:
    small = {"customers": 20, "merchants": 20, "weeks": 3, "stolen": 5, "terminals": 1}
    first = simulate(**small, seed=1)
    pd.testing.assert_frame_equal(first, simulate(**small, seed=1))
    assert not first.equals(simulate(**small, seed=2))


def test_a_world_can_be_read_as_it_is() -> None:
    table = simulate(seed=0)
    assert 40_000 < len(table) < 60_000
    assert 0.005 < table["fraud"].mean() < 0.03
    roles = infer_roles(table)
    assert (roles.entity, roles.counterparty, roles.categories) == ("customer", "merchant", ("category",))
    read = transactions(table)
    assert not len(read.skipped)
    assert table["amount"].min() > 0


def test_stolen_cards_come_in_bursts_of_a_day() -> None:
    table = simulate(customers=60, weeks=6, stolen=20, terminals=0, seed=4)
    fraud = table[table["fraud"] == 1]
    span = fraud.groupby("customer")["time"].agg(["min", "max"])
    assert ((span["max"] - span["min"]) <= pd.Timedelta(days=2)).all()
    assert fraud.groupby("customer").size().between(4, 12).all()
