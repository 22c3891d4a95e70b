"""What is refused before it is read or decoded: large files, large pictures in small files, odd bit depths."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from unlabeled.medical import _codestream, _pictures, dicom, intake, read_images

Make = Callable[..., FileDataset]
Save = Callable[[FileDataset, Path], Path]
TakeIn = Callable[..., intake.Intake]

STORED = np.random.default_rng(0).integers(0, 4096, (40, 32))


def reasons(done: intake.Intake) -> dict[str, int]:
    return dict(done.manifest["refusals"])


def never(*_: object, **__: object) -> None:
    raise AssertionError("it was read")


@pytest.mark.parametrize("size", [dicom.LARGEST + 1, 2 * 10**9, 2 << 30])
def test_a_file_of_two_gigabytes_is_refused_unread_wherever_it_comes_from(
    size: int, hospital: Path, take: TakeIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (hospital / "huge.dcm").open("wb") as stream:  # sparse: takes no room
        stream.write(b"\0" * 128 + b"DICM")
        stream.truncate(size)
    monkeypatch.setattr(pydicom, "dcmread", never)
    assert reasons(take()) == {"too large": 1}
    for read in (dicom.read, lambda path: _pictures.load(path, _pictures.Frame(16))):
        with pytest.raises(dicom.Refused, match=f"^too large: {size} bytes"):
            read(hospital / "huge.dcm")
    with (hospital / "huge.dcm").open("rb") as stream, pytest.raises(dicom.Refused, match=f"^too large: {size} bytes"):
        dicom.read(stream)


def test_the_largest_likely_film_is_within_the_limit_and_a_stream_is_read_from_where_it_was(
    make_dicom: Make, save: Save, tmp_path: Path
) -> None:
    assert 2 * 10_000 * 10_000 + (1 << 20) < dicom.LARGEST <= 256 << 20
    assert dicom.MOST_PIXELS > 10_000 * 10_000
    stream = io.BytesIO(save(make_dicom(STORED), tmp_path / "a.dcm").read_bytes())
    np.testing.assert_array_equal(dicom.read(stream).pixels, dicom.read(tmp_path / "a.dcm").pixels)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
def test_tags_of_an_enormous_picture_are_refused_before_it_is_decoded(
    syntax: str, make_dicom: Make, save: Save, hospital: Path, take: TakeIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_dicom(STORED)
    file.compress(syntax, generate_instance_uid=False)
    file.Rows, file.Columns = 60_000, 50_000
    save(file, hospital / "a.dcm")
    monkeypatch.setattr(FileDataset, "pixel_array", property(never))
    with pytest.raises(dicom.Refused, match=r"^too large: 60000 rows, 50000 columns"):
        dicom.read(hospital / "a.dcm")
    assert reasons(take()) == {"too large": 1}


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_a_code_stream_that_is_larger_than_its_tags_say_is_refused_before_it_is_decoded(
    syntax: str, make_dicom: Make, save: Save, hospital: Path, take: TakeIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_dicom(STORED)
    file.compress(syntax, generate_instance_uid=False)
    content = bytearray(_codestream.beginning(file))
    assert _codestream.samples(bytes(content)) == STORED.size
    if syntax == JPEG2000Lossless:
        struct.pack_into(">2I", content, 8, 40_000, 40_000)
    else:
        struct.pack_into(">2H", content, content.index(b"\xff\xf7") + 5, 40_000, 40_000)
    file.PixelData = encapsulate([bytes(content)])
    save(file, hospital / "a.dcm")
    monkeypatch.setattr(FileDataset, "pixel_array", property(never))
    with pytest.raises(dicom.Refused, match=r"^too large: its code stream has 1600000000 pixels"):
        dicom.read(hospital / "a.dcm")
    assert reasons(take()) == {"too large": 1}


def test_the_size_in_a_code_stream_by_its_bytes() -> None:
    j2k = b"\xff\x4f\xff\x51" + struct.pack(">HH8IH", 41, 0, 110, 220, 10, 20, 110, 220, 0, 0, 3)
    assert _codestream.samples(j2k) == 100 * 200 * 3
    assert _codestream.samples(b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 60 + j2k) == 100 * 200 * 3
    frame = b"\xff\xc3" + struct.pack(">HBHHB", 11, 16, 70, 50, 1)
    comment = b"\xff\xfe" + struct.pack(">H", 6) + b"\xff\xc3\xff\xc3"
    assert _codestream.samples(b"\xff\xd8" + comment + b"\xff" + frame) == 70 * 50
    for damaged in (b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xfe\0", j2k[:30], b"\0" * 64, b"\0\0\0\x0cjP  "):
        assert _codestream.samples(damaged) == 0


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"HighBit": 15}, "16 bits allocated, 12 stored, high bit 15"),
        ({"BitsStored": 7, "HighBit": 6}, "16 bits allocated, 7 stored, high bit 6"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "32 bits allocated, 32 stored, high bit 31"),
        ({"HighBit": None}, "a tag is missing or no number"),
    ],
)
def test_a_bit_depth_that_is_read_as_noise_is_refused_by_name_wherever_it_comes_from(
    tags: dict[str, object], said: str, make_dicom: Make, save: Save, hospital: Path, take: TakeIn
) -> None:
    file = make_dicom(STORED << 4 if tags.get("HighBit") == 15 else STORED, **tags)
    if tags.get("BitsAllocated") == 32:
        file.PixelData = STORED.astype("<u4").tobytes()
    path = save(file, hospital / "odd.dcm")
    save(make_dicom(STORED), hospital.parent / "folder" / "fine.dcm")
    (hospital.parent / "folder" / "odd.dcm").write_bytes(path.read_bytes())
    with pytest.raises(dicom.Refused, match=f"^bit depth: {said}$"):
        _pictures.from_bytes(path.read_bytes(), _pictures.Frame(16))
    found = read_images(hospital.parent / "folder", size=16)
    assert list(found.ids) == ["fine.dcm"]
    assert [(skip.source, skip.reason) for skip in found.skipped] == [("odd.dcm", f"bit depth: {said}")]
    assert reasons(take()) == {"bit depth": 1}


def test_a_lossless_jpeg_s_own_size_is_found(make_dicom: Make) -> None:
    file = make_dicom(STORED)
    file.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    file.PixelData = encapsulate([b"\xff\xd8\xff\xc3" + struct.pack(">HBHHB", 11, 16, 60_000, 50_000, 1)])
    with pytest.raises(dicom.Refused, match=r"^too large: its code stream has 3000000000 pixels"):
        dicom.decode(file)
