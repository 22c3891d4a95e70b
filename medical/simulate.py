"""Synthetic chest radiographs, written as real DICOM files.

A phantom, not a likeness: a body outline, two lungs, ribs, heart, spine, clavicles and noise, drawn for each
patient from distributions of our own; pneumonia is one or several soft opacities in a lung, some of them subtle.
It exercises the whole path (tags, windows, inversion, patients with several pictures) and says nothing about
how a model fares on patients.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.core import progress
from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.seeds import derive

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

FULL_SCALE = 4095
# Anatomy is drawn on a grid of this side and enlarged: soft shapes need no more, and it is several times faster.
DRAWN = 112
Image = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """Where a simulated archive was written.

    Attributes:
        images: folder of DICOM files.
        labels: CSV with the columns ``file`` and ``label``.
        pictures: number of usable pictures.
    """

    images: Path
    labels: Path
    pictures: int


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """What stays the same from picture to picture of one patient; lengths in half picture widths."""

    width: float
    lung_width: float
    lung_height: float
    heart: float
    rib_pitch: float
    rib_slope: float
    rib_contrast: float
    thickness: float


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    return Anatomy(
        width=rng.uniform(0.95, 1.2),
        lung_width=rng.uniform(0.29, 0.37),
        lung_height=rng.uniform(0.56, 0.74),
        heart=rng.uniform(0.20, 0.36),
        rib_pitch=rng.uniform(0.14, 0.20),
        rib_slope=rng.uniform(0.15, 0.45),
        rib_contrast=rng.uniform(0.05, 0.13),
        thickness=rng.uniform(0.85, 1.15),
    )


def draw_radiograph(anatomy: Anatomy, *, pneumonia: bool, rng: np.random.Generator, size: int) -> Image:
    """One picture (size, size) of attenuation from 0 (air) to about 1 (bone over tissue)."""
    axis = np.linspace(-1, 1, DRAWN, dtype=np.float32)
    down, across = np.meshgrid(axis, axis, indexing="ij")
    tilt, zoom = rng.normal(0, 0.03), rng.uniform(0.92, 1.1)
    x = (across + tilt * down + rng.normal(0, 0.04)) * zoom
    y = (down - tilt * across + rng.normal(0, 0.04)) * zoom
    body = _soft(1 - (np.abs(x) / (anatomy.width * (0.82 + 0.14 * y))) ** 4, 0.15)
    picture = 0.52 * anatomy.thickness * body
    lungs = np.zeros_like(picture)
    for side in (-1, 1):
        centre = side * (anatomy.lung_width + rng.uniform(0.09, 0.13))
        # Narrower towards the apex, cut off by the diaphragm below.
        half = anatomy.lung_width * (0.78 + 0.32 * (y + 0.5))
        lung = _soft(1 - ((x - centre) / half) ** 2 - (np.abs(y + 0.02) / anatomy.lung_height) ** 2.4, 0.12)
        dome = 0.47 + 0.06 * side + 0.35 * (x - centre) ** 2 + rng.normal(0, 0.02)
        lungs += lung * _soft(dome - y, 0.03)
    picture -= 0.34 * lungs * rng.uniform(0.85, 1.1)
    heart = _soft(1 - ((x - 0.10) / anatomy.heart) ** 2 - ((y - 0.24) / (anatomy.heart * 1.15)) ** 2, 0.15)
    picture += 0.20 * heart
    picture += 0.16 * body * np.exp(-((x / 0.075) ** 2))
    curve = y + anatomy.rib_slope * np.abs(x) ** 1.5
    ribs = np.clip(np.sin(2 * np.pi * curve / anatomy.rib_pitch) - 0.35, 0, 1) * (np.abs(x) > 0.09)
    picture += anatomy.rib_contrast * ribs * body * (np.abs(y) < 0.85)
    for side in (-1, 1):
        line = np.abs(y + 0.62 + 0.22 * (side * x - 0.35))
        picture += 0.10 * np.exp(-((line / 0.035) ** 2)) * _soft(side * x - 0.05, 0.05) * body
    # Vessels fan out from the hila; a texture that hides subtle findings.
    picture += 0.02 * lungs * _cloud(rng, cells=int(rng.integers(10, 18)))
    picture += 0.025 * body * _cloud(rng, cells=6)
    if pneumonia:
        picture += _opacities(x, y, lungs, anatomy, rng)
    picture = _enlarge(picture, size)
    picture += rng.uniform(0.003, 0.01) * rng.standard_normal(picture.shape, dtype=np.float32)
    return np.clip(picture, 0, 1.2)


def _opacities(x: Image, y: Image, lungs: Image, anatomy: Anatomy, rng: np.random.Generator) -> Image:
    """One to three soft, patchy clouds inside the lungs."""
    total = np.zeros_like(x)
    for _ in range(int(rng.integers(1, 4))):
        side = rng.choice([-1, 1])
        centre = side * (anatomy.lung_width + 0.11) + rng.normal(0, 0.08), rng.uniform(-0.25, 0.38)
        radius = rng.uniform(0.14, 0.30)
        distance = ((x - centre[0]) / radius) ** 2 + ((y - centre[1]) / (radius * rng.uniform(0.7, 1.4))) ** 2
        patchy = 1 + 0.5 * _cloud(rng, cells=12)
        total += rng.uniform(0.12, 0.36) * np.exp(-distance) * patchy
    return total * lungs


def _soft(distance: Image, width: float) -> Image:
    """0 outside, 1 inside, smooth over ``width`` at the border."""
    return 1 / (1 + np.exp(-np.clip(distance / width * 4, -30, 30)))


def _cloud(rng: np.random.Generator, *, cells: int) -> Image:
    """Smooth noise of standard deviation near 1 and ``cells`` bumps a side."""
    return _enlarge(rng.standard_normal((cells, cells), dtype=np.float32), DRAWN)


def _enlarge(picture: Image, size: int) -> Image:
    from PIL import Image as Pillow

    drawn = Pillow.fromarray(np.asarray(picture, dtype=np.float32))
    return np.array(drawn.resize((size, size), Pillow.Resampling.BICUBIC))


def to_dicom(
    picture: Image,
    *,
    patient: str,
    name: str,
    view: str,
    inverted: bool,
    rescaled: bool,
    windowed: bool,
    modality: str = "DX",
) -> "FileDataset":
    """A 12-bit DICOM radiograph held in memory.

    Args:
        picture: attenuation, about 0 to 1.2.
        patient, name: what goes into PatientID and PatientName.
        view: ViewPosition.
        inverted: stored as MONOCHROME1 (air high).
        rescaled: stored values are offset and halved, RescaleSlope and RescaleIntercept undo it.
        windowed: with WindowCenter and WindowWidth in rescaled units.
    """
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[patient, view, repr(float(picture.sum()))])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.Modality, file.BodyPartExamined, file.ViewPosition = modality, "CHEST", view
    file.PatientID, file.PatientName = patient, name
    # One study a picture.
    file.StudyInstanceUID = generate_uid(entropy_srcs=["study", str(file.SOPInstanceUID)])
    file.SeriesInstanceUID = generate_uid(entropy_srcs=["series", str(file.SOPInstanceUID)])
    file.Manufacturer, file.SeriesDescription = "unlabeled simulator", "Synthetic phantom"
    file.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    values = np.clip(picture / 1.2 * FULL_SCALE, 0, FULL_SCALE)
    values = FULL_SCALE - values if inverted else values
    if windowed:
        low, high = np.percentile(values, [0.2, 99.8])
        file.WindowCenter, file.WindowWidth = round((low + high) / 2), max(2, round(high - low))
    if rescaled:
        file.RescaleSlope, file.RescaleIntercept = 2, -100
        values = (values + 100) / 2
    stored = values.round().astype("<u2")
    file.Rows, file.Columns = stored.shape
    file.SamplesPerPixel, file.PixelRepresentation = 1, 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 12, 11
    file.PixelData = stored.tobytes()
    return file


def write_archive(folder: str | Path, *, patients: int = 400, seed: int = 0, flawed: bool = True) -> Simulated:
    """An archive as a hospital would hand it over: a folder a patient, a CSV of labels, some unusable files.

    About a quarter of the patients have two pictures, half of the pictures show pneumonia, a third is stored as
    MONOCHROME1, half is rescaled, half carries a window, sizes run from 160 to 256 pixels.

    Args:
        folder: ``images/`` and ``labels.csv`` are written below it.
        patients: how many.
        seed: fixes everything but identifiers inside the files.
        flawed: adds a lateral view, a CT, a truncated file, a blank picture and a text file.
    """
    folder = Path(folder)
    rows: list[tuple[str, int]] = []
    for number in progress.track(range(patients), "simulating", patients):
        rng = np.random.default_rng(derive(seed, "patient", number))
        anatomy, sick = draw_anatomy(rng), bool(rng.random() < 0.5)
        for visit in range(1 + int(rng.random() < 0.25)):
            # Some recover between two pictures.
            label = sick and not (visit and rng.random() < 0.3)
            picture = draw_radiograph(anatomy, pneumonia=label, rng=rng, size=int(rng.integers(160, 257)))
            file = to_dicom(
                picture,
                patient=f"SIM-{seed}-{number:05d}",
                name=f"Phantom^Number{number}",
                view="PA" if rng.random() < 0.6 else "AP",
                inverted=bool(rng.random() < 1 / 3),
                rescaled=bool(rng.random() < 0.5),
                windowed=bool(rng.random() < 0.5),
                modality="DX" if rng.random() < 0.5 else "CR",
            )
            path = (
                folder / "images" / f"{number:05d}" / (f"chest{visit}.dcm" if rng.random() < 0.8 else f"chest{visit}")
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            file.save_as(path, enforce_file_format=True)
            rows.append((path.relative_to(folder / "images").as_posix(), int(label)))
    if flawed:
        _write_flawed(folder / "images" / "flawed", seed=seed)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("file", "label"), *rows])
    labels = write_atomically(folder / "labels.csv", text.getvalue())
    return Simulated(images=folder / "images", labels=labels, pictures=len(rows))


def _write_flawed(folder: Path, *, seed: int) -> None:
    """What should be refused, one file a reason."""
    rng = np.random.default_rng(derive(seed, "flawed"))
    picture = draw_radiograph(draw_anatomy(rng), pneumonia=False, rng=rng, size=160)
    folder.mkdir(parents=True, exist_ok=True)

    def file(content: Image, *, view: str = "PA", modality: str = "DX") -> "FileDataset":
        return to_dicom(
            content,
            patient="SIM-flawed",
            name="Phantom^Flawed",
            view=view,
            inverted=False,
            rescaled=False,
            windowed=False,
            modality=modality,
        )

    file(picture, view="LL").save_as(folder / "lateral.dcm", enforce_file_format=True)
    file(picture, modality="CT").save_as(folder / "ct.dcm", enforce_file_format=True)
    file(np.zeros_like(picture)).save_as(folder / "blank.dcm", enforce_file_format=True)
    file(picture).save_as(folder / "truncated.dcm", enforce_file_format=True)
    whole = (folder / "truncated.dcm").read_bytes()
    (folder / "truncated.dcm").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.dcm").write_text("Films sent by courier.\n", encoding="utf-8")
