from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from unlabeled.core.audit.collapse import linear_probe
from unlabeled.core.errors import CheckpointError, DataError
from unlabeled.fraud import FraudDetector, Size, Transactions, transactions
from unlabeled.fraud.baselines import baseline_scores
from unlabeled.fraud.detector import Log
from unlabeled.fraud.measures import measure, within_budget
from unlabeled.fraud.readers import DAY, joined

Parts = tuple[Transactions, Transactions]
CLOSE = {"rtol": 1e-3, "atol": 1e-5}


def _altered(table: Transactions, rows: np.ndarray) -> Transactions:
    frame = table.frame.copy()
    frame.loc[rows, "amount"] = 12_345.0
    frame.loc[rows, "c:category"] = "never seen"
    frame.loc[rows, "entity"] = frame["entity"].iloc[0]
    frame.loc[rows, "label"] = 1
    return Transactions(table.roles, frame, table.given, table.skipped)


def test_labels_that_are_asked_about_teach_nothing_and_are_judged_by_the_payments_histories(
    parts: Parts, pretrained: FraudDetector, tmp_path: Path
) -> None:
    past, _ = parts
    known = np.full(len(past), -1)
    frauds, genuine = np.flatnonzero(past.label == 1)[:12], np.flatnonzero(past.label == 0)[200:230]
    known[frauds], known[genuine] = 1, 0
    other: FraudDetector = clone(pretrained).pretrain(past, asked=known)
    for a, b in zip(pretrained.models_, other.models_, strict=True):
        for name, value in a.tensors().items():
            np.testing.assert_array_equal(value.numpy(), b.tensors()[name].numpy())
    # Each labelled payment is read as the last of its card's (or merchant's) history, as scoring reads it.
    rows = np.flatnonzero(known >= 0)
    for model, history in zip(other.models_, other.history_.values(), strict=True):
        step, probe = history.curves["watch.linear_probe"][-1]
        assert step == history.steps
        assert probe == pytest.approx(linear_probe(model.read(past, rows).state, known[rows]), abs=1e-6)
    assert "watch.linear_probe" not in pretrained.history_["cards"].curves
    with pytest.raises(DataError, match=r"two labelled payments each.*got 1 labelled 0 and 12 labelled 1"):
        clone(pretrained).pretrain(past, asked=np.where((known == 0) & (np.arange(len(past)) != genuine[0]), -1, known))

    def cut_off(values: dict[str, float], step: int) -> None:
        if "merchants loss" in values:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        clone(pretrained).pretrain(past, asked=known, state=tmp_path / "s", log=cut_off)
    with pytest.raises(CheckpointError, match="looked at"):
        clone(pretrained).pretrain(past, state=tmp_path / "s")


@pytest.mark.parametrize("which", ["pretrained", "detector"])
def test_the_future_changes_no_score(which: str, parts: Parts, request: pytest.FixtureRequest) -> None:
    model: FraudDetector = request.getfixturevalue(which)
    past, new = parts
    half = len(new) // 2
    rows = np.arange(half, len(new))
    before = model.score(new, history=past)[:half]
    np.testing.assert_allclose(before, model.score(_altered(new, rows), history=past)[:half], **CLOSE)
    np.testing.assert_allclose(before, model.score(new.take(np.arange(half)), history=past), **CLOSE)


def test_one_at_a_time_gives_the_scores_of_the_batch(detector: FraudDetector, parts: Parts) -> None:
    past, new = parts
    whole = detector.score(new, history=past)
    for row in (0, 7, len(new) - 1):
        before, _ = joined([past, new.take(np.arange(row))]) if row else (past, None)
        alone = detector.score(new.take(np.array([row])), history=before)
        np.testing.assert_allclose(alone, whole[[row]], **CLOSE)


def test_labels_inside_the_delay_are_not_seen(detector: FraudDetector, parts: Parts) -> None:
    past, new = parts
    assert detector.plain_.risk
    first_day = new.take(new.time < new.time[0] + 12 * 3600)
    recent = past.time > first_day.time[-1] - 7 * DAY
    assert recent.any()
    assert not recent.all()
    flipped = past.with_labels(np.where(recent, 1 - past.label, past.label))
    np.testing.assert_array_equal(detector.score(first_day, history=past), detector.score(first_day, history=flipped))
    old = past.with_labels(np.where(recent, past.label, 1 - past.label))
    columns = detector.plain_columns(joined([past, first_day])[0])
    other = detector.plain_columns(joined([old, first_day])[0])
    name = "merchant fraud share 30d"
    assert (columns[name][-len(first_day) :] != other[name][-len(first_day) :]).any()


def test_the_order_of_the_rows_does_not_matter(
    detector: FraudDetector, table: pd.DataFrame, rng: np.random.Generator
) -> None:
    order = rng.permutation(len(table))
    shuffled = table.iloc[order].reset_index(drop=True)
    np.testing.assert_allclose(detector.score(shuffled), detector.score(table)[order], **CLOSE)


def test_labels_are_not_looked_at_in_pretraining(parts: Parts, pretrained: FraudDetector) -> None:
    past, _ = parts
    other = clone(pretrained).pretrain(past.with_labels(1 - past.label))
    for a, b in zip(pretrained.models_, other.models_, strict=True):
        for name, value in a.tensors().items():
            np.testing.assert_array_equal(value.numpy(), b.tensors()[name].numpy())


@pytest.mark.parametrize("which", ["pretrained", "detector"])
def test_saved_and_loaded_scores_are_identical(
    which: str, parts: Parts, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model: FraudDetector = request.getfixturevalue(which)
    past, new = parts
    back = FraudDetector.load(model.save(tmp_path / "model", run_id="abc"))
    np.testing.assert_array_equal(back.score(new, history=past), model.score(new, history=past))
    assert back.get_params()["random_state"] == 1
    assert back.manifest_["run_id"] == "abc"
    assert back.explain(new, history=past, rows=[3]) == model.explain(new, history=past, rows=[3])


def test_a_damaged_model_is_refused(detector: FraudDetector, tmp_path: Path) -> None:
    folder = detector.save(tmp_path / "model")
    (folder / "lightgbm.txt").write_text("tree")
    with pytest.raises(CheckpointError, match=r"lightgbm\.txt is damaged"):
        FraudDetector.load(folder)


def test_learning_from_labels_beats_not_learning(
    detector: FraudDetector, pretrained: FraudDetector, parts: Parts
) -> None:
    past, new = parts
    ours = measure(new.label, detector.score(new, history=past))
    without = measure(new.label, pretrained.score(new, history=past))
    assert ours["ap"] > without["ap"] > 2 * new.label.mean()
    assert ours["auc"] > 0.8


def test_probabilities_and_classes(detector: FraudDetector, pretrained: FraudDetector, parts: Parts) -> None:
    past, new = parts
    probability = detector.predict_proba(new, history=past)
    np.testing.assert_allclose(probability.sum(axis=1), 1)
    np.testing.assert_array_equal(detector.predict(new, history=past), probability[:, 1] >= 0.5)
    with pytest.raises(DataError, match="call finetune first"):
        pretrained.predict_proba(new)


def test_rows_that_cannot_be_used_score_nan_and_say_so(detector: FraudDetector, table: pd.DataFrame) -> None:
    frame = table.tail(50).reset_index(drop=True)
    frame.loc[4, "amount"] = -1.0
    scores = detector.score(frame)
    assert np.flatnonzero(np.isnan(scores)).tolist() == [4]
    assert detector.explain(frame, rows=[4])[0].startswith("skipped")


def test_unknown_categories_and_cards_are_scored(detector: FraudDetector, parts: Parts) -> None:
    past, new = parts
    strange = new.frame.head(20).assign(entity="nobody", counterparty="nowhere", **{"c:category": "nothing"})
    scores = detector.score(Transactions(new.roles, strange, 20, new.skipped), history=past)
    assert np.isfinite(scores).all()


def test_a_table_without_cards_is_scored_row_by_row(rng: np.random.Generator) -> None:
    n = 600
    frame = pd.DataFrame(rng.normal(size=(n, 4)), columns=["V1", "V2", "V3", "V4"])
    frame["time_s"], frame["amount"] = np.arange(n) * 60, rng.gamma(2, 20, n)
    frame["fraud"] = (np.arange(n) % 20 == 0).astype(int)
    frame.loc[frame["fraud"] == 1, "V1"] += 6
    size = Size(dim=16, depth=1, heads=2, length=16, steps=60, batch_size=16)
    model = FraudDetector(size=size).pretrain(frame.head(400))
    assert [m.part for m in model.models_] == [None]
    test = frame.tail(200)
    assert np.isfinite(model.score(test)).all()
    model.finetune(frame.head(400))
    assert measure(test["fraud"], model.score(test))["auc"] > 0.9
    order = rng.permutation(200)
    np.testing.assert_allclose(model.score(test.iloc[order]), model.score(test)[order], **CLOSE)


def test_reasons_name_what_stands_out(detector: FraudDetector, parts: Parts) -> None:
    past, new = parts
    frame = new.frame.copy()
    frame.loc[frame.index[-1], "amount"] = 5_000.0
    last = detector.explain(
        Transactions(new.roles, frame, new.given, new.skipped), history=past, rows=[len(frame) - 1]
    )[0]
    assert last.startswith("amount 5,000.00, card's mean")
    assert "above its own month" in last


def test_what_fine_tuning_needs(pretrained: FraudDetector, parts: Parts) -> None:
    past, _ = parts
    model = clone(pretrained)
    with pytest.raises(DataError, match="call pretrain or fit first"):
        model.score(past)
    for labels, match in ((np.zeros(len(past)), "got 0 and"), (np.full(len(past), 2), "labels are 1")):
        with pytest.raises(DataError, match=match):
            pretrained.finetune(past, labels)
    with pytest.raises(DataError, match="as many labels"):
        pretrained.finetune(past, np.zeros(3))


def test_few_labels_make_no_known_fraud_share(pretrained: FraudDetector, parts: Parts, tmp_path: Path) -> None:
    past, _ = parts
    model = FraudDetector.load(pretrained.save(tmp_path / "m"))
    some = np.where(np.arange(len(past)) % 4 == 0, past.label, -1)
    model.finetune(past, some)
    assert not model.plain_.risk
    assert not any("fraud share" in name for name in model.feature_names_)


def test_an_interrupted_pretraining_goes_on(parts: Parts, pretrained: FraudDetector, tmp_path: Path) -> None:
    past, _ = parts
    model = clone(pretrained).set_params(size=Size(**{**vars(pretrained.size), "steps": 55}))
    state = tmp_path / "state"

    def stop_at(curve: str) -> Log:
        def log(values: dict[str, float], step: int) -> None:
            if curve in values and step >= 55:
                raise KeyboardInterrupt

        return log

    for curve in ("loss", "merchants loss"):
        with pytest.raises(KeyboardInterrupt):
            clone(model).pretrain(past, state=state, log=stop_at(curve))
    assert sorted(folder.name for folder in state.iterdir()) == ["card-done", "merchant"]
    logged: list[str] = []
    resumed = clone(model).pretrain(past, state=state, log=lambda values, step: logged.extend(values))
    assert "loss" not in logged  # the cards were done
    whole = clone(model).pretrain(past)
    for name in ("cards", "merchants"):
        assert resumed.history_[name].curves == whole.history_[name].curves
    assert resumed.history_["merchants"].resumed_from == 50
    for a, b in zip(resumed.models_, whole.models_, strict=True):
        for name, value in a.tensors().items():
            np.testing.assert_array_equal(value.numpy(), b.tensors()[name].numpy())


def test_another_table_does_not_go_on_from_there(parts: Parts, pretrained: FraudDetector, tmp_path: Path) -> None:
    past, new = parts

    def stop(values: dict[str, float], step: int) -> None:
        if "merchants loss" in values:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        clone(pretrained).pretrain(past, state=tmp_path / "state", log=stop)
    with pytest.raises(CheckpointError, match=r"the interrupted run does not fit.*Delete .*state"):
        clone(pretrained).pretrain(new, state=tmp_path / "state")


def test_budget_takes_the_highest_of_each_day() -> None:
    score, day = np.array([0.1, 0.9, 0.5, 0.2, 0.2]), np.array([0, 0, 0, 1, 1])
    assert within_budget(score, day, per_day=1).tolist() == [False, True, False, True, False]
    assert within_budget(score, day, per_day=2).tolist() == [False, True, True, True, True]


def test_every_baseline_ranks_the_same_rows(detector: FraudDetector, parts: Parts) -> None:
    past, new = parts
    everything, part = joined([past, new])
    scores = baseline_scores(
        detector.plain_columns(everything), everything.label, training=part == 0, rows=np.flatnonzero(part == 1), seed=0
    )
    assert list(scores) == [
        *("LightGBM, same labels", "logistic regression, same labels", "isolation forest", "amount rule"),
    ]
    assert all(len(s) == len(new) and np.isfinite(s).all() for s in scores.values())
    assert measure(new.label, scores["LightGBM, same labels"])["auc"] > 0.8


def test_transactions_and_frames_give_the_same(detector: FraudDetector, table: pd.DataFrame) -> None:
    np.testing.assert_array_equal(detector.score(table), detector.score(transactions(table)))
