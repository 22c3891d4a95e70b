import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from unlabeled.core import calibration, evaluation
from unlabeled.core.intervals import newcombe_area

Y = np.array([0, 0, 0, 0, 1, 1, 1, 1])
S = np.array([0.1, 0.4, 0.35, 0.8, 0.3, 0.6, 0.9, 0.95])


def test_metrics_by_hand() -> None:
    # Of 16 pairs, the positive is higher in: .3 beats .1 (1), .6 beats 3, .9 and .95 beat 4 each.
    assert evaluation.roc_auc(Y, S) == pytest.approx(12 / 16)
    # Precision at each positive, from the top: 1/1, 2/2, 3/4, 4/7.
    assert evaluation.average_precision(Y, S) == pytest.approx((1 + 1 + 3 / 4 + 4 / 7) / 4)
    assert evaluation.sensitivity_specificity(Y, S >= 0.6) == (0.75, 0.75)
    assert evaluation.precision_at(Y, S, top=3) == pytest.approx(2 / 3)
    # Half of the positives are found at .9, without a negative; three at .6 with .8 above it.
    assert evaluation.false_alarms_at_recall(Y, S, recall=0.5) == 0
    assert evaluation.false_alarms_at_recall(Y, S, recall=0.75) == 1
    assert evaluation.recall_at_false_positive_rate(Y, S, rate=0.25) == 0.75
    assert evaluation.recall_at_false_positive_rate(Y, S, rate=0.0) == 0.5


def test_balanced_accuracy_agrees_with_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    y, called = draw.integers(0, 2, 200), draw.integers(0, 2, 200)
    assert evaluation.balanced_accuracy(y, called) == pytest.approx(balanced_accuracy_score(y, called))


def test_calibration_error_by_hand() -> None:
    # Two bins of ten: p = .95 with 3 of 4 true, p = .05 with 0 of 4 true.
    y, p = [1, 1, 1, 0, 0, 0, 0, 0], [0.95] * 4 + [0.05] * 4
    assert evaluation.expected_calibration_error(y, p, bins=10) == pytest.approx(0.5 * 0.2 + 0.5 * 0.05)


def test_metrics_that_need_both_classes_say_so() -> None:
    with pytest.raises(ValueError, match="both classes"):
        evaluation.roc_auc([1, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match="at least one positive"):
        evaluation.average_precision([0, 0], [0.1, 0.2])


def test_a_bootstrap_interval_of_a_mean_has_the_textbook_width() -> None:
    x = np.random.default_rng(1).normal(size=400)
    value, low, high = evaluation.bootstrap(lambda v: float(np.mean(v)), x, samples=3000)
    half = 1.96 * x.std() / 20
    assert value == pytest.approx(x.mean())
    assert (high - low) / 2 == pytest.approx(half, rel=0.08)


def test_patients_are_drawn_whole() -> None:
    """Ten copies of each of 20 values carry the information of 20, not of 200."""
    x = np.random.default_rng(2).normal(size=20)
    copies, patient = np.repeat(x, 10), np.repeat(np.arange(20), 10)
    mean = lambda v: float(np.mean(v))  # noqa: E731
    whole = evaluation.bootstrap(mean, copies, groups=patient, samples=2000)
    single = evaluation.bootstrap(mean, copies, samples=2000)
    assert (whole.high - whole.low) == pytest.approx(np.sqrt(10) * (single.high - single.low), rel=0.15)


TEN = np.repeat([0, 1], 10)


@pytest.mark.parametrize(
    ("metric", "low"),
    [
        # Wilson's lower end of n of n is n / (n + z^2).
        (evaluation.sensitivity, 10 / (10 + 1.959964**2)),
        (evaluation.specificity, 10 / (10 + 1.959964**2)),
        (evaluation.average_precision, 10 / (10 + 1.959964**2)),
        (evaluation.accuracy, 20 / (20 + 1.959964**2)),
        # Two independent rates of one half each: their distances to 1 squared and added.
        (evaluation.balanced_accuracy, 1 - np.sqrt(2) / 2 * (1.959964**2 / (10 + 1.959964**2))),
        # (1 - a)^2 100 = z^2 a (1 - a) (1 + 9 ((1 - a) / (2 - a) + a / (1 + a))): 3.992 on either side.
        (evaluation.roc_auc, 0.8002),
    ],
)
def test_all_right_on_ten_patients_of_either_kind_is_not_certain(metric: evaluation.Metric, low: float) -> None:
    found = evaluation.bootstrap(metric, TEN, TEN, groups=np.arange(20), samples=200)
    assert found == pytest.approx((1, low, 1), abs=1e-4)
    # Pictures of the same twenty patients say no more.
    many = evaluation.bootstrap(metric, *([np.repeat(TEN, 5)] * 2), groups=np.repeat(np.arange(20), 5), samples=200)
    assert many == pytest.approx(found)


def test_all_wrong_is_as_unsure_as_all_right() -> None:
    right = evaluation.bootstrap(evaluation.roc_auc, TEN, TEN, samples=100)
    wrong = evaluation.bootstrap(evaluation.roc_auc, TEN, 1 - TEN, samples=100)
    assert wrong == pytest.approx((0, 1 - right.high, 1 - right.low), abs=1e-9)
    nobody = evaluation.bootstrap(evaluation.share, np.zeros(50), groups=np.arange(50) // 2, samples=100)
    assert nobody == pytest.approx((0, 0, 1.959964**2 / (25 + 1.959964**2)), abs=1e-6)


def test_the_interval_of_an_area_is_that_of_its_equation() -> None:
    # (a - 0.9)^2 = z^2 a (1 - a) (1 + k ((1 - a) / (2 - a) + a / (1 + a))) / (m n), with k = (m + n) / 2 - 1.
    for a in newcombe_area(0.9, 30, 60, 0.95):
        spread = a * (1 - a) * (1 + 44 * ((1 - a) / (2 - a) + a / (1 + a))) / (30 * 60)
        assert abs(a - 0.9) == pytest.approx(1.959964 * np.sqrt(spread), rel=1e-5)


def test_an_area_of_one_holds_the_true_one_as_often_as_promised() -> None:
    """Draws from curves whose area is known, of which many are perfect: the interval then comes from the equation."""
    from scipy.stats import norm

    rng, kept, perfect = np.random.default_rng(0), 0, 0
    for _ in range(150):
        ill, well = rng.normal(np.sqrt(2) * norm.ppf(0.95), 1, 10), rng.normal(0, 1, 10)
        found = evaluation.bootstrap(evaluation.roc_auc, TEN, np.concatenate([well, ill]), samples=100)
        perfect += found.value == 1
        kept += found.value < 1 or found.low <= 0.95 <= found.high
    assert perfect > 10
    assert kept == 150


def test_an_interval_over_runs_is_student_s() -> None:
    value, low, high = evaluation.over_runs([1.0, 2.0, 3.0])
    assert value == 2
    assert high - value == pytest.approx(4.3027 / np.sqrt(3), rel=1e-4)
    assert low == pytest.approx(2 * value - high)
    assert np.isnan(evaluation.over_runs([1.0]).low)


@settings(max_examples=60, deadline=None)
@given(
    positive=st.lists(st.floats(-5, 5), min_size=1, max_size=40),
    negative=st.lists(st.floats(-5, 5), max_size=40),
    sensitivity=st.floats(0.05, 1),
)
def test_a_threshold_at_a_sensitivity_keeps_it_and_a_higher_one_does_not(
    positive: list[float], negative: list[float], sensitivity: float
) -> None:
    y = np.array([1] * len(positive) + [0] * len(negative))
    score = np.array(positive + negative)
    threshold = calibration.threshold_at_sensitivity(y, score, sensitivity)
    found = score[y == 1]
    assert (found >= threshold).mean() >= sensitivity - 1e-12
    assert (found > threshold).mean() < sensitivity


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=30))
def test_no_other_threshold_has_a_higher_balanced_accuracy(cases: list[tuple[bool, int]]) -> None:
    y, score = np.array([c[0] for c in cases]), np.array([float(c[1]) for c in cases])
    if y.all() or not y.any():
        with pytest.raises(ValueError, match="both classes"):
            calibration.threshold_for_balanced_accuracy(y, score)
        return
    threshold = calibration.threshold_for_balanced_accuracy(y, score)
    best = max(evaluation.balanced_accuracy(y, score >= t) for t in np.arange(-0.5, 9))
    assert evaluation.balanced_accuracy(y, score >= threshold) == pytest.approx(best)


def test_the_conformal_threshold_by_hand() -> None:
    scores = np.arange(1, 100)  # 99 held-out normal scores
    assert calibration.threshold_at_false_alarm_rate(scores, 0.05) == 95
    assert calibration.threshold_at_false_alarm_rate(scores, 0.01) == 99
    assert calibration.threshold_at_false_alarm_rate(scores, 0.009) == np.inf


def test_the_stated_false_alarm_rate_is_kept_on_average() -> None:
    draw = np.random.default_rng(0)
    rates = []
    for _ in range(400):
        threshold = calibration.threshold_at_false_alarm_rate(draw.normal(size=60), 0.1)
        rates.append((draw.normal(size=500) > threshold).mean())
    assert np.mean(rates) <= 0.1 + 0.005
    assert np.mean(rates) > 0.08


def test_conformal_p_values_by_hand() -> None:
    assert calibration.p_values([1, 2, 3, 4], [0, 2.5, 4, 9]).tolist() == [1.0, 0.6, 0.4, 0.2]


def test_temperature_undoes_overconfidence() -> None:
    draw = np.random.default_rng(0)
    logit = draw.normal(size=20_000) * 2
    y = draw.random(20_000) < 1 / (1 + np.exp(-logit))
    assert calibration.temperature(y, 3 * logit) == pytest.approx(3, rel=0.05)


def test_net_benefit_by_hand() -> None:
    y, p = [1, 1, 0, 0, 0], [0.9, 0.2, 0.8, 0.3, 0.1]
    # At .25: two treated wrongly, one rightly; a wrong one costs a third of a right one.
    assert evaluation.net_benefit(y, p, threshold=0.25) == pytest.approx(1 / 5 - 2 / 5 / 3)
    # Treating everybody is worth the share of the ill, less the rest at the price of the threshold.
    assert evaluation.net_benefit(y, np.ones(5), threshold=0.5) == pytest.approx(2 / 5 - 3 / 5)
    with pytest.raises(ValueError, match="between 0 and 1, got 1"):
        evaluation.net_benefit(y, p, threshold=1.0)


def test_areas_of_strata_are_as_sure_as_their_pairs() -> None:
    assert newcombe_area(0.9, [10], [12], 0.95) == newcombe_area(0.9, 10, 12, 0.95)
    # By hand, with 10 x 10 pairs in either of two: (1 - a)^2 pairs = z^2 a (1 - a) (1 + more c(a)) at the lower end.
    low = newcombe_area(1.0, [10, 10], [10, 10], 0.95)[0]
    c = (1 - low) / (2 - low) + low / (1 + low)
    assert (1 - low) * 200 == pytest.approx(1.959964**2 * low * (1 + 9 * c), rel=1e-4)
    assert newcombe_area(1.0, 10, 10, 0.95)[0] < low < newcombe_area(1.0, 20, 20, 0.95)[0]


def test_an_error_of_calibration_lies_in_its_interval_which_reaches_the_truth() -> None:
    rng = np.random.default_rng(0)
    error, draws = evaluation.expected_calibration_error, 40
    nothing, something = 0, 0
    x = rng.beta(0.5, 0.5, 200_000)
    twice = x**2 / (x**2 + (1 - x) ** 2)
    truth = error(x, twice)  # bins by the stated probability, frequencies without noise
    for draw in range(draws):
        p = rng.beta(0.5, 0.5, 120)
        y = (rng.random(120) < p).astype(int)
        honest = evaluation.bootstrap(error, y, p, samples=100, seed=draw)
        sure = evaluation.bootstrap(error, y, p**2 / (p**2 + (1 - p) ** 2), samples=100, seed=draw)
        assert 0 <= honest.low <= honest.value <= honest.high
        assert 0 <= sure.low <= sure.value <= sure.high
        nothing += honest.low == 0
        something += sure.low <= truth <= sure.high
    # 0.79 and 0.97 over 300 draws, less three standard deviations; percentiles of the draws: 0.00 and 0.22.
    assert nothing / draws > 0.59
    assert something / draws > 0.88


def test_an_error_of_calibration_that_no_draw_moves_is_not_certain() -> None:
    y = np.repeat([0, 1], 10)
    found = evaluation.bootstrap(evaluation.expected_calibration_error, y, y.astype(float), samples=50)
    hidden = 1.959964**2 / (20 + 1.959964**2)
    assert found == pytest.approx((0, 0, hidden), abs=1e-6)
    found = evaluation.bootstrap(evaluation.expected_calibration_error, y, 0.1 + 0.8 * y, samples=50)
    assert found == pytest.approx((0.1, 0, 0.1 + hidden), abs=1e-6)
