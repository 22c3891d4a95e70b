"""Text burned into a picture near its borders: found by size, contrast and sharpness, painted over with what is around.

Classical and deliberately plain: thin marks of a letter's size with edges as sharp as only drawn ones are, wholly
inside the border band. Side markers ('R', 'L') are such marks and go too, which also takes a shortcut from a model;
so do some electrodes and clips. No character is read (optical character recognition is an extra, see
:mod:`unlabeled.medical.intake._ocr`): what is larger, blurred or faint, or lies over the middle of the picture, is not
found here.

Shapes: h rows, w columns.
"""

from collections.abc import Iterable, Iterator
from functools import reduce
from itertools import compress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float32]
Box = tuple[slice, slice]

# Marks are judged on a grid of about this side; larger pictures are reduced to it first.
_GRID = 512
# Smaller pictures cannot hold a legible letter.
LEAST_SIDE = 32
# Everything below is in shares of the picture's smaller side.
_STROKE = 0.045
LETTER = 0.16
_LINE = (0.10, 0.60)
_MARGIN = 0.012
# Share of a mark's box that its strokes cover: less is a wire that crosses it, more is a plate.
_COVER = (0.15, 0.92)
# Contrast that a letter beside a found one needs, in shares of what a lone one needs.
_FAINTER = 0.7
# How far the next letter may be, in heights of the one before: words of a line, and letters lost between.
_ASIDE = 2


class Criteria(NamedTuple):
    """When a mark counts as text.

    Attributes:
        bright: how far bright strokes stand out from their surroundings, in shares of the picture's range.
        dark: the same for dark strokes on bright ground; more, because gaps between ribs look like faint ones.
        sharpness: steepest steps from pixel to pixel inside the mark, in shares of its contrast.
        beside: the same for a mark that lies next to one already found, as letters of a word do.
        band: how far from a border the mark may reach, in shares of the side; 0.5 is the whole picture.
    """

    bright: float = 0.22
    dark: float = 0.4
    sharpness: float = 0.7
    beside: float = 0.5
    band: float = 0.2


ORDINARY = Criteria()
# Where a file says that text is burned in, fainter and softer marks count.
ANNOTATED = Criteria(bright=0.12, dark=0.25, sharpness=0.5, beside=0.4)
EVERYWHERE = Criteria(band=0.5)


def find(picture_hw: Picture, criteria: Criteria) -> tuple[NDArray[np.bool_], int]:
    """Where text stands (H, W), with a margin, and the number of separate regions; pictures run from 0 to 1."""
    from scipy import ndimage

    covered = np.zeros(picture_hw.shape, dtype=bool)
    if min(picture_hw.shape) < LEAST_SIDE:
        return covered, 0
    step = max(1, round(min(picture_hw.shape) / _GRID))
    bright, dark = _reduced(picture_hw, step, np.maximum), 1 - _reduced(picture_hw, step, np.minimum)
    marks: NDArray[np.bool_] = np.zeros(bright.shape, dtype=bool)
    margin = max(1, round(_MARGIN * min(marks.shape)))
    for picture, contrast in ((bright, criteria.bright), (dark, criteria.dark)):
        for box in _text(picture, contrast, criteria):
            marks[grown(box, margin, marks.shape)] = True
    if not marks.any():
        return covered, 0
    _, regions = ndimage.label(marks)
    # The last rows and columns that fill no whole block belong to the block before.
    height, width = picture_hw.shape
    rows, columns = np.arange(height) // step, np.arange(width) // step
    rows, columns = rows.clip(max=marks.shape[0] - 1), columns.clip(max=marks.shape[1] - 1)
    return marks.take(columns, axis=1).take(rows, axis=0), regions


def joined(covered_hw: NDArray[np.bool_], regions: int, also_hw: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], int]:
    """What :func:`find` found and what something else did; a word that both found is one region."""
    from scipy import ndimage

    if not also_hw.any():
        return covered_hw, regions
    both_hw = covered_hw | also_hw
    return both_hw, ndimage.label(both_hw)[1]


def paint(values_hw: NDArray[np.floating], covered_hw: NDArray[np.bool_]) -> NDArray[np.floating]:
    """A copy whose covered pixels are the distance-weighted mean of the uncovered ones around (normalised convolution,
    Knutsson and Westin 1993); the others are untouched."""
    from scipy import ndimage

    painted = values_hw.copy()
    labels, _ = ndimage.label(covered_hw)
    for box in ndimage.find_objects(labels):
        reach = max(4, min(side.stop - side.start for side in box))
        around = grown(box, 2 * reach, values_hw.shape)
        known = (~covered_hw[around]).astype(np.float64)
        weight = ndimage.gaussian_filter(known, reach / 2, mode="constant")
        total = ndimage.gaussian_filter(values_hw[around] * known, reach / 2, mode="constant")
        inside = covered_hw[around]
        ground = np.median(values_hw[~covered_hw]) if not known.any() else 0.0
        painted[around][inside] = np.where(weight > 1e-9, total / np.maximum(weight, 1e-9), ground)[inside]
    return painted


def stroke(shape: tuple[int, ...]) -> int:
    """Pixels, odd, that a letter's stroke is thinner than in a picture of that shape."""
    return max(3, round(_STROKE * min(shape))) | 1


def relief(picture_hw: Picture, size: int | None = None) -> Picture:
    """White top-hat (H, W): how far what is thinner than ``size`` stands out from what is darker around it.

    Args:
        picture_hw: from 0 to 1.
        size: pixels, odd; by default a :func:`stroke` of the picture's.
    """
    return picture_hw - _opened(picture_hw, size or stroke(picture_hw.shape))


def _text(picture_hw: Picture, contrast: float, criteria: Criteria) -> list[Box]:
    """Sharp marks of a letter's size, and what stands beside them as the other letters of a word do."""
    side = min(picture_hw.shape)
    relief_hw = relief(picture_hw)

    def accepted(marks: Iterable[_Mark], sharpness: float) -> list[Box]:
        return [mark.box for mark in marks if _sharpness(picture_hw, relief_hw, mark) >= sharpness]

    def near_border(mark: _Mark) -> bool:
        return _near_border(mark.box, picture_hw.shape, criteria.band)

    strong = (mark for mark in _marks(relief_hw, contrast) if near_border(mark) and _of_letter_size(mark, side))
    found = accepted(strong, criteria.sharpness)
    if not found:
        return []
    others = [mark for mark in _marks(relief_hw, contrast * _FAINTER) if near_border(mark)]
    latest = found
    while latest:
        windows = [_beside(box, picture_hw.shape) for box in latest]
        beside = [any(_within(mark.box, window) for window in windows) for mark in others]
        latest = accepted(compress(others, beside), criteria.beside)
        found = found + latest
        others = [mark for mark, taken in zip(others, beside, strict=True) if not taken]
    return found


class _Mark(NamedTuple):
    """A connected mark: its box, and where in the box it is."""

    box: Box
    inside: NDArray[np.bool_]


def _marks(relief_hw: Picture, contrast: float) -> Iterator[_Mark]:
    """What stands out by ``contrast``."""
    from scipy import ndimage

    above = relief_hw > contrast
    if not above.any():
        return
    labels, _ = ndimage.label(above, structure=np.ones((3, 3)))
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        yield _Mark(box, labels[box] == number)


def _of_letter_size(mark: _Mark, side: int) -> bool:
    height, width = mark.inside.shape
    letter = 3 <= height <= LETTER * side and 2 <= width <= LETTER * side
    line = 3 <= height <= _LINE[0] * side and width <= _LINE[1] * side
    return (letter or line) and _COVER[0] <= mark.inside.mean() <= _COVER[1]


def _sharpness(picture_hw: Picture, relief_hw: Picture, mark: _Mark) -> float:
    """Steepest steps from pixel to pixel (75th percentile) in shares of the mark's contrast (median)."""
    steps = steepest(picture_hw, mark.box)[mark.inside]
    return float(np.percentile(steps, 75) / np.median(relief_hw[mark.box][mark.inside]))


def steepest(picture_hw: Picture, box: Box) -> Picture:
    """Largest difference of each pixel of the box to one of its four neighbours."""
    padded = np.pad(picture_hw[grown(box, 1, picture_hw.shape)], 1, mode="edge")
    # Where the box touches the picture's border it could not grow: the padding is one pixel wider there.
    top, left = (along.start - max(0, along.start - 1) + 1 for along in box)
    height, width = (along.stop - along.start for along in box)
    centre = padded[top : top + height, left : left + width]
    neighbours = [
        padded[top + down : top + down + height, left + across : left + across + width]
        for down, across in ((-1, 0), (1, 0), (0, -1), (0, 1))
    ]
    return np.max([np.abs(centre - neighbour) for neighbour in neighbours], axis=0)


def _near_border(box: Box, shape: tuple[int, ...], band: float) -> bool:
    return any(
        along.stop <= np.ceil(band * size) or along.start >= np.floor((1 - band) * size)
        for along, size in zip(box, shape, strict=True)
    )


def _within(box: Box, window: Box) -> bool:
    return all(a.start >= b.start and a.stop <= b.stop for a, b in zip(box, window, strict=True))


def _beside(box: Box, shape: tuple[int, ...]) -> Box:
    """Where the rest of a line may stand: a letter's height above and below, some more to both sides."""
    height = box[0].stop - box[0].start
    (rows, _), (_, columns) = grown(box, height, shape), grown(box, _ASIDE * height, shape)
    return rows, columns


def grown(box: Box, margin: int, shape: tuple[int, ...]) -> Box:
    rows, columns = (
        slice(max(0, along.start - margin), min(size, along.stop + margin))
        for along, size in zip(box, shape, strict=True)
    )
    return rows, columns


def _opened(picture_hw: Picture, size: int) -> Picture:
    """Grey opening by a square of odd ``size``: marks thinner than it are levelled to what is around them."""
    for pick in (np.minimum, np.maximum):
        for axis in (0, 1):
            picture_hw = _running(picture_hw, size, pick, axis)
    return picture_hw


def _running(picture_hw: Picture, size: int, pick: np.ufunc, axis: int) -> Picture:
    """Lowest or highest value of a centred window of ``size`` along an axis, by windows of doubling length."""
    pad = [(size // 2, size // 2) if along == axis else (0, 0) for along in (0, 1)]
    values = np.moveaxis(np.pad(picture_hw, pad, mode="edge"), axis, 0)
    length = 1
    while length < size:
        shift = min(length, size - length)
        values = pick(values[:-shift], values[shift:])
        length += shift
    return np.moveaxis(values, 0, axis)


def _reduced(picture_hw: Picture, step: int, pick: np.ufunc) -> Picture:
    """The highest (or lowest) value of each ``step`` x ``step`` block: a mean would wash thin strokes out."""
    height, width = (size // step * step for size in picture_hw.shape)
    picture_hw = picture_hw[:height, :width]
    for axis in (0, 1):
        lines = np.moveaxis(picture_hw, axis, 0)
        picture_hw = np.moveaxis(reduce(pick, (lines[start::step] for start in range(step))), 0, axis)
    return picture_hw
