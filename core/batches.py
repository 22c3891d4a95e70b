"""Arrays to batches, without per-sample Python and without any state to save.

Batch ``i`` is a function of (seed, i) alone: which rows, in which order, under which augmentation. A
resumed run therefore asks for batch ``i`` and gets what the uninterrupted run would have got.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from unlabeled.core.seeds import derive, generator
from unlabeled.core.store import Store

Transform = Callable[[tuple[Tensor, ...], torch.Generator], tuple[Tensor, ...]]


class Batches:
    """Shuffled batches of rows drawn in step from several arrays.

    Args:
        arrays: same first length N; NumPy arrays, CPU tensors, or a :class:`~unlabeled.core.store.Store` on disk.
        batch_size: rows a batch over all processes together; at most N is used.
        seed: fixes order and augmentation.
        transform: whole-batch augmentation, ``transform(batch, generator) -> batch``; it draws on the CPU, so that
            every device gets the same draws, and computes where the batch is.
    """

    def __init__(
        self,
        *arrays: np.ndarray | Tensor | Store,
        batch_size: int,
        seed: int = 0,
        transform: Transform | None = None,
    ) -> None:
        if not arrays or any(len(array) != len(arrays[0]) for array in arrays):
            raise ValueError(f"arrays must have one length, got {[len(array) for array in arrays]}")
        if not len(arrays[0]):
            raise ValueError("there is nothing to draw batches from: the arrays are empty")
        if batch_size < 1:
            raise ValueError(f"a batch needs at least one row, got batch_size={batch_size}")
        self.arrays, self.seed, self.transform = arrays, seed, transform
        self.rows = len(arrays[0])
        self.batch_size = min(batch_size, self.rows)
        self.per_epoch = self.rows // self.batch_size
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def rows_at(self, step: int) -> np.ndarray:
        """Row numbers of batch ``step`` (sorted, so that a memory-mapped file is read forwards)."""
        epoch, within = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            draw = generator(self.seed, "order", epoch)
            self._order, self._epoch = torch.randperm(self.rows, generator=draw).numpy(), epoch
        return np.sort(self._order[within * self.batch_size : (within + 1) * self.batch_size])

    def at(self, step: int, *, rank: int = 0, world: int = 1, device: torch.device | None = None) -> tuple[Tensor, ...]:
        """This process's share of batch ``step``, moved to ``device`` as it was stored, then augmented there."""
        rows = self.rows_at(step)[rank::world]
        batch = tuple(select(array, rows).to(device) for array in self.arrays)
        if self.transform is None:
            return batch
        return self.transform(batch, torch.Generator().manual_seed(derive(self.seed, "augment", step, rank)))


def select(array: np.ndarray | Tensor | Store, rows: np.ndarray) -> Tensor:
    """Rows of an array as a tensor of their own; of one on disk, nothing else is read."""
    if isinstance(array, Tensor):
        return array.index_select(0, torch.from_numpy(rows))
    return torch.from_numpy(np.ascontiguousarray(array[rows]))
