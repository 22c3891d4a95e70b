"""``unlabeled medical finetune`` with several findings: one training, a model and a report for each, one page above.
``predict`` takes what it left as it takes one model."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlabeled.core import report, tracking
from unlabeled.core.budget import AS_FOUND, Rates, priced
from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.errors import DataError
from unlabeled.core.finetuning import Tuning
from unlabeled.core.progress import say
from unlabeled.medical._decisions import Stated
from unlabeled.medical._tables import find_labels
from unlabeled.medical.images import UNLABELLED, ImageSet
from unlabeled.medical.labels import attach, read_labels
from unlabeled.medical.several import finetune_together
from unlabeled.pipelines import _cost as cost
from unlabeled.pipelines import medical
from unlabeled.pipelines._medical_exchange import pretrained, settings_of
from unlabeled.pipelines._medical_input import Parts, adjusted, divide, framing_of, read
from unlabeled.pipelines._medical_output import write_predictions
from unlabeled.pipelines._medical_pretraining import EXPERIMENT
from unlabeled.pipelines.jobs import Outcome, plain_folder

# The list of the findings that a folder has a model of, each in a folder of its own.
FINDINGS = "findings.json"
# Columns of a finding's own table that the table of all shows.
SHOWN = ["probability", "calibrated", "calibrated_low", "calibrated_high", "call", "decision", "reason"]


def finetune(
    source: Path,
    *,
    model: Path,
    out: Path,
    findings: Sequence[str],
    labels: Path | None,
    n_labels: int | None = None,
    steps: int | None = None,
    tuning: Tuning | None = None,
    layer_decay: float | None = None,
    ensemble: int | None = None,
    size: int | None = None,
    seed: int = 0,
    dry_run: bool = False,
    rates: Rates = AS_FOUND,
) -> Outcome:
    """Learns several findings at once (:func:`~unlabeled.medical.several.finetune_together`).

    Pictures are divided once, by whether any of the findings is there; each finding is judged, beside baselines of its
    own, where it is known. ``out`` gets a folder for each, by its name.

    Raises:
        DataError: no CSV of labels, a finding twice or of one class only among those who learn or those who judge.
    """
    names = [name.strip() for name in findings]
    folders = {name: _folder(name) for name in names}
    if len(set(folders.values())) < len(names):
        raise DataError(f"each finding is named once; got {', '.join(names)}")
    if labels is None:
        raise DataError(
            "several findings need a CSV of labels with a column for each, or one that lists them: --labels"
        )
    check_columns(labels, names)
    base = adjusted(
        pretrained(model, size=size), random_state=seed, finetune_steps=steps, tuning=tuning,
        layer_decay=layer_decay, ensemble=ensemble,
    )  # fmt: skip
    images = read(source, labels, size=base.image_size, framing=framing_of(base), finding=names[0])
    base.set_params(framing=images.framing)
    told = {name: attach(images, read_labels(labels, finding=name)).labels for name in names}
    table = np.stack([values for values in told.values() if values is not None], axis=1)
    parts = divide(replace(images, labels=_any(table)), n_labels=n_labels, seed=seed)
    row_of = {str(name): row for row, name in enumerate(images.ids)}

    def of(part: ImageSet, k: int) -> NDArray[np.int64]:
        found: NDArray[np.int64] = table[[row_of[str(name)] for name in part.ids], k]
        return found

    each = {name: _parts_of(parts, name, partial(of, k=k)) for k, name in enumerate(names)}
    if dry_run:
        scratch = [
            cost.finetunings(base, own.train, beside=f"{medical.SCRATCH}, {name}")[1] for name, own in each.items()
        ]
        ours = cost.finetunings(base, parts.train, validation=parts.validation is not None, beside="")[0]
        return cost.dry_run([ours, *scratch], rates=rates, reads=f"{len(parts.train)} labels", left_out=cost.LEFT_OUT)
    validation = None
    if parts.validation is not None:
        validation = (parts.validation, {name: of(parts.validation, k) for k, name in enumerate(names)})
    (out / FINDINGS).unlink(missing_ok=True)  # what is there until the end may be of other findings
    with tracking.run(
        EXPERIMENT,
        f"finetune {out.name}",
        params={**settings_of(base), "finding": ", ".join(names), "labels": len(parts.train)},
        tags={"data.fingerprint": parts.train.fingerprint()},
        parent=base.provenance_.get("pretraining_run"),
    ) as run:
        models = finetune_together(
            base, parts.train, {name: of(parts.train, k) for k, name in enumerate(names)},
            groups=parts.train.patients, validation=validation, unlabelled=parts.unlabelled,
            log=priced(run.metrics, rates),
        )  # fmt: skip
        done = {}
        for name, own in models.items():
            say(f"judging {name}")
            done[name] = medical.finetune_on(
                own, each[name], out=out / folders[name], skipped=images.skipped, notes=images.notes,
                synthetic=False, inside=run.run_id,
            )  # fmt: skip
        page = _page(done, folders, parts, run_id=run.run_id).write(out / "report.html")
        write_atomically(out / FINDINGS, json.dumps(names) + "\n")
        run.artifact(page)
        for name in names:
            run.artifact(out / folders[name], f"model/{folders[name]}")
    return Outcome(
        headline=f"{len(names)} findings learnt together from {len(parts.train)} pictures.",
        lines=[f"{name}: {one.headline}" for name, one in done.items()],
        files={"report": page, **{f"model {name}": out / folders[name] for name in names}},
        run_id=run.run_id,
        details={"findings": {name: one.to_json() for name, one in done.items()}},
    )


def models_in(folder: Path) -> dict[str, Path]:
    """The models that :func:`finetune` left in ``folder``, by finding; none where it left none, or is not done."""
    try:
        names = json.loads((folder / FINDINGS).read_text(encoding="utf-8"))
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise ValueError("it is no list of findings")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / FINDINGS} cannot be read ({error}): name one finding's own folder") from None
    return {name: folder / _folder(name) for name in names}


def predict(
    source: Path,
    *,
    models: Mapping[str, Path],
    out: Path,
    labels: Path | None = None,
    stated: Stated | None = None,
    heat_maps: int = 0,
    dicom: bool = False,
) -> Outcome:
    """What each of ``models`` says of the pictures, in a folder of its own, and one table of all.

    Pictures are read once for each, so that each says which labels of its finding it can be judged by.
    """
    check_columns(labels, list(models))
    asked = {f"stated.{name}": value for name, value in asdict(stated or Stated()).items()}
    with tracking.run(EXPERIMENT, f"predict {out.name}", params={"finding": ", ".join(models), **asked}) as run:
        done = {}
        for name, folder in models.items():
            say(f"looking for {name}")
            done[name] = medical.predict(
                source, model=folder, out=out / _folder(name), labels=labels, stated=stated, heat_maps=heat_maps,
                dicom=dicom, inside=run.run_id,
            )  # fmt: skip
        files = write_predictions(out, _side_by_side({name: one.files["table"] for name, one in done.items()}))
        for path in files.values():
            run.artifact(path, "predictions")
        folders = {name: _folder(name) for name in models}
        files["report"] = _predictions_page(done, folders, run_id=run.run_id).write(out / "report.html")
        run.artifact(files["report"])
        for count in ("pictures", "skipped"):
            run.metrics({count: next(iter(done.values())).details[count]})
    return Outcome(
        headline=f"{len(models)} finding(s) looked for in {next(iter(done.values())).details['pictures']} pictures.",
        lines=[f"{name}: {one.headline}" for name, one in done.items()],
        files={**files, **{f"report {name}": one.files["report"] for name, one in done.items()}},
        run_id=run.run_id,
        details={"findings": {name: one.to_json() for name, one in done.items()}},
    )


def check_columns(labels: Path | None, names: Sequence[str]) -> None:
    """Raises a DataError where a CSV of labels says the same of several findings, or nothing of one."""
    if labels is None or not labels.is_file():
        return
    try:
        columns = [str(column) for column in pd.read_csv(labels, nrows=0).columns]
    except ValueError:  # said where it is read
        return
    found = {name: find_labels(columns, name) for name in names}
    missing = [name for name, labelling in found.items() if labelling is None]
    own = [labelling.column for labelling in found.values() if labelling is not None and not labelling.listed]
    if missing or len(set(own)) < len(own):
        which = f"nothing of {', '.join(missing)}" if missing else f"the same of {', '.join(names)} (column {own[0]})"
        raise DataError(f"{labels} says {which}: it needs a column for each finding, or one that lists them")


def _side_by_side(tables: Mapping[str, Path]) -> pd.DataFrame:
    """A line for each picture: of each finding the probability with its bounds, the call and the decision."""
    parts = []
    for name, path in tables.items():
        own = pd.read_parquet(path).set_index("image_id")[SHOWN]
        parts.append(own.add_prefix(f"{name}: "))
    return pd.concat(parts, axis=1).reset_index()


def _folder(finding: str) -> str:
    return plain_folder(finding.lower().replace(" ", "-"), kind="finding", reserved="report")


def _any(table_nk: NDArray[np.int64]) -> NDArray[np.int64]:
    """1 where any finding is there, 0 where at least one is known and none is there, else unknown."""
    known, there = (table_nk != UNLABELLED).any(axis=1), (table_nk == 1).any(axis=1)
    return np.where(there, 1, np.where(known, 0, UNLABELLED))


def _parts_of(parts: Parts, name: str, labels_of: Callable[[ImageSet], NDArray[np.int64]]) -> Parts:
    """The parts with the labels of one finding, where it is known."""

    def own(part: ImageSet, what: str) -> ImageSet:
        labels = labels_of(part)
        known = labels != UNLABELLED
        if not {0, 1} <= set(labels):
            raise DataError(f"{name}: the pictures that {what} hold one class of it only, or none: give more labels")
        return replace(part, labels=labels).take(known)

    return Parts(
        train=own(parts.train, "teach"),
        validation=None if parts.validation is None else own(parts.validation, "choose"),
        test=own(parts.test, "judge"),
        unlabelled=parts.unlabelled,
    )


def _page(done: dict[str, Outcome], folders: dict[str, str], parts: Parts, *, run_id: str) -> report.Report:
    """What came of each finding, and where its own page is."""
    page = report.Report(
        title="Several findings, learnt together",
        subtitle=f"{len(parts.train)} pictures that teach, {len(parts.test)} that judge",
        verdict=report.Verdict("Each finding has a model of its own; all of their networks learnt from all labels."),
        facts={"findings": len(done)},
        run_id=run_id,
    )
    section, rows, others = page.section("Each finding"), [], list(next(iter(done.values())).comparisons[0].baselines)
    for name, one in done.items():
        auroc = next(c for c in one.comparisons if c.metric == "AUROC")
        rows.append([name, one.details["labels"], one.details["unseen"], auroc.ours, *auroc.baselines.values()])
    note = "Brackets are 95 % bootstrap intervals over patients."
    section.table(["finding", "labels", "unseen pictures", "AUROC", *others], rows, note=note)
    _pages_of(page, done, folders)
    return page


def _predictions_page(done: dict[str, Outcome], folders: dict[str, str], *, run_id: str) -> report.Report:
    """What was said of each finding, and where its own page is."""
    read = next(iter(done.values())).details
    page = report.Report(
        title="Several findings, looked for in the same pictures",
        subtitle=f"{read['pictures']} pictures, {read['skipped']} files skipped",
        verdict=report.Verdict("Each finding is decided by thresholds of its own; no picture is called as a whole."),
        facts={"findings": len(done)},
        run_id=run_id,
    )
    _pages_of(page, done, folders)
    return page


def _pages_of(page: report.Report, done: dict[str, Outcome], folders: dict[str, str]) -> None:
    for name, one in done.items():
        own = page.section(name.capitalize())
        own.text(one.headline)
        for line in one.lines:
            own.text(line)
        own.note(f"Its own page: {folders[name]}/report.html; its run: {one.run_id}")
