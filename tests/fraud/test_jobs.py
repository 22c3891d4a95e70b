"""The jobs on a small made-up table: what they write, what they say, and what they record."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from unlabeled.core.errors import DataError
from unlabeled.fraud import FraudDetector
from unlabeled.pipelines import cli, fraud

pytestmark = pytest.mark.integration


@pytest.fixture
def path(table: pd.DataFrame, in_tmp: Path) -> Path:
    file = in_tmp / "payments.csv"
    dirty = table.astype({"amount": object})
    dirty.loc[5, "amount"] = "free"
    dirty.to_csv(file, index=False)
    return file


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_from_a_table_to_alerts(path: Path, in_tmp: Path, complete: Callable[[Path, str], dict[str, Any]]) -> None:
    from mlflow import MlflowClient

    learnt = fraud.pretrain(path, out=in_tmp / "base", until="2026-02-02", steps=5)
    assert "1 of" in learnt.headline
    assert "amount missing or not a number (1)" in learnt.headline
    assert learnt.files["skipped"] == in_tmp / "base-skipped.csv"

    labels = pd.read_csv(path).query("time < '2026-02-02'")[["tx_id", "fraud"]]
    labels.loc[len(labels)] = [10**9, 1]
    labels.to_csv(in_tmp / "labels.csv", index=False)
    tuned = fraud.finetune(
        path, model=in_tmp / "base", out=in_tmp / "tuned", labels=in_tmp / "labels.csv", until="2026-02-02", n_frauds=20
    )
    assert "Check on the later labels (6 frauds" in tuned.headline
    assert {"LightGBM, same labels", "isolation forest"} <= set(tuned.comparisons[0].baselines)
    assert "on later labelled payments" in tuned.files["report"].read_text()
    assert tuned.details == {"frauds": 20, "genuine": 400, "labels_left_out": 2}  # an unknown id, and the skipped row
    left = pd.read_csv(tuned.files["labels left out"])
    assert left["row_id"].tolist() == [5, 10**9]

    outcome = fraud.score(path, model=in_tmp / "tuned", out=in_tmp / "alerts", budget=3, since="2026-02-02")
    alerts = pd.read_csv(outcome.files["alerts"])
    scores = pd.read_parquet(outcome.files["scores"])
    assert pd.to_datetime(alerts["time"]).dt.date.value_counts().max() == 3
    assert pd.to_datetime(alerts["day"]).is_monotonic_increasing
    assert (pd.to_datetime(alerts["time"]).dt.strftime("%Y-%m-%d") == alerts["day"]).all()
    for _, of_day in alerts.groupby("day"):
        assert of_day["rank"].tolist() == [1, 2, 3][: len(of_day)]
        assert of_day["score"].is_monotonic_decreasing
    assert scores["time"].min() >= pd.Timestamp("2026-02-02").timestamp()
    assert set(alerts["row_id"]) <= set(scores["row_id"])
    assert pd.read_csv(outcome.files["skipped"]).to_dict("list") == {
        "row": [5],
        "reason": ["amount missing or not a number"],
    }
    assert "amount missing or not a number" in outcome.files["report"].read_text()

    assert set(outcome.comparisons[0].baselines) == {
        "LightGBM, same labels", "isolation forest", "amount rule"
    }  # fmt: skip
    assert "not later than" not in outcome.headline
    whole = fraud.score(path, model=in_tmp / "tuned", out=in_tmp / "whole")
    assert "are not later than the last label that the model learnt from" in whole.headline
    last = FraudDetector.load(in_tmp / "tuned").manifest_["labelled_until"]
    assert f"{(pd.read_parquet(whole.files['scores'])['time'] <= last).sum():,} of them" in whole.headline

    runs = MlflowClient(f"sqlite:///{in_tmp}/mlflow.db")
    assert runs.get_run(tuned.run_id).data.tags["unlabeled.pretraining_run"] == learnt.run_id
    assert runs.get_run(outcome.run_id).data.tags["unlabeled.pretraining_run"] == learnt.run_id
    assert runs.get_run(outcome.run_id).data.tags["unlabeled.model_run"] == tuned.run_id
    assert set(complete(in_tmp, "fraud")) == {"pretrain base", "finetune tuned", "score alerts", "score whole"}
    assert runs.get_metric_history(learnt.run_id, "loss")
    curve = [point.value for point in runs.get_metric_history(str(tuned.run_id), fraud.CURVE)]
    assert len(curve) > 5
    assert curve[-1] < curve[0]
    with pytest.raises(DataError, match="no payment at or after 2030-01-01"):
        fraud.score(path, model=in_tmp / "tuned", out=in_tmp / "none", since="2030-01-01")
    assert not (in_tmp / "none").exists()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_a_backtest_without_and_with_labels(path: Path, in_tmp: Path) -> None:
    outcome = fraud.backtest(path, out=in_tmp / "zero", n_frauds=0, steps=5, budget=5)
    assert outcome.headline.startswith("Without any label")
    assert set(outcome.comparisons[0].baselines) == {"isolation forest", "amount rule"}
    assert FraudDetector.load(outcome.files["model"]).fitted_ is None

    outcome = fraud.backtest(path, out=in_tmp / "few", n_frauds=20, steps=5, budget=5)
    assert outcome.headline.startswith("With 20 labelled frauds")
    assert {c.metric for c in outcome.comparisons} >= {"average precision", "recall with 5 alerts a day"}
    assert all("LightGBM, same labels" in c.baselines for c in outcome.comparisons)
    json.dumps(outcome.to_json(), allow_nan=False)
    text = outcome.files["report"].read_text()
    for word in ("LightGBM, same labels", "amount rule", "false alarms until half", "labels arrive after 7 days"):
        assert word in text
    model = FraudDetector.load(outcome.files["model"])
    assert model.manifest_["pretraining_run"] == outcome.details["pretraining_run"]
    with pytest.raises(DataError, match="needs labelled frauds after"):
        fraud.backtest(path, out=in_tmp / "late", train_until="2026-02-15T20:00", steps=5)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_labels_of_the_time_that_taught_do_not_judge(path: Path, in_tmp: Path) -> None:
    """Turning round every label that lies in the model's own time changes no number of the comparison."""
    fraud.pretrain(path, out=in_tmp / "base", until="2026-02-02", steps=5)
    fraud.finetune(path, model=in_tmp / "base", out=in_tmp / "tuned", until="2026-02-02", n_frauds=20)
    last = FraudDetector.load(in_tmp / "tuned").manifest_["labelled_until"]
    before = fraud.score(path, model=in_tmp / "tuned", out=in_tmp / "a", since="2026-01-30")
    table = pd.read_csv(path)
    seen = pd.to_datetime(table["time"]).to_numpy() <= np.datetime64(round(last * 1000), "ms")
    table.loc[seen, "fraud"] = 1 - table.loc[seen, "fraud"]
    table.to_csv(path, index=False)
    after = fraud.score(path, model=in_tmp / "tuned", out=in_tmp / "b", since="2026-01-30")
    assert "LightGBM, same labels" in before.comparisons[0].baselines
    assert before.to_json()["comparisons"] == after.to_json()["comparisons"]


def test_labels_of_the_last_week_do_not_teach(path: Path, table: pd.DataFrame, in_tmp: Path) -> None:
    late = table["time"] > table["time"].max() - pd.Timedelta(days=30)
    table.assign(fraud=np.where(late, table["fraud"], 0)).to_csv(path, index=False)
    with pytest.raises(DataError, match="only 0 are known in time"):
        fraud.backtest(path, out=in_tmp / "out", label_delay=30.0, n_frauds=5, steps=5)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["score", "absent.csv"], 1, "holds no model"),
        (["pretrain", "absent.csv"], 1, "absent.csv is not a file"),
        (["backtest", "absent.csv", "--label-delay", "soon"], 2, "no time span"),
        (["backtest", "absent.csv", "--budget", "0"], 2, "greater than or equal to 1"),
        (["pretrain", "payments.csv", "--until", "2020-01-01"], 1, "no payment before 2020-01-01"),
    ],
)
def test_one_plain_line_for_what_cannot_be(
    path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["fraud", *arguments])
    assert ended.value.code == code
    printed = capsys.readouterr().err
    assert words in printed
    assert "Traceback" not in printed
