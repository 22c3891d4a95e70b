"""What a fleet's prior is worth to a machine that is new: simulated bearings, judged from their first readings on.

    OMP_NUM_THREADS=1 python benchmarks/fleet_prior.py

Each fleet is of five well machines, whose first quarters (10.5 days, a reading every three hours) teach an encoder and
leave a prior. Four other machines then come: two stay well for 42 days, two fail after them, by a fault that grows for
the last eight. Each is judged four times with the same encoder: by a normal period of its own (the first quarter, as
``fit`` does by default) and by the prior with its first 3, 10 and 29 readings. Alarms before the fault, and all of well
machines, are false; they are counted from the reading on from which each judge knows anything, and, to compare like
with like, from the end of the first quarter on. Library defaults; fleets, machines and settings were fixed before the
first run.
"""

import argparse
import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from tables import interval

from unlabeled.core.hardware import describe_hardware, one_thread
from unlabeled.core.progress import quiet
from unlabeled.sensors import MachineMonitor, Recording, simulate
from unlabeled.sensors.alarms import episodes

HERE = Path(__file__).parent
PLAN = simulate.Plan()
OWN = "a normal period of its own (84 readings)"
FEW = (3, 10, 29)


def judged(encoder: MachineMonitor, machine: Recording, *, fleet: int, known: int | None) -> dict[str, object]:
    monitor = copy.deepcopy(encoder)
    quarter = machine.normal_rows()
    if known is None:
        monitor.fit(machine)
    else:
        monitor.fit(machine.rows(slice(0, known)), normal_share=1.0)
        assert monitor.begun_ is not None
    table = monitor.score(machine)
    fails, fault_days = machine.failure_h is not None, PLAN.fault_days
    assert fault_days is not None
    sound = machine.hours < machine.hours[-1] - 24 * fault_days if fails else np.ones(len(machine), dtype=bool)
    began = quarter if known is None else known
    starts = [e.start for e in episodes(table["alarm"]) if e.start >= began]
    false = [row for row in starts if sound[row]]
    caught = [row for row in starts if not sound[row]]
    on = table["alarm"].to_numpy(dtype=bool)
    return {
        "fleet": fleet, "machine": machine.asset, "known": known, "fails": fails,
        "lead_h": (float(machine.hours[-1] - machine.hours[caught[0]]) if caught else 0.0) if fails else None,
        "false alarms": len(false), "after the quarter": sum(row >= quarter for row in false),
        "time in false alarm": float(on[began:][sound[began:]].mean()),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fleets", type=int, default=4)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    quiet(True)
    rows = []
    with one_thread():
        for fleet in range(given.fleets):
            encoder = MachineMonitor(random_state=fleet).pretrain(
                simulate.fleet(healthy=5, failing=0, seed=1000 + fleet, plan=PLAN)
            )
            for machine in simulate.fleet(healthy=2, failing=2, seed=2000 + fleet, plan=PLAN):
                machine = replace(machine, asset=f"new {machine.asset}")  # another one than the fleet's of that name
                rows += [judged(encoder, machine, fleet=fleet, known=known) for known in (None, *FEW)]
    facts = {"fleets": given.fleets, "hardware": describe_hardware(), "rows": rows}
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "fleet_prior.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (given.out / "fleet_prior.md").write_text(_markdown(facts, rows), encoding="utf-8")


def _markdown(facts: dict[str, object], rows: list[dict[str, object]]) -> str:
    def numbers(own: list[dict[str, object]], name: str) -> list[float]:
        return [float(str(row[name])) for row in own if row[name] is not None]

    lines = ["# A new machine and its fleet's prior", "", *str(__doc__).strip().splitlines()[2:], ""]
    lines += ["| judged by | failures announced | hours ahead (of 192) | false alarms a machine | thereof after the "
              "first quarter | share of sound time in false alarm |", "|---|---|---|---|---|---|"]  # fmt: skip
    for known in (None, *FEW):
        own = [row for row in rows if row["known"] == known]
        leads = numbers(own, "lead_h")
        lines.append(
            f"| {OWN if known is None else f'the prior and {known} readings'} | "
            f"{sum(lead > 0 for lead in leads)} of {len(leads)} | {interval(leads, digits=0)} | "
            f"{interval(numbers(own, 'false alarms'), digits=2)} | "
            f"{interval(numbers(own, 'after the quarter'), digits=2)} | "
            f"{interval(numbers(own, 'time in false alarm'), digits=3)} |"
        )
    lines += ["", "A failure that is not announced counts as 0 h. Student's 95 % intervals over machines. Hardware: "
              f"{facts['hardware']}."]  # fmt: skip
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
