"""Promises that are easily broken unseen: who decides on whom, who sees whom, and nobody's name in any file."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unlabeled.core.errors import GateError
from unlabeled.core.evaluation import Estimate
from unlabeled.medical import ImageSet, PneumoniaModel, check_no_leak, dicom, simulate
from unlabeled.medical import _finetuning as finetuning
from unlabeled.medical import _network as network
from unlabeled.medical import _planning as planning
from unlabeled.medical.baselines import PixelRegression, _small, from_scratch
from unlabeled.medical.splits import patient_folds
from unlabeled.pipelines import medical as jobs

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)

SMALL: dict[str, Any] = {
    "image_size": 32, "dim": 16, "depth": 1, "heads": 2, "pretrain_epochs": 1, "finetune_steps": 5, "folds": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def model(phantoms: ImageSet) -> PneumoniaModel:
    return PneumoniaModel(**SMALL).pretrain(phantoms)


def pictures(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_a_leak_between_any_two_of_three_parts_is_refused(phantoms: ImageSet) -> None:
    people = np.array([f"p{i}" for i in range(6)])
    six = replace(phantoms.take(range(6)), patients=people)
    for shared in (("train", "validation"), ("validation", "test"), ("train", "test")):
        parts = {name: six.take([2 * i, 2 * i + 1]) for i, name in enumerate(("train", "validation", "test"))}
        parts[shared[1]] = replace(parts[shared[1]], patients=parts[shared[0]].patients)
        with pytest.raises(GateError, match=f"are in both {shared[0]} and {shared[1]}"):
            check_no_leak(parts)


def test_temperature_and_thresholds_come_from_pictures_that_no_network_learnt_from(
    phantoms: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt, asked = [], []
    train, ask = planning.train_classifier, network.mean_log_odds

    def spy_train(backbone: Any, data: Any, **options: Any) -> Any:
        learnt.append(pictures(data.images))
        return train(backbone, data, **options)

    def spy_ask(members: Any, backbone: Any, images: Any, *rest: Any) -> Any:
        asked.append(pictures(images))
        return ask(members, backbone, images, *rest)

    monkeypatch.setattr(planning, "train_classifier", spy_train)
    monkeypatch.setattr(network, "mean_log_odds", spy_ask)
    PneumoniaModel(**SMALL).finetune(phantoms, phantoms.labels, groups=phantoms.patients)
    assert len(learnt) == len(asked) == 2
    assert not any(a & b for a, b in zip(learnt, asked, strict=True))


def test_the_held_out_log_odds_are_those_of_a_later_score(model: PneumoniaModel, phantoms: ImageSet) -> None:
    assert phantoms.labels is not None
    train, held = phantoms.take(range(40)), phantoms.take(range(40, len(phantoms)))
    fresh = PneumoniaModel(**SMALL).finetune(train, train.labels, validation=(held, held.labels))
    assert fresh.finetuning_ is not None
    np.testing.assert_allclose(fresh.finetuning_["held_out"]["logit"], fresh._logits(held), atol=1e-6)
    assert fresh.prior_ != 0


def test_the_pixel_baseline_decides_on_left_out_patients(phantoms: ImageSet) -> None:
    assert phantoms.labels is not None
    data = finetuning.Labelled(phantoms.images, phantoms.labels)
    fitted = PixelRegression(components=20, folds=2).fit(phantoms.images, data, groups=phantoms.patients)
    fold = patient_folds(phantoms.patients, phantoms.labels, folds=2, seed=0)
    x = (_small(phantoms.images, np.arange(len(phantoms))) - fitted.mean_) @ fitted.axes_
    for f, weights in enumerate(fitted.weights_):
        expected = fitted._regression(x[fold != f], phantoms.labels[fold != f])
        np.testing.assert_allclose(weights, expected.coef_[0])
    chosen = PixelRegression(components=20).fit(
        phantoms.images, data, groups=phantoms.patients, validation=(phantoms.images[:30], phantoms.labels[:30])
    )
    assert chosen.decision_.chosen_on == 30


def test_from_scratch_starts_from_fresh_weights(model: PneumoniaModel, phantoms: ImageSet) -> None:
    assert phantoms.labels is not None
    data = finetuning.Labelled(phantoms.images, phantoms.labels)
    scratch = from_scratch(model, data, groups=phantoms.patients)
    for fresh, theirs in zip(model._fresh().parameters(), scratch.module_.parameters(), strict=True):
        assert torch.equal(fresh, theirs)
    assert not any(
        map(torch.equal, model.module_.backbone.encoder.parameters(), scratch.module_.backbone.encoder.parameters())
    )


def labels_with(path: Path, archive: simulate.Simulated, parts: tuple[str, ...] = ()) -> Path:
    """The archive's labels with patient ids of the user's own and, if wanted, splits."""
    with archive.labels.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "label", "patient_id", *(["split"] if parts else [])])
        for row in rows:
            number = int(row["file"].split("/")[0])
            split = [parts[number % len(parts)]] if parts else []
            writer.writerow([row["file"], row["label"], f"WARD-7-{number}", *split])
    return path


@pytest.mark.integration
def test_all_methods_get_the_same_labels_and_nobody_sees_the_judged_patients_nor_writes_their_names(
    model: PneumoniaModel, archive: simulate.Simulated, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = labels_with(in_tmp / "labels.csv", archive)
    model.save(in_tmp / "base")
    given: dict[str, Any] = {"networks": []}
    tune, fit, page = PneumoniaModel.finetune, PixelRegression.fit, jobs.report.evaluation_report

    def spy_tune(self: Any, images: Any, y: Any, **options: Any) -> Any:
        given["networks"].append(np.asarray(y))
        return tune(self, images, y, **options)

    def spy_fit(self: Any, unlabelled: Any, data: Any, **options: Any) -> Any:
        given.update(unlabelled=unlabelled, pixels=data.labels)
        return fit(self, unlabelled, data, **options)

    def spy_page(**options: Any) -> Any:
        given.update(unseen=options["unseen"].images)
        return page(**options)

    monkeypatch.setattr(PneumoniaModel, "finetune", spy_tune)
    monkeypatch.setattr(PixelRegression, "fit", spy_fit)
    monkeypatch.setattr(jobs.report, "evaluation_report", spy_page)
    jobs.finetune(archive.images, model=in_tmp / "base", out=in_tmp / "m", labels=labels, n_labels=24)
    ours, scratch = given["networks"]
    np.testing.assert_array_equal(ours, scratch)
    np.testing.assert_array_equal(ours, given["pixels"])
    assert not pictures(given["unlabelled"]) & pictures(given["unseen"])
    labels.unlink()
    for path in in_tmp.rglob("*"):
        assert path.is_dir() or b"WARD-7" not in path.read_bytes(), path


@pytest.mark.integration
def test_patients_who_helped_to_choose_cannot_be_judged_on(
    model: PneumoniaModel, archive: simulate.Simulated, in_tmp: Path
) -> None:
    labels = labels_with(in_tmp / "l.csv", archive, parts=("train", "train", "val", "test"))
    model.save(in_tmp / "base")
    jobs.finetune(archive.images, model=in_tmp / "base", out=in_tmp / "m", labels=labels)
    lines = labels.read_text().splitlines()
    (in_tmp / "val.csv").write_text("\n".join([lines[0], *(line for line in lines if line.endswith(",val"))]) + "\n")
    with pytest.raises(GateError, match="in this evaluation: WARD-7-"):
        jobs.predict(archive.images, model=in_tmp / "m", out=in_tmp / "s", labels=in_tmp / "val.csv")


def test_a_comparison_shows_each_method_s_own_number() -> None:
    table = {
        name: {metric: Estimate(value, value, value) for metric in jobs.COMPARED}
        for name, value in ((jobs.OURS, 0.7), (jobs.SCRATCH, 0.6), (jobs.PIXELS, 0.9))
    }
    for comparison in jobs._comparisons(table):
        assert comparison.gain() == (jobs.PIXELS, pytest.approx(-0.2))


def test_pretraining_leaves_alone_what_the_table_keeps_for_judging(in_tmp: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 32, 32), dtype=np.uint8)
    np.savez(in_tmp / "t.npz", images=images, split=np.repeat(["train", "test"], 30))
    done = jobs.pretrain(in_tmp / "t.npz", out=in_tmp / "p", size=32, epochs=1)
    assert done.details["images"] == 30


def test_inverting_first_would_give_another_picture(make_dicom: Any, save: Any, tmp_path: Path) -> None:
    # Rescaled: -100, 100 ... 1300. Window 0..800 (exact), not in the middle: 0, 1/8, 3/8, 5/8, 7/8, 1, 1, 1.
    file = make_dicom(
        np.arange(0, 800, 100).reshape(2, 4), PhotometricInterpretation="MONOCHROME1", RescaleSlope=2,
        RescaleIntercept=-100, WindowCenter=400, WindowWidth=800, VOILUTFunction="LINEAR_EXACT",
    )  # fmt: skip
    expected = 1 - np.array([[0, 1 / 8, 3 / 8, 5 / 8], [7 / 8, 1, 1, 1]])
    np.testing.assert_allclose(dicom.read(save(file, tmp_path / "a.dcm")).pixels, expected, atol=1e-6)
