"""How much longer than PyTorch itself do our modules take to import?

    python benchmarks/imports.py

Every import happens in a fresh process, in turns, so that a busy moment hits all alike; the fastest of ``--turns``
counts.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.hardware import describe_hardware

HERE = Path(__file__).parent
MODULES = (
    "torch",
    "unlabeled.core",
    "unlabeled.core.training",
    "unlabeled.core.pretext",
    "unlabeled.medical",
    "unlabeled.sensors",
    "unlabeled.fraud",
    "monai.networks.nets",
    "transformers.models.vit_mae.modeling_vit_mae",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    seconds: dict[str, list[float]] = {module: [] for module in MODULES}
    for _ in range(given.turns):
        for module in MODULES:
            seconds[module].append(one(module))
    best = {module: min(times) for module, times in seconds.items()}
    hardware = describe_hardware()
    machine = ", ".join(str(value) for value in hardware.values())
    lines = [
        "# Import time",
        "",
        f"Fastest of {given.turns} fresh processes each, in turns; the interpreter's own start is not counted.",
        f"Hardware: {machine}.",
        "",
        "| module | seconds | over torch |",
        "|---|---|---|",
        *(f"| {module} | {value:.2f} | {value / best['torch']:.2f} |" for module, value in best.items()),
    ]
    write_atomically(given.out / "imports.md", "\n".join(lines) + "\n")
    write_atomically(
        given.out / "imports.json", json.dumps({"seconds": seconds, "hardware": hardware}, indent=1) + "\n"
    )
    print("\n".join(lines))


def one(module: str) -> float:
    code = f"import time; began = time.perf_counter(); import {module}; print(time.perf_counter() - began)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
