"""The check after fine-tuning: the earlier labels teach, the later ones judge."""

import numpy as np

from unlabeled.fraud import FraudDetector, Transactions
from unlabeled.fraud.baselines import LightGBM
from unlabeled.fraud.check import forward_check
from unlabeled.fraud.features import stacked


def few_labels(table: Transactions, rng: np.random.Generator) -> Transactions:
    label = np.full(len(table), -1)
    label[rng.choice(np.flatnonzero(table.label == 1), 10, replace=False)] = 1
    label[rng.choice(np.flatnonzero(table.label == 0), 200, replace=False)] = 0
    return table.with_labels(label)


def test_seven_of_ten_frauds_teach_and_three_judge(
    pretrained: FraudDetector, parts: tuple[Transactions, Transactions], rng: np.random.Generator
) -> None:
    known = few_labels(parts[0], rng)
    check = forward_check(pretrained, known)
    assert check is not None
    assert check.early_frauds == 7
    assert (check.late.label == 1).sum() == 3
    eighth = np.sort(known.time[known.label == 1])[7]
    assert check.late.time.min() >= eighth
    assert pretrained.fitted_ is None
    assert "labelled_frauds" not in pretrained.manifest_  # the detector itself has learnt nothing from it


def test_later_labels_teach_nothing(
    pretrained: FraudDetector, parts: tuple[Transactions, Transactions], rng: np.random.Generator
) -> None:
    known = few_labels(parts[0], rng)
    check = forward_check(pretrained, known)
    assert check is not None
    frauds = np.sort(known.time[known.label == 1])
    label = known.label.copy()
    late_genuine = (known.time >= frauds[7]) & (label == 0)
    label[np.flatnonzero(late_genuine)[::2]] = -1
    fewer = forward_check(pretrained, known.with_labels(label))
    assert fewer is not None
    kept = np.isin(check.late.time, fewer.late.time)
    assert len(fewer.late) < len(check.late)
    for name, score in check.scores.items():
        np.testing.assert_array_equal(score[kept], fewer.scores[name], err_msg=name)


def test_too_few_frauds_are_not_checked(
    pretrained: FraudDetector, parts: tuple[Transactions, Transactions], rng: np.random.Generator
) -> None:
    known = few_labels(parts[0], rng)
    label = np.where(known.label == 1, -1, known.label)
    label[np.flatnonzero(known.label == 1)[0]] = 1
    assert forward_check(pretrained, known.with_labels(label)) is None


def test_the_saved_baseline_is_lightgbm_on_the_same_labels(
    detector: FraudDetector, parts: tuple[Transactions, Transactions], tmp_path: object
) -> None:
    known = parts[0]
    x = stacked(detector.plain_columns(known))
    labelled = np.flatnonzero(known.label >= 0)
    expected = LightGBM(seed=1).fit(x[labelled], known.label[labelled]).score(x)
    loaded = FraudDetector.load(detector.save(f"{tmp_path}/model")).baseline_
    assert loaded is not None
    np.testing.assert_allclose(loaded.score(x), expected, rtol=1e-9)
