"""What the pixels themselves say against a picture.

The limits were set on 5,856 films of children (Kermany 2018, squeezed to a square) and 911 of adults (NIH ChestX-ray14,
64 pixels), reduced to 64 x 64: none of them is flagged as inverted or as unlike a chest, 96.5 % of them are flagged as
inverted when they are inverted, and so are (as unlike) all of 500 pictures of noise and 200 of a page of lines.

Shapes: 64 rows and columns (t, t), of the picture without its borders, stretched to a square.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.medical import dicom
from unlabeled.medical.intake.reasons import NotKept

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SIDE = 64
# In standard deviations of the picture: how much brighter the middle is than the lungs, and the neck than the corners.
_INVERTED = -0.3
_UNLIKE = (0.3, 0.5)
# Least standard deviation of a picture from 0 to 1.
_CONTRAST = 0.02
# Share of the small picture at its darkest or brightest grey; 0.33 is the most of the films above.
_AT_THE_END = 0.6
# Share of a pixel that is padding from which on it is not looked at.
_PADDED = 0.5


def look(thumb_tt: NDArray[np.float32], padding_tt: NDArray[np.floating[Any]] | None = None) -> list[str]:
    """Flags by what a frontal chest film looks like: the middle brighter than the lungs, the neck than the corners.

    Args:
        thumb_tt: the picture.
        padding_tt: share of each of its pixels that only pads the film to a rectangle
            (:func:`unlabeled.medical._luts.padding`): black, whatever is beside it, so where that is most of a pixel
            it is not looked at.

    Raises:
        NotKept: next to no contrast, or nearly everything at an end of the scale.
    """
    inside_tt = np.ones(thumb_tt.shape, dtype=bool) if padding_tt is None else padding_tt < _PADDED
    if padding_tt is not None:  # the mean of the rest of each pixel
        thumb_tt = np.where(inside_tt, thumb_tt / np.where(inside_tt, 1 - padding_tt, 1), 0).clip(0, 1)
    seen = thumb_tt[inside_tt]
    if not seen.size or float(seen.std()) < _CONTRAST:
        raise NotKept("empty", f"standard deviation below {_CONTRAST:g}")
    for end, share in (("darkest", (seen <= 0.01).mean()), ("brightest", (seen >= 0.99).mean())):
        if share > _AT_THE_END:
            raise NotKept("saturated", f"more than {_AT_THE_END:.0%} are the {end} grey")
    middle, corners = _signs(thumb_tt, inside_tt)
    if middle is None:  # it or both lungs are padding
        return ["unlike a chest"]
    # Corners or a neck that are padding speak neither for nor against.
    if middle < _INVERTED and (corners is None or corners < _INVERTED):
        return ["inverted"]
    if middle < _UNLIKE[0] and (corners is None or corners < _UNLIKE[1]):
        return ["unlike a chest"]
    return []


def _signs(thumb_tt: NDArray[np.float32], inside_tt: NDArray[np.bool_]) -> tuple[float | None, float | None]:
    """Mean grey of the middle over that of the lungs, and of the neck over that of the upper corners, in standard
    deviations of the picture; both positive where air is dark. ``None`` where padding leaves nothing of one side."""
    seen = thumb_tt[inside_tt]
    scaled = np.where(inside_tt, (thumb_tt - seen.mean()) / seen.std(), np.nan)

    def mean(top: float, bottom: float, left: float, right: float) -> list[float]:
        rows, columns = (slice(int(a * SIDE), int(b * SIDE)) for a, b in ((top, bottom), (left, right)))
        part = scaled[rows, columns]
        part = part[~np.isnan(part)]
        return [float(part.mean())] if part.size else []

    def over(ones: list[float], others: list[float]) -> float | None:
        return ones[0] - sum(others) / len(others) if ones and others else None

    lungs = mean(0.25, 0.6, 0.15, 0.38) + mean(0.25, 0.6, 0.62, 0.85)
    corners = mean(0, 0.08, 0, 0.12) + mean(0, 0.08, 0.88, 1)
    return over(mean(0.25, 0.85, 0.44, 0.56), lungs), over(mean(0, 0.1, 0.4, 0.6), corners)


def depth(file: "Dataset") -> None:
    """Raises NotKept where :func:`unlabeled.medical.dicom.check_depth` refuses."""
    try:
        dicom.check_depth(file)
    except dicom.Refused as refused:
        raise NotKept("bit depth", str(refused).partition(": ")[2]) from None


def raw_range(file: "Dataset") -> None:
    """Looks at the bits above BitsStored, which decoders clear, in a file that is not compressed.

    Raises:
        NotKept: they are set, and neither repeat the sign nor are said to hold an overlay.
    """
    bits, allocated = int(file.BitsStored), int(file.BitsAllocated)
    if bits == allocated or file.file_meta.TransferSyntaxUID.is_compressed:
        return
    order = "<" if file.file_meta.TransferSyntaxUID.is_little_endian else ">"
    # What follows the last row is no pixel.
    values = np.frombuffer(file.PixelData, dtype=f"{order}u2", count=int(file.Rows) * int(file.Columns))
    unused = (1 << allocated) - (1 << bits)
    found = int(np.bitwise_or.reduce(values)) & unused if len(values) else 0
    if not found:
        return
    for group in range(0x6000, 0x6020, 2):  # older files keep overlays there
        place = file.get((group, 0x0102))
        if place is not None and place.value in range(allocated):
            found &= ~(1 << place.value)
    if not found:
        return
    sign_extended = int(file.PixelRepresentation) == 1 and bool(
        np.isin(values >> (bits - 1), [0, (1 << allocated - bits + 1) - 1]).all()
    )
    if not sign_extended:
        raise NotKept("stored range", f"bits above the {bits} that are stored are set")


def stored_range(file: "Dataset", stored_hw: NDArray[np.generic]) -> None:
    """Raises NotKept where decoded values are no whole numbers of BitsStored bits."""
    if stored_hw.dtype.kind not in "iu":
        raise NotKept("not greyscale", "fractions")
    bits = int(file.BitsStored) - (stored_hw.dtype.kind == "i")
    low, high = int(stored_hw.min()), int(stored_hw.max())
    if high >= 1 << bits or low < (-(1 << bits) if stored_hw.dtype.kind == "i" else 0):
        raise NotKept("stored range", f"from {low} to {high} in {int(file.BitsStored)} bits")
