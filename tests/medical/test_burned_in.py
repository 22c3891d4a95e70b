"""Text near the borders goes; the lungs stay to the bit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import FileDataset

from unlabeled.medical import dicom, simulate
from unlabeled.medical.deidentify import Deidentifier, mask_burned_in

KERMANY = Path(__file__).parents[3] / "shared/data/xray/kermany224/kermany_cxr_224.parquet"
KEY = b"k" * 32
# What is beyond the band (0.2) and its margin is never touched.
CENTRE = slice(0.25, 0.75)


def phantom(seed: int, size: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    picture = simulate.draw_radiograph(simulate.draw_anatomy(rng), pneumonia=bool(seed % 2), rng=rng, size=size)
    return np.clip(picture / picture.max(), 0, 1).astype(np.float32)


def with_text(picture: np.ndarray, text: str, *, at: tuple[float, float], height: int, grey: float) -> np.ndarray:
    """``at`` is the upper left corner in shares of the sides, ``height`` in pixels."""
    drawn = Image.fromarray(picture)
    where = at[1] * picture.shape[1], at[0] * picture.shape[0]
    ImageDraw.Draw(drawn).text(where, text, fill=grey, font=ImageFont.load_default(height))
    return np.array(drawn)


def centre(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape
    return picture[height // 4 : height * 3 // 4, width // 4 : width * 3 // 4]


def likeness(picture: np.ndarray, clean: np.ndarray, marked: np.ndarray) -> float:
    """How much of the drawn text is still to be seen: the share of its difference to the clean picture that is left,
    along the text's own template (1 all of it, 0 nothing)."""
    template = marked - clean
    return float(((picture - clean) * template).sum() / (template**2).sum())


PLACES = [(0.02, 0.02), (0.02, 0.62), (0.93, 0.02), (0.90, 0.55), (0.45, 0.01)]


@pytest.mark.parametrize("size", [224, 512, 1100])
@pytest.mark.parametrize("at", PLACES)
def test_text_in_corners_and_at_borders_is_gone_and_the_centre_untouched(size: int, at: tuple[float, float]) -> None:
    clean = phantom(3, size)
    said = "R" if at[0] == 0.45 else "MUSTERMANN 1957"
    marked = with_text(clean, said, at=at, height=max(11, size // 30), grey=1.0)
    masked, regions = mask_burned_in(marked, annotated=None)
    assert regions >= 1
    assert abs(likeness(masked, clean, marked)) < 0.1
    assert np.array_equal(centre(masked), centre(clean))
    assert masked.dtype == np.float32
    # What lies apart from the text stays to the bit.
    assert ((masked != marked).mean()) < 0.08


@pytest.mark.parametrize("seed", range(6))
def test_a_picture_without_text_is_returned_as_it_came(seed: int) -> None:
    clean = phantom(seed, 256)
    masked, regions = mask_burned_in(clean, annotated="NO")
    assert regions == 0
    assert np.array_equal(masked, clean)


def test_dark_text_on_bright_ground_is_found_too() -> None:
    clean = phantom(1, 400)
    clean[:60, :220] = 0.95
    marked = with_text(clean, "Doe, Jane", at=(0.03, 0.03), height=24, grey=0.0)
    masked, regions = mask_burned_in(marked, annotated=None)
    assert regions >= 1
    assert abs(likeness(masked, clean, marked)) < 0.1


def test_faint_text_is_found_where_the_file_says_that_there_is_some() -> None:
    clean = phantom(2, 512)
    clean[:60, :300] = 0.3
    marked = with_text(clean, "MUSTERMANN", at=(0.03, 0.03), height=22, grey=0.46)
    assert mask_burned_in(marked, annotated="NO")[1] == 0
    masked, regions = mask_burned_in(marked, annotated=" yes")
    assert regions >= 1
    assert abs(likeness(masked, clean, marked)) < 0.25


def test_pictures_too_small_for_letters_pass_unchanged() -> None:
    tiny = np.eye(16, dtype=np.float32)
    masked, regions = mask_burned_in(tiny, annotated=None)
    assert regions == 0
    assert np.array_equal(masked, tiny)


def stored(picture: np.ndarray) -> np.ndarray:
    return (picture * 4095).round().astype(np.uint16)


Make = Callable[..., FileDataset]


@pytest.mark.parametrize("inverted", [False, True])
def test_a_file_that_says_it_has_text_leaves_without_it(inverted: bool, make_dicom: Make) -> None:
    clean = phantom(3, 400)
    marked = with_text(clean, "MUSTERMANN 1957", at=(0.02, 0.02), height=20, grey=1.0)
    values = 4095 - stored(marked) if inverted else stored(marked)
    kind = "MONOCHROME1" if inverted else "MONOCHROME2"
    file = make_dicom(
        values, PhotometricInterpretation=kind, BurnedInAnnotation="YES", ImageType=["ORIGINAL", "PRIMARY", "X"]
    )
    result = Deidentifier(KEY)(file)
    left = result.pixel_array / 4095
    assert abs(likeness(1 - left if inverted else left, clean, marked)) < 0.1
    assert result.BurnedInAnnotation == "NO"
    assert list(result.ImageType) == ["DERIVED", "PRIMARY"]
    assert "113101" in [item.CodeValue for item in result.DeidentificationMethodCodeSequence]


def test_text_that_is_announced_but_not_found_or_not_reached_is_refused(make_dicom: Make) -> None:
    clean = phantom(3, 400)
    with pytest.raises(dicom.Refused, match="no text was found"):
        Deidentifier(KEY)(make_dicom(stored(clean), BurnedInAnnotation="YES"))
    marked = with_text(clean, "MUSTERMANN", at=(0.02, 0.02), height=20, grey=1.0)
    across = with_text(marked, "MUSTERMANN", at=(0.5, 0.35), height=20, grey=1.0)
    with pytest.raises(dicom.Refused, match="away from the borders"):
        Deidentifier(KEY)(make_dicom(stored(across), BurnedInAnnotation="YES"))


def test_without_the_tag_nothing_is_claimed(make_dicom: Make) -> None:
    marked = with_text(phantom(3, 400), "R", at=(0.05, 0.05), height=30, grey=1.0)
    result = Deidentifier(KEY)(make_dicom(stored(marked)))
    assert "BurnedInAnnotation" not in result
    assert "113101" in [item.CodeValue for item in result.DeidentificationMethodCodeSequence]


@pytest.mark.integration
def test_on_real_pictures_little_but_markers_is_painted() -> None:
    """240 children's radiographs, nearly all with an 'R': most lose a small corner, and the middle stays."""
    if not KERMANY.exists():
        pytest.skip("../shared/data/xray/kermany224 is not on this machine")
    import io

    import pyarrow.parquet as parquet

    jpegs = parquet.read_table(KERMANY, columns=["jpeg"]).column("jpeg")
    rows = np.random.default_rng(0).choice(len(jpegs), 240, replace=False)
    painted, found = [], 0
    for row in rows:
        picture = np.array(Image.open(io.BytesIO(jpegs[int(row)].as_py())).convert("L"), dtype=np.float32) / 255
        masked, regions = mask_burned_in(picture, annotated=None)
        assert np.array_equal(centre(masked), centre(picture))
        painted.append((masked != picture).mean())
        found += regions > 0
    assert 0.8 < found / len(rows) < 0.95
    assert np.mean(painted) < 0.008
    assert np.max(painted) < 0.05
