"""Rows in, rows out: the same numbers as from files, and a plain word for every row that cannot be used."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unlabeled.core.errors import DataError
from unlabeled.medical import ImageSet, PneumoniaModel, read_images, simulate
from unlabeled.medical._decisions import decide
from unlabeled.medical.serving import ANSWERED, Service

SIZE = 32


@pytest.fixture(scope="module")
def service(phantoms: ImageSet) -> Service:
    assert phantoms.labels is not None
    model = PneumoniaModel(image_size=SIZE, dim=16, depth=1, heads=2, finetune_steps=5, folds=2)
    return Service(model.finetune(phantoms, phantoms.labels, groups=phantoms.patients))


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def png(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=kind)
    return stream.getvalue()


def rows(*cells: Any) -> pd.DataFrame:
    return pd.DataFrame({"image": list(cells)})


def test_files_and_arrays_get_what_the_model_says(
    service: Service, archive: simulate.Simulated, phantoms: ImageSet
) -> None:
    files = [text((archive.images / name).read_bytes()) for name in phantoms.ids[:3]]
    arrays = [image.tolist() for image in phantoms.images[:3]]
    expected = service.model.score(phantoms.images[:3])
    for given_ in (files, arrays):
        answer = service.answer(rows(*given_))
        assert list(answer.columns) == list(ANSWERED)
        pd.testing.assert_frame_equal(answer, decide(service.model, phantoms.take(range(3))).table[list(ANSWERED)])
        np.testing.assert_allclose(answer.probability, expected, atol=1e-6)
        called = ["pneumonia" if p >= t else "no pneumonia" for p, t in zip(expected, answer.threshold, strict=True)]
        assert list(answer.call) == called
    mixed = service.answer(rows(files[0], arrays[1], phantoms.images[2]))
    np.testing.assert_allclose(mixed.probability, expected, atol=1e-6)


def test_png_and_jpeg_are_read_as_from_a_folder(service: Service, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 60), dtype=np.uint8)
    for kind in ("PNG", "JPEG"):
        content = png(pixels, kind)
        (tmp_path / "film").write_bytes(content)
        expected = service.model.score(read_images(tmp_path / "film", size=SIZE))
        np.testing.assert_allclose(service.answer(rows(text(content))).probability, expected, atol=1e-6)


def test_the_example_is_what_it_answers(service: Service) -> None:
    example = service.example()
    assert example.equals(service.example())
    assert 0 <= service.answer(example).probability[0] <= 1


GOOD = text(png(np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)))


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("not base64!", "image is not base64: expected a base64 string of a PNG, JPEG or DICOM file"),
        ("", "empty file: 0 bytes"),
        (text(b"hello"), "neither DICOM nor a picture"),
        (text(png(np.zeros((40, 40), dtype=np.uint8))), "constant image"),
        (text(png(np.eye(8, dtype=np.uint8) * 255)), "too small: 8 x 8"),
        (text(b"\0" * 128 + b"DICM"), "no pixels|damaged DICOM|not an image"),
        (np.zeros((SIZE, SIZE - 1)).tolist(), r"an array of shape \(32, 31\), expected \(32, 32\)"),
        ([[1, 2], [3]], "image is"),
        ((np.ones((SIZE, SIZE)) * 0.5).tolist(), "whole numbers from 0 to 255"),
        ((np.ones((SIZE, SIZE)) * 256).tolist(), "whole numbers from 0 to 255"),
        (np.full((SIZE, SIZE), np.nan).tolist(), "whole numbers from 0 to 255"),
        (None, "image is missing, expected a base64 string"),
        (7, "image is int, expected a base64 string"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(service: Service, cell: Any, said: str) -> None:
    with pytest.raises(DataError, match=rf"^row 1: .*({said})"):
        service.answer(rows(GOOD, cell))


@settings(max_examples=50, deadline=None)
@given(content=st.binary(max_size=300))
def test_no_bytes_bring_it_down(service: Service, content: bytes) -> None:
    with pytest.raises(DataError, match="row 0"):
        service.answer(rows(text(content)))


def test_columns_are_asked_for_by_name(service: Service) -> None:
    with pytest.raises(DataError, match="expected the column 'image', got picture, age"):
        service.answer(pd.DataFrame({"picture": [GOOD], "age": [3]}))
    with pytest.raises(DataError, match="no rows"):
        service.answer(rows())


def test_a_model_without_labels_serves_nobody() -> None:
    with pytest.raises(DataError, match="has not seen labels yet"):
        Service(PneumoniaModel(image_size=SIZE))
