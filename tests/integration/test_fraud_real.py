"""The fraud jobs on the shared tables, and a published figure."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from unlabeled.core.errors import DataError
from unlabeled.core.evaluation import average_precision, roc_auc
from unlabeled.fraud import FraudDetector, read_table, transactions
from unlabeled.fraud.histories import Groups
from unlabeled.fraud.readers import DAY
from unlabeled.fraud.velocity import velocity
from unlabeled.pipelines import fraud

pytestmark = pytest.mark.integration


@pytest.fixture(scope="session")
def payments(shared_data: Path) -> Path:
    return shared_data / "transactions"


def test_four_verbs_on_a_table_with_cards_merchants_and_places(payments: Path, in_tmp: Path) -> None:
    table = read_table(payments / "sparkov-sample" / "tx_200cust_2022.parquet")
    table = table[(table["customer_id"] < 70) & (table["unix_time"] < 1640995200 + 120 * DAY)]
    dirty = table.astype({"amount": object, "category": object})
    dirty.loc[dirty.index[3], "amount"] = "n/a"
    dirty.loc[dirty.index[4], "amount"] = -7.0
    dirty.sample(frac=1, random_state=0).astype({"amount": str}).to_parquet(in_tmp / "year.parquet")
    path, base, tuned = in_tmp / "year.parquet", in_tmp / "base", in_tmp / "tuned"

    learnt = fraud.pretrain(path, out=base, until="2022-04-01", steps=40)
    assert learnt.details["skipped"] == 2
    assert pd.read_csv(in_tmp / "base-skipped.csv")["reason"].nunique() == 2
    assert not (in_tmp / ".base.training").exists()
    fraud.finetune(path, model=base, out=tuned, until="2022-04-01", n_frauds=50)
    outcome = fraud.score(path, model=tuned, out=in_tmp / "alerts", budget=2, since="2022-04-01")

    alerts = pd.read_csv(outcome.files["alerts"])
    days = pd.to_datetime(alerts["time"]).dt.date
    assert days.value_counts().max() == 2
    assert (alerts["why"].str.len() > 10).all()
    assert outcome.details["auc"] > 0.9
    assert "<img" in outcome.files["report"].read_text()
    model = FraudDetector.load(tuned)
    assert model.manifest_["pretraining_run"] == learnt.run_id
    assert model.roles_.places is not None

    table.drop(columns="merchant_id").to_csv(in_tmp / "less.csv", index=False)
    with pytest.raises(DataError, match=r"no column for.*merchant_id"):
        fraud.score(in_tmp / "less.csv", model=tuned, out=in_tmp / "none")
    assert not (in_tmp / "none").exists()


def test_real_payments_without_cards(payments: Path, in_tmp: Path) -> None:
    """Half the rows, to be quick; the isolation forest and 60 labelled frauds for comparison."""
    table = read_table(payments / "ulb" / "ulb_0-36h.parquet")
    table.iloc[::2].to_parquet(in_tmp / "ulb.parquet")
    outcome = fraud.backtest(
        in_tmp / "ulb.parquet", out=in_tmp / "out", train_until="86400", label_delay=0.0, n_frauds=60, steps=60
    )
    ap = outcome.comparisons[0]
    assert ap.metric == "average precision"
    assert ap.ours.value > 0.6
    assert ap.ours.value > ap.baselines["isolation forest"].value
    assert set(ap.baselines) == {"LightGBM, same labels", "logistic regression, same labels", "isolation forest"}


def test_a_backtest_of_customers_and_terminals(payments: Path, in_tmp: Path) -> None:
    """A twentieth of the customers over ten weeks; all labels, each once its delay has passed."""
    table = read_table(payments / "handbook" / "tx_2018-04-01_2018-09-04.parquet")
    table = table[(table["customer_id"] % 20 == 0) & (table["time_s"] < 70 * DAY)]
    table.to_parquet(in_tmp / "part.parquet")
    outcome = fraud.backtest(in_tmp / "part.parquet", out=in_tmp / "out", steps=40, budget=10)
    assert outcome.details["frauds"] > 50
    text = outcome.files["report"].read_text()
    assert "fraud_scenario" in text  # shown as ignored
    model = FraudDetector.load(outcome.files["model"])
    assert model.plain_.risk
    assert not any("scenario" in name for name in model.feature_names_)
    assert outcome.comparisons[0].ours.value > 0.2
    with pytest.raises(DataError, match="labelled frauds were asked for"):
        fraud.backtest(in_tmp / "part.parquet", out=in_tmp / "more", n_frauds=100_000, steps=40)


def test_a_published_figure_comes_out(payments: Path) -> None:
    """Le Borgne et al. (2022), chapter 3: logistic regression on 15 features, one week, AUROC .871, AP .606."""
    frame = read_table(payments / "handbook" / "tx_2018-04-01_2018-09-04.parquet")
    frame = frame[(frame["time_s"] >= 70 * DAY) & (frame["time_s"] < 136 * DAY)]
    table = transactions(frame)
    made = velocity(table, label_delay=7 * DAY)
    day, card, y = table.day, table.frame["entity"].to_numpy(), table.label
    # Counts of the terminals' windows that end a week before the row, as published: count(7 + W) - count(7).
    groups = Groups.of(table.codes("counterparty"))
    columns = [table.amount, (day % 7 == 0) | (day % 7 == 6), table.time % DAY // 3600 <= 6]
    for width, span in (("1d", 1), ("7d", 7), ("30d", 30)):
        columns += [made[f"card count {width}"], made[f"card mean {width}"], made[f"merchant fraud share {width}"]]
        late = groups.first_since(table.time, table.time - 7 * DAY)
        columns.append(late - groups.first_since(table.time, table.time - (7 + span) * DAY))
    x = np.stack([np.asarray(c, dtype=float) for c in columns], axis=1)
    train, test = (day >= 115) & (day < 122), (day >= 129) & (day < 136)
    known = set(card[train & (y == 1)])
    for k in range(7):
        known |= set(card[(y == 1) & (day == 122 + k - 1)])
        test &= ~((day == 129 + k) & np.isin(card, list(known)))
    assert (train.sum(), y[train].sum(), test.sum(), y[test].sum()) == (67_240, 598, 58_264, 385)
    mean, spread = x[train].mean(axis=0), x[train].std(axis=0)
    model = LogisticRegression(max_iter=1000).fit((x[train] - mean) / spread, y[train])
    score = model.decision_function((x[test] - mean) / spread)
    assert roc_auc(y[test], score) == pytest.approx(0.871, abs=0.005)
    assert average_precision(y[test], score) == pytest.approx(0.606, abs=0.01)
