"""Look-up tables, windows and padding as PS3.3 C.11.1, C.11.2 and C.7.5.1.1.2 have them: values worked out by hand."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from unlabeled.medical import _luts, dicom
from unlabeled.medical.deidentify import Deidentifier

Make = Callable[..., FileDataset]

# 0 to 4080 in steps of 16: every entry of an 8-bit table over 12 bits once.
STORED = np.arange(0, 4096, 16).reshape(16, 16)
SQUARE = np.array([[0, 1], [2, 3]])


def table(
    entries: np.ndarray, *, first: int = 0, bits: int = 16, vr: str = "OW", packed: bool = False, ss: bool = False
) -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, "SS" if ss else "US", [len(entries) % 65536, first, bits])
    words = entries.astype("u1" if packed else "<u2")
    item.add_new(0x00283006, vr, words.tobytes() if vr == "OW" else words.tolist())
    return item


def again(file: FileDataset, syntax: str | None = None) -> FileDataset:
    """Written and read."""
    if syntax:
        file.file_meta.TransferSyntaxUID = syntax
        file.set_original_encoding(syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian)
    stream = io.BytesIO()
    file.save_as(stream, enforce_file_format=True)
    return pydicom.dcmread(io.BytesIO(stream.getvalue()))


def picture(file: FileDataset) -> np.ndarray:
    read = again(file)
    return dicom.to_picture(read, dicom.decode(read))


@pytest.mark.parametrize("vr", ["OW", "US"])
@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("bits", range(8, 17))
def test_a_table_of_any_depth_is_looked_up_by_the_whole_value(
    bits: int, sequence: str, vr: str, make_dicom: Make
) -> None:
    # Entry i is i scaled to the table's bits, as [4096, 0, 8] has 0 for 0..15, 1 for 16..31 and so on.
    entries = np.arange(4096) >> max(0, 12 - bits) << max(0, bits - 12)
    file = make_dicom(STORED, **{sequence: [table(entries, bits=bits, vr=vr)]})
    if sequence == "ModalityLUTSequence":  # without a window, tails of half a percent would be cut
        file.WindowCenter, file.WindowWidth, file.VOILUTFunction = 1 << bits - 1, 1 << bits, "LINEAR_EXACT"
    step = np.arange(256).reshape(16, 16) * (16 >> max(0, 12 - bits) << max(0, bits - 12))
    np.testing.assert_allclose(picture(file), step / step.max(), atol=1e-6)


def test_entries_of_eight_bits_may_fill_half_a_word_each(make_dicom: Make) -> None:
    entries = np.array([10, 60, 160, 210, 9])  # an odd number: the last byte is no entry
    file = make_dicom(SQUARE, VOILUTSequence=[table(entries, bits=8, packed=True)])
    np.testing.assert_allclose(picture(file), [[0, 0.25], [0.75, 1]], atol=1e-6)
    # In big endian the second of two entries comes first.
    big = make_dicom(SQUARE, VOILUTSequence=[table(entries, bits=8, packed=True)])
    big.VOILUTSequence[0].LUTData = bytes([60, 10, 210, 160, 0, 9])
    big.PixelData = SQUARE.astype(">u2").tobytes()
    read = again(big, ExplicitVRBigEndian)
    np.testing.assert_allclose(dicom.to_picture(read, dicom.decode(read)), [[0, 0.25], [0.75, 1]], atol=1e-6)


def test_no_entries_are_65536_of_them(make_dicom: Make) -> None:
    stored = np.array([[0, 16384], [49152, 65535]])
    item = table(np.arange(65536))
    assert item.LUTDescriptor == [0, 0, 16]
    file = make_dicom(stored, BitsStored=16, HighBit=15, VOILUTSequence=[item])
    np.testing.assert_allclose(picture(file), stored / 65535, atol=1e-6)


@pytest.mark.parametrize("ss", [True, False])
def test_values_outside_of_a_table_have_its_first_and_last_entry(ss: bool, make_dicom: Make) -> None:
    # The table begins at -2 and has 4 entries: -5 as -2, then 0, 1, 3 of 4, and 7 as 1. 65534 spells -2 in US.
    item = table(np.array([0, 1, 3, 4]), first=-2 if ss else 65534, ss=ss)
    stored = np.array([[-5, -2, -1], [0, 1, 7]])
    expected = [[0, 0, 0.25], [0.75, 1, 1]]
    signed = make_dicom(stored, PixelRepresentation=1, VOILUTSequence=[item])
    np.testing.assert_allclose(picture(signed), expected, atol=1e-6)
    rescaled = make_dicom(stored + 10, RescaleSlope=1, RescaleIntercept=-10, VOILUTSequence=[item])
    np.testing.assert_allclose(picture(rescaled), expected, atol=1e-6)
    # Nothing that 12 bits hold reaches 65534.
    unsigned = make_dicom(stored.clip(0), VOILUTSequence=[item])
    np.testing.assert_allclose(picture(unsigned), [[0, 0, 0], [0, 1, 1]], atol=1e-6)


def test_a_first_value_past_half_of_16_bits_is_unsigned_where_pixels_are(make_dicom: Make) -> None:
    stored = np.array([[39999, 40001], [40003, 50000]])
    file = make_dicom(stored, BitsStored=16, HighBit=15, VOILUTSequence=[table(np.array([0, 1, 3, 4]), first=40000)])
    np.testing.assert_allclose(picture(file), [[0, 0.25], [1, 1]], atol=1e-6)


def test_after_a_modality_table_the_voi_table_begins_unsigned(make_dicom: Make) -> None:
    # Signed pixels -1, 0, 1, 2 become 40000, 40001, 40002, 40003, and these 0, 1, 3, 4.
    first = table(np.arange(40000, 40004), first=-1, ss=True)
    second = table(np.array([0, 1, 3, 4]), first=40000)
    file = make_dicom(SQUARE - 1, PixelRepresentation=1, ModalityLUTSequence=[first], VOILUTSequence=[second])
    expected = [[0, 0.25], [0.75, 1]]
    np.testing.assert_allclose(picture(file), expected, atol=1e-6)
    read = again(file, ImplicitVRLittleEndian)
    np.testing.assert_allclose(dicom.to_picture(read, dicom.decode(read)), expected, atol=1e-6)


def test_a_table_comes_before_a_window_and_after_it_monochrome1_is_inverted(make_dicom: Make) -> None:
    file = make_dicom(
        SQUARE, VOILUTSequence=[table(np.array([0, 1, 3, 4]))], WindowCenter=1, WindowWidth=1,
        PhotometricInterpretation="MONOCHROME1",
    )  # fmt: skip
    np.testing.assert_allclose(picture(file), [[1, 0.75], [0.25, 0]], atol=1e-6)


@pytest.mark.parametrize(
    "item",
    [
        table(np.arange(4), bits=7),
        table(np.arange(4), bits=17),
        table(np.arange(8), packed=True),  # half of what 16 bits need
    ],
)
def test_a_table_that_does_not_fit_its_descriptor_is_refused(item: Dataset, make_dicom: Make) -> None:
    file = make_dicom(SQUARE, VOILUTSequence=[item])
    with pytest.raises(dicom.Refused, match="unusable window or LUT: a look-up table does not fit its descriptor"):
        picture(file)
    with pytest.raises(dicom.Refused, match="unusable look-up table"):
        Deidentifier(b"k" * 16)(file)


@pytest.mark.parametrize("entries", [40000, 65536])
@pytest.mark.parametrize("packed", [False, True])
def test_a_de_identified_table_shows_the_same_picture(entries: int, packed: bool, make_dicom: Make) -> None:
    stored = np.array([[-32768, -20000], [0, 7000]])
    curve = np.linspace(0, 255, entries).astype(int)
    file = make_dicom(
        stored, PixelRepresentation=1, BitsStored=16, HighBit=15,
        VOILUTSequence=[table(curve, first=32768, bits=8, packed=packed)],
    )  # fmt: skip
    assert _luts.tables(file, _luts.VOI)[0].entries.tolist() == curve.tolist()
    np.testing.assert_array_equal(picture(Deidentifier(b"k" * 16)(file)), picture(file))


# A ramp with one bright marker, which would squeeze it if its tags counted as a window.
MARKED = np.tile(np.arange(1000, 1100), (100, 1))
MARKED[0, 0] = 4095


@pytest.mark.parametrize(
    "tags",
    [
        {"WindowCenter": "", "WindowWidth": ""},
        {"WindowCenter": 1000, "WindowWidth": ""},
        {"WindowCenter": "", "WindowWidth": 1000},
        {"VOILUTSequence": []},
        {"VOILUTSequence": [Dataset()]},
        {"ModalityLUTSequence": []},
        {"RescaleSlope": "", "RescaleIntercept": ""},
    ],
)
def test_tags_that_are_there_and_empty_say_nothing(tags: dict[str, object], make_dicom: Make) -> None:
    np.testing.assert_array_equal(picture(make_dicom(MARKED, **tags)), picture(make_dicom(MARKED)))
    assert picture(make_dicom(MARKED))[50, 75] == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize(
    ("function", "width", "reason"),
    [
        ("LINEAR", 0.5, "WindowWidth is 0.5, which LINEAR does not allow"),
        ("LINEAR", -3, "WindowWidth is -3, which LINEAR does not allow"),
        ("LINEAR_EXACT", 0, "WindowWidth is 0, which LINEAR_EXACT does not allow"),
        ("SIGMOID", 0, "WindowWidth is 0, which SIGMOID does not allow"),
        ("JOHN DOE", 10, "VOILUTFunction is none of the standard's"),
    ],
)
def test_a_window_that_the_standard_does_not_allow_is_refused(
    function: str, width: float, reason: str, make_dicom: Make
) -> None:
    with pytest.raises(dicom.Refused, match=f"unusable window or LUT: {reason}$"):
        picture(make_dicom(SQUARE, WindowCenter=1, WindowWidth=width, VOILUTFunction=function))


def test_a_window_that_is_not_finite_is_refused(make_dicom: Make) -> None:
    with pytest.raises(dicom.Refused, match="unusable window or LUT: the window's centre or width is not finite"):
        dicom.to_picture(make_dicom(SQUARE, WindowCenter=float("nan"), WindowWidth=4.0), SQUARE.astype(np.uint16))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        # (x - (c - 0.5)) / (w - 1) + 0.5 with c = 2.5 and w = 5: x / 4.
        (None, [0, 0.25, 0.5, 0.75, 1]),
        ("", [0, 0.25, 0.5, 0.75, 1]),
        # (x - c) / w + 0.5: x / 5; scaled from 0 to 4/5.
        ("LINEAR_EXACT", [0, 0.25, 0.5, 0.75, 1]),
        # 1 / (1 + exp(-4 (x - 2.5) / 5)) = 0.11920, 0.23148, 0.40131, 0.59869, 0.76852; scaled from 0.11920 to 0.76852.
        ("SIGMOID", [0, 0.17291, 0.43447, 0.73844, 1]),
    ],
)
def test_windows_of_the_three_functions(function: str | None, expected: list[float], make_dicom: Make) -> None:
    file = make_dicom(np.arange(5)[None], WindowCenter=2.5, WindowWidth=5, VOILUTFunction=function)
    np.testing.assert_allclose(picture(file)[0], expected, atol=2e-5)


def test_a_falling_rescale_under_a_window_turns_the_picture_once(make_dicom: Make) -> None:
    # 3 - v = 3, 2, 1, 0; the window is 0..4.
    file = make_dicom(
        SQUARE, RescaleSlope=-1, RescaleIntercept=3, WindowCenter=2, WindowWidth=4, VOILUTFunction="LINEAR_EXACT"
    )
    np.testing.assert_allclose(picture(file), [[1, 2 / 3], [1 / 3, 0]], atol=1e-6)


def padded(value: int, *, share: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """A ramp from 1000 to 1099 in columns whose first rows are padding, and where."""
    stored = np.tile(np.arange(1000, 1100), (100, 1))
    where = np.zeros(stored.shape, dtype=bool)
    where[: int(100 * share)] = True
    return np.where(where, value, stored), where


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 1050, "WindowWidth": 4000, "VOILUTFunction": "LINEAR_EXACT"}])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("value", "tag", "signed"),
    [(-32768, -32768, 1), (-2000, 63536, 1), (65535, 65535, 0), (0, 0, 0)],
)
def test_padding_has_no_say_in_the_range_and_is_black(
    value: int, tag: int, signed: int, photometric: str, window: dict[str, object], make_dicom: Make
) -> None:
    stored, where = padded(value)
    tags = {"BitsStored": 16, "HighBit": 15, "PixelRepresentation": signed, "PhotometricInterpretation": photometric}
    file = make_dicom(stored, **tags, **window)
    # In US whatever the pixels are, as some writers have it.
    file.add_new(0x00280120, "SS" if tag < 0 else "US", tag)
    narrow, read = picture(file), again(file)
    wide = dicom.to_picture(read, dicom.decode(read).astype(np.int32))  # too many values for a table
    np.testing.assert_allclose(narrow, wide, atol=1e-6)
    assert (narrow[where] == 0).all()
    # What is no padding is as in a film of it alone.
    alone = picture(make_dicom(stored[10:], **tags, **window))
    np.testing.assert_array_equal(narrow[10:], alone)
    assert narrow[10:].max() == 1
    assert np.median(narrow[10:]) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("value", "limit"), [(5, 7), (7, 5)])
def test_a_range_of_padding_has_both_of_its_ends(value: int, limit: int, make_dicom: Make) -> None:
    stored = np.array([[4, 5, 6, 7], [8, 10, 12, 12]])
    file = make_dicom(
        stored, PixelPaddingValue=value, PixelPaddingRangeLimit=limit, WindowCenter=8, WindowWidth=100,
        PhotometricInterpretation="MONOCHROME1",
    )  # fmt: skip
    # From 4 to 12, inverted.
    np.testing.assert_allclose(picture(file), [[1, 0, 0, 0], [0.5, 0.25, 0, 0]], atol=1e-6)
    del file.PixelPaddingValue
    np.testing.assert_allclose(picture(file)[0], [1, 7 / 8, 6 / 8, 5 / 8], atol=1e-6)


def test_padding_is_told_by_stored_values_and_not_by_what_they_mean(make_dicom: Make) -> None:
    # 100 - v: 3 becomes 97 and 97 becomes 3, and padding is what was 3.
    file = make_dicom(
        np.array([[3, 97], [50, 90]]), PixelPaddingValue=3, RescaleSlope=-1, RescaleIntercept=100, WindowCenter=50,
        WindowWidth=200,
    )  # fmt: skip
    np.testing.assert_allclose(picture(file), [[0, 0], [1, 7 / 47]], atol=1e-6)


def test_a_film_of_padding_alone_is_refused(make_dicom: Make) -> None:
    with pytest.raises(dicom.Refused, match="constant image: every pixel is padding"):
        picture(make_dicom(SQUARE, PixelPaddingValue=0, PixelPaddingRangeLimit=3))
    with pytest.raises(dicom.Refused, match="constant image"):
        picture(make_dicom(np.array([[0, 7], [7, 0]]), PixelPaddingValue=0))


def test_padding_that_is_no_number_says_nothing(make_dicom: Make, tmp_path: Path) -> None:
    file = make_dicom(SQUARE)
    file.add_new(0x00280120, "LO", "JOHN DOE")
    file.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(dicom.read(tmp_path / "a.dcm").pixels, picture(make_dicom(SQUARE)))
