"""Error rates and calibration are promises: by hand, against scikit-learn, and over many draws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from unlabeled.core.calibration import p_values
from unlabeled.core.conformal import Abstention, needed, venn_abers


def test_p_values_weigh_each_patient_the_same() -> None:
    # Without groups: (1 + number at least as high) / (4 + 1).
    assert p_values([1, 2, 3, 4], [0, 2.5, 4, 9]).tolist() == [1.0, 0.6, 0.4, 0.2]
    assert p_values([1, 5, 2, 2], [0, 1.5, 2, 3]).tolist() == [1.0, 0.8, 0.8, 0.4]
    # Patient a has scores 1, 2, 3 and patient b 4: at 2.5, a third of a and all of b are as high.
    found = p_values([1, 2, 3, 4], [2.5, 5.0], groups=["a", "a", "a", "b"])
    np.testing.assert_allclose(found, [(1 + 1 / 3 + 1) / 3, 1 / 3])


def test_p_values_of_new_patients_are_valid_where_patients_have_many_pictures() -> None:
    rng = np.random.default_rng(0)
    wrong = []
    for _ in range(2000):
        sizes = rng.integers(1, 8, 40)
        of = np.repeat(np.arange(40), sizes)
        # Patients with many pictures are stranger: counting pictures would not see it.
        scores = rng.normal(0, 1, 40)[of] + 0.3 * rng.normal(size=len(of)) - 0.3 * sizes[of]
        size = rng.integers(1, 8)
        new = rng.normal() + 0.3 * rng.normal() - 0.3 * size
        wrong.append(p_values(scores, [new], groups=of)[0] <= 0.1)
    assert np.mean(wrong) <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 2000)
    assert np.mean(wrong) > 0.05


@pytest.mark.parametrize(("rate", "count"), [(0.05, 19), (0.1, 9), (0.01, 99), (0.5, 1)])
def test_how_many_cases_a_rate_needs(rate: float, count: int) -> None:
    assert needed(rate) == count
    strangest = p_values(np.zeros(count), [1.0])[0]
    assert strangest <= rate + 1e-12
    assert p_values(np.zeros(count - 1), [1.0])[0] > rate


def test_calls_by_hand() -> None:
    # Nine of either class: the smallest p-value is 1/10. Positives 1..9, negatives -9..-1 with one at 2.5.
    labels = np.repeat([1, 0], 9)
    scores = np.concatenate([np.arange(1.0, 10), [-8.0, -7, -6, -5, -4, -3, -2, -1, 2.5]])
    calls = Abstention(labels=labels, scores=scores, rate=0.1).decide([-5.0, 2.2, 5.0, 1.0])
    # -5: no positive is as low (p = .1, excluded), six negatives are as high (p = .7).
    # 2.2: two positives are as low (p = .3), one negative as high (p = .2): neither is excluded.
    # 5: no negative is as high. 1.0: one positive as low (p = .2), one negative as high (p = .2).
    assert calls.called.tolist() == [0, -1, 1, -1]
    np.testing.assert_allclose(calls.positive, [0.1, 0.3, 0.6, 0.2])
    np.testing.assert_allclose(calls.negative, [0.7, 0.2, 0.1, 0.2])


def test_calls_count_patients_and_not_their_pictures_by_hand() -> None:
    # Positive: patient 7 with scores 1, 2, 3 and patient 2 with 4. Negative: patient 5 with -3, -2 and patient 9 at 2.
    labels = np.array([1, 1, 1, 1, 0, 0, 0])
    scores, groups = np.array([1.0, 2, 3, 4, -3, -2, 2]), np.array([7, 7, 7, 2, 5, 5, 9])
    patients = Abstention(labels=labels, scores=scores, groups=groups, rate=0.3)
    assert patients.available() == (2, 2)
    calls = patients.decide([2.5, 9.0, -2.5])
    # 2.5 and 9: two thirds of patient 7, and all of both, are as low; nobody negative is as high. -2.5: nobody positive
    # is as low; half of patient 5 and all of 9 are as high.
    np.testing.assert_allclose(calls.positive, [(1 + 2 / 3) / 3, 1.0, 1 / 3])
    np.testing.assert_allclose(calls.negative, [1 / 3, 1 / 3, (1 + 1 / 2 + 1) / 3])
    assert calls.called.tolist() == [-1, -1, -1]  # with two patients a class no p-value is below a third
    # Were the pictures seven patients, 1 / 4 and 1 / 5 would exclude.
    alone = Abstention(labels=labels, scores=scores, rate=0.3).decide([2.5, 9.0, -2.5])
    assert alone.called.tolist() == [1, 1, 0]


def test_too_few_cases_of_a_class_promise_nothing_about_it() -> None:
    labels, scores = np.array([1] * 5 + [0] * 30), np.concatenate([np.full(5, 3.0), np.linspace(-3, 0, 30)])
    few = Abstention(labels=labels, scores=scores, rate=0.05)
    # Pneumonia can never be excluded, so nobody is called free of it.
    assert few.available() == (30, 5)
    assert few.decide([-9.0, 9.0]).called.tolist() == [-1, 1]
    both = Abstention(labels=labels[:10], scores=scores[:10], rate=0.05)
    assert (both.decide(np.linspace(-9, 9, 50)).called == -1).all()


def test_a_gap_between_the_classes_is_called_by_the_nearer_one() -> None:
    labels = np.repeat([1, 0], 30)
    scores = np.concatenate([np.linspace(5, 9, 30), np.linspace(-9, -5, 30)])
    assert Abstention(labels=labels, scores=scores, rate=0.2).decide([-4.9, 4.9]).called.tolist() == [-1, -1]
    # Both are excluded to the same degree in the middle of the gap; within a class, the other one is excluded more.
    assert Abstention(labels=labels, scores=scores, rate=0.2).decide([-5.3, 5.3]).called.tolist() == [0, 1]


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_of_either_class_at_most_the_stated_share_is_called_wrongly(rate: float) -> None:
    rng = np.random.default_rng(1)
    wrong = {0: 0, 1: 0}
    draws = 1500
    for _ in range(draws):
        labels = np.repeat([0, 1], [60, 35])
        held = rng.normal(1.5 * labels, 1)
        calls = Abstention(labels=labels, scores=held, rate=rate).decide(rng.normal([0, 1.5], 1)).called
        wrong[0] += int(calls[0] == 1)
        wrong[1] += int(calls[1] == 0)
    for count in wrong.values():
        assert count / draws <= rate + 3 * np.sqrt(rate * (1 - rate) / draws)
        assert count / draws > rate / 3  # not by referring everybody


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1, got 1"):
        Abstention(labels=np.array([0, 1]), scores=np.zeros(2), rate=1.0)
    with pytest.raises(ValueError, match="must be 0 or 1, one a score"):
        Abstention(labels=np.array([0, 2]), scores=np.zeros(2))
    with pytest.raises(ValueError, match="need held-out cases"):
        venn_abers([], [], [0.0])


def defined(labels: np.ndarray, scores: np.ndarray, new: float) -> tuple[float, float]:
    """The definition: two isotonic regressions a new case."""
    found = []
    for label in (0, 1):
        fit = IsotonicRegression().fit(np.append(scores, new), np.append(labels, label))
        found.append(float(fit.predict([new])[0]))
    return found[0], found[1]


@settings(max_examples=60, deadline=None)
@given(
    cases=st.lists(st.tuples(st.integers(0, 1), st.integers(-6, 6)), min_size=1, max_size=25),
    asked=st.lists(st.integers(-7, 7), min_size=1, max_size=6),
)
def test_venn_abers_is_scikit_learns_isotonic_regression_twice(cases: list[tuple[int, int]], asked: list[int]) -> None:
    labels, scores = np.array([c[0] for c in cases]), np.array([c[1] for c in cases], dtype=float)
    new = np.array(asked) / 2  # between the held-out scores, on them, and beyond
    found = venn_abers(labels, scores, new)
    expected = np.array([defined(labels, scores, value) for value in new])
    np.testing.assert_allclose(np.stack([found.low, found.high], axis=1), expected, atol=1e-9)
    assert (found.low <= found.value + 1e-12).all()
    assert (found.value <= found.high + 1e-12).all()


def test_venn_abers_follows_the_score_and_narrows_with_more_cases() -> None:
    rng = np.random.default_rng(0)

    def fitted(count: int) -> np.ndarray:
        scores = rng.normal(0, 2, count)
        labels = rng.random(count) < 1 / (1 + np.exp(-3 * scores))  # scores three times too shy
        return np.array(venn_abers(labels, scores, np.linspace(-1, 1, 21)))

    few, many = fitted(40), fitted(4000)
    assert (np.diff(many, axis=1) >= -1e-12).all()
    assert (many[2] - many[1]).mean() < 0.2 * (few[2] - few[1]).mean()
    assert np.abs(many[0] - 1 / (1 + np.exp(-3 * np.linspace(-1, 1, 21)))).mean() < 0.05
