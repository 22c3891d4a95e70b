"""A record that lies in many files, of which only the last ones asked for are in memory."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.errors import DataError

Values = NDArray[np.float32]
_KEPT = 2  # files: one that ends, and the one that goes on


class Shelf:
    """Gives the waveforms of a file's machine, and keeps those of the last few.

    Args:
        read: the waveforms of a file's machines.
    """

    def __init__(self, read: Callable[[Path], Sequence[Values]]) -> None:
        self._read = read
        self._prints: dict[Path, tuple[int, int] | None] = {}
        self._kept: OrderedDict[tuple[Path, int], Values] = OrderedDict()

    def note(self, path: Path) -> None:
        """Notes what a file is like now: rows of one that changes later would be others."""
        self._prints[path] = _print(path)

    def values(self, path: Path, number: int) -> Values:
        """Raises a DataError where the file is not what it was."""
        key = (path, number)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        while len(self._kept) >= _KEPT:
            self._kept.popitem(last=False)
        if _print(path) != self._prints[path]:
            raise DataError(f"{path} has changed, or is gone, since it was first read: start again")
        self._kept[key] = self._read(path)[number]
        return self._kept[key]


def _print(path: Path) -> tuple[int, int] | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_size, about.st_mtime_ns


class Parted:
    """Waveforms (n, samples, axes) of one or more files, which behave as an array of them would where rows are asked
    for one by one; stretches of rows, and axes in another order, are taken without reading anything.

    Args:
        shelf: where the files are read.
        places: (n, 2) the file's number and the row in it.
        sources: the files, and which of their machines.
        sampled: (samples, axes) of a snapshot.
        axes: which axes, in which order; all of them without it.
    """

    dtype = np.dtype(np.float32)
    ndim = 3

    def __init__(
        self,
        shelf: Shelf,
        places: NDArray[np.int64],
        sources: tuple[tuple[Path, int], ...],
        sampled: tuple[int, int],
        axes: tuple[int, ...] | None = None,
    ) -> None:
        self._shelf, self._places, self._sources = shelf, places, sources
        self._sampled, self._axes = sampled, axes

    @classmethod
    def whole(cls, shelf: Shelf, path: Path, number: int, values: Values) -> "Parted":
        n, samples, axes = values.shape
        places = np.stack([np.zeros(n, dtype=np.int64), np.arange(n)], axis=1)
        return cls(shelf, places, ((path, number),), (samples, axes))

    @classmethod
    def joined(cls, parts: Sequence["Parted"]) -> "Parted":
        """One after another; alike in samples and axes, and on one shelf."""
        first, ends = parts[0], np.cumsum([0, *(len(one._sources) for one in parts)])
        places = [one._places + np.array([begin, 0]) for one, begin in zip(parts, ends, strict=False)]
        sources = tuple(source for one in parts for source in one._sources)
        return cls(first._shelf, np.concatenate(places), sources, first._sampled, first._axes)

    @property
    def shape(self) -> tuple[int, int, int]:
        samples, axes = self._sampled
        return len(self._places), samples, axes if self._axes is None else len(self._axes)

    def __len__(self) -> int:
        return len(self._places)

    def select(self, rows: Any) -> "Parted":
        """Some of the rows, in this order."""
        return Parted(self._shelf, self._places[rows], self._sources, self._sampled, self._axes)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, int | np.integer):
            file, row = self._places[key]
            values = self._shelf.values(*self._sources[file])[row]
            return values if self._axes is None else values[:, list(self._axes)]
        if isinstance(key, slice):
            return self.select(key)
        if isinstance(key, tuple) and len(key) == 2 and key[0] is Ellipsis:
            known = range(self._sampled[1]) if self._axes is None else self._axes
            axes = tuple(known[axis] for axis in key[1])
            return Parted(self._shelf, self._places, self._sources, self._sampled, axes)
        if isinstance(key, tuple):
            return np.asarray(self)[key]
        return np.asarray(self.select(key))

    def __iter__(self) -> Iterator[Values]:
        return (self[row] for row in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        whole = np.empty(self.shape, dtype=np.float32)
        for row in range(len(self)):
            whole[row] = self[row]
        return whole if dtype is None else whole.astype(dtype)
