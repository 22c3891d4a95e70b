"""The phantom goes out as DICOM and comes back through the DICOM path."""

import numpy as np
import pydicom

from unlabeled.medical import ImageSet, simulate
from unlabeled.medical._pictures import to_square
from unlabeled.medical.dicom import to_picture


def test_an_archive_reads_back_whole_with_its_patients_and_labels(
    archive: simulate.Simulated, phantoms: ImageSet
) -> None:
    assert len(phantoms) == archive.pictures
    assert len(set(phantoms.patients)) == 60 < archive.pictures
    assert phantoms.labels is not None
    assert set(phantoms.labels.tolist()) == {0, 1}
    assert {skip.source: skip.reason.partition(":")[0] for skip in phantoms.skipped} == {
        "flawed/lateral.dcm": "lateral view",
        "flawed/ct.dcm": "not a radiograph",
        "flawed/blank.dcm": "constant image",
        "flawed/truncated.dcm": "truncated",
        "flawed/notes.dcm": "not an image",
    }


def test_the_archive_has_the_variety_that_it_promises(archive: simulate.Simulated) -> None:
    files = [pydicom.dcmread(p) for p in archive.images.rglob("chest*")]
    assert {f.PhotometricInterpretation for f in files} == {"MONOCHROME1", "MONOCHROME2"}
    assert {"RescaleSlope" in f for f in files} == {True, False}
    assert {"WindowCenter" in f for f in files} == {True, False}
    assert {f.ViewPosition for f in files} == {"PA", "AP"}
    assert all(f.BitsStored == 12 and f.pixel_array.max() < 4096 for f in files)


def test_one_picture_looks_the_same_however_it_is_stored() -> None:
    rng = np.random.default_rng(0)
    picture = simulate.draw_radiograph(simulate.draw_anatomy(rng), pneumonia=True, rng=rng, size=160)
    stored = []
    for inverted in (False, True):
        for rescaled in (False, True):
            file = simulate.to_dicom(
                picture, patient="a", name="b", view="PA", inverted=inverted, rescaled=rescaled, windowed=False
            )
            stored.append(to_square(to_picture(file, file.pixel_array), 64).astype(int))
    for other in stored[1:]:
        assert np.abs(other - stored[0]).max() <= 1


def test_pneumonia_makes_lungs_whiter_on_average_and_seeds_repeat() -> None:
    def lungs(*, pneumonia: bool) -> float:
        values = []
        for seed in range(40):
            rng = np.random.default_rng(seed)
            picture = simulate.draw_radiograph(simulate.draw_anatomy(rng), pneumonia=pneumonia, rng=rng, size=160)
            values.append(picture[40:110, 20:140].mean())
        return float(np.mean(values))

    assert lungs(pneumonia=True) > lungs(pneumonia=False) + 0.005
    assert lungs(pneumonia=True) == lungs(pneumonia=True)
