import numpy as np
import pytest

from unlabeled.fraud.blend import Blend
from unlabeled.fraud.unsupervised import Unsupervised, rarity


def _world(rng: np.random.Generator, frauds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    y = np.repeat([1, 0], [frauds, 20 * frauds])
    x = rng.normal(size=(len(y), 5)).astype(np.float32)
    return x, rng.exponential(size=len(y)) + 4.0 * y, y


def test_few_frauds_lean_on_the_unsupervised_score_and_many_do_not(rng: np.random.Generator) -> None:
    shares = [Blend().fit(*_world(rng, frauds)).share_ for frauds in (10, 90, 990)]
    assert shares == [0.5, 0.1, 0.01]


def test_features_without_meaning_do_not_drown_a_telling_score(rng: np.random.Generator) -> None:
    x, score, y = _world(rng, 10)
    new_x, new_score, truth = _world(rng, 50)
    probability = Blend().fit(x, score, y).score(new_x, new_score)
    assert ((probability > 0) & (probability < 1)).all()
    assert probability[truth == 1].mean() > 3 * probability[truth == 0].mean()


def test_a_score_that_points_the_wrong_way_is_not_followed(rng: np.random.Generator) -> None:
    x, score, y = _world(rng, 20)
    fitted = Blend().fit(x, -score, y)
    assert fitted.slope_ == 0
    np.testing.assert_array_equal(fitted.score(x, score), fitted.score(x, score + 9))


def test_it_comes_back_from_text(rng: np.random.Generator) -> None:
    x, score, y = _world(rng, 15)
    fitted = Blend(seed=3).fit(x, score, y)
    back = Blend.from_saved(fitted.to_json(), fitted.to_text())
    np.testing.assert_array_equal(back.score(x, score), fitted.score(x, score))


def test_rarity_is_minus_the_log_of_the_share_above() -> None:
    columns = {"alone ahead total": np.arange(10_001.0)}
    fitted = Unsupervised().fit(columns)
    quantiles = fitted.quantiles_["surprise"]
    at = rarity(np.array([5_000.0, 9_000.0, 9_990.0]), quantiles)
    assert at == pytest.approx(-np.log([0.5, 0.1, 0.001]), rel=1e-3)
    # Beyond the highest known quantile: one more factor of ten for each last decade's width.
    assert rarity(np.array([9_990.0 + 90.0]), quantiles)[0] == pytest.approx(-np.log(0.0001), rel=1e-3)
    assert (np.diff(fitted.score({"alone ahead total": np.linspace(0, 3e4, 50)})) >= 0).all()
    assert Unsupervised.from_json(fitted.to_json()).score(columns) == pytest.approx(fitted.score(columns))
