"""Short names for data and splits, so that two runs can be told to have used the same."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def of_array(*arrays: NDArray) -> str:
    """16 hex digits over dtype, shape and content of the arrays, in order."""
    digest = hashlib.blake2b(digest_size=8)
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data if array.size else b"")
    return digest.hexdigest()


def of_names(names: Iterable[object]) -> str:
    """16 hex digits over a list of identifiers, in order."""
    digest = hashlib.blake2b(digest_size=8)
    for name in names:
        digest.update(f"{name}\n".encode())
    return digest.hexdigest()
