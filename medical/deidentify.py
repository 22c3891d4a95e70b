"""De-identification of chest radiographs by DICOM PS3.15 Annex E.

The Basic Application Level Confidentiality Profile with these options: clean pixel data (where text was masked),
retain longitudinal information with modified dates (dates move back by a number of days of the patient's own, times
go), retain patient characteristics (sex, and age to a band), retain device identity (no more of it than the maker,
by a closed list, and a stand-in for the model's name). Free-text descriptors are removed, not cleaned. Pixels are
decoded and written uncompressed, so that nothing that a compressed stream or a byte after its end may carry goes along.

Maker and model are free text in many files. Of a maker who is not on the list, "other maker" is kept. A model's name is
never kept: its stand-in says which pictures share one. A name with six figures in a row, or with a name or number that
the file has elsewhere, gets none. Where somebody wrote of one room or one device there without either, its pictures
share a stand-in, from which nobody reads the room.

Pseudonyms, UIDs and shifts come from the patient's issuer and id (or the old UID) under a secret site key, and so do
the stand-ins of models: the same in every run, unlinkable without the key. What a name on a picture's middle, a
recognisable body or a rare disease may tell is beyond this module, as is any text that `mask_burned_in` does not take
for text; no characters are read here, but the places of what was read elsewhere are painted over too.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.medical import _burned_in, _confidentiality, _luts, _pseudonyms, attributes
from unlabeled.medical._ledger import Ledger, Link, site_key
from unlabeled.medical._pseudonyms import Pseudonyms, parse_date, shifted, text
from unlabeled.medical.dicom import CHEST, Refused, decode, to_picture

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Deidentifier", "Ledger", "Link", "StudyFacts", "mask_burned_in", "quietly", "site_key"]

_CHEST_WORDS = (*CHEST, "CXR")


@dataclass(frozen=True, kw_only=True)
class StudyFacts:
    """What research may keep of one picture; ``None`` where a file does not say.

    Attributes:
        patient: pseudonym.
        age_band: one of :data:`~unlabeled.medical.attributes.BANDS` at the examination, the last from 80 years on.
        sex: M, F or O.
        view: PA, AP or another of the standard's terms.
        device: modality, maker (or "other maker") and the model's stand-in, as far as known.
        study, series, instance: replaced UIDs.
        date: day of the study, moved back, as YYYY-MM-DD.
        body_part: the standard's term.
        site: a stand-in for the institution, the same for one name under one site key.
    """

    patient: str | None
    age_band: str | None
    sex: str | None
    view: str | None
    device: str | None
    study: str | None
    series: str | None
    instance: str | None
    date: str | None
    body_part: str | None
    site: str | None


class Deidentifier:
    """Turns identified files into ones that name nobody, consistently for one site key.

    It holds nothing but the key, so it may be handed to worker processes.

    Args:
        key: at least 16 secret bytes, see `site_key`.

    Raises:
        DataError: the key is shorter.
    """

    def __init__(self, key: bytes) -> None:
        self._stand_in = Pseudonyms(key)

    def __call__(self, file: "Dataset", *, also: NDArray[np.bool_] | None = None) -> "Dataset":
        """A new data set with file meta information and a preamble of zeros, ready to be written; ``file`` stays as
        it is.

        Args:
            file: the identified file.
            also: (rows, columns), where text was found by other means than `mask_burned_in`'s: painted over as well.

        Raises:
            Refused: pixels or a look-up table cannot be decoded, so nobody can tell what is in them; a picture is
                said to have text burned in and that was not found, or more is left than could be masked; there is
                no SOP Instance UID to make a new one of.
        """
        from pydicom.dataset import FileDataset

        with quietly():
            if not text(file, "SOPInstanceUID"):
                raise Refused("SOPInstanceUID is missing: the file cannot be told from others")
            kept = _confidentiality.technical(file, self._stand_in)
            _confidentiality.apply_annex_e(kept, self._rules(file))
            kept.file_meta = _file_meta(file, kept.SOPInstanceUID)
            kept.SOPClassUID = kept.file_meta.MediaStorageSOPClassUID
            masked = _copy_pixels(file, kept, also) if "PixelData" in file else False
            _confidentiality.declare(kept, dates=any(text(kept, day) for day in _confidentiality.DATES), masked=masked)
            for keyword in _confidentiality.EMPTY:
                if keyword not in kept:
                    setattr(kept, keyword, None)
            clean = FileDataset("", kept, preamble=b"\0" * 128, file_meta=kept.file_meta)
            clean.set_original_encoding(False, True)
        return clean

    def patient(self, file: "Dataset") -> str | None:
        """Pseudonym of issuer and patient id; ``None`` where the file names nobody."""
        with quietly():
            identity = _pseudonyms.identity(file)
        return None if identity is None else self._stand_in.patient(identity)

    def facts(self, file: "Dataset") -> StudyFacts:
        """What may be kept of an identified file, in the same pseudonyms as a call gives."""
        with quietly():
            said = {keyword: _term(file, keyword) for keyword in ("Modality", "PatientSex", "ViewPosition")}
            day = shifted(_study_day(file), self._days(file))
            device = [said["Modality"], *_confidentiality.device(file, self._stand_in)]
            return StudyFacts(
                patient=self.patient(file),
                age_band=attributes.age_band(_pseudonyms.years_of(file)) or None,
                sex=said["PatientSex"],
                view=said["ViewPosition"] or _term(file, "PatientPosition"),
                device=" ".join(part for part in device if part) or None,
                study=self._uid(file, "StudyInstanceUID"),
                series=self._uid(file, "SeriesInstanceUID"),
                instance=self._uid(file, "SOPInstanceUID"),
                date=None if day is None else day.isoformat(),
                body_part=_body_part(file),
                site=self._stand_in.institution(text(file, "InstitutionName")) or None,
            )

    def link(self, file: "Dataset") -> Link:
        """The ledger's row: identifies the patient, so it belongs into a `Ledger` and nowhere else."""
        with quietly():
            accession = text(file, "AccessionNumber")
            return Link(
                patient_id=text(file, "PatientID"),
                issuer=text(file, "IssuerOfPatientID"),
                study=text(file, "StudyInstanceUID"),
                series=text(file, "SeriesInstanceUID"),
                instance=text(file, "SOPInstanceUID"),
                accession=accession,
                days_back=self._days(file),
                pseudonym=self.patient(file) or "",
                new_study=self._uid(file, "StudyInstanceUID") or "",
                new_series=self._uid(file, "SeriesInstanceUID") or "",
                new_instance=self._uid(file, "SOPInstanceUID") or "",
                new_accession=self._stand_in.accession(accession) if accession else "",
            )

    def _uid(self, file: "Dataset", keyword: str) -> str | None:
        uid = text(file, keyword)
        return self._stand_in.uid(uid) if uid else None

    def _days(self, file: "Dataset") -> int:
        """By patient; a file that names nobody shares its shift with its study only."""
        alone = text(file, "StudyInstanceUID") or text(file, "SOPInstanceUID")
        return self._stand_in.days(_pseudonyms.identity(file) or f"study {alone}")

    def _rules(self, file: "Dataset") -> dict[tuple[int, int], _confidentiality.Rule]:
        """What the chosen options do in place of Table E.1-1's actions: consistent UIDs, pseudonyms, moved dates."""
        days, pseudonym = self._days(file), self.patient(file)

        def new_uid(kept: "Dataset", tag: tuple[int, int]) -> None:
            if tag in kept:
                kept[tag].value = self._stand_in.uid(str(kept[tag].value))

        def new_patient(kept: "Dataset", tag: tuple[int, int]) -> None:
            if tag in kept:
                kept[tag].value = pseudonym

        def new_accession(kept: "Dataset", tag: tuple[int, int]) -> None:
            if tag in kept:
                kept[tag].value = self._stand_in.accession(str(kept[tag].value))

        def new_date(kept: "Dataset", tag: tuple[int, int]) -> None:
            if tag in kept:
                day = shifted(parse_date(kept[tag].value), days)
                kept[tag].value = None if day is None else f"{day:%Y%m%d}"

        tag_of = _confidentiality.tag_of
        return {
            **dict.fromkeys(_confidentiality.uid_tags(), new_uid),
            **{tag_of(keyword): new_date for keyword in _confidentiality.DATES},
            tag_of("PatientID"): new_patient,
            tag_of("PatientName"): new_patient,
            tag_of("AccessionNumber"): new_accession,
        }


def mask_burned_in(
    pixels: NDArray[np.float32], *, annotated: str | None, also: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.float32], int]:
    """Paints text-like marks near the borders over with the grey around them.

    On 200 children's chest X-rays of 224 pixels, looked at one by one, 273 marks were painted: about 200 letters and
    figures, 40 electrodes, wires and edges, 33 pieces of bone (in 27 pictures). 5 of the 184 pictures with text kept
    it: tiny, rotated, or faint on bright ground. 0.65 % of the pixels changed, 4 % in the worst picture, none of them
    in the middle half of the sides.

    Args:
        pixels: (H, W) picture from 0 to 1; at its full size rather than reduced, because small text blurs away
            in reducing without becoming unreadable.
        annotated: the file's BurnedInAnnotation. "YES" also takes fainter and softer marks; then a result of 0
            regions means that text is there and was not found, and the picture has to be refused.
        also: (H, W), where text was found by other means, anywhere: painted over and counted with the rest.

    Returns:
        A copy, bit-identical outside of the marks, and the number of regions masked.
    """
    covered, regions = _covered(pixels, annotated, also)
    return _burned_in.paint(pixels, covered), regions


def _covered(
    pixels: NDArray[np.float32], annotated: str | None, also: NDArray[np.bool_] | None
) -> tuple[NDArray[np.bool_], int]:
    criteria = _burned_in.ANNOTATED if (annotated or "").strip().upper() == "YES" else _burned_in.ORDINARY
    covered, regions = _burned_in.find(pixels, criteria)
    return (covered, regions) if also is None else _burned_in.joined(covered, regions, also)


def _copy_pixels(file: "Dataset", kept: "Dataset", also: NDArray[np.bool_] | None) -> bool:
    """Decoded values without what no picture needs, text masked; whether any was."""
    if not text(kept, "PhotometricInterpretation"):
        raise Refused("not greyscale: only MONOCHROME1 and MONOCHROME2 are de-identified")
    stored = _stored_values(file, kept)
    said = text(kept, "BurnedInAnnotation")
    # By what was kept, so that a reason for refusal cannot quote the file.
    picture = to_picture(kept, stored)
    covered, regions = _covered(picture, said, also)
    if said == "YES":
        if not regions:
            raise Refused("burned-in text: BurnedInAnnotation is YES and no text was found near the borders to mask")
        if _burned_in.find(_burned_in.paint(picture, covered), _burned_in.EVERYWHERE)[1]:
            raise Refused("burned-in text: BurnedInAnnotation is YES and marks like text remain away from the borders")
        kept.BurnedInAnnotation = "NO"
    if regions:
        painted = _burned_in.paint(stored.astype(np.float64), covered)
        stored = np.where(covered, np.rint(painted), stored).astype(stored.dtype)
        if "ImageType" in kept:
            kept.ImageType = ["DERIVED", kept.ImageType[1]]
    padding = _luts.padding_range(file)
    if padding is not None:  # only now, so that no text of its grey was overlooked above
        kept.PixelPaddingValue, kept.PixelPaddingRangeLimit = padding
    if getattr(getattr(file, "file_meta", None), "TransferSyntaxUID", None) in _lossy():
        kept.LossyImageCompression = "01"
    kept.Rows, kept.Columns = stored.shape
    kept.BitsAllocated = 8 * stored.dtype.itemsize
    data = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    kept.add_new(0x7FE00010, "OB" if stored.dtype.itemsize == 1 else "OW", data + b"\0" * (len(data) % 2))
    return regions > 0


def _stored_values(file: "Dataset", kept: "Dataset") -> NDArray[np.integer]:
    """Decoded values; bits above BitsStored, where older files keep overlays, are cleared by the decoder.

    Raises:
        Refused: the pixels cannot be decoded, or are no whole numbers of BitsStored bits.
    """
    stored: NDArray[Any] = decode(file)
    if stored.dtype.kind not in "iu":
        raise Refused("not greyscale: only whole numbers are de-identified")
    signed = stored.dtype.kind == "i"
    bits = int(kept.get("BitsStored", 8 * stored.dtype.itemsize)) - signed
    if int(stored.max()) >= 1 << bits or int(stored.min()) < (-(1 << bits) if signed else 0):
        raise Refused("damaged pixels: values need more bits than BitsStored")
    return stored


def _file_meta(file: "Dataset", instance: str) -> "Dataset":
    """New file meta information: no titles, no private information, nothing of the writing system."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import (
        PYDICOM_IMPLEMENTATION_UID,
        ExplicitVRLittleEndian,
        SecondaryCaptureImageStorage,
        UID_dictionary,
    )

    kind = text(file, "SOPClassUID")
    known = kind in UID_dictionary and UID_dictionary[kind][1] == "SOP Class"
    meta = FileMetaDataset()
    # A class of a maker's own is in no table: the picture is a capture of it.
    meta.MediaStorageSOPClassUID = kind if known else SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    return meta


def _lossy() -> tuple[str, ...]:
    from pydicom.uid import HTJ2K, JPEG2000, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

    return (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000, HTJ2K)


def _term(file: "Dataset", keyword: str) -> str | None:
    value = text(file, keyword)
    return _confidentiality.TECHNICAL[keyword](value) if value else None


def _body_part(file: "Dataset") -> str | None:
    """As tagged; else CHEST where a description says so, of which nothing else is kept."""
    if text(file, "BodyPartExamined"):
        return _term(file, "BodyPartExamined")
    described = " ".join(text(file, name) for name in ("StudyDescription", "SeriesDescription", "ProtocolName"))
    return "CHEST" if any(word in described.upper() for word in _CHEST_WORDS) else None


def _study_day(file: "Dataset") -> date | None:
    days = (parse_date(text(file, keyword)) for keyword in _confidentiality.DATES)
    return next((day for day in days if day is not None), None)


@contextmanager
def quietly() -> Iterator[None]:
    """Without pydicom's warnings and log lines about broken values: they would print the values."""
    from pydicom import config

    before = config.logger.disabled
    config.logger.disabled = True
    try:
        with warnings.catch_warnings(), config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        config.logger.disabled = before
