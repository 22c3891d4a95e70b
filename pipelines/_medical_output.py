"""Tables that the medical jobs write, and what of their files a tracked run may hold.

Names of files, and ids of tables, may name people. Files in the user's own folder say them; a tracked run, which others
read, does not: but for a store's, whose names are pseudonyms, it gets no table with a row a picture, and a page from
which names are left out (:func:`track`).
"""

import csv
import io
import os
import re
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.core import tracking
from unlabeled.core.checkpoints import MANIFEST, read_manifest, write_atomically
from unlabeled.core.progress import say
from unlabeled.core.report import Part, Report
from unlabeled.medical._storage import names_patients
from unlabeled.medical.images import Skip
from unlabeled.medical.intake.store import is_store, labels_of

if TYPE_CHECKING:
    import pandas as pd

    from unlabeled.medical.images import ImageSet
    from unlabeled.medical.model import PneumoniaModel

METHODS = OURS, SCRATCH, PIXELS = "ours", "same network from scratch", "PCA + logistic regression"
HEAT_MAPS = "heatmaps"
# Pixels of a written heat map's side, at least.
SIDE = 256
# Files with a row a picture, as jobs call them.
BY_PICTURE = ("predictions", "table", "studies", "table of studies", "skipped")
# Columns of a page's tables that call pictures and files by their names.
_NAMING = ("input", "picture", "for example")
_LETTER = re.compile(r"[^\W\d]")
_SHORT = 4


def is_nameless(source: Path, labels: Path | None) -> bool:
    """Whether nothing that is read can name anybody: a store, with no labels or its own."""
    own = labels_of(source) if is_store(source) else None
    return is_store(source) and (labels is None or (own is not None and labels.resolve() == own.resolve()))


def names_in(*parts: "ImageSet | None", skipped: Iterable[Skip] = ()) -> frozenset[str]:
    """What pictures, people and inputs are called."""
    names = {str(name) for part in parts if part is not None for name in (*part.ids, *part.patients)}
    return frozenset(names | {skip.source for skip in skipped})


def track(
    run: tracking.Run,
    files: Mapping[str, Path],
    page: Report,
    *,
    place: Path,
    nameless: bool,
    names: Collection[str],
    within: str | None = None,
) -> None:
    """Hands a job's files to its run.

    Args:
        files: by what they are; ``report`` is the written page.
        place: a folder that is there until the run is closed, for what differs from the user's own files.
        nameless: nothing of it can name anybody (:func:`is_nameless`): all files go as they are.
        names: of pictures, people and inputs, else (:func:`names_in`).
        within: folder of the run for all but the report; ``None``: nothing but the report goes.
    """
    given = {name: path for name, path in files.items() if within is not None and (nameless or name not in BY_PICTURE)}
    report = files["report"] if nameless else without_names(page, names).write(place / files["report"].name)
    # File by file: the folder may hold what must not leave it (identifiers in DICOM files, say).
    for name, path in given.items():
        run.artifact(report if name == "report" else path, within)
    run.artifact(report)


def track_model(run: tracking.Run, folder: Path) -> None:
    """Hands a saved model to the run, but for one whose manifest holds digests of patients, as earlier versions wrote
    them."""
    if (folder / MANIFEST).is_file() and names_patients(read_manifest(folder)):
        say(f"{folder} was saved by an earlier version, with digests of patients: the tracked run goes without it")
    else:
        run.model(folder)


def without_names(page: Report, names: Collection[str]) -> Report:
    """The page without what pictures, people and inputs are called: columns that hold such names go, and sentences end
    before they come to one."""
    # A number of few figures names nobody by itself, and stands in many a sentence.
    telling = [name for name in names if len(name) >= _SHORT or _LETTER.search(name)]

    def named(text: str) -> bool:
        return any(name in text and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) for name in telling)

    def cut(text: str) -> str:
        if not named(text):
            return text
        head = re.split(r": | \(as on ", text)[0]
        return "" if named(head) else f"{head} (which: see the page beside the job's own files)."

    def clean(part: Part) -> Part:
        shown = [number for number, column in enumerate(part.columns) if column not in _NAMING]
        return replace(
            part, text=cut(part.text), alt=cut(part.alt), columns=[part.columns[number] for number in shown],
            rows=[[row[number] for number in shown] for row in part.rows],
        )  # fmt: skip

    sections = []
    for section in page.sections:
        # A list of inputs says nothing without their names.
        parts = [clean(part) for part in section.parts if "input" not in part.columns]
        sections.append(replace(section, parts=[p for p in parts if p.text or p.columns or p.data]))
    return replace(page, sections=sections)


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
