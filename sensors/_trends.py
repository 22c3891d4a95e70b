"""Condition-indicator trends (RMS, kurtosis, temperature...) from Parquet and CSV tables.

What a column is shows in its beginning, so that rows which are added to a file change nothing of what was read before.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlabeled.core.errors import DataError
from unlabeled.sensors import _clock, units
from unlabeled.sensors.recording import Recording

ASSET_NAMES = ("asset", "machine", "bearing", "run", "unit", "asset_id", "machine_id")
NOT_INDICATORS = ("snapshot", "index", "row", "sample", "fs", "id")
# Cells at the beginning of a column, missing ones not counted, that tell what it holds.
BEGINNING = 20
# What says that a machine ran.
TRUE = ("true", "t", "yes", "y", "on")
# Prefixes that name a direction or a place of one machine, not a machine.
DIRECTIONS = {"h", "v", "x", "y", "z", "a", "de", "fe", "ba", "ax", "ay", "az", "horizontal", "vertical", "axial"}


def asset_column(table: pd.DataFrame) -> str | None:
    """The column that names the machine, if there is one."""
    unit = unit_column(table)
    lower = {str(name).lower(): str(name) for name in table.columns if name != unit}
    return next((lower[name] for name in ASSET_NAMES if name in lower), None)


def unit_column(table: pd.DataFrame) -> str | None:
    """The column that says what the numbers are in: of that name, and beginning with nothing else."""
    for name in table.columns:
        if str(name).lower() not in units.NAMES:
            continue
        said = table[name].dropna().iloc[:BEGINNING]
        if len(said) and all(map(units.is_unit, said.unique())):
            return str(name)
    return None


def read_table(
    table: pd.DataFrame,
    path: Path,
    *,
    running_column: str,
    operating: Sequence[str] = (),
    dates: _clock.Dates | None = None,
) -> list[Recording]:
    """One recording a machine.

    Machines are told apart by an asset column, or by prefixes: columns ``B1_rms, B1_kurt, B2_rms, B2_kurt`` are
    two machines with the same two indicators.
    """
    source = str(path)
    table = table.reset_index(drop=True)
    time = _clock.find([str(c) for c in table.columns], source=source)
    # Of all machines at once: days and months may be told apart by the rows of another one.
    times = _clock.read(table[time].to_numpy(), source=source, dates=dates)
    asset, unit = asset_column(table), unit_column(table)
    check_operating(operating, [str(c) for c in table.columns], source)
    aside = {
        time,
        asset,
        unit,
        running_column,
        *operating,
        *(c for c in table.columns if str(c).lower() in NOT_INDICATORS),
    }
    table, notes = _numbers(table, [c for c in table.columns if c not in aside])
    numeric = [str(c) for c in table.columns if c not in aside and pd.api.types.is_numeric_dtype(table[c])]
    numeric = [c for c in numeric if not pd.api.types.is_bool_dtype(table[c])]
    texts = [str(c) for c in table.columns if c not in aside and c not in numeric]
    if not numeric:
        raise DataError(f"{source}: no numeric column beside the time; add one for each indicator")
    if texts:
        notes.append(f"columns without numbers left out: {', '.join(texts)}")
    if asset is not None:
        notes.append(f"machines told apart by column {asset!r}")
        return [
            _recording(
                asset_name(name), group, numeric, numeric, times.at(group.index.to_numpy()), source, running_column,
                operating, notes,
            )
            for name, group in table.groupby(asset, sort=False)
        ]  # fmt: skip
    wide = _prefixes(numeric)
    if wide:
        notes.append(f"machines told apart by the prefixes {', '.join(wide)}")
        return [
            _recording(prefix, table, columns, [c[len(prefix) + 1 :] for c in columns], times, source, running_column,
                       operating, notes)
            for prefix, columns in wide.items()
        ]  # fmt: skip
    return [_recording(path.stem, table, numeric, numeric, times, source, running_column, operating, notes)]


def check_operating(operating: Sequence[str], there: Sequence[str], source: str) -> None:
    """Raises a DataError where operating conditions that were named are not among the columns or arrays."""
    missing = [name for name in operating if name not in there]
    if missing:
        raise DataError(f"{source}: no {', '.join(missing)} for --operating (has {', '.join(there)})")


def conditions_of(table: pd.DataFrame, operating: Sequence[str], rows: NDArray) -> NDArray[np.float64] | None:
    """(n, conditions) of the rows in their order, NaN where a cell is no number; ``None`` where none are named."""
    if not operating:
        return None
    cells = [pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64)[rows] for name in operating]
    return np.stack(cells, axis=1)


def asset_name(cell: object) -> str:
    """A machine's name; its number is a whole one, also where a missing cell elsewhere made the column a decimal."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def ran(cells: pd.Series) -> NDArray[np.bool_]:
    """(n,) whether the machine ran: true cells, numbers but 0, and words such as ``True``, ``yes`` and ``on``; anything
    else, a missing cell too, says that it stood."""
    if pd.api.types.is_bool_dtype(cells.dtype) or pd.api.types.is_numeric_dtype(cells.dtype):
        return cells.fillna(0).to_numpy(dtype=bool)
    words = cells.fillna("").astype(str).str.strip().str.lower()
    return (words.isin(TRUE) | (pd.to_numeric(words, errors="coerce").fillna(0) != 0)).to_numpy(dtype=bool)


def _numbers(table: pd.DataFrame, columns: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """The table with such text columns read as numbers as begin with numbers, and a note for each of them.

    A logger writes a word now and then (``err``), or from some day on: those are missing cells, no reason to drop the
    channel. At least half of the first ``BEGINNING`` cells that are not missing have to be numbers, or of all where
    there are fewer. A column without any cell is a channel of missing ones, as of a sensor that came later.
    """
    read: dict[str, pd.Series] = {}
    notes = []
    for name in columns:
        cells = table[name]
        if pd.api.types.is_numeric_dtype(cells) or not (cells.dtype == object or pd.api.types.is_string_dtype(cells)):
            continue
        truths = cells.map(lambda cell: isinstance(cell, bool | np.bool_)).to_numpy(dtype=bool)
        numbers = pd.to_numeric(cells.mask(truths), errors="coerce").astype(np.float64)
        beginning = numbers[cells.notna()].iloc[:BEGINNING]
        if beginning.isna().sum() > len(beginning) / 2:
            continue
        read[name] = numbers
        wrong = cells[numbers.isna() & cells.notna()]
        if len(wrong):
            notes.append(
                f"column {name}: {len(wrong)} cell(s) that are no number (such as {str(wrong.iloc[0])!r}) are missing"
            )
        else:
            notes.append(f"column {name}: text, read as numbers")
    return table.assign(**read), notes


def _prefixes(columns: list[str]) -> dict[str, list[str]]:
    """``{prefix: columns}`` when every column is PREFIX_indicator and all prefixes have the same indicators."""
    parts = [re.fullmatch(r"([^_]+)_(.+)", column) for column in columns]
    if not all(parts):
        return {}
    groups: dict[str, list[str]] = {}
    for part in parts:
        assert part is not None
        groups.setdefault(part[1], []).append(part[0])
    kinds = {tuple(c[len(prefix) + 1 :] for c in group) for prefix, group in groups.items()}
    if len(groups) < 2 or len(kinds) != 1 or {p.lower() for p in groups} & DIRECTIONS:
        return {}
    return groups


def _recording(
    asset: str,
    table: pd.DataFrame,
    columns: list[str],
    names: list[str],
    times: _clock.Times,
    source: str,
    running_column: str,
    operating: Sequence[str],
    notes: list[str],
) -> Recording:
    ordered = _clock.order(times, source=source)
    rows = ordered.rows
    unit = unit_column(table)
    values = table[columns].to_numpy(dtype=np.float64)[rows]
    running = np.ones(len(rows), dtype=bool)
    if running_column in table:
        running = ran(table[running_column])[rows]
    return Recording(
        asset=asset,
        values=values.astype(np.float32),
        names=tuple(names),
        hours=ordered.hours,
        unit="" if unit is None else units.common(table[unit].unique(), source=f"{source}, {asset}"),
        clock=ordered.clock,
        conditions=conditions_of(table, operating, rows),
        condition_names=tuple(operating),
        running=running,
        flaws=np.full(len(rows), "", dtype="<U120"),
        skipped=ordered.skipped,
        notes=(*notes, *ordered.notes),
        source=source,
        index=rows,
    )
