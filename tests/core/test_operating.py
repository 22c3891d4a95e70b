"""A threshold at a stated sensitivity: by hand, and how often it keeps the promise."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from unlabeled.core.operating import clopper_pearson, operating_point, positives_needed


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (7, 10), (10, 10), (95, 100)])
def test_the_exact_interval_is_scipys(successes: int, trials: int) -> None:
    theirs = binomtest(successes, trials).proportion_ci(method="exact")
    found = clopper_pearson(successes, trials)
    assert (found.value, found.low, found.high) == pytest.approx((successes / trials, theirs.low, theirs.high))


def test_the_threshold_by_hand() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    scores = np.array([0.1, 0.2, 0.3, 0.7, 0.25, 0.6, 0.8, 0.9])
    point = operating_point(labels, scores, 0.75)
    # Three of four positives are at 0.6 or above; the next lower score is 0.3.
    assert point.threshold == pytest.approx(0.45)
    assert (point.sensitivity.value, point.specificity.value) == (0.75, 0.75)
    assert (point.positives, point.negatives, point.patients) == (4, 4, 4)
    all_ = operating_point(labels, scores, 0.76)
    assert all_.threshold == pytest.approx(0.225)
    assert (all_.sensitivity.value, all_.specificity.value) == (1, 0.5)
    assert "On 4 held-out positives of 4 patients" in all_.says()
    assert "40% is possible" in all_.says()
    # With four positives nothing is 95 % sure; that is said.
    unsure = operating_point(labels, scores, 0.76, assured=True)
    assert not unsure.reached
    assert unsure.threshold == all_.threshold
    assert f"{positives_needed(0.76)} would be needed" in unsure.says()


def test_wilks_numbers() -> None:
    assert positives_needed(0.95) == 59
    assert positives_needed(0.9) == 29


def test_patients_with_many_pictures_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(60) % 2, 6)
    scores = np.repeat(rng.normal(size=60), 6) + labels
    by_patient = operating_point(labels, scores, 0.8, groups=np.repeat(np.arange(60), 6)).over_patients[0]
    by_picture = operating_point(labels, scores, 0.8).over_patients[0]
    assert by_patient.high - by_patient.low > 1.5 * (by_picture.high - by_picture.low)


def test_what_is_said_of_a_threshold_is_said_over_patients() -> None:
    labels, scores = np.repeat([0, 1], 40), np.repeat([0.1, 0.9], 40)
    point = operating_point(labels, scores, 0.9, groups=np.repeat(np.arange(20), 4), samples=50)
    # Ten ill patients, all found on all of 40 pictures: Wilson's interval of ten of ten.
    assert point.over_patients[0] == pytest.approx((1, 10 / (10 + 1.959964**2), 1), abs=1e-6)
    assert "finds 1.000 [0.722, 1.000] and spares 1.000 [0.722, 1.000]" in point.says()
    # The exact one, of ten patients and not of forty pictures: 0.025 to the tenth root.
    assert point.sensitivity.low == pytest.approx(0.025**0.1)
    assert "69% is possible" in point.says()


def test_an_assured_sensitivity_is_kept_nineteen_times_in_twenty() -> None:
    rng = np.random.default_rng(2)
    kept, plain, draws = 0, 0, 600
    for _ in range(draws):
        labels, scores = np.repeat([0, 1], [20, 100]), rng.random(120)
        for assured in (True, False):
            threshold = operating_point(labels, scores, 0.9, assured=assured, samples=0).threshold
            if assured:
                kept += 1 - threshold >= 0.9  # of uniform positives, that share is above
            else:
                plain += 1 - threshold >= 0.9
    assert kept / draws >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / draws)
    assert plain / draws < 0.8  # which is why it is offered


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ValueError, match=r"above 0 and at most 1, got 1\.2"):
        operating_point([0, 1], [0.1, 0.9], 1.2)
    with pytest.raises(ValueError, match="both classes"):
        operating_point([1, 1], [0.1, 0.9], 0.9)


def repeated(rng: np.random.Generator, *, ill: int, pictures: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores and patients: pictures of an ill patient score nearly alike, those of the well lower."""
    positive = (rng.normal(size=ill)[:, None] + 0.1 * rng.normal(size=(ill, pictures))).ravel()
    labels, scores = np.repeat([1, 0], [ill * pictures, 40]), np.concatenate([positive, rng.normal(-3, 1, 40)])
    return labels, scores, np.concatenate([np.repeat(np.arange(ill), pictures), 1000 + np.arange(40)])


def test_an_assured_sensitivity_is_kept_where_patients_have_many_pictures() -> None:
    rng = np.random.default_rng(3)
    draws, kept, by_picture = 400, 0, 0
    for _ in range(draws):
        labels, scores, patients = repeated(rng, ill=20, pictures=10)
        point = operating_point(labels, scores, 0.8, groups=patients, assured=True, samples=0)
        alone = operating_point(labels, scores, 0.8, assured=True, samples=0)
        assert point.reached
        kept, by_picture = (
            count + (norm.sf(one.threshold / np.sqrt(1.01)) >= 0.8)
            for count, one in ((kept, point), (by_picture, alone))
        )
    assert kept / draws >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / draws)
    assert by_picture / draws < 0.9  # which is why patients are counted


def test_pictures_of_few_patients_assure_nothing() -> None:
    labels, scores, patients = repeated(np.random.default_rng(4), ill=8, pictures=10)
    point = operating_point(labels, scores, 0.95, groups=patients, assured=True, samples=20)
    assert not point.reached
    assert (point.positives, point.patients) == (80, 8)
    assert "of so few patients, no threshold is 95 % sure to find 95%: 59 would be needed" in point.says()
    assert point.threshold < scores[labels == 1].min()
    enough, scored, who = repeated(np.random.default_rng(4), ill=59, pictures=2)
    assert operating_point(enough, scored, 0.95, groups=who, assured=True, samples=0).reached


def test_assured_by_the_lowest_picture_of_each_patient() -> None:
    # 14 ill patients (Wilks' number for 80 %), of whom each has a picture at 0.9 and a lower one.
    lower = np.linspace(0.3, 0.8, 14)
    labels = np.concatenate([np.ones(28), np.zeros(14)])
    scores = np.concatenate([np.full(14, 0.9), lower, np.full(14, 0.1)])
    point = operating_point(labels, scores, 0.8, groups=np.tile(np.arange(14), 3), assured=True, samples=0)
    assert point.reached
    assert point.threshold == pytest.approx(0.2)  # the lowest of the lower ones, halfway to the next score
    assert operating_point(labels, scores, 0.8, assured=True, samples=0).threshold > 0.3
