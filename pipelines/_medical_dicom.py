"""``unlabeled medical predict --dicom``: results that go back to the archive, patient identifiers included.

These files never reach the tracked run: they are written after it is closed, into a folder that only its owner reads.
"""

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.core import fingerprint, progress
from unlabeled.core.checkpoints import MANIFEST
from unlabeled.core.errors import DataError, UnlabeledError
from unlabeled.core.store import chunks
from unlabeled.medical import dicom
from unlabeled.medical._decisions import REFER, Decisions, Stated, decide
from unlabeled.medical._names import path_of
from unlabeled.medical._pictures import on_film
from unlabeled.medical.dicom_output import Result, heat_map_capture, measurement_report
from unlabeled.medical.images import Framing, ImageSet
from unlabeled.medical.intake.store import is_store
from unlabeled.medical.model import PneumoniaModel
from unlabeled.pipelines._medical_output import write_csv
from unlabeled.pipelines.jobs import Outcome

FOLDER, LEFT_OUT = "dicom", "left-out.csv"
_WRITTEN = re.compile(r"[0-9.]+/S[CR]-[0-9.]+\.dcm")
# Heat maps are made for so many pictures at once.
AT_ONCE = 64


def check_dicom(source: Path, out: Path) -> None:
    """Raises a DataError, before anything is scored, where the input can hold no DICOM file or lies where they go."""
    target, given = (out / FOLDER).resolve(), source.resolve()
    if target == given or target in given.parents:
        raise DataError(f"{source} lies in {out / FOLDER}, where results are written: name another folder with --out")
    what = "a table" if source.suffix in (".parquet", ".npz") else "a store" if is_store(source) else None
    if what is not None:
        raise DataError(f"--dicom needs DICOM files to refer to, and {source} is {what}: give the folder of files")


def add_dicom(
    outcome: Outcome,
    source: Path,
    images: ImageSet,
    model: PneumoniaModel,
    *,
    stated: Stated,
    folder: Path,
    out: Path,
) -> Outcome:
    """Writes a Secondary Capture and a structured report for every picture that came from a DICOM file.

    Files lie at ``out/dicom/<study UID>/``, named by what they are and their own UID. A radiograph whose result cannot
    be filed (it lacks a UID, say) is listed with the reason in ``out/dicom/left-out.csv``.

    Args:
        outcome: of the scoring.
        source: what the pictures were read from; their ids are paths below it.
        images: the pictures.
        model: that scored them.
        stated: what the decisions are for.
        folder: that the model was loaded from.
        out: where predictions are written.

    Returns:
        The outcome, with the folder and the counts added.
    """
    target = out / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    target.chmod(0o700)
    for earlier in (*target.glob("*/S[CR]-*.dcm"), target / LEFT_OUT):  # of another model, maybe
        if earlier.name == LEFT_OUT or _WRITTEN.fullmatch(f"{earlier.parent.name}/{earlier.name}"):
            earlier.unlink(missing_ok=True)
    print_ = fingerprint.of_names([(folder / MANIFEST).read_text(encoding="utf-8")])
    paths = [_path(source, str(name)) for name in images.ids]
    rows = np.array([row for row, path in enumerate(paths) if _is_dicom(path)], dtype=np.int64)
    asked = replace(stated, prevalence=None)  # which the reports do not give, and which needs all pictures at once
    left_out: list[tuple[str, str]] = []
    with progress.bar("writing DICOM", len(rows)) as bar:
        for part in chunks(len(rows), AT_ONCE):
            some = images.take(rows[part])
            results = _results(model, decide(model, some, asked), print_)
            for row, result, heat_map in zip(rows[part], results, model.explain(some), strict=True):
                try:
                    _write_one(paths[row], result, heat_map, target, framing=model.framing)
                except OSError:
                    raise
                except Exception as error:  # tags are as people wrote them, and one bad file must not cost the others
                    left_out.append((str(images.ids[row]), _why(error)))
                bar.advance()
    if left_out:
        write_csv(target / LEFT_OUT, ("input", "reason"), left_out)
    written = len(rows) - len(left_out)
    line = (
        f"{written} radiographs have a DICOM heat map and report, with the patients' identifiers: for the archive only"
    )
    if left_out:
        line += f"; {len(left_out)} are left out (dicom/left-out.csv says why)"
    return replace(
        outcome,
        files={**outcome.files, FOLDER: target},
        lines=[*outcome.lines, line],
        details={**outcome.details, "dicom": written, "dicom_left_out": len(left_out)},
    )


def _results(model: PneumoniaModel, decisions: Decisions, print_: str) -> list[Result]:
    """What :func:`~unlabeled.medical._decisions.decide` says of each picture, as it is written into its study."""
    return [_result(row, decisions.stated, print_, model.finding) for row in decisions.table.to_dict("records")]


def _result(row: Mapping[Any, Any], stated: Stated, print_: str, finding: str) -> Result:
    rate, abstained = f"{100 * stated.error_rate:g} %", None
    if row["decision"] != row["call"]:
        disagree = "the threshold and the stated error rate say different things"
        why = row["reason"] if row["decision"] == REFER else disagree
        abstained = f"Refer to a radiologist: {why}, at an error rate of {rate}."
    return Result(
        finding=finding,
        probability=row["probability"],
        threshold=row["threshold"],
        sensitive_threshold=row["sensitive_threshold"],
        sensitivity=stated.sensitivity,
        model=print_,
        abstained=abstained,
        calibrated=(row["calibrated"], row["calibrated_low"], row["calibrated_high"]),
        rule=f"Radiographs that are uncertain at an error rate of {rate}, or unlike those that the model was made of, "
        "are referred; this one is not.",
    )


def _write_one(path: Path, result: Result, heat_map: NDArray[np.float64], target: Path, *, framing: Framing) -> None:
    import pydicom

    with warnings.catch_warnings():
        # Real files bend the standard; what matters of that was said when they were read.
        warnings.simplefilter("ignore")
        source = pydicom.dcmread(path, force=True)
        report = measurement_report(source, result)
        picture = dicom.to_picture(source, dicom.decode(source))
        shown = on_film(heat_map, picture) if framing == "padded" else heat_map
        capture = heat_map_capture(source, shown, picture, result)
        # A valid UID is digits and dots, so that the folder stays below the target.
        study = target / str(source.StudyInstanceUID)
        study.mkdir(mode=0o700, exist_ok=True)
        for kind, content in (("SC", capture), ("SR", report)):
            name = f"{kind}-{content.SOPInstanceUID}.dcm"
            new = study / f".{name}.new-{os.getpid()}"
            content.save_as(new, enforce_file_format=True)
            new.chmod(0o600)
            os.replace(new, study / name)


def _path(source: Path, name: str) -> Path:
    """The file that a picture's id stands for."""
    if not source.is_dir():
        return source
    below = PurePosixPath(path_of(name))
    if below.is_absolute() or ".." in below.parts:
        raise DataError(f"{name} is not a file below {source}")
    return source / below


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as stream:
        return dicom.is_dicom(stream.read(132))


def _why(error: Exception) -> str:
    """What is wrong with a file in our own words; a library's may quote what stands in it."""
    if isinstance(error, UnlabeledError):
        return str(error)
    return f"no answer could be written into its study ({type(error).__name__})"
