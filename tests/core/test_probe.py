"""Probes: what is planted is found, what is not is not, and units stay together."""

import numpy as np
import pytest

from unlabeled.core.audit.probe import logistic, probe, reduced
from unlabeled.core.errors import DataError
from unlabeled.core.intervals import newcombe_area


def test_a_planted_property_is_found() -> None:
    rng = np.random.default_rng(0)
    y = rng.random(400) < 0.4
    x = rng.normal(size=(400, 10))
    x[:, 3] += 2 * y
    found = probe(x, np.where(y, "AP", "PA"), samples=100)
    assert found.auroc.low > 0.8
    assert found.auroc.low > found.chance
    assert found.p == pytest.approx(1 / 201)
    assert found.values == {"AP": int(y.sum()), "PA": int((~y).sum())}


def test_nothing_is_found_where_nothing_is() -> None:
    rng = np.random.default_rng(1)
    p = [probe(rng.normal(size=(200, 8)), rng.choice(["F", "M"], 200), samples=5, shuffles=40).p for _ in range(20)]
    assert sum(value < 0.05 for value in p) <= 4
    assert 0.2 < np.mean(p) < 0.8


def test_three_values_missing_ones_and_rare_ones() -> None:
    rng = np.random.default_rng(2)
    bands = rng.choice(["young", "middle", "old"], 300).astype(object)
    x = rng.normal(size=(300, 6))
    x[:, 0] += 3 * (bands == "old")
    bands[:5], bands[5:30] = "infant", None
    found = probe(x, bands, samples=50, shuffles=20)
    assert set(found.values) == {"young", "middle", "old"}
    assert found.left_out == {"infant": 5}
    assert np.isnan(found.scores[:30]).all()
    # "old" is told well, the other two from each other not at all.
    assert 0.6 < found.auroc.value < 0.95


def test_rows_of_one_unit_do_not_teach_about_each_other() -> None:
    # Features name the person, the property is a coin a person: only a leak between folds could tell it.
    rng = np.random.default_rng(3)
    person = np.repeat(np.arange(100), 4)
    x = rng.normal(size=(100, 60))[person] + 0.01 * rng.normal(size=(400, 60))
    coin = rng.choice(["head", "tail"], 100)[person]
    together = probe(x, coin, units=person, samples=50, shuffles=60)
    apart = probe(x, coin, samples=50, shuffles=5)
    assert apart.auroc.value > 0.85
    assert together.auroc.value < 0.65
    # Nor do the rows of a person count as many: shuffling rows one by one would have found this far from chance.
    assert together.p > 0.02


def test_wide_and_constant_features_are_reduced_without_the_values() -> None:
    x = np.random.default_rng(4).normal(size=(50, 200))
    assert reduced(x).shape == (50, 64)
    x[:, 1:] = 7.0
    assert reduced(x).shape == (50, 1)
    assert reduced(np.ones((5, 3))).shape == (5, 1)
    constant = probe(np.ones((60, 3)), ["a", "b"] * 30, samples=5, shuffles=5)
    assert constant.auroc.value == pytest.approx(0.5)


def test_what_cannot_be_probed_is_refused() -> None:
    for x, values, message in (
        (np.zeros((40, 2)), ["a"] * 40, "two values of at least 20 each, got a: 40"),
        (np.zeros((40, 2)), [None] * 40, "nothing is known"),
        (np.full((40, 2), np.nan), ["a", "b"] * 20, "finite"),
        (np.zeros((40, 2)), ["a", "b"], "as many values"),
    ):
        with pytest.raises(DataError, match=message):
            probe(x, values)


def test_the_regression_is_the_one_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(5)
    x = rng.normal(size=(300, 7))
    y = np.stack([x[:, 0] + rng.normal(size=300) > 0.8, rng.random(300) < 0.3], axis=1)
    weights, bias = logistic(x, y, penalty=2.0)
    for v in range(2):
        theirs = LogisticRegression(C=0.5, tol=1e-8).fit(x, y[:, v])
        np.testing.assert_allclose(weights[:, v], theirs.coef_[0], atol=5e-3)
        assert bias[v] == pytest.approx(theirs.intercept_[0], abs=5e-3)


def test_what_is_told_without_fail_is_not_certain() -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(60, 3)) + 40 * np.repeat([0, 1], 30)[:, None]
    found = probe(x, np.repeat(["a", "b"], 30), samples=50, shuffles=5).auroc
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(newcombe_area(1.0, 30, 30, 0.95)[0])
    assert 0.9 < found.low < 0.97
    # Units, not rows, count; several values have the mean of their intervals.
    person, where = np.repeat(np.arange(60), 4), np.repeat(np.arange(3), 20)
    x = np.eye(3)[where][person] * 40 + rng.normal(size=(240, 3))
    several = probe(x, np.array(list("abc"))[where][person], units=person, samples=50, shuffles=5).auroc
    assert several == pytest.approx((1, newcombe_area(1.0, 20, 40, 0.95)[0], 1))
