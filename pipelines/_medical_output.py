"""Tables that the medical jobs write."""

import csv
import io
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.checkpoints import write_atomically
from unlabeled.medical.images import Skip

if TYPE_CHECKING:
    import pandas as pd

    from unlabeled.medical.images import ImageSet
    from unlabeled.medical.model import PneumoniaModel

METHODS = OURS, SCRATCH, PIXELS = "ours", "same network from scratch", "PCA + logistic regression"
HEAT_MAPS = "heatmaps"
# Pixels of a written heat map's side, at least.
SIDE = 256


def key(name: str) -> str:
    """A method's or a number's name as one word, for tracked runs and columns."""
    return name.replace("%", "pc").replace(" ", "_").replace("+", "and")


def write_skips(out: Path, skipped: tuple[Skip, ...]) -> dict[str, Path]:
    """What could not be used and why, where there is such; that of an earlier call goes."""
    if not skipped:
        (out / "skipped.csv").unlink(missing_ok=True)
        return {}
    return {"skipped": write_csv(out / "skipped.csv", ("input", "reason"), skipped)}


def write_csv(path: Path, header: tuple[str, ...], rows: object) -> Path:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)  # type: ignore[arg-type]
    return write_atomically(path, text.getvalue())


def write_predictions(out: Path, table: "pd.DataFrame") -> dict[str, Path]:
    """What a model says of each picture (:func:`~unlabeled.medical._decisions.decide`), as CSV and as Parquet."""
    text = table.to_csv(index=False, float_format="%.6f", lineterminator="\n")
    return {
        "predictions": write_atomically(out / "predictions.csv", text),
        "table": _write_parquet(out / "predictions.parquet", table),
    }


def write_studies(
    out: Path, table: "pd.DataFrame", studies: NDArray[np.str_] | None, *, finding: str
) -> dict[str, Path]:
    """What a model says of each study (:func:`~unlabeled.medical._decisions.per_study`), where studies are known; what
    an earlier call said goes."""
    from unlabeled.medical._decisions import per_study

    if studies is None:
        for name in ("studies.csv", "studies.parquet"):
            (out / name).unlink(missing_ok=True)
        return {}
    said = per_study(table, studies, finding=finding)
    text = said.to_csv(index=False, float_format="%.6f", lineterminator="\n")
    return {
        "studies": write_atomically(out / "studies.csv", text),
        "table of studies": _write_parquet(out / "studies.parquet", said),
    }


def _write_parquet(path: Path, table: "pd.DataFrame") -> Path:
    new = path.with_name(f".{path.name}.new-{os.getpid()}")
    table.to_parquet(new, index=False)
    os.replace(new, path)
    return path


def write_heat_maps(out: Path, model: "PneumoniaModel", images: "ImageSet", table: "pd.DataFrame", count: int) -> Path:
    """Draws what moved the ``count`` highest scores as PNG, and points to each in the column ``heat_map``.

    Red speaks for the finding, blue against; each map has a scale of its own. Files are named by the row's number, not
    by the picture's id. Maps of an earlier call in the same folder are removed.
    """
    folder = out / HEAT_MAPS
    shutil.rmtree(folder, ignore_errors=True)
    table["heat_map"] = ""
    rows = np.sort(np.argsort(-table.probability.to_numpy(), kind="stable")[:count])
    if len(rows):
        folder.mkdir(parents=True)
        shown = images.take(rows)
        for row, pixels, heat in zip(rows, shown.pixels, model.explain(shown), strict=True):
            _overlay(pixels, heat).save(folder / f"{row:06d}.png")
            table.loc[row, "heat_map"] = f"{HEAT_MAPS}/{row:06d}.png"
    return folder


def _overlay(pixels: NDArray[np.uint8], heat: NDArray[np.float64]) -> Any:
    """The picture in grey, reddened or blued by up to a half where patches speak for or against."""
    from PIL import Image

    side = max(SIDE, len(pixels))
    size = (side, side)
    grey = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
    scaled = (heat / (float(np.abs(heat).max()) or 1.0)).astype(np.float32)
    weight = np.asarray(Image.fromarray(scaled).resize(size, Image.Resampling.BILINEAR))
    tint = np.where(weight[..., None] > 0, np.array([255, 0, 0]), np.array([0, 0, 255]))
    part = np.abs(weight)[..., None] / 2
    return Image.fromarray(((1 - part) * grey[..., None] + part * tint).clip(0, 255).astype(np.uint8))
