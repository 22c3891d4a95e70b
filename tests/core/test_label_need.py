"""Learning curves with known parameters: found again, foretold about as surely as stated, and priced."""

import numpy as np
import pytest

from unlabeled.core.errors import DataError
from unlabeled.core.label_need import Curve, advise, check_by_hiding, extrapolate, fit, measure

COUNTS = np.array([25, 50, 100, 200, 400, 800])


def curve(a: float, b: float, c: float, *, noise: float, seed: int, seeds: int = 5) -> Curve:
    rng = np.random.default_rng(seed)
    spread = noise * np.sqrt(100 / COUNTS)[:, None]
    return Curve(counts=COUNTS, errors=(a + b * COUNTS**-c)[:, None] + spread * rng.normal(size=(6, seeds)))


def test_parameters_are_found_again_where_there_is_no_noise() -> None:
    exact = curve(0.05, 1.2, 0.5, noise=0.0, seed=0)
    law = fit(exact)
    assert law(COUNTS) == pytest.approx(exact.errors[:, 0], abs=1e-3)
    assert law(5000) == pytest.approx(0.05 + 1.2 * 5000**-0.5, abs=2e-3)
    assert law.c == pytest.approx(0.5, abs=0.03)


def test_a_curve_that_rises_or_is_flat_is_taken_as_flat() -> None:
    flat = fit(Curve(counts=COUNTS, errors=np.full((6, 5), 0.2)))
    assert flat([10, 10_000]) == pytest.approx([0.2, 0.2])
    rising = fit(Curve(counts=COUNTS, errors=np.linspace(0.1, 0.3, 6)[:, None] * np.ones(5)))
    assert rising(25) == pytest.approx(rising(10_000))
    assert rising.b == 0


def test_nothing_below_zero_is_foretold() -> None:
    for seed in range(10):
        assert all(e.low >= 0 <= e.value for e in extrapolate(curve(0, 0.5, 1.0, noise=0.03, seed=seed), [1e5]))


@pytest.mark.parametrize("truth", [(0.05, 1.0, 0.5), (0.02, 0.6, 0.3), (0.1, 2.0, 0.8)])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(truth: tuple[float, float, float]) -> None:
    # Of 150 curves with a true rate of .95, fewer than 133 hits (.887) have a probability below 1 in 1,000.
    a, b, c = truth
    hits = 0
    for seed in range(150):
        (far,) = extrapolate(curve(a, b, c, noise=0.02, seed=seed), [1600], samples=150)
        hits += far.low <= a + b * 1600**-c <= far.high
    assert hits >= 133


def test_the_interval_is_no_wider_than_it_has_to_be() -> None:
    wide = [e.high - e.low for s in range(20) for e in extrapolate(curve(0.05, 1, 0.5, noise=0.02, seed=s), [1600])]
    assert np.median(wide) < 0.06  # the error itself is .075
    sure = extrapolate(curve(0.05, 1, 0.5, noise=0.002, seed=0), [1600])[0]
    assert sure.high - sure.low < 0.012


def test_the_hidden_half_is_foretold() -> None:
    inside = [h.inside for seed in range(60) for h in check_by_hiding(curve(0.05, 1, 0.5, noise=0.02, seed=seed))]
    assert len(inside) == 180
    assert np.mean(inside) > 0.88
    # A curve that breaks off in its upper half is caught out.
    broken = curve(0.05, 1.0, 0.5, noise=0.003, seed=1)
    errors = broken.errors.copy()
    errors[3:] = errors[2] + 0.1
    assert not any(h.inside for h in check_by_hiding(Curve(counts=COUNTS, errors=errors)))
    assert check_by_hiding(Curve(counts=COUNTS[:4], errors=broken.errors[:4])) == []


def test_advice_by_hand() -> None:
    # 10 k^-1: from 800 to 1,000 labels the error falls from 1.25 to 1.00 hundredths.
    exact = Curve(counts=COUNTS, errors=(10 / COUNTS)[:, None] * np.ones(5))
    told = advise(exact, 200, price=5)
    assert (told.now, told.more) == (800, 200)
    assert told.gain.value == pytest.approx(0.25, abs=0.01)
    assert told.price_a_point == pytest.approx(1000 / 0.25, rel=0.05)
    assert str(told).startswith("Another 200 labels (beyond 800) gain about 0.")
    assert "at EUR 5 a label that is EUR" in str(told)
    none = advise(Curve(counts=COUNTS, errors=np.full((6, 5), 0.2)), 100, price=5)
    assert none.gain.value == 0
    assert none.price_a_point == np.inf
    assert "they may gain nothing. Stop here, unless 0.0 points would be worth it." in str(none)
    assert "Stop" not in str(advise(exact, 10_000, price=5))


def test_every_point_is_measured_once_and_known_ones_never() -> None:
    asked: list[tuple[int, int]] = []

    def learner(count: int, seed: int) -> float:
        asked.append((count, seed))
        return 1 / count + seed

    told: list[tuple[str, int, int, float]] = []
    found = measure(
        {"ours": learner}, [10, 20], [0, 1], known={("ours", 10, 1): 0.5}, log=lambda *point: told.append(point)
    )
    assert asked == [(10, 0), (20, 0), (20, 1)]
    assert found["ours"].errors.tolist() == [[0.1, 0.5], [0.05, 1.05]]
    assert told[0] == ("ours", 10, 0, 0.1)
    assert len(told) == 3


def test_what_is_no_curve_is_refused() -> None:
    with pytest.raises(DataError, match="must rise"):
        Curve(counts=np.array([50, 25]), errors=np.ones((2, 3)))
    with pytest.raises(DataError, match="finite errors"):
        Curve(counts=np.array([25, 50]), errors=np.full((2, 3), np.nan))
    with pytest.raises(DataError, match="at least 3 label counts"):
        fit(Curve(counts=np.array([25, 50]), errors=np.ones((2, 3))))
    with pytest.raises(DataError, match="at least 3 seeds, got 1"):
        extrapolate(Curve(counts=COUNTS, errors=np.ones((6, 1))), [1000])
