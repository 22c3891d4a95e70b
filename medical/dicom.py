"""One DICOM file to one picture, in the order that the standard prescribes, or a reason why not.

Order (DICOM PS3.4 N.2): modality LUT or rescale, then VOI LUT or window, then the inversion of MONOCHROME1.
Inverting first, or windowing stored values, gives another picture. Stored values that only pad a film to a rectangle
(PS3.3 C.7.5.1.1.2) have no say in its range and are black in the end.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlabeled.medical import _codestream, _luts, attributes
from unlabeled.medical._headerless import declare_syntax, is_dicom
from unlabeled.medical._people import ALONE
from unlabeled.medical._pseudonyms import identity, text, value_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = [
    "Radiograph", "Refused", "check_depth", "check_size", "check_tags", "decode", "is_dicom", "pseudonym", "read",
    "to_picture",
]  # fmt: skip

RADIOGRAPHY = ("CR", "DX", "RG")
CHEST = ("CHEST", "THORAX", "LUNG")
FRONTAL = ("PA", "AP")
LATERAL = ("LL", "RL", "LAT", "LATERAL", "LLD", "RLD")
# Terms of the standard that a reason may repeat, beside those of the gate's tables; a tag may hold anything else.
_PHOTOMETRIC = (
    *("PALETTE COLOR", "RGB", "HSV", "ARGB", "CMYK", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_PARTIAL_422"),
    *("YBR_ICT", "YBR_RCT", "XYB"),
)
_POSITIONS = ("HFP", "HFS", "HFDR", "HFDL", "FFP", "FFS", "FFDR", "FFDL", "LFP", "LFS", "RFP", "RFS", "AFDR", "AFDL")
# Share of the darkest and of the brightest pixels that saturate when a file brings no window of its own.
TAIL = 0.5


class Refused(Exception):
    """This file is left out; the message is the one-line reason."""


class Radiograph(NamedTuple):
    """``pixels`` (H, W) from 0 to 1, bone bright; ``patient`` a pseudonym, or ``None`` when the file names nobody,
    and where it names an issuer, followed by that of the id alone (:func:`~unlabeled.medical._people.of_files`);
    ``attributes`` as :func:`~unlabeled.medical.attributes.of_dicom` reads them; ``study`` a stand-in, empty where the
    file names none."""

    pixels: NDArray[np.float32]
    patient: str | None
    attributes: Mapping[str, str] = MappingProxyType({})
    study: str = ""


# Bytes; larger files are refused without being read. Reading one takes about eight times as much memory; the largest
# film that is likely, 10,000 x 10,000 of 16 bits and not compressed, has 200 million.
LARGEST = 256 << 20
# A compressed file may be small and its picture not.
MOST_PIXELS = LARGEST // 2


def pseudonym(patient_id: str) -> str:
    """A stable stand-in for a patient's id, so that splits can be made and repeated without it.

    A keyed hash hides the id from a reader, not from somebody who can guess ids and try them: it is kept in
    memory and in messages, and a model keeps a slow digest of it in its own private file (`splits.digests`).
    """
    return f"P-{_digest(patient_id.strip())}"


def _digest(value: str) -> str:
    return hashlib.blake2b(value.encode(errors="surrogatepass"), digest_size=5, key=b"unlabeled.medical").hexdigest()


def read(path: Path | BinaryIO) -> Radiograph:
    """Reads, checks and converts one file. What a tag holds that breaks its type counts as not said.

    Raises:
        Refused: it is too large, damaged, no frontal chest radiograph by its tags, not decodable here, or empty of
            contrast. The reason has nothing of the file's but terms of the standard and numbers.
    """
    import pydicom

    try:
        check_size(path)
        file = pydicom.dcmread(path, force=True)
        check_tags(file)
        check_depth(file)
        return Radiograph(to_picture(file, decode(file)), _patient(file), attributes.of_dicom(file), _study(file))
    except Refused:
        raise
    except Exception as error:  # pydicom raises most builtin errors on damaged files, with what they hold
        raise Refused(f"damaged DICOM: {type(error).__name__}") from None


def check_size(path: Path | BinaryIO) -> None:
    """Raises Refused where a file, or what a stream holds, has more bytes than :data:`LARGEST`."""
    if isinstance(path, str | os.PathLike):
        size = os.stat(path).st_size
    else:
        here = path.tell()
        size = path.seek(0, os.SEEK_END)
        path.seek(here)
    if size > LARGEST:
        raise Refused(f"too large: {size} bytes, expected at most {LARGEST}")


def check_depth(file: "Dataset") -> None:
    """Raises Refused where the tags speak of another depth than 8 to 16 bits, or contradict each other."""
    said = [value_of(file, name) for name in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")]
    try:
        allocated, stored, high, signed = (int(value) for value in said)
    except (TypeError, ValueError):
        raise Refused("bit depth: a tag is missing or no number") from None
    # HighBit other than the topmost stored one is of the retired kind that no decoder here shifts.
    if allocated not in (8, 16) or not 8 <= stored <= allocated or high != stored - 1 or signed not in (0, 1):
        raise Refused(f"bit depth: {allocated} bits allocated, {stored} stored, high bit {high}")


def check_tags(file: "Dataset") -> None:
    """What can be told without decoding.

    Raises:
        Refused: with the tag, what it holds (if that is a term of the standard) and what was expected.
    """
    if "DirectoryRecordSequence" in file:
        raise Refused("not an image: a DICOM directory")
    if "Rows" not in file or not {"PixelData", "FloatPixelData", "DoubleFloatPixelData"} & set(file.dir()):
        # A file cut before its pixels looks the same as one that never had any, but for its class.
        meta = getattr(file, "file_meta", None)
        kind = _name(str(getattr(meta, "MediaStorageSOPClassUID", "") or text(file, "SOPClassUID")))
        if "Image Storage" in kind:
            raise Refused(f"truncated: no pixels in a file that says it is a {kind}")
        raise Refused(f"not an image: {kind or 'no pixels'}")
    if _text(file, "Modality") not in RADIOGRAPHY:
        raise Refused(
            f"not a radiograph: Modality is {_said(file, 'Modality')}, expected one of {', '.join(RADIOGRAPHY)}"
        )
    frames = int(value_of(file, "NumberOfFrames") or 1)
    if frames > 1:
        raise Refused(f"multi-frame: NumberOfFrames is {frames}, expected 1")
    if _text(file, "PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        raise Refused(f"not greyscale: PhotometricInterpretation is {_said(file, 'PhotometricInterpretation')}")
    _check_body_part(file)
    _check_view(file)


def _check_body_part(file: "Dataset") -> None:
    part = _text(file, "BodyPartExamined")
    if part:
        if not part.startswith(CHEST) or "ABD" in part:  # CHESTABDOMEN is another film
            raise Refused(f"not a chest: BodyPartExamined is {_said(file, 'BodyPartExamined')}")
        return
    described = " ".join(_text(file, name) for name in ("StudyDescription", "SeriesDescription", "ProtocolName"))
    if not any(word in described for word in (*CHEST, "CXR")):
        raise Refused("body part unknown: BodyPartExamined is missing and no description says chest or thorax")


def _check_view(file: "Dataset") -> None:
    """ViewPosition; else PatientPosition, where some archives keep PA and AP; else how rows run across the body."""
    for tag in ("ViewPosition", "PatientPosition"):
        view = _text(file, tag)
        if view in FRONTAL:
            return
        if view in LATERAL:
            raise Refused(f"lateral view: {tag} is {view}, expected PA or AP")
        if view and view not in _POSITIONS:  # how somebody lay says nothing of the beam
            raise Refused(f"view unknown: {tag} is {_said(file, tag)}, expected PA or AP")
    across = str((value_of(file, "PatientOrientation") or [""])[0]).upper()[:1]
    if across in ("A", "P"):
        raise Refused(f"lateral view: rows run along {across} (PatientOrientation)")
    if across not in ("L", "R"):
        raise Refused("view unknown: neither ViewPosition, PatientPosition nor PatientOrientation tells")


def decode(file: "Dataset") -> NDArray[np.generic]:
    """Stored values (H, W). A file that has no transfer syntax is given the one that it was read in.

    Raises:
        Refused: truncated, damaged, larger than :data:`MOST_PIXELS`, or compressed in a way that nothing installed can
            decode.
    """
    _check_pixels(file)
    try:
        declare_syntax(file)
        stored = file.pixel_array
    except Exception as error:  # decoders raise whatever their libraries do, and quote the file
        syntax = str(getattr(getattr(file, "file_meta", None), "TransferSyntaxUID", ""))
        reason = str(error)
        if not syntax:
            raise Refused("no decoder: the pixels are compressed, and no transfer syntax says how") from None
        if _packed(syntax) and any(
            sign in reason for sign in ("missing dependencies", "does not support", "is not supported")
        ):
            name = _name(syntax) or "an unknown transfer syntax"
            raise Refused(f"no decoder: nothing installed reads {name} (pylibjpeg-libjpeg may)") from None
        if any(sign in reason for sign in ("length of the pixel data", "less than expected", "unexpected end")):
            raise Refused("truncated: fewer bytes of pixels than its tags speak of") from None
        raise Refused(f"damaged pixels: {type(error).__name__}") from None
    if stored.ndim != 2:
        raise Refused(f"not a picture: pixels have shape {stored.shape}, expected rows x columns")
    return stored


def _check_pixels(file: "Dataset") -> None:
    """Before anything is decoded, by the tags and by what a compressed picture says of itself; what neither says in
    numbers is the decoder's business."""
    try:
        rows, columns, samples = (int(value_of(file, name) or 1) for name in ("Rows", "Columns", "SamplesPerPixel"))
    except (TypeError, ValueError):
        return
    if rows * columns * samples > MOST_PIXELS:
        raise Refused(f"too large: {rows} rows, {columns} columns, expected at most {MOST_PIXELS} pixels")
    if _packed(str(getattr(getattr(file, "file_meta", None), "TransferSyntaxUID", ""))):
        found = _codestream.samples(_codestream.beginning(file))
        if found > MOST_PIXELS:
            raise Refused(f"too large: its code stream has {found} pixels, expected at most {MOST_PIXELS}")


def to_picture(file: "Dataset", stored: NDArray[np.generic]) -> NDArray[np.float32]:
    """Stored values to 0..1: modality LUT or rescale, VOI LUT or first window, scaling, inversion of MONOCHROME1.

    With a window (or VOI LUT) of its own, the windowed picture is scaled from its lowest to its highest value;
    without one, from its 0.5th to its 99.5th percentile, so that burnt-in markers do not squeeze the lungs. Padding
    counts in neither, and is 0.

    Raises:
        Refused: nothing but one grey is left.
    """
    if stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2:
        return _by_table(file, stored)
    values, outside = _shown(file, stored), _luts.padding(file, stored)
    inside = values[~outside]
    low, high = _range(file, inside, np.ones(inside.shape, dtype=np.int64))
    return _scaled(file, values, outside, low=low, high=high)


def _by_table(file: "Dataset", stored: NDArray[np.generic]) -> NDArray[np.float32]:
    """The same where there are at most 65,536 stored values: what becomes of each is worked out once, and looked up."""
    stored = np.ascontiguousarray(stored, dtype=stored.dtype.newbyteorder("="))
    first, last = int(stored.min()), int(stored.max())
    codes = np.arange(first, last + 1)
    values, outside = _shown(file, codes), _luts.padding(file, codes)
    steps = np.diff(values)
    monotone = bool((steps >= 0).all() or (steps <= 0).all())
    if monotone and not outside.any() and _luts.has_window(file):
        # The ends of the range, which are there, have the lowest and the highest value.
        low, high = sorted((float(values[0]), float(values[-1])))
    else:
        counts = np.bincount((stored.ravel().astype(np.int32) - first), minlength=len(values))
        there = (counts > 0) & ~outside
        low, high = _range(file, values[there], counts[there])
    table = np.zeros(1 << 8 * stored.dtype.itemsize, dtype=np.float32)
    table[codes] = _scaled(file, values, outside, low=low, high=high)  # negative ones count from the end
    return table.take(stored.view(f"u{stored.dtype.itemsize}"), mode="wrap")


def _shown(file: "Dataset", stored: NDArray[np.generic]) -> NDArray[np.float64]:
    try:
        return _luts.shown(file, stored)
    except _luts.Unusable as unusable:
        raise Refused(f"unusable window or LUT: {unusable}") from None
    except Exception as error:  # LUTs and windows come as people wrote them
        raise Refused(f"unusable window or LUT: {type(error).__name__}") from None


def _range(file: "Dataset", values: NDArray[np.float64], counts: NDArray[np.int64]) -> tuple[float, float]:
    """What becomes black and what white, of values that are there so many times each."""
    if not values.size:
        raise Refused("constant image: every pixel is padding")
    low, high = float(values.min()), float(values.max())
    if _luts.has_window(file):
        return low, high
    inner = _percentiles(values, counts, (TAIL, 100 - TAIL))
    return inner if np.isfinite(inner).all() and inner[1] > inner[0] else (low, high)


def _scaled(
    file: "Dataset", values: NDArray[np.float64], outside: NDArray[np.bool_], *, low: float, high: float
) -> NDArray[np.float32]:
    if not high > low:
        raise Refused(
            "constant image: every pixel has the same value" + (" after its window" if _luts.has_window(file) else "")
        )
    picture = np.clip((values - low) / (high - low), 0, 1).astype(np.float32)
    if _text(file, "PhotometricInterpretation") == "MONOCHROME1":
        picture = 1 - picture
    picture[outside] = 0
    return picture


def _percentiles(
    values: NDArray[np.float64], counts: NDArray[np.int64], wanted: tuple[float, float]
) -> tuple[float, float]:
    """As ``np.percentile`` of each value repeated so many times, with linear interpolation."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(counts[order])
    places = np.array(wanted) / 100 * (below[-1] - 1)
    lower, upper = (values[order][np.searchsorted(below, end(places), side="right")] for end in (np.floor, np.ceil))
    low, high = lower + (upper - lower) * (places - np.floor(places))
    return float(low), float(high)


def _study(file: "Dataset") -> str:
    """As :func:`pseudonym`, of the study."""
    uid = text(file, "StudyInstanceUID")
    return f"T-{_digest(uid)}" if uid else ""


def _patient(file: "Dataset") -> str | None:
    named, alone = identity(file), text(file, "PatientID")
    if named is None or named == alone:
        return None if named is None else pseudonym(named)
    return f"{pseudonym(named)}{ALONE}{pseudonym(alone)}"


def _text(file: "Dataset | Mapping[str, object]", tag: str) -> str:
    return text(file, tag).upper()


def _said(file: "Dataset", tag: str) -> str:
    """What a tag holds, if that is a term of the standard's: free text may name somebody."""
    # Both build on this module.
    from unlabeled.medical._confidentiality import PARTS, VIEWS
    from unlabeled.medical.intake.reasons import MODALITIES

    terms = {"Modality": MODALITIES, "BodyPartExamined": PARTS, "PhotometricInterpretation": _PHOTOMETRIC}
    said = _text(file, tag)
    return said if said in terms.get(tag, (*VIEWS, *_POSITIONS)) else "something else" if said else "missing"


def _name(uid: str) -> str:
    """The standard's name for a UID; empty for any other, which may be somebody's."""
    from pydicom.uid import UID_dictionary

    return str(UID_dictionary[uid][0]) if uid in UID_dictionary else ""


def _packed(syntax: str) -> bool:
    from pydicom.uid import UID

    try:
        return bool(UID(syntax).is_compressed)
    except ValueError:  # no transfer syntax at all
        return False
