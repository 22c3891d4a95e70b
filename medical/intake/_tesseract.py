"""Tesseract (Smith 2007) by way of pytesseract: where words stand on a page. What they say is not handed on."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.errors import DataError
from unlabeled.medical._burned_in import Box

# What makes a word: Tesseract's own confidence in it in per cent, low for names because they are in no dictionary, and
# how many letters and figures. Lone ones are what it takes ribs, clips and tubes for, and a marker of the side, which
# is one, names nobody. The second pair is for what hardly any anatomy is taken for.
_LIKELY, _CERTAIN = (30, 2), (60, 4)
_SECONDS = 120

_MISSING = (
    "text anywhere in films is found by Tesseract, which is not installed: pip install 'unlabeled[ocr]', and the "
    "program from the system's package (Debian and Ubuntu: apt-get install tesseract-ocr; macOS: brew install "
    "tesseract)"
)


class Word(NamedTuple):
    """Where a word stands, the line it belongs to, and whether Tesseract is sure enough that it is one, and quite."""

    box: Box
    line: tuple[int, ...]
    likely: bool
    certain: bool


def words(page_hw: NDArray[np.float32]) -> list[Word]:
    """Words of Latin letters and figures on a page (H, W) from 0 (ink) to 1, strewn in any order.

    Raises:
        DataError: pytesseract or tesseract is not installed, does not run, or takes longer than two minutes.
    """
    try:
        import pytesseract
    except ImportError:
        raise DataError(_MISSING) from None
    page = np.rint(page_hw * 255).astype(np.uint8)
    with _apart():
        try:
            # Page segmentation 11: as much text as possible, in no order.
            told: dict[str, list[Any]] = pytesseract.image_to_data(
                page, config="--psm 11", output_type=pytesseract.Output.DICT, timeout=_SECONDS
            )
        except pytesseract.TesseractNotFoundError:
            raise DataError(_MISSING) from None
        except (RuntimeError, SystemExit) as error:  # in whose text the program's own words are
            raise DataError(f"tesseract does not run as it should here ({type(error).__name__})") from None
    places = zip(*(told[name] for name in ("top", "left", "height", "width")), strict=True)
    lines = zip(*(told[name] for name in ("block_num", "par_num", "line_num")), strict=True)
    sure = zip(told["conf"], (sum(map(str.isalnum, said)) for said in told["text"]), strict=True)
    # Number 0 are the page, its blocks, paragraphs and lines.
    return [
        Word(_box(*place), line, _reaches(surety, _LIKELY), _reaches(surety, _CERTAIN))
        for number, place, line, surety in zip(told["word_num"], places, lines, sure, strict=True)
        if number
    ]


def _reaches(surety: tuple[float, int], least: tuple[int, int]) -> bool:
    return surety[0] >= least[0] and surety[1] >= least[1]


def _box(top: int, left: int, height: int, width: int) -> Box:
    return slice(top, top + height), slice(left, left + width)


@contextmanager
def _apart() -> Iterator[None]:
    """pytesseract and the program exchange files that everybody could read: in a folder of this user's alone, which
    goes with them. One thread, because there is a reading process for each core already."""
    folder_before, limit_before = tempfile.tempdir, os.environ.get("OMP_THREAD_LIMIT")
    with tempfile.TemporaryDirectory(prefix="unlabeled-") as folder:
        tempfile.tempdir, os.environ["OMP_THREAD_LIMIT"] = folder, "1"
        try:
            yield
        finally:
            tempfile.tempdir = folder_before
            if limit_before is None:
                del os.environ["OMP_THREAD_LIMIT"]
            else:
                os.environ["OMP_THREAD_LIMIT"] = limit_before
