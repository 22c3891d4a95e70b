"""LightGBM with one fixed setting, the same for the baseline and for ours."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unlabeled.core.budget import Budget, Spent
from unlabeled.core.meter import measure, predict_rounds

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
# Trees that a prediction of the cost is made from.
MEASURED = 20


def fit_lightgbm(
    x: NDArray[np.float32], y: NDArray, *, seed: int, rounds: int = ROUNDS, laps: list[float] | None = None
) -> Any:
    """A booster on labelled rows (y 0 or 1).

    Args:
        rounds: trees.
        laps: takes the seconds of each tree; the first with what goes before it.
    """
    import lightgbm

    began = time.monotonic()

    def lap(env: Any) -> None:
        assert laps is not None
        laps.append(time.monotonic() - began - sum(laps))

    data = lightgbm.Dataset(x, label=np.asarray(y, dtype=np.float32), free_raw_data=True)
    watched = [] if laps is None else [lap]
    return lightgbm.train({**SETTINGS, "seed": seed}, data, num_boost_round=rounds, callbacks=watched)


def timed(x: NDArray[np.float32], y: NDArray, *, seed: int, label: str) -> tuple[Any, Budget, Spent]:
    """:func:`fit_lightgbm`, what it would cost as far as its first trees told, and what it did."""
    laps: list[float] = []
    booster = fit_lightgbm(x, y, seed=seed, laps=laps)
    predicted = predicted_cost(laps, shape=x.shape, label=label)
    cpu = torch.device("cpu")
    spent = measure(label, steps=len(laps), seconds=sum(laps), predicted=predicted, device=cpu)
    return booster, predicted, spent


def predicted_cost(laps: Sequence[float], *, shape: tuple[int, int], label: str) -> Budget:
    """The cost of all trees on a matrix of this shape, from its first :data:`MEASURED`; LightGBM keeps one byte a
    value."""
    memory, threads = shape[0] * shape[1], SETTINGS["num_threads"]
    return predict_rounds(laps[:MEASURED], label=label, rounds=ROUNDS, learning_bytes=memory, threads=threads)


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
