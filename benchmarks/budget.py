"""How good the prediction of a training's cost is: the products' own commands on real data, several runs a kind.

    OMP_NUM_THREADS=1 python benchmarks/budget.py --cache FOLDER [--runs 3] [--seconds 140]

Each command is sized by a dry run so that its training takes ``--seconds`` (payments: ten rounds through the data at
most), dry-run once more, and run; it predicts for itself after its first steps, and records what was spent. Counted is
the training alone, not reading, scoring and reports, which a dry run leaves out too. The load of the machine (means
of the minute before the dry run and of the last one) is kept with each: other work that comes or goes is the largest
source of error, and no prediction can know of it. Finished runs are kept in ``--cache``; without ``--only`` the page
is written from them.
"""

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tables import interval

from unlabeled.core.budget import LARGE_ERROR, LONG_SECONDS
from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.meter import ENOUGH_SECONDS

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "shared/data"
XRAYS = str(DATA / "xray/kermany224/kermany_cxr_224.parquet")
PAYMENTS = str(DATA / "transactions/sparkov-sample/tx_200cust_2022.parquet")
BEARINGS = [str(DATA / f"vibration/femto/Bearing{name}.npz") for name in ("1_1", "1_2", "2_1", "2_2")]
PREDICTIONS = {"dry_run": "the dry run", "own_first_steps": "the run's own first steps"}
TRIAL = 60  # of what sizes a command
MEASURED, RUN = (3, 6, 12), 120  # seconds from which, and over which, the machine's own speed is foretold
CALM = 0.35  # by so much may the load of a machine differ from one minute to another while nothing else comes or goes
# What trains, the option that says for how long, and what else it needs.
COMMANDS: dict[str, tuple[str, list[str], str, list[str]]] = {
    "radiographs": ("radiographs, masked", ["medical", "pretrain", XRAYS], "--epochs", []),
    "adaptive": (
        "radiographs, adaptive masks",
        ["medical", "pretrain", XRAYS, "--masking", "adaptive"],
        "--epochs",
        [],
    ),
    "tuning": (
        "radiographs, fine-tuning on 250 labels",
        ["medical", "finetune", XRAYS, "--n-labels", "250"],
        "--steps",
        ["--model", "base"],
    ),
    "machines": (
        "four machines, masked",
        ["sensors", "fit", *BEARINGS, "--normal-share", "0.5"],
        "--steps",
        [],
    ),
    "payments": ("payments, cards then merchants", ["fraud", "pretrain", PAYMENTS], "--steps", []),
    "kinds": (
        "three kinds of data at once",
        ["joint", "pretrain", "--xrays", XRAYS, "--payments", PAYMENTS]
        + [part for path in BEARINGS for part in ("--machines", path)],
        "--steps",
        [],
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder outside the repository")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--seconds", type=float, default=140.0, help="how long a training should take")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--steady", type=float, default=0.0, help="first measure the machine itself for so many seconds"
    )
    parser.add_argument("--only", nargs="*", choices=list(COMMANDS), help="run these and stop")
    given = parser.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)
    if given.steady:
        write_atomically(given.cache / "steady.json", json.dumps(steadiness(given.steady)))
    for number in range(given.runs):
        for name in given.only or ():
            path = given.cache / f"{name}-{number}.json"
            if not path.exists():
                found = measured(name, number, given.seconds)
                write_atomically(path, json.dumps(found, indent=1))
            print(name, number, path.read_text(), flush=True)
    if not given.only:
        write(given)


def steadiness(seconds: float) -> list[int]:
    """How often the machine does always the same work in each second of a while."""
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    x, weight = torch.randn(1024, 192, generator=draw), torch.randn(192, 768, generator=draw)
    began, counts = time.monotonic(), [0] * int(seconds)
    while (now := time.monotonic() - began) < len(counts):
        torch.nn.functional.gelu(x @ weight) @ weight.T
        counts[int(now)] += 1
    return counts


def measured(name: str, number: int, seconds: float) -> dict[str, Any]:
    """One command in a folder of its own."""
    _, command, option, more = COMMANDS[name]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if "base" in more:
            unlabeled(folder, ["medical", "pretrain", XRAYS, "--epochs", "1", "--out", "base"])
        command = [*command, *more, "--seed", str(number)]
        length = max(1, round(TRIAL * seconds / dry_run(folder, [*command, option, str(TRIAL)])))
        before = os.getloadavg()[0]
        predicted = dry_run(folder, [*command, option, str(length)])
        done = unlabeled(folder, [*command, option, str(length), "--out", "out"])
        stored = metrics(folder, done["run_id"])
        return {
            "length": f"{option} {length}",
            "dry_run": predicted,
            "own_first_steps": total(stored, "predicted_seconds"),
            "spent": total(stored, "spent_seconds"),
            "load": [before, os.getloadavg()[0]],
            **describe_hardware(),
        }


def dry_run(folder: Path, command: list[str]) -> float:
    """Seconds of our training; a fine-tuning's comparison is trained in a run of its own."""
    parts = unlabeled(folder, [*command, "--dry-run"])["budgets"]
    return float(sum(part["seconds"] for part in parts if "comparison" not in part["label"]))


def unlabeled(folder: Path, arguments: list[str]) -> dict[str, Any]:
    command = [str(Path(sys.executable).with_name("unlabeled")), *arguments, "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def metrics(folder: Path, run_id: str) -> dict[str, float]:
    """The latest values that the run's tracking store holds."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as store:
        return dict(store.execute("select key, value from latest_metrics where run_uuid = ?", (run_id,)).fetchall())


def total(stored: dict[str, float], what: str) -> float:
    """Of all trainings of the run that were foretold."""
    whole = stored.get(f"budget.total_{what}")
    return float(stored[f"budget.{what}"] if whole is None else whole)


def _steady(path: Path) -> list[str]:
    """How well the machine's own speed tells its speed in the seconds that follow, by how long it is measured."""
    if not path.exists():
        return []
    counts = np.array(json.loads(path.read_text()), dtype=float)
    found = []
    for seconds in MEASURED:
        starts = range(0, len(counts) - seconds - RUN, seconds)
        off = [counts[s + seconds : s + seconds + RUN].mean() / counts[s : s + seconds].mean() - 1 for s in starts]
        within = np.mean(np.abs(off) <= LARGE_ERROR)
        found.append(
            f"{seconds} s: {within:.0%} within {LARGE_ERROR:.0%}, mean absolute error {np.mean(np.abs(off)):.3f}"
        )
    return [
        f"- The machine itself, doing the same for {len(counts)} seconds and nothing else: its mean speed over "
        f"{RUN} seconds foretold from the seconds before, by how many those were: {'; '.join(found)}; the windows "
        f"overlap, so that this is one record, not so many cases. A training is "
        f"measured for {ENOUGH_SECONDS:g} s."
    ]


def write(given: argparse.Namespace) -> None:
    runs = {
        name: [json.loads(path.read_text()) for path in sorted(given.cache.glob(f"{name}-*.json"))] for name in COMMANDS
    }
    runs = {name: found for name, found in runs.items() if found}
    rows = []
    for name, found in runs.items():
        for one in found:
            cells = " | ".join(f"{one[kind] / one['spent'] - 1:+.1%}" for kind in PREDICTIONS)
            loads = f"{one['load'][0]:.1f}, {one['load'][1]:.1f}"
            rows.append(f"| {COMMANDS[name][0]} | {one['spent']:.0f} | {cells} | {loads} |")
    long = [one for found in runs.values() for one in found if one["spent"] > LONG_SECONDS]
    calm = [one for one in long if abs(one["load"][1] - one["load"][0]) <= CALM]
    says = []
    for some, where in ((calm, f"whose load changed by no more than {CALM:g}"), (long, "whatever the load did")):
        for kind, words in PREDICTIONS.items():
            off = np.array([one[kind] / one["spent"] - 1 for one in some])
            within = int((abs(off) <= LARGE_ERROR).sum())
            says.append(
                f"- Of the {len(off)} runs over {LONG_SECONDS / 60:.0f} minutes {where}, {words} was within "
                f"{LARGE_ERROR:.0%} in {within}; mean absolute error {interval(abs(off), digits=3)}."
            )
    assert __doc__ is not None
    hardware = next(iter(runs.values()))[0]
    page = [
        "# Cost of a training, predicted and spent",
        "",
        "`OMP_NUM_THREADS=1 python benchmarks/budget.py --cache FOLDER --only NAME...` (then without `--only`)",
        "",
        " ".join(__doc__.split("\n\n")[2].split()),
        "",
        f"{hardware['hardware.processor']}, {hardware['hardware.threads']} of {hardware['hardware.cores']} cores; "
        "at a load of 1 nothing else ran.",
        "",
        "| training | seconds spent | error of the dry run | of its own first steps | load before, at the end |",
        "|---|---|---|---|---|",
        *rows,
        "",
        *says,
        *_steady(given.cache / "steady.json"),
        "",
        "Intervals: Student's, 95 %, over runs.",
    ]
    write_atomically(given.out / "budget.json", json.dumps(runs, indent=1) + "\n")
    write_atomically(given.out / "budget.md", "\n".join(page) + "\n")
    print("\n".join(page))


if __name__ == "__main__":
    main()
