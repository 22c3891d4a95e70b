"""The order of the grey-scale steps, and a reason for every file that is left out."""

from collections.abc import Callable
from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG2MPML, JPEG2000Lossless, JPEGLSLossless, RLELossless

from unlabeled.medical import dicom

Make = Callable[..., FileDataset]
Save = Callable[[FileDataset, Path], Path]

RAMP = np.array([[0, 100, 200, 300], [400, 500, 600, 700]])


def test_rescale_then_window_then_inversion_gives_the_pixels_worked_out_by_hand(
    make_dicom: Make, save: Save, tmp_path: Path
) -> None:
    # Rescaled: 2 * v - 100 = -100, 100, 300, 500, 700, 900, 1100, 1300.
    # Window of 200..1000 (exact): 0, 0, 1/8, 3/8, 5/8, 7/8, 1, 1. MONOCHROME1: one minus that.
    file = make_dicom(
        RAMP,
        PhotometricInterpretation="MONOCHROME1",
        RescaleSlope=2,
        RescaleIntercept=-100,
        WindowCenter=600,
        WindowWidth=800,
        VOILUTFunction="LINEAR_EXACT",
    )
    expected = 1 - np.array([[0, 0, 1 / 8, 3 / 8], [5 / 8, 7 / 8, 1, 1]])
    read = dicom.read(save(file, tmp_path / "a.dcm"))
    np.testing.assert_allclose(read.pixels, expected, atol=1e-6)


def test_a_voi_lut_is_applied_after_the_rescale(make_dicom: Make, save: Save, tmp_path: Path) -> None:
    # Rescaled values are 0, 1, 2, 3; the table maps them to 0, 30, 40, 40.
    file = make_dicom(np.array([[10, 11], [12, 13]]), RescaleSlope=1, RescaleIntercept=-10)
    lut = Dataset()
    lut.LUTDescriptor = [4, 0, 16]
    lut.LUTData = np.array([0, 30, 40, 40], dtype="<u2").tobytes()
    file.VOILUTSequence = [lut]
    read = dicom.read(save(file, tmp_path / "a.dcm"))
    np.testing.assert_allclose(read.pixels, [[0, 0.75], [1, 1]], atol=1e-6)


def test_a_picture_reads_the_same_stored_either_way_round(make_dicom: Make, save: Save, tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 4096, (32, 24))
    upright = dicom.read(save(make_dicom(stored), tmp_path / "2.dcm"))
    inverted = dicom.read(save(make_dicom(4095 - stored, PhotometricInterpretation="MONOCHROME1"), tmp_path / "1.dcm"))
    np.testing.assert_allclose(upright.pixels, inverted.pixels, atol=1e-6)


def test_without_a_window_a_burnt_in_marker_does_not_squeeze_the_picture(
    make_dicom: Make, save: Save, tmp_path: Path
) -> None:
    stored = np.tile(np.arange(1000, 1100), (100, 1))
    stored[0, 0] = 4095
    pixels = dicom.read(save(make_dicom(stored), tmp_path / "a.dcm")).pixels
    assert pixels[50, 75] - pixels[50, 25] == pytest.approx(0.5, abs=0.02)


def as_archives_keep_it(path: Path, syntax: int) -> Path:
    """The same film in a JPEG that pydicom itself cannot write, made by GDCM."""
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path.with_suffix(".jpeg.dcm")))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return path.with_suffix(".jpeg.dcm")


@pytest.mark.parametrize("name", ["JPEGLosslessProcess14", "JPEGLosslessProcess14_1"])
@pytest.mark.parametrize("bits", [12, 16])
def test_lossless_jpeg_decodes_to_the_same_pixels(
    name: str, bits: int, make_dicom: Make, save: Save, tmp_path: Path
) -> None:
    stored = np.random.default_rng(0).integers(0, 2**bits, (40, 32))
    plain = save(make_dicom(stored, BitsStored=bits, HighBit=bits - 1), tmp_path / "plain.dcm")
    packed = as_archives_keep_it(plain, getattr(gdcm.TransferSyntax, name))
    assert "Lossless" in pydicom.dcmread(packed).file_meta.TransferSyntaxUID.name
    np.testing.assert_array_equal(dicom.read(packed).pixels, dicom.read(plain).pixels)


def test_the_usual_jpeg_of_eight_bits_is_read_and_the_rare_one_of_twelve_is_named(
    make_dicom: Make, save: Save, tmp_path: Path
) -> None:
    ramp = np.add.outer(np.arange(64), np.arange(48))
    eight = make_dicom(ramp, BitsAllocated=8, BitsStored=8, HighBit=7)
    eight.PixelData = ramp.astype(np.uint8).tobytes()
    plain = save(eight, tmp_path / "eight.dcm")
    packed = as_archives_keep_it(plain, gdcm.TransferSyntax.JPEGBaselineProcess1)
    np.testing.assert_allclose(dicom.read(packed).pixels, dicom.read(plain).pixels, atol=0.02)
    twelve = as_archives_keep_it(
        save(make_dicom(37 * ramp), tmp_path / "twelve.dcm"), gdcm.TransferSyntax.JPEGExtendedProcess2_4
    )
    with pytest.raises(dicom.Refused, match="no decoder: nothing installed reads JPEG Extended"):
        dicom.read(twelve)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
def test_compressed_files_decode_to_the_same_pixels(syntax: str, make_dicom: Make, save: Save, tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 4096, (40, 32))
    plain = dicom.read(save(make_dicom(stored), tmp_path / "plain.dcm"))
    file = make_dicom(stored)
    file.compress(syntax, generate_instance_uid=False)
    np.testing.assert_array_equal(dicom.read(save(file, tmp_path / "packed.dcm")).pixels, plain.pixels)


def test_how_somebody_lay_does_not_hide_that_the_rows_run_across(make_dicom: Make, save: Save, tmp_path: Path) -> None:
    ramp = np.add.outer(np.arange(64), np.arange(48))
    file = make_dicom(ramp, ViewPosition=None, PatientPosition="FFS", PatientOrientation=["L", "F"])
    assert dicom.read(save(file, tmp_path / "a.dcm")).pixels.shape == (64, 48)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"Modality": "CT"}, "not a radiograph: Modality is CT"),
        ({"Modality": None}, "not a radiograph: Modality is missing"),
        ({"BodyPartExamined": "LSPINE"}, "not a chest: BodyPartExamined is LSPINE"),
        ({"BodyPartExamined": "CHESTABDOMEN"}, "not a chest: BodyPartExamined is CHESTABDOMEN"),
        ({"BodyPartExamined": None}, "body part unknown"),
        ({"ViewPosition": "LL"}, "lateral view: ViewPosition is LL"),
        ({"ViewPosition": None}, "view unknown: neither ViewPosition, PatientPosition nor PatientOrientation tells"),
        ({"ViewPosition": None, "PatientPosition": "HFS"}, "view unknown: neither"),
        ({"ViewPosition": None, "PatientPosition": "XX"}, "view unknown: PatientPosition is something else"),
        ({"ViewPosition": None, "PatientOrientation": ["P", "F"]}, "lateral view: rows run along P"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "not greyscale"),
        ({"WindowCenter": 9000, "WindowWidth": 10}, "constant image: .* after its window"),
        ({"WindowCenter": 300, "WindowWidth": 0}, "unusable window"),
    ],
)
def test_tags_that_speak_against_a_frontal_chest_are_refused_with_their_value(
    tags: dict[str, object], reason: str, make_dicom: Make, save: Save, tmp_path: Path
) -> None:
    with pytest.raises(dicom.Refused, match=reason):
        dicom.read(save(make_dicom(RAMP, **tags), tmp_path / "a.dcm"))


@pytest.mark.parametrize(
    "tags",
    [
        {"ViewPosition": None, "PatientPosition": "AP"},
        {"ViewPosition": None, "PatientOrientation": ["L", "F"]},
        {"BodyPartExamined": None, "StudyDescription": "Thorax p.a."},
    ],
)
def test_other_places_for_view_and_body_part_are_accepted(
    tags: dict[str, object], make_dicom: Make, save: Save, tmp_path: Path
) -> None:
    assert dicom.read(save(make_dicom(RAMP, **tags), tmp_path / "a.dcm")).pixels.shape == RAMP.shape


def test_several_frames_a_blank_picture_and_a_missing_decoder_are_refused(
    make_dicom: Make, save: Save, tmp_path: Path
) -> None:
    with pytest.raises(dicom.Refused, match="multi-frame: NumberOfFrames is 2"):
        dicom.read(save(make_dicom(np.stack([RAMP, RAMP]), NumberOfFrames=2), tmp_path / "frames.dcm"))
    with pytest.raises(dicom.Refused, match="constant image"):
        dicom.read(save(make_dicom(np.full((4, 4), 7)), tmp_path / "blank.dcm"))
    file = make_dicom(RAMP)
    file.file_meta.TransferSyntaxUID = MPEG2MPML
    file.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
    with pytest.raises(dicom.Refused, match=r"no decoder: nothing installed reads MPEG2 Main Profile"):
        dicom.read(save(file, tmp_path / "film.dcm"))


@pytest.mark.filterwarnings("ignore:End of file reached:UserWarning")
@pytest.mark.parametrize("syntax", [None, JPEG2000Lossless])
def test_a_truncated_file_is_named_so(syntax: str | None, make_dicom: Make, save: Save, tmp_path: Path) -> None:
    file = make_dicom(np.random.default_rng(0).integers(0, 4096, (64, 64)))
    if syntax:
        file.compress(syntax, generate_instance_uid=False)
    path = save(file, tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(dicom.Refused, match="truncated"):
        dicom.read(path)


def test_a_pseudonym_is_stable_and_does_not_show_the_id(make_dicom: Make, save: Save, tmp_path: Path) -> None:
    read = dicom.read(save(make_dicom(RAMP), tmp_path / "a.dcm"))
    assert read.patient == dicom.pseudonym("HOSPITAL-0815 ")
    assert read.patient is not None
    assert "0815" not in read.patient
    assert dicom.read(save(make_dicom(RAMP, PatientID=None), tmp_path / "b.dcm")).patient is None


@pytest.mark.parametrize("tags", [{}, {"WindowCenter": 900, "WindowWidth": 700}, {"RescaleSlope": -2}])
@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_picture_looked_up_value_by_value_is_the_one_worked_out_pixel_by_pixel(
    tags: dict[str, int], signed: int, photometric: str, make_dicom: Make
) -> None:
    rng = np.random.default_rng(3)
    stored = rng.gamma(2, 300, (96, 80)).astype(np.int32).clip(0, 4095) - 1200 * signed
    tags = {**tags, "RescaleIntercept": 5, "RescaleSlope": tags.get("RescaleSlope", 1)}
    file = make_dicom(stored, PhotometricInterpretation=photometric, PixelRepresentation=signed, **tags)
    narrow = stored.astype(np.int16 if signed else np.uint16)
    # Values of 32 bits are too many for a table.
    expected = dicom.to_picture(file, stored)
    assert dicom.to_picture(file, narrow).dtype == expected.dtype
    np.testing.assert_allclose(dicom.to_picture(file, narrow), expected, atol=1e-6)
    np.testing.assert_array_equal(
        dicom.to_picture(file, narrow.astype(narrow.dtype.newbyteorder(">"))), dicom.to_picture(file, narrow)
    )
