"""The work on many files, in parts that are each written once: whatever is killed goes on where it was.

A part is some neighbouring files of the walk. What is written of it stands in the working folder under its number, with
a keyed digest of the files (path, size, time of change) and settings that it was made of; one that was made of others
is made anew.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from unlabeled.medical._ledger import Ledger
from unlabeled.medical._pseudonyms import Pseudonyms
from unlabeled.medical.intake._film import Film, Finding, Found

AT_ONCE = 32


class Part(NamedTuple):
    """Findings in the order of the walk; pictures, small pictures and hashes of those that are not refused."""

    made_of: str
    findings: list[Finding]
    pictures: NDArray[np.uint8]
    small: NDArray[np.uint8]
    hashes: NDArray[np.uint64]


class Parts:
    """The parts in a working folder.

    Args:
        folder: where.
        files: what the walk found.
        key: the site key.
        settings: what else a part depends on; anything that JSON can hold.
        size: rows and columns of a picture.
    """

    def __init__(
        self, folder: Path, files: Sequence[Found], key: bytes, *, settings: dict[str, Any], size: int
    ) -> None:
        self.folder, self.files, self.size = folder, files, size
        self._settings, self._stand_in = json.dumps(settings, sort_keys=True), Pseudonyms(key)

    def __len__(self) -> int:
        return -(-len(self.files) // AT_ONCE)

    def of(self, number: int) -> Sequence[Found]:
        return self.files[number * AT_ONCE : (number + 1) * AT_ONCE]

    def made_of(self, number: int) -> str:
        return self._stand_in.digest("part", json.dumps([self._settings, *self.of(number)]))

    def source(self) -> str:
        """A digest of everything: of the files of a folder as they are now, and of the settings."""
        return self._stand_in.digest("intake", "".join(self.made_of(number) for number in range(len(self))))

    def listed(self) -> str:
        """A digest of which files there are, as far as that is seen without opening them."""
        return self._stand_in.digest("files", json.dumps(list(self.files)))

    def done(self, number: int) -> bool:
        try:
            with np.load(self._path(number), allow_pickle=False) as part:
                return str(part["made_of"]) == self.made_of(number)
        except (OSError, ValueError, EOFError, KeyError, BadZipFile):  # cut short by a loss of power, say
            return False

    def write(self, number: int, films: Sequence[Film], ledger: Ledger) -> None:
        """The ledger first, so that a part that is there is in the ledger."""
        ledger.add(film.link for film in films if film.link is not None)
        kept = [film for film in films if film.picture is not None]
        new = self._path(number).with_suffix(".new")
        findings = json.dumps([asdict(film.finding) for film in films])
        with new.open("wb") as stream:
            np.savez(
                stream,
                made_of=np.array(self.made_of(number)),
                findings=np.frombuffer(findings.encode(), dtype=np.uint8),
                pictures=_stacked([film.picture for film in kept], (self.size, self.size), np.uint8),
                small=_stacked([film.small for film in kept], (32, 32), np.uint8),
                hashes=_stacked([film.hash for film in kept], (4,), np.uint64),
            )
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(new, self._path(number))

    def read(self, number: int) -> Part:
        with np.load(self._path(number), allow_pickle=False) as part:
            findings = [Finding(**row) for row in json.loads(part["findings"].tobytes())]
            return Part(str(part["made_of"]), findings, part["pictures"], part["small"], part["hashes"])

    def __iter__(self) -> Iterator[Part]:
        """One after the other, each read when it is asked for."""
        return (self.read(number) for number in range(len(self)))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"


def _stacked(arrays: Sequence[Any], shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
    return np.stack(arrays) if arrays else np.empty((0, *shape), dtype=dtype)
