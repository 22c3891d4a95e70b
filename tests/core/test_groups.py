"""Group audits: numbers by hand, planted gaps, and input that says little."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlabeled.core.audit.groups import METRICS, NOT_KNOWN, OTHERS, Rate, audit_groups, holm
from unlabeled.core.errors import DataError
from unlabeled.core.evaluation import expected_calibration_error, roc_auc


def cohort(n: int = 800, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    y = rng.random(n) < 0.5
    p = 1 / (1 + np.exp(-(rng.normal(size=n) + 3 * y - 1.5)))
    return y.astype(int), p, rng


def test_numbers_by_hand() -> None:
    # Group a: two of four ill are missed, one of four well is called. Group b: nothing is wrong.
    y = np.array([1, 1, 1, 1, 0, 0, 0, 0] * 2)
    p = np.array([0.9, 0.8, 0.3, 0.2, 0.7, 0.4, 0.2, 0.1, 0.9, 0.9, 0.8, 0.8, 0.2, 0.2, 0.1, 0.1])
    found = audit_groups(y, p, p >= 0.5, {"g": ["a"] * 8 + ["b"] * 8}, least=4, samples=50)
    a, b = found.groups
    assert (a.value, a.rows, a.positives, a.negatives) == ("a", 8, 4, 4)
    value = {name: estimate.value for name, estimate in a.estimates.items()}
    assert value["sensitivity"] == value["underdiagnosis rate"] == pytest.approx(0.5)
    assert value["specificity"] == pytest.approx(0.75)
    assert value["false positive rate"] == pytest.approx(0.25)
    # 16 pairs: .9 and .8 beat all four, .3 beats .2 and .1, .2 ties with .2 and beats .1.
    assert value["AUROC"] == pytest.approx((4 + 4 + 2 + 1.5) / 16)
    assert value["calibration in the large"] == pytest.approx(p[:8].mean() - 0.5, abs=1e-6)
    assert value["calibration error"] == pytest.approx(expected_calibration_error(y[:8], p[:8]), abs=1e-6)
    assert b.estimates["AUROC"].value == 1
    assert 0.5 < b.estimates["AUROC"].low < 0.8
    assert b.estimates["AUROC"].high == 1
    assert value["share ill"] == pytest.approx(0.5)
    assert a.estimates["share ill"].low < 0.5 < a.estimates["share ill"].high
    # Nobody missed among four ill: Wilson's upper bound is z^2 / (n + z^2).
    assert b.estimates["underdiagnosis rate"].low == 0
    assert b.estimates["underdiagnosis rate"].high == pytest.approx(1.959964**2 / (4 + 1.959964**2), abs=1e-4)
    gap = next(g for g in found.gaps if g.metric == "underdiagnosis rate")
    assert (gap.higher, gap.lower, gap.difference.value) == ("a", "b", pytest.approx(0.5))
    assert found.compared == 4


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=4, max_size=60))
def test_the_area_is_that_of_the_one_used_everywhere(rows: list[tuple[bool, int]]) -> None:
    y, p = np.array([r[0] for r in rows]), np.array([r[1] for r in rows]) / 6
    found = audit_groups(y, p, p > 0.5, {}, least=1, samples=5)
    if y.all() or not y.any():
        assert "too few to say" in found.overall.note
    else:
        assert found.overall.estimates["AUROC"].value == pytest.approx(roc_auc(y, p))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_planted_gap_is_found_and_its_neighbours_are_not() -> None:
    y, p, rng = cohort()
    sex, view = rng.choice(["F", "M"], len(y)), rng.choice(["PA", "AP"], len(y))
    missed = (y == 1) & (sex == "F") & (rng.random(len(y)) < 0.4)
    p = np.where(missed, p * 0.05, p)
    found = audit_groups(y, p, p >= 0.5, {"sex": sex, "view": view})
    gaps = {(g.attribute, g.metric): g for g in found.gaps}
    planted = gaps["sex", "underdiagnosis rate"]
    assert (planted.higher, planted.lower) == ("F", "M")
    assert planted.adjusted < 0.001
    assert planted.difference.low > 0.15
    assert all(g.adjusted > 0.05 for (attribute, _), g in gaps.items() if attribute == "view")
    worst = max((g for g in found.groups if " x " in g.attribute), key=lambda g: g.estimates["underdiagnosis rate"])
    assert "F" in worst.value


def test_without_a_gap_false_findings_stay_at_their_rate() -> None:
    false = 0
    for seed in range(60):
        y, p, rng = cohort(300, seed=seed)
        found = audit_groups(
            y, p, p >= 0.5, {"sex": rng.choice(["F", "M"], 300), "band": rng.choice(list("abc"), 300)},
            samples=120, intersections=False,
        )  # fmt: skip
        false += any(gap.adjusted < 0.05 for gap in found.gaps)
    assert false <= 8  # 5 % of 60 is 3; more than 8 has a probability below 1 %


def test_intervals_grow_where_rows_belong_together() -> None:
    y, p, _ = cohort(300)
    ten = [np.repeat(array, 10) for array in (y, p)]
    apart = audit_groups(ten[0], ten[1], ten[1] >= 0.5, {}, samples=200).overall.estimates["AUROC"]
    joined = audit_groups(ten[0], ten[1], ten[1] >= 0.5, {}, units=np.repeat(np.arange(300), 10), samples=200)
    wide = joined.overall.estimates["AUROC"]
    assert wide.value == pytest.approx(apart.value)
    assert wide.high - wide.low > 2 * (apart.high - apart.low)
    assert joined.overall.units == 300


def test_groups_that_say_little_are_listed_and_said() -> None:
    y, p, _ = cohort(200)
    site = np.array(["big"] * 197 + ["tiny"] * 3)
    one_class = np.where(y == 1, "ill ward", "screening")
    half: list[object] = [None if i % 2 else "x" for i in range(200)]
    found = audit_groups(
        y, p, p >= 0.5,
        {"site": site, "ward": one_class, "device": ["one"] * 200, "sex": [None] * 200, "kind": half, "id": range(200)},
        intersections=False, samples=20,
    )  # fmt: skip
    groups = {(g.attribute, g.value): g for g in found.groups}
    assert groups["site", "tiny"].note.startswith("too few to say")
    assert not groups["site", "tiny"].estimates
    assert set(groups["site", "big"].estimates) == set(METRICS)
    assert "0 without, at least 20 of each" in groups["ward", "ill ward"].note
    assert groups["kind", NOT_KNOWN].rows == 100
    assert ("id", OTHERS) in groups
    assert not any(g.attribute in ("site", "ward", "kind") for g in found.gaps)
    text = "; ".join(found.notes)
    assert "device is 'one' for everybody" in text
    assert "sex is not known of anybody" in text
    assert "id has 200 values" in text


def test_what_cannot_be_audited_is_refused() -> None:
    for arguments, message in (
        (([1, 0], [0.5], [1, 0], {}), "got 2, 1, 2 and 2"),
        (([1, 2], [0.5, 0.5], [1, 0], {}), "labels must be 0 or 1"),
        (([1, 0], [0.5, np.nan], [1, 0], {}), "finite"),
        (([], [], [], {}), "no rows"),
        (([1, 0], [0.5, 0.5], [1, 0], {"sex": ["F"]}), "'sex' has 1 values for 2 rows"),
    ):
        with pytest.raises(DataError, match=message):
            audit_groups(*arguments)  # type: ignore[arg-type]


def test_numbers_do_not_depend_on_the_order_of_rows() -> None:
    y, p, rng = cohort(300)
    sex = rng.choice(["F", "M"], 300)
    shuffled = rng.permutation(300)
    one = audit_groups(y, p, p >= 0.5, {"sex": sex}, samples=10)
    other = audit_groups(y[shuffled], p[shuffled], p[shuffled] >= 0.5, {"sex": sex[shuffled]}, samples=10)
    for a, b in zip(one.groups, other.groups, strict=True):
        for name in METRICS:
            assert a.estimates[name].value == pytest.approx(b.estimates[name].value, abs=1e-6)


def test_further_rates_by_hand_and_compared_where_that_is_asked() -> None:
    y, p, rng = cohort(400)
    sex = rng.choice(["F", "M"], 400)
    referred = (sex == "F") & (np.arange(400) % 3 > 0)
    rates = {"referred": Rate(referred), "caught": Rate(p >= 0.2, y == 1, compared=True)}
    found = audit_groups(y, p, p >= 0.5, {"sex": sex}, rates=rates, samples=100)
    assert found.metrics == (*METRICS, "referred", "caught")
    groups = {g.value: g.estimates for g in found.groups}
    assert groups["F"]["referred"].value == pytest.approx(referred[sex == "F"].mean())
    assert groups["F"]["referred"].low < groups["F"]["referred"].value < groups["F"]["referred"].high
    # Nobody of 'M': Wilson's interval over its rows, each somebody.
    assert groups["M"]["referred"] == pytest.approx((0, 0, 1.959964**2 / ((sex == "M").sum() + 1.959964**2)), abs=1e-6)
    assert groups["M"]["caught"].value == pytest.approx((p >= 0.2)[(sex == "M") & (y == 1)].mean())
    assert {g.metric for g in found.gaps} >= {"caught"}
    assert "referred" not in {g.metric for g in found.gaps}
    assert found.compared == 5
    with pytest.raises(DataError, match="'short' has 2 and 400 values for 400 rows"):
        audit_groups(y, p, p >= 0.5, {}, rates={"short": Rate([1, 0])})
