"""What goes back to the archive: valid, in the right study, of the right patient, and saying what the model said."""

import io
import shutil
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import generate_uid

from unlabeled.core.errors import DataError
from unlabeled.medical import dicom, simulate
from unlabeled.medical.dicom_output import Result, check_source, heat_map_capture, measurement_report

RESULT = Result(probability=0.734567, threshold=0.512345, sensitive_threshold=0.120001, model="0123456789abcdef")
WHEN = datetime(2026, 1, 2, 3, 4, 5)

# What dciodvfy remarks on beside errors, and why it may.
UNDERSTOOD = (
    # Of the sources: nothing is made up that they do not say.
    "Missing attribute or value that would be needed to build DICOMDIR",
    "Value dubious for this VR - (0x0008,0x0090) PN Referring Physician's Name",
    # A private code, marked as such by its 99, which no list of defined terms can hold.
    "Unrecognized defined term <99UNLABELED> for value 1 of attribute <Coding Scheme Designator>",
)


def phantom(**kind: bool) -> FileDataset:
    rng = np.random.default_rng(0)
    picture = simulate.draw_radiograph(simulate.draw_anatomy(rng), pneumonia=True, rng=rng, size=200)
    options = {"inverted": False, "rescaled": False, "windowed": False, **kind}
    return simulate.to_dicom(picture, patient="SIM-7", name="Phantom^Seven", view="PA", **options)


def both(source: Dataset, result: Result = RESULT) -> tuple[Dataset, Dataset]:
    picture = dicom.to_picture(source, dicom.decode(source))
    heat_map = np.linspace(-1, 1, 64).reshape(8, 8)
    return heat_map_capture(source, heat_map, picture, result, when=WHEN), measurement_report(source, result, when=WHEN)


def read_back(written: Dataset) -> FileDataset:
    stream = io.BytesIO()
    written.save_as(stream, enforce_file_format=True)
    stream.seek(0)
    return pydicom.dcmread(stream)


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (apt-get install dicom3tools)")
    return found


def check_valid(objects: tuple[Dataset, Dataset], folder: Path) -> None:
    validator = tool("dciodvfy")
    for number, written in enumerate(objects):
        path = folder / f"{number}.dcm"
        written.save_as(path, enforce_file_format=True)
        done = subprocess.run([validator, str(path)], capture_output=True, text=True)
        said = (done.stdout + done.stderr).splitlines()
        assert {"SCImage", "ComprehensiveSR"} & set(said), said  # it recognised what it looked at
        remarks = [line for line in said if " - " in line]
        new = [line for line in remarks if not line.removeprefix("Warning - ").startswith(UNDERSTOOD)]
        assert new == []
        assert done.returncode == 0


@pytest.mark.parametrize("kind", [{}, {"inverted": True, "windowed": True}, {"rescaled": True}])
def test_both_objects_are_valid(kind: dict[str, bool], tmp_path: Path) -> None:
    check_valid(both(phantom(**kind)), tmp_path)


def test_a_report_that_abstains_is_valid(tmp_path: Path) -> None:
    result = Result(**{**RESULT.__dict__, "abstained": "Refer to a radiologist: too close to call at an error of 5 %."})
    check_valid(both(phantom(), result), tmp_path)


@pytest.mark.filterwarnings("ignore:Invalid value for VR AS")  # an age that the sample writes wrongly
@pytest.mark.parametrize("name", ["aihcnd_test1.dcm", "pydicomdata_RG1_J2KI.dcm", "pydicomdata_RG1_J2KR.dcm"])
def test_objects_of_real_files_are_valid(shared_data: Path, name: str, tmp_path: Path) -> None:
    source = pydicom.dcmread(shared_data / "xray" / "dicom_samples" / name)
    objects = both(source)
    check_valid(objects, tmp_path)
    for written in objects:
        assert written.StudyInstanceUID == source.StudyInstanceUID
        assert written.PatientID == source.PatientID


def test_an_archive_takes_source_and_results_for_one_patient_s_one_study(tmp_path: Path) -> None:
    verifier, source = tool("dcentvfy"), phantom()
    source.PatientBirthDate, source.PatientSex, source.StudyDate, source.StudyTime = "19700102", "F", "20260101", "0930"
    source.StudyID, source.AccessionNumber, source.ReferringPhysicianName = "7", "A-7", "Ward^Seven"
    paths = []
    for number, written in enumerate((source, *both(source))):
        paths.append(tmp_path / f"{number}.dcm")
        written.save_as(paths[-1], enforce_file_format=True)
    done = subprocess.run([verifier, *map(str, paths)], capture_output=True, text=True)
    said = (done.stdout + done.stderr).splitlines()
    # It holds that a Secondary Capture's accession number is of the series, and compares it with the study's.
    known = "Warning - Different information entities for attribute - Element=<AccessionNumber>"
    assert [line for line in said if not line.startswith(known)] == []
    assert done.returncode == 0


def test_a_capture_is_filed_beside_its_source() -> None:
    source = phantom()
    source.PatientBirthDate, source.StudyDate, source.InstanceNumber = "19700102", "20260101", 3
    capture = read_back(both(source)[0])
    for name in ("PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID", "StudyDate", "InstanceNumber"):
        assert capture[name].value == source[name].value, name
    assert capture.SeriesInstanceUID != source.SeriesInstanceUID
    assert capture.SOPInstanceUID != source.SOPInstanceUID
    (reference,) = capture.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert reference.ReferencedSOPClassUID == source.SOPClassUID
    assert (capture.ConversionType, capture.PhotometricInterpretation, capture.BitsStored) == ("WSD", "RGB", 8)
    assert "RESEARCH ONLY - NOT FOR DIAGNOSIS" in capture.SeriesDescription
    assert capture.pixel_array.shape == (capture.Rows, capture.Columns, 3)


def test_the_same_model_writes_the_same_objects_again() -> None:
    first, again = both(phantom()), both(phantom())
    for one, other in zip(first, again, strict=True):
        assert one.SOPInstanceUID == other.SOPInstanceUID
        assert one.SeriesInstanceUID == other.SeriesInstanceUID
    assert read_back(first[0]) == read_back(again[0])
    other_model = both(phantom(), Result(**{**RESULT.__dict__, "model": "another"}))
    beside = phantom()  # another picture of the same study
    beside.SOPInstanceUID = generate_uid()
    for one, changed, neighbour in zip(first, other_model, both(beside), strict=True):
        assert one.SOPInstanceUID != changed.SOPInstanceUID
        assert one.SeriesInstanceUID != changed.SeriesInstanceUID
        assert one.SOPInstanceUID != neighbour.SOPInstanceUID
        assert one.SeriesInstanceUID == neighbour.SeriesInstanceUID
    uids = {name for written in first for name in (written.SOPInstanceUID, written.SeriesInstanceUID)}
    assert len(uids) == 4
    assert all(uid.is_valid for uid in map(pydicom.uid.UID, uids))


def radiograph_of(capture: Dataset, shape: tuple[int, int]) -> np.ndarray:
    """The part of a capture that shows the radiograph, 1024 pixels on its longer side."""
    scale = 1024 / max(shape)
    height, width = round(shape[0] * scale), round(shape[1] * scale)
    left = (capture.Columns - width) // 2
    return capture.pixel_array[44 : 44 + height, left : left + width].astype(int)


def test_the_heat_map_colours_where_it_speaks_and_nothing_else() -> None:
    heat_map = np.zeros((8, 8))
    heat_map[0, 0], heat_map[7, 7] = 2.0, -1.0
    picture = np.full((100, 50), 0.5, dtype=np.float32)
    shown = radiograph_of(heat_map_capture(phantom(), heat_map, picture, RESULT), picture.shape)
    red, green, blue = shown[20, 10]
    assert red > green > blue  # orange: speaks for
    red, green, blue = shown[-20, -10]
    assert blue > green > red  # blue: speaks against, half as strongly
    assert np.ptp(shown[20, 10]) > np.ptp(shown[-20, -10])
    assert (shown[512, 256] == 128).all()


def test_a_radiograph_shows_through_unchanged_where_there_is_no_map() -> None:
    source = phantom()
    picture = dicom.to_picture(source, dicom.decode(source))
    shown = radiograph_of(heat_map_capture(source, np.zeros((8, 8)), picture, RESULT), picture.shape)
    assert (shown == shown[..., :1]).all()  # grey throughout
    small = shown[..., 0].reshape(64, 16, 64, 16).mean(axis=(1, 3))
    whole = picture[:192, :192].reshape(64, 3, 64, 3).mean(axis=(1, 3)) * 255
    assert np.corrcoef(small[:60, :60].ravel(), whole[:60, :60].ravel())[0, 1] > 0.8  # the right way up


def test_warning_and_legend_are_in_the_pixels() -> None:
    pixels = both(phantom())[0].pixel_array
    top, below = pixels[:44], pixels[44 + 1024 :]
    assert (top.max(axis=2) > 150).mean() > 0.01
    assert (below.max(axis=2) > 200).mean() > 0.01


def test_a_long_reason_is_not_cut_off() -> None:
    reason = "Refer to a radiologist: " + "this radiograph is unlike those that the model learnt from, " * 4
    plain, long = (both(phantom(), Result(**{**RESULT.__dict__, "abstained": r}))[0] for r in ("Refer.", reason))
    assert long.Rows >= plain.Rows + 3 * 30
    assert long.pixel_array[44 + 1024 + 104 :, -14:].max() == 0  # nothing runs into the right border


@pytest.mark.parametrize("declared", ["YES", "NO", None])
def test_burned_in_annotation_stays_what_the_source_says(
    make_dicom: Callable[..., FileDataset], declared: str | None
) -> None:
    uids = {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()}
    source = make_dicom(np.arange(4096).reshape(64, 64), BurnedInAnnotation=declared, **uids)
    assert both(source)[0].get("BurnedInAnnotation") == declared


def test_loss_in_the_source_is_not_forgotten() -> None:
    source = phantom()
    source.LossyImageCompression, source.LossyImageCompressionRatio = "01", "12.5"
    capture = both(source)[0]
    assert (capture.LossyImageCompression, capture.LossyImageCompressionRatio) == ("01", 12.5)


@pytest.mark.parametrize(
    ("result", "call"),
    [
        (RESULT, "Present"),
        (Result(probability=0.5, threshold=0.6, sensitive_threshold=0.1, model="m"), "Absent"),
        (
            Result(probability=0.5, threshold=0.4, sensitive_threshold=0.1, model="m", abstained="Refer."),
            "Undetermined",
        ),
    ],
)
def test_a_report_reads_back_with_the_same_numbers(result: Result, call: str, tmp_path: Path) -> None:
    source = phantom()
    both(source, result)[1].save_as(tmp_path / "sr.dcm", enforce_file_format=True)
    report = hd.sr.srread(tmp_path / "sr.dcm")
    (group,) = report.content.get_image_measurement_groups()
    pneumonia = hd.sr.CodedConcept("233604007", "SCT", "Pneumonia")
    assert group.finding_type == (pneumonia if call == "Present" else None)
    values = {m.name.meaning: (m.value, m.unit.value) for m in group.get_measurements()}
    assert values == {
        "Probability": (result.probability, "1"),
        "Threshold Value": (result.threshold, "1"),
        "Threshold Value for 95 % sensitivity": (result.sensitive_threshold, "1"),
    }
    ((evaluation,),) = [group.get_qualitative_evaluations()]
    assert (evaluation.name, evaluation.value.meaning) == (pneumonia, call)
    (referred,) = group.source_images
    assert referred.referenced_sop_instance_uid == source.SOPInstanceUID
    texts = [str(item.TextValue) for item in group[0].ContentSequence if item.ValueType == "TEXT"]
    assert any("not a medical device" in text for text in texts)
    assert (result.abstained or "The model abstains from no radiograph: no rule for abstaining was set.") in texts
    observer = {str(i.ConceptNameCodeSequence[0].CodeMeaning): i for i in report.content[0].ContentSequence}
    assert observer["Device Observer Serial Number"].TextValue == result.model
    assert observer["Device Observer Model Name"].TextValue.startswith("unlabeled ")
    assert (report.PreliminaryFlag, report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")


def test_a_report_s_image_library_holds_the_source() -> None:
    source = phantom()
    report = both(source)[1]
    by_name = {str(i.ConceptNameCodeSequence[0].CodeMeaning): i for i in report.ContentSequence}
    (library,) = by_name["Image Library"].ContentSequence
    (image,) = library.ContentSequence
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    described = {str(i.ConceptNameCodeSequence[0].CodeMeaning): i for i in image.ContentSequence}
    assert described["Modality"].ConceptCodeSequence[0].CodeValue == "DX"
    assert described["Pixel Data Rows"].MeasuredValueSequence[0].NumericValue == source.Rows


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 144", "Жижин^Лидия"),
        ("ISO_IR 192", "王^小東"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    ],
)
def test_a_name_keeps_its_letters(charset: str | list[str], name: str) -> None:
    source = phantom()
    source.SpecificCharacterSet, source.PatientName = charset, name
    source = read_back(source)
    for written in both(source):
        again = read_back(written)
        assert again.PatientName == name
        assert again.PatientName.encode(again.PatientName.encodings) == source.PatientName.encode(
            source.PatientName.encodings
        )


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.filterwarnings("ignore:The value length")
def test_tags_as_people_write_them_cost_nothing(make_dicom: Callable[..., FileDataset]) -> None:
    uids = {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()}
    source = make_dicom(np.arange(4096).reshape(64, 64), **uids)
    source.PatientName, source.PatientSex, source.PatientAge = "No caret", "Female", "81"
    source.StudyDate, source.InstanceNumber, source.PatientID = "2004.08.26", None, " 0815 "
    for written in both(source):
        assert str(written.PatientName) == "No caret"
        assert written.PatientID == " 0815 "  # who it is must stay as the archive knows it
        assert written.StudyDate == "2004.08.26"
        assert "PatientAge" not in written
        assert written.InstanceNumber == 1


@pytest.mark.parametrize("missing", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
@pytest.mark.parametrize("value", [None, "", "../../elsewhere", "1.2.x"])
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_source_without_a_study_to_file_in_is_refused(missing: str, value: str | None) -> None:
    source = phantom()
    if value is None:
        del source[missing]
    else:
        source[missing].value = value
    with pytest.raises(DataError, match=rf"{missing} is missing or no UID"):
        check_source(source)
    with pytest.raises(DataError, match=missing):
        measurement_report(source, RESULT)


@given(probability=st.floats(0, 1), threshold=st.floats(0, 1))
def test_the_threshold_itself_counts_as_pneumonia(probability: float, threshold: float) -> None:
    result = Result(probability=probability, threshold=threshold, sensitive_threshold=0.1, model="m")
    assert (result.call == "pneumonia") == (probability >= threshold)
    assert Result(**{**result.__dict__, "abstained": "Refer."}).call == "no call"
