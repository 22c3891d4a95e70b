"""``unlabeled medical predict --dicom``: complete, private, and never in a tracked run."""

import csv
import os
import shutil
import stat
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from PIL import Image

from unlabeled.core.errors import DataError
from unlabeled.medical import simulate
from unlabeled.medical._decisions import Stated
from unlabeled.pipelines import medical as jobs
from unlabeled.pipelines.cli import main

# MLflow and what it loads warn about their own future.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def probability(path: Path) -> float:
    (group,) = hd.sr.srread(path).content.get_image_measurement_groups()
    return next(m.value for m in group.get_measurements() if m.name.meaning == "Probability")


def answer(path: Path) -> str:
    (group,) = hd.sr.srread(path).content.get_image_measurement_groups()
    (evaluation,) = group.get_qualitative_evaluations()
    return evaluation.value.meaning


def test_a_report_says_what_the_table_says_at_the_stated_rates(
    small_archive: simulate.Simulated, small_model: Path, in_tmp: Path
) -> None:
    stated = Stated(sensitivity=0.975, error_rate=0.45)
    done = jobs.predict(small_archive.images, model=small_model, out=in_tmp / "s", dicom=True, stated=stated)
    rows = {row["image_id"]: row for row in table(done.files["predictions"])}
    assert len({row["decision"] for row in rows.values()}) > 1  # some are called and some referred, or called both ways
    for name, row in rows.items():
        film = pydicom.dcmread(small_archive.images / name, stop_before_pixels=True)
        (report,) = (done.files["dicom"] / film.StudyInstanceUID).glob("SR-*.dcm")
        # A positive or negative answer is one that both rules give.
        called = {"pneumonia": "Present", "no pneumonia": "Absent"} if row["decision"] == row["call"] else {}
        assert answer(report) == called.get(row["decision"], "Undetermined")
        (group,) = hd.sr.srread(report).content.get_image_measurement_groups()
        values = {m.name.meaning: m.value for m in group.get_measurements()}
        assert values["Threshold Value for 97.5 % sensitivity"] == pytest.approx(
            float(row["sensitive_threshold"]), abs=1e-6
        )
        texts = " ".join(str(i.TextValue) for i in group[0].ContentSequence if i.ValueType == "TEXT")
        assert "error rate of 45 %" in texts
        assert f"Calibrated probability {float(row['calibrated']):.3f}" in texts
        if row["decision"] == "refer":
            assert f"Refer to a radiologist: {row['reason']}" in texts


def test_every_dicom_file_gets_both_objects_in_its_study(
    small_archive: simulate.Simulated, small_model: Path, in_tmp: Path
) -> None:
    source = shutil.copytree(small_archive.images, in_tmp / "films")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(source / "plain.png")
    done = jobs.predict(source, model=small_model, out=in_tmp / "s", dicom=True)
    rows = table(done.files["predictions"])
    assert done.details["dicom"] == len(rows) - 1 == small_archive.pictures  # the PNG belongs to no study
    for row in rows:
        if row["image_id"] == "plain.png":
            continue
        film = pydicom.dcmread(source / row["image_id"], stop_before_pixels=True)
        study = done.files["dicom"] / film.StudyInstanceUID
        (capture,), (report,) = study.glob("SC-*.dcm"), study.glob("SR-*.dcm")
        assert probability(report) == pytest.approx(float(row["probability"]), abs=1e-6)
        for path in (capture, report):
            written = pydicom.dcmread(path)
            assert path.name[3:] == f"{written.SOPInstanceUID}.dcm"
            assert (written.PatientID, written.StudyInstanceUID) == (film.PatientID, film.StudyInstanceUID)
    files = sorted(done.files["dicom"].rglob("*.dcm"))
    again = jobs.predict(source, model=small_model, out=in_tmp / "s", dicom=True)
    assert sorted(again.files["dicom"].rglob("*")) == sorted({*files, *(path.parent for path in files)})


def test_identifiers_reach_the_dicom_folder_and_nothing_else(
    small_archive: simulate.Simulated, small_model: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = os.umask(0o022)
    try:
        jobs.predict(small_archive.images, model=small_model, out=in_tmp / "s", dicom=True)
        # The folder is there already when the second run logs its files; the third keeps its record on disk.
        jobs.predict(small_archive.images, model=small_model, out=in_tmp / "s")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        jobs.predict(small_archive.images, model=small_model, out=in_tmp / "s", dicom=True)
    finally:
        os.umask(old)
    folder = in_tmp / "s" / "dicom"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    secret = [f"SIM-3-{i:05d}".encode() for i in range(12)] + [b"Phantom^"]
    private = [path for path in folder.rglob("*") if path.is_file()]
    assert len(private) == 2 * small_archive.pictures
    for path in private:
        assert any(text in path.read_bytes() for text in secret)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    others = [path for path in in_tmp.rglob("*") if path.is_file() and folder not in path.parents]
    assert {"mlflow.db", "record.jsonl", "predictions.csv", "report.html"} <= {path.name for path in others}
    for path in others:
        assert path.suffix != ".dcm"
        assert not any(text in path.read_bytes() for text in secret), path
    logged = [path.name for path in (in_tmp / "mlartifacts").rglob("*") if path.parent.name == "predictions"]
    # Names of files are nobody's business either: what has a row a picture stays here.
    assert set(logged) == {"report.html"}


def test_a_radiograph_of_no_study_is_left_out_and_named(
    small_archive: simulate.Simulated, small_model: Path, in_tmp: Path
) -> None:
    source = shutil.copytree(small_archive.images, in_tmp / "films")
    path = sorted(source.rglob("chest0*"))[0]
    film = pydicom.dcmread(path)
    del film.StudyInstanceUID
    film.save_as(path)
    done = jobs.predict(source, model=small_model, out=in_tmp / "s", dicom=True)
    assert (done.details["dicom"], done.details["dicom_left_out"]) == (small_archive.pictures - 1, 1)
    (row,) = table(done.files["dicom"] / "left-out.csv")
    assert row["input"] == path.relative_to(source).as_posix()
    assert "StudyInstanceUID" in row["reason"]
    assert any("left-out.csv" in line for line in done.lines)
    # Of an earlier answer nothing is left that somebody could file.
    path.unlink()
    kept = sorted(source.rglob("chest1*"))[0]
    for other in [p for p in source.rglob("chest*") if p != kept]:
        other.unlink()
    jobs.predict(source, model=small_model, out=in_tmp / "s", dicom=True)
    assert len(list((in_tmp / "s" / "dicom").rglob("*.dcm"))) == 2
    assert not (in_tmp / "s" / "dicom" / "left-out.csv").exists()


def test_one_file_can_be_the_input(small_archive: simulate.Simulated, small_model: Path, in_tmp: Path) -> None:
    film = sorted(small_archive.images.rglob("chest0*"))[0]
    done = jobs.predict(film, model=small_model, out=in_tmp / "s", dicom=True)
    assert len(list((in_tmp / "s" / "dicom").rglob("*.dcm"))) == 2
    assert done.details["dicom"] == 1


def test_results_are_not_written_over_what_was_read(
    small_archive: simulate.Simulated, small_model: Path, in_tmp: Path
) -> None:
    source = shutil.copytree(small_archive.images, in_tmp / "x" / "dicom")
    named = source / "SC-1.2.dcm"
    shutil.copy(sorted(source.rglob("chest0*"))[0], named)
    before = sorted(path for path in source.rglob("*") if path.is_file())
    with pytest.raises(DataError, match=r"where results are written: name another folder with --out"):
        jobs.predict(source, model=small_model, out=in_tmp / "x", dicom=True)
    assert sorted(path for path in source.rglob("*") if path.is_file()) == before


def test_a_table_is_refused_before_anything_is_read(small_model: Path, in_tmp: Path) -> None:
    with pytest.raises(DataError, match=r"--dicom needs DICOM files to refer to, and .*films\.parquet is a table"):
        jobs.predict(in_tmp / "films.parquet", model=small_model, out=in_tmp / "s", dicom=True)
    assert not (in_tmp / "s").exists()


def test_the_help_says_who_may_read_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["medical", "predict", "--help"])
    assert ended.value.code == 0
    assert "patient's name and identifiers" in " ".join(capsys.readouterr().out.replace("│", " ").split())
