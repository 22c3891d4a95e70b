"""Nothing that was planted may be left, and the same patient must stay the same."""

import hashlib
import hmac
import io
import re
import uuid
import warnings
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planting import BORN, SEEN, leftovers, plant_everywhere, written
from pydicom import Dataset, config, dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import FileDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from unlabeled.core.errors import DataError
from unlabeled.medical import _confidentiality, attributes, dicom, simulate
from unlabeled.medical._pseudonyms import Pseudonyms
from unlabeled.medical.deidentify import Deidentifier, Link, StudyFacts

KEY = bytes(range(32))
SAMPLES = Path(__file__).parents[3] / "shared/data/xray/dicom_samples"
RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)

Make = Callable[..., FileDataset]
Save = Callable[[FileDataset, Path], Path]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.filterwarnings("ignore")  # the planted file breaks the standard on purpose
def test_no_planted_identifier_survives_in_any_type_of_value(syntax: str, make_dicom: Make, tmp_path: Path) -> None:
    file = make_dicom(RAMP)
    with config.disable_value_validation():
        plant = plant_everywhere(file)
        file.file_meta.TransferSyntaxUID = syntax
        (tmp_path / "Mustermann_ZQ00000X.dcm").write_bytes(written(file))
        before = (tmp_path / "Mustermann_ZQ00000X.dcm").read_bytes()
        # The scan sees what it should: nearly every mark stands in the original.
        assert len(leftovers(before)) > 0.9 * plant.count > 3000

        clean = Deidentifier(KEY)(dcmread(tmp_path / "Mustermann_ZQ00000X.dcm"))
    clean.save_as(tmp_path / "clean.dcm", enforce_file_format=True)
    after = (tmp_path / "clean.dcm").read_bytes()
    assert leftovers(after) == set()
    assert after[:128] == b"\0" * 128
    assert b"Muster" not in after
    assert (dcmread(tmp_path / "clean.dcm").pixel_array == RAMP).all()


@pytest.mark.filterwarnings("ignore")  # the planted file breaks the standard on purpose
def test_facts_hold_no_planted_identifier_and_nothing_is_logged(
    make_dicom: Make, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    file = make_dicom(RAMP)
    with config.disable_value_validation():
        plant_everywhere(file)
        file = dcmread(io.BytesIO(written(file)))
    caplog.clear()
    capfd.readouterr()
    told = repr(Deidentifier(KEY).facts(file)) + repr(Deidentifier(KEY)) + repr(vars(Deidentifier(KEY)))
    Deidentifier(KEY)(file)
    assert leftovers(told.encode()) == set()
    assert KEY.hex() not in told
    assert leftovers(caplog.text.encode()) == set()
    assert capfd.readouterr() == ("", "")


def test_broken_values_are_dropped_without_a_word_that_would_quote_them(
    make_dicom: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """pydicom quotes a character set it does not know, and values that break their type, in warnings and log lines."""
    with config.disable_value_validation():
        file = make_dicom(RAMP, SpecificCharacterSet="ISO_IR 192", Laterality="ZQ00002X-too-long-a-code")
        content = written(file).replace(b"ISO_IR 192", b"ZQ00001X  ").replace(b"CHEST ", b"ZQ3\xfc7 ")
    assert content.count(b"ZQ") == 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of this read only: a warning of ours would end the test
        file = dcmread(io.BytesIO(content))
    caplog.clear()
    clean = Deidentifier(KEY)(file)
    assert Deidentifier(KEY).facts(file).body_part is None
    assert caplog.text == ""
    assert leftovers(written(clean)) == set()
    assert b"ZQ3" not in written(clean)


def test_the_original_stays_as_it_is(make_dicom: Make) -> None:
    file = make_dicom(RAMP, StudyDate=SEEN, StudyInstanceUID="1.2.3", BurnedInAnnotation="NO")
    before = written(file)
    Deidentifier(KEY)(file)
    assert written(file) == before


def test_comments_inside_a_compressed_picture_do_not_survive(make_dicom: Make) -> None:
    file = make_dicom(RAMP)
    file.compress(JPEG2000Lossless, generate_instance_uid=False)
    stream = file.PixelData
    size_segment = stream.index(b"\xff\x51")
    end = size_segment + 2 + int.from_bytes(stream[size_segment + 2 : size_segment + 4])
    comment = b"ZQ00001X Mustermann!"
    note = b"\xff\x64" + (len(comment) + 4).to_bytes(2) + b"\0\1" + comment
    start = stream.index(b"\xff\x4f\xff\x51")
    length = int.from_bytes(stream[start - 4 : start], "little") + len(note)
    file.PixelData = stream[: start - 4] + length.to_bytes(4, "little") + stream[start:end] + note + stream[end:]
    file = dcmread(io.BytesIO(written(file)))
    assert (file.pixel_array == RAMP).all()
    after = written(Deidentifier(KEY)(file))
    assert leftovers(written(file)) == {b"zq00001x"}
    assert leftovers(after) == set()
    assert (dcmread(io.BytesIO(after)).pixel_array == RAMP).all()


def test_overlays_in_unused_high_bits_go_and_the_picture_stays(make_dicom: Make) -> None:
    drawn = RAMP | np.uint16(0xF000) * (RAMP % 7 == 0)
    clean = Deidentifier(KEY)(make_dicom(drawn))
    assert np.array_equal(clean.pixel_array, RAMP)
    signed = make_dicom(np.array([[0x0801, 0x07FF], [0xF001, 0x7002]]), PixelRepresentation=1)
    assert Deidentifier(KEY)(signed).pixel_array.tolist() == [[-2047, 2047], [1, 2]]


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize("rescaled", [False, True])
def test_a_picture_is_shown_as_before(inverted: bool, windowed: bool, rescaled: bool) -> None:
    rng = np.random.default_rng(5)
    picture = simulate.draw_radiograph(simulate.draw_anatomy(rng), pneumonia=True, rng=rng, size=160)
    file = simulate.to_dicom(
        picture, patient="A", name="B^C", view="PA", inverted=inverted, rescaled=rescaled, windowed=windowed
    )
    clean = dcmread(io.BytesIO(written(Deidentifier(KEY)(file))))
    assert np.array_equal(dicom.to_picture(clean, dicom.decode(clean)), dicom.to_picture(file, dicom.decode(file)))
    dicom.check_tags(clean)


@pytest.mark.parametrize("form", ["US", "OW"])
def test_look_up_tables_are_kept_where_they_are_curves_and_refused_where_they_are_not(
    form: str, make_dicom: Make
) -> None:
    curve = (np.linspace(0, 1, 4096) ** 2 * 4095).astype("<u2")

    def with_table(values: np.ndarray) -> FileDataset:
        table = Dataset()
        table.add_new(0x00283002, "US", [4096, 0, 12])
        table.add_new(0x00283006, form, values.tobytes() if form == "OW" else values.tolist())
        table.LUTExplanation = "for Mrs ZQ00001X"
        return make_dicom(RAMP, VOILUTSequence=[table])

    file = with_table(curve)
    clean = dcmread(io.BytesIO(written(Deidentifier(KEY)(file))))
    assert np.array_equal(dicom.to_picture(clean, clean.pixel_array), dicom.to_picture(file, file.pixel_array))
    assert leftovers(written(clean)) == set()
    text = np.frombuffer(b"ZQ00001X".ljust(8192), dtype="<u2")
    with pytest.raises(dicom.Refused, match="look-up table"):
        Deidentifier(KEY)(with_table(text))


def test_what_was_done_is_written_in_the_standards_codes(make_dicom: Make) -> None:
    file = make_dicom(RAMP, StudyDate=SEEN, PatientSex="F", PatientAge="093Y", Manufacturer="Philips")
    clean = Deidentifier(KEY)(file)
    codes = [(item.CodeValue, item.CodingSchemeDesignator) for item in clean.DeidentificationMethodCodeSequence]
    assert codes == [(code, "DCM") for code in ("113100", "113107", "113108", "113109")]
    assert clean.PatientIdentityRemoved == "YES"
    assert clean.LongitudinalTemporalInformationModified == "MODIFIED"
    assert (clean.PatientSex, clean.PatientAge, clean.Manufacturer) == ("F", "080Y", "Philips")
    assert all(len(line) <= 64 for line in clean.DeidentificationMethod)
    bare = Deidentifier(KEY)(make_dicom(RAMP))
    assert [item.CodeValue for item in bare.DeidentificationMethodCodeSequence] == ["113100"]
    assert bare.LongitudinalTemporalInformationModified == "REMOVED"


def test_the_short_lists_agree_with_the_table_of_the_standard() -> None:
    """Nothing on them is on Table E.1-1, but for what an option keeps or a rule of ours replaces."""
    table = {tag[:2] for tag in _confidentiality.annex_e() if len(tag) == 2}
    listed = {*_confidentiality.TECHNICAL, *_confidentiality.TABLES, *_confidentiality.MAKER}
    in_table = {keyword for keyword in listed if _confidentiality.tag_of(keyword) in table}
    assert in_table == {"PatientSex"}
    assert len(table) > 600
    rules = Deidentifier(KEY)._rules(Dataset())
    assert {_confidentiality.tag_of(keyword) for keyword in _confidentiality.IDENTIFIERS} <= set(rules)
    assert {keyword_for_tag(tag) for tag in rules} >= {"StudyInstanceUID", "ReferencedSOPInstanceUID", "PatientID"}


def test_pseudonyms_are_the_hmac_under_the_site_key(make_dicom: Make) -> None:
    """Known answers, so that no later version of the software breaks the link to an earlier one."""

    def digest(message: str) -> bytes:
        return hmac.new(KEY, message.encode(), hashlib.sha256).digest()

    file = make_dicom(
        RAMP,
        PatientID=" 0815 ",
        IssuerOfPatientID="HOSP",
        StudyInstanceUID="1.2.3",
        AccessionNumber="77",
        StudyDate=SEEN,
    )
    deidentify = Deidentifier(KEY)
    clean = deidentify(file)
    assert clean.PatientID == clean.PatientName == "P-" + digest("patient\0HOSP\\0815").hex()[:16].upper()
    assert clean.PatientID == deidentify.patient(file)
    new_uid = uuid.UUID(bytes=digest("uid\0" + "1.2.3")[:16], version=4)
    assert clean.StudyInstanceUID == f"2.25.{new_uid.int}"
    assert clean.AccessionNumber == "A-" + digest("accession\0" + "77").hex()[:14].upper()
    days = 1 + int.from_bytes(digest("days\0HOSP\\0815")[:8]) % 3650
    assert clean.StudyDate == f"{date(2019, 8, 17) - timedelta(days=days):%Y%m%d}"
    assert clean.file_meta.MediaStorageSOPInstanceUID == clean.SOPInstanceUID != file.SOPInstanceUID


def test_facts_link_and_file_tell_the_same(make_dicom: Make) -> None:
    file = make_dicom(
        RAMP,
        StudyInstanceUID="1.2.3",
        SeriesInstanceUID="1.2.3.4",
        AccessionNumber="77",
        StudyDate=SEEN,
        PatientBirthDate=BORN,
        PatientSex="F",
        Manufacturer="Philips Medical Systems",
        ManufacturerModelName="DigitalDiagnost",
    )
    deidentify = Deidentifier(KEY)
    clean, facts, link = deidentify(file), deidentify.facts(file), deidentify.link(file)
    assert facts == StudyFacts(
        patient=clean.PatientID,
        age_band="60 to 79",
        sex="F",
        view="PA",
        device=f"CR Philips {clean.ManufacturerModelName}",
        study=clean.StudyInstanceUID,
        series=clean.SeriesInstanceUID,
        instance=clean.SOPInstanceUID,
        date=f"{clean.StudyDate[:4]}-{clean.StudyDate[4:6]}-{clean.StudyDate[6:]}",
        body_part="CHEST",
        site=None,
    )
    assert link == Link(
        patient_id="HOSPITAL-0815",
        issuer="",
        study="1.2.3",
        series="1.2.3.4",
        instance=file.SOPInstanceUID,
        accession="77",
        days_back=(date(2019, 8, 17) - date.fromisoformat(str(facts.date))).days,
        pseudonym=clean.PatientID,
        new_study=clean.StudyInstanceUID,
        new_series=clean.SeriesInstanceUID,
        new_instance=clean.SOPInstanceUID,
        new_accession=clean.AccessionNumber,
    )
    assert deidentify.patient(make_dicom(RAMP, PatientID=None)) is None
    assert deidentify.facts(make_dicom(RAMP, PatientID="  ")).patient is None


def header(**tags: object) -> Dataset:
    file = Dataset()
    for name, value in tags.items():
        setattr(file, name, value)
    return file


days = st.dates(date(1990, 1, 1), date(2026, 12, 31))
# The characters that LO admits in the default repertoire, without the backslash that separates values.
names = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\\"), min_size=1, max_size=20)


@given(names, names, days, days, st.binary(min_size=16, max_size=40))
def test_intervals_between_a_patients_studies_are_kept_and_the_days_are_not(
    patient: str, other: str, first: date, second: date, key: bytes
) -> None:
    def moved(who: str, day: date) -> StudyFacts:
        # A new object each time: nothing is remembered from call to call.
        return Deidentifier(key).facts(header(PatientID=who, StudyDate=f"{day:%Y%m%d}", StudyInstanceUID="1.2"))

    one, two = moved(patient, first), moved(patient, second)
    assert one.date is not None
    assert two.date is not None
    assert one.patient == two.patient
    assert date.fromisoformat(one.date) - date.fromisoformat(two.date) == first - second
    assert first - timedelta(days=3650) <= date.fromisoformat(one.date) < first
    if other != patient:
        assert moved(other, first).patient != one.patient
    stranger = Deidentifier(key + b"x").facts(header(PatientID=patient, StudyInstanceUID="1.2"))
    assert stranger.patient != one.patient
    assert stranger.study != one.study


@given(st.integers(1, 129))
def test_ages_are_told_by_bands_as_without_an_intake_and_pooled_from_80_on(years: int) -> None:
    written = f"{years:03d}Y"
    band = Deidentifier(KEY).facts(header(PatientAge=written)).age_band
    assert band == attributes.age_band(written)
    assert band is not None
    if years >= 80:
        assert band == "80 and more"
    else:
        low, high = map(int, band.split(" to "))
        assert low <= years <= high


@pytest.mark.parametrize(
    ("tags", "band"),
    [
        ({"PatientAge": "011M"}, "00 to 01"),
        ({"PatientAge": "130M"}, "06 to 17"),
        ({"PatientAge": "002W"}, "00 to 01"),
        ({"PatientBirthDate": "20000229", "StudyDate": "20300228"}, "18 to 39"),
        ({"PatientBirthDate": "20000229", "StudyDate": "20400301"}, "40 to 59"),
        ({"PatientBirthDate": "19200101", "StudyDate": "2015.01.01"}, "80 and more"),
        ({"PatientBirthDate": "20300101", "StudyDate": "20200101"}, None),
        ({"PatientBirthDate": "20301399"}, None),
        ({}, None),
    ],
)
def test_ages_come_from_what_a_file_says(tags: dict[str, str], band: str | None) -> None:
    with config.disable_value_validation():
        file = header(**tags)
    assert Deidentifier(KEY).facts(file).age_band == band


def test_a_file_that_names_nobody_shares_its_shift_with_its_study_only() -> None:
    deidentify = Deidentifier(KEY)
    same = [deidentify.facts(header(StudyInstanceUID="1.2", StudyDate=day)).date for day in ("20200101", "20200105")]
    assert date.fromisoformat(str(same[1])) - date.fromisoformat(str(same[0])) == timedelta(days=4)
    assert deidentify.facts(header(StudyInstanceUID="1.3", StudyDate="20200101")).date != same[0]


FREE_TEXT = ["Erika Musterfrau", "Ward 7 Dr Schmidt", "MRN 47110", "St. Elsewhere Hospital Room 3"]
STAND_IN = re.compile("M-[0-9A-F]{8}")


@pytest.mark.parametrize("said", [*FREE_TEXT, "Philips Ward 7", "Dr Siemens", "GE Mustermann Medical Systems"])
def test_free_text_in_maker_and_model_does_not_survive_though_nothing_else_in_the_file_repeats_it(
    said: str, make_dicom: Make
) -> None:
    somebody = {"PatientName": "Anna", "PatientID": "A", "SOPInstanceUID": "1.2.3"}
    file = make_dicom(RAMP, **somebody, Manufacturer=said, ManufacturerModelName=said)
    clean, facts = Deidentifier(KEY)(file), Deidentifier(KEY).facts(file)
    assert clean.Manufacturer == "other maker"
    assert facts.device == f"CR other maker {clean.ManufacturerModelName}"
    # The model can still be told from others, and its name cannot be read.
    assert STAND_IN.fullmatch(clean.ManufacturerModelName)
    told = (written(clean) + repr(facts).encode()).lower()
    assert [word for word in said.lower().split() if len(word) > 3 and word.encode() in told] == []


@given(st.text(max_size=64), st.text(max_size=64), st.sampled_from(sorted(_confidentiality.MAKERS)))
def test_what_is_kept_of_maker_and_model_is_on_a_list_or_a_stand_in(maker: str, model: str, known: str) -> None:
    with config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for said in (maker, f"{known} {maker}", f"{maker} {known}"):
            file = header(Modality="CR", Manufacturer=said, ManufacturerModelName=model)
            kept = _confidentiality.technical(file, Pseudonyms(KEY))
            assert kept.get("Manufacturer", "") in {"", "other maker", *_confidentiality.MAKERS}
            assert re.fullmatch("M-[0-9A-F]{8}|", kept.get("ManufacturerModelName", ""))


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("Philips Medical Systems", "Philips"),
        ("PHILIPS", "Philips"),
        ("SIEMENS", "Siemens"),
        ("Siemens Healthineers", "Siemens"),
        ("GE MEDICAL SYSTEMS", "GE"),
        ('"GE Healthcare"', "GE"),
        ("FUJIFILM Corporation", "Fujifilm"),
        ("FUJI PHOTO FILM Co., ltd.", "Fujifilm"),
        ("KODAK", "Kodak"),
        ("Eastman Kodak Company", "Kodak"),
        ("Carestream Health", "Carestream"),
        ("Agfa-Gevaert", "Agfa"),
        ("Canon Inc.", "Canon"),
        ("CANON__MEC", "Canon"),
        ("TOSHIBA_MEC", "Toshiba"),
        ("KONICA MINOLTA", "Konica Minolta"),
        ("Samsung Electronics Co., Ltd.", "Samsung"),
        ("Villa Sistemi Medicali S.p.A.", "Villa Sistemi Medicali"),
        ("Imaging Dynamics Company Ltd.", "Imaging Dynamics"),
        ("Medical Systems", "other maker"),
        ("Züblin", "other maker"),
        ("  ", None),
        (None, None),
    ],
)
def test_a_makers_spellings_are_one_maker(said: str | None, kept: str | None, make_dicom: Make) -> None:
    file = make_dicom(RAMP, SpecificCharacterSet="ISO_IR 192", Manufacturer=said)
    assert Deidentifier(KEY)(file).get("Manufacturer") == kept
    assert Deidentifier(KEY).facts(file).device == ("CR" if kept is None else f"CR {kept}")


def test_every_maker_on_the_list_is_kept_as_it_is_so_that_a_second_run_changes_nothing() -> None:
    for name in (*_confidentiality.MAKERS, "other maker"):
        assert _confidentiality.device(header(Manufacturer=name), Pseudonyms(KEY)) == (name, "")


def test_a_makers_name_that_is_also_the_patients_is_not_kept() -> None:
    file = header(Manufacturer="Philips", PatientName="Philips^Anna")
    assert _confidentiality.device(file, Pseudonyms(KEY)) == ("other maker", "")


def test_one_model_has_one_stand_in_under_one_key() -> None:
    def model(maker: str, name: str, key: bytes = KEY) -> str:
        kept = _confidentiality.device(header(Manufacturer=maker, ManufacturerModelName=name), Pseudonyms(key))
        return kept[1]

    one = model("Philips", "DigitalDiagnost C90")
    answer = hmac.new(KEY, b"device model\0Philips\0digitaldiagnost c90", hashlib.sha256).hexdigest()
    assert one == f"M-{answer[:8].upper()}"
    assert model("Philips Medical Systems", " DIGITALDIAGNOST  C90 ") == one
    others = {model("Philips", "DigitalDiagnost C50"), model("Siemens", "DigitalDiagnost C90")}
    assert len({one, *others, model("Philips", "DigitalDiagnost C90", KEY + b"x")}) == 4


@pytest.mark.parametrize(
    ("tags", "kept"),
    [
        ({"ManufacturerModelName": "DigitalDiagnost C90"}, True),
        ({"ManufacturerModelName": "DX-0815-99"}, True),
        ({"ManufacturerModelName": "Unit of Mustermann"}, False),
        ({"ManufacturerModelName": "DX HOSPITAL-0815"}, False),
        ({"ManufacturerModelName": "DX 20190817"}, False),
        ({"ManufacturerModelName": "DX klinik süd"}, False),
        ({"ManufacturerModelName": "DX 4711", "DeviceSerialNumber": "4711"}, False),
        ({"ManufacturerModelName": "Room 3 St. Elsewhere", "InstitutionName": "St. Elsewhere"}, False),
    ],
)
def test_a_model_name_that_repeats_a_name_or_number_has_no_stand_in(
    tags: dict[str, str], kept: bool, make_dicom: Make
) -> None:
    file = make_dicom(RAMP, SpecificCharacterSet="ISO_IR 192", **tags)
    model = Deidentifier(KEY)(file).get("ManufacturerModelName")
    assert (model is not None) == kept
    assert Deidentifier(KEY).facts(file).device == (f"CR {model}" if kept else "CR")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"SOPInstanceUID": None}, "SOPInstanceUID is missing"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "not greyscale"),
        ({"NumberOfFrames": 2}, r"truncated|damaged|not a picture"),
    ],
)
def test_what_cannot_be_cleaned_is_refused_without_naming_anybody(
    change: dict[str, object], reason: str, make_dicom: Make
) -> None:
    file = make_dicom(RAMP, **change)
    with pytest.raises(dicom.Refused, match=reason) as caught:
        Deidentifier(KEY)(file)
    assert not re.search("0815|Muster", str(caught.value))


def test_a_short_key_is_refused() -> None:
    with pytest.raises(DataError, match="at least 16 secret bytes, got 15"):
        Deidentifier(b"k" * 15)


def originals(file: Dataset) -> Iterator[str]:
    """What a real file tells of its patient, site and time."""
    for element in file.iterall():
        if element.VR in ("PN", "DA", "DT", "UI", "LO", "SH", "ST", "LT", "UT", "AE", "TM"):
            for value in element.value if element.VM > 1 else [element.value]:
                yield str(value)


@pytest.mark.parametrize("name", ["pydicomdata_RG1_J2KI.dcm", "pydicomdata_RG1_J2KR.dcm", "aihcnd_test1.dcm"])
def test_real_files_keep_their_picture_and_lose_their_names(name: str, tmp_path: Path) -> None:
    if not SAMPLES.is_dir():
        pytest.skip("../shared/data/xray/dicom_samples is not on this machine")
    file = dcmread(SAMPLES / name)
    told = {value for value in originals(file) if len(value) > 5}
    told -= {str(file.SOPClassUID)}
    clean = Deidentifier(KEY)(file)
    clean.save_as(tmp_path / "clean.dcm", enforce_file_format=True)
    after = (tmp_path / "clean.dcm").read_bytes()
    kept = {value for value in told if value.encode("latin-1").lower() in after[:4000].lower()}
    assert kept == set()
    assert len(told) >= 4
    assert not any(value.encode() in after for value in told if value.startswith("1."))
    again = dcmread(tmp_path / "clean.dcm")
    assert np.array_equal(dicom.to_picture(again, again.pixel_array), dicom.to_picture(file, file.pixel_array))
    assert (clean.get("LossyImageCompression") == "01") == ("J2KI" in name)


@pytest.mark.parametrize(
    ("written", "born", "band"),
    [
        ("000Y", "19600101", "60 to 79"),  # a placeholder
        ("999Y", "19600101", "60 to 79"),
        ("000Y", "", None),
        ("045Y", "19000101", None),  # one of them is a placeholder: nobody knows which
        ("058Y", "19600101", "40 to 59"),
        ("011M", "20190301", "00 to 01"),
        ("", "18000101", None),
    ],
)
def test_placeholders_are_no_ages(written: str, born: str, band: str | None) -> None:
    file = header(PatientAge=written, PatientBirthDate=born, StudyDate="20200101")
    assert Deidentifier(KEY).facts(file).age_band == band
    assert attributes.of_dicom(file).get("age_band", "") == (band or "")
