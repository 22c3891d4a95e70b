"""What may stay in a de-identified file, and what DICOM PS3.15 Annex E does with it.

Two locks, one behind the other. Nothing is copied that is not on the short lists below (default deny: private
attributes, unknown ones, nested sequences, overlays, curves, annotations and signatures are on none), and each value
on them is rebuilt from what it may say: a number in range, one of the standard's terms, a table that is monotonic, a
maker's name of a closed list, a keyed stand-in for a model's name.
Then the standard's table of actions, by tag, as kept by `dicom-anonymizer` (release 2026c), is run over the result
with our rules for the options that are chosen.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from unlabeled.medical import _luts
from unlabeled.medical._pseudonyms import Pseudonyms, text, value_of, years_of
from unlabeled.medical.attributes import band_start
from unlabeled.medical.dicom import CHEST, FRONTAL, LATERAL, RADIOGRAPHY, Refused

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

EDITION = "dicomfields_2026c"
Rule = Callable[["Dataset", tuple[int, int]], None]
_LARGEST = 1e6
PARTS = (
    *(*CHEST, "RIBCAGE", "RIB", "RIBS", "CHESTABDOMEN", "ABDOMEN", "STERNUM", "CLAVICLE", "SCAPULA", "SHOULDER"),
    *("CSPINE", "TSPINE", "LSPINE", "SPINE", "NECK", "SKULL", "HEAD", "PELVIS", "HIP", "ARM", "ELBOW", "WRIST", "HAND"),
    *("LEG", "KNEE", "ANKLE", "FOOT", "HEART", "WHOLEBODY"),
)
VIEWS = (*FRONTAL, *LATERAL, "RAO", "LAO", "RPO", "LPO", "RLO", "LLO")
_COMPRESSIONS = ("ISO_10918_1", "ISO_14495_1", "ISO_15444_1", "ISO_13818_2", "ISO_14496_10")


def one_of(*terms: str) -> Callable[[Any], str | None]:
    """The value, where it is one of these."""

    def clean(value: Any) -> str | None:
        said = str(value).strip().upper()
        return said if said in terms else None

    return clean


def _whole(low: int, high: int) -> Callable[[Any], int | None]:
    def clean(value: Any) -> int | None:
        number = int(value)
        return number if low <= number <= high and number == value else None

    return clean


def _decimals(most: int) -> Callable[[Any], list[str] | None]:
    """Up to ``most`` finite numbers, written anew: nothing but figures can be in them."""

    def clean(value: Any) -> list[str] | None:
        values = [float(part) for part in _several(value)]
        if not 1 <= len(values) <= most or not all(math.isfinite(v) and abs(v) < _LARGEST for v in values):
            return None
        return [f"{v:.9g}" for v in values]

    return clean


def _ratio(value: Any) -> list[int] | None:
    said = [int(part) for part in _several(value)]
    return said if len(said) == 2 and all(1 <= part <= 10_000 for part in said) else None


def _image_type(value: Any) -> list[str] | None:
    """Only the two terms that the standard fixes; what follows is the maker's or the site's."""
    said = [str(part).strip().upper() for part in _several(value)][:2]
    fixed = (("ORIGINAL", "DERIVED"), ("PRIMARY", "SECONDARY"))
    return said if len(said) == 2 and all(a in b for a, b in zip(said, fixed, strict=True)) else None


def _orientation(value: Any) -> list[str] | None:
    said = [str(part).strip().upper() for part in _several(value)]
    return said if len(said) == 2 and all(re.fullmatch("[LRAPHF]{1,3}", part) for part in said) else None


# Attributes without which a picture cannot be shown or judged, and what each may say.
TECHNICAL: dict[str, Callable[[Any], Any]] = {
    "ImageType": _image_type,
    "Modality": one_of(*RADIOGRAPHY, "PX", "XA", "RF", "OT"),
    "PresentationIntentType": one_of("FOR PRESENTATION", "FOR PROCESSING"),
    "ConversionType": one_of("DV", "DI", "DF", "WSD", "SD", "SI", "DRW", "SYN"),
    "BodyPartExamined": one_of(*PARTS),
    "ViewPosition": one_of(*VIEWS),
    # Some archives keep the view here.
    "PatientPosition": one_of(*VIEWS),
    "PatientOrientation": _orientation,
    "Laterality": one_of("L", "R"),
    "ImageLaterality": one_of("L", "R", "U", "B"),
    "SamplesPerPixel": _whole(1, 1),
    "PhotometricInterpretation": one_of("MONOCHROME1", "MONOCHROME2"),
    "Rows": _whole(1, 65535),
    "Columns": _whole(1, 65535),
    "PixelSpacing": _decimals(2),
    "ImagerPixelSpacing": _decimals(2),
    "PixelAspectRatio": _ratio,
    "BitsAllocated": _whole(1, 32),
    "BitsStored": _whole(1, 32),
    "HighBit": _whole(0, 31),
    "PixelRepresentation": _whole(0, 1),
    "WindowCenter": _decimals(8),
    "WindowWidth": _decimals(8),
    "RescaleIntercept": _decimals(1),
    "RescaleSlope": _decimals(1),
    "RescaleType": one_of("US", "HU", "OD", "LOG_E REL", "P-VALUES"),
    "VOILUTFunction": one_of("LINEAR", "LINEAR_EXACT", "SIGMOID"),
    "PresentationLUTShape": one_of("IDENTITY", "INVERSE"),
    "PixelIntensityRelationship": one_of("LIN", "LOG", "DISP"),
    "PixelIntensityRelationshipSign": _whole(-1, 1),
    "BurnedInAnnotation": one_of("YES", "NO"),
    "LossyImageCompression": one_of("00", "01"),
    "LossyImageCompressionRatio": _decimals(4),
    "LossyImageCompressionMethod": one_of(*_COMPRESSIONS),
    "PatientSex": one_of("M", "F", "O"),
}
TABLES = (_luts.MODALITY, _luts.VOI)
MAKER = ("Manufacturer", "ManufacturerModelName")
# What the first of them may say, in one spelling, and how else files write it, but for `_FIRM`. A maker who is none of
# these is OTHER: whatever else stands in the tag may be anybody's free text.
MAKERS: dict[str, tuple[str, ...]] = {
    "Acteon": ("Acteon Imaging", "Sopro", "Satelec"),
    "Agfa": ("Agfa Gevaert",),
    "Allengers": (),
    "Analogic": (),
    "Arcoma": (),
    "Canon": ("Canon Electron Tubes & Devices", "Canon Components"),
    "Carestream": (),
    "CMT": ("CMT Medical Technologies",),
    "Del": ("Del Imaging", "Del Global"),
    "Delft": ("Delft Imaging", "Delft Diagnostic Imaging", "Oldelft", "Oldelft Benelux"),
    "Dentsply Sirona": ("Sirona", "Sirona Dental"),
    "DMS": ("DMS Imaging", "DMS Apelem", "Apelem"),
    "DRGEM": ("DR GEM",),
    "EOS": ("EOS imaging", "Biospace", "Biospace med"),
    "Examion": (),
    "Fujifilm": ("Fuji", "Fuji film", "Fuji Photo Film", "Fujifilm SonoSite"),
    "GE": ("GEMS", "GE Hualun", "GE OEC", "GE Lunar", "GE Wipro", "General Electric"),
    "GMM": ("General Medical Merate",),
    "Hitachi": ("Hitachi Medico", "Hitachi Aloka"),
    "Hologic": ("Lorad",),
    "iCRco": (),
    "Idexx": ("Idexx Laboratories",),
    "Imaging Dynamics": ("IDC",),
    "iRay": (),
    "Italray": (),
    "JPI": (),
    "Kodak": ("Eastman Kodak",),
    "Konica Minolta": ("Konica", "Minolta", "KonicaMinolta"),
    "Listem": (),
    "Lodox": (),
    "Lumisys": (),
    "Marconi": (),
    "Mindray": ("Shenzhen Mindray", "Shenzhen Mindray Bio Medical Electronics"),
    "Neusoft": ("Philips and Neusoft",),
    "OR Technology": ("Oehm und Rehbein", "Oehm & Rehbein"),
    "Philips": ("Philips DMC", "Philips Medizin Systeme", "Philips Electronics"),
    "Picker": (),
    "Pixmed": ("PixelMed",),
    "Planmeca": (),
    "Rayence": (),
    "Samsung": ("Samsung Electronics", "Samsung Medison"),
    "Sectra": ("Sectra Imtec",),
    "Sedecal": (),
    "Shimadzu": (),
    "Siemens": ("Siemens FK", "Siemens Shanghai"),
    "Skanray": (),
    "Stephanix": (),
    "Swissray": (),
    "Thales": ("Thales Electron Devices",),
    "Toshiba": (),
    "Trixell": (),
    "United Imaging": ("UIH", "Shanghai United Imaging"),
    "Varian": ("Varex", "Varex Imaging", "Varian Imaging Products"),
    "Vatech": (),
    "Vieworks": (),
    "Villa Sistemi Medicali": (),
    "Viztek": (),
    "Wandong": ("Beijing Wandong",),
    "Ziehm": ("Ziehm Imaging",),
}
OTHER = "other maker"
# Words that do not tell one firm from another.
_FIRM = (
    *("medical", "systems", "system", "healthcare", "health", "healthineers", "international", "technologies", "mec"),
    *("corporation", "corp", "company", "co", "incorporated", "inc", "limited", "ltd", "llc", "plc"),
    *("gmbh", "ag", "kg", "sa", "sas", "spa", "srl", "bv", "nv"),
)
# Dates that keep a patient's time line, moved.
DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
IDENTIFIERS = (
    *("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
    *("PatientID", "PatientName", "AccessionNumber", *DATES),
)
# Asked for by the standard's modules even where there is nothing to say (type 2).
EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber"),
    *("ReferringPhysicianName", "StudyID", "SeriesNumber", "InstanceNumber"),
)
# What was done, in the codes of PS3.16 CID 7050.
METHODS = {
    "113100": "Basic Application Confidentiality Profile",
    "113101": "Clean Pixel Data Option",
    "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
    "113108": "Retain Patient Characteristics Option",
    "113109": "Retain Device Identity Option",
}
_NAMES = ("PatientName", "OtherPatientNames", "PatientMotherBirthName", "ReferringPhysicianName", "OperatorsName")
_NUMBERS = ("PatientID", "OtherPatientIDs", "AccessionNumber", "DeviceSerialNumber", "InstitutionName")
# A kind of device, not one device: six figures in a row are a serial number or a date.
_KIND = re.compile(r"(?!.*\d{6})[A-Za-z0-9][A-Za-z0-9 .,&/()+_-]{0,63}")


def technical(file: "Dataset", stand_in: Pseudonyms) -> "Dataset":
    """A new dataset of what is on the lists: technical values cleaned, identifiers as they are, for Annex E's rules.

    Args:
        stand_in: that a model's name gets its stand-in from.

    Raises:
        Refused: a look-up table that the picture needs is unusable.
    """
    from pydicom.dataset import Dataset

    kept = Dataset()
    for keyword, clean in TECHNICAL.items():
        value = _cleaned(value_of(file, keyword), clean)
        if value is not None:
            setattr(kept, keyword, value)
    for keyword, kind in zip(MAKER, device(file, stand_in), strict=True):
        if kind:
            setattr(kept, keyword, kind)
    years = years_of(file)
    if years is not None:
        # A band cannot be written in the type AS: its lower end stands for it.
        kept.PatientAge = f"{band_start(years):03d}Y"
    for keyword in IDENTIFIERS:
        value = text(file, keyword)
        if value:
            setattr(kept, keyword, value)
    for keyword in TABLES:
        curves = _curves(file, keyword)
        if curves:
            setattr(kept, keyword, curves)
    return kept


def device(file: "Dataset | Mapping[str, object]", stand_in: Pseudonyms) -> tuple[str, str]:
    """What may be kept of maker and model: a name of `MAKERS` or `OTHER`, and "M-" with eight hexadecimal digits, the
    same for one maker's models of one name; empty where the file does not say.

    Neither can hold free text. A model's name that has somebody's name, a number of theirs or a serial number in it
    gets no stand-in, which would be one person's or one device's.
    """
    said, model = text(file, MAKER[0]), " ".join(text(file, MAKER[1]).split()).casefold()
    maker = listed(said) or OTHER
    known = "" if not said else OTHER if _tells(file, maker.casefold()) else maker
    if not _KIND.fullmatch(model) or _tells(file, model):
        return known, ""
    digest = stand_in.digest("device model", f"{known}\0{model}")
    return known, f"M-{digest[:8].upper()}"


def listed(maker: str) -> str:
    """The name in `MAKERS` of a firm, however it is spelt; empty for any other."""
    return _spellings().get(_firm(maker), "")


@cache
def _spellings() -> dict[str, str]:
    return {_firm(name): canonical for canonical, others in MAKERS.items() for name in (canonical, *others)}


def _firm(name: str) -> str:
    """What is left of a firm's name, in small letters and without marks, so that its spellings are one."""
    words = re.findall(r"\w+", name.casefold().replace(".", "").replace("_", " "))
    return " ".join(word for word in words if word not in _FIRM)


def _tells(file: "Dataset | Mapping[str, object]", folded: str) -> bool:
    """Whether a text in small letters repeats a name or number of the file's that identifies somebody."""
    words = set(re.split(r"[^a-z0-9]+", folded))
    names = {part for name in _NAMES for part in re.split(r"[^\w]+", text(file, name).casefold()) if len(part) > 2}
    numbers = {text(file, number).casefold() for number in _NUMBERS}
    return bool(names & words) or any(len(number) > 3 and number in folded for number in numbers)


def apply_annex_e(kept: "Dataset", rules: dict[tuple[int, int], Rule]) -> None:
    """Runs the standard's table over ``kept`` in place; ``rules`` say what the chosen options do instead."""
    from dicomanonymizer.simpledicomanonymizer import anonymize_dataset, keep

    kept_by_option = {tag_of(keyword): keep for keyword in ("PatientSex", "PatientAge")}
    anonymize_dataset(kept, {**kept_by_option, **rules}, base_rules_gen=lambda: dict(annex_e()))


@cache
def annex_e() -> dict[tuple[int, ...], Rule]:
    """Table E.1-1 of PS3.15: tag (or tag and mask) to action."""
    from dicomanonymizer.simpledicomanonymizer import initialize_actions

    return dict(initialize_actions(EDITION))


@cache
def uid_tags() -> tuple[tuple[int, int], ...]:
    """Tags that Table E.1-1 marks U: UIDs to be replaced consistently."""
    from dicomanonymizer.simpledicomanonymizer import replace_UID

    return tuple((tag[0], tag[1]) for tag, action in annex_e().items() if action is replace_UID)


def tag_of(keyword: str) -> tuple[int, int]:
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(keyword)
    assert tag is not None
    return tag >> 16, tag & 0xFFFF


def declare(kept: "Dataset", *, dates: bool, masked: bool) -> None:
    """Writes what was done, in words and in the codes of PS3.16 CID 7050."""
    from pydicom.dataset import Dataset

    codes = ["113100"]
    if masked:
        codes.append("113101")
    if dates:
        codes.append("113107")
    if text(kept, "PatientSex") or text(kept, "PatientAge"):
        codes.append("113108")
    if any(text(kept, keyword) for keyword in MAKER):
        codes.append("113109")
    items = []
    for value in codes:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", METHODS[value]
        items.append(item)
    kept.PatientIdentityRemoved = "YES"
    kept.LongitudinalTemporalInformationModified = "MODIFIED" if dates else "REMOVED"
    kept.DeidentificationMethod = [
        "unlabeled: DICOM PS3.15 Annex E Basic Profile, default deny",
        "dates moved back per patient, times removed",
        "age to a band (its lower end), pooled from 80 on",
        "device: listed maker, keyed stand-in for the model",
    ]
    kept.DeidentificationMethodCodeSequence = items


def _cleaned(value: Any, clean: Callable[[Any], Any]) -> Any:
    if value is None or value == "":
        return None
    try:
        return clean(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _curves(file: "Dataset", keyword: str) -> list["Dataset"]:
    """Descriptor and data of look-up tables, nothing else; anything but rising and falling curves is refused."""
    from pydicom.dataset import Dataset

    try:
        tables = _luts.tables(file, keyword)
    except _luts.Unusable as unusable:
        raise Refused(f"unusable look-up table: {unusable}") from None
    curves = []
    for first, bits, entries in tables:
        steps = np.diff(entries)
        if not ((steps >= 0).all() or (steps <= 0).all()):
            raise Refused("unusable look-up table: its curve turns back")
        signed, count = first < 0, len(entries) % 65536
        curve = Dataset()
        # Of a descriptor in SS the count is unsigned still: the same bits, spelt as SS spells them.
        described = [count - 65536 if signed and count > 32767 else count, first, bits]
        curve.add_new(0x00283002, "SS" if signed else "US", described)
        curve.add_new(0x00283006, "OW", entries.astype("<u2").tobytes())
        curves.append(curve)
    return curves


def _several(value: Any) -> Sequence[Any]:
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes) else [value]
