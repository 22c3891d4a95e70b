"""However files and labels name people, no person's pictures lie on both sides of a split."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import FileDataset

from unlabeled.core.errors import GateError
from unlabeled.medical import ImageSet, attach, check_no_leak, read_images, read_labels
from unlabeled.medical._people import of_files

Films = Callable[[dict[str, tuple[str | None, str | None]]], ImageSet]


@pytest.fixture
def films(make_dicom: Callable[..., FileDataset], save: Callable[[FileDataset, Path], Path], tmp_path: Path) -> Films:
    """Reads films of noise: by name, patient and study of each."""

    def read(who: dict[str, tuple[str | None, str | None]]) -> ImageSet:
        rng = np.random.default_rng(0)
        for name, (patient, study) in who.items():
            film = make_dicom(rng.integers(0, 4096, (40, 40)), PatientID=patient, StudyInstanceUID=study)
            save(film, tmp_path / "films" / f"{name}.dcm")
        return read_images(tmp_path / "films", size=16)

    return read


def labelled(images: ImageSet, text: str, folder: Path) -> ImageSet:
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return attach(images, read_labels(folder / "labels.csv"))


def test_a_name_that_the_labels_give_is_the_patients_on_every_film_of_theirs(films: Films, tmp_path: Path) -> None:
    images = films({"a": ("1", None), "b": ("1", None), "c": ("1", None), "d": ("2", None)})
    text = "file,label,patient_id,split\na,1,Erna,test\nb,0,,train\nd,0,Otto,train\n"
    found = labelled(images, text, tmp_path)
    assert list(found.patients) == ["Erna", "Erna", "Erna", "Otto"]
    with pytest.raises(GateError, match="Erna"):
        check_no_leak({name: found.part(name) for name in ("train", "test")})
    # Again, as jobs do that look at the labels twice.
    assert list(labelled(found, text, tmp_path).patients) == list(found.patients)


def test_several_names_for_one_patient_are_one_persons_and_that_is_said(films: Films, tmp_path: Path) -> None:
    images = films({"a": ("1", None), "b": ("1", None), "c": ("2", None), "d": ("3", None), "e": ("4", None)})
    # Erna and Anna share patient 1, Anna and patient 2 are one: so a, b and c are one person.
    text = "file,label,patient_id\na,1,Erna\nb,0,Anna\nc,0,Anna\nd,0,Otto\n"
    found = labelled(images, text, tmp_path)
    assert list(found.patients[:4]) == ["Erna", "Erna", "Erna", "Otto"]
    assert found.patients[4] == images.patients[4]
    (note,) = found.notes
    assert note == "1 patients have several names in the labels, and count as one each (as on a.dcm, b.dcm)"
    assert labelled(found, text, tmp_path).notes == found.notes
    swapped = replace(images, patients=np.array(["p", "p", "q", "r", "s"]))
    found = labelled(swapped, "file,label,patient_id\na,1,q\nc,0,p\n", tmp_path)
    assert list(found.patients) == ["q", "q", "p", "r", "s"]
    assert not found.notes


def test_pictures_of_nobody_known_may_get_different_names(films: Films, tmp_path: Path) -> None:
    images = films(dict.fromkeys("abc", (None, "1.2.3")) | dict.fromkeys("de", (None, "1.2.4")))
    found = labelled(images, "file,label,patient_id\na,1,Erna\nb,0,Otto\nd,0,Anna\n", tmp_path)
    # Of c nobody can tell whether it is Erna's or Otto's; e is of the study of which the labels know Anna.
    assert list(found.patients) == ["Erna", "Otto", images.patients[2], "Anna", "Anna"]
    assert any("1 pictures without a patient share a study" in note and "c.dcm" in note for note in found.notes)


def test_an_id_that_stands_for_many_patients_is_none(films: Films, tmp_path: Path) -> None:
    """An export whose every file says ANON, beside a table that knows better."""
    images = films({name: ("ANON", f"1.2.{row // 2}") for row, name in enumerate("abcdefghij")})
    assert len(set(images.patients)) == 1
    lines = [f"{name},1,person {name}" for name in "acegi"[:4]]
    found = labelled(images, "\n".join(["file,label,patient_id", *lines]) + "\n", tmp_path)
    # The second film of each study is the person's whom the table names on the first; of the last nothing is known.
    assert list(found.patients[:8]) == [f"person {name}" for name in "aacceegg"]
    assert found.patients[8] == found.patients[9]
    assert found.patients[8].startswith("unknown-")
    assert any("1 patient id(s) stand for more than 3 patients" in note for note in found.notes)
    # Three names may be slips of a pen: they are one person.
    few = labelled(images, "\n".join(["file,label,patient_id", *lines[:3]]) + "\n", tmp_path)
    assert len(set(few.patients)) == 1


def test_films_of_one_study_without_a_patient_are_one_patients(films: Films) -> None:
    images = films({"a": (None, "1.2.3"), "b": (None, "1.2.3"), "c": (None, "1.2.4"), "d": (None, None)})
    first, same, other, alone = images.patients
    assert first == same != other != alone != first
    assert first.startswith("unknown-")
    assert "1.2.3" not in first
    assert images.notes[0].startswith("4 pictures name no patient: those of one study count as one patient's")
    with pytest.raises(GateError):
        check_no_leak({"train": images.take([0]), "test": images.take([1])})


def test_a_film_without_a_patient_is_the_one_whom_its_study_names_elsewhere(films: Films) -> None:
    images = films({"a": ("1", "1.2.3"), "b": (None, "1.2.3"), "c": (None, "1.2.4")})
    assert images.patients[0] == images.patients[1] != images.patients[2]
    assert not images.patients[1].startswith("unknown-")


def test_the_same_pixels_in_two_studies_of_nobody_are_one_persons() -> None:
    names = of_files([None] * 4, ["s", "t", "", "t"], ["x", "x", "y", "z"])
    assert names == ["unknown-s", "unknown-s", "unknown-y", "unknown-s"]
    # Two patients in a study: it is either's.
    assert of_files(["p", "q", None], ["s", "s", "s"], ["", "", "x"]) == ["p", "q", "unknown-s"]


def test_an_empty_patient_of_a_table_is_nobody_and_not_one_person(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 20, 20), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=pictures, patient_id=np.array(["p", "", ""]))
    found = read_images(tmp_path / "a.npz", size=16).patients
    assert len(set(found)) == 3
    assert found[0] == "p"


def test_a_file_without_the_issuer_is_of_the_patient_whom_others_name_with_one(
    make_dicom: Callable[..., FileDataset], save: Callable[[FileDataset, Path], Path], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)

    def read(who: dict[str, tuple[str, str | None]]) -> ImageSet:
        for name, (patient, issuer) in who.items():
            tags = {"PatientID": patient, "IssuerOfPatientID": issuer, "StudyInstanceUID": f"1.2.{patient}"}
            save(make_dicom(rng.integers(0, 4096, (40, 40)), **tags), tmp_path / "films" / f"{name}.dcm")
        return read_images(tmp_path / "films", size=16)

    images = read({"a": ("1", "HOSP"), "b": ("1", None), "c": ("2", None)})
    assert not images.skipped  # one study of "two patients" would be
    assert images.patients[0] == images.patients[1] != images.patients[2]
    assert "~" not in "".join(images.patients)
    assert images.notes == ("1 patients are named with the issuer of their id by some files only, and are one",)
