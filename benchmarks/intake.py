"""How fast is the intake beside a plain loop, and does its memory stay flat?

    OMP_NUM_THREADS=1 python benchmarks/intake.py --folder FOLDER

Phantom films of ``--side`` pixels, 12 bits (each phantom twenty times, a little brighter), are written to ``--folder``
(outside the repository), every ``--compressed``-th as JPEG 2000. Of ``--counts`` of them each, in processes of their
own and in turns: a plain loop (pydicom reads, applies the modality and VOI LUT; NumPy scales, Pillow reduces with a box
filter; one process, no checks, no de-identification, nothing written but one array) and the intake with as many
processes as there are cores: the same and the gate, hashes, masks, borders, duplicates, ledger, tables. Start of the
interpreter and imports are included. Looked at five times a second (Linux): memory of all processes together
(proportional set size, so that shared pages count once; the highest is shown) and their processor time.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SIZE = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--side", type=int, default=1500)
    parser.add_argument("--compressed", type=int, default=10)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--name", default="intake", help="of the result's files")
    parser.add_argument("--child", choices=("plain", "intake"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.folder)
        return
    compare(given)


def child(kind: str, folder: Path) -> None:
    """One measurement in a process of its own."""
    if kind == "plain":
        plain_loop(folder / "films")
    else:
        take_in(folder)


def plain_loop(films: Path) -> None:
    import pydicom
    from PIL import Image
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    pictures = []
    for path in sorted(path for path in films.rglob("*") if path.is_file()):
        file = pydicom.dcmread(path)
        values = apply_voi_lut(apply_modality_lut(file.pixel_array, file), file).astype(np.float32)
        values = (values - values.min()) / (values.max() - values.min())
        if file.PhotometricInterpretation == "MONOCHROME1":
            values = 1 - values
        small = Image.fromarray(values).resize((SIZE, SIZE), Image.Resampling.BOX)
        pictures.append((np.asarray(small) * 255).astype(np.uint8))
    np.save(films.parent / "plain.npy", np.stack(pictures))


def take_in(folder: Path) -> None:
    from unlabeled.medical import intake

    shutil.rmtree(folder / "store", ignore_errors=True)
    done = intake.take_in(
        folder / "films", store=folder / "store", key=folder / "site.key", ledger=folder / "ledger.csv", size=SIZE
    )
    assert done.manifest["refused"] == 0, done.manifest["refusals"]


def compare(given: argparse.Namespace) -> None:
    from unlabeled.core.checkpoints import write_atomically
    from unlabeled.core.hardware import describe_hardware

    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for count in given.counts:
        folder = given.folder / str(count)
        write_films(folder / "films", count, side=given.side, compressed=given.compressed)
        runs: dict[str, list[dict[str, float]]] = {"plain": [], "intake": []}
        for _ in range(given.turns):
            for kind, of_kind in runs.items():
                of_kind.append(measure(kind, folder))
                print(count, kind, json.dumps(of_kind[-1]), flush=True)
        found[str(count)] = runs
        shutil.rmtree(folder)
    cores = len(os.sched_getaffinity(0))
    lines = [
        "# Intake",
        "",
        f"Phantom films of {given.side} x {given.side} pixels, 12 bits, every {given.compressed}th as JPEG 2000, "
        f"reduced to {SIZE}; the fastest of {given.turns} turns; {cores} cores. Hardware: "
        + ", ".join(str(value) for value in describe_hardware().values())
        + f". Command: `OMP_NUM_THREADS=1 python benchmarks/intake.py --folder FOLDER --side {given.side} "
        f"--turns {given.turns} --counts {' '.join(map(str, given.counts))}`.",
        "",
        "| files | plain loop, files a second | intake, files a second | ratio | processor time a file, ms: plain "
        "| intake | MiB: plain | intake |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for count, runs in found.items():
        best = {kind: {key: min(run[key] for run in of_kind) for key in of_kind[0]} for kind, of_kind in runs.items()}
        plain, ours = best["plain"], best["intake"]
        lines.append(
            f"| {count} | {int(count) / plain['seconds']:.1f} | {int(count) / ours['seconds']:.1f} | "
            f"{plain['seconds'] / ours['seconds']:.2f} | {1e3 * plain['processor'] / int(count):.0f} | "
            f"{1e3 * ours['processor'] / int(count):.0f} | {plain['mib']:.0f} | {ours['mib']:.0f} |"
        )
    load = os.getloadavg()[2]
    lines += [
        "",
        "The plain loop reads, windows and reduces; the intake also checks, masks text, cuts borders, compares every "
        "picture with every other, de-identifies and keeps a ledger. "
        f"Load of the machine over the last 15 minutes: {load:.1f}.",
    ]
    write_atomically(given.out / f"{given.name}.md", "\n".join(lines) + "\n")
    settings = {name: getattr(given, name) for name in ("counts", "side", "compressed", "turns")}
    content = {"found": found, "settings": settings, "cores": cores, "hardware": describe_hardware()}
    write_atomically(given.out / f"{given.name}.json", json.dumps(content, indent=1) + "\n")
    print("\n".join(lines))


def measure(kind: str, folder: Path) -> dict[str, float]:
    began, highest, processor = time.monotonic(), 0.0, 0.0
    command = [sys.executable, __file__, "--folder", str(folder), "--child", kind]
    started = subprocess.Popen(command, start_new_session=True)
    while started.poll() is None:
        memory, used = usage_of(started.pid)
        highest, processor = max(highest, memory), max(processor, used)
        time.sleep(0.2)
    seconds = time.monotonic() - began
    assert started.returncode == 0, command
    return {"seconds": seconds, "mib": highest, "processor": processor}


def usage_of(session: int) -> tuple[float, float]:
    """MiB and seconds of processor time of all processes of a session."""
    memory, ticks = 0, 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(process.name)) == session:
                rollup = (process / "smaps_rollup").read_text()
                memory += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
                ticks += sum(map(int, (process / "stat").read_text().rpartition(")")[2].split()[11:13]))
        except (OSError, StopIteration):  # it ended meanwhile
            continue
    return memory / 1024, ticks / os.sysconf("SC_CLK_TCK")


def write_films(folder: Path, count: int, *, side: int, compressed: int) -> None:
    """Phantoms of which each is there twenty times, turned up by a little more every time."""
    from pydicom.uid import JPEG2000Lossless

    from unlabeled.medical import simulate

    folder.mkdir(parents=True)
    drawn = max(8, count // 20)
    for seed in range(drawn):
        rng = np.random.default_rng(seed)
        film = simulate.draw_radiograph(simulate.draw_anatomy(rng), pneumonia=False, rng=rng, size=side)
        for number in range(seed, count, drawn):
            file = simulate.to_dicom(
                film * (0.8 + 0.2 * number / count), patient=f"SIM-{number:06d}", name="Phantom", view="PA",
                inverted=number % 3 == 0, rescaled=number % 2 == 0, windowed=number % 4 < 2,
            )  # fmt: skip
            if number % compressed == 0:
                file.compress(JPEG2000Lossless, generate_instance_uid=False)
            (folder / f"{number % 100:02d}").mkdir(exist_ok=True)
            file.save_as(folder / f"{number % 100:02d}" / f"IM{number:06d}", enforce_file_format=True)


if __name__ == "__main__":
    main()
