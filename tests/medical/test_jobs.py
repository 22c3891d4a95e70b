"""The jobs from files to files: tracked, private, and refusing what must be refused."""

import csv
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unlabeled.core.errors import DataError, GateError
from unlabeled.medical import ImageSet, PneumoniaModel, read_images, simulate
from unlabeled.pipelines import medical as jobs
from unlabeled.pipelines._medical_input import divide
from unlabeled.pipelines.cli import main

# MLflow and what it loads warn about their own future.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]

SMALL: dict[str, Any] = {"image_size": 32, "dim": 16, "depth": 1, "heads": 2, "finetune_steps": 5, "folds": 2}


@pytest.fixture(scope="module")
def pretrained(archive: simulate.Simulated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "pretrained"
    model = PneumoniaModel(**SMALL, pretrain_epochs=1).pretrain(read_images(archive.images, size=32))
    model.provenance_["pretraining_run"] = "the-run-it-came-from"
    return model.save(folder)


@pytest.fixture(scope="module")
def fine_tuned(phantoms: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """From Python: without baselines beside it."""
    assert phantoms.labels is not None
    model = PneumoniaModel(**SMALL).finetune(phantoms, phantoms.labels, groups=phantoms.patients)
    return model.save(tmp_path_factory.mktemp("models") / "fine-tuned")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_from_files_to_predictions_with_nobody_named(
    archive: simulate.Simulated, pretrained: Path, in_tmp: Path
) -> None:
    rows = archive.labels.read_text().splitlines()
    (in_tmp / "labels.csv").write_text("\n".join([*rows, "nobody.dcm,1"]) + "\n")
    labels = in_tmp / "labels.csv"
    done = jobs.finetune(archive.images, model=pretrained, out=in_tmp / "model", labels=labels, n_labels=24, seed=3)
    assert done.details["labels"] == 24
    assert [c.metric for c in done.comparisons] == ["AUROC", "balanced accuracy"]
    assert all(set(c.baselines) == {jobs.SCRATCH, jobs.PIXELS} for c in done.comparisons)
    skipped = {row["input"]: row["reason"] for row in table(done.files["skipped"])}
    assert len(skipped) == 6
    assert skipped["nobody.dcm"] == "label for an unknown id"
    page = done.files["report"].read_text(encoding="utf-8")
    assert "lateral view" in page
    assert "Not a medical device" in page

    scored = jobs.predict(archive.images, model=in_tmp / "model", out=in_tmp / "scores")
    predictions = table(scored.files["predictions"])
    assert len(predictions) == archive.pictures
    assert {"image_id", "probability", "call", "threshold", "decision", "reason"} <= set(predictions[0])
    for row in predictions:
        above = float(row["probability"]) >= float(row["threshold"])
        assert row["call"] == ("pneumonia" if above else "no pneumonia")

    # Raw identifiers are in the input and must be in nothing that was written: models, reports, tracked runs.
    secret = [f"SIM-1-{i:05d}".encode() for i in range(60)] + [b"Phantom^"]
    source = b"".join(path.read_bytes() for path in archive.images.rglob("chest*"))
    assert all(text in source for text in secret)
    written = [path for path in in_tmp.rglob("*") if path.is_file()]
    assert any(path.name == "mlflow.db" for path in written)
    for path in written:
        content = path.read_bytes()
        assert not any(text in content for text in secret), path


def test_predictions_without_labels_are_reported(archive: simulate.Simulated, fine_tuned: Path, in_tmp: Path) -> None:
    from mlflow import MlflowClient

    done = jobs.predict(archive.images, model=fine_tuned, out=in_tmp / "s")
    page = done.files["report"].read_text(encoding="utf-8")
    called = sum(row["call"] == "pneumonia" for row in table(done.files["predictions"]))
    assert f"{called} of {archive.pictures} pictures are at or above the threshold of pneumonia" in page
    assert "(5 inputs skipped)" in page
    assert "lateral view" in page  # what was left out, and why
    assert "thresholds come from left-out folds of the patients" in page
    assert "do not carry over to another hospital" in page
    assert "Not a medical device" in page
    assert page.count("<img") == 2  # no encoder had learnt before: distances are not shown
    ranked = sorted(table(done.files["predictions"]), key=lambda row: float(row["probability"]))
    assert all(row["image_id"] in page for row in (ranked[0], ranked[1], ranked[-2], ranked[-1]))
    client = MlflowClient(tracking_uri=f"sqlite:///{in_tmp / 'mlflow.db'}")
    logged = [
        file.path
        for folder in client.list_artifacts(str(done.run_id))
        for file in (client.list_artifacts(str(done.run_id), folder.path) or [folder])
    ]
    assert any(path.endswith("report.html") for path in logged)


def test_a_single_picture_is_reported_on_as_well(archive: simulate.Simulated, fine_tuned: Path, in_tmp: Path) -> None:
    name = read_images(archive.images, size=32).ids[0]
    done = jobs.predict(archive.images / name, model=fine_tuned, out=in_tmp / "s")
    assert "of 1 pictures" in done.files["report"].read_text(encoding="utf-8")


def as_archive(images: ImageSet, path: Path) -> Path:
    assert images.labels is not None
    np.savez(path, images=images.images, id=images.ids, patient_id=images.patients, label=images.labels)
    return path


def test_labels_of_the_table_itself_judge_on_new_patients_only(
    phantoms: ImageSet, pretrained: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = as_archive(phantoms, in_tmp / "all.npz")
    learnt = jobs.finetune(source, model=pretrained, out=in_tmp / "m")
    capsys.readouterr()
    done = jobs.predict(source, model=in_tmp / "m", out=in_tmp / "s")
    # Everybody is scored; those kept for judging then judge again, and nobody else.
    assert len(table(done.files["predictions"])) == len(phantoms)
    assert done.details["judged"] == learnt.details["unseen"]
    assert done.comparisons[0].ours == learnt.comparisons[0].ours
    left = f"{len(phantoms) - int(str(learnt.details['unseen']))} labelled pictures of patients that the model learnt"
    assert left in capsys.readouterr().err
    assert left in done.files["report"].read_text(encoding="utf-8")
    # Under other names they are still the pictures that it learnt from.
    renamed = replace(phantoms, patients=np.array([f"other {i}" for i in range(len(phantoms))]))
    again = jobs.predict(as_archive(renamed, in_tmp / "renamed.npz"), model=in_tmp / "m", out=in_tmp / "s2")
    assert again.details["judged"] == learnt.details["unseen"]


def test_labels_of_the_table_itself_that_cannot_judge_are_no_error(
    phantoms: ImageSet, fine_tuned: Path, in_tmp: Path
) -> None:
    assert phantoms.labels is not None
    as_archive(phantoms, in_tmp / "all.npz")
    model = PneumoniaModel.load(fine_tuned)
    model.remember(phantoms.patients[::2])
    model.save(in_tmp / "m")
    seen = model.seen(phantoms.patients)
    for rows, reason in (
        (seen, "are left out of the judging"),
        (~seen & (phantoms.labels == 1), "they hold one class only"),
    ):
        source = as_archive(phantoms.take(rows), in_tmp / "some.npz")
        done = jobs.predict(source, model=in_tmp / "m", out=in_tmp / "s")
        assert done.details["pictures"] == rows.sum()
        assert "judged" not in done.details
        assert reason in done.files["report"].read_text(encoding="utf-8")
    # Saved from Python, a model does not know whom it learnt from; then nobody may be taken for new.
    model.digests_ = []
    model.save(in_tmp / "python")
    done = jobs.predict(in_tmp / "all.npz", model=in_tmp / "python", out=in_tmp / "s")
    assert "judged" not in done.details
    assert "does not know whom it learnt from" in done.files["report"].read_text(encoding="utf-8")


def test_a_fine_tuned_run_names_its_pretraining(archive: simulate.Simulated, pretrained: Path, in_tmp: Path) -> None:
    from mlflow import MlflowClient

    done = jobs.finetune(archive.images, model=pretrained, out=in_tmp / "m", labels=archive.labels)
    run = MlflowClient(tracking_uri=f"sqlite:///{in_tmp / 'mlflow.db'}").get_run(str(done.run_id))
    assert run.data.tags["unlabeled.pretraining_run"] == "the-run-it-came-from"
    assert {"data.fingerprint", "split.fingerprint"} <= set(run.data.tags)
    assert {"test.AUROC", "loss"} <= set(run.data.metrics)
    assert run.info.status == "FINISHED"
    assert PneumoniaModel.load(in_tmp / "m").provenance_["finetuning_run"] == done.run_id


def test_patients_whose_labels_were_used_cannot_be_judged_on(
    archive: simulate.Simulated, pretrained: Path, in_tmp: Path
) -> None:
    jobs.finetune(archive.images, model=pretrained, out=in_tmp / "m", labels=archive.labels)
    with pytest.raises(GateError, match=r"learnt from the labels of \d+ patient\(s\) in this evaluation: P-"):
        jobs.predict(archive.images, model=in_tmp / "m", out=in_tmp / "s", labels=archive.labels)
    assert not (in_tmp / "s").exists()


def test_a_leaking_split_is_refused_with_the_given_patient_ids(
    archive: simulate.Simulated, pretrained: Path, in_tmp: Path
) -> None:
    rows = table(archive.labels)
    folders = [int(row["file"].split("/")[0]) for row in rows]
    leaking = next(number for number, folder in enumerate(folders) if folders.count(folder) > 1)
    anna = folders[leaking]
    with (in_tmp / "l.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "label", "patient_id", "split"])
        for number, row in enumerate(rows):
            patient = int(row["file"].split("/")[0])  # the archive has a folder for each
            split = "train" if patient % 2 else "test"
            if number == leaking:
                split = "test" if split == "train" else "train"
            writer.writerow([row["file"], row["label"], "ward7-anna" if patient == anna else f"ward7-{patient}", split])
    with pytest.raises(GateError, match=r"1 patient\(s\) are in both train and test: ward7-anna"):
        jobs.finetune(archive.images, model=pretrained, out=in_tmp / "m", labels=in_tmp / "l.csv")
    assert not (in_tmp / "m").exists()


def test_given_splits_are_used_and_validation_decides(
    archive: simulate.Simulated, pretrained: Path, in_tmp: Path
) -> None:
    rows = table(archive.labels)
    with (in_tmp / "l.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "label", "split"])
        for row in rows:
            part = ("train", "train", "val", "test")[int(row["file"].split("/")[0]) % 4]
            writer.writerow([row["file"], row["label"], part])
    done = jobs.finetune(archive.images, model=pretrained, out=in_tmp / "m", labels=in_tmp / "l.csv")
    model = PneumoniaModel.load(in_tmp / "m")
    assert len(model.members_) == 1
    assert model.finetuning_ is not None
    assert model.finetuning_["decided_on"] == "validation pictures"
    images = read_images(archive.images, size=32)
    test_patients = {p for i, p in zip(images.ids, images.patients, strict=True) if int(i.split("/")[0]) % 4 == 3}
    assert not model.seen(np.array(sorted(test_patients))).any()
    scored = [r for r in rows if int(r["file"].split("/")[0]) % 4 == 3]
    assert done.details["unseen"] == len(scored)
    with (in_tmp / "unseen.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "label"])
        writer.writerows([r["file"], r["label"]] for r in scored)
    judged = jobs.predict(archive.images, model=in_tmp / "m", out=in_tmp / "s", labels=in_tmp / "unseen.csv")
    # The same pictures, judged again from files: ours and both baselines, which were kept beside the model.
    for now, then in zip(judged.comparisons, done.comparisons, strict=True):
        assert set(now.baselines) == {jobs.SCRATCH, jobs.PIXELS}
        for name, value in then.everything().items():
            assert now.everything()[name] == pytest.approx(value), (now.metric, name)
    assert jobs.SCRATCH in judged.files["report"].read_text(encoding="utf-8")
    shutil.rmtree(in_tmp / "m" / "baselines")
    alone = jobs.predict(archive.images, model=in_tmp / "m", out=in_tmp / "s2", labels=in_tmp / "unseen.csv")
    assert "no baseline stands beside this model" in alone.headline


def test_pretraining_leaves_a_model_a_report_and_nothing_half_done(archive: simulate.Simulated, in_tmp: Path) -> None:
    done = jobs.pretrain(archive.images, out=in_tmp / "p", size=32, epochs=1)
    assert done.files["report"].stat().st_size > 20_000
    assert done.details["skipped"] == 5
    assert not list(in_tmp.glob(".p*"))
    assert PneumoniaModel.load(done.files["model"]).provenance_["pretraining_run"] == done.run_id


def test_runs_are_complete_from_pretraining_to_prediction(
    archive: simulate.Simulated, in_tmp: Path, complete: Callable[[Path, str], dict[str, Any]]
) -> None:
    jobs.pretrain(archive.images, out=in_tmp / "p", size=32, epochs=2)
    jobs.finetune(archive.images, model=in_tmp / "p", out=in_tmp / "m", labels=archive.labels, steps=30)
    plain = jobs.predict(archive.images, model=in_tmp / "m", out=in_tmp / "s")
    other = simulate.write_archive(in_tmp / "other", patients=16, seed=7)
    jobs.predict(other.images, model=in_tmp / "m", out=in_tmp / "judged", labels=other.labels)
    runs = complete(in_tmp, "medical")
    assert set(runs) == {"pretrain p", "finetune m", "predict s", "predict judged"}
    assert runs["predict s"].data.tags["unlabeled.model_run"] == runs["finetune m"].info.run_id
    threshold = float(table(plain.files["predictions"])[0]["threshold"])
    assert float(runs["predict s"].data.params["threshold"]) == pytest.approx(threshold, abs=1e-6)


def test_the_command_line_says_in_one_line_what_is_wrong(
    archive: simulate.Simulated, pretrained: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (in_tmp / "empty").mkdir()
    for arguments, code, message in (
        (["pretrain", "empty"], 1, "empty is empty: expected DICOM, PNG or JPEG files"),
        (["pretrain", "nowhere"], 1, "nowhere does not exist"),
        (["predict", str(archive.images), "--model", str(pretrained)], 1, "has not seen labels yet"),
        (["finetune", str(archive.images), "--model", str(pretrained)], 1, "no picture has a label"),
        (["finetune", str(archive.images), "--model", "empty"], 1, "holds no model"),
        (["pretrain"], 2, "Missing argument"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["medical", *arguments])
        assert ended.value.code == code
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error


def test_what_can_be_said_at_once_is_said_before_pictures_are_read(
    archive: simulate.Simulated, pretrained: Path, fine_tuned: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object, **__: object) -> None:
        raise AssertionError("pictures were read")

    monkeypatch.setattr(jobs, "read_images", read)
    (in_tmp / "nolabels.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"patches of 8: the nearest sizes that do are 56 or 64"):
        jobs.pretrain(archive.images, out=in_tmp / "p", size=63)
    with pytest.raises(DataError, match="has no id column"):
        jobs.finetune(archive.images, model=pretrained, out=in_tmp / "m", labels=in_tmp / "nolabels.csv")
    with pytest.raises(DataError, match=r"nowhere\.csv does not exist"):
        jobs.predict(archive.images, model=fine_tuned, out=in_tmp / "s", labels=in_tmp / "nowhere.csv")
    with pytest.raises(DataError, match=r"fine-tune it first \(unlabeled medical finetune, or PneumoniaModel.finetune"):
        jobs.predict(archive.images, model=pretrained, out=in_tmp / "s")


def test_the_steps_of_a_fine_tuning_can_be_given(
    archive: simulate.Simulated, pretrained: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["finetune", str(archive.images), "--labels", str(archive.labels), "--model", str(pretrained)]
    with pytest.raises(SystemExit) as ended:
        main(["medical", *arguments, "--steps", "9", "--out", "m"])
    assert not ended.value.code
    model = PneumoniaModel.load("m")
    assert model.finetuning_ is not None
    assert model.finetuning_["steps"] == 9
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["medical", "finetune", "--help"])
    assert "once more from scratch" in " ".join(capsys.readouterr().out.split())


def test_labels_that_leave_nobody_to_judge_on_are_too_few(
    archive: simulate.Simulated, pretrained: Path, in_tmp: Path
) -> None:
    (in_tmp / "l.csv").write_text("\n".join(archive.labels.read_text().splitlines()[:4]) + "\n")
    with pytest.raises(DataError, match="labelled patients of each kind"):
        jobs.finetune(archive.images, model=pretrained, out=in_tmp / "m", labels=in_tmp / "l.csv")


def test_a_split_without_a_single_label_is_named_with_what_to_do(phantoms: ImageSet) -> None:
    assert phantoms.labels is not None
    splits = np.where(np.arange(len(phantoms)) % 4 == 0, "test", "train")
    labels = np.where(splits == "train", phantoms.labels, -1)
    with pytest.raises(DataError, match="pictures of split 'test', but none of them is labelled: label some of them"):
        divide(replace(phantoms, splits=splits, labels=labels), n_labels=None, seed=0)
