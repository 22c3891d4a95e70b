"""No name that a folder's files, or a table's ids, may hold gets into what is tracked; the user's own files say it."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from unlabeled.core.report import Report, Verdict
from unlabeled.medical import ImageSet, PneumoniaModel, attach, intake, read_images, read_labels, simulate
from unlabeled.pipelines import _medical_audit as auditing
from unlabeled.pipelines import _medical_crossvalidation as crossvalidation
from unlabeled.pipelines import medical
from unlabeled.pipelines._medical_output import without_names

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore"),
]

SMALL: dict[str, Any] = {
    "image_size": 32, "dim": 16, "depth": 1, "heads": 2, "pretrain_epochs": 1, "finetune_steps": 2, "folds": 2,
}  # fmt: skip
NAME = "Muellerhans"


@pytest.fixture
def ward(in_tmp: Path) -> Path:
    """Films in folders called by the patients, one of them twice under two names, one unreadable; labels of them, and
    of one who is not there."""
    lines = []
    for number in range(36):
        drawn = min(number, 34)  # the last two are one film, which teaches and judges
        rng = np.random.default_rng(drawn)
        picture = simulate.draw_radiograph(simulate.draw_anatomy(rng), pneumonia=drawn % 2 == 1, rng=rng, size=96)
        file = simulate.to_dicom(
            picture, patient=f"PID{number:05d}", name=f"{NAME}^X", view="PA", inverted=False, rescaled=False,
            windowed=False,
        )  # fmt: skip
        path = in_tmp / "films" / f"{NAME}_{number}" / "a.dcm"
        path.parent.mkdir(parents=True)
        file.save_as(path, enforce_file_format=True)
        person = 35 if number == 35 else number // 4 * 2 + number % 2
        split = "test" if number // 4 % 3 == 0 or number == 35 else "train"
        lines.append((f"{NAME}_{number}/a.dcm", drawn % 2, f"{NAME} {person}", split))
    broken = in_tmp / "films" / f"{NAME}_broken" / "a.dcm"
    broken.parent.mkdir()
    broken.write_bytes(b"nothing")
    lines.append((f"{NAME}_absent/a.dcm", 1, f"{NAME} 99", "train"))
    with (in_tmp / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("file", "label", "patient_id", "split"), *lines])
    return in_tmp / "films"


@pytest.fixture
def base(ward: Path) -> Path:
    model = PneumoniaModel(**SMALL).pretrain(read_images(ward, size=32))
    return model.save(ward.parent / "base")


def tracked(folder: Path) -> Iterator[Path]:
    yield from folder.glob("mlflow.db*")
    for name in ("mlartifacts", "mlruns", "unlabeled-runs"):
        yield from (path for path in (folder / name).rglob("*") if path.is_file())


def holding(folder: Path, *marks: str) -> list[Path]:
    """Tracked files in which, or in whose names, one of the marks is found."""
    found = []
    for path in tracked(folder):
        content = path.read_bytes() + str(path.relative_to(folder)).encode()
        if path.suffix == ".parquet":  # which compresses
            content += pd.read_parquet(path).to_csv().encode()
        if any(mark.lower().encode() in content.lower() for mark in marks):
            found.append(path)
    return found


def relabelled(folder: Path) -> Path:
    """Labels without patients and splits, which leave these to the files."""
    table = pd.read_csv(folder / "labels.csv")
    table[["file", "label"]].to_csv(folder / "plain.csv", index=False)
    return folder / "plain.csv"


@pytest.mark.parametrize("splits", [True, False])
def test_finetune_and_predict_track_no_name_of_a_folders_files(ward: Path, base: Path, splits: bool) -> None:
    out = ward.parent
    labels = out / "labels.csv" if splits else relabelled(out)
    medical.finetune(ward, model=base, out=out / "m", labels=labels)
    medical.predict(ward, model=out / "m", out=out / "s", heat_maps=2)
    names = {path.name for path in tracked(out)}
    assert names >= {"mlflow.db", "report.html", "weights.safetensors", "manifest.json"}
    assert not holding(out, NAME, "PID000")
    assert not {"predictions.csv", "predictions.parquet", "studies.csv", "skipped.csv"} & names
    # The user's own files say which is which.
    for path in ("m/report.html", "m/skipped.csv", "s/report.html", "s/skipped.csv", "s/predictions.csv"):
        assert NAME in (out / path).read_text(), path
    pages = [path.read_text() for path in tracked(out) if path.name == "report.html"]
    assert not splits or any("look nearly the same (which: see the page" in page for page in pages)
    assert all("not an image" in page for page in pages)


def test_predict_with_labels_tracks_no_name_either(ward: Path, base: Path) -> None:
    out = ward.parent
    images = attach(read_images(ward, size=32), read_labels(out / "labels.csv"))
    some = images.part("train")
    model = PneumoniaModel.load(base)
    model.finetune(some, some.labels)
    model.remember(some.patients)
    model.save(out / "m")
    table = pd.read_csv(out / "labels.csv")
    table[(table.split == "test") & (table.patient_id != f"{NAME} 35")].to_csv(out / "test.csv", index=False)
    medical.predict(ward, model=out / "m", out=out / "s", labels=out / "test.csv")
    assert not holding(out, NAME, "PID000")


def test_ids_of_a_table_are_as_private(phantoms: ImageSet, in_tmp: Path) -> None:
    ids = np.array([f"{NAME} {number}" for number in range(len(phantoms))])
    np.savez(in_tmp / "t.npz", images=phantoms.images, id=ids, patient_id=ids, label=phantoms.labels)
    PneumoniaModel(**SMALL).pretrain(phantoms).save(in_tmp / "base")
    medical.finetune(in_tmp / "t.npz", model=in_tmp / "base", out=in_tmp / "m")
    medical.predict(in_tmp / "t.npz", model=in_tmp / "m", out=in_tmp / "s")
    assert not holding(in_tmp, NAME)


def test_a_stores_predictions_are_tracked_because_nobody_has_a_name_there(ward: Path, base: Path) -> None:
    out = ward.parent
    text = (out / "labels.csv").read_text().splitlines()
    (out / "once.csv").write_text("\n".join(line for line in text if f"{NAME}_35" not in line) + "\n")
    intake.take_in(
        ward, store=out / "store", key=out / "site.key", ledger=out / "ledger.csv", size=32, labels=out / "once.csv",
        workers=1,
    )  # fmt: skip
    model = PneumoniaModel(**SMALL, framing="padded").pretrain(read_images(out / "store", size=32))
    model.save(out / "padded")
    medical.finetune(out / "store", model=out / "padded", out=out / "m")
    medical.predict(out / "store", model=out / "m", out=out / "s")
    assert {"predictions.csv", "predictions.parquet", "skipped.csv"} <= {path.name for path in tracked(out)}
    assert not holding(out, NAME, "PID000")


def test_a_page_without_names_says_the_rest() -> None:
    page = Report("title", "subtitle", Verdict("good"))
    section = page.section("What was left out, and why")
    section.text("2 pairs look alike: Erna/a.png and Otto/b.png.").text("Everything else is fine: 12 pictures.")
    section.text("Erna/a.png is odd.").note("3 people count as one (as on Erna/a.png, c).")
    section.table(["reason", "count", "for example"], [("lateral", 2, "Erna/a.png (lateral: LL)")])
    section.table(["input", "reason"], [("Erna/a.png", "lateral: LL")])
    section.table(["", "picture", "call"], [("highest", "Otto/b.png", "pneumonia")], ours=[0])
    clean = without_names(page, {"Erna/a.png", "Otto/b.png", "12"})
    assert "Erna" not in clean.html()
    assert "Otto" not in clean.html()
    assert [(part.text, part.columns, part.rows) for part in clean.sections[0].parts] == [
        ("2 pairs look alike (which: see the page beside the job's own files).", [], []),
        ("Everything else is fine: 12 pictures.", [], []),
        ("3 people count as one (which: see the page beside the job's own files).", [], []),
        ("", ["reason", "count"], [["lateral", "2"]]),
        ("", ["", "call"], [["highest", "pneumonia"]]),
    ]
    assert "Erna" in page.html()


def test_no_other_job_tracks_a_name_either(ward: Path, base: Path) -> None:
    out = ward.parent
    labels = relabelled(out)
    crossvalidation.crossvalidate(ward, model=base, out=out / "cv", labels=labels, folds=2)
    medical.pretrain(ward, out=out / "p", size=32, epochs=1)
    medical.finetune(ward, model=base, out=out / "m", labels=out / "labels.csv")
    table = pd.read_csv(out / "labels.csv")
    table[(table.split == "test") & (table.patient_id != f"{NAME} 35")].to_csv(out / "test.csv", index=False)
    auditing.audit(ward, model=out / "m", out=out / "a", labels=out / "test.csv", least=2)
    assert len({path.parent.parent for path in tracked(out) if path.name == "report.html"}) >= 4
    assert not holding(out, NAME, "PID000")
    for path in ("cv/predictions.csv", "cv/skipped.csv", "cv/report.html", "a/skipped.csv", "p/report.html"):
        assert NAME in (out / path).read_text() or path == "cv/report.html", path
