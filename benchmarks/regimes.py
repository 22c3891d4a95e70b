"""What knowing a machine's speed is worth: simulated machines that are run at several speeds, with and without it.

    python benchmarks/regimes.py

Indicators follow the speed, which takes one of three values; from row 400 to 430 a machine is run at a fourth one, and
the last quarter of the failing machines' lives holds a growing fault. The first quarter is declared normal. A monitor
is fitted with the speed as an operating condition, and one without it; the alarm rule is the default's.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from tables import interval

from unlabeled.core.hardware import describe_hardware, one_thread
from unlabeled.core.progress import quiet
from unlabeled.sensors import MachineMonitor, Recording
from unlabeled.sensors.alarms import episodes
from unlabeled.sensors.recording import make

HERE = Path(__file__).parent
ROWS, NEW, FAULT = 800, slice(400, 430), 600
WITH, WITHOUT = "with the speed", "without"


def machine(seed: int, *, fault: bool) -> Recording:
    rng = np.random.default_rng(seed)
    speed = rng.choice([900.0, 1200.0, 1500.0], ROWS) + rng.normal(0, 8, ROWS)
    speed[NEW] = rng.uniform(1900, 2300) + rng.normal(0, 8, 30)
    gain = (speed / 1200) ** rng.uniform(1.5, 2.5)
    values = np.stack([gain, 0.4 * gain**1.5, 3 + 0.5 * gain, 40 + speed / 75], axis=1)
    values *= 1 + 0.04 * rng.normal(size=values.shape)
    if fault:
        worse = np.clip((np.arange(ROWS) - FAULT) / (ROWS - FAULT), 0, None)
        values[:, 0] *= 1 + rng.uniform(0.3, 0.8) * worse
        values[:, 2] *= 1 + rng.uniform(0.3, 0.8) * worse
    return make(f"m{seed}", values, np.arange(ROWS) / 6, names=("rms", "band", "kurtosis", "temperature"),
                conditions=speed, condition_names=("speed",))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, default=20, help="half of them fail")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    quiet(True)
    rows = []
    for seed in range(given.machines):
        recording = machine(seed, fault=seed % 2 == 0)
        for name in (WITH, WITHOUT):
            one = recording if name == WITH else replace(recording, conditions=None, condition_names=())
            with one_thread():
                table = MachineMonitor(random_state=seed).fit(one).score(one)
            starts = [e.start for e in episodes(table["alarm"])]
            caught = [row for row in starts if row >= FAULT]
            rows.append(
                {
                    "machine": seed, "monitor": name, "fails": seed % 2 == 0,
                    "false alarms": sum(row < FAULT or seed % 2 == 1 for row in starts),
                    "lead_h": (ROWS - 1 - caught[0]) / 6 if caught and seed % 2 == 0 else None,
                    "new regime": int((table["state"] == "new regime").sum()),
                }
            )  # fmt: skip
    facts = {"machines": given.machines, "hardware": describe_hardware(), "rows": rows}
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "regimes.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (given.out / "regimes.md").write_text(_markdown(facts, rows), encoding="utf-8")


def _markdown(facts: dict[str, object], rows: list[dict[str, object]]) -> str:
    lines = ["# Machines that are run at several speeds", "", *str(__doc__).strip().splitlines()[2:], ""]
    lines += [
        "| monitor | failures announced | hours ahead | false alarms a machine | readings called a new regime (30) |"
    ]
    lines += ["|---|---|---|---|---|"]
    for name in (WITH, WITHOUT):
        own = [row for row in rows if row["monitor"] == name]
        leads = [float(str(row["lead_h"])) for row in own if row["lead_h"] is not None]
        false = [float(str(row["false alarms"])) for row in own]
        new = [float(str(row["new regime"])) for row in own]
        lines.append(
            f"| {name} | {len(leads)} of {sum(bool(row['fails']) for row in own)} | {interval(leads, digits=1)} | "
            f"{interval(false, digits=2)} | {interval(new, digits=1)} |"
        )
    lines += ["", f"Student's 95 % intervals over machines. Hardware: {facts['hardware']}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
