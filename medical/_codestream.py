"""How large a compressed picture says that it is itself, whatever the tags around it say: decoders believe it."""

import io
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# JPEG (ITU-T T.81) and JPEG-LS (T.87): frame headers, and markers without a length.
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}
_BARE = {0x01, *range(0xD0, 0xD9)}
# JPEG 2000 (T.800): start of a code stream and its size, in a file of its own behind a few boxes.
_J2K, _JP2 = b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  "
_BOXES = 4096


def beginning(file: "Dataset") -> bytes:
    """The first fragment of compressed pixels; empty where they are damaged, which the decoder tells better."""
    from pydicom.encaps import generate_fragments, parse_basic_offsets

    try:
        stream = io.BytesIO(file.PixelData)
        parse_basic_offsets(stream)
        return next(generate_fragments(stream), b"")
    except Exception:  # as the libraries raise them
        return b""


def samples(content: bytes) -> int:
    """Rows x columns x components; 0 where this is neither JPEG, JPEG-LS nor JPEG 2000, or is damaged."""
    try:
        if content.startswith(_J2K):
            return _of_j2k(content, 0)
        if content.startswith(_JP2):
            return _of_j2k(content, content.index(_J2K, 0, _BOXES))
        return _of_jpeg(content) if content.startswith(b"\xff\xd8") else 0
    except (ValueError, IndexError, struct.error):
        return 0


def _of_j2k(content: bytes, start: int) -> int:
    right, bottom, left, top = struct.unpack_from(">4I", content, start + 8)
    (components,) = struct.unpack_from(">H", content, start + 40)
    return max(0, bottom - top) * max(0, right - left) * int(components)


def _of_jpeg(content: bytes) -> int:
    at = 2
    while content[at] == 0xFF:
        marker = content[at + 1]
        if marker in _FRAMES:
            rows, columns, components = struct.unpack_from(">HHB", content, at + 5)
            return int(rows) * int(columns) * int(components)
        # 0xFF may be repeated before a marker.
        at += 1 if marker == 0xFF else 2 if marker in _BARE else 2 + struct.unpack_from(">H", content, at + 2)[0]
    return 0
