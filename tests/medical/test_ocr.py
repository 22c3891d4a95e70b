"""Text in the middle of a film goes when the intake reads for it; nothing that was read is anywhere afterwards."""

import io
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import FileDataset

from unlabeled.core.errors import DataError
from unlabeled.medical import _burned_in, simulate
from unlabeled.medical.deidentify import mask_burned_in
from unlabeled.medical.intake import take_in
from unlabeled.medical.intake._film import Film, Found, Reader
from unlabeled.medical.intake._ocr import TextReader
from unlabeled.medical.intake._workers import read_all

KERMANY = Path(__file__).parents[3] / "shared/data/xray/kermany224/kermany_cxr_224.parquet"
KEY = b"k" * 32
NAME = "MUSTERMANN 1957"
# Where the name is planted: far from the band that is searched without reading.
AT = (0.45, 0.33)

reading = pytest.mark.skipif(
    find_spec("pytesseract") is None or shutil.which("tesseract") is None,
    reason="pytesseract (the extra ocr) or the program tesseract (package tesseract-ocr) is not installed",
)
Make = Callable[..., FileDataset]
Save = Callable[[FileDataset, Path], Path]


def phantom(seed: int, size: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    picture = simulate.draw_radiograph(simulate.draw_anatomy(rng), pneumonia=bool(seed % 2), rng=rng, size=size)
    return np.clip(picture / picture.max(), 0, 1).astype(np.float32)


def with_text(picture: np.ndarray, text: str, *, grey: float, at: tuple[float, float] = AT) -> np.ndarray:
    drawn = Image.fromarray(picture)
    where = at[1] * picture.shape[1], at[0] * picture.shape[0]
    font = ImageFont.load_default(max(11, picture.shape[0] // 28))
    ImageDraw.Draw(drawn).text(where, text, fill=grey, font=font)
    return np.array(drawn)


def covered_share(covered: np.ndarray, clean: np.ndarray, marked: np.ndarray) -> float:
    """How much of the text's contrast lies where it is painted over."""
    contrast = np.abs(marked - clean)
    return float(contrast[covered].sum() / contrast.sum())


def stored(picture: np.ndarray) -> np.ndarray:
    return (picture * 4095).round().astype(np.uint16)


@pytest.fixture
def read(tmp_path: Path, make_dicom: Make, save: Save) -> Callable[..., Film]:
    """A film as the intake reads it, from 0 to 1; further tags by name."""

    def run(picture: np.ndarray, *, ocr: bool, dicom: Path | None = None, **tags: object) -> Film:
        instance = str(tags.pop("SOPInstanceUID", "1.2.826.0.1"))
        save(make_dicom(stored(picture), SOPInstanceUID=instance, **tags), tmp_path / "hospital" / "film.dcm")
        # As large as the film: nothing hides in reducing.
        reader = Reader(tmp_path / "hospital", KEY, size=len(picture), dicom=dicom, ocr=ocr)
        return reader(Found("film.dcm"))

    return run


def pixels(film: Film) -> np.ndarray:
    assert film.picture is not None, film.finding
    return film.picture.astype(np.float32) / 255


@reading
@pytest.mark.parametrize("grey", [1.0, 0.0], ids=["white", "black"])
@pytest.mark.parametrize("inverted", [False, True], ids=["MONOCHROME2", "MONOCHROME1"])
def test_a_name_in_the_middle_is_gone_with_reading_and_stays_without(
    grey: float, inverted: bool, read: Callable[..., Film]
) -> None:
    clean = phantom(3, 400)
    marked = with_text(clean, NAME, grey=grey)
    kind = {"PhotometricInterpretation": "MONOCHROME1"} if inverted else {}
    film = 1 - marked if inverted else marked
    without, with_ = read(film, ocr=False, **kind), read(film, ocr=True, **kind)
    untouched = pixels(read(1 - clean if inverted else clean, ocr=False, **kind))
    before, after = pixels(without), pixels(with_)
    assert without.finding.regions == 0
    assert with_.finding.regions == 1
    assert with_.finding.state == "kept"
    letters = np.abs(before - untouched) > 0.1
    assert letters.sum() > 300
    # Not one pixel of the letters stays as it was, and there is nothing left to read.
    assert (np.abs(after - before)[letters] > 0.02).mean() > 0.97
    assert TextReader().boxes(before) != []
    assert TextReader().boxes(after) == []
    # A strip changed, and the rest of the film did not.
    assert (after != before).mean() < 0.06


@reading
@pytest.mark.parametrize(("size", "grey"), [(256, 1.0), (256, 0.0), (1100, 1.0), (1100, 0.0), (2600, 1.0)])
def test_films_of_all_sizes_are_read(size: int, grey: float) -> None:
    clean = phantom(5, size)
    marked = with_text(clean, NAME, grey=grey)
    assert _burned_in.find(marked, _burned_in.ORDINARY)[1] == 0
    covered = TextReader().cover(marked)
    assert covered_share(covered, clean, marked) > 0.9
    assert covered.mean() < 0.1


@reading
@pytest.mark.parametrize("size", [160, 256, 700])
@pytest.mark.parametrize("seed", range(4))
def test_a_film_without_text_is_the_same_to_the_bit(seed: int, size: int, read: Callable[..., Film]) -> None:
    without, with_ = read(phantom(seed, size), ocr=False), read(phantom(seed, size), ocr=True)
    assert with_.finding == without.finding
    np.testing.assert_array_equal(with_.picture, without.picture)
    np.testing.assert_array_equal(with_.small, without.small)
    np.testing.assert_array_equal(with_.hash, without.hash)


@reading
def test_what_the_borders_search_finds_is_still_found_and_counted_once(read: Callable[..., Film]) -> None:
    marked = with_text(phantom(3, 400), NAME, grey=1.0, at=(0.02, 0.02))
    without, with_ = read(marked, ocr=False), read(marked, ocr=True)
    assert without.finding.regions == with_.finding.regions == 1
    both = read(with_text(marked, NAME, grey=1.0), ocr=True)
    assert both.finding.regions == 2


@reading
def test_reading_processes_read_too(tmp_path: Path, make_dicom: Make, save: Save) -> None:
    films = {"bare": phantom(3, 300), "named": with_text(phantom(3, 300), NAME, grey=1.0)}
    for name, picture in films.items():
        save(make_dicom(stored(picture)), tmp_path / name)
    reader = Reader(tmp_path, KEY, size=64, ocr=True)
    (batch,) = read_all(reader, [(0, [Found(name) for name in films])], workers=1)
    assert [film.finding.regions for film in batch.films] == [0, 1]


@reading
def test_the_dicom_output_is_without_it_too(tmp_path: Path, read: Callable[..., Film]) -> None:
    clean = phantom(3, 400)
    marked = with_text(clean, NAME, grey=1.0)
    (tmp_path / "dicom").mkdir()
    film = read(marked, ocr=True, dicom=tmp_path / "dicom", ImageType=["ORIGINAL", "PRIMARY"])
    written = pydicom.dcmread(tmp_path / "dicom" / f"{film.finding.file}.dcm")
    left = (written.pixel_array / 4095).astype(np.float32)
    changed = left != stored(marked) / np.float32(4095)
    assert covered_share(changed, clean, marked) > 0.97
    assert TextReader().boxes(left) == []
    assert list(written.ImageType) == ["DERIVED", "PRIMARY"]
    assert "113101" in [item.CodeValue for item in written.DeidentificationMethodCodeSequence]
    plain = read(clean, ocr=True, dicom=tmp_path / "dicom")
    written = pydicom.dcmread(tmp_path / "dicom" / f"{plain.finding.file}.dcm")
    np.testing.assert_array_equal(written.pixel_array, stored(clean))


@reading
def test_a_film_that_says_it_has_text_passes_once_all_of_it_is_painted(
    tmp_path: Path, read: Callable[..., Film]
) -> None:
    (tmp_path / "dicom").mkdir()
    said: dict[str, object] = {"BurnedInAnnotation": "YES", "dicom": tmp_path / "dicom"}
    marked = with_text(phantom(3, 400), NAME, grey=1.0)
    assert read(marked, ocr=False, **said).finding.reason == "burned-in text"
    film = read(marked, ocr=True, **said)
    assert (film.finding.state, film.finding.regions) == ("kept", 1)
    written = pydicom.dcmread(tmp_path / "dicom" / f"{film.finding.file}.dcm")
    assert written.BurnedInAnnotation == "NO"
    assert read(phantom(3, 400), ocr=True, **said).finding.reason == "burned-in text"


@reading
def test_what_was_read_is_nowhere(
    tmp_path: Path,
    read: Callable[..., Film],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import pytesseract

    said: list[object] = []
    modes, image_to_data = set(), pytesseract.image_to_data

    def spying(*given: object, **named: object) -> dict[str, list[object]]:
        modes.add(Path(tempfile.gettempdir()).stat().st_mode & 0o777)
        told: dict[str, list[object]] = image_to_data(*given, **named)
        said.extend(told["text"])
        return told

    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(pytesseract, "image_to_data", spying)
    monkeypatch.delenv("OMP_THREAD_LIMIT", raising=False)
    with caplog.at_level(logging.DEBUG):
        film = read(with_text(phantom(3, 400), NAME, grey=1.0), ocr=True)
    words = {str(word) for word in said if sum(map(str.isalnum, str(word))) >= 5}
    assert any(word[:4] == NAME[:4] for word in words)
    told = f"{film.finding} {film.link} {caplog.text} {capfd.readouterr()}"
    assert not any(word in told for word in words)
    # Nor in a file: they were in a folder that only this user may open, and went with it.
    assert modes == {0o700}
    assert list((tmp_path / "tmp").iterdir()) == []
    assert tempfile.tempdir == str(tmp_path / "tmp")
    assert "OMP_THREAD_LIMIT" not in os.environ


@reading
def test_a_film_that_cannot_be_read_is_refused_and_its_text_not_quoted(
    read: Callable[..., Film], monkeypatch: pytest.MonkeyPatch
) -> None:
    import pytesseract

    image_to_data = pytesseract.image_to_data

    def failing(page: np.ndarray, **named: object) -> dict[str, list[object]]:
        if page.min() == 255:  # the trial with an empty page
            told: dict[str, list[object]] = image_to_data(page, **named)
            return told
        raise pytesseract.TesseractError(1, NAME)

    monkeypatch.setattr(pytesseract, "image_to_data", failing)
    picture = with_text(phantom(3, 400), NAME, grey=1.0)
    film = read(picture, ocr=True)
    assert film.picture is None
    assert (film.finding.reason, film.finding.detail) == ("error", "DataError")
    with pytest.raises(DataError, match="does not run") as raised:
        TextReader().boxes(picture)
    assert NAME not in str(raised.value)


@reading
@pytest.mark.parametrize("shape", [(16, 300), (33, 2500), (700, 40), (133, 217)])
def test_pictures_of_any_shape_are_taken(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).random(shape, dtype=np.float32)
    assert TextReader().cover(noise).shape == shape


@reading
@pytest.mark.integration
def test_on_real_films_next_to_nothing_is_taken_for_text() -> None:
    if not KERMANY.exists():
        pytest.skip("../shared/data/xray/kermany224 is not on this machine")
    import pyarrow.parquet as parquet

    jpegs = parquet.read_table(KERMANY, columns=["jpeg"]).column("jpeg")
    painted = []
    for row in np.random.default_rng(3).choice(len(jpegs), 30, replace=False):
        picture = np.array(Image.open(io.BytesIO(jpegs[int(row)].as_py())).convert("L"), dtype=np.float32) / 255
        masked, _ = mask_burned_in(picture, annotated=None)
        painted.append(TextReader().cover(masked).mean())
    assert np.count_nonzero(painted) <= 2
    assert max(painted) < 0.03


def test_without_the_program_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DataError, match=r"pip install 'unlabeled\[ocr\]'.*tesseract-ocr") as raised:
        Reader(tmp_path, KEY, size=32, ocr=True)
    assert raised.value.__cause__ is None
    Reader(tmp_path, KEY, size=32)  # without reading, nothing is missed


def test_without_the_package_the_same_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytesseract", None)
    with pytest.raises(DataError, match=r"pip install 'unlabeled\[ocr\]'.*tesseract-ocr"):
        TextReader()


@reading
def test_the_store_of_the_command_is_without_it(
    tmp_path: Path, make_dicom: Make, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = phantom(3, 600)
    (tmp_path / "films").mkdir()
    save(make_dicom(stored(with_text(clean, NAME, grey=1.0))), tmp_path / "films" / "a.dcm")
    given = {"key": tmp_path / "key", "ledger": tmp_path / "ledger.csv", "size": 256, "workers": 1}
    read, not_read = (
        take_in(tmp_path / "films", store=tmp_path / f"store-{ocr}", ocr=ocr, **given)  # type: ignore[arg-type]
        for ocr in (True, False)
    )
    assert any("tesseract" in step for step in read.manifest["preprocessing"])
    assert not any("tesseract" in step for step in not_read.manifest["preprocessing"])
    pictures = [np.load(done.store / "pictures.npy")[0].astype(int) for done in (read, not_read)]
    assert np.abs(pictures[0] - pictures[1]).max() > 60
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DataError, match=r"unlabeled\[ocr\]"):
        take_in(tmp_path / "films", store=tmp_path / "third", ocr=True, **given)  # type: ignore[arg-type]
    assert not (tmp_path / "third").exists()
