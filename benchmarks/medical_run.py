"""``unlabeled medical run`` on real radiographs: from DICOM files to a registered model and an audit, in one command.

    python benchmarks/medical_run.py --folder FOLDER

kermany224's pictures are written as DICOM files to ``--folder`` (outside the repository) as an archive might hold them:
some as MONOCHROME1, some rescaled, some with a window, a folder a patient, names and all; ``labels.csv`` names the
files, with the table's own splits. Then the command itself runs, with ``--labels`` of the training labels. The official
test split judges once, at the end; it is shifted against the others.
"""

import argparse
import csv
import io
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.hardware import describe_hardware
from unlabeled.medical.simulate import to_dicom
from unlabeled.pipelines import _medical_run as job

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "shared/data/xray/kermany224"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1, help="take every so-manieth training patient")
    parser.add_argument("--labels", type=int, default=250)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    shutil.rmtree(given.folder, ignore_errors=True)
    count = write_archive(given.data, given.folder, every=given.every)
    began = time.monotonic()
    plan = job.Plan(epochs=given.epochs, n_labels=given.labels, register="kermany")
    done = job.run(given.folder / "export", labels=given.folder / "labels.csv", out=given.folder / "run", plan=plan)
    write(given, count, time.monotonic() - began, done.to_json())


def write_archive(data: Path, folder: Path, *, every: int) -> int:
    """How many files were written."""
    table = pd.read_parquet(data / "kermany_cxr_224.parquet")
    patients = sorted(set(table.patient_id[table.split == "train"]))
    table = table[(table.split != "train") | table.patient_id.isin(patients[::every])]
    rng = np.random.default_rng(0)
    with _made(folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        labels = csv.writer(stream)
        labels.writerow(("file", "label", "split"))
        for row in table.itertuples(index=False):
            picture = np.asarray(Image.open(io.BytesIO(row.jpeg)).convert("L"), dtype=np.float32) / 255 * 1.2
            inverted, rescaled, windowed = rng.random(3) < (0.33, 0.5, 0.5)
            film = to_dicom(
                picture, patient=f"MRN-{row.patient_id}", name=f"Doe^{row.patient_id}", view="AP",
                inverted=bool(inverted), rescaled=bool(rescaled), windowed=bool(windowed), modality="CR",
            )  # fmt: skip
            name = f"Doe_{row.patient_id}/{row.image_id}"
            film.save_as(_made(folder / "export" / name), enforce_file_format=True)
            labels.writerow((name, row.label, row.split))
    return len(table)


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write(given: argparse.Namespace, count: int, seconds: float, told: dict[str, object]) -> None:
    stages = told["stages"]
    assert isinstance(stages, dict)
    lines = [
        "# One command, from DICOM files to a registered model",
        "",
        f"`python benchmarks/medical_run.py --every {given.every} --labels {given.labels} --epochs {given.epochs} "
        "--folder FOLDER`",
        "",
        f"kermany224 as {count:,} DICOM files; {seconds / 60:.0f} minutes. One run: an example, not a distribution. "
        f"Hardware: {', '.join(str(value) for value in describe_hardware().values())}.",
        "",
        "| stage | what it said |",
        "|---|---|",
    ]
    lines += [f"| {name} | {stage['headline'].partition(' Next:')[0]} |" for name, stage in stages.items()]
    intake = stages["intake"]
    lines += ["", f"Refused by the intake: {intake['refusals'] or 'nothing'}. Flagged: {intake['flags'] or 'nothing'}."]
    write_atomically(given.out / "medical_run.md", "\n".join(lines) + "\n")
    write_atomically(given.out / "medical_run.json", json.dumps(told, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
