"""DICOM files as old archives keep them: without a preamble, some without file meta information either."""

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# What the first two bytes say of byte order and group, for the groups that a file may begin with.
_BEGINNINGS = {b"\x02\x00": "<", b"\x08\x00": "<", b"\x00\x08": ">"}
# Of a first value without a VR of its own; the longest that group 0008 begins with in practice is a UID.
_LONGEST = 1024


def is_dicom(head: bytes) -> bool:
    """Whether the first 132 bytes of a file (or all, of a shorter one) are those of DICOM, with a preamble or without.

    Without one, the first element has to be one of the standard's, of group 0002 or 0008, with its own VR and length:
    other formats may begin with the same two bytes.
    """
    if head[128:132] == b"DICM":
        return True
    order = _BEGINNINGS.get(head[:2])
    if order is None or len(head) < 8:
        return False
    group, element = struct.unpack(f"{order}HH", head[:4])
    vr = _vr(group, element)
    if not vr:
        return False
    if head[4:6] == vr.encode():
        return True
    # Only little endian leaves VRs out, and file meta information never does, but for a group length of some writers.
    length = struct.unpack("<I", head[4:8])[0]
    if order == ">" or (group == 2 and element):
        return False
    return bool(length == 4 if vr == "UL" else 0 < length <= _LONGEST)


def _vr(group: int, element: int) -> str:
    """Of the standard's dictionary; empty for what is not in it."""
    # Imported here, because few files come this far.
    from pydicom.datadict import dictionary_has_tag, dictionary_VR

    if not element:  # a group's length, which the dictionary has of group 0002 only
        return "UL"
    tag = group << 16 | element
    return str(dictionary_VR(tag)) if dictionary_has_tag(tag) else ""


def declare_syntax(file: "Dataset") -> None:
    """Writes into a file without a transfer syntax which one it was read in, because pixels are not decoded without.

    Pixels in fragments stay without one: they are compressed, and nothing says how.
    """
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    meta = getattr(file, "file_meta", None)
    implicit, little = getattr(file, "original_encoding", (None, None))
    if meta is None or "TransferSyntaxUID" in meta or implicit is None:
        return
    if "PixelData" in file and file["PixelData"].is_undefined_length:
        return
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
