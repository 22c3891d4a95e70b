"""Does a set larger than memory train at the same speed, in bounded memory? Under a cap of the system's own.

    OMP_NUM_THREADS=2 python benchmarks/memory.py --folder FOLDER

A store of ``--gigabytes`` of random 64 x 64 8-bit pictures is written to ``--folder`` (outside the repository). Three
processes then train the same masked autoencoder for the same steps, in turns: one draws from the first ``--small``
megabytes in an array, one from the whole store, one from every other row of it, as a column of splits picks them. The
last two run in a memory control group whose limit, page cache included, is ``--cap`` gigabytes, so that rows have to be
read from the disk again and again. Shown are pictures a second, the share of the time that drawing a batch takes, and
the highest resident memory. Needs Linux with version 1 control groups and the right to make one; without, those
processes run without a cap and the page says so.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
GROUP = Path("/sys/fs/cgroup/memory") / f"unlabeled-{os.getpid()}"
SIDE, BATCH = 64, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--small", type=int, default=64, help="megabytes in memory")
    parser.add_argument("--cap", type=float, default=1.0, help="gigabytes")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--every", type=int, default=1, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.train:
        print(json.dumps(train(given.train, given.small, given.every, given.steps)))
        return
    compare(given)


def train(path: Path, small: int, every: int, steps: int) -> dict[str, float]:
    """One process: trains on every so many-th row of the store, or on its first ``small`` megabytes in memory (0: on
    the store)."""
    from unlabeled.core.batches import Batches
    from unlabeled.core.optimization import TrainingSettings, make_optimizer, train_step
    from unlabeled.core.processes import Processes
    from unlabeled.core.store import Store
    from unlabeled.medical import PneumoniaModel
    from unlabeled.medical.transforms import Augment

    store = Store(path)
    rows = store[: (small << 20) // SIDE**2] if small else store.take(np.arange(0, len(store), every))
    batches = Batches(rows, batch_size=BATCH, transform=Augment())
    module, settings = PneumoniaModel()._fresh(), TrainingSettings(steps=steps)
    optimizer, device = make_optimizer(module, settings), Processes("cpu").device
    drawing = 0.0
    for step in range(-5, steps):
        if step == 0:
            began, drawing = time.monotonic(), 0.0
        start = time.monotonic()
        batch = batches.at(step + 5)
        drawing += time.monotonic() - start
        train_step(module, optimizer, batch, max(step, 0), settings, device)
    seconds = time.monotonic() - began
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"pictures_a_second": steps * BATCH / seconds, "drawing": drawing / seconds, "resident_mib": highest}


def compare(given: argparse.Namespace) -> None:
    from unlabeled.core.checkpoints import write_atomically
    from unlabeled.core.evaluation import over_runs
    from unlabeled.core.hardware import describe_hardware
    from unlabeled.core.store import Store

    path = given.folder / "pictures.npy"
    rows = int(given.gigabytes * 2**30) // SIDE**2
    Store.write(path, parts(rows), row=(SIDE, SIDE), dtype=np.uint8)
    capped = cap(given.cap)
    found: dict[str, list[dict[str, float]]] = {"memory": [], "store": [], "part": []}
    try:
        for _ in range(given.turns):
            found["memory"].append(child(path, given.small, given.steps, capped=False))
            found["store"].append(child(path, 0, given.steps, capped=capped))
            found["part"].append(child(path, 0, given.steps, capped=capped, every=2))
            print(json.dumps({name: runs[-1] for name, runs in found.items()}), flush=True)
    finally:
        path.unlink()
        if GROUP.is_dir():
            GROUP.rmdir()
    speed = {name: [run["pictures_a_second"] for run in runs] for name, runs in found.items()}
    ratios = {name: over_runs(np.divide(speed[name], speed["memory"]).tolist()) for name in ("store", "part")}
    names = {
        "memory": f"{given.small} MB in an array",
        "store": f"{given.gigabytes:g} GB in a store",
        "part": "every other row of it",
    }
    limit = f", under a cap of {given.cap:g} GB" if capped else ", without a cap (no control group could be made)"
    lines = [
        "# A set larger than memory",
        "",
        f"{given.turns} turns of {given.steps} steps of {BATCH} pictures, the product's encoder. Hardware: "
        + ", ".join(str(value) for value in describe_hardware().values())
        + ".",
        "",
        "| drawn from | pictures a second | drawing, share of the step | highest resident memory, MiB |",
        "|---|---|---|---|",
    ]
    for name, runs in found.items():
        means = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
        lines.append(
            f"| {names[name]}{'' if name == 'memory' else limit} | {means['pictures_a_second']:.0f} | "
            f"{means['drawing']:.1%} | {means['resident_mib']:.0f} |"
        )
    lines += [
        "", f"Speed from the store over speed from memory: {ratios['store']}; from a part of it: {ratios['part']}."
    ]  # fmt: skip
    write_atomically(given.out / "memory.md", "\n".join(lines) + "\n")
    settings = {name: getattr(given, name) for name in ("gigabytes", "small", "cap", "steps", "turns")}
    content = {"found": found, "capped": capped, "settings": settings}
    write_atomically(given.out / "memory.json", json.dumps(content, indent=1) + "\n")


def parts(rows: int) -> Iterator[np.ndarray]:
    draw = np.random.default_rng(0)
    for start in range(0, rows, 16_384):
        yield draw.integers(0, 256, (min(16_384, rows - start), SIDE, SIDE), dtype=np.uint8)


def cap(gigabytes: float) -> bool:
    """Makes the control group; whether that could be done."""
    try:
        GROUP.mkdir()
        (GROUP / "memory.limit_in_bytes").write_text(str(int(gigabytes * 2**30)))
    except OSError:
        return False
    return True


def child(path: Path, small: int, steps: int, *, capped: bool, every: int = 1) -> dict[str, float]:
    """A process of its own, in the control group from its first moment on if ``capped``."""

    def enter() -> None:
        if capped:
            (GROUP / "cgroup.procs").write_text(str(os.getpid()))

    command = [sys.executable, __file__, "--folder", str(path.parent), "--train", str(path)]
    command += ["--small", str(small), "--steps", str(steps), "--every", str(every)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=enter)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
