"""A reader's box on a film is compared with that place of the film on the padded picture, or not at all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from unlabeled.core.errors import DataError
from unlabeled.medical import ImageSet, PneumoniaModel, _pictures
from unlabeled.medical.audit.heatmaps import BORDERS, Agreement, Box, _on_padded, agreement, coverage, read_boxes
from unlabeled.medical.images import Framing
from unlabeled.medical.intake import borders
from unlabeled.medical.intake._tables import STUDIES
from unlabeled.medical.intake.borders import NONE, Border

TALL = (1000, 500)


class Shown:
    """Stands in for a model: its map of every picture is this one."""

    def __init__(self, map_rc: np.ndarray) -> None:
        self.map_rc = map_rc

    def explain(self, images: ImageSet) -> np.ndarray:
        return np.stack([self.map_rc] * len(images))


def agreed(
    map_rc: np.ndarray, boxes: Sequence[Box], *, size: tuple[int, int] | None = TALL, framing: Framing = "padded"
) -> Agreement:
    images = ImageSet(
        images=np.zeros((4, 32, 32), dtype=np.uint8),
        ids=np.array(list("abcd")),
        patients=np.array(list("abcd")),
        sizes=None if size is None else np.array([size] * 4),
        framing=framing,
    )
    model = cast(PneumoniaModel, Shown(map_rc))
    return agreement(model, images, dict.fromkeys("abcd", boxes))


def columns(*lit: int) -> np.ndarray:
    """A map of 8 x 8 that speaks for the finding in some columns, strongest in the first of them."""
    map_rc = np.zeros((8, 8))
    map_rc[:, list(lit)] = 1.0
    map_rc[3, lit[0]] = 1.5
    return map_rc


def test_the_left_half_of_a_tall_film_is_where_it_lies_on_the_padded_picture() -> None:
    # A film of 1000 x 500 stands on columns 2 to 5 of 8, its left half on columns 2 and 3.
    left = [Box(0, 0, 250, 1000, NONE)]
    there = agreed(columns(2, 3), left)
    assert (there.pointing.value, there.mass.value, there.by_chance.value) == (1.0, 1.0, 0.5)
    # Four patients' strongest patches all lie in a box: Wilson's interval of four of four, less what chance gives.
    assert there.pointing.low == pytest.approx(4 / (4 + 1.959964**2), abs=1e-4)
    assert 0 < there.by_chance.low < 0.5 < there.by_chance.high < 1
    assert there.pointing_gain.value == 0.5
    assert there.pointing_gain.low < 0 < there.pointing_gain.high
    padding = agreed(columns(0, 1), left)
    assert (padding.pointing.value, padding.mass.value) == (0.0, 0.0)
    beside = agreed(columns(4, 5), left)
    assert (beside.pointing.value, beside.mass.value) == (0.0, 0.0)
    # In shares of the original's sides it is the same place.
    assert agreed(columns(2, 3), [Box(0, 0, 0.5, 1, NONE)]).mass.value == 1.0
    # On a picture that was stretched it is columns 0 to 3.
    stretched = agreed(columns(0, 1, 2, 3), [Box(0, 0, 250, 1000)], framing="stretched")
    assert (stretched.pointing.value, stretched.mass.value, stretched.by_chance.value) == (1.0, 1.0, 0.5)


def test_what_was_cut_off_moves_a_box() -> None:
    # Of 1000 x 500, 800 x 400 are left; they stand on columns 2 to 5 of 8, and 200 pixels are two columns.
    cut = Border(top=200, bottom=0, left=100, right=0)
    box, film = _on_padded(Box(100, 200, 200, 800, cut), TALL, "a")
    assert film[:4] == (0.25, 0, 0.5, 1)
    assert box[:4] == (0.25, 0, 0.25, 1)
    # What of a box lies on a border is not on the picture.
    box, _ = _on_padded(Box(0, 0, 200, 600, cut), TALL, "a")
    assert box[:4] == (0.25, 0, 0.125, 0.5)
    box, _ = _on_padded(Box(0, 0, 90, 1000, cut), TALL, "a")
    assert coverage([box], 8, 8).sum() == 0
    # A wide film is padded above and below: 200 x 400 stand on rows 2 to 5.
    box, film = _on_padded(Box(0, 100, 400, 100, NONE), (200, 400), "a")
    assert film[:4] == (0, 0.25, 1, 0.5)
    assert box[:4] == (0, 0.5, 1, 0.25)


def test_a_box_covers_what_it_was_drawn_around_on_a_picture_as_the_readers_make_it() -> None:
    rng = np.random.default_rng(0)
    film = rng.uniform(0.35, 0.45, (480, 320)).astype(np.float32)
    film[:, :40], film[-60:] = 0.0, 0.0  # collimated
    film[180:240, 200:230] = 0.9
    cut = borders.find(film)
    assert cut == Border(0, 60, 40, 0)
    square = _pictures.to_padded(film, 96)
    bright = square > 180
    assert bright.sum() > 50
    box, whole = _on_padded(Box(200, 180, 30, 60, cut), (480, 320), "a")
    np.testing.assert_allclose(coverage([box], 96, 96).sum(), bright.sum(), rtol=0.15)
    assert coverage([box], 96, 96)[bright].min() > 0.3
    assert (square[coverage([whole], 96, 96) == 0] == 0).all()
    # Without what was cut off it would be somewhere else.
    wrong, _ = _on_padded(Box(200, 180, 30, 60, NONE), (480, 320), "a")
    assert coverage([wrong], 96, 96)[bright].mean() < 0.5


def test_boxes_on_padded_pictures_are_refused_where_nobody_says_what_was_cut_off() -> None:
    for box in (Box(0, 0, 250, 1000), Box(0, 0, 0.5, 1)):
        with pytest.raises(
            DataError, match=r"may have been cut off before: give the columns border_top, .*studies.csv"
        ):
            agreed(columns(2, 3), [box])
    with pytest.raises(DataError, match="padded, and the size of its original is not known: give the columns width"):
        agreed(columns(2, 3), [Box(0, 0, 0.5, 1, NONE)], size=None)
    with pytest.raises(DataError, match="leave nothing of 1000 rows, 500 columns"):
        agreed(columns(2, 3), [Box(0, 0, 250, 1000, Border(0, 0, 250, 250))])


def test_the_borders_come_with_the_boxes_by_the_names_of_the_intakes_table(tmp_path: Path) -> None:
    assert set(BORDERS) <= set(STUDIES)
    path = tmp_path / "boxes.csv"
    head = "image_id,x,y,width,height,border_top,border_bottom,border_left,border_right\n"
    path.write_text(head + "a,1,2,3,4,10,20,30,40\na,5,6,7,8,0,0,0,0\nb,1,2,3,4,,,,\nc,,,,,1,2,3,4\n")
    assert read_boxes(path) == {
        "a": [Box(1, 2, 3, 4, Border(top=10, bottom=20, left=30, right=40)), Box(5, 6, 7, 8, NONE)],
        "b": [Box(1, 2, 3, 4)],
    }
    refused: list[tuple[str, Any]] = [
        (head + "a,1,2,3,4,10,20,-30,40\n", "line 2: expected whole numbers in border_top, border_bottom"),
        (head + "a,1,2,3,4,10,,30,40\n", "line 2: expected whole numbers in border_top, border_bottom"),
        ("image_id,x,y,width,height,border_top\na,1,2,3,4,5\n", "expected all of the columns border_top, .*, or none"),
    ]
    for text, message in refused:
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_boxes(path)
