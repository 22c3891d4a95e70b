"""How many channels can one core follow?

    OMP_NUM_THREADS=1 python benchmarks/sensors_speed.py

Simulated machines, library defaults, one core. The whole chain of a reading: health, features, encoder, parts of the
score, alarm rule; with files, each written as npz (float32) beforehand and read from disk. Channels followed: axes
times the length of a snapshot over the time that it takes, as if recording never paused. The median over the readings
of one run; the fit is one day of snapshots every ten minutes, with an encoder that was pretrained before, and with its
own.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from unlabeled.core import progress
from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.hardware import describe_hardware
from unlabeled.sensors import MachineMonitor, Recording, read, simulate
from unlabeled.sensors.recording import make

HERE = Path(__file__).parent
FS = 25_600.0
YEAR = 365 * 144 * 100  # snapshots of 100 sensors every ten minutes
INDICATORS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readings", type=int, default=200)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    progress.quiet(True)
    found: dict[str, Any] = {"hardware": describe_hardware(), "readings": given.readings}
    for seconds in (0.1, 1.0):
        machine = _machine(seconds, given.readings)
        pretrained = MachineMonitor().pretrain([machine], normal_share=1.0)
        day = machine.rows(slice(0, 144))
        found[f"fit_{seconds:g}"] = _timed(lambda day=day: MachineMonitor().fit(day, normal_share=1.0))
        monitor = pretrained
        found[f"fit_known_{seconds:g}"] = _timed(lambda m=monitor, day=day: m.fit(day, normal_share=1.0))
        found[f"snapshot_{seconds:g}"] = _each(monitor, machine)
        found[f"file_{seconds:g}"] = _files(monitor, machine)
    trend = _trend(given.readings + 100)
    found["row"] = _each(MachineMonitor().fit(trend, normal_share=0.3), trend)
    write_atomically(given.out / "sensors_speed.json", json.dumps(found, indent=1) + "\n")
    write_atomically(given.out / "sensors_speed.md", markdown(found))
    print(markdown(found))


def _machine(seconds: float, readings: int) -> Recording:
    plan = simulate.Plan(fs=FS, seconds=seconds, every_h=1 / 6, days=readings / 144, fault_days=None)
    return simulate.bearing("pump", seed=0, plan=plan)


def _trend(rows: int) -> Recording:
    draw = np.random.default_rng(0)
    names = tuple(f"indicator {i}" for i in range(INDICATORS))
    return make("pump", draw.normal(size=(rows, INDICATORS)), np.arange(rows) / 6, names=names)


def _timed(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _each(monitor: MachineMonitor, recording: Recording) -> float:
    """Median seconds of one reading."""
    stream = monitor.stream()
    taken = [_timed(lambda values=values: stream.push(values)) for values in recording.values]
    return median(taken[20:])  # a trend is judged from its 16th row on


def _files(monitor: MachineMonitor, recording: Recording) -> float:
    """Median seconds of a file with one reading, read and judged."""
    stream, taken = monitor.stream(), []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(min(len(recording), 100)):
            path = Path(folder) / f"{i}.npz"
            np.savez(
                path, acc=recording.values[i : i + 1], fs=FS, timestamps=["2024-01-01"], axes=list(recording.names)
            )
            taken.append(_timed(lambda path=path: stream.push(read(path)[0].values[0])))
    return median(taken[20:])


def markdown(found: dict[str, Any]) -> str:
    assert __doc__ is not None
    usage, said = __doc__.split("\n\n")[1:3]
    lines = ["# How many channels one core follows", "", f"`{usage.strip()}`", "", " ".join(said.split()), ""]
    lines += ["Hardware: " + ", ".join(str(v) for v in found["hardware"].values()) + ".", ""]
    lines += [
        "| what | a reading takes, ms | in real time, a core | a year of 100 sensors every ten minutes, two cores |"
    ]
    lines += ["|---|---|---|---|"]
    for seconds in ("0.1", "1"):
        for kind, words in (("snapshot", "in memory"), ("file", "from a file")):
            each = found[f"{kind}_{seconds}"]
            lines.append(
                f"| snapshot of {seconds} s, two axes at 25.6 kHz, {words} | {1e3 * each:.1f} | "
                f"{2 * float(seconds) / each:.0f} channels | {YEAR / 2 * each / 2 / 3600:.1f} h |"
            )
    row = found["row"]
    lines.append(
        f"| row of {INDICATORS} indicators | {1e3 * row:.1f} | {INDICATORS / row:.0f} indicators a second | "
        f"{YEAR / INDICATORS * row / 2 / 3600:.1f} h |"
    )
    lines += [
        "",
        "| fit on one day (144 snapshots) | with its own encoder, s | with a pretrained one, s |",
        "|---|---|---|",
    ]
    for seconds in ("0.1", "1"):
        lines.append(
            f"| snapshots of {seconds} s | {found[f'fit_{seconds}']:.1f} | {found[f'fit_known_{seconds}']:.1f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
