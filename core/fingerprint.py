"""Short names for data and splits, so that two runs can be told to have used the same."""

import hashlib
import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.store import Store, chunks, unmapped

_AT_ONCE = 64 << 20


def of_array(*arrays: NDArray | Store) -> str:
    """16 hex digits over dtype, shape and content of the arrays, in order; rows on disk, mapped ones too, are read
    a part at a time."""
    digest = hashlib.blake2b(digest_size=8)
    for array in map(unmapped, arrays):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        if not math.prod(array.shape):
            continue
        row = math.prod(array.shape[1:]) * array.dtype.itemsize
        for rows in chunks(len(array), max(1, _AT_ONCE // row)):
            digest.update(np.ascontiguousarray(array[rows]).view(np.uint8).reshape(-1).data)
    return digest.hexdigest()


def of_names(names: Iterable[object]) -> str:
    """16 hex digits over a list of identifiers, in order."""
    digest = hashlib.blake2b(digest_size=8)
    for name in names:
        digest.update(f"{name}\n".encode())
    return digest.hexdigest()
