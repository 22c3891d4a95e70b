"""Whatever holds the pictures, the same pictures come out, and what cannot be used is listed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydicom.dataset import FileDataset

from unlabeled.core.errors import DataError
from unlabeled.medical import ImageSet, read_images
from unlabeled.medical.images import Skip, skip_summary

PICTURE = np.add.outer(np.arange(48), np.arange(48)).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    import io

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def test_shrinking_averages_areas(tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    read = read_images(tmp_path, size=24)
    expected = PICTURE.reshape(24, 2, 24, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(read.images[0], expected, atol=0.51)


def test_one_picture_reads_the_same_from_png_npz_and_parquet(tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    np.savez(tmp_path / "a.npz", images=PICTURE[None])
    pd.DataFrame({"image_id": ["a"], "png": [png(PICTURE)]}).to_parquet(tmp_path / "a.parquet")
    sources = [read_images(tmp_path / name, size=16).images for name in ("a.png", "a.npz", "a.parquet")]
    np.testing.assert_array_equal(sources[0], sources[1])
    np.testing.assert_array_equal(sources[0], sources[2])


def test_a_folder_is_walked_to_its_depths_and_endings_do_not_matter(
    tmp_path: Path, make_dicom: Callable[..., FileDataset], save: Callable[[FileDataset, Path], Path]
) -> None:
    save(make_dicom(PICTURE.astype(int) * 10), tmp_path / "x" / "y" / "IM0001")
    Image.fromarray(PICTURE).save(tmp_path / "x" / "b.jpeg")
    (tmp_path / "report.dcm").write_text("no picture\n")
    (tmp_path / "empty.png").touch()
    noise = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    (tmp_path / "cut.png").write_bytes(png(noise)[:1000])
    Image.new("L", (64, 64), 7).save(tmp_path / "grey.png")
    read = read_images(tmp_path, size=16)
    assert list(read.ids) == ["x/b.jpeg", "x/y/IM0001"]
    reasons = {skip.source: skip.reason.partition(":")[0] for skip in read.skipped}
    assert reasons == {
        "report.dcm": "not an image",
        "empty.png": "empty file",
        "cut.png": "damaged picture",
        "grey.png": "constant image",
    }
    assert read.notes[0].startswith("1 pictures name no patient")


def test_a_16_bit_png_keeps_its_grey_levels(tmp_path: Path) -> None:
    Image.fromarray(PICTURE.astype(np.uint16) + 1000).save(tmp_path / "deep.png")
    read = read_images(tmp_path, size=48)
    assert read.images.min() == 0
    assert read.images.max() == 255


def test_a_parquet_table_brings_patients_labels_splits_and_order(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "image_id": ["a", "b", "c"],
            "patient_id": ["p", "p", "q"],
            "label": [1, 0, None],
            "group": ["train", "train", "test"],
            "label_order": [1, 0, -1],
            "jpeg": [png(PICTURE), png(PICTURE.T.copy()), b"junk"],
        }
    )
    table.to_parquet(tmp_path / "t.parquet")
    read = read_images(tmp_path / "t.parquet", size=16, split_column="group")
    assert read.skipped == (Skip("c", "not an image: neither DICOM nor a picture format that Pillow knows"),)
    assert read.labels is not None
    assert read.labels.tolist() == [1, 0]
    assert list(read.patients) == ["p", "p"]
    assert read.order is not None
    assert read.order.tolist() == [1, 0]
    assert len(read.part("train")) == 2
    with pytest.raises(DataError, match=r"no picture is in split 'test'; there are train"):
        read.part("test")
    with pytest.raises(DataError, match="no column 'fold'"):
        read_images(tmp_path / "t.parquet", split_column="fold")


def test_medmnist_keys_become_splits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = {"train": 3, "val": 2, "test": 1}
    arrays = {f"{part}_images": rng.integers(0, 255, (n, 28, 28), dtype=np.uint8) for part, n in parts.items()}
    arrays |= {f"{part}_labels": np.ones((n, 1), dtype=np.uint8) for part, n in parts.items()}
    np.savez(tmp_path / "m.npz", **arrays)
    read = read_images(tmp_path / "m.npz", size=32)
    assert read.images.shape == (6, 32, 32)
    assert list(read.part("val").ids) == ["val 0", "val 1"]


def test_an_archive_that_cannot_be_used_says_why_and_one_bad_picture_costs_itself_alone(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).random((6, 16, 16), dtype="float32")
    np.savez(tmp_path / "whole.npz", images=pictures)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:3000])
    np.savez(tmp_path / "none.npz", images=pictures[:0])
    with pytest.raises(DataError, match="no npz archive of plain arrays"):
        read_images(tmp_path / "cut.npz", size=16)
    with pytest.raises(DataError, match="holds no picture"):
        read_images(tmp_path / "none.npz", size=16)
    for value in (np.nan, np.inf):
        pictures[3, 0, 0] = value
        np.savez(tmp_path / "bad.npz", images=pictures)
        found = read_images(tmp_path / "bad.npz", size=16)
        assert len(found) == 5
        assert [(skip.source, skip.reason) for skip in found.skipped] == [
            ("image 3", "damaged picture: it holds values that are not finite")
        ]
    np.savez(tmp_path / "large.npz", images=np.full((2, 16, 16), 300.0))
    with pytest.raises(DataError, match="must be 8-bit, or floats from 0 to 1"):
        read_images(tmp_path / "large.npz", size=16)


def test_nothing_usable_is_one_plain_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_images(tmp_path / "missing")
    with pytest.raises(DataError, match="is empty"):
        read_images(tmp_path)
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(DataError, match=r"holds no usable picture: 1 x not an image"):
        read_images(tmp_path)
    (tmp_path / "b.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match="no npz archive of plain arrays"):
        read_images(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", images=np.zeros((2, 20, 20), dtype=np.int32))
    with pytest.raises(DataError, match="8-bit, or floats from 0 to 1; got int32"):
        read_images(tmp_path / "c.npz")
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "d.parquet")
    with pytest.raises(DataError, match="no column of encoded pictures"):
        read_images(tmp_path / "d.parquet")


def test_identical_pictures_of_nobody_count_as_one_person(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.stack([PICTURE, PICTURE, PICTURE.T[::-1]]))
    read = read_images(tmp_path / "a.npz", size=16)
    assert read.patients[0] == read.patients[1] != read.patients[2]


def test_the_fingerprint_follows_pixels_and_ids_but_not_patients(phantoms: ImageSet) -> None:
    from dataclasses import replace

    other = replace(phantoms, patients=np.array(["x"] * len(phantoms)))
    assert other.fingerprint() == phantoms.fingerprint()
    assert phantoms.take(range(10)).fingerprint() != phantoms.fingerprint()


def test_the_summary_counts_reasons_by_their_kind() -> None:
    skips = [Skip("a", "lateral view: LL"), Skip("b", "lateral view: RL"), Skip("c", "empty file: 0 bytes")]
    assert skip_summary(skips) == [
        ("lateral view", 2, "a (lateral view: LL)"),
        ("empty file", 1, "c (empty file: 0 bytes)"),
    ]


def test_a_file_of_gigabytes_is_refused_unread_and_the_rest_goes_on(tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    with (tmp_path / "huge.dcm").open("wb") as stream:  # sparse: takes no room
        stream.write(b"\0" * 128 + b"DICM")
        stream.truncate((2 << 30) + 1)
    found = read_images(tmp_path, size=24)
    assert list(found.ids) == ["a.png"]
    assert found.skipped == (Skip("huge.dcm", "too large: 2147483649 bytes"),)


def test_a_study_under_two_patients_is_left_out_without_an_intake_too(
    make_dicom: Callable[..., FileDataset], save: Callable[[FileDataset, Path], Path], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    who = {"a": ("1", "1.2.3"), "b": ("2", "1.2.3"), "c": ("2", "1.2.4"), "d": (None, "1.2.4"), "e": (None, None)}
    for name, (patient, study) in who.items():
        film = make_dicom(rng.integers(0, 4096, (40, 40)), PatientID=patient, StudyInstanceUID=study)
        save(film, tmp_path / f"{name}.dcm")
    found = read_images(tmp_path, size=16)
    assert list(found.ids) == ["c.dcm", "d.dcm", "e.dcm"]
    assert [skip.source for skip in found.skipped] == ["a.dcm", "b.dcm"]
    assert {skip.reason for skip in found.skipped} == {"two patients in a study: one of the ids is wrong"}
    assert found.studies is not None
    one, same, none = found.studies
    assert one == same != none == ""
    assert "1.2.4" not in one
