"""Bands around curves: by hand where nothing moves, wider where patients have many pictures, around their curve."""

import numpy as np
import pytest

from unlabeled.core.evaluation import net_benefit
from unlabeled.medical import _bands as bands

Z2 = 1.959964**2


def scored(patients: int, pictures: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(patients) % 2, pictures)
    p = 1 / (1 + np.exp(-np.repeat(rng.normal(size=patients), pictures) - 2 * y + 1))
    return y, p, np.repeat(np.arange(patients), pictures).astype(str)


def test_a_perfect_curve_has_a_band_by_its_patients() -> None:
    y, patients = np.repeat([0, 1], 50), np.repeat(np.arange(20), 5).astype(str)
    band = bands.roc(y, y.astype(float), patients, samples=50)
    np.testing.assert_allclose(band.low[:-1], 10 / (10 + Z2), atol=1e-4)
    np.testing.assert_allclose(band.high, 1)
    assert band.low[-1] == 1  # whoever calls everybody ill finds all
    precision = bands.precision_recall(y, y.astype(float), patients, samples=50)
    np.testing.assert_allclose(precision.low, 10 / (10 + Z2), atol=1e-4)


def test_bands_lie_around_their_curves_and_widen_with_pictures_of_one_patient() -> None:
    few, many = scored(60, 1), scored(60, 6)
    alone = (*many[:2], np.arange(360).astype(str))
    thresholds = np.linspace(0.1, 0.9, 9)
    for curve in (bands.roc, bands.precision_recall, lambda *given: bands.net_benefit(*given, thresholds)):
        one, six, pictures = (curve(*given) for given in (few, many, alone))
        assert (one.low <= one.high).all()
        np.testing.assert_allclose(one.low, six.low, atol=1e-6)  # copies of the same sixty patients say no more
        assert (six.high - six.low).mean() > 1.5 * (pictures.high - pictures.low).mean()
    y, p, patients = few
    found = bands.net_benefit(y, p, patients, thresholds)
    value = np.array([net_benefit(y, p, threshold=t) for t in thresholds])
    assert (found.low <= value).all()
    assert (value <= found.high).all()


def test_draws_without_a_class_are_left_out() -> None:
    y, p, patients = np.array([0, 1, 1]), np.array([0.2, 0.6, 0.9]), np.array(list("abc"))
    assert np.isfinite(bands.roc(y, p, patients, samples=100).low).all()


def test_fifths_by_hand() -> None:
    y, p = np.array([0, 0, 0, 1, 0, 1, 1, 1, 1, 1]), np.linspace(0.05, 0.95, 10)
    stated, found = zip(*bands.fifths(y, p, np.arange(10).astype(str)), strict=True)
    assert stated == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    assert [one.value for one in found] == [0, 0.5, 0.5, 1, 1]
    assert found[0] == pytest.approx((0, 0, Z2 / (2 + Z2)), abs=1e-4)
    assert found[4].low == pytest.approx(2 / (2 + Z2), abs=1e-4)


def test_fifths_do_not_depend_on_the_order_of_files() -> None:
    """Probabilities of few values, files of the healthy before those of the ill: the frequency at a value is one."""
    rng = np.random.default_rng(1)
    y, p = np.repeat([0, 1], 150), rng.choice([0.2, 0.5, 0.55, 0.9], 300, p=[0.1, 0.5, 0.1, 0.3])
    patients = np.repeat(np.arange(150), 2).astype(str)
    found = bands.fifths(y, p, patients)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(300)
        assert bands.fifths(y[order], p[order], patients[order]) == found
    assert bands.fifths(y[::-1], p[::-1], patients[::-1]) == found
    one = bands.fifths(y, np.full(300, 0.5), patients)
    assert [(stated, share.value) for stated, share in one] == [(0.5, 0.5)]
    assert len(found) == 4
    assert [stated for stated, _ in found] == sorted({stated for stated, _ in found})
