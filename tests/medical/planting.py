"""Marks planted in every attribute that a DICOM file can have, and the search for what is left of them."""

import io
import re
import struct

from pydicom import Dataset, Sequence, config
from pydicom.datadict import DicomDictionary, RepeatersDictionary
from pydicom.dataset import FileDataset

# What the picture cannot do without; everything else in the standard's dictionary is planted.
NEEDED = {
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"),
    *("PhotometricInterpretation", "NumberOfFrames", "PixelData", "FloatPixelData", "DoubleFloatPixelData"),
    *("ModalityLUTSequence", "VOILUTSequence", "SOPClassUID", "SpecificCharacterSet", "NumberOfFrames"),
    *("PlanarConfiguration", "PixelDataProviderURL", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    # Sex and age are reduced, and tested so.
    *("PatientSex", "PatientAge", "BurnedInAnnotation"),
}
TOKEN = re.compile(rb"zq[0-9]{5}x")
BORN, SEEN = "19570314", "20190817"


class Planter:
    """Hands out values of every type, each with a mark of its own."""

    def __init__(self) -> None:
        self.count = 0

    def mark(self) -> str:
        self.count += 1
        return f"ZQ{self.count:05d}X"

    def value(self, vr: str) -> object:
        mark = self.mark()
        raw = mark.encode()
        if vr == "SQ":
            return Sequence([self.nested(3)])
        values: dict[str, object] = {
            "PN": f"Größe^{mark}",
            "UI": f"1.2.840.47110815.{self.count}",
            "DA": SEEN,
            "DT": f"{SEEN}112233.445566",
            "TM": "112233.445566",
            "AS": "067Y",
            "DS": f"{47110815 + self.count}",
            "IS": f"{47110815 + self.count}",
            "AT": 0x5A515A51,
            "FL": list(struct.unpack("<2f", raw)),
            "FD": struct.unpack("<d", raw)[0],
            "OF": raw,
            "OD": raw,
            "OL": raw,
            "OV": raw,
            "OB": raw,
            "OW": raw,
            "UN": raw,
            "UL": list(struct.unpack("<2L", raw)),
            "SL": list(struct.unpack("<2l", raw)),
            "US": list(struct.unpack("<4H", raw)),
            "SS": list(struct.unpack("<4h", raw)),
            "UV": struct.unpack("<Q", raw)[0],
            "SV": struct.unpack("<q", raw)[0],
        }
        return values.get(vr, mark)

    def nested(self, depth: int) -> Dataset:
        item = Dataset()
        item.PatientName, item.PatientComments, item.StudyDate = f"A^{self.mark()}", self.mark(), SEEN
        item.ReferencedSOPInstanceUID = f"1.2.840.47110815.{self.count}"
        item.add_new(0x00091001, "UN", self.mark().encode())
        if depth > 1:
            item.ReferencedStudySequence = [self.nested(depth - 1)]
            item.add_new(0x00090010, "LO", self.mark())
            item.add_new(0x00091002, "SQ", Sequence([self.nested(1)]))
        return item


def plant_everywhere(file: FileDataset) -> Planter:
    """A mark into each attribute of the standard's dictionary, into private blocks, overlays, curves and file meta."""
    plant = Planter()
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        if tag >> 16 in (0x0000, 0x0002, 0x0004) or keyword in NEEDED or tag >> 16 >= 0xFFFC or not keyword:
            continue
        if vr not in ("NONE", "", "OB or OW"):
            vr = vr.split(" or ")[0]
            file.add_new(tag, vr, plant.value(vr))
    for name, (vr, _, _, _, _) in RepeatersDictionary.items():
        if re.match("(50|60)xx", name) and vr not in ("NONE", ""):
            for group in (0, 2, 0x1E):
                tag = int(name.replace("xx", "00"), 16) + (group << 16)
                kind = vr.split(" or ")[-1]
                file.add_new(tag, kind, plant.value(kind))
    every = sorted({vr.split(" or ")[0] for vr, *_ in DicomDictionary.values()} - {"NONE", ""})
    for group in (0x0009, 0x0029, 0x5401):
        file.add_new((group, 0x0010), "LO", plant.mark())
        for number, vr in enumerate([*every, "UN"]):
            file.add_new((group, 0x1000 + number), vr, plant.value(vr))
    # Free text beside what may be kept of these two.
    file.Manufacturer, file.ManufacturerModelName = f"Siemens Dr {plant.mark()}", f"DX 7 Ward {plant.mark()}"
    file.PatientBirthDate = BORN
    file.SpecificCharacterSet = "ISO_IR 192"
    file.preamble = (plant.mark().encode() + b"II*\0").ljust(128, b"\0")
    for title in ("SourceApplicationEntityTitle", "SendingApplicationEntityTitle", "ReceivingApplicationEntityTitle"):
        setattr(file.file_meta, title, plant.mark())
    file.file_meta.ImplementationVersionName = plant.mark()
    file.file_meta.PrivateInformationCreatorUID = "1.2.840.47110815.9999"
    file.file_meta.PrivateInformation = plant.mark().encode()
    file.PixelData += plant.mark().encode()
    file.add_new(0xFFFCFFFC, "OB", plant.mark().encode())
    return plant


def written(file: Dataset) -> bytes:
    memory = io.BytesIO()
    with config.disable_value_validation():
        file.save_as(memory, enforce_file_format=True)
    return memory.getvalue()


def leftovers(content: bytes) -> set[bytes]:
    """Marks, planted UIDs, dates, times and numbers in any of the usual encodings, whatever the case."""
    found: set[bytes] = set()
    for text in (content, content.replace(b"\0", b""), content[1:].replace(b"\0", b"")):
        lowered = text.lower()
        found |= set(TOKEN.findall(lowered))
        for known in (b"47110815", b"4711083", BORN.encode(), SEEN.encode(), b"112233", b"067y", "größe".encode()):
            found |= {known} if known in lowered else set()
        found |= {b"gr\xf6\xdfe"} if b"gr\xf6\xdfe" in lowered else set()
    return found
