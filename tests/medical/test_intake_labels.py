"""A hospital's labels follow its pictures to the store, however they name them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from films import by_name, film, rows
from pydicom.dataset import FileDataset

from unlabeled.core.errors import DataError
from unlabeled.medical import intake, read_images, read_labels
from unlabeled.pipelines._medical_input import read_unlabelled

Save = Callable[[FileDataset, Path], Path]
TakeIn = Callable[..., intake.Intake]


@pytest.fixture
def asked(hospital: Path, tmp_path: Path, save: Save) -> Path:
    """Six films of which each has a study and accession number; the last one is refused."""
    for seed in range(6):
        tags = {"StudyInstanceUID": f"1.5.{seed}", "AccessionNumber": f"A{seed}", "IssuerOfPatientID": "HOSP"}
        file = film(seed, **tags, SOPInstanceUID=f"1.6.{seed}", ViewPosition="LL" if seed == 5 else "PA")
        save(file, hospital / "all" / f"film{seed}.dcm")
    save(film(8), hospital / "x" / "same.dcm")
    save(film(9), hospital / "y" / "same.dcm")
    return tmp_path / "labels.csv"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("file", "all/film{}.dcm"), ("image_id", "film{}.dcm"), ("id", "film{}"), ("id", "1.6.{}"),
        ("image_id", "A{}"), ("SOPInstanceUID", "1.6.{}"), ("StudyInstanceUID", "1.5.{}"), ("accession_number", "A{}"),
        ("patient_id", "P{}"),
    ],
)  # fmt: skip
def test_labels_follow_to_the_store_however_they_name_it(column: str, value: str, asked: Path, take: TakeIn) -> None:
    lines = [f"{value.format(seed)},{seed % 2}" for seed in range(6)]
    asked.write_text("\n".join([f"{column},label", *lines, f"{value.format(77)},1", f"{value.format(3)},"]) + "\n")
    done = take(labels=asked)
    counts = {"used": 5, "without a label": 1, "of refused files": 1, "of several files": 0, "of no file": 1}
    assert done.manifest["labels"] == counts
    gate = by_name(done)
    expected = {gate[f"all/film{seed}.dcm"]["instance"]: str(seed % 2) for seed in range(5)}
    assert {row["image_id"]: row["label"] for row in rows(done.store / "labels.csv")} == expected
    images = read_images(done.store, size=32).labelled()
    assert images.labels is not None
    assert dict(zip(images.ids, map(str, images.labels.tolist()), strict=True)) == expected


def test_labels_that_name_several_files_or_contradict_each_other(asked: Path, take: TakeIn) -> None:
    asked.write_text("file,label,split\nsame.dcm,1,train\nx/same.dcm,0,train\nfilm1,yes,ward 3\n")
    with pytest.raises(DataError, match="line 4: the column 'split' says none of train, val, test") as unknown:
        take(labels=asked)
    assert "ward" not in str(unknown.value)
    asked.write_text("file,label,split\nsame.dcm,1,train\nx/same.dcm,0,train\nfilm1,yes,\n")
    done = take(labels=asked)
    assert done.manifest["labels"]["of several files"] == 1
    assert sorted((row["label"], row["split"]) for row in rows(done.store / "labels.csv")) == [
        ("0", "train"),
        ("1", ""),
    ]
    shutil.rmtree(done.store)
    asked.write_text("file,accession_number,label\n,A1,0\nfilm2,,1\nfilm1.dcm,,1\n")
    with pytest.raises(DataError, match="lines 2 and 4 contradict each other") as caught:
        take(labels=asked)
    assert "film" not in str(caught.value)
    # Mended, the same command goes on from what was read.
    asked.write_text("file,accession_number,label\n,A1,0\nfilm2,,1\n")
    assert take(labels=asked).manifest["labels"]["used"] == 2


def test_labels_that_fit_no_film_end_the_intake_and_a_mended_table_goes_on_from_what_was_read(
    asked: Path, take: TakeIn
) -> None:
    asked.write_text("file,label\nMustermann,1\nfilm5,0\n")  # the last one is refused
    with pytest.raises(DataError, match=r"none of 2 rows .*1 of refused files, 1 of no file.* under file\.") as caught:
        take(labels=asked)
    assert "Muster" not in str(caught.value)
    work = next(asked.parent.glob("*/.*.intake"), None) or next(asked.parent.glob(".*.intake"))
    parts = {path.name: path.stat().st_mtime_ns for path in work.glob("*.npz")}
    assert parts
    asked.write_text("file,label\nfilm1,1\n")
    assert take(labels=asked).manifest["labels"]["used"] == 1


@pytest.mark.parametrize(
    ("coding", "separator"), [("utf-8", ";"), ("utf-16", ","), ("utf-16", "\t"), ("cp1252", ";"), ("utf-8-sig", ",")]
)
def test_tables_as_spreadsheets_of_other_countries_write_them(
    coding: str, separator: str, asked: Path, take: TakeIn
) -> None:
    """The same rows, whether the intake or whatever learns from a folder reads them."""
    lines = ["file,label,Äußerung", "film1,1,schön", "film2,0,"]
    asked.write_bytes("\r\n".join(lines).replace(",", separator).encode(coding))
    done = take(labels=asked)
    assert sorted(row["label"] for row in rows(done.store / "labels.csv")) == ["0", "1"]
    assert {name: row.label for name, row in read_labels(asked).items()} == {"film1": 1, "film2": 0}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("file,label\nMustermann,pneumonic\n", "line 2: the label is none of 1/0"),
        ("file,diagnosis\nMustermann,1\n", "expected a column 'pneumonia' or 'label' and one of file"),
        ('file,label\n"Mustermann,1\n', "no readable CSV|is not a readable CSV"),
    ],
)
def test_labels_that_cannot_be_used_are_said_before_anything_is_read_and_name_nobody(
    content: str, reason: str, asked: Path, take: TakeIn
) -> None:
    asked.write_text(content)
    with pytest.raises(DataError, match=reason) as caught:
        take(labels=asked)
    assert "Muster" not in str(caught.value)
    assert not (asked.parent / "ledger.csv").exists()


@pytest.mark.parametrize("column", ["file", "accession_number", "patient_id"])
def test_what_is_said_of_a_file_that_is_there_twice_holds_whichever_is_kept(
    column: str, hospital: Path, take: TakeIn, tmp_path: Path, save: Save
) -> None:
    """Which of two equal files is kept depends on the site key; its label must not."""
    for seed in range(2):
        for place in ("first", "second"):
            tags = {"AccessionNumber": f"A{seed}", "SOPInstanceUID": f"1.6.{seed}"}
            save(film(seed, **tags), hospital / place / f"film{seed}.dcm")
    value = {"file": "{}/film{}.dcm", "accession_number": "A{1}", "patient_id": "P{1}"}[column]
    labels = tmp_path / "labels.csv"
    for place in ("first", "second"):
        labels.write_text(f"{column},label\n{value.format(place, 0)},1\n{value.format(place, 1)},0\n")
        done = take(labels=labels, store=tmp_path / place)
        assert done.manifest["refusals"] == {"exact duplicate": 2}
        assert done.manifest["labels"]["used"] == 2
        assert sorted(row["label"] for row in rows(done.store / "labels.csv")) == ["0", "1"]
    if column == "file":
        labels.write_text("file,label\nfirst/film0.dcm,1\nsecond/film0.dcm,0\n")
        with pytest.raises(DataError, match="lines 2 and 3 contradict each other"):
            take(labels=labels, store=tmp_path / "third")


def test_what_is_said_of_a_patient_does_not_cross_to_another_one_with_the_same_picture(
    hospital: Path, take: TakeIn, tmp_path: Path, save: Save
) -> None:
    save(film(1, patient="P1", SOPInstanceUID="1.1"), hospital / "a.dcm")
    save(film(1, patient="P2", SOPInstanceUID="1.2"), hospital / "b.dcm")
    labels = tmp_path / "labels.csv"
    labels.write_text("patient_id,label\nP1,1\nP2,0\n")
    done = take(labels=labels)
    assert done.manifest["labels"]["used"] == done.manifest["labels"]["of refused files"] == 1
    (row,) = rows(done.store / "labels.csv")
    kept = next(name for name, gate in by_name(done).items() if gate["state"] != "refused")
    assert row["label"] == {"a.dcm": "1", "b.dcm": "0"}[kept]


def test_what_is_kept_for_judging_teaches_nobody_with_or_without_a_label_from_folder_and_store_alike(
    hospital: Path, take: TakeIn, tmp_path: Path, save: Save
) -> None:
    """Films of split test or val without a label taught, when they came by way of a store."""
    splits = ["train"] * 8 + ["test"] * 6 + ["val"] + [""]
    lines = []
    for seed, split in enumerate(splits):
        save(film(seed), hospital / f"f{seed}.dcm")
        lines.append(f"f{seed},{'' if seed in (0, 8, 9, 14, 15) else seed % 2},{split}")
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(["file,label,split", *lines]) + "\n")
    done = take(labels=labels, size=32)
    assert done.manifest["labels"]["used"] == 11
    assert done.manifest["labels"]["without a label"] == 5
    path_of = {row["instance"]: row["path"].removesuffix(".dcm") for row in rows(done.names)}
    stored = {path_of[row["image_id"]]: (row["label"], row["split"]) for row in rows(done.store / "labels.csv")}
    assert stored["f8"] == ("", "test")
    assert stored["f14"] == ("", "val")
    assert "f15" not in stored
    teaching = read_unlabelled(done.store, size=32)
    from_folder = read_unlabelled(hospital, size=32, labels=read_labels(labels))
    assert {path_of[name] for name in teaching.ids} == {name.removesuffix(".dcm") for name in from_folder.ids}
    assert {path_of[name] for name in teaching.ids} == {*(f"f{seed}" for seed in range(8)), "f15"}


def test_splits_that_contradict_each_other_are_refused(
    hospital: Path, take: TakeIn, tmp_path: Path, save: Save
) -> None:
    save(film(1), hospital / "a.dcm")
    labels = tmp_path / "labels.csv"
    for lines in (("a,,test", "a.dcm,,train"), ("a,,test", "a.dcm,1,train"), ("a,1,train", "a.dcm,,test")):
        labels.write_text("\n".join(["file,label,split", *lines]) + "\n")
        with pytest.raises(DataError, match="lines 2 and 3 contradict each other"):
            take(labels=labels)
    # Of a picture whose label comes without a split, another row may say it.
    labels.write_text("file,label,split\na,1,\na.dcm,,test\n")
    (row,) = rows(take(labels=labels).store / "labels.csv")
    assert (row["label"], row["split"]) == ("1", "test")
