from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unlabeled.core.tokens import EventFields, GridPatches, Positions, sincos_1d, take


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    patch=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    channels=st.integers(1, 3),
)
def test_patches_are_a_rearrangement_that_unpatch_undoes(
    rows: int, columns: int, patch: tuple[int, int], channels: int
) -> None:
    grid = (rows * patch[0], columns * patch[1])
    tokenizer = GridPatches(grid=grid, patch=patch, dim=8, channels=channels)
    x = torch.randn(2, channels, *grid)
    patches = tokenizer.patches(x)
    assert patches.shape == (2, rows * columns, patch[0] * patch[1] * channels)
    assert torch.equal(tokenizer.unpatch(patches), x)


def test_patches_run_row_by_row() -> None:
    tokenizer = GridPatches(grid=(4, 4), patch=(2, 2), dim=8)
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert tokenizer.patches(x)[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_a_patch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="patch 5x8 does not divide the grid 64x64"):
        GridPatches(grid=(64, 64), patch=(5, 8), dim=8)


def test_a_batch_of_another_shape_is_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"expected a batch of shape \(B, \(1, 4, 4\)\), got \(2, 3, 4, 4\)"):
        GridPatches(grid=(4, 4), patch=(2, 2), dim=8)(torch.zeros(2, 3, 4, 4))


def test_take_equals_gather() -> None:
    x = torch.randn(3, 7, 5)
    index = torch.stack([torch.randperm(7)[:4] for _ in range(3)])
    assert torch.equal(take(x, index), x.gather(1, index[..., None].expand(-1, -1, 5)))


def test_sine_cosine_embedding_by_hand() -> None:
    embedding = sincos_1d(torch.tensor([0.0, 2.0]), dim=4).numpy()
    expected = [[0, 0, 1, 1], [np.sin(2), np.sin(0.02), np.cos(2), np.cos(0.02)]]
    np.testing.assert_allclose(embedding, expected, atol=1e-6)


def test_every_position_of_an_image_has_its_own_embedding() -> None:
    position = GridPatches(grid=(64, 64), patch=(8, 8), dim=128)(torch.zeros(1, 1, 64, 64)).position[0]
    distance = torch.cdist(position, position) + torch.eye(64) * 1e9
    assert distance.min() > 0.1


def test_a_class_token_stands_beside_the_patches_and_is_kept() -> None:
    tokenizer = GridPatches(grid=(4, 4), patch=(2, 2), dim=8, class_token=True)
    tokens = tokenizer(torch.randn(3, 1, 4, 4))
    assert tokens.x.shape == (3, 4, 8)
    assert tokens.class_token is tokenizer.class_token
    kept = tokens.take(torch.tensor([[0, 3], [1, 2], [0, 1]]))
    assert kept.x.shape == (3, 2, 8)
    assert kept.class_token is tokenizer.class_token


def test_positions_are_computed_stored_or_trained() -> None:
    makers = {kind: GridPatches(grid=(4, 4), patch=(2, 2), dim=8, positions=kind) for kind in get_args(Positions)}
    assert torch.equal(makers["sincos"].position, makers["fixed"].position)
    assert torch.equal(makers["sincos"].position, makers["learned"].position)
    saved = {kind: "position" in tokenizer.state_dict() for kind, tokenizer in makers.items()}
    trained = {kind: "position" in dict(tokenizer.named_parameters()) for kind, tokenizer in makers.items()}
    assert saved == {"sincos": False, "fixed": True, "learned": True}
    assert trained == {"sincos": False, "fixed": False, "learned": True}


def test_events_get_a_start_token_and_padding_where_the_first_field_is_zero() -> None:
    tokenizer = EventFields(sizes=(4, 6), dim=8, length=5)
    codes = torch.tensor([[[1, 2], [3, 5], [0, 0]]])
    tokens = tokenizer(codes)
    assert tokens.x.shape == (1, 4, 8)
    assert tokens.pad is not None
    assert tokens.pad.tolist() == [[False, False, False, True]]
    by_hand = tokenizer.embed[0].weight[3] + tokenizer.embed[1].weight[5]  # type: ignore[operator]
    assert torch.allclose(tokens.x[0, 2], by_hand)


def test_a_history_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="L <= 5, 2 fields"):
        EventFields(sizes=(4, 6), dim=8, length=5)(torch.ones(1, 6, 2, dtype=torch.long))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float64, torch.float16])
def test_pictures_of_another_type_than_the_weights_are_refused_in_words(dtype: torch.dtype) -> None:
    tokenizer = GridPatches(grid=(8, 8), patch=(4, 4), dim=16)
    with pytest.raises(ValueError, match=f"expected a batch of torch.float32, got {dtype}"):
        tokenizer(torch.zeros(2, 1, 8, 8, dtype=dtype))
    assert tokenizer.double()(torch.zeros(2, 1, 8, 8, dtype=torch.float64)).x.dtype == torch.float64


def test_codes_that_are_no_whole_numbers_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match=r"whole numbers, got torch.float32"):
        EventFields(sizes=(4, 6), dim=8, length=5)(torch.ones(1, 5, 2))
