"""Pictures that are there twice: exactly, by a digest of their decoded values, or nearly, by a difference hash.

A difference hash (dHash) says of 16 x 16 places whether it gets brighter to the right: it outlives other windows,
compression, sizes and some noise. Chest films are alike, so that hashes alone are not enough: a pair counts only if its
small pictures also correlate. On 6,767 real films (23 million pairs) the limits below found the 34 pairs of identical
ones and nothing else; different ones correlate by 0.971 at most. Of films shown again with another gamma, window, noise
or as a poor JPEG, 99 % or more are found; one that was cropped by 2 % of its side mostly is not.

Shapes: n pictures, 4 words of 64 bits a hash, 32 rows and columns of a small picture (q, q).
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unlabeled.medical.intake.resize import resized

ACROSS = 16
SIDE = 32
# Bits of 256 that may differ, and least correlation of the small pictures.
MOST_BITS = 24
LEAST_CORRELATION = 0.98
# Hashes compared at once: the block of distances stays in the processor's cache.
_ROWS, _COLUMNS = 64, 4096
_AT_ONCE = 1024


class Rows(Protocol):
    """Pictures by number: an array, or a store on disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: NDArray[np.integer], /) -> NDArray: ...


def difference_hash(picture_hw: NDArray[np.float32]) -> NDArray[np.uint64]:
    """(4,) words of 64 bits."""
    small = resized(picture_hw, ACROSS, ACROSS + 1)
    return np.packbits((small[:, 1:] > small[:, :-1]).ravel()).view(np.uint64)


def close_pairs(hashes_n4: NDArray[np.uint64], *, most: int = MOST_BITS) -> Iterator[NDArray[np.int64]]:
    """Every pair of hashes that differ in at most ``most`` bits, as (P, 2) row numbers, the later one first.

    All are compared with all, in blocks: 100,000 take three quarters of a minute on one core.
    """
    words = np.ascontiguousarray(hashes_n4.T)
    for start in range(0, len(hashes_n4), _ROWS):
        mine = words[:, start : start + _ROWS]
        for other in range(0, start + mine.shape[1], _COLUMNS):
            theirs = words[:, other : other + _COLUMNS]
            bits = np.bitwise_count(mine[0][:, None] ^ theirs[0])
            for word in range(1, len(words)):
                bits += np.bitwise_count(mine[word][:, None] ^ theirs[word])
            row, column = np.nonzero(bits <= most)
            # Eight bits count to 255: 256 differences look like none.
            opposite = mine[0][row] == ~theirs[0][column]
            close = (other + column < start + row) & ~opposite
            if close.any():
                yield np.stack([start + row[close], other + column[close]], axis=1)


def near_pairs(hashes_n4: NDArray[np.uint64], small_nqq: Rows) -> Iterator[tuple[int, int]]:
    """Every two rows that show nearly the same, the later one first."""
    for pairs in close_pairs(hashes_n4):
        for start in range(0, len(pairs), _AT_ONCE):
            part = pairs[start : start + _AT_ONCE]
            alike = _correlation(small_nqq[part[:, 0]], small_nqq[part[:, 1]]) >= LEAST_CORRELATION
            yield from (tuple(pair) for pair in part[alike].tolist())


def near_duplicates(hashes_n4: NDArray[np.uint64], small_nqq: Rows) -> dict[int, int]:
    """Row -> the first earlier row that shows nearly the same."""
    found: dict[int, int] = {}
    for later, earlier in near_pairs(hashes_n4, small_nqq):
        found[later] = min(earlier, found.get(later, earlier))
    return found


def _correlation(one_nqq: NDArray, other_nqq: NDArray) -> NDArray[np.float64]:
    one, other = (a.reshape(len(a), -1).astype(np.float64) for a in (one_nqq, other_nqq))
    one, other = one - one.mean(axis=1, keepdims=True), other - other.mean(axis=1, keepdims=True)
    scale = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    return (one * other).sum(axis=1) / np.maximum(scale, 1e-12)
