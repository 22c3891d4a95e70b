"""Views: each of their settings alone does what it says, and no more than that."""

import pytest
import torch
from torch import Tensor

from unlabeled.core.views import HistorySlice, PictureView, SignalView

ITEMS, SIDE = 64, 16
STILL = {"smallest": 1.0, "contrast": 0.0, "brightness": 0.0, "noise": 0.0}
QUIET = {"gain": 0.0, "noise": 0.0, "shift": 0.0, "band": 0.0}


def draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def picture() -> Tensor:
    """One picture, as often as there are items."""
    return torch.randn(1, 1, SIDE, SIDE, generator=draw()).expand(ITEMS, -1, -1, -1)


@pytest.mark.parametrize("view", [PictureView(), SignalView()])
def test_each_item_gets_a_draw_of_its_own_that_comes_again(view: PictureView | SignalView) -> None:
    seen = view(picture(), draw())
    assert seen.shape == (ITEMS, 1, SIDE, SIDE)
    assert len({float(item.sum()) for item in seen}) == ITEMS
    assert torch.equal(seen, view(picture(), draw()))


def test_with_nothing_allowed_to_change_nothing_does() -> None:
    torch.testing.assert_close(PictureView(**STILL)(picture(), draw()), picture(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(SignalView(**QUIET)(picture(), draw()), picture())


@pytest.mark.parametrize("axis", [2, 3])
def test_a_crop_is_a_part_of_the_picture_enlarged_and_never_mirrored(axis: int) -> None:
    places = torch.arange(SIDE, dtype=torch.float32)
    ramp = (places[:, None] if axis == 2 else places).expand(ITEMS, 1, SIDE, SIDE)
    seen = PictureView(**{**STILL, "smallest": 0.5})(ramp, draw()).mean(dim=5 - axis)[:, 0]
    inner = seen.diff(dim=1)[:, 4:-4]  # the outermost half pixel stands still
    torch.testing.assert_close(inner, inner[:, :1].expand_as(inner), atol=1e-4, rtol=0)
    assert 0.5 <= float(inner.min()) < 0.6
    assert 0.9 < float(inner.max()) <= 1.0
    assert seen.min() >= 0
    assert seen.max() <= SIDE - 1
    middle = seen.mean(dim=1)
    assert middle.min() < 6 < 9 < middle.max()  # crops lie on either side of the middle, 7.5


def test_contrast_multiplies_and_brightness_and_gain_add_one_number_an_item() -> None:
    x = picture()
    scaled = PictureView(**{**STILL, "contrast": 0.4})(x, draw())
    factor = ((scaled * x).flatten(1).sum(dim=1) / x.square().flatten(1).sum(dim=1)).view(-1, 1, 1, 1)
    torch.testing.assert_close(scaled, factor * x, atol=1e-4, rtol=0)
    assert 0.6 <= factor.min() < 0.68
    assert 1.32 < factor.max() <= 1.4
    for view in (PictureView(**{**STILL, "brightness": 0.3}), SignalView(**{**QUIET, "gain": 0.3})):
        added = view(x, draw()) - x
        level = added.mean(dim=(1, 2, 3), keepdim=True)
        torch.testing.assert_close(added, level.expand_as(added), atol=1e-4, rtol=0)
        assert -0.3 <= level.min() < -0.24
        assert 0.24 < level.max() <= 0.3


@pytest.mark.parametrize("view", [PictureView(**{**STILL, "noise": 0.2}), SignalView(**{**QUIET, "noise": 0.2})])
def test_noise_is_added_to_every_number_alone(view: PictureView | SignalView) -> None:
    noise = (view(picture(), draw()) - picture()).flatten(1)
    assert noise.std() == pytest.approx(0.2, rel=0.03)
    assert noise.mean(dim=1).abs().max() < 5 * 0.2 / SIDE  # no level of the item's own
    assert (noise[:, 1:] * noise[:, :-1]).mean().abs() < 0.1 * 0.2**2


def test_a_shift_in_time_goes_round_and_leaves_frequencies_where_they_are() -> None:
    x = picture()
    seen = SignalView(**{**QUIET, "shift": 0.25})(x, draw())
    steps = [next(s for s in range(-8, 8) if torch.equal(item, x[0].roll(s, dims=2))) for item in seen]
    assert set(steps) == set(range(-4, 5))


def test_a_masked_band_is_some_neighbouring_rows_at_the_item_s_mean() -> None:
    x = picture()
    seen = SignalView(**{**QUIET, "band": 0.5})(x, draw())
    widths, places = set(), set()
    for item in seen[:, 0]:
        hidden = (item != x[0, 0]).any(dim=1)
        rows = hidden.nonzero()[:, 0].tolist()
        assert rows == list(range(rows[0], rows[0] + len(rows))) if rows else True
        torch.testing.assert_close(item[hidden], x[0].mean().expand_as(item[hidden]))
        widths.add(len(rows))
        places |= set(rows)
    assert max(widths) <= SIDE // 2
    assert len(widths) > 4
    assert places == set(range(SIDE))


def test_both_ends_are_masked_equally_often() -> None:
    x = torch.randn(1, 1, SIDE, SIDE, generator=draw()).expand(4096, -1, -1, -1)
    hidden = (SignalView(**{**QUIET, "band": 0.5})(x, draw()) != x).any(dim=3)[:, 0].float().mean(dim=0)
    torch.testing.assert_close(hidden, hidden.flip(0), atol=0.03, rtol=0.0)  # 3 of its standard errors
    assert 0 < hidden[0] < hidden[SIDE // 2]


def test_a_slice_of_a_history_is_a_run_of_its_events() -> None:
    batch = torch.zeros(300, 10, 2, dtype=torch.long)
    batch[:, :9] = torch.arange(1, 10)[:, None].expand(9, 2)
    batch[0, 1:] = 0
    seen = HistorySlice(shortest=0.3, longest=0.8)(batch, torch.Generator().manual_seed(0))
    sizes = (seen[..., 0] != 0).sum(dim=1)
    assert sizes[0] == 1
    assert set(sizes[1:].tolist()) == {3, 4, 5, 6, 7}
    for history, size in zip(seen, sizes.tolist(), strict=True):
        first = int(history[0, 0])
        assert history[:size, 0].tolist() == list(range(first, first + size))
        assert not history[size:].any()
