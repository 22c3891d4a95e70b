"""Scoring several machines at once, one a core."""

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from unlabeled.core import progress
from unlabeled.core.errors import DataError
from unlabeled.sensors.monitor import MachineMonitor
from unlabeled.sensors.recording import Recording

WORTH = 4000  # snapshots; fewer are scored sooner than another process has loaded its libraries


def tables(work: Sequence[tuple[Recording, Path]], *, worth: int = WORTH) -> list[pd.DataFrame | DataError]:
    """What :meth:`~unlabeled.sensors.monitor.MachineMonitor.score` says of each recording by the model in its folder,
    or why it cannot be said; in order, and to the bit the same however many processes do it.

    Args:
        worth: from so many snapshots on, other cores help.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores, len(work))
    if workers < 2 or sum(len(recording) for recording, _ in work) < worth:
        return [_table(recording, folder) for recording, folder in work]
    from joblib import Parallel, delayed

    together = Parallel(n_jobs=workers, backend="loky", return_as="generator")
    found = []
    with progress.bar(f"scoring {len(work)} machines", len(work)) as shown:
        for one in together(delayed(_table)(recording, folder, quiet=True) for recording, folder in work):
            found.append(one)
            shown.advance()
    return found


def _table(recording: Recording, folder: Path, *, quiet: bool = False) -> pd.DataFrame | DataError:
    if quiet:  # in a process of its own
        progress.quiet(True)
    try:
        return MachineMonitor.load(folder).score(recording)
    except DataError as error:
        return error
