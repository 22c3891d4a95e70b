"""Seeded bearing faults, named from the envelope spectrum.

    python benchmarks/bearing_faults.py

Data (not part of this repository): seven recordings of the Case Western Reserve University (48 kHz, no load, drive end
6205): sound, and pits of 0.18 and 0.36 mm in inner race, outer race and ball. Each is read as the product reads it and
asked in stretches of nine snapshots (0.9 s), of both accelerometers together; the shaft's speed is the recording's own.
Named is the rate with the smallest p-value (Holm's over rates, Bonferroni's over the two axes), where that is below
0.01. The length of pieces (six turns, or a snapshot where that is shorter) was chosen after a look at these
recordings. Nothing is learnt, so there is no split; the recordings' amplitudes were rounded to half precision.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.evaluation import roc_auc
from unlabeled.core.hardware import describe_hardware
from unlabeled.sensors import Recording, bearings, read

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "shared/data/vibration/cwru"
EXPECTED = {"normal": "nothing", "IR": "BPFI", "OR": "BPFO", "B0": "BSF"}
STRETCH = 9


def main() -> None:
    found = {path.stem: asked(path) for path in sorted(DATA.glob("*.npz"))}
    write(found)


def asked(path: Path) -> list[tuple[str, float]]:
    """For each stretch the rate that is most certain, and its p-value."""
    recording, shaft = recorded(path)
    answers = []
    for stretch in stretches(recording):
        axes = bearings.repeats(stretch, bearings.CATALOGUE["6205"], shaft)
        first = min((one.evidence[0] for one in axes), key=lambda one: one.p_value)
        answers.append((first.name, first.p_value))
    return answers


def recorded(path: Path) -> tuple[Recording, float]:
    """As the product reads it, and the shaft's speed in hertz."""
    with np.load(path) as stored:
        shaft = float(stored["rpm"]) / 60
    (recording,) = read(path)
    return recording, shaft


def stretches(recording: Recording) -> Iterator[Recording]:
    for start in range(0, len(recording) - STRETCH + 1, STRETCH):
        yield recording.rows(slice(start, start + STRETCH))


def write(found: dict[str, list[tuple[str, float]]]) -> None:
    assert __doc__ is not None
    rows, right, judged = [], 0, 0
    for name, answers in found.items():
        expected = next(rate for start, rate in EXPECTED.items() if name.startswith(start))
        named = Counter(rate if p < bearings.CERTAIN else "nothing" for rate, p in answers)
        right, judged = right + named[expected], judged + len(answers)
        told = ", ".join(f"{rate} {count}" for rate, count in named.most_common())
        rows.append(f"| {name} | {expected} | {len(answers)} | {told} |")
    sound = certainty(answers for name, answers in found.items() if name.startswith("normal"))
    kinds = {
        rate: roc_auc(np.r_[np.zeros(len(sound)), np.ones(len(ill))], np.r_[sound, ill])
        for start, rate in EXPECTED.items() if start != "normal"
        for ill in [certainty(answers for name, answers in found.items() if name.startswith(start))]
    }  # fmt: skip
    lines = [
        "# Seeded bearing faults, named from the envelope spectrum",
        "",
        "`python benchmarks/bearing_faults.py`",
        "",
        *(" ".join(part.split()) for part in __doc__.split("\n\n")[2:]),
        "",
        f"Hardware: {', '.join(str(value) for value in describe_hardware().values())}.",
        "",
        "| recording | expected | stretches | named |",
        "|---|---|---|---|",
        *rows,
        "",
        f"{right} of {judged} stretches are named as expected. Fault against sound, by the smallest p-value, AUROC: "
        + ", ".join(f"{rate} {value:.2f}" for rate, value in kinds.items())
        + f"; macro mean {np.mean(list(kinds.values())):.2f}. A handful of stretches of one machine: no intervals.",
    ]
    write_atomically(HERE / "results/bearing_faults.md", "\n".join(lines) + "\n")
    content = {"found": found, "auroc": kinds, "hardware": describe_hardware()}
    write_atomically(HERE / "results/bearing_faults.json", json.dumps(content, indent=1) + "\n")
    print("\n".join(lines))


def certainty(recordings: Iterable[list[tuple[str, float]]]) -> NDArray[np.float64]:
    """Higher where a rate is more certain, (stretches,)."""
    return np.array([-np.log10(max(p, 1e-300)) for answers in recordings for _, p in answers])


if __name__ == "__main__":
    main()
