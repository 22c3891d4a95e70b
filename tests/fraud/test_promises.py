"""Promises that are easily broken unseen: what a payment may read, who learns from which labels, losses by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from unlabeled.fraud import FraudDetector, Transactions, baselines, blend, transactions
from unlabeled.fraud.histories import Groups
from unlabeled.fraud.velocity import risk_features
from unlabeled.pipelines import fraud
from unlabeled.pipelines._fraud_compare import OURS, Scored, verdict

Parts = tuple[Transactions, Transactions]


def test_without_a_delay_a_tied_payment_still_does_not_read_its_own_label_nor_a_later_one() -> None:
    label = np.array([1, 1, 0], dtype=np.int8)
    made = risk_features(np.full(3, 5.0), label, Groups.of([0, 0, 0]), delay=0.0)
    assert made["merchant known payments 1d"].tolist() == [0, 1, 2]
    assert made["merchant fraud share 1d"].tolist() == [0, 1, 1]


def test_payments_of_one_time_stand_in_the_order_of_their_ids() -> None:
    frame = pd.DataFrame({"tx_id": [3, 1, 2], "time": 0.0, "customer": "a", "amount": [30.0, 10.0, 20.0]})
    assert transactions(frame).frame["row_id"].tolist() == [1, 2, 3]


def test_surprise_given_the_past_does_not_read_the_payment_itself(pretrained: FraudDetector, parts: Parts) -> None:
    table = parts[1]
    row = np.array([len(table) - 1])
    frame = table.frame.copy()
    frame.loc[row, "amount"] = 9_999.0
    other = Transactions(table.roles, frame, table.given, table.skipped)
    for model in pretrained.models_:
        a, b = model.read(table, row), model.read(other, row)
        rest = [i for i, name in enumerate(model.fields.names) if name != "amount"]
        np.testing.assert_allclose(a.ahead[:, rest], b.ahead[:, rest], rtol=1e-5)
        np.testing.assert_allclose(a.lagged[:, rest], b.lagged[:, rest], rtol=1e-5)
        assert not np.allclose(a.rest[:, rest], b.rest[:, rest])


@pytest.mark.parametrize(("good", "tone", "words"), [(True, "good", "a gain"), (False, "bad", "worse than")])
def test_a_loss_is_called_a_loss(
    detector: FraudDetector, parts: Parts, rng: np.random.Generator, good: bool, tone: str, words: str
) -> None:
    new = parts[1]
    telling, noise = (new.label == 1) + rng.random(len(new)), rng.random(len(new))
    scores = {OURS: telling if good else noise, "theirs": noise if good else telling}
    compared, text, colour = verdict(Scored(detector, parts[0], new, scores, None, budget=3), 5)
    assert colour == tone
    assert words in text
    assert [c.metric.split()[0] for c in compared] == ["average", "false", "false", "recall"]
    assert all((c.gain()[1] > 0) == good for c in compared)


def test_a_payment_of_unknown_label_judges_nothing(
    detector: FraudDetector, parts: Parts, rng: np.random.Generator
) -> None:
    new = parts[1]
    unknown = (rng.random(len(new)) < 0.5) & (new.label == 0)
    scores = {OURS: rng.random(len(new)) - 2.0 * unknown, "theirs": rng.random(len(new)) - 2.0 * unknown}
    hidden = new.with_labels(np.where(unknown, -1, new.label))
    known = new.take(~unknown)
    some, _, _ = verdict(Scored(detector, parts[0], hidden, scores, None, budget=10**6), 5)
    rest, _, _ = verdict(
        Scored(detector, parts[0], known, {n: s[~unknown] for n, s in scores.items()}, None, budget=10**6), 5
    )
    assert some == rest


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("n_frauds", [None, 20])
def test_lightgbm_beside_ours_learns_from_the_very_same_labelled_payments(
    n_frauds: int | None, table: pd.DataFrame, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    given: dict[str, Any] = {}

    def spied(name: str, fit: Any) -> Any:
        def spy(x: Any, y: Any, **options: Any) -> Any:
            given[name] = (x[:, 0].copy(), np.asarray(y).copy())  # the first feature is the amount
            return fit(x, y, **options)

        return spy

    for name, module in (("ours", blend), ("theirs", baselines)):
        monkeypatch.setattr(module, "timed", spied(name, module.timed))
    forest = baselines.IsolationForest.fit

    def spy_forest(self: Any, x: Any) -> Any:
        given["unlabelled"] = len(x)
        return forest(self, x)

    monkeypatch.setattr(baselines.IsolationForest, "fit", spy_forest)
    table.to_parquet(in_tmp / "t.parquet")
    cut = pd.Timestamp("2026-02-02")
    done = fraud.backtest(
        in_tmp / "t.parquet", out=in_tmp / "o", train_until=str(cut.date()), n_frauds=n_frauds, steps=5
    )
    for ours, theirs in zip(given["ours"], given["theirs"], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert given["unlabelled"] == (table["time"] < cut).sum()
    tags = MlflowClient(f"sqlite:///{in_tmp}/mlflow.db").get_run(str(done.run_id)).data.tags
    assert tags["unlabeled.pretraining_run"] == done.details["pretraining_run"]
