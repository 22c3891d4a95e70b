"""Rows on disk, of which only those that are asked for come into memory.

The file is a plain ``.npy``: anybody can open it, with ``numpy.load(path, mmap_mode="r")`` or without us. Rows are read
rather than mapped: a page of a map brings its cached neighbours along, so that one batch of 256 rows of 4 KiB out of
512 MiB made 300 MiB resident (Linux 6.18), and a file that is cut short under a map kills the process.
"""

import copy
import math
import os
import weakref
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray

from unlabeled.core.errors import CheckpointError, DataError

Rows = TypeVar("Rows")


def chunks(total: int, size: int) -> Sequence[slice]:
    """Consecutive slices that cover ``range(total)``."""
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


class Store:
    """Equal rows of a ``.npy`` file, drawn by number; takes the place of an array in
    :class:`~unlabeled.core.batches.Batches`.

    Resident memory stays flat over a file of any size. (The system may cache the file in memory that nobody else
    needs.)

    Args:
        path: what :meth:`write`, or ``numpy.save`` of an array in C order, has written.

    Attributes:
        shape, dtype: as of an array; the first axis counts the rows.

    Raises:
        DataError: no such file.
        CheckpointError: not a ``.npy`` file, of objects (which would be a pickle), in Fortran order, or cut short.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(f"{self.path} is not a file: write a store first")
        self._stream = self.path.open("rb", buffering=0)
        weakref.finalize(self, self._stream.close)
        self.shape, self.dtype, self._start = _header(self._stream, self.path)
        # Of rows that were taken, and from which store; all rows where there are none.
        self._numbers: NDArray[np.integer] | None = None
        self._whole: Store | None = None
        self._row = math.prod(self.shape[1:]) * self.dtype.itemsize
        have = os.fstat(self._stream.fileno()).st_size - self._start
        if have != len(self) * self._row:
            expected = len(self) * self._row
            raise CheckpointError(f"{self.path} is cut short or overlong: {have} bytes of rows, expected {expected}")

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> "Store":
        """A store of these rows, in this order; they stay where they are.

        Raises:
            IndexError: there is no such row.
        """
        chosen = copy.copy(self)
        chosen._whole = self  # which keeps the file open
        chosen._numbers = self._all()[rows]
        chosen.shape = (len(chosen._numbers), *self.shape[1:])
        return chosen

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray:
        """All rows in memory, for what takes arrays alone.

        Raises:
            ValueError: they are asked for without being read (``copy=False``).
        """
        if copy is False:
            raise ValueError("rows on disk are always read into an array of their own")
        return self[:].astype(dtype, copy=False)

    def __getitem__(self, rows: slice | NDArray[np.integer]) -> NDArray:
        """Some rows, (R, ...), in an array of their own.

        Raises:
            IndexError: there is no such row.
            CheckpointError: the file became shorter meanwhile.
        """
        numbers = self._all()[rows]
        found = np.empty((len(numbers), *self.shape[1:]), dtype=self.dtype)
        into = found.reshape(-1).view(np.uint8).data
        # Neighbours are read at once.
        breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
        for begin, end in pairwise([0, *breaks, len(numbers)] if len(numbers) else []):
            place = into[begin * self._row : end * self._row]
            self._stream.seek(self._start + int(numbers[begin]) * self._row)
            if self._fill(place) != len(place):
                raise CheckpointError(f"{self.path} became shorter while it was read")
        return found

    def _all(self) -> NDArray[np.integer]:
        """Numbers of the rows in the file."""
        return np.arange(len(self)) if self._numbers is None else self._numbers

    def _fill(self, place: memoryview) -> int:
        """Bytes read; a system may hand over fewer at once than were asked for."""
        done = 0
        while done < len(place):
            count = self._stream.readinto(place[done:])
            if not count:
                break
            done += count
        return done

    @classmethod
    def write(cls, path: str | Path, parts: Iterable[NDArray], *, row: tuple[int, ...], dtype: DTypeLike) -> "Store":
        """Writes rows as they come and opens the store; until the last one is there, no file has its name.

        Args:
            path: of the file; its folder must exist.
            parts: arrays (R, *row) of any number of rows each; how many there will be need not be known.
            row: shape of a row.
            dtype: of the numbers; a part of another type is refused, not converted.

        Raises:
            DataError: a part of another shape or type.
        """
        path, kind = Path(path), np.dtype(dtype)
        new = path.with_name(f".{path.name}.new-{os.getpid()}")
        rows = 0
        try:
            with new.open("wb") as stream:
                before = _write_header(stream, (0, *row), kind)
                for part in parts:
                    if part.shape[1:] != row or part.dtype != kind:
                        raise DataError(f"rows are {row} of {kind} here, got {part.shape[1:]} of {part.dtype}")
                    stream.write(np.ascontiguousarray(part).data)
                    rows += len(part)
                stream.seek(0)
                after = _write_header(stream, (rows, *row), kind)
                assert before == after, "NumPy leaves room in the header for the number of rows to grow"
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(new, path)
        finally:
            new.unlink(missing_ok=True)
        return cls(path)


def unmapped(array: Rows) -> Rows | Store:
    """The rows on disk that a whole mapped ``.npy`` file shows, to be read rather than mapped (see above); any other
    array as it is. What was changed in memory alone is not among them."""
    if not isinstance(array, np.memmap) or not array.filename or not array.flags.c_contiguous:
        return array
    try:
        store = Store(array.filename)
    except (DataError, CheckpointError):  # mapped by other means
        return array
    same = (store.shape, store.dtype, store._start) == (array.shape, array.dtype, array.offset)
    return store if same else array


def _write_header(stream: BinaryIO, shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Returns where the rows begin."""
    described = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(stream, described)
    return stream.tell()


def _header(stream: BinaryIO, path: Path) -> tuple[tuple[int, ...], np.dtype, int]:
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except ValueError as error:
        raise CheckpointError(f"{path} is no .npy file: {error}") from None
    if dtype.hasobject:
        raise CheckpointError(f"{path} holds Python objects, which are never loaded")
    if fortran or not shape:
        raise CheckpointError(f"{path} is not in rows: save it in C order, with at least one axis")
    return shape, dtype, stream.tell()
