import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unlabeled.core.batches import Batches
from unlabeled.core.store import chunks


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 60), size=st.integers(1, 20), seed=st.integers(0, 5))
def test_an_epoch_draws_no_row_twice_and_leaves_out_less_than_a_batch(n: int, size: int, seed: int) -> None:
    batches = Batches(np.arange(n), batch_size=size, seed=seed)
    drawn = np.concatenate([batches.rows_at(step) for step in range(batches.per_epoch)])
    assert len(np.unique(drawn)) == len(drawn)
    assert n - len(drawn) < batches.batch_size


def test_every_epoch_draws_all_rows_in_an_order_of_its_own() -> None:
    """Or the same rows would stand beside one another in every epoch."""
    batches = Batches(np.arange(40), batch_size=4, seed=2)
    epochs = [[batches.rows_at(10 * epoch + step).tolist() for step in range(10)] for epoch in range(3)]
    for epoch in epochs:
        assert sorted(row for rows in epoch for row in rows) == list(range(40))
    for one, other in itertools.pairwise(epochs):
        assert not any(rows in other for rows in one)


def test_batch_i_is_the_same_whatever_was_asked_for_before() -> None:
    def blur(batch: tuple[torch.Tensor, ...], draw: torch.Generator) -> tuple[torch.Tensor, ...]:
        return (batch[0] + torch.rand(batch[0].shape, generator=draw),)

    x = np.random.default_rng(0).normal(size=(30, 2))
    one, other = Batches(x, batch_size=7, transform=blur), Batches(x, batch_size=7, transform=blur)
    for step in (0, 11, 3):
        other.at(step)
    assert torch.equal(one.at(9)[0], other.at(9)[0])
    assert not torch.equal(one.at(9)[0], one.at(9 + 4)[0])


def test_what_is_drawn_is_moved_as_it_was_stored_and_augmented_there() -> None:
    """8-bit rows are a quarter of what they become; no GPU is needed to see where the work is done."""
    seen: list[tuple[str, torch.dtype]] = []

    def scaled(batch: tuple[torch.Tensor, ...], draw: torch.Generator) -> tuple[torch.Tensor, ...]:
        seen.extend((part.device.type, part.dtype) for part in batch)
        return (batch[0].float() * torch.rand(1, generator=draw).to(batch[0].device), batch[1])

    rows = np.zeros((8, 3), dtype=np.uint8)
    x, y = Batches(rows, torch.arange(8), batch_size=4, transform=scaled).at(0, device=torch.device("meta"))
    assert seen == [("meta", torch.uint8), ("meta", torch.int64)]
    assert (x.device.type, y.device.type) == ("meta", "meta")


def test_arrays_stay_in_step_and_memory_mapped_ones_work(tmp_path: object) -> None:
    path = f"{tmp_path}/x.npy"
    np.save(path, np.arange(50) * 10)
    x, y = Batches(np.load(path, mmap_mode="r"), torch.arange(50), batch_size=8).at(2)
    assert torch.equal(x, y * 10)


def test_empty_and_uneven_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        Batches(np.empty(0), batch_size=4)
    with pytest.raises(ValueError, match=r"one length, got \[3, 4\]"):
        Batches(np.empty(3), np.empty(4), batch_size=2)


def test_chunks_cover_everything_once() -> None:
    assert [list(range(10))[part] for part in chunks(10, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
