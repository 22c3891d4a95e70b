"""Phantom films of a hospital, and what an intake wrote of them: what several test modules use."""

import csv
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset

from unlabeled.medical import intake, simulate


def attenuation(seed: int, size: int = 96) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return simulate.draw_radiograph(simulate.draw_anatomy(rng), pneumonia=bool(seed % 2), rng=rng, size=size)


def film(seed: int, *, patient: str = "", inverted: bool = False, **tags: object) -> FileDataset:
    """A phantom that names ``patient``, by default one of its own."""
    file = simulate.to_dicom(
        attenuation(seed), patient=patient or f"P{seed}", name="Muster^Erika", view="PA", inverted=inverted,
        rescaled=False, windowed=False,
    )  # fmt: skip
    for name, value in tags.items():
        if value is None:
            delattr(file, name)
        else:
            setattr(file, name, value)
    return file


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        return list(csv.DictReader(stream))


def by_name(done: intake.Intake) -> dict[str, dict[str, str]]:
    """Rows of the gate by the path of the file, by way of the table beside the ledger."""
    path_of = {row["file"]: row["path"] for row in rows(done.names)}
    return {path_of[row["file"]]: row for row in rows(done.store / "gate.csv")}
