import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlabeled.core.audit import (
    alignment,
    deviation,
    effective_rank,
    linear_probe,
    nearest_neighbours_accuracy,
    uniformity,
)
from unlabeled.core.evaluation import roc_auc

seeds = st.integers(0, 2**32 - 1)
shapes = st.tuples(st.integers(2, 12), st.integers(2, 12))


def cloud(seed: int, shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def rotation(seed: int, d: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


def test_effective_rank_by_hand() -> None:
    assert effective_rank(np.eye(4)) == pytest.approx(4)
    # Singular values 3 and 1: p = 3/4, 1/4.
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert effective_rank(np.diag([3.0, 1.0])) == pytest.approx(expected)
    assert effective_rank(np.tile([1.0, -2.0, 5.0], (7, 1))) == pytest.approx(1)
    assert effective_rank(np.zeros((3, 2))) == 0


@given(seeds, shapes, st.floats(0.01, 100))
@settings(deadline=None)
def test_effective_rank_lies_between_one_and_the_smaller_side_and_heeds_neither_rotation_nor_scale(
    seed: int, shape: tuple[int, int], scale: float
) -> None:
    x = cloud(seed, shape)
    rank = effective_rank(x)
    assert 1 <= rank <= min(shape) + 1e-9
    assert effective_rank(scale * x @ rotation(seed, shape[1])) == pytest.approx(rank)
    assert effective_rank(np.concatenate([x, np.zeros((3, shape[1]))])) == pytest.approx(rank)


def test_deviation_by_hand() -> None:
    # On the sphere (1, 0), (0, 1): each dimension has standard deviation 1/2, times sqrt(2).
    assert deviation([[3.0, 0.0], [0.0, 0.5]]) == pytest.approx(math.sqrt(2) / 2)
    assert deviation(np.tile([1.0, 2.0], (5, 1))) == pytest.approx(0, abs=1e-12)
    assert deviation(cloud(0, (4000, 16))) == pytest.approx(1, abs=0.01)


@given(seeds, shapes)
@settings(deadline=None)
def test_deviation_is_a_share_and_heeds_no_row_s_length(seed: int, shape: tuple[int, int]) -> None:
    x = cloud(seed, shape)
    lengths = np.random.default_rng(seed).uniform(0.1, 10, size=(shape[0], 1))
    assert 0 <= deviation(x) <= 1 + 1e-9
    assert deviation(x * lengths) == pytest.approx(deviation(x))


def test_alignment_and_uniformity_by_hand() -> None:
    x, turned = np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([[0.0, 3.0], [0.0, 1.0]])
    assert alignment(x, x) == 0
    assert alignment(x, turned) == pytest.approx((2 + 0) / 2)
    assert alignment(x, -x) == pytest.approx(4)
    # Squared distances of (1,0), (0,1), (-1,0): 2, 2 and 4.
    three = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]
    assert uniformity(three) == pytest.approx(math.log((2 * math.exp(-4) + math.exp(-8)) / 3))
    assert uniformity(np.tile([1.0, 1.0], (4, 1))) == pytest.approx(0)


@given(seeds, shapes)
@settings(deadline=None)
def test_alignment_and_uniformity_heed_no_rotation(seed: int, shape: tuple[int, int]) -> None:
    x, y, r = cloud(seed, shape), cloud(seed + 1, shape), rotation(seed, shape[1])
    assert alignment(x @ r, y @ r) == pytest.approx(alignment(x, y))
    assert uniformity(x @ r) == pytest.approx(uniformity(x))
    assert -8 - 1e-9 <= uniformity(x) <= 1e-9


def test_nearest_neighbours_by_hand() -> None:
    angle = np.deg2rad([0, 5, 90, 95, 11])
    x, y = np.stack([np.cos(angle), np.sin(angle)], axis=1), np.array([0, 0, 1, 1, 1])
    # Each row's nearest other: 0-5, 5-0, 90-95, 95-90, and 11-5, of the other class.
    assert nearest_neighbours_accuracy(x, y, k=1) == pytest.approx(4 / 5)
    assert nearest_neighbours_accuracy(x[:4], y[:4], test=(x[4:], [0]), k=3) == 1
    assert nearest_neighbours_accuracy(x[:4], y[:4], test=(x[4:], [1]), k=3) == 0


def test_a_near_neighbour_outvotes_two_far_ones_by_hand() -> None:
    angle = np.deg2rad([5, 40, 45])
    x, y, asked = np.stack([np.cos(angle), np.sin(angle)], axis=1), np.array([0, 1, 1]), [[1.0, 0.0]]
    # exp((cosine - 1) / 0.07): 0.947 against 0.035 + 0.015.
    assert nearest_neighbours_accuracy(x, y, test=(asked, [0]), k=3) == 1
    # The higher the temperature, the more alike are the votes: exp((cosine - 1) / 10) is 1.000 against 0.977 + 0.971.
    assert nearest_neighbours_accuracy(x, y, test=(asked, [1]), k=3, temperature=10) == 1


def test_the_nearest_neighbours_leave_the_row_itself_out() -> None:
    x, y = cloud(0, (200, 5)), np.random.default_rng(1).integers(0, 2, 200)
    assert nearest_neighbours_accuracy(x, y, k=1) < 0.65


@pytest.mark.parametrize("classes", [2, 3])
def test_the_linear_probe_judges_each_row_by_a_fit_without_it(classes: int) -> None:
    x, y = cloud(0, (30, 4)), np.arange(30) % classes
    x[:, 0] += y
    centred = x - x.mean(axis=0)
    penalty = 1e-2 * (centred**2).sum() / 30
    scores = np.empty((30, classes))
    for row in range(30):
        rest = np.arange(30) != row
        mean, targets = x[rest].mean(axis=0), np.where(y[rest, None] == np.arange(classes), 1.0, -1.0)
        z = x[rest] - mean
        weights = np.linalg.solve(z.T @ z + penalty * np.eye(4), z.T @ (targets - targets.mean(axis=0)))
        scores[row] = targets.mean(axis=0) + (x[row] - mean) @ weights
    expected = roc_auc(y, scores[:, 1]) if classes == 2 else float((scores.argmax(axis=1) == y).mean())
    assert linear_probe(x, y) == pytest.approx(expected)
    assert linear_probe(7 * x @ rotation(3, 4), y) == pytest.approx(expected)


def test_the_linear_probe_of_noise_is_no_better_than_chance_and_of_the_label_is_perfect() -> None:
    y = np.arange(100) % 2
    assert linear_probe(cloud(0, (100, 50)), y) == pytest.approx(0.5, abs=0.15)
    assert linear_probe(np.stack([y, 1 - y], axis=1), y) == 1


@pytest.mark.parametrize("measure", [effective_rank, deviation, uniformity])
def test_what_is_no_matrix_of_numbers_is_refused(measure: object) -> None:
    assert callable(measure)
    with pytest.raises(ValueError, match=r"shape \(N, D\), got \(3,\)"):
        measure([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="finite"):
        measure([[1.0, np.nan], [0.0, 1.0]])


def test_labels_that_cannot_be_judged_by_are_refused() -> None:
    x = cloud(0, (4, 2))
    with pytest.raises(ValueError, match="two classes with two rows each, got 3 x 0, 1 x 1"):
        linear_probe(x, [0, 0, 0, 1])
    with pytest.raises(ValueError, match=r"got \(3,\) for 4 rows"):
        nearest_neighbours_accuracy(x, [0, 1, 0])
    with pytest.raises(ValueError, match="at least one neighbour"):
        nearest_neighbours_accuracy(x[:1], [0])
    with pytest.raises(ValueError, match="one shape"):
        alignment(x, x[:3])
    with pytest.raises(ValueError, match="pairs"):
        uniformity(x[:1])
