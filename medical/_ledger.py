"""Who is behind a pseudonym: kept by the site, apart from the data."""

import csv
import hashlib
import io
import os
import secrets
import stat
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from unlabeled.core.errors import DataError
from unlabeled.medical._pseudonyms import SHORTEST_KEY

_PRIVATE = 0o600
# A spreadsheet would take a cell that begins so for a formula.
_FORMULA = ("=", "+", "-", "@", "\t")


@dataclass(frozen=True, kw_only=True)
class Link:
    """One picture's row of the ledger; empty text where a file says nothing.

    Attributes:
        patient_id, issuer, study, series, instance, accession: as the hospital's archive knows them.
        days_back: how many days this patient's dates were moved back.
        pseudonym, new_study, new_series, new_instance, new_accession: what stands for them in the data.
    """

    patient_id: str
    issuer: str
    study: str
    series: str
    instance: str
    accession: str
    days_back: int
    pseudonym: str
    new_study: str
    new_series: str
    new_instance: str
    new_accession: str


_COLUMNS = tuple(field.name for field in fields(Link))
_ORIGINALS = 6


def site_key(path: Path) -> bytes:
    """The site's secret: read, or made of 32 random bytes and written as hexadecimal text with mode 0600.

    Who holds it can recompute pseudonyms from patient ids: keep it with the ledger, apart from the data.

    Raises:
        DataError: the file is readable by others, or holds no key.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
    except FileExistsError:
        return _read_key(path)
    key = secrets.token_bytes(32)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(key.hex() + "\n")
    return key


def _read_key(path: Path) -> bytes:
    _check_private(path, "site key")
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except ValueError:
        key = b""
    if len(key) < SHORTEST_KEY:
        raise DataError(
            f"{path} holds no site key: expected at least {2 * SHORTEST_KEY} hexadecimal digits. "
            "Name the right file, or one that does not exist yet to have a key made"
        )
    return key


class Ledger:
    """Appends links to a CSV file that only its owner may read; a row that is there already is not written twice.

    One process writes: workers hand their links to it. Rows of a run that was cut off stay, and an unfinished last
    row is dropped. A cell that a spreadsheet would take for a formula is preceded by an apostrophe.

    Args:
        path: the CSV file; made with its folder where missing.
        store: the folder of the de-identified data, in which the ledger must not lie.

    Raises:
        DataError: the path lies inside the store, others may read the file, or it is no ledger.
    """

    def __init__(self, path: Path, *, store: Path) -> None:
        self.path = Path(path)
        inside, outer = self.path.resolve(), Path(store).resolve()
        if inside == outer or outer in inside.parents:
            raise DataError(
                f"the ledger {path} would lie inside the store {store}: it names patients, so keep it elsewhere"
            )
        # 16 bytes for each side of a row, so that a long archive stays small in memory.
        self._seen: dict[bytes, bytes] = {}
        if self.path.exists():
            _check_private(self.path, "ledger")
            self._take_up()
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE))
        if not self.path.stat().st_size:
            self._write(_line(_COLUMNS))

    def add(self, links: Iterable[Link]) -> int:
        """Appends what is new and returns how many rows that is; they are on disk when this returns.

        Raises:
            DataError: a file is known under another pseudonym, so another site key is in use.
        """
        lines = []
        for link in links:
            cells = tuple(_cell(value) for value in astuple(link))
            if self._note(cells):
                lines.append(_line(cells))
        if lines:
            self._write("".join(lines))
        return len(lines)

    def _note(self, cells: tuple[str, ...]) -> bool:
        """Whether the row is new."""
        original, stands_for = _digest(cells[:_ORIGINALS]), _digest(cells[_ORIGINALS:])
        known = self._seen.get(original)
        if known is not None and known != stands_for:
            raise DataError(
                f"{self.path} knows a file of this run under another pseudonym: it was written with another site key. "
                "Give the key of the first run, or a new ledger and a new store"
            )
        self._seen[original] = stands_for
        return known is None

    def _take_up(self) -> None:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))
        rows = csv.reader(io.StringIO(whole.decode("utf-8")))
        if whole and tuple(next(rows)) != _COLUMNS:
            raise DataError(f"{self.path} is no ledger: expected the columns {', '.join(_COLUMNS)}")
        for row in rows:
            self._note(tuple(row))

    def _write(self, content: str) -> None:
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def _check_private(path: Path, what: str) -> None:
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise DataError(f"the {what} {path} can be read by others: chmod 600 {path}, and consider who has seen it")


def _cell(value: object) -> str:
    # A line break would make two rows of one, and leave a torn last row unseen.
    said = " ".join(str(value).splitlines())
    return f"'{said}" if said.startswith(_FORMULA) else said


def _line(cells: Iterable[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _digest(cells: tuple[str, ...]) -> bytes:
    return hashlib.blake2b("\0".join(cells).encode(), digest_size=16).digest()
