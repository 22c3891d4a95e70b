"""A machine that ages, or feels the seasons, is not a machine that fails: what following a slow drift costs and saves.

    OMP_NUM_THREADS=1 python benchmarks/drift.py

Simulated indicators, every two hours for 250 days, the first fifth declared normal; the library's settings were not
chosen on them. Of every machine all indicators follow a season (a year's sine from the end of the normal period, of up
to two and a half spreads of the noise), half of the machines age beside it (up to three spreads by the end, of two of
the indicators), and two thirds fail: a fault that grows over the last two weeks ("fast") or the last eight ("slow"),
to eight spreads. Each machine is judged with each number of spreads that a drift may take, by one fit. Of machines that
do not fail, and before a fault begins, every alarm is false.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tables import interval

from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.hardware import describe_hardware, one_thread
from unlabeled.core.progress import quiet
from unlabeled.sensors import MachineMonitor, Recording
from unlabeled.sensors.alarms import HOURS_PER_MONTH, episodes
from unlabeled.sensors.recording import make

HERE = Path(__file__).parent
ROWS, NORMAL, SPREAD, EVERY_H = 3000, 600, 0.05, 2
FAULTS = {"none": 0, "fast": 14 * 12, "slow": 56 * 12}  # rows
SPREADS = (0.0, 1.5, 3.0)
NAMES = ("rms", "band 1", "band 2", "temperature")


def machine(seed: int, fault: str) -> Recording:
    rng = np.random.default_rng(seed)
    rows = np.arange(ROWS)
    z = rng.normal(size=(ROWS, len(NAMES)))
    season = np.sin(2 * np.pi * np.clip(rows - NORMAL, 0, None) * EVERY_H / 8766)
    z += season[:, None] * rng.uniform(-2.5, 2.5, len(NAMES))
    if seed % 2:
        z[:, 1:3] += np.clip((rows - NORMAL) / (ROWS - NORMAL), 0, None)[:, None] * rng.uniform(0, 3, 2)
    if fault != "none":
        z[:, :2] += 8 * np.clip(1 - (ROWS - 1 - rows) / FAULTS[fault], 0, None)[:, None] ** 2
    return make(f"{fault}-{seed}", 1 + SPREAD * z, rows * float(EVERY_H), names=NAMES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, default=4, help="of each kind of fault")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    quiet(True)
    rows = []
    for fault in FAULTS:
        for seed in range(given.machines):
            rows += judged(fault, seed)
            print(fault, seed, flush=True)
    facts = {"machines": given.machines, "hardware": describe_hardware(), "rows": rows}
    write_atomically(given.out / "drift.json", json.dumps(facts, indent=1) + "\n")
    write_atomically(given.out / "drift.md", "\n".join(page(rows)) + "\n")
    print("\n".join(page(rows)))


def judged(fault: str, seed: int) -> Iterator[dict[str, object]]:
    recording = machine(seed, fault)
    with one_thread():
        monitor = MachineMonitor(random_state=seed).fit(recording, normal_share=NORMAL / ROWS)
        for drift in SPREADS:
            on = monitor.set_params(drift=drift).score(recording)["alarm"].to_numpy()
            row = counted(on, ROWS - FAULTS[fault])
            yield {"machine": recording.asset, "fault": fault, "drift": drift, **row}


def counted(on: NDArray[np.bool_], begins: int) -> dict[str, object]:
    """False alarms a month before the fault; hours ahead of the alarm that holds to the end and began within it."""
    starts = [e for e in episodes(on) if e.start >= NORMAL]
    false = sum(e.start < begins for e in starts)
    caught = [e for e in starts if e.start >= begins and e.stop == len(on)]
    was_on = bool(on[begins - 1]) if begins < ROWS else False
    return {
        "false alarms a month": false / ((begins - NORMAL) * EVERY_H / HOURS_PER_MONTH),
        "share of the time in false alarm": float(on[NORMAL:begins].mean()),
        "hours ahead": float(ROWS - 1 - caught[0].start) * EVERY_H if caught else None,
        "in alarm already": was_on,
    }


def page(rows: list[dict[str, object]]) -> list[str]:
    lines = ["# Ageing, seasons and faults", "", *(__doc__ or "").strip().splitlines()[2:], ""]
    lines += [
        "| spreads that may drift | false alarms a machine-month | share of the time in false alarm | "
        "fast faults: found | hours ahead | in alarm already | "
        "slow faults: found | hours ahead | in alarm already |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for drift in SPREADS:
        own = [row for row in rows if row["drift"] == drift]
        cells = [f"{drift:g}", interval([float(str(row["false alarms a month"])) for row in own], digits=2)]
        cells.append(interval([float(str(row["share of the time in false alarm"])) for row in own], digits=2))
        for fault in ("fast", "slow"):
            of_fault = [row for row in own if row["fault"] == fault]
            leads = [float(str(row["hours ahead"])) for row in of_fault if row["hours ahead"] is not None]
            cells.append(f"{len(leads)} of {len(of_fault)}")
            cells.append(interval(leads, digits=0) if leads else "-")
            cells.append(str(sum(bool(row["in alarm already"]) for row in of_fault)))
        lines.append("| " + " | ".join(cells) + " |")
    hardware = ", ".join(str(value) for value in describe_hardware().values())
    return [*lines, "", f"Student's 95 % intervals over machines. Hardware: {hardware}."]


if __name__ == "__main__":
    main()
