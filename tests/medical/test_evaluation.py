"""Numbers against independent references, and verdicts that say worse when it is worse."""

import numpy as np
import pytest
import torch

from unlabeled.core.evaluation import roc_auc
from unlabeled.core.report import Section
from unlabeled.medical import _figures, report
from unlabeled.medical._finetuning import Decision
from unlabeled.medical.evaluation import METRICS, Scored, auroc_gain, metrics, over_patients, point_metrics

HALF = Decision(temperature=1.0, threshold=0.5, sensitive_threshold=0.3, prevalence=0.5, chosen_on=4)


def test_the_numbers_are_those_worked_out_by_hand() -> None:
    labels, p = np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.4, 0.9])
    found = point_metrics(labels, Scored(p, HALF))
    assert tuple(found) == METRICS
    assert found["AUROC"] == pytest.approx(0.75)
    assert found["accuracy"] == 0.5
    assert (found["sensitivity"], found["specificity"]) == (0.5, 0.5)
    assert (found["sensitivity at the 95 % point"], found["specificity at the 95 % point"]) == (1.0, 0.5)


@pytest.mark.filterwarnings("ignore")
def test_the_area_under_the_curve_is_monais() -> None:
    from monai.metrics import compute_roc_auc

    rng = np.random.default_rng(0)
    labels, p = rng.integers(0, 2, 200), rng.random(200).round(2)
    theirs = compute_roc_auc(torch.from_numpy(p), torch.from_numpy(labels))
    assert roc_auc(labels, p) == pytest.approx(float(theirs), abs=1e-6)


def test_intervals_hold_the_value_and_widen_when_patients_have_many_pictures() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 2, 60), 5)
    p = np.clip(np.repeat(rng.random(60), 5) * 0.6 + 0.3 * labels, 0, 1)
    by_patient = metrics(labels, Scored(p, HALF), patients=np.repeat(np.arange(60).astype(str), 5))["AUROC"]
    by_picture = metrics(labels, Scored(p, HALF), patients=np.arange(300).astype(str))["AUROC"]
    assert by_patient.low <= by_patient.value <= by_patient.high
    assert by_patient.high - by_patient.low > 1.5 * (by_picture.high - by_picture.low)


def test_all_right_on_twenty_patients_is_not_certain() -> None:
    labels = np.repeat([0, 1], 50)
    patients = np.repeat(np.arange(20), 5).astype(str)
    found = metrics(labels, Scored(0.1 + 0.8 * labels, HALF), patients=patients, samples=50)
    for name in METRICS[:-1]:
        assert found[name].value == found[name].high == pytest.approx(1), name
        assert 0.7 < found[name].low < 0.9, name
    assert found["sensitivity"].low == pytest.approx(10 / (10 + 1.959964**2), abs=1e-4)
    assert found["AUROC"].low == pytest.approx(0.8002, abs=1e-4)


def test_two_perfect_methods_are_not_surely_the_same() -> None:
    labels, patients = np.repeat([0, 1], 10), np.arange(20).astype(str)
    gain = auroc_gain(labels, labels.astype(float), labels.astype(float), patients=patients, samples=50)
    assert gain.value == 0
    assert (gain.low, gain.high) == pytest.approx((-0.1998, 0.1998), abs=1e-4)


def test_shares_over_patients_by_hand() -> None:
    hit, patients = np.array([1, 1, 0, 0]), np.array(list("aabb"))
    both = over_patients(hit, patients)
    assert both == pytest.approx((0.5, 0, 1))
    assert np.isnan(over_patients(hit, patients, among=np.zeros(4, dtype=bool))).all()
    one = over_patients(hit, patients, among=patients == "a")
    assert one == pytest.approx((1, 1 / (1 + 1.959964**2), 1), abs=1e-4)


@pytest.mark.parametrize("lowest", [0.0, 0.9])
def test_a_specificity_of_nought_is_explained(lowest: float) -> None:
    calls_all = Decision(temperature=1.0, threshold=0.5, sensitive_threshold=lowest, prevalence=0.5, chosen_on=4)
    labels, p = np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.4, 0.9])
    table = {"PCA": metrics(labels, Scored(p, calls_all), patients=np.arange(4).astype(str), samples=20)}
    section = Section("Beside the baselines")
    report._everybody_ill(section, table, calls_all)
    said = [part.text for part in section.parts]
    assert len(said) == (lowest == 0)
    assert all("at the 95 % point (PCA)" in text and "only calling everybody ill" in text for text in said)


def test_the_legend_of_the_calibration_hides_no_point() -> None:
    labels, p = np.arange(20) % 2, np.linspace(0, 1, 20)
    names = ("ours", "same network from scratch", "PCA + logistic regression")
    figure = _figures.calibration(
        labels, {name: Scored(p, HALF) for name in names}, "pneumonia", patients=np.arange(20).astype(str)
    )
    figure.draw_without_rendering()
    legends = [*figure.legends, *(a.get_legend() for a in figure.axes if a.get_legend())]
    assert len(legends) == 1
    assert not legends[0].get_window_extent().overlaps(figure.axes[0].get_window_extent())


def test_a_result_below_its_baseline_is_called_worse() -> None:
    rng = np.random.default_rng(0)
    labels, patients = np.arange(200) % 2, np.arange(200).astype(str)
    good = Scored(np.clip(0.5 * labels + 0.5 * rng.random(200), 0, 1), HALF)
    poor = Scored(rng.random(200), HALF)
    worse = report.verdict(labels, {"ours": poor, "PCA": good}, patients=patients)
    assert worse.tone == "bad"
    assert worse.text.startswith("Worse than a baseline (PCA)")
    assert report.verdict(labels, {"ours": good, "PCA": poor}, patients=patients).tone == "good"
    assert report.verdict(labels, {"ours": good, "PCA": good}, patients=patients).tone == "flat"
