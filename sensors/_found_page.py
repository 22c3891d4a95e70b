"""What a page says of regimes that were found: how they differ, and which snapshots were judged in which."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from unlabeled.core.report import Section
from unlabeled.sensors import features
from unlabeled.sensors.found_regimes import ENOUGH, FoundRegimes

if TYPE_CHECKING:
    from unlabeled.sensors.monitor import MachineMonitor

_TELLING = 3  # indicators by which a reader recognises a regime


def show(section: Section, monitor: "MachineMonitor", table: pd.DataFrame) -> None:
    """Says it where regimes were looked for, found or not; nothing otherwise.

    Args:
        table: the scores of this page.
    """
    normal = monitor.conditional_
    if not monitor.find_regimes:
        return
    if normal is None or not isinstance(normal.regimes, FoundRegimes):
        section.text(
            "Regimes were looked for in the normal period and not found: each has to hold "
            f"{ENOUGH} snapshots, lie well apart from the others and have come back. All are judged as of one."
        )
        return
    numbers = range(1, len(normal.regimes.centres) + 1)
    members = [normal.regimes.members(number) for number in numbers]
    means = np.stack([normal.indicators[group].mean(axis=0) for group in members])
    within = np.sqrt(np.mean([normal.indicators[group].var(axis=0) for group in members], axis=0))
    telling = np.argsort(-np.ptp(means, axis=0) / np.maximum(within, 1e-12), kind="stable")[:_TELLING]
    names = monitor.names_ if monitor.fs_ is None else features.indicator_names(monitor.names_, monitor.fs_)
    here = table.get("regime", pd.Series(pd.NA, index=table.index))
    section.text(
        f"Nothing says how this machine is run; in the first two thirds of its normal period {len(numbers)} regimes "
        "were found, and each snapshot is judged within the nearest. A way of running that was not among them looks "
        "like a fault, and a fault that makes one look like another is partly hidden."
    )
    section.table(
        ["regime", "learnt from", *(names[i] for i in telling), "snapshots here", "of these in alarm"],
        [
            [number, len(group), *(float(mean[i]) for i in telling), int((here == number).sum()),
             int(((here == number) & table["alarm"]).sum())]
            for number, group, mean in zip(numbers, members, means, strict=True)
        ],
        note="Means of the indicators by which they differ most.",
    )  # fmt: skip
