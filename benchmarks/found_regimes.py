"""What regimes found from the data are worth where nobody measured the speed: simulated machines, judged three ways.

    OMP_NUM_THREADS=1 python benchmarks/found_regimes.py

The machines, all of them with their speed hidden from two of the three monitors, and half of them failing:
"three speeds": those of benchmarks/regimes.py, at a speed that changes from reading to reading, with a new one from row
400 to 430; "two speeds": one of two for stretches of 5 to 40 readings, no new one; "look-alike": the same, but the
fault moves every indicator of the slow speed, and of no other, towards the fast one's, all the way at the end: the
fault that found regimes hide best; "one speed": there is nothing to find. The first quarter is declared normal and the
last quarter of a failing machine's life holds the growing fault. The encoder is small (32 wide, 2 deep, 50 steps), all
else is the defaults; seeds, machines and settings were fixed before the first complete run.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from regimes import FAULT, NEW, ROWS
from regimes import machine as three_speeds
from tables import interval

from unlabeled.core.hardware import describe_hardware, one_thread
from unlabeled.core.progress import quiet
from unlabeled.sensors import MachineMonitor, Recording
from unlabeled.sensors.alarms import episodes
from unlabeled.sensors.recording import make

HERE = Path(__file__).parent
KNOWN, FOUND, BLIND = "speed known", "regimes found", "not asked"
KINDS = ("three speeds", "two speeds", "look-alike", "one speed")


def machine(kind: str, seed: int, *, fault: bool) -> Recording:
    if kind == "three speeds":
        return three_speeds(seed, fault=fault)
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    fast = np.zeros(ROWS, dtype=bool)
    at, now = 0, bool(rng.integers(2))
    while at < ROWS and kind != "one speed":
        stretch = int(rng.integers(5, 41))
        fast[at : at + stretch] = now
        at, now = at + stretch, not now
    speed = np.where(fast, 1500.0, 1000.0) + rng.normal(0, 8, ROWS)
    power = rng.uniform(1.5, 2.5)

    def usual(speed: np.ndarray) -> np.ndarray:
        gain = (speed / 1200) ** power
        return np.stack([gain, 0.4 * gain**1.5, 3 + 0.5 * gain, 40 + speed / 75], axis=1)

    worse = np.clip((np.arange(ROWS) - FAULT) / (ROWS - FAULT), 0, None)[:, None] * fault
    values = usual(speed)
    if kind == "look-alike":
        values += np.where(fast[:, None], 0, worse) * (usual(speed + 500) - values)
    else:
        values[:, [0, 2]] *= 1 + rng.uniform(0.3, 0.8, size=2) * worse
    values *= 1 + 0.04 * rng.normal(size=values.shape)
    return make(f"m{seed}", values, np.arange(ROWS) / 6, names=("rms", "band", "kurtosis", "temperature"),
                conditions=speed, condition_names=("speed",))  # fmt: skip


def judged(kind: str, name: str, seed: int) -> dict[str, object]:
    fails = seed % 2 == 0
    recording = machine(kind, seed, fault=fails)
    one = recording if name == KNOWN else replace(recording, conditions=None, condition_names=())
    with one_thread():
        monitor = MachineMonitor(dim=32, depth=2, steps=50, random_state=seed, find_regimes=name == FOUND).fit(one)
        table = monitor.score(one)
    starts = [e.start for e in episodes(table["alarm"])]
    false = [row for row in starts if row < FAULT or not fails]
    caught = [row for row in starts if row >= FAULT and fails]
    # The median of so many scores is above the threshold for a while after the new speed has ended.
    new = range(NEW.start, NEW.stop + monitor.rule.smooth + monitor.rule.of) if kind == "three speeds" else ()
    found = monitor.conditional_ if name == FOUND else None
    return {
        "machine": seed, "kind": kind, "monitor": name, "fails": fails,
        "regimes": 1 if found is None else len(found.regimes.centres),  # type: ignore[union-attr]
        "at the new speed": sum(row in new for row in false), "false alarms": sum(row not in new for row in false),
        "lead_h": (ROWS - 1 - caught[0]) / 6 if caught else 0.0 if fails else None,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, default=6, help="of each kind; half of them fail")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    quiet(True)
    rows = [judged(kind, name, seed) for kind in KINDS for seed in range(given.machines)
            for name in (KNOWN, FOUND, BLIND)]  # fmt: skip
    facts = {"machines": given.machines, "hardware": describe_hardware(), "rows": rows}
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "found_regimes.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (given.out / "found_regimes.md").write_text(_markdown(facts, rows), encoding="utf-8")


def _markdown(facts: dict[str, object], rows: list[dict[str, object]]) -> str:
    def numbers(own: list[dict[str, object]], name: str) -> list[float]:
        return [float(str(row[name])) for row in own if row[name] is not None]

    lines = ["# Regimes found from the data", "", *str(__doc__).strip().splitlines()[2:], ""]
    lines += ["| machines | monitor | failures announced | hours ahead (of 33.2) | false alarms a machine | "
              "of the new speed | regimes found |", "|---|---|---|---|---|---|---|"]  # fmt: skip
    for kind in KINDS:
        for name in (KNOWN, FOUND, BLIND):
            own = [row for row in rows if row["kind"] == kind and row["monitor"] == name]
            leads, new = numbers(own, "lead_h"), numbers(own, "at the new speed")
            regimes = sorted(int(n) for n in numbers(own, "regimes"))
            lines.append(
                f"| {kind} | {name} | {sum(lead > 0 for lead in leads)} of {len(leads)} | "
                f"{interval(leads, digits=1)} | {interval(numbers(own, 'false alarms'), digits=2)} | "
                f"{interval(new, digits=2) if kind == KINDS[0] else '-'} | "
                f"{', '.join(f'{n}: {regimes.count(n)}' for n in sorted(set(regimes))) if name == FOUND else '-'} |"
            )
    lines += ["", "A failure that is not announced counts as 0 h; alarms of the new speed are those that start within "
              "its readings or while the rule still looks back on them, and are not among the others. Regimes found: "
              "how many regimes on how many machines. Student's 95 % intervals over machines. Hardware: "
              f"{facts['hardware']}."]  # fmt: skip
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
