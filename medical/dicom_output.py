"""A result as DICOM objects of the study it belongs to: a Secondary Capture of the heat map, a structured report.

Both carry the patient's name and identifiers on purpose, because they go back to the archive that the radiograph came
from. Their UIDs follow from the model and the radiograph, so that the same model writes the same objects again.
"""

import copy
import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unlabeled import __version__
from unlabeled.core.errors import DataError
from unlabeled.medical import _measurement_report, _overlay
from unlabeled.medical._result import CAPTURE_SERIES, LIMITS, MAKER, PRODUCT, WARNING, Result

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Result", "check_source", "heat_map_capture", "measurement_report"]

_ALWAYS = (  # type 2 in the patient and study modules: empty where the source does not say
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName",
    "StudyID", "AccessionNumber",
)  # fmt: skip
_WHERE_GIVEN = (
    "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "OtherPatientIDsSequence",
    "PatientAge", "PatientSize", "PatientWeight", "IssuerOfAccessionNumberSequence", "StudyDescription",
    "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
)  # fmt: skip
# Degraded once, a picture stays so (PS3.3 C.7.6.1.1.5).
_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


def heat_map_capture(
    source: "Dataset",
    heat_map: NDArray[np.floating[Any]],
    picture: NDArray[np.floating[Any]],
    result: Result,
    *,
    when: datetime | None = None,
) -> "Dataset":
    """A Secondary Capture image (PS3.3 A.8.1; RGB, 8-bit) of the heat map over the radiograph.

    ``BurnedInAnnotation`` stays what the source says of itself: the burned-in text names nobody.

    Args:
        source: the radiograph.
        heat_map: (rows, columns) of patches, as :meth:`PneumoniaModel.explain` gives them for it.
        picture: (H, W) from 0 to 1, bone bright (:func:`unlabeled.medical.dicom.to_picture`).
        result: what is written below.
        when: date and time of the capture; default now.

    Raises:
        DataError: the source has no study, series or instance UID to refer to.
    """
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    check_source(source)
    now = when or datetime.now()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = SecondaryCaptureImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = _uid("capture", result.model, source.SOPInstanceUID)
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    _put_in_study(image, source)
    image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    image.StudyInstanceUID = source.StudyInstanceUID
    image.SeriesInstanceUID = _uid("captures", result.model, source.StudyInstanceUID)
    image.SeriesNumber, image.InstanceNumber, image.Modality = CAPTURE_SERIES, _number(source), "OT"
    image.SeriesDescription = f"{WARNING}: {result.finding} heat map"
    image.Manufacturer, image.ManufacturerModelName = MAKER, PRODUCT
    image.SoftwareVersions = [f"unlabeled {__version__}", f"model {result.model}"]
    image.ConversionType = "WSD"
    for name in ("ContentDate", "InstanceCreationDate", "DateOfSecondaryCapture"):
        setattr(image, name, f"{now:%Y%m%d}")
    for name in ("ContentTime", "InstanceCreationTime", "TimeOfSecondaryCapture"):
        setattr(image, name, f"{now:%H%M%S}")
    image.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    image.BodyPartExamined = "CHEST"  # not a paired part, so that no laterality is asked for
    image.PatientOrientation = source.get("PatientOrientation") or ""
    image.DerivationDescription = (
        f"Radiograph under its heat map: change of the log odds of {result.finding}, looked at once, without each "
        f"patch. {LIMITS}"
    )
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    image.SourceImageSequence = [reference]
    for name in ("BurnedInAnnotation", *_LOSSY):
        if name in source:
            image[name] = copy.deepcopy(source[name])
    _put_pixels(image, _overlay.draw(picture, heat_map, _lines(result), finding=result.finding))
    return image


def measurement_report(source: "Dataset", result: Result, *, when: datetime | None = None) -> "Dataset":
    """A Comprehensive SR document by template TID 1500 (PS3.16) with one measurement group.

    It holds the probability and both thresholds as numbers, the call as a code (present, absent or
    undetermined), a finding only where that is present, and who observed: this software, its version and the model's
    fingerprint. It is marked preliminary and unverified.

    Args:
        source: the radiograph.
        result: what is reported.
        when: date and time of the content; default now.

    Raises:
        DataError: the source has no study, series or instance UID to refer to.
    """
    check_source(source)
    document = _measurement_report.build(
        source,
        result,
        instance=_uid("report", result.model, source.SOPInstanceUID),
        series=_uid("reports", result.model, source.StudyInstanceUID),
        device=_uid("device", result.model),
        tracking=_uid("tracking", result.model, source.SOPInstanceUID),
        number=_number(source),
        when=when or datetime.now(),
    )
    _put_in_study(document, source)
    return document


def check_source(source: "Dataset") -> None:
    """Raises a DataError where nothing could be filed beside this radiograph, with the tag that is missing."""
    from pydicom.uid import UID

    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
        value = UID(str(source.get(name) or ""))
        if not value.is_valid:
            raise DataError(
                f"{name} is missing or no UID: a result cannot be filed in the study of a file that does not say "
                "which it is"
            )


def _put_in_study(target: "Dataset", source: "Dataset") -> None:
    """The patient and the study as the source names them; what need not be there is left out where it is malformed."""
    from pydicom.config import RAISE
    from pydicom.valuerep import validate_value

    for name in ("SpecificCharacterSet", *_ALWAYS):  # in what letters the rest is written comes with it
        if name in source:
            target[name] = copy.deepcopy(source[name])
        elif name in _ALWAYS:
            setattr(target, name, "")
    for name in _WHERE_GIVEN:
        if name not in source:
            continue
        element = source[name]
        try:
            for value in element.value if element.VM > 1 else [element.value]:
                validate_value(element.VR, value, RAISE)
        except ValueError:
            continue
        target[name] = copy.deepcopy(element)


def _put_pixels(image: "Dataset", pixels: NDArray[np.uint8]) -> None:
    image.Rows, image.Columns = pixels.shape[:2]
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
    content = pixels.tobytes()
    image.PixelData = content + b"\0" * (len(content) % 2)
    image["PixelData"].VR = "OB"


def _lines(result: Result) -> list[str]:
    sensitive = "at or above" if result.probability >= result.sensitive_threshold else "below"
    lines = [
        f"Probability of {result.finding} {result.probability:.3f}, threshold {result.threshold:.3f}: {result.call}",
        f"{sensitive.capitalize()} {result.sensitive_threshold:.3f}, the threshold for "
        f"{100 * result.sensitivity:g} % sensitivity",
    ]
    lines += filter(None, (result.interval, result.abstained))
    return [*lines, f"unlabeled {__version__}, model {result.model}"]


def _number(source: "Dataset") -> int:
    """The source's instance number, so that a series of several results keeps the order of their sources."""
    try:
        return max(1, int(source.get("InstanceNumber") or 1))
    except (TypeError, ValueError):
        return 1


def _uid(*parts: str) -> str:
    """The same parts, the same UID: a name-based UUID (RFC 9562, version 5) below 2.25 (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, chr(10).join(('unlabeled', __version__, *parts))).int}"
