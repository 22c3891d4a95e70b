"""Another prevalence: Bayes' rule, the published algorithm, and noticing that more has changed."""

import numpy as np
import pytest
from scipy.optimize import brentq, check_grad

from unlabeled.core.calibration import temperature
from unlabeled.core.prevalence import _Likelihood, by_confusion, estimate, maximum_likelihood, recalibrate


def normals(rng: np.random.Generator, count: int, share: float, *, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Two unit normals at 0 and 2: labels, and exact probabilities at even odds."""
    labels = (rng.random(count) < share).astype(int)
    x = rng.normal(2 * labels, 1) + shift
    return labels, 1 / (1 + np.exp(-(2 * x - 2)))


def test_bayes_rule_by_hand() -> None:
    # At even odds .8 means a likelihood ratio of 4; at one in five that is 4 x 1/4 = even odds.
    assert recalibrate([0.8, 0.5, 0.0, 1.0], before=0.5, now=0.2) == pytest.approx([0.5, 0.2, 0, 1])
    back = recalibrate(recalibrate([0.3], before=0.5, now=0.1), before=0.1, now=0.5)
    assert back == pytest.approx([0.3])
    with pytest.raises(ValueError, match="between 0 and 1, got 0"):
        recalibrate([0.5], before=0.5, now=0.0)


def test_recalibrated_probabilities_are_those_of_the_shifted_world() -> None:
    _, p = normals(np.random.default_rng(0), 50, 0.1)
    x = (np.log(p / (1 - p)) + 2) / 2
    density = np.exp(-((x - 2) ** 2) / 2) * 0.1, np.exp(-(x**2) / 2) * 0.9
    np.testing.assert_allclose(recalibrate(p, before=0.5, now=0.1), density[0] / (density[0] + density[1]))


def test_the_estimate_is_where_the_published_algorithm_ends() -> None:
    _, p = normals(np.random.default_rng(1), 400, 0.2)
    share = 0.5
    for _ in range(3000):  # Saerens et al. (2002), equation 7
        share = float(recalibrate(p, before=0.5, now=share).mean())
    assert maximum_likelihood(p, before=0.5) == pytest.approx(share, abs=1e-5)


def test_calls_counted_by_hand() -> None:
    # .9 of positives and .2 of negatives are called: .34 called = .9 s + .2 (1 - s), s = .2.
    called = np.repeat([1, 0], [34, 66])
    assert by_confusion(called, sensitivity=0.9, specificity=0.8) == pytest.approx(0.2)
    assert np.isnan(by_confusion(called, sensitivity=0.5, specificity=0.5))


@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
def test_a_planted_prevalence_is_found_and_believed(share: float) -> None:
    rng = np.random.default_rng(3)
    labels, held = normals(rng, 1000, 0.5)
    _, new = normals(rng, 1000, share)
    found = estimate(new, held_labels=labels, held_probability=held)
    assert found.share.low <= share <= found.share.high
    assert found.share.high - found.share.low < 0.12
    assert abs(found.by_calls - share) < 0.06
    assert found.believable
    assert "nothing but the prevalence" in found.says()


def test_the_test_of_the_assumption_objects_as_rarely_as_it_says() -> None:
    rng = np.random.default_rng(4)
    objections = 0
    for draw in range(60):
        labels, held = normals(rng, 120, 0.5)
        _, new = normals(rng, 150, 0.2)
        found = estimate(new, held_labels=labels, held_probability=held, samples=60, seed=draw)
        objections += not found.believable
    assert objections <= 9  # 5 % of 60, and three standard deviations


def test_scores_that_moved_as_a_whole_are_no_change_of_prevalence() -> None:
    rng = np.random.default_rng(5)
    labels, held = normals(rng, 600, 0.5)
    _, moved = normals(rng, 600, 0.5, shift=1.5)
    found = estimate(moved, held_labels=labels, held_probability=held)
    assert not found.believable
    assert found.says().count("Do not rely on it") == 1


def test_of_few_patients_nothing_is_estimated() -> None:
    rng = np.random.default_rng(6)
    labels, held = normals(rng, 100, 0.5)
    _, new = normals(rng, 60, 0.1)
    with pytest.raises(ValueError, match="from 50 patients or more, got 20"):
        estimate(new[:20], held_labels=labels, held_probability=held)
    with pytest.raises(ValueError, match="from 50 patients or more, got 20"):  # three pictures of each
        estimate(new, held_labels=labels, held_probability=held, groups=np.repeat(np.arange(20), 3))


def test_fifty_healthy_patients_do_not_make_a_finding_impossible() -> None:
    rng = np.random.default_rng(7)
    labels, held = normals(rng, 200, 0.5)
    found = estimate(1 / (1 + np.exp(-rng.normal(-4, 0.5, 50))), held_labels=labels, held_probability=held, samples=1)
    assert 0 < found.share.low < found.share.value < 0.05
    assert found.share.high > 3 / 50 / 2  # of nothing among fifty, the rule of three says 3 / 50
    assert recalibrate([0.4], before=0.5, now=found.share.value)[0] > 1e-3


def test_classes_that_scores_tell_apart_are_counted() -> None:
    """Six of sixty; the share and its interval are then a binomial's, half a case of each class added."""
    held = np.repeat([1e-5, 1 - 1e-5], 500)
    new = np.repeat([1e-5, 1 - 1e-5], [54, 6])
    found = estimate(new, held_labels=held > 0.5, held_probability=held, samples=1).share

    def fall(share: float) -> float:
        log_likelihood = [6.5 * np.log(s) + 54.5 * np.log(1 - s) for s in (6.5 / 61, share)]
        return 2 * float(log_likelihood[0] - log_likelihood[1]) - 3.841459

    by_hand = 6.5 / 61, brentq(fall, 1e-6, 6.5 / 61), brentq(fall, 6.5 / 61, 1 - 1e-6)
    assert found == pytest.approx(by_hand, abs=2e-3)


@pytest.mark.parametrize(("patients", "share", "held"), [(50, 0.1, 200), (1000, 0.1, 120)])
def test_the_interval_holds_the_share_as_often_as_it_says(patients: int, share: float, held: int) -> None:
    """Also where new patients are many and those few that the probabilities were learnt from decide."""
    rng = np.random.default_rng(8)
    held_labels, draws = np.repeat([0, 1], held // 2), 60
    inside = 0
    for _ in range(draws):
        x = rng.normal(2.0 * held_labels - 1, 1)
        new = rng.normal(2.0 * (rng.random(patients) < share) - 1, 1)
        scale = temperature(held_labels, x)
        p_held, p_new = (1 / (1 + np.exp(-z / scale)) for z in (x, new))
        found = estimate(p_new, held_labels=held_labels, held_probability=p_held, samples=1).share
        inside += found.low <= share <= found.high
    assert inside / draws >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / draws)


def test_copies_of_pictures_of_the_same_patients_say_no_more() -> None:
    rng = np.random.default_rng(9)
    labels, held = normals(rng, 200, 0.5)
    _, new = normals(rng, 80, 0.3)
    once = estimate(new, held_labels=labels, held_probability=held, samples=1).share
    often = estimate(
        np.repeat(new, 5), held_labels=np.repeat(labels, 3), held_probability=np.repeat(held, 3),
        groups=np.repeat(np.arange(80), 5), held_groups=np.repeat(np.arange(200), 3), samples=1,
    ).share  # fmt: skip
    assert often == pytest.approx(once, abs=1e-3)
    alone = estimate(np.repeat(new, 5), held_labels=labels, held_probability=held, samples=1).share
    assert often.high - often.low > 1.3 * (alone.high - alone.low)


def test_the_slope_of_the_likelihood_is_its_slope() -> None:
    rng = np.random.default_rng(10)
    labels, held = normals(rng, 40, 0.5)
    _, new = normals(rng, 60, 0.3)
    likelihood = _Likelihood(new, held[labels == 1], held[labels == 0], said_by=(30.0, 40.0))
    for at in (np.array([0.0, 0.0, 0.0]), np.array([-2.0, 0.4, 0.7]), np.array([1.5, -1.0, -0.5])):
        assert check_grad(lambda x: likelihood._loss(*x)[0], lambda x: likelihood._loss(*x)[1], at) < 1e-4
