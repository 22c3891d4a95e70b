"""Does hearing the overall level as soon as its plain rule does cost anything on machines that stay well?

    OMP_NUM_THREADS=1 python benchmarks/sensors_level.py

Simulated machines, library defaults: of each fleet four well ones teach the encoder, eight well ones and six that fail
are judged by the score with the level, without it, and by the level alone, under one alarm rule.
"""

import copy
from pathlib import Path

import numpy as np
import torch

from unlabeled.core import progress
from unlabeled.core.checkpoints import write_atomically
from unlabeled.sensors import MachineMonitor, simulate
from unlabeled.sensors.alarms import alarm_states
from unlabeled.sensors.backtest import judge
from unlabeled.sensors.monitor import PARTS

SEEDS = (101, 102)


def main() -> None:
    torch.set_num_threads(1)
    progress.quiet(True)
    lines = [
        "# The overall level on simulated machines",
        "",
        "`OMP_NUM_THREADS=1 python benchmarks/sensors_level.py`",
        "",
    ]
    lines += [
        "| fleet | score | false alarms, 8 well | false alarms, 6 failing | mean lead (h) |",
        "|---|---|---|---|---|",
    ]
    for seed in SEEDS:
        for way, (well, failing, leads) in fleet(seed).items():
            lines.append(f"| {seed} | {way} | {well} | {failing} | {np.mean(leads):.1f} |")
    write_atomically(Path(__file__).parent / "results" / "sensors_level.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


def fleet(seed: int) -> dict[str, tuple[int, int, list[float]]]:
    """False alarms on well and on failing machines, and the leads, by score."""
    machines = simulate.fleet(healthy=12, failing=6, seed=seed)
    encoder = MachineMonitor().pretrain(machines[:4])
    found: dict[str, tuple[int, int, list[float]]] = {}
    for machine in machines[4:]:
        monitor = copy.deepcopy(encoder).fit(machine)
        table, failed = monitor.score(machine), machine.failure_h is not None
        ways = {
            "with the level": table["score"].to_numpy(),
            "without": table[list(PARTS)].mean(axis=1).to_numpy(),
            "level alone": table["level"].to_numpy() * monitor.threshold_ / 3,
        }
        for way, score in ways.items():
            smoothed, on = alarm_states(score, monitor.threshold_, monitor.rule)
            result = judge(
                way, machine, alarm=on, exceeds=smoothed > monitor.threshold_, normal_rows=machine.normal_rows(),
                failed=failed,
            )  # fmt: skip
            well, failing, leads = found.get(way, (0, 0, []))
            false = result.false_alarms
            found[way] = (well + (0 if failed else false), failing + (false if failed else 0),
                          [*leads, result.lead_h] if failed else leads)  # fmt: skip
    return found


if __name__ == "__main__":
    main()
