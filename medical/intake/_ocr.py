"""Text anywhere in a film, found by reading it; nothing but the places of what was read is kept.

An extra: ``pip install 'unlabeled[ocr]'`` and the program tesseract. It supplements the search near the borders
(:mod:`unlabeled.medical._burned_in`) and replaces none of it: lone letters, text that is turned, handwriting and
scripts other than Latin are not found here.

Tesseract is not given the film, in which it finds dark text only, and words among the ribs, but what stands out of the
film as thin strokes do: once the bright ones, once the dark ones. Of the words it is sure of, those count whose edges
are as sharp as drawn ones, and then what else is on their line, because a name is what it is least sure of.

Measured with Tesseract 5.3.0 on drawings that nothing was chosen by. Of 99 simulated films of 224 to 3000 pixels with a
name, date or number across the middle, 93 had at least 90 % of its contrast covered; of 60 on real films 54, after JPEG
of quality 60 41, after a blur of one pixel 16: what is left of the others may be legible. None of 181 simulated films
without text was touched and none of 60 adults' (64 pixels, enlarged); of 200 children's of 224 pixels, 4 were, by at
most 0.3 % of their pixels.

Shapes: h rows, w columns.
"""

import numpy as np
from numpy.typing import NDArray

from unlabeled.medical import _burned_in
from unlabeled.medical._burned_in import Box, Picture
from unlabeled.medical.intake import _tesseract
from unlabeled.medical.intake.resize import resized

# Tesseract knows letters of some 20 to 40 pixels best: films between these sides (pixels) are read in their own size.
_SIDES = (1000, 2048)
# How far a stroke stands out, in shares of the picture's range: none of it is ink below the first, all from the second.
_INK = (0.1, 0.3)
# The same where text is known to be near, as on bright ground beside it.
_FAINT = 0.08
# Steps at the edges of strokes in shares of their contrast: drawn ones are near 1, anatomy is below 0.5 nearly always.
# For a likely word, for a certain one (text that went through JPEG or is blurred), for what stands beside a word.
_LIKELY, _CERTAIN, _BESIDE = 0.7, 0.3, 0.5
# Pixels of the smallest legible letter.
_LEGIBLE = 5
# How much taller than a drawn word the rest of its line may be.
_TALLER = 2
# Shares of a word's height: what is painted around it, for Tesseract cuts its letters close; how wide what stands
# beside it is looked at, and how often; the gap that is painted between two words.
_MARGIN, _ASIDE, _TIMES, _GAP = 0.2, 1.5, 4, 3.0


class TextReader:
    """Finds upright text of Latin letters and figures, two characters or more, in any place. It holds nothing.

    Raises:
        DataError: pytesseract or tesseract is missing, or does not run.
    """

    def __init__(self) -> None:
        _tesseract.words(np.ones((64, 64), dtype=np.float32))

    def boxes(self, picture_hw: Picture) -> list[Box]:
        """Rows and columns of lines of text, with a margin; pictures run from 0 to 1.

        Raises:
            DataError: Tesseract fails.
        """
        boxes = [box for ground_hw in (picture_hw, 1 - picture_hw) for box in _bright(ground_hw)]
        return [_burned_in.grown(box, 1 + round(_MARGIN * _height(box)), picture_hw.shape) for box in boxes]

    def cover(self, picture_hw: Picture) -> NDArray[np.bool_]:
        """The same as a picture (H, W), true where a box is."""
        covered_hw = np.zeros(picture_hw.shape, dtype=bool)
        for box in self.boxes(picture_hw):
            covered_hw[box] = True
        return covered_hw


def _bright(picture_hw: Picture) -> list[Box]:
    """Lines of bright text."""
    if min(picture_hw.shape) < _burned_in.LEAST_SIDE:
        return []
    smaller = min(1.0, _SIDES[1] / max(picture_hw.shape))
    ink_hw = (_burned_in.relief(_scaled(picture_hw, smaller)) - _INK[0]) / (_INK[1] - _INK[0])
    if ink_hw.max() < 0.5:
        return []
    # A strip grows no further than its length allows.
    larger = max(1.0, min(_SIDES[0] / min(ink_hw.shape), _SIDES[1] / max(ink_hw.shape)))
    found = _tesseract.words(1 - _scaled(ink_hw.clip(0, 1), larger))
    words = [word._replace(box=_reduced(word.box, smaller * larger, picture_hw.shape)) for word in found]
    tall: dict[tuple[int, ...], int] = {}
    for word in words:
        if word.likely and _is_drawn(picture_hw, word):
            tall[word.line] = max(tall.get(word.line, 0), _height(word.box))
    written = [word.box for word in words if _height(word.box) <= _TALLER * tall.get(word.line, 0)]
    return _joined([_widened(picture_hw, box) for box in written])


def _is_drawn(picture_hw: Picture, word: _tesseract.Word) -> bool:
    if not _LEGIBLE <= _height(word.box) <= _burned_in.LETTER * min(picture_hw.shape):
        return False
    return _sharpness(picture_hw, word.box) >= (_CERTAIN if word.certain else _LIKELY)


def _sharpness(picture_hw: Picture, box: Box) -> float:
    """Median of the steepest steps along the edges of a box's strokes, in shares of their contrast; 0 without any."""
    from scipy import ndimage

    around = _burned_in.grown(box, _burned_in.stroke(picture_hw.shape), picture_hw.shape)
    within = tuple(
        slice(inner.start - outer.start, inner.stop - outer.start) for inner, outer in zip(box, around, strict=True)
    )
    relief_hw = _burned_in.relief(picture_hw[around], _burned_in.stroke(picture_hw.shape))[within]
    # Noise is sharp too: what counts is above its spread.
    low, top = np.percentile(relief_hw, (25, 95))
    inside = relief_hw > (low + top) / 2
    if top - low < _FAINT:
        return 0.0
    edge = inside & ~ndimage.binary_erosion(inside)
    return float(np.median(_burned_in.steepest(picture_hw, box)[edge]) / (top - low))


def _widened(picture_hw: Picture, box: Box) -> Box:
    """With the letters on both sides that Tesseract missed, as where they cross to bright ground."""
    rows, columns = box
    reach = max(4, round(_ASIDE * _height(box)))
    for _ in range(_TIMES):
        left = slice(max(0, columns.start - reach), columns.start)
        right = slice(columns.stop, min(picture_hw.shape[1], columns.stop + reach))
        more = [
            side
            for side in (left, right)
            if side.stop - side.start > 2 and _sharpness(picture_hw, (rows, side)) >= _BESIDE
        ]
        if not more:
            break
        columns = slice(min(side.start for side in (columns, *more)), max(side.stop for side in (columns, *more)))
    return rows, columns


def _joined(boxes: list[Box]) -> list[Box]:
    """Those side by side in one row become one, with what is between."""
    joined: list[Box] = []
    for rows, columns in sorted(boxes, key=lambda box: box[1].start):
        for number, (others, before) in enumerate(joined):
            least = min(rows.stop - rows.start, others.stop - others.start)
            overlap = min(rows.stop, others.stop) - max(rows.start, others.start)
            if overlap >= least / 2 and columns.start - before.stop <= _GAP * least:
                rows = slice(min(rows.start, others.start), max(rows.stop, others.stop))
                joined[number] = rows, slice(before.start, max(before.stop, columns.stop))
                break
        else:
            joined.append((rows, columns))
    return joined


def _height(box: Box) -> int:
    return box[0].stop - box[0].start


def _reduced(box: Box, factor: float, shape: tuple[int, ...]) -> Box:
    """Of a picture of ``factor`` times the size: no less than what the box covers."""
    rows, columns = (
        slice(int(along.start / factor), min(size, int(np.ceil(along.stop / factor))))
        for along, size in zip(box, shape, strict=True)
    )
    return rows, columns


def _scaled(picture_hw: Picture, factor: float) -> Picture:
    rows, columns = (max(1, round(side * factor)) for side in picture_hw.shape)
    return picture_hw if factor == 1 else resized(picture_hw, rows, columns)
