"""Area averaging as the readers do it, without what they load for it: many processes start faster and stay smaller.

Shapes: h rows, w columns of the original, s rows and columns of the result.
"""

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float32]


def to_padded_square(picture_hw: Picture, size: int) -> NDArray[np.uint8]:
    """0..1 -> (size, size) 8-bit; the aspect is kept, the shorter side is padded with black on both ends."""
    height, width = picture_hw.shape
    longest = max(height, width)
    rows, columns = (max(1, round(side * size / longest)) for side in (height, width))
    square = np.zeros((size, size), dtype=np.uint8)
    top, left = (size - rows) // 2, (size - columns) // 2
    small = resized(picture_hw, rows, columns)
    square[top : top + rows, left : left + columns] = np.rint(np.clip(small * np.float32(255), 0, 255))
    return square


def resized(picture_hw: Picture, rows: int, columns: int) -> Picture:
    """Shrinks by averaging areas (pixel i of n: floor(i h / n) up to ceil((i + 1) h / n), as PyTorch's and MONAI's
    ``area``), grows bilinearly between pixel centres (their ``bilinear`` with ``align_corners=False``)."""
    return _along_rows(_along_rows(picture_hw, rows).T, columns).T


def _along_rows(picture_hw: Picture, rows: int) -> Picture:
    height = len(picture_hw)
    if rows > height:
        place = np.clip((np.arange(rows) + 0.5) * height / rows - 0.5, 0, height - 1)
        lower = np.minimum(place.astype(np.int64), max(height - 2, 0))
        upper = np.minimum(lower + 1, height - 1)
        weight = (place - lower).astype(np.float32)[:, None]
        return picture_hw[lower] * (1 - weight) + picture_hw[upper] * weight
    small = np.empty((rows, picture_hw.shape[1]), dtype=np.float32)
    for row in range(rows):
        first, last = row * height // rows, -(-(row + 1) * height // rows)
        np.add.reduce(picture_hw[first:last], axis=0, out=small[row])
        small[row] /= last - first
    return small
