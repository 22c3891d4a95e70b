"""From any one file to 8-bit squares: Pillow for pictures, our DICOM path for DICOM, MONAI for size and range."""

import io
import stat
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlabeled.medical import dicom
from unlabeled.medical.dicom import Refused
from unlabeled.medical.images import Framing

if TYPE_CHECKING:
    from PIL.Image import Image


class Picture(NamedTuple):
    """``pixels`` (S, S) 8-bit; ``patient`` a pseudonym where the file names one; what the file says of them
    (:mod:`~unlabeled.medical.attributes`), its own rows and columns, and a stand-in for its study."""

    pixels: NDArray[np.uint8]
    patient: str | None
    attributes: Mapping[str, str] = MappingProxyType({})
    size: tuple[int, int] = (0, 0)
    study: str = ""


class Frame(NamedTuple):
    """Rows and columns of the squares that pictures become, and how (:data:`~unlabeled.medical.images.Framing`)."""

    size: int
    framing: Framing = "stretched"

    def square(self, pixels: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
        """(H, W) from 0 to 1 -> (size, size) 8-bit.

        Raises:
            Refused: the picture has no contrast, or is too small.
        """
        return to_square(pixels, self.size) if self.framing == "stretched" else to_padded(pixels, self.size)


def load(path: Path, frame: Frame) -> Picture:
    """One file, whatever its name ends in.

    Raises:
        Refused: with the reason.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
            raise Refused("unreadable file: a pipe, a socket or a device")
        size = status.st_size
        if size > dicom.LARGEST:
            raise Refused(f"too large: {size} bytes")
        with path.open("rb") as stream:
            head = stream.read(132)
    except OSError as error:
        nowhere = path.is_symlink() and not path.exists()
        why = "a link that leads nowhere" if nowhere else error.strerror or type(error).__name__
        raise Refused(f"unreadable file: {why}") from None
    if not head:
        raise Refused("empty file: 0 bytes")
    if dicom.is_dicom(head):
        found = dicom.read(path)
        return of_pixels(found.pixels, frame, patient=found.patient, attributes=found.attributes, study=found.study)
    return of_pixels(from_pillow(path), frame)


def of_pixels(
    pixels: NDArray[np.floating[Any]],
    frame: Frame,
    *,
    patient: str | None = None,
    attributes: Mapping[str, str] = MappingProxyType({}),
    study: str = "",
) -> Picture:
    """(H, W) from 0 to 1 -> a square that remembers what it was.

    Raises:
        Refused: as :meth:`Frame.square`.
    """
    h, w = pixels.shape
    return Picture(frame.square(pixels), patient, attributes, (h, w), study)


def from_bytes(content: bytes, frame: Frame) -> Picture:
    """The same of a file's content.

    Raises:
        Refused: with the reason.
    """
    from unlabeled.medical.deidentify import quietly

    if not content:
        raise Refused("empty file: 0 bytes")
    if dicom.is_dicom(content[:132]):
        with quietly():
            found = dicom.read(io.BytesIO(content))
        return of_pixels(found.pixels, frame, patient=found.patient, attributes=found.attributes, study=found.study)
    return of_pixels(from_pillow(content), frame)


def from_pillow(source: Path | bytes) -> NDArray[np.float32]:
    """PNG, JPEG and what else Pillow knows -> (H, W) from 0 to 1. Deeper than 8 bits is scaled to its own range.

    Raises:
        Refused: not a picture, damaged, or with several frames.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise Refused(f"multi-frame: {image.format} with {getattr(image, 'n_frames', 1)} frames")
            return _grey(image)
    except Refused:
        raise
    except UnidentifiedImageError:
        raise Refused("not an image: neither DICOM nor a picture format that Pillow knows") from None
    except Exception as error:  # damaged pictures raise OSError, SyntaxError, ValueError, struct.error...
        raise Refused(f"damaged picture: {type(error).__name__}") from None


def _grey(image: "Image") -> NDArray[np.float32]:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values: NDArray[np.float32] = np.asarray(image, dtype=np.float32)
        low, high = values.min(), values.max()
        if not np.isfinite([low, high]).all():
            raise Refused("damaged picture: it holds values that are not finite")
        return np.asarray((values - low) / max(float(high - low), 1e-12), dtype=np.float32)
    return np.asarray(image.convert("L")).astype(np.float32) / np.float32(255)


def to_square(pixels: NDArray[np.floating[Any]], size: int) -> NDArray[np.uint8]:
    """(H, W) from 0 to 1 -> (size, size) 8-bit.

    Shrinks by area averaging and grows bilinearly. The picture is stretched to a square, so that neither borders
    nor crops tell its aspect ratio (a shortcut to the label in some collections); the stretch itself remains.

    Raises:
        Refused: the picture has no contrast or is smaller than a patch.
    """
    _check(pixels)
    h, w = pixels.shape
    square = _monai_square(size, grow=min(h, w) < size)(np.ascontiguousarray(pixels, dtype=np.float32)[None])
    return np.asarray(square, dtype=np.float32)[0].round().astype(np.uint8)


def to_padded(pixels: NDArray[np.floating[Any]], size: int) -> NDArray[np.uint8]:
    """(H, W) from 0 to 1 -> (size, size) 8-bit, as :mod:`unlabeled.medical.intake` makes the pictures of a store.

    Raises:
        Refused: as :func:`to_square`, before or after the borders are cut off.
    """
    from unlabeled.medical.deidentify import mask_burned_in
    from unlabeled.medical.intake import borders, resize

    _check(pixels)
    masked, _ = mask_burned_in(np.asarray(pixels, dtype=np.float32), annotated=None)
    inner = borders.cut_off(masked, borders.find(masked))
    _check(inner)
    return resize.to_padded_square(inner, size)


def on_film(map_rc: NDArray[np.floating[Any]], picture_hw: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """A map over the square of :func:`to_padded` as one over the film that it was made of, of 64 rows and columns;
    0 where the film was cut off."""
    from unlabeled.medical.deidentify import mask_burned_in
    from unlabeled.medical.intake import borders

    masked, _ = mask_burned_in(np.asarray(picture_hw, dtype=np.float32), annotated=None)
    cut = borders.find(masked)

    def places(side: int, before: int, after: int, longest: int, cells: int) -> NDArray[np.int64]:
        """Cell of the map under each of 64 places along a side; -1 where it was cut off."""
        at = (np.arange(64) + 0.5) * side / 64 - before
        inner = side - before - after
        cell = ((at + (longest - inner) / 2) * cells / longest).astype(np.int64)
        return np.where((at >= 0) & (at < inner), cell.clip(0, cells - 1), -1)

    height, width = masked.shape
    longest = max(height - cut.top - cut.bottom, width - cut.left - cut.right)
    row = places(height, cut.top, cut.bottom, longest, map_rc.shape[0])
    column = places(width, cut.left, cut.right, longest, map_rc.shape[1])
    return np.where((row[:, None] >= 0) & (column >= 0), map_rc[row[:, None], column], 0.0)


def _check(pixels: NDArray[np.floating[Any]]) -> None:
    h, w = pixels.shape
    if min(h, w) < 16:
        raise Refused(f"too small: {w} x {h} pixels, expected at least 16 x 16")
    if float(pixels.max()) - float(pixels.min()) < 1 / 255:
        raise Refused("constant image: every pixel has the same value")


@cache
def _monai_square(size: int, *, grow: bool) -> Any:
    """MONAI's transforms, imported late: they take seconds to load."""
    from monai.data import set_track_meta
    from monai.transforms import Compose, Resize, ScaleIntensityRange

    set_track_meta(False)
    return Compose(
        [
            Resize((size, size), mode="bilinear" if grow else "area"),
            ScaleIntensityRange(a_min=0.0, a_max=1.0, b_min=0.0, b_max=255.0, clip=True),
        ]
    )
