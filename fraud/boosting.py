"""LightGBM with one fixed setting, the same for the baseline and for ours."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Few labels need small leaves; every tree sees half of the features, since many say nearly the same.
SETTINGS: dict[str, Any] = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 5,
    "feature_fraction": 0.5,
    "lambda_l2": 1.0,
    "verbosity": -1,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
}
ROUNDS = 300


def fit_lightgbm(x: NDArray[np.float32], y: NDArray, *, seed: int) -> Any:
    """A booster on labelled rows (y 0 or 1)."""
    import lightgbm

    data = lightgbm.Dataset(x, label=np.asarray(y, dtype=np.float32), free_raw_data=True)
    return lightgbm.train({**SETTINGS, "seed": seed}, data, num_boost_round=ROUNDS)


def training_curve(booster: Any, x: NDArray[np.float32], y: NDArray, *, every: int = 20) -> list[tuple[int, float]]:
    """Mean negative log-likelihood of the labels it was fitted to (every k-th of very many), in nats, after so many
    trees."""
    some = slice(None, None, max(1, len(x) // 20_000))
    x, truth = x[some], np.asarray(y, dtype=float)[some]
    curve = []
    for trees in range(every, ROUNDS + 1, every):
        p = np.clip(booster.predict(x, num_iteration=trees, num_threads=1), 1e-12, 1 - 1e-12)
        curve.append((trees, float(-np.mean(truth * np.log(p) + (1 - truth) * np.log(1 - p)))))
    return curve


def predict(booster: Any, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probability of fraud, (N,)."""
    return np.asarray(booster.predict(x, num_threads=1), dtype=float)


def raw_score(booster: Any, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log odds of fraud, (N,)."""
    return np.asarray(booster.predict(x, raw_score=True, num_threads=1), dtype=float)


def contributions(booster: Any, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """How much each feature adds to the log odds of each row, (N, P) (Lundberg et al., 2020: TreeSHAP)."""
    return np.asarray(booster.predict(x, pred_contrib=True, num_threads=1), dtype=float)[:, :-1]


def to_text(booster: Any) -> str:
    return str(booster.model_to_string())


def from_text(text: str) -> Any:
    import lightgbm

    return lightgbm.Booster(model_str=text)
