import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf

from unlabeled.core.normality import Mahalanobis, NearestNeighbour, NormalModel, PyODDetector, robust_scale

DRAW = np.random.default_rng(0)
NORMAL, LATER = DRAW.normal(size=(300, 4)) @ DRAW.normal(size=(4, 4)), DRAW.normal(size=(100, 4))


def test_mahalanobis_equals_scipy_s() -> None:
    estimate = LedoitWolf().fit(NORMAL)
    expected = [mahalanobis(row, estimate.location_, estimate.precision_) / 2 for row in LATER]
    np.testing.assert_allclose(Mahalanobis().fit(NORMAL).score(LATER), expected)


def test_nearest_neighbour_by_hand() -> None:
    points = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 20.0], [2.0, 20.0]])
    # Standardised, the four points are (+-1, +-1); the centre is sqrt(2) from each.
    assert NearestNeighbour(k=2).fit(points).score(np.array([[1.0, 10.0], [0.0, 0.0]])) == pytest.approx([2**0.5, 1.0])


@pytest.mark.parametrize("detector", [Mahalanobis(), NearestNeighbour()])
def test_a_row_s_score_is_bit_identical_alone_and_among_others(detector: Mahalanobis | NearestNeighbour) -> None:
    detector.fit(NORMAL)
    together = detector.score(LATER)
    assert np.array_equal(together, np.concatenate([detector.score(row[None]) for row in LATER]))


def test_robust_scale_by_hand_and_never_zero() -> None:
    assert robust_scale([1, 2, 3, 4, 1000]) == (3, pytest.approx(1.4826))
    assert robust_scale([5, 5, 5])[1] > 0


def test_held_out_normal_data_scores_around_zero_with_a_spread_of_one_in_every_part() -> None:
    fit, held_out, new = np.split(DRAW.normal(size=(900, 3)), 3)
    model = NormalModel({"m": Mahalanobis(), "n": NearestNeighbour()}).fit(fit, held_out)
    for part in model.parts(new).values():
        assert abs(np.median(part)) < 0.3
        assert 0.7 < 1.4826 * np.median(np.abs(part - np.median(part))) < 1.4
    far = model.score(new + 10)
    assert far.min() > 5


def test_other_scores_join_on_the_same_scale_and_must_all_come_again() -> None:
    model = NormalModel({"m": Mahalanobis()}).fit(NORMAL, LATER, others={"rms": LATER[:, 0] * 1000})
    parts = model.parts(LATER, {"rms": LATER[:, 0] * 1000})
    assert np.median(parts["rms"]) == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(model.score(LATER, {"rms": LATER[:, 0] * 1000}), (parts["m"] + parts["rms"]) / 2)
    with pytest.raises(ValueError, match=r"fitted on the scores \['m', 'rms'\], got \['m'\]"):
        model.score(LATER)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_pyod_detector_takes_part_by_instance() -> None:
    from pyod.models.hbos import HBOS

    model = NormalModel({"hbos": PyODDetector(HBOS())}).fit(NORMAL, NORMAL)
    assert model.score(NORMAL + 100).min() > np.quantile(model.score(NORMAL), 0.9)
