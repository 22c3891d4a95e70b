"""What is known of a machine's life: stretches of time in a known state, to look at while an encoder learns."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlabeled.core.audit.watch import looked_at
from unlabeled.core.errors import DataError
from unlabeled.core.progress import say
from unlabeled.sensors.recording import Recording
from unlabeled.sensors.views import MIN_REFERENCE, Scaling, look

COLUMNS = ("asset", "from", "until", "label")


class Asked(NamedTuple):
    """Snapshots whose state is known.

    Attributes:
        pictures: (N, C, H, W), scaled by the normal period of the machine that each is of.
        labels: (N,) the state in words.
    """

    pictures: NDArray[np.float32]
    labels: NDArray[np.str_]


def read_states(path: Path) -> pd.DataFrame:
    """A CSV with the columns ``asset, from, until, label``: both ends as dates, or as hours after the first snapshot.

    Raises:
        DataError: no such file, no table, or a column or a value is missing.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)  # a state may be called None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as CSV ({str(error).splitlines()[0]})") from None
    missing = [name for name in COLUMNS if name not in table]
    if missing or table.empty:
        wrong = f"has no column {', '.join(missing)}" if missing else "holds no line"
        raise DataError(f"{path} {wrong}: expected {', '.join(COLUMNS)}, a line for each stretch of a known state")
    table = table[list(COLUMNS)].apply(lambda column: column.str.strip())
    gaps = table == ""
    if gaps.to_numpy().any():
        row, column = (int(found[0]) for found in np.nonzero(gaps.to_numpy()))
        raise DataError(f"{path}, line {row + 2}: nothing stands under '{COLUMNS[column]}'")
    return table


def states(recording: Recording, table: pd.DataFrame) -> NDArray[np.str_]:
    """The state of each snapshot, (n,), from lines of :func:`read_states`; empty where it is not known. Both ends of a
    stretch belong to it.

    Raises:
        DataError: a stretch ends before it begins, two that differ overlap, or an end is neither hours nor a date.
    """
    found = np.full(len(recording), "", dtype=object)
    empty: list[str] = []
    for line in table[table["asset"] == recording.asset].itertuples(index=False):
        _, since, until, label = line
        low, high = recording.hours_at(since), recording.hours_at(until)
        if high < low:
            raise DataError(f"{recording.asset}: the state '{label}' ends at {until}, before it begins at {since}")
        inside = (recording.hours >= low) & (recording.hours <= high)
        other = inside & (found != "") & (found != label)
        if other.any():
            row = int(np.flatnonzero(other)[0])
            raise DataError(f"{recording.asset} is both '{found[row]}' and '{label}' at {recording.when(row)}")
        found[inside] = label
        if not inside.any():
            empty.append(f"'{label}' from {since} to {until}")
    if empty:
        say(f"{recording.asset} has no snapshot in the stretch {', nor in '.join(empty)}")
    return found.astype(np.str_)


def asked_of(
    fleet: Sequence[Recording], normal: Sequence[int], table: pd.DataFrame, *, window: int, seed: int
) -> Asked:
    """Some snapshots in a known state (:func:`~unlabeled.core.audit.watch.looked_at`), from anywhere in the records.

    Args:
        fleet: the recordings, whole.
        normal: how many rows the normal period of each has, by which its snapshots are scaled.
        table: lines of :func:`read_states`.
        window: rows of a trend that are seen together.
        seed: fixes which are drawn.

    Raises:
        DataError: a line names no machine of the fleet, or fewer than two states with two snapshots each can be judged.
    """
    unknown = sorted(set(table["asset"]) - {r.asset for r in fleet})
    if unknown:
        raise DataError(f"no machine {', '.join(unknown)} to learn from; there are {', '.join(r.asset for r in fleet)}")
    pictures, labels = [], []
    for recording, rows in zip(fleet, normal, strict=True):
        known = states(recording, table)
        if not (known != "").any():
            continue
        last = int(np.flatnonzero(known != "")[-1]) + 1
        seen = look(recording, rows=max(rows, last), window=window)
        reference = seen.rows < rows
        if reference.sum() < MIN_REFERENCE:
            say(
                f"the states of {recording.asset} are not looked at: {int(reference.sum())} snapshots of its normal "
                f"period can be judged, and {MIN_REFERENCE} are needed to take a scale from"
            )
            continue
        scaling = Scaling.of(seen.pictures[reference], seen.indicators[reference])
        inside = known[seen.rows] != ""
        pictures.append(scaling.picture(seen.pictures[inside]))
        labels.append(known[seen.rows[inside]])
    every = np.concatenate([np.empty(0, dtype=np.str_), *labels])
    chosen = looked_at(every, np.ones(len(every), dtype=bool), rows="snapshots", seed=seed)
    return Asked(np.concatenate(pictures)[chosen], every[chosen])
