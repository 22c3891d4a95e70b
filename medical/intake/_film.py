"""One file to one finding: what a worker process does, and all that it hands on.

Nothing that a file says leaves this module but pseudonyms, the standard's own terms and numbers; the one exception is
the ledger's link, which the parent hands to the ledger and to nothing else.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlabeled.medical import _burned_in, _confidentiality, _luts, dicom
from unlabeled.medical._ledger import Link
from unlabeled.medical._pseudonyms import Pseudonyms, text
from unlabeled.medical.deidentify import Deidentifier, mask_burned_in, quietly
from unlabeled.medical.intake import borders, checks, duplicates, resize
from unlabeled.medical.intake._ocr import TextReader
from unlabeled.medical.intake.reasons import FLAGGED, KEPT, MODALITIES, REFUSED, NotKept

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Facts by which the gate tells whom only some files name with an issuer.
ALONE, FURTHER = "patient without issuer", "days further back"
# Values longer than this stay in the file until they are asked for: who is refused by the tags costs no reading.
_DEFER = 1 << 16
LEAST_SIDE = 16
# What :mod:`~unlabeled.medical.dicom` calls things, where the gate has another word.
_WORDS = {"constant image": "empty", "not a picture": "damaged pixels"}


class Found(NamedTuple):
    """Something that the walk came upon: its path below the folder, bytes and time of change in ns."""

    path: str
    size: int = 0
    changed: int = 0
    # A reason for refusal that the walk already knows.
    reason: str = ""


@dataclass
class Finding:
    """What became of one file; empty text where it does not say.

    Attributes:
        file: keyed digest of its path.
        state: kept, flagged or refused; other files may still speak against it.
        reason, detail: of a refusal.
        flags: of one that is kept.
        facts: pseudonymous patient, study, series, instance, and what else may be kept of it.
        rows, columns: of the picture as it is in the file.
        border: rows and columns that were cut off: top, bottom, left, right.
        regions: marks that were painted over.
        digest: of the decoded pixels.
        keys: digests under which a table of labels may name it, by what is meant.
    """

    file: str
    state: str = KEPT
    reason: str = ""
    detail: str = ""
    flags: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    columns: int = 0
    border: tuple[int, ...] = (0, 0, 0, 0)
    regions: int = 0
    digest: str = ""
    keys: dict[str, str] = field(default_factory=dict)


class Film(NamedTuple):
    """A finding; if it is not refused, with its picture (size, size) and small picture (32, 32), both 8-bit, and
    difference hash (4,); and the ledger's row of a radiograph."""

    finding: Finding
    picture: NDArray[np.uint8] | None = None
    small: NDArray[np.uint8] | None = None
    hash: NDArray[np.uint64] | None = None
    link: Link | None = None


class Reader:
    """Reads files of one folder. It holds no more than its settings and the key.

    Args:
        root: the folder.
        key: the site key.
        size: rows and columns of the pictures.
        dicom: folder for de-identified DICOM files, named by their file's digest, or ``None`` for none.
        ocr: whether text is also looked for away from the borders, by reading (the extra ``ocr``).

    Raises:
        DataError: ``ocr`` without what it needs.
    """

    def __init__(self, root: Path, key: bytes, *, size: int, dicom: Path | None = None, ocr: bool = False) -> None:
        self.root, self.size, self.dicom = root, size, dicom
        self.text_reader = TextReader() if ocr else None
        self.stand_in, self.deidentifier = Pseudonyms(key), Deidentifier(key)

    def __call__(self, found: Found) -> Film:
        """Never raises: whatever goes wrong is a reason."""
        finding = Finding(file_key(self.stand_in, found.path), keys=self._file_keys(found.path))
        try:
            with quietly():
                return self._read(found, finding)
        except NotKept as refused:
            return self._refused(finding, refused.reason, refused.detail)
        except Exception as error:  # its text may quote the file, its kind does not
            return self._refused(finding, "error", type(error).__name__)

    def _refused(self, finding: Finding, reason: str, detail: str = "") -> Film:
        finding.state, finding.reason, finding.detail = REFUSED, reason, detail
        return Film(finding)

    def _read(self, found: Found, finding: Finding) -> Film:
        if found.reason:
            raise NotKept(found.reason)
        path = self.root / found.path
        self._check_file(path)
        file = _tags(path)
        link = self._identify(file, finding)
        try:
            _check_tags(file)
            if link is None:
                raise NotKept("no instance UID")
            return self._picture(file, finding, link)
        except NotKept as refused:
            return self._refused(finding, refused.reason, refused.detail)._replace(link=link)

    def _file_keys(self, path: str) -> dict[str, str]:
        name = path.rpartition("/")[2]
        said = {"path": path, "name": name, "stem": name.rpartition(".")[0] or name}
        return {what: self.stand_in.digest("label file", value) for what, value in said.items()}

    def _check_file(self, path: Path) -> None:
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
                raise NotKept("unreadable", "no ordinary file")
            if not status.st_size:
                raise NotKept("empty file")
            if status.st_size > dicom.LARGEST:
                raise NotKept("too large", f"{status.st_size} bytes")
            with path.open("rb") as stream:
                head = stream.read(132)
        except OSError as error:
            raise NotKept("unreadable", type(error).__name__) from None
        if not dicom.is_dicom(head):
            raise NotKept("not DICOM")

    def _identify(self, file: "Dataset", finding: Finding) -> Link | None:
        """Notes what may be kept of a file, whatever becomes of it; ``None`` where it has no name of its own."""
        if not text(file, "SOPInstanceUID"):
            return None
        facts, link, digest = self.deidentifier.facts(file), self.deidentifier.link(file), self.stand_in.digest
        finding.facts = {name: value or "" for name, value in asdict(facts).items()}
        for purpose, value in (
            ("patient", link.patient_id), ("accession", link.accession), ("study", link.study),
            ("instance", link.instance),
        ):  # fmt: skip
            finding.keys[purpose] = digest(f"label {purpose}", value) if value else ""
        if link.patient_id:
            # What the patient would be called, and how much further dates would move back, without the issuer.
            finding.facts[ALONE] = self.stand_in.patient(link.patient_id)
            finding.facts[FURTHER] = str(self.stand_in.days(link.patient_id) - link.days_back)
        return link

    def _picture(self, file: "Dataset", finding: Finding, link: Link) -> Film:
        checks.depth(file)
        with _own_words():
            stored = dicom.decode(file)
            checks.raw_range(file)
            checks.stored_range(file, stored)
            finding.rows, finding.columns = stored.shape
            picture = dicom.to_picture(file, stored)
        values = np.ascontiguousarray(stored, dtype=stored.dtype.newbyteorder("<"))
        finding.digest = hashlib.sha256(values.data).hexdigest()[:32]
        read = None if self.text_reader is None else self.text_reader.cover(picture)
        picture = self._masked(picture, text(file, "BurnedInAnnotation"), read, finding)
        border = borders.find(picture)
        finding.border, picture = tuple(border), borders.cut_off(picture, border)
        padding = borders.cut_off(_luts.padding(file, stored).astype(np.float32), border)
        if min(picture.shape) < LEAST_SIDE:
            raise NotKept("too small", f"{picture.shape[0]} rows, {picture.shape[1]} columns")
        thumb, padding = (resize.resized(part, checks.SIDE, checks.SIDE) for part in (picture, padding))
        finding.flags = [*([] if finding.facts["patient"] else ["no patient"]), *checks.look(thumb, padding)]
        finding.state = FLAGGED if finding.flags else KEPT
        if self.dicom is not None:
            self._write_dicom(file, read, finding)
        small = resize.resized(thumb, duplicates.SIDE, duplicates.SIDE)
        return Film(
            finding,
            resize.to_padded_square(picture, self.size),
            np.rint(small * 255).astype(np.uint8),
            duplicates.difference_hash(thumb),
            link,
        )

    def _masked(
        self, picture: NDArray[np.float32], said: str, read: NDArray[np.bool_] | None, finding: Finding
    ) -> NDArray[np.float32]:
        picture, finding.regions = mask_burned_in(picture, annotated=said, also=read)
        if said.upper() == "YES":
            if not finding.regions:
                raise NotKept("burned-in text", "nothing found to mask")
            if _burned_in.find(picture, _burned_in.EVERYWHERE)[1]:
                raise NotKept("burned-in text", "marks remain away from the borders")
        return picture

    def _write_dicom(self, file: "Dataset", read: NDArray[np.bool_] | None, finding: Finding) -> None:
        assert self.dicom is not None
        with _own_words():
            clean = self.deidentifier(file, also=read)
        # A keyed name of the file: two with one instance UID must not overwrite each other before one is refused.
        new = self.dicom / f".{finding.file}.new"
        clean.save_as(new, enforce_file_format=True)
        os.replace(new, self.dicom / f"{finding.file}.dcm")


def file_key(stand_in: Pseudonyms, path: str) -> str:
    """What a file is called in the store: nobody tells its path from it without the site key."""
    return f"F-{stand_in.digest('file', path)}"


def _tags(path: Path) -> "Dataset":
    import pydicom

    try:
        file = pydicom.dcmread(path, force=True, defer_size=_DEFER)
        file.get("Rows")  # tags are read when they are asked for
    except Exception:  # pydicom raises most builtin errors on damaged files
        raise NotKept("damaged DICOM") from None
    return file


def _check_tags(file: "Dataset") -> None:
    try:
        dicom.check_tags(file)
    except dicom.Refused as refused:
        reason = str(refused).partition(":")[0]
        raise NotKept(_WORDS.get(reason, reason), _term(file, reason)) from None
    except Exception:
        raise NotKept("damaged DICOM") from None


def _term(file: "Dataset", reason: str) -> str:
    """What the file says instead, if that is a term of the standard's."""
    known = {
        "not a radiograph": ("Modality", MODALITIES),
        "not a chest": ("BodyPartExamined", _confidentiality.PARTS),
        "lateral view": ("ViewPosition", _confidentiality.VIEWS),
        "view unknown": ("ViewPosition", _confidentiality.VIEWS),
    }
    if reason not in known:
        return ""
    keyword, terms = known[reason]
    said = text(file, keyword).upper()
    return f"{keyword} {said}" if said in terms else ""


@contextmanager
def _own_words() -> Iterator[None]:
    """Our DICOM path's reasons in the gate's words, without what they quote of the file."""
    try:
        yield
    except dicom.Refused as refused:
        reason = str(refused).partition(":")[0]
        if reason == "unusable look-up table":
            reason = "unusable window or LUT"
        raise NotKept(_WORDS.get(reason, reason)) from None
