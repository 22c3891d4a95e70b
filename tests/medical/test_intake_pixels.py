"""What the intake does to pixels: borders, sizes, checks and hashes, each beside something worked out otherwise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlabeled.medical import simulate
from unlabeled.medical.intake import borders, checks, duplicates
from unlabeled.medical.intake.borders import Border
from unlabeled.medical.intake.reasons import NotKept
from unlabeled.medical.intake.resize import resized, to_padded_square


def film(seed: int, size: int = 256) -> np.ndarray:
    rng = np.random.default_rng(seed)
    picture = simulate.draw_radiograph(simulate.draw_anatomy(rng), pneumonia=bool(seed % 2), rng=rng, size=size)
    low, high = np.percentile(picture, [0.5, 99.5])
    return np.clip((picture - low) / (high - low), 0, 1).astype(np.float32)


def framed(picture: np.ndarray, border: Border, grey: float, noise: float = 0.0) -> np.ndarray:
    pad = ((border.top, border.bottom), (border.left, border.right))
    around = np.pad(picture, pad, constant_values=grey)
    noisy = around + np.random.default_rng(0).normal(0, noise, around.shape)
    inside = np.pad(np.ones(picture.shape, dtype=bool), pad)
    return np.where(inside, around, noisy).clip(0, 1).astype(np.float32)


@pytest.mark.parametrize("seed", range(40))
def test_a_picture_without_borders_stays_whole(seed: int) -> None:
    assert borders.find(film(seed)) == borders.NONE


@pytest.mark.parametrize("grey", [0.0, 0.04, 0.97, 1.0])
@pytest.mark.parametrize(
    "border", [Border(20, 0, 0, 0), Border(0, 31, 12, 0), Border(40, 25, 60, 33), Border(0, 0, 3, 3)]
)
def test_a_planted_border_goes_and_nothing_else(border: Border, grey: float) -> None:
    # Bright within, as behind a collimator that is not at the edge of the body.
    picture = 0.25 + 0.5 * film(3)
    around = framed(picture, border, grey, noise=0.01)
    assert borders.find(around) == border
    np.testing.assert_array_equal(borders.cut_off(around, border), picture)


def test_marks_in_a_border_do_not_save_it() -> None:
    around = framed(0.25 + 0.5 * film(4), Border(0, 0, 40, 40), 0.0)
    around[100:104, 10:14] = 1
    assert borders.find(around) == Border(0, 0, 40, 40)


def test_air_beside_a_round_body_is_no_border() -> None:
    axis = np.linspace(-1, 1, 300)
    body = ((axis[:, None] / 0.95) ** 2 + (axis[None] / 0.7) ** 2 < 1) * 0.6
    assert borders.find(body.astype(np.float32)) == borders.NONE


@given(st.tuples(*[st.integers(0, 400)] * 4), st.sampled_from([0.0, 1.0]))
def test_never_more_than_the_stated_share_goes(sides: tuple[int, ...], grey: float) -> None:
    around = framed(0.25 + 0.5 * film(5, 128), Border(*sides), grey)
    found = borders.find(around)
    height, width = around.shape
    for one, other, side in ((found.top, found.bottom, height), (found.left, found.right, width)):
        assert max(one, other) <= borders.MOST_OF_A_SIDE * side
        assert one + other <= borders.MOST_OF_BOTH * side


@pytest.mark.parametrize("shape", [(300, 200), (64, 500), (101, 77)])
@pytest.mark.parametrize("target", [(32, 32), (48, 20)])
def test_shrinking_is_what_monai_calls_area(shape: tuple[int, int], target: tuple[int, int]) -> None:
    from monai.transforms import Resize

    picture = np.random.default_rng(0).random(shape, dtype=np.float32)
    np.testing.assert_allclose(resized(picture, *target), Resize(target, mode="area")(picture[None])[0], atol=1e-6)


def test_growing_is_what_monai_calls_bilinear() -> None:
    from monai.transforms import Resize

    picture = np.random.default_rng(0).random((17, 20), dtype=np.float32)
    np.testing.assert_allclose(resized(picture, 64, 75), Resize((64, 75), mode="bilinear")(picture[None])[0], atol=5e-6)


def test_a_square_keeps_the_aspect_between_black_bars() -> None:
    square = to_padded_square(np.full((100, 50), 0.5, dtype=np.float32), 64)
    assert square.dtype == np.uint8
    assert (square[:, :16] == 0).all()
    assert (square[:, 48:] == 0).all()
    assert (square[:, 16:48] == 128).all()


def small(picture: np.ndarray) -> np.ndarray:
    return resized(picture.astype(np.float32), checks.SIDE, checks.SIDE)


@pytest.mark.parametrize("seed", range(30))
def test_films_pass_and_their_negatives_are_flagged(seed: int) -> None:
    assert checks.look(small(film(seed))) == []
    assert checks.look(small(1 - film(seed))) == ["inverted"]


def test_noise_and_pages_are_unlike_a_chest() -> None:
    rng = np.random.default_rng(0)
    page = np.ones((256, 256))
    page[np.arange(256) % 8 < 5, 10:246] -= rng.random((160, 236)) > 0.5
    for picture in (rng.random((256, 256)), page):
        assert checks.look(small(picture)) == ["unlike a chest"]


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (np.full((64, 64), 0.5) + 0.001 * np.eye(64), "empty"),
        (np.where(np.arange(64)[:, None] < 15, film(0, 64), 0.0), "saturated"),
        (np.where(np.arange(64)[:, None] < 15, film(0, 64), 1.0), "saturated"),
    ],
)
def test_nothing_to_see_is_refused(picture: np.ndarray, reason: str) -> None:
    with pytest.raises(NotKept, match=reason):
        checks.look(picture.astype(np.float32))


@given(st.integers(0, 2**32 - 1), st.integers(0, 60))
def test_close_pairs_are_those_of_a_comparison_one_by_one(seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 2**64, (1, 4), dtype=np.uint64)
    flips = np.packbits(rng.random((150, 256)) < rng.random((150, 1)) / 5, axis=1).view(np.uint64)
    hashes = np.concatenate([first ^ flips, first, ~first, rng.integers(0, 2**64, (20, 4), dtype=np.uint64)])
    found = {tuple(pair) for pairs in duplicates.close_pairs(hashes, most=most) for pair in pairs.tolist()}
    whole = [int.from_bytes(row.tobytes()) for row in hashes]
    expected = {(i, j) for i in range(len(whole)) for j in range(i) if (whole[i] ^ whole[j]).bit_count() <= most}
    assert found == expected


def test_near_duplicates_are_found_under_another_window_and_noise_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    originals = [film(seed) for seed in range(60)]
    shown_again = [
        originals[7] ** 1.4,
        np.clip((originals[8] - 0.1) / 0.75, 0, 1),
        np.clip(originals[9] + rng.normal(0, 0.02, originals[9].shape), 0, 1),
        resized(originals[10], 180, 180),
    ]
    thumbs = [small(picture) for picture in [*originals, *shown_again]]
    hashes = np.stack([duplicates.difference_hash(thumb) for thumb in thumbs])
    shown = np.stack([np.rint(255 * resized(thumb, 32, 32)).astype(np.uint8) for thumb in thumbs])
    assert duplicates.near_duplicates(hashes, shown) == {60: 7, 61: 8, 62: 9, 63: 10}


ROWS, COLUMNS = np.mgrid[:256, :256]
# Share of the film: 10, 22 and 64 %.
PADDING = {
    "upper corners": (ROWS + COLUMNS < 80) | (ROWS + 255 - COLUMNS < 80),
    "around a disc": (ROWS - 128) ** 2 + (COLUMNS - 128) ** 2 > 128**2,
    "around a small disc": (ROWS - 128) ** 2 + (COLUMNS - 128) ** 2 > 87**2,
}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("where", PADDING)
def test_padding_hides_no_negative_and_saturates_no_film(where: str, seed: int) -> None:
    padding = PADDING[where]
    shares = small(padding)
    assert checks.look(small(np.where(padding, 0, film(seed))), shares) == []
    assert checks.look(small(np.where(padding, 0, 1 - film(seed))), shares) == ["inverted"]


def test_what_is_left_beside_padding_is_judged_alone() -> None:
    padding = PADDING["around a disc"]
    with pytest.raises(NotKept, match="empty"):
        checks.look(small(np.where(padding, 0, 0.6)), small(padding))
    with pytest.raises(NotKept, match="empty"):
        checks.look(small(film(0)), small(np.ones((256, 256))))
    with pytest.raises(NotKept, match="saturated"):
        checks.look(small(np.where(padding, 0, np.where(ROWS < 80, film(0), 1))), small(padding))
    middle = np.abs(COLUMNS - 128) < 40
    assert checks.look(small(np.where(middle, 0, film(0))), small(middle)) == ["unlike a chest"]


def test_padding_along_an_edge_is_cut_off_as_a_dark_border_and_a_round_one_stays() -> None:
    picture = 0.25 + 0.5 * film(6)
    assert borders.find(framed(picture, Border(0, 0, 40, 25), 0.0)) == Border(0, 0, 40, 25)
    assert borders.find(np.where(PADDING["around a disc"], 0, picture).astype(np.float32)) == borders.NONE


def test_without_padding_nothing_is_judged_otherwise() -> None:
    for picture in (film(1), 1 - film(2)):
        assert checks.look(small(picture), small(np.zeros((256, 256)))) == checks.look(small(picture))
