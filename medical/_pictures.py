"""From any one file to 8-bit squares: Pillow for pictures, our DICOM path for DICOM, MONAI for size and range."""

import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlabeled.medical import dicom
from unlabeled.medical.dicom import Refused

if TYPE_CHECKING:
    from PIL.Image import Image


class Picture(NamedTuple):
    """``pixels`` (S, S) 8-bit; ``patient`` a pseudonym where the file names one; what the file says of them
    (:mod:`~unlabeled.medical.attributes`), and its own rows and columns."""

    pixels: NDArray[np.uint8]
    patient: str | None
    attributes: Mapping[str, str] = MappingProxyType({})
    size: tuple[int, int] = (0, 0)


def load(path: Path, size: int) -> Picture:
    """One file, whatever its name ends in.

    Raises:
        Refused: with the reason.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(132)
    except OSError as error:
        raise Refused(f"unreadable file: {error.strerror or error}") from None
    if not head:
        raise Refused("empty file: 0 bytes")
    if dicom.is_dicom(head):
        found = dicom.read(path)
        return of_pixels(found.pixels, size, patient=found.patient, attributes=found.attributes)
    return of_pixels(from_pillow(path), size)


def of_pixels(
    pixels: NDArray[np.floating[Any]],
    size: int,
    *,
    patient: str | None = None,
    attributes: Mapping[str, str] = MappingProxyType({}),
) -> Picture:
    """(H, W) from 0 to 1 -> a square that remembers what it was.

    Raises:
        Refused: as :func:`to_square`.
    """
    h, w = pixels.shape
    return Picture(to_square(pixels, size), patient, attributes, (h, w))


def from_bytes(content: bytes, size: int) -> Picture:
    """The same of a file's content.

    Raises:
        Refused: with the reason.
    """
    if not content:
        raise Refused("empty file: 0 bytes")
    if dicom.is_dicom(content[:132]):
        found = dicom.read(io.BytesIO(content))
        return of_pixels(found.pixels, size, patient=found.patient, attributes=found.attributes)
    return of_pixels(from_pillow(content), size)


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
        raise Refused(f"damaged picture: {' '.join(str(error).split())[:110]}") from None


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
    h, w = pixels.shape
    if min(h, w) < 16:
        raise Refused(f"too small: {w} x {h} pixels, expected at least 16 x 16")
    if float(pixels.max()) - float(pixels.min()) < 1 / 255:
        raise Refused("constant image: every pixel has the same value")
    square = _monai_square(size, grow=min(h, w) < size)(np.ascontiguousarray(pixels, dtype=np.float32)[None])
    return np.asarray(square, dtype=np.float32)[0].round().astype(np.uint8)


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
