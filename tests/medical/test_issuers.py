"""A file that lacks the issuer of the patient's id names the same patient as the others with that id."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from films import by_name, film, rows
from pydicom.dataset import FileDataset

from unlabeled.medical import intake, read_images
from unlabeled.medical._people import across_issuers, issuers_of, of_files

Save = Callable[[FileDataset, Path], Path]
TakeIn = Callable[..., intake.Intake]


def named(done: intake.Intake) -> dict[str, str]:
    """Patients by the name of the file, as the gate and the table of pictures have them."""
    gate = {name.removesuffix(".dcm"): row["patient"] for name, row in by_name(done).items()}
    studies = {row["instance"]: row["patient"] for row in rows(done.store / "studies.csv")}
    for row in by_name(done).values():
        assert studies.get(row["instance"], row["patient"]) == row["patient"]
    return gate


def test_one_id_with_and_without_its_issuer_is_one_patient_and_the_ledger_leads_back(
    hospital: Path, take: TakeIn, save: Save, capsys: pytest.CaptureFixture[str]
) -> None:
    study = {"StudyInstanceUID": "1.5.1"}
    save(film(1, patient="P1", IssuerOfPatientID="HOSP", **study), hospital / "with.dcm")
    save(film(2, patient="P1", **study), hospital / "without.dcm")
    save(film(3, patient="P1", StudyDate="20200105", ViewPosition="LL"), hospital / "refused.dcm")
    save(film(4, patient="P2"), hospital / "other.dcm")
    done = take(workers=1)
    assert done.manifest["refusals"] == {"lateral view": 1}
    found = named(done)
    assert found["with"] == found["without"] == found["refused"] != found["other"]
    assert done.manifest["people"] == {"with an issuer in some files only": 1, "in doubt": 0}
    assert "1 patients are named with the issuer" in capsys.readouterr().err
    assert len(set(read_images(done.store, size=32).patients)) == 2
    assert {row["patient_id"] for row in rows(done.ledger) if row["pseudonym"] == found["without"]} == {"P1"}


def test_ids_of_several_issuers_stay_apart_unless_a_file_may_be_anybodys(
    hospital: Path, take: TakeIn, save: Save, tmp_path: Path
) -> None:
    save(film(1, patient="P1", IssuerOfPatientID="A"), hospital / "a.dcm")
    save(film(2, patient="P1", IssuerOfPatientID="B"), hospital / "b.dcm")
    apart = named(take())
    assert apart["a"] != apart["b"]
    save(film(3, patient="P1"), hospital / "nobodys.dcm")
    done = take(store=tmp_path / "grown")
    assert len(set(named(done).values())) == 1
    assert done.manifest["people"]["in doubt"] == 1


def test_a_patient_keeps_the_name_that_the_issuer_gives_however_a_folder_grows(
    hospital: Path, take: TakeIn, save: Save, tmp_path: Path
) -> None:
    save(film(1, patient="P1", IssuerOfPatientID="A"), hospital / "a.dcm")
    first = named(take())
    save(film(2, patient="P1"), hospital / "later.dcm")
    save(film(3, patient="P1", IssuerOfPatientID="A"), hospital / "last.dcm")
    grown = named(take(store=tmp_path / "grown"))
    assert set(grown.values()) == set(first.values())
    # Alone, without the other files, it is only the id that names.
    shutil.rmtree(hospital)
    save(film(2, patient="P1"), hospital / "later.dcm")
    assert set(named(take(store=tmp_path / "alone")).values()).isdisjoint(first.values())


@pytest.mark.parametrize("issuers", [["A", None], ["A", "B", None]])
def test_dates_and_written_files_of_one_patient_agree(
    issuers: list[str | None], hospital: Path, take: TakeIn, save: Save
) -> None:
    for number, issuer in enumerate(issuers):
        tags = {"IssuerOfPatientID": issuer} if issuer else {}
        day = f"202001{10 + 7 * number}"
        file = film(number, patient="P1", StudyDate=day, SeriesDate=day, PatientBirthDate="19500101", **tags)
        save(file, hospital / f"f{number}.dcm")
    done = take(dicom=True)
    (patient,) = set(named(done).values())
    date_of = {row["instance"]: row["date"] for row in rows(done.store / "studies.csv")}
    written = {path.stem: pydicom.dcmread(path) for path in (done.store / "dicom").iterdir()}
    assert len(written) == len(issuers)
    days = sorted(pydicom.valuerep.DA(date.replace("-", "")) for date in date_of.values())
    assert [(later - earlier).days for earlier, later in itertools.pairwise(days)] == [7] * (len(issuers) - 1)
    for instance, file in written.items():
        assert file.PatientID == file.PatientName == patient
        assert file.StudyDate == file.SeriesDate == date_of[instance].replace("-", "")


def test_whom_only_some_files_name_with_an_issuer() -> None:
    found = across_issuers([("Ax", "x"), ("x", "x"), ("Ay", "y"), ("By", "y"), ("Az", "z"), ("Bz", "z"), ("z", "z")])
    assert found.called == {"x": "Ax", "Az": "z", "Bz": "z"}
    assert (found.joined, found.doubtful) == (1, 1)
    assert len(found.notes()) == 2
    assert not across_issuers([("Ax", "x"), ("y", "y")]).notes()


def test_a_reader_hands_on_what_the_id_alone_would_be_called() -> None:
    patients = ["Ax~x", "x", "Ay~y", "By~y", None, None]
    studies = ["s", "s", "t", "u", "t", "s"]
    assert of_files(patients, studies, ["", "", "", "", "p", "q"]) == ["Ax", "Ax", "Ay", "By", "Ay", "Ax"]
    assert of_files([*patients[:4], "y"], ["", "", "", "", ""], [""] * 5) == ["Ax", "Ax", "y", "y", "y"]
    assert issuers_of(patients).joined == 1
