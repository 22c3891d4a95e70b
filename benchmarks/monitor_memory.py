"""Does the monitoring job's memory grow? A simulated year of readings through one process, looked at all the way.

    OMP_NUM_THREADS=1 python benchmarks/monitor_memory.py

``unlabeled sensors fit`` learns what is normal of two simulated machines from a fortnight of their condition
indicators. One process, ``unlabeled sensors monitor`` with its status page, then watches a folder into which a year of
readings is renamed, a table an hour: a reading of each machine every ten minutes, as fast as they are judged. Every
month one machine has half a day of a fault (a case opens and clears), some values are missing, one table cannot be read
and one comes a day late. After every tenth of a month, all of it judged, the status page and the metrics are asked for
and the process's memory is read from /proc (Linux). Nothing is ever taken out of the folder or the logbook; the names
of all files in the folder are listed at each look, which takes some 70 bytes a file while it lasts.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.errors import DataError
from unlabeled.core.hardware import describe_hardware
from unlabeled.sensors.logbook import CLEARED, Logbook

HERE = Path(__file__).parent
MACHINES = ("fan-1", "fan-2")
INDICATORS = ("rms", "kurtosis", "peak", "temperature")
BEGIN = np.datetime64("2024-01-01T00:00", "m")
HOURS, BATCHES = 730, 10  # of a month; a year has twelve of them
AN_HOUR = 6  # readings of each machine
TAUGHT = 14 * 24  # hours
FAULT, MISSING, UNREADABLE, LATE = slice(240, 252), 400, 500, 600  # hours of each month
COMMAND = [sys.executable, "-c", "from unlabeled.pipelines.cli import main; main()", "sensors"]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What the job takes once all it was given is judged: MiB, the seconds that it took, and of its processor's."""

    month: int
    readings: int
    resident: float
    proportional: float
    own: float
    highest: float
    threads: int
    files: int
    logbook: float
    seconds: float
    processor: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--months", type=int, default=12)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        job = prepared(folder)
        port = int(job.read_text().rpartition("port = ")[2])
        with (folder / "said.txt").open("w") as said:
            running = subprocess.Popen([*COMMAND, "monitor", str(job)], cwd=folder, stdout=said, stderr=said)
        try:
            found = [one for month in range(1, given.months + 1) for one in year_goes_on(running, folder, month, port)]
        finally:
            running.send_signal(signal.SIGTERM)
            code = running.wait(timeout=60)
        content = {
            "hardware": describe_hardware(),
            "months": given.months,
            "exit_code": code,
            **remembered(folder),
            "samples": [asdict(one) for one in found],
        }
    given.out.mkdir(parents=True, exist_ok=True)
    write_atomically(given.out / "monitor_memory.json", json.dumps(content, indent=1) + "\n")
    write_atomically(given.out / "monitor_memory.md", markdown(content))
    print(markdown(content))


def prepared(folder: Path) -> Path:
    """Models by the command, an empty folder to watch, and the job file."""
    taught = pd.concat([table(hour - TAUGHT) for hour in range(TAUGHT)])
    taught.to_csv(folder / "fortnight.csv", index=False)
    fit = [*COMMAND, "fit", "fortnight.csv", "--normal-share", "1", "--out", "models"]
    subprocess.run(fit, cwd=folder, check=True, capture_output=True)
    (folder / "incoming").mkdir()
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    job = folder / "job.toml"
    job.write_text(
        'models = "models"\nevery_seconds = 0.5\n\n[[folders]]\npath = "incoming"\nsettled_seconds = 0\n\n'
        f"[status]\nport = {port}\n"
    )
    return job


def table(hour: int) -> pd.DataFrame:
    """An hour of readings of all machines, the same whenever it is asked for; nobody's faults before hour 0."""
    draw = np.random.default_rng((0, hour + TAUGHT))
    times = BEGIN + np.arange(hour * 60, hour * 60 + 60, 60 // AN_HOUR).astype("timedelta64[m]")
    day = np.sin(2 * np.pi * (times - BEGIN).astype(float) / (24 * 60))
    tables = []
    for machine in MACHINES:
        values = np.exp(0.05 * draw.normal(size=(AN_HOUR, len(INDICATORS)))) * [1.0, 3.0, 4.0, 45.0]
        values[:, 3] += 2 * day
        if hour >= 0 and machine == MACHINES[0]:
            at = hour % HOURS
            if FAULT.start <= at < FAULT.stop:
                values[:, :3] *= 2.0
            if at == MISSING:
                values[:, 1] = np.nan
        tables.append(pd.DataFrame(values.round(4), columns=list(INDICATORS)).assign(time=times, machine=machine))
    return pd.concat(tables)


def year_goes_on(running: subprocess.Popen[bytes], folder: Path, month: int, port: int) -> list[Sample]:
    """Puts a month of tables into the folder, a tenth at a time, and looks at the process after each."""
    found, every = [], HOURS // BATCHES
    for batch in range(BATCHES):
        began, used = time.monotonic(), processor_seconds(running.pid)
        for at in range(batch * every, (batch + 1) * every):
            put_hour(folder / "incoming", month, at)
        expected = due(month, (batch + 1) * every)
        while judged(folder) < expected:
            if running.poll() is not None:
                raise SystemExit(f"the job ended by itself:\n{(folder / 'said.txt').read_text()[-2000:]}")
            time.sleep(0.1)
        seconds, busy = time.monotonic() - began, processor_seconds(running.pid) - used
        for page in ("", "metrics"):
            with urllib.request.urlopen(f"http://localhost:{port}/{page}") as answer:
                answer.read()
        found.append(sample(running.pid, folder, month=month, readings=expected, seconds=seconds, processor=busy))
    print(json.dumps(asdict(found[-1])), flush=True)
    return found


def put_hour(incoming: Path, month: int, at: int) -> None:
    """One hour's table, as a recorder renames it into the folder; some hours go wrong."""
    hour = (month - 1) * HOURS + at
    if at == UNREADABLE:
        put(incoming, f"broken{month:02d}", "time,machine\nnothing,")
    if at == LATE + 24:
        put(incoming, f"late{month:02d}", table(hour - 24).to_csv(index=False))
    if at != LATE:
        put(incoming, f"h{hour:05d}", table(hour).to_csv(index=False))


def put(incoming: Path, name: str, text: str) -> None:
    new = incoming / f".{name}.new"
    new.write_text(text)
    os.replace(new, incoming / f"{name}.csv")


def due(month: int, hours: int) -> int:
    """Readings that were given until so many hours of a month are over."""
    away = 1 if LATE < hours <= LATE + 24 else 0
    return ((month - 1) * HOURS + hours - away) * AN_HOUR * len(MACHINES)


def judged(folder: Path) -> int:
    """Readings that the logbook knows, the late ones too."""
    try:
        with Logbook(folder / "monitor.sqlite", read_only=True) as book:
            return sum(count for _, _, count in book.counts())
    except DataError:  # it has not begun yet
        return 0


def sample(pid: int, folder: Path, *, month: int, readings: int, seconds: float, processor: float) -> Sample:
    memory, status = kilobytes(pid, "smaps_rollup"), kilobytes(pid, "status")
    size = sum(path.stat().st_size for path in folder.glob("monitor.sqlite*"))
    return Sample(
        month=month,
        readings=readings,
        resident=memory["Rss"] / 1024,
        proportional=memory["Pss"] / 1024,
        own=memory["Anonymous"] / 1024,
        highest=status["VmHWM"] / 1024,
        threads=status["Threads"],
        files=len(list(Path(f"/proc/{pid}/fd").iterdir())),
        logbook=size / 2**20,
        seconds=seconds,
        processor=processor,
    )


def kilobytes(pid: int, what: str) -> dict[str, int]:
    """The lines ``Name: number`` of a file of /proc."""
    lines = (line.split() for line in Path(f"/proc/{pid}/{what}").read_text().splitlines())
    return {line[0].rstrip(":"): int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def remembered(folder: Path) -> dict[str, Any]:
    """What the logbook says of the whole year."""
    with Logbook(folder / "monitor.sqlite", read_only=True) as book:
        states: dict[str, int] = {}
        for _, state, count in book.counts():
            states[state] = states.get(state, 0) + count
        cases, events = book.cases(), book.events()
    kinds = {kind: sum(event.kind == kind for event in events) for kind in sorted({event.kind for event in events})}
    return {"states": states, "cases": len(cases), "cleared": sum(c.state == CLEARED for c in cases), "events": kinds}


def markdown(content: Mapping[str, Any]) -> str:
    assert __doc__ is not None
    frame = pd.DataFrame(content["samples"])
    frame["more"] = frame["readings"].diff().fillna(frame["readings"])
    frame["rate"] = frame["more"] / frame["seconds"]
    each = frame.groupby("month").agg(
        resident=("resident", "mean"), proportional=("proportional", "mean"), own=("own", "mean"),
        highest=("highest", "last"), threads=("threads", "last"), files=("files", "last"), logbook=("logbook", "last"),
        readings=("readings", "last"), rate=("rate", "median"), processor=("processor", "sum"), more=("more", "sum"),
    )  # fmt: skip
    lines = [
        "# The monitoring job's memory over a simulated year",
        "",
        "`OMP_NUM_THREADS=1 python benchmarks/monitor_memory.py`",
        "",
        *(" ".join(part.split()) for part in __doc__.split("\n\n")[2:]),
        "",
        f"Hardware: {', '.join(str(value) for value in content['hardware'].values())}. Memory: mean over a month's "
        f"{BATCHES} looks (the highest: so far). Logbook: with its journal. Readings a second: the looks' median, "
        "with the half second between two looks into the folder, and whatever else the machine was doing; the "
        "processor's time is the job's alone.",
        "",
        "| month | resident, MiB | proportional share, MiB | anonymous, MiB | highest resident, MiB | threads | "
        "open files | logbook, MiB | readings a second | processor, ms a reading |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {month} | {row.resident:.1f} | {row.proportional:.1f} | {row.own:.1f} | {row.highest:.1f} | "
        f"{row.threads:.0f} | {row.files:.0f} | {row.logbook:.1f} | {row.rate:.0f} | "
        f"{1000 * row.processor / row.more:.2f} |"
        for month, row in each.iterrows()
    ]
    first, last = each.iloc[0], each.iloc[-1]
    lines += [
        "",
        f"Between month 1 and month {content['months']} the resident memory changes by "
        f"{last.resident - first.resident:+.1f} MiB ({(last.resident / first.resident - 1):+.1%}), the anonymous part "
        f"by {last.own - first.own:+.1f} MiB; in the second half of that time it grows by "
        f"{1024 * _a_month(each['own'].iloc[len(each) // 2 :]):+.0f} KiB a month. The logbook grows by "
        f"{_a_month(each['logbook']):.1f} MiB a month "
        f"({2**20 * _a_month(each['logbook']) / last.more:.0f} bytes a reading).",
        "",
        f"{last.readings:.0f} readings: {_told(content['states'])}. {content['cases']} cases, {content['cleared']} of "
        f"them cleared; events: {_told(content['events'])}. Told to end, the job ended with exit code "
        f"{content['exit_code']}. {content['months'] * AN_HOUR * len(MACHINES)} readings were meant to be late; "
        "more come about where a listing misses a table and shows the next one already, as it may while tables are "
        "renamed into a folder that is taken for settled at once (settled_seconds = 0), milliseconds apart.",
    ]
    return "\n".join(lines) + "\n"


def _a_month(values: pd.Series) -> float:
    """Growth from the first month to the last."""
    return float(values.iloc[-1] - values.iloc[0]) / (len(values) - 1) if len(values) > 1 else float("nan")


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


if __name__ == "__main__":
    main()
