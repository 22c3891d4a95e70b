"""The store's tables, written row by row as Parquet and as CSV: they may be longer than memory."""

import csv
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from unlabeled.medical._ledger import _cell as safe_cell

# Column -> type. Text is empty, never missing, where something is not known.
GATE = {
    "file": str,
    "state": str,
    "reason": str,
    "detail": str,
    "flags": str,
    "like": str,
    "patient": str,
    "study": str,
    "series": str,
    "instance": str,
}
STUDIES = {
    "instance": str,
    "patient": str,
    "study": str,
    "series": str,
    "age_band": str,
    "sex": str,
    "view": str,
    "device": str,
    "date": str,
    "body_part": str,
    "site": str,
    "flags": str,
    "like": str,
    "rows": int,
    "columns": int,
    "border_top": int,
    "border_bottom": int,
    "border_left": int,
    "border_right": int,
    "masked": int,
    "file": str,
}


class Table:
    """One table, as ``name.parquet`` and ``name.csv`` in a folder; a context manager."""

    def __init__(self, folder: Path, name: str, columns: Mapping[str, type]) -> None:
        import pyarrow as pa

        kinds = {str: pa.string(), int: pa.int64()}
        self._schema = pa.schema([(column, kinds[kind]) for column, kind in columns.items()])
        self._paths = folder / f"{name}.parquet", folder / f"{name}.csv"
        self._open = ExitStack()

    def __enter__(self) -> "Table":
        import pyarrow.parquet as pq

        self._parquet = self._open.enter_context(pq.ParquetWriter(self._paths[0], self._schema))
        stream = self._open.enter_context(self._paths[1].open("w", encoding="utf-8", newline=""))
        self._csv = csv.DictWriter(stream, self._schema.names, lineterminator="\n")
        self._csv.writeheader()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def write(self, rows: list[dict[str, Any]]) -> None:
        import pyarrow as pa

        if rows:
            self._parquet.write_table(pa.Table.from_pylist(rows, schema=self._schema))
            self._csv.writerows(rows)


def write_names(path: Path, rows: Iterable[tuple[str, str, str]]) -> None:
    """Which file stands behind which digest and instance: for its owner's eyes, as the ledger is.

    A list that is there already may be of another folder under the same name: its other rows stay, so that no way back
    is lost.
    """
    before = _rows(path) if path.exists() else {}
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("file", "instance", "path"))
        for file, instance, name in rows:
            before.pop(file, None)
            writer.writerow((file, instance, safe_cell(name)))
        writer.writerows(before.values())
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(new, path)


def _rows(path: Path) -> dict[str, list[str]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        return {row[0]: row for row in list(csv.reader(stream))[1:] if row}
