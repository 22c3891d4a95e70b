"""Files as they come: tags of the wrong type, free text where terms belong, no preamble, no file meta information."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileDataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from unlabeled.core.errors import DataError
from unlabeled.medical import _pictures, dicom, intake, read_images

Make = Callable[..., FileDataset]
Save = Callable[[FileDataset, Path], Path]

STORED = np.random.default_rng(0).integers(0, 4096, (40, 32))
NAME = "JOHN DOE"


def with_element(path: Path, tag: tuple[int, int], vr: bytes, value: bytes) -> Path:
    """The file with an element's bytes written anew, whatever its type allows."""
    content = path.read_bytes()
    head = struct.pack("<HH", *tag)
    at = content.index(head, 132)
    (length,) = struct.unpack("<H", content[at + 6 : at + 8])
    size = struct.pack("<HI", 0, len(value)) if vr in (b"UN", b"SQ") else struct.pack("<H", len(value))
    new = head + vr + size + value
    path.write_bytes(content[:at] + new + content[at + 8 + length :])
    return path


TAGS = {
    "PatientAge": ((0x0010, 0x1010), "034Y"),
    "InstitutionName": ((0x0008, 0x0080), NAME),
    "PatientID": ((0x0010, 0x0020), NAME),
    "PatientSex": ((0x0010, 0x0040), "F"),
    "StudyInstanceUID": ((0x0020, 0x000D), "1.2.3"),
    "IssuerOfPatientID": ((0x0010, 0x0021), NAME),
    "ManufacturerModelName": ((0x0008, 0x1090), NAME),
    "StudyDescription": ((0x0008, 0x1030), NAME),
}


@pytest.mark.parametrize("vr", [b"US", b"FD", b"SQ", b"UN", b"ZZ"])
@pytest.mark.parametrize("keyword", TAGS)
def test_a_tag_of_an_odd_type_costs_its_own_value_and_no_other_file(
    keyword: str, vr: bytes, make_dicom: Make, save: Save, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tag, value = TAGS[keyword]
    save(make_dicom(STORED), tmp_path / "whole.dcm")
    odd = save(make_dicom(STORED + 1, **{keyword: value}), tmp_path / "odd.dcm")
    with_element(odd, tag, vr, b"DOE")  # three bytes: of no number, and of no sequence
    found = read_images(tmp_path, size=16)
    assert list(found.ids) == ["odd.dcm", "whole.dcm"]
    said = "".join((*capfd.readouterr(), *(skip.reason for skip in found.skipped), *found.notes, *found.patients))
    assert "DOE" not in said


@pytest.mark.parametrize("syntax", ["1.2.3.4", "1.2.840.10008.1.2.4.999", "not even a UID"])
def test_a_transfer_syntax_of_nobodys_is_a_reason_and_no_end(
    syntax: str, make_dicom: Make, save: Save, tmp_path: Path
) -> None:
    file = make_dicom(STORED)
    file.compress(RLELossless, generate_instance_uid=False)
    path = save(file, tmp_path / "a.dcm")
    known = RLELossless.encode() + b"\0" * (len(RLELossless) % 2)
    path.write_bytes(path.read_bytes().replace(known, syntax.encode()[: len(known)].ljust(len(known), b"\0"), 1))
    with pytest.raises(dicom.Refused) as refused:
        dicom.read(path)
    assert syntax not in str(refused.value)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"Modality": "CT JOHN DOE"}, "not a radiograph: Modality is something else"),
        ({"BodyPartExamined": "HAND JOHN DOE"}, "not a chest: BodyPartExamined is something else"),
        ({"BodyPartExamined": "HAND"}, "not a chest: BodyPartExamined is HAND"),
        ({"ViewPosition": NAME}, "view unknown: ViewPosition is something else"),
        ({"ViewPosition": "RAO"}, "view unknown: ViewPosition is RAO"),
        ({"ViewPosition": None, "PatientPosition": NAME}, "view unknown: PatientPosition is something else"),
        ({"PhotometricInterpretation": NAME}, "not greyscale: PhotometricInterpretation is something else"),
        ({"PhotometricInterpretation": "RGB"}, "not greyscale: PhotometricInterpretation is RGB"),
        ({"PhotometricInterpretation": None}, "not greyscale: PhotometricInterpretation is missing"),
        ({"ViewPosition": None, "PatientOrientation": [NAME, NAME]}, "view unknown"),
    ],
)
def test_reasons_repeat_terms_of_the_standard_and_no_free_text(
    tags: dict[str, object], reason: str, make_dicom: Make, save: Save, tmp_path: Path
) -> None:
    with pytest.raises(dicom.Refused, match=reason) as refused:
        dicom.read(save(make_dicom(STORED, **tags), tmp_path / "a.dcm"))
    assert "DOE" not in str(refused.value)


@pytest.mark.parametrize(
    ("tag", "kind"),
    [
        ((0x0028, 0x0008), "damaged DICOM: [A-Za-z]+$"),
        ((0x0028, 0x0101), "bit depth: a tag is missing or no number$"),
        ((0x0028, 0x1051), "unusable window or LUT: [A-Za-z]+$"),
    ],
    ids=["NumberOfFrames", "BitsStored", "WindowWidth"],
)
def test_of_an_error_its_kind_is_said_and_not_its_text(
    tag: tuple[int, int], kind: str, make_dicom: Make, save: Save, tmp_path: Path
) -> None:
    film = make_dicom(STORED, NumberOfFrames=1, WindowWidth=100, WindowCenter=100)
    path = with_element(save(film, tmp_path / "a.dcm"), tag, b"LO", NAME.encode())
    with pytest.raises(dicom.Refused, match=kind) as refused:
        dicom.read(path)
    assert "DOE" not in str(refused.value)


def test_a_class_of_nobodys_is_not_repeated(make_dicom: Make, save: Save, tmp_path: Path) -> None:
    film = make_dicom(STORED)
    film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID = "1.2.3.815"
    del film.PixelData
    with pytest.raises(dicom.Refused, match=r"^not an image: no pixels$"):
        dicom.read(save(film, tmp_path / "a.dcm"))


def test_a_damaged_picture_says_the_kind_of_its_error_only(tmp_path: Path) -> None:
    Image.fromarray(STORED.astype(np.uint8)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    with pytest.raises(dicom.Refused, match=r"^damaged picture: [A-Za-z]+$"):
        _pictures.from_bytes(content[: len(content) // 2], _pictures.Frame(16))


def bare(file: FileDataset, syntax: str, path: Path) -> Path:
    """The data set alone, as it is written in a syntax."""
    little, implicit = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
    if not little:
        file.PixelData = STORED.astype(">u2").tobytes()
    del file.file_meta
    file.preamble = None
    pydicom.dcmwrite(path, file, implicit_vr=implicit, little_endian=little, force_encoding=True)
    assert path.read_bytes()[128:132] != b"DICM"
    return path


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("first", ["SpecificCharacterSet", "ImageType", "SOPClassUID"])
def test_a_data_set_without_preamble_and_meta_reads_as_the_whole_file(
    first: str, syntax: str, make_dicom: Make, save: Save, tmp_path: Path
) -> None:
    tags = {"SpecificCharacterSet": "ISO_IR 100", "ImageType": ["ORIGINAL", "PRIMARY"], "SOPClassUID": "1.2.3"}
    kept = {first: tags[first]}
    whole = dicom.read(save(make_dicom(STORED), tmp_path / "whole.dcm"))
    file = make_dicom(STORED, **kept)
    if first != "SOPClassUID":
        assert min(file.keys()) == pydicom.tag.Tag(first)
    path = bare(file, syntax, tmp_path / "bare")
    np.testing.assert_array_equal(dicom.read(path).pixels, whole.pixels)
    frame = _pictures.Frame(16)
    np.testing.assert_array_equal(
        _pictures.load(path, frame).pixels, _pictures.load(tmp_path / "whole.dcm", frame).pixels
    )
    assert _pictures.from_bytes(path.read_bytes(), frame).patient == whole.patient


def test_old_group_lengths_and_a_meta_group_without_preamble(make_dicom: Make, save: Save, tmp_path: Path) -> None:
    whole = save(make_dicom(STORED), tmp_path / "whole.dcm")
    expected = dicom.read(whole).pixels
    content = whole.read_bytes()
    (tmp_path / "meta").write_bytes(content[132:])
    implicit = bare(make_dicom(STORED), ImplicitVRLittleEndian, tmp_path / "bare").read_bytes()
    (tmp_path / "length").write_bytes(struct.pack("<HHII", 8, 0, 4, 0) + implicit)
    # "Length to end", with which files of the standard's forerunner begin.
    (tmp_path / "acr").write_bytes(struct.pack("<HHII", 8, 1, 4, 0) + implicit)
    for name in ("meta", "length", "acr"):
        np.testing.assert_array_equal(dicom.read(tmp_path / name).pixels, expected)
    found = read_images(tmp_path, size=16)
    assert list(found.ids) == ["acr", "bare", "length", "meta", "whole.dcm"]
    assert not found.skipped


def test_fragments_without_a_transfer_syntax_are_refused_for_that(make_dicom: Make, save: Save, tmp_path: Path) -> None:
    file = make_dicom(STORED)
    file.compress(JPEG2000Lossless, generate_instance_uid=False)
    content = save(file, tmp_path / "whole.dcm").read_bytes()
    (tmp_path / "bare").write_bytes(content[144 + struct.unpack("<I", content[140:144])[0] :])
    with pytest.raises(dicom.Refused, match="no decoder: the pixels are compressed, and no transfer syntax says how"):
        dicom.read(tmp_path / "bare")


@pytest.mark.parametrize(
    "head",
    [
        b"\x89PNG\r\n\x1a\n" + b"\0" * 124,
        b"\xff\xd8\xff\xe0" + b"\0" * 128,
        b"plain text, as people write it\n" * 5,
        b"\0" * 132,
        b"\xff" * 132,
        b"",
        b"\x08\x00",
        b"\x08\x00\x05\x00" + b"\xff" * 128,
        b"\x08\x00\x05\x00" + b"\0" * 128,
        b"\x08\x00\x03\x00CS" + b"\0" * 126,  # no element of the standard's
        b"\x08\x00\x0a\x00" + b"\x10\0\0\0" * 32,  # a TGA picture may begin so
        b"\x02\x00\x02\x00" + b"\0" * 128,  # and so
        b"\x00\x08\x00\x05" + b"\x10\0\0\0" * 32,
    ],
)
def test_what_is_no_dicom_is_told_apart(head: bytes) -> None:
    assert not dicom.is_dicom(head)


def test_other_files_beside_them_are_no_dicom_still(tmp_path: Path) -> None:
    for name, content in (
        ("zeros", b"\0" * 4000),
        ("words", b"\x08\x00 and then words " * 99),
        ("text", b"hello" * 99),
    ):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="3 x not an image"):
        read_images(tmp_path)


def test_an_intake_takes_bare_data_sets_in_too(make_dicom: Make, tmp_path: Path) -> None:
    for name, syntax in (("i", ImplicitVRLittleEndian), ("e", ExplicitVRLittleEndian), ("b", ExplicitVRBigEndian)):
        (tmp_path / "films").mkdir(exist_ok=True)
        bare(make_dicom(STORED, SOPInstanceUID=f"1.2.{ord(name)}"), syntax, tmp_path / "films" / name)
    taken = intake.take_in(
        tmp_path / "films", store=tmp_path / "store", key=tmp_path / "key", ledger=tmp_path / "ledger.csv", size=32,
        workers=1,
    )  # fmt: skip
    assert not {"not DICOM", "damaged pixels", "error"} & set(taken.manifest["refusals"])
