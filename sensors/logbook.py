"""What a monitoring job knows, on disk: readings, cases, and what has to be told, in one SQLite file.

Everything that one file of readings changes is written in one transaction: killed at any moment, a job finds either all
of it or none, and a reading is judged once.
"""

import json
import math
import sqlite3
import time as time_of
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from unlabeled.core.errors import DataError

VERSION = 1
# A pause longer than this between two readings that were judged counts as so long.
LONGEST_H = 24.0
_JUDGED = ("normal", "alarm")
OPEN, ACKNOWLEDGED, CLEARED = "open", "acknowledged", "cleared"
_TABLES = """
CREATE TABLE files (name TEXT PRIMARY KEY, print TEXT NOT NULL, why TEXT NOT NULL, tried REAL NOT NULL);
CREATE TABLE counts (
    asset TEXT NOT NULL, state TEXT NOT NULL, readings INTEGER NOT NULL, PRIMARY KEY (asset, state)
) WITHOUT ROWID;
CREATE TABLE readings (
    asset TEXT NOT NULL, time TEXT NOT NULL, state TEXT NOT NULL, alarm INTEGER NOT NULL,
    score REAL, smoothed REAL, reason TEXT NOT NULL, file TEXT NOT NULL, PRIMARY KEY (asset, time)
) WITHOUT ROWID;
CREATE TABLE machines (
    asset TEXT PRIMARY KEY, model TEXT NOT NULL, last TEXT NOT NULL, threshold REAL NOT NULL, memory TEXT NOT NULL
);
CREATE TABLE cases (
    id INTEGER PRIMARY KEY, asset TEXT NOT NULL, state TEXT NOT NULL, opened TEXT NOT NULL, acknowledged TEXT,
    cleared TEXT, highest REAL NOT NULL, evidence TEXT NOT NULL
);
CREATE UNIQUE INDEX one_open_case ON cases (asset) WHERE state != 'cleared';
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, asset TEXT NOT NULL, time TEXT NOT NULL, kind TEXT NOT NULL,
    told TEXT NOT NULL
);
CREATE INDEX about ON events (asset, kind, id);
CREATE TABLE monitored (asset TEXT PRIMARY KEY, last TEXT NOT NULL, hours REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE cursors (name TEXT PRIMARY KEY, last INTEGER NOT NULL, place INTEGER NOT NULL);
"""


@dataclass(frozen=True)
class Case:
    """An alarm of one machine, from its start until it has cleared; there is never more than one at a time."""

    id: int
    asset: str
    state: str
    opened: str
    acknowledged: str | None
    cleared: str | None
    highest: float
    evidence: Mapping[str, Any]


@dataclass(frozen=True)
class Event:
    """Something to be told: ``alarm``, ``danger``, ``cleared``, ``late``, ``refused``, ``silent``, or ``settings`` of
    the job itself; ids only ever grow."""

    id: int
    asset: str
    time: str
    kind: str
    told: Mapping[str, Any]

    def line(self) -> str:
        """One line of JSON."""
        return json.dumps({"id": self.id, "asset": self.asset, "time": self.time, "kind": self.kind, **self.told})


class Logbook:
    """One job's memory.

    Args:
        path: the SQLite file; made where there is none.
        read_only: look at what another process writes, without ever standing in its way.

    Raises:
        DataError: the file is something else, or of another version.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        try:
            if read_only:
                self._db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)
                (version,) = self._db.execute("PRAGMA user_version").fetchone()
            else:
                self._db, version = _opened(path)
        except sqlite3.DatabaseError as error:
            raise DataError(f"{path} is no logbook of a monitoring job ({error})") from None
        if version != VERSION:
            raise DataError(f"{path} is no logbook of this version ({version} instead of {VERSION})")

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> "Logbook":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def together(self) -> AbstractContextManager[None]:
        """All that is written inside is there afterwards, or nothing of it."""
        return _transaction(self._db)

    def apart(self) -> AbstractContextManager[None]:
        """Of what is written inside, nothing is there when it fails; what was written :meth:`together` before stays."""
        return _whole(self._db, "SAVEPOINT apart", "ROLLBACK TO apart; RELEASE apart", "RELEASE apart")

    # Files

    def tried(self, file: str) -> tuple[str, str, float] | None:
        """How a file looked when it was last dealt with, why something of it was refused, and when (Unix seconds)."""
        row = self._db.execute("SELECT print, why, tried FROM files WHERE name = ?", (file,)).fetchone()
        return None if row is None else (str(row[0]), str(row[1]), float(row[2]))

    def dealt_with(self, file: str, looked: str, *, at: float, why: str = "") -> None:
        """A file need not be read again while it looks so, or, where something was refused, not soon."""
        self._db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", (file, looked, why, at))

    # Readings

    def memory(self, asset: str, *models: str) -> tuple[np.datetime64 | None, dict[str, Any] | None]:
        """When a machine was last judged, and what its stream remembers: nothing under other models than these."""
        row = self._db.execute("SELECT model, last, memory FROM machines WHERE asset = ?", (asset,)).fetchone()
        if row is None:
            return None, None
        return np.datetime64(str(row[1]), "ns"), json.loads(row[2]) if row[0] in models else None

    def remember(
        self, asset: str, model: str, last: np.datetime64, *, threshold: float, memory: Mapping[str, Any]
    ) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO machines VALUES (?, ?, ?, ?, ?)",
            (asset, model, _text(last), threshold, json.dumps(memory)),
        )

    def known(self, asset: str, first: np.datetime64, last: np.datetime64) -> set[np.datetime64]:
        """Times from the first to the last of which there is a reading."""
        found = self._db.execute(
            "SELECT time FROM readings WHERE asset = ? AND time BETWEEN ? AND ?", (asset, _text(first), _text(last))
        )
        return {np.datetime64(str(time), "ns") for (time,) in found}

    def reading(self, asset: str, time: np.datetime64, judged: Mapping[str, Any], *, file: str) -> None:
        """Keeps what was said of one reading (:meth:`~unlabeled.sensors.stream.Stream.push`)."""
        numbers = [_number(judged.get(name)) for name in ("score", "smoothed")]
        self._db.execute(
            "INSERT INTO readings VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (asset, _text(time), judged["state"], int(judged["alarm"]), *numbers, judged["reason"], file),
        )
        self._db.execute(
            "INSERT INTO counts VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET readings = readings + 1",
            (asset, judged["state"]),
        )
        if judged["state"] in _JUDGED:
            _monitored(self._db, asset, time)

    def readings(
        self, asset: str, *, last: int = -1, since: np.datetime64 | None = None, late: bool = True
    ) -> list[dict[str, Any]]:
        """A machine's readings in order of time: all or the ``last``, from ``since`` on, with those that came too
        ``late`` to be judged or without."""
        names = ("time", "state", "alarm", "score", "smoothed", "reason", "file")
        rows = self._db.execute(
            f"SELECT {', '.join(names)} FROM readings WHERE asset = ? AND time >= ? AND (? OR state != 'late') "
            "ORDER BY time DESC LIMIT ?",
            (asset, "" if since is None else _text(since), late, last),
        )
        return [dict(zip(names, row, strict=True)) for row in rows][::-1]

    def last_reason(self, asset: str) -> str:
        """Why a machine's last reading was not judged; empty where it was, or there is none."""
        rows = self._db.execute(
            "SELECT reason FROM readings WHERE asset = ? AND state != 'late' ORDER BY time DESC LIMIT 1", (asset,)
        )
        return next((str(reason) for (reason,) in rows), "")

    def counts(self) -> list[tuple[str, str, int]]:
        """How many readings of each machine were said to be in each state."""
        return list(self._db.execute("SELECT asset, state, readings FROM counts"))

    def thresholds(self) -> dict[str, float]:
        """Of each machine that was judged."""
        return dict(self._db.execute("SELECT asset, threshold FROM machines ORDER BY asset"))

    def last_times(self) -> dict[str, np.datetime64]:
        """When each machine was last judged."""
        rows = self._db.execute("SELECT asset, last FROM machines ORDER BY asset")
        return {asset: np.datetime64(str(last), "ns") for asset, last in rows}

    def monitored_h(self) -> dict[str, float]:
        """Hours in which each machine was judged: between readings that could be, a pause counting a day at most."""
        return {asset: float(hours) for asset, hours in self._db.execute("SELECT asset, hours FROM monitored")}

    # Cases

    def case_of(self, asset: str) -> Case | None:
        """The machine's case, open or acknowledged, if there is one."""
        where = "FROM cases WHERE asset = ? AND state != 'cleared'"
        return next((Case(**row) for row in self._rows(Case, where, "evidence", asset)), None)

    def cases(self) -> list[Case]:
        """All cases, the newest first."""
        return [Case(**row) for row in self._rows(Case, "FROM cases ORDER BY id DESC", "evidence")]

    def open_case(self, asset: str, time: np.datetime64, score: float, evidence: Mapping[str, Any]) -> int:
        cursor = self._db.execute(
            "INSERT INTO cases (asset, state, opened, highest, evidence) VALUES (?, ?, ?, ?, ?)",
            (asset, OPEN, _text(time), score, json.dumps(evidence)),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def rise(self, case: int, score: float) -> None:
        self._db.execute("UPDATE cases SET highest = max(highest, ?) WHERE id = ?", (score, case))

    def clear(self, case: int, time: np.datetime64) -> None:
        self._db.execute("UPDATE cases SET state = ?, cleared = ? WHERE id = ?", (CLEARED, _text(time), case))

    def acknowledge(self, case: int, time: np.datetime64) -> None:
        """Somebody looks after it; it is cleared when the machine is calm again.

        Raises:
            DataError: there is no such case, or it is not open.
        """
        with self.together():
            changed = self._db.execute(
                "UPDATE cases SET state = ?, acknowledged = ? WHERE id = ? AND state = ?",
                (ACKNOWLEDGED, _text(time), case, OPEN),
            ).rowcount
        if not changed:
            raise DataError(f"there is no open case {case}")

    # Events

    def tell(self, asset: str, time: np.datetime64, kind: str, told: Mapping[str, Any]) -> None:
        self._db.execute(
            "INSERT INTO events (asset, time, kind, told) VALUES (?, ?, ?, ?)",
            (asset, _text(time), kind, json.dumps(told)),
        )

    def events(self, *, after: int = 0) -> list[Event]:
        """What was to be told after the event of that id, in order."""
        return [Event(**row) for row in self._rows(Event, "FROM events WHERE id > ? ORDER BY id", "told", after)]

    def _rows(self, kind: type[Case | Event], where: str, as_json: str, *given: object) -> Iterator[dict[str, Any]]:
        """Rows by the names of a class, one of its columns read from JSON."""
        names = [field.name for field in fields(kind)]
        for row in self._db.execute(f"SELECT {', '.join(names)} {where}", given):
            found = dict(zip(names, row, strict=True))
            yield {**found, as_json: json.loads(found[as_json])}

    def cursor(self, name: str) -> int:
        """The id of the last event that was told there."""
        return self.place(name)[0]

    def place(self, name: str) -> tuple[int, int | None]:
        """The same, and where in a file the next one goes (bytes), where that is known."""
        row = self._db.execute("SELECT last, place FROM cursors WHERE name = ?", (name,)).fetchone()
        return (0, None) if row is None else (int(row[0]), int(row[1]))

    def drop_cursor(self, name: str) -> None:
        self._db.execute("DELETE FROM cursors WHERE name = ?", (name,))

    def lines_told(self) -> int:
        """The id of the last event that was written to any file of lines."""
        found = self._db.execute("SELECT coalesce(max(last), 0) FROM cursors WHERE name LIKE 'lines%'")
        return int(found.fetchone()[0])

    def told_elsewhere(self) -> int:
        """The id of the last event that was told anywhere."""
        return int(self._db.execute("SELECT coalesce(max(last), 0) FROM cursors").fetchone()[0])

    def move_cursor(self, name: str, last: int, place: int = 0) -> None:
        self._db.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?)", (name, last, place))

    def last_event(self, asset: str, kind: str) -> Event | None:
        """The newest of a kind about a machine."""
        where = "FROM events WHERE asset = ? AND kind = ? ORDER BY id DESC LIMIT 1"
        return next((Event(**row) for row in self._rows(Event, where, "told", asset, kind)), None)


def _opened(path: Path) -> tuple[sqlite3.Connection, int]:
    """A logbook to write in, made where there is none, and its version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, isolation_level=None, timeout=30)
    _write_ahead(db)
    db.execute("PRAGMA synchronous = FULL")  # what is acknowledged survives a power cut
    with _transaction(db):  # two jobs may begin at once
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if not version and not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            for statement in filter(str.strip, _TABLES.split(";")):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {VERSION}")
            version = VERSION
        elif version == VERSION:
            _count_before(db)
    return db, int(version)


def _write_ahead(db: sqlite3.Connection) -> None:
    """SQLite does not wait for another that changes the same at the same time: it is asked again."""
    ends = time_of.monotonic() + 30
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time_of.monotonic() > ends:
                raise
            time_of.sleep(0.01)


def _count_before(db: sqlite3.Connection) -> None:
    """Adds up what an earlier version, which did not, has kept."""
    if db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'monitored'").fetchone()[0]:
        return
    db.execute(next(one for one in _TABLES.split(";") if "TABLE monitored" in one))
    wanted = ", ".join(f"'{state}'" for state in _JUDGED)
    for asset, time in db.execute(f"SELECT asset, time FROM readings WHERE state IN ({wanted}) ORDER BY asset, time"):
        _monitored(db, asset, np.datetime64(str(time), "ns"))


def _monitored(db: sqlite3.Connection, asset: str, time: np.datetime64) -> None:
    before = db.execute("SELECT last, hours FROM monitored WHERE asset = ?", (asset,)).fetchone()
    last, hours = (time, 0.0) if before is None else (np.datetime64(str(before[0]), "ns"), float(before[1]))
    further = float((time - last) / np.timedelta64(1, "h"))
    db.execute(
        "INSERT OR REPLACE INTO monitored VALUES (?, ?, ?)",
        (asset, _text(max(time, last)), hours + min(max(further, 0.0), LONGEST_H)),
    )


@contextmanager
def _whole(db: sqlite3.Connection, begin: str, undo: str, end: str) -> Iterator[None]:
    """All that is written inside, or nothing of it."""
    db.execute(begin)
    try:
        yield
    except BaseException:
        for statement in undo.split(";"):
            db.execute(statement)
        raise
    db.execute(end)


def _transaction(db: sqlite3.Connection) -> AbstractContextManager[None]:
    return _whole(db, "BEGIN IMMEDIATE", "ROLLBACK", "COMMIT")


def _text(time: np.datetime64) -> str:
    """Of one length, so that texts are in order of time."""
    return str(time.astype("datetime64[ns]"))


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
