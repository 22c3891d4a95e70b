"""Another prevalence: Bayes' rule, the published algorithm, and noticing that more has changed."""

import numpy as np
import pytest

from unlabeled.core.prevalence import by_confusion, estimate, maximum_likelihood, recalibrate


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
    assert found.share.high - found.share.low < 0.1
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
