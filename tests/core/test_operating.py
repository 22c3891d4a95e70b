"""A threshold at a stated sensitivity: by hand, and how often it keeps the promise."""

import numpy as np
import pytest
from scipy.stats import binomtest

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
    assert "72% is possible" in point.says()


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
