"""The content of a structured report by TID 1500 (PS3.16), through highdicom."""

from datetime import datetime
from typing import TYPE_CHECKING

from unlabeled import __version__
from unlabeled.core import fingerprint
from unlabeled.medical._result import LIMITS, MAKER, PRODUCT, REPORT_SERIES, WARNING, Result
from unlabeled.medical.images import PNEUMONIA

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.sr.coding import Code


# Concepts that no standard scheme has; a designator that begins with 99 is private (PS3.16 8.2).
SCHEME, SCHEME_NAME = "99UNLABELED", "Concepts of the software unlabeled"
NO_ABSTENTION = "The model abstains from no radiograph: no rule for abstaining was set."


def build(
    source: "Dataset",
    result: Result,
    *,
    instance: str,
    series: str,
    device: str,
    tracking: str,
    number: int,
    when: datetime,
) -> "Dataset":
    """The document without the patient, who is put in by the caller as the source names them.

    Args:
        source: the radiograph; its UIDs, modality and size are referred to.
        result: what is reported.
        instance, series, device, tracking: UIDs of the document, its series, the observer and the finding.
        number: within the series.
        when: date and time of the content.
    """
    from highdicom.coding_schemes import CodingSchemeIdentificationItem
    from highdicom.sr import (
        ComprehensiveSR,
        DeviceObserverIdentifyingAttributes,
        MeasurementReport,
        ObservationContext,
        ObserverContext,
    )
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    observer = ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=device,
            name=PRODUCT,
            manufacturer_name=MAKER,
            model_name=f"unlabeled {__version__}",
            serial_number=result.model,
        ),
    )
    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer),
        procedure_reported=Code("399208008", "SCT", "Plain chest X-ray"),
        imaging_measurements=[_group(source, result, tracking=tracking)],
        title=codes.DCM.ImagingMeasurementReport,
    )
    # highdicom's own image library wants tags (orientation, spacing) that many archives do not have.
    content[0].ContentSequence.insert(len(content[0].ContentSequence) - 1, _image_library(source))
    return ComprehensiveSR(
        evidence=[_evidence(source)],
        content=content[0],
        series_instance_uid=series,
        series_number=REPORT_SERIES,
        sop_instance_uid=instance,
        instance_number=number,
        series_description=f"{WARNING}: {result.finding}",
        manufacturer=MAKER,
        manufacturer_model_name=PRODUCT,
        software_versions=[f"unlabeled {__version__}", f"model {result.model}"],
        is_complete=True,
        coding_schemes=[CodingSchemeIdentificationItem(designator=SCHEME, name=SCHEME_NAME)],
        content_date=when.date(),
        content_time=when.time().replace(microsecond=0),
    )


def code_of(finding: str) -> "Code":
    """The concept of a finding: SNOMED CT's where it is known here, else one of our own scheme."""
    from pydicom.sr.coding import Code

    meaning = finding.capitalize()[:64]
    if finding.lower() == PNEUMONIA:
        return Code("233604007", "SCT", meaning)
    # A code has at most 16 characters (SH).
    return Code("F" + fingerprint.of_names([finding.lower()])[:15].upper(), SCHEME, meaning)


def _group(source: "Dataset", result: Result, *, tracking: str) -> "Dataset":
    """TID 1501: what was measured on this one radiograph."""
    import highdicom.sr as sr
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    finding = code_of(result.finding)
    percent = f"{100 * result.sensitivity:g}"
    sensitive = Code(f"SENS{percent}", SCHEME, f"Threshold Value for {percent} % sensitivity")
    calls = {
        result.finding: codes.SCT.Present,
        f"no {result.finding}": codes.SCT.Absent,
        "no call": Code("373068000", "SCT", "Undetermined"),
    }
    numbers = (
        (codes.DCM.Probability, result.probability),
        (codes.DCM.ThresholdValue, result.threshold),
        (sensitive, result.sensitive_threshold),
    )
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=tracking, identifier=finding.meaning),
        # A reader who looks at the finding alone must not take a negative answer for a positive one.
        finding_type=finding if result.call == result.finding else None,
        finding_sites=[sr.FindingSite(anatomic_location=codes.SCT.Lung)],
        algorithm_id=sr.AlgorithmIdentification(
            name=PRODUCT,
            version=f"unlabeled {__version__}, model {result.model}",
            parameters=[
                f"called present at a probability of {result.threshold:.6f} or more",
                f"operating point for {percent} % sensitivity on held-out pictures: {result.sensitive_threshold:.6f}",
            ],
        ),
        measurements=[
            sr.Measurement(name=name, value=round(float(value), 6), unit=codes.UCUM.NoUnits) for name, value in numbers
        ],
        qualitative_evaluations=[sr.QualitativeEvaluation(name=finding, value=calls[result.call])],
        source_images=[sr.SourceImageForMeasurementGroup(source.SOPClassUID, source.SOPInstanceUID)],
    )
    said = (LIMITS, result.abstained or result.rule or NO_ABSTENTION, result.interval)
    for text in filter(None, said):
        group[0].ContentSequence.append(
            sr.TextContentItem(name=codes.DCM.Comment, value=text, relationship_type=sr.RelationshipTypeValues.CONTAINS)
        )
    return group


def _image_library(source: "Dataset") -> "Dataset":
    """TID 1600 with one entry, and of TID 1602 what the source says."""
    import highdicom.sr as sr
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    context, contains = sr.RelationshipTypeValues.HAS_ACQ_CONTEXT, sr.RelationshipTypeValues.CONTAINS
    modalities = {
        "CR": codes.DCM.ComputedRadiography,
        "DX": codes.DCM.DigitalRadiography,
        "RG": codes.DCM.RadiographicImaging,
    }
    image = sr.ImageContentItem(
        name=Code("260753009", "SCT", "Source"),
        referenced_sop_class_uid=source.SOPClassUID,
        referenced_sop_instance_uid=source.SOPInstanceUID,
        relationship_type=contains,
    )
    pixels = Code("{pixels}", "UCUM", "Pixels")
    image.ContentSequence = sr.ContentSequence(
        [
            sr.CodeContentItem(
                name=codes.DCM.Modality,
                value=modalities.get(str(source.get("Modality")), codes.DCM.Other),
                relationship_type=context,
            ),
            *(
                sr.NumContentItem(name=name, value=int(value), unit=pixels, relationship_type=context)
                for name, value in (
                    (codes.DCM.PixelDataRows, source.Rows),
                    (codes.DCM.PixelDataColumns, source.Columns),
                )
            ),
        ]
    )
    group = sr.ContainerContentItem(name=codes.DCM.ImageLibraryGroup, relationship_type=contains)
    group.ContentSequence = sr.ContentSequence([image])
    library = sr.ContainerContentItem(name=codes.DCM.ImageLibrary, relationship_type=contains)
    library.ContentSequence = sr.ContentSequence([group])
    return library


def _evidence(source: "Dataset") -> "Dataset":
    """What highdicom asks of a source, with the patient left blank: it refuses names and sexes that archives hold."""
    from pydicom.dataset import Dataset

    evidence = Dataset()
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
        setattr(evidence, name, source[name].value)
    for name in (
        "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
        "StudyTime", "ReferringPhysicianName",
    ):  # fmt: skip
        setattr(evidence, name, "")
    return evidence
