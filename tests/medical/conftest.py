"""Small radiographs for the medical tests."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from unlabeled.medical import ImageSet, attach, intake, read_images, read_labels, simulate


@pytest.fixture
def make_dicom() -> Callable[..., FileDataset]:
    """Builds a chest radiograph from stored values; any tag can be given, ``None`` leaves one out."""

    def make(stored: np.ndarray, **tags: object) -> FileDataset:
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        defaults = {
            "SOPClassUID": meta.MediaStorageSOPClassUID,
            "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
            "Modality": "CR",
            "BodyPartExamined": "CHEST",
            "ViewPosition": "PA",
            "PatientID": "HOSPITAL-0815",
            "PatientName": "Mustermann^Erika",
            "PhotometricInterpretation": "MONOCHROME2",
            "SamplesPerPixel": 1,
            "PixelRepresentation": 0,
            "BitsAllocated": 16,
            "BitsStored": 12,
            "HighBit": 11,
        }
        for name, value in {**defaults, **tags}.items():
            if value is not None:
                setattr(file, name, value)
        file.Rows, file.Columns = stored.shape[-2:]
        file.PixelData = stored.astype("<u2").tobytes()
        return file

    return make


@pytest.fixture
def save() -> Callable[[FileDataset, Path], Path]:
    def write(file: FileDataset, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        file.save_as(path, enforce_file_format=True)
        return path

    return write


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> simulate.Simulated:
    """Sixty phantom patients on disk."""
    return simulate.write_archive(tmp_path_factory.mktemp("archive"), patients=60, seed=1)


@pytest.fixture(scope="session")
def phantoms(archive: simulate.Simulated) -> ImageSet:
    """The same, read back at 32 pixels with their labels."""
    return attach(read_images(archive.images, size=32), read_labels(archive.labels))


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    (tmp_path / "hospital").mkdir()
    return tmp_path / "hospital"


@pytest.fixture
def take(hospital: Path, tmp_path: Path) -> Callable[..., intake.Intake]:
    def run(**given: object) -> intake.Intake:
        places = {"store": tmp_path / "store", "key": tmp_path / "site.key", "ledger": tmp_path / "ledger.csv"}
        return intake.take_in(hospital, **{"size": 48, "workers": 1, **places, **given})  # type: ignore[arg-type]

    return run
