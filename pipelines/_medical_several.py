"""``unlabeled medical finetune`` with several findings: one training, a model and a report for each, one page above.
``predict`` takes what it left as it takes one model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
from unlabeled.medical._planning import check_finding
from unlabeled.medical._tables import labellings
from unlabeled.medical.images import UNLABELLED, Framing, ImageSet
from unlabeled.medical.intake.store import is_store, labels_of
from unlabeled.medical.labels import attach, read_labels
from unlabeled.medical.model import PneumoniaModel
from unlabeled.medical.several import finetune_together
from unlabeled.pipelines import _cost as cost
from unlabeled.pipelines import medical
from unlabeled.pipelines._medical_exchange import pretrained, settings_of
from unlabeled.pipelines._medical_input import Parts, adjusted, divide, framing_of, read
from unlabeled.pipelines._medical_output import is_nameless, write_predictions
from unlabeled.pipelines._medical_places import FINDINGS, check_out
from unlabeled.pipelines._medical_pretraining import EXPERIMENT
from unlabeled.pipelines.jobs import Outcome, plain_folder

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
    leave_out_flagged: bool = False,
    seed: int = 0,
    dry_run: bool = False,
    rates: Rates = AS_FOUND,
) -> Outcome:
    """Learns several findings at once (:func:`~unlabeled.medical.several.finetune_together`).

    Pictures are divided once, by whether any of the findings is there; each finding is judged, beside baselines of its
    own, where it is known. ``out`` gets a folder for each, by its name. A store's own labels need no ``labels``.

    Raises:
        DataError: no CSV of labels, a finding twice or of one class only among those who learn or those who judge.
    """
    check_out(out, source=source, replaces="models")
    names = names_of(findings)
    base = adjusted(
        pretrained(model, size=size), random_state=seed, finetune_steps=steps, tuning=tuning,
        layer_decay=layer_decay, ensemble=ensemble,
    )  # fmt: skip
    together = gather(
        source, labels, names, size=base.image_size, framing=framing_of(base), n_labels=n_labels, seed=seed,
        leave_out_flagged=leave_out_flagged,
    )  # fmt: skip
    base.set_params(framing=together.images.framing)
    if dry_run:
        parts = together.parts
        scratch = [
            cost.finetunings(base, own.train, beside=f"{medical.SCRATCH}, {name}")[1]
            for name, own in together.each.items()
        ]
        ours = cost.finetunings(base, parts.train, validation=parts.validation is not None, beside="")[0]
        return cost.dry_run([ours, *scratch], rates=rates, reads=f"{len(parts.train)} labels", left_out=cost.LEFT_OUT)
    return finetune_on(base, together, out=out, rates=rates)


@dataclass(frozen=True)
class Together:
    """Pictures with the labels of several findings.

    Attributes:
        images: all that were read; as labels, whether any of the findings is there.
        labels: of each finding, (N,) as in an `ImageSet`.
        parts: of the pictures, divided once.
        each: the parts of each finding: with its labels, where it is known.
    """

    images: ImageSet
    labels: Mapping[str, NDArray[np.int64]]
    parts: Parts
    each: Mapping[str, Parts]

    def of(self, part: ImageSet) -> dict[str, NDArray[np.int64]]:
        """The labels of each finding on a part's pictures."""
        return _of(self.images, self.labels, part)

    def read_for(self, name: str) -> ImageSet:
        """All that were read, with the labels of one finding."""
        return replace(self.images, labels=self.labels[name])


def gather(
    source: Path,
    labels: Path | None,
    names: Sequence[str],
    *,
    size: int,
    framing: Framing | None,
    n_labels: int | None,
    seed: int,
    leave_out_flagged: bool = False,
) -> Together:
    """Reads pictures and the labels of several findings, and divides them by patient, once for all.

    Raises:
        DataError: there is no table of labels, it does not tell the findings apart, or one has a single class.
    """
    if labels is None and is_store(source):
        labels = labels_of(source)
    if labels is None:
        raise DataError(
            "several findings need a CSV of labels with a column for each, or one that lists them: --labels"
        )
    check_columns(labels, names)
    images = read(source, labels, size=size, framing=framing, finding=names[0], leave_out_flagged=leave_out_flagged)
    told = {names[0]: images.labels}
    told |= {name: attach(images, read_labels(labels, finding=name)).labels for name in names[1:]}
    table = {name: values for name, values in told.items() if values is not None}
    images = replace(images, labels=_any(np.stack(list(table.values()), axis=1)))
    parts = divide(images, n_labels=n_labels, seed=seed)
    each = {name: _parts_of(parts, name, images, table) for name in names}
    return Together(images=images, labels=table, parts=parts, each=each)


def finetune_on(base: PneumoniaModel, together: Together, *, out: Path, rates: Rates = AS_FOUND) -> Outcome:
    """:func:`finetune` on what was gathered."""
    names, parts, each = list(together.each), together.parts, together.each
    folders = {name: folder_of(name) for name in names}
    validation = None
    if parts.validation is not None:
        validation = (parts.validation, together.of(parts.validation))
    (out / FINDINGS).unlink(missing_ok=True)  # what is there until the end may be of other findings
    with tracking.run(
        EXPERIMENT,
        f"finetune {out.name}",
        params={**settings_of(base), "finding": ", ".join(names), "labels": len(parts.train)},
        tags={"data.fingerprint": parts.train.fingerprint()},
        parent=base.provenance_.get("pretraining_run"),
    ) as run:
        models = finetune_together(
            base, parts.train, together.of(parts.train), groups=parts.train.patients, validation=validation,
            unlabelled=parts.unlabelled, log=priced(run.metrics, rates),
        )  # fmt: skip
        done = {}
        for name, own in models.items():
            say(f"judging {name}")
            done[name] = medical.finetune_on(
                own, each[name], out=out / folders[name], skipped=together.images.skipped,
                notes=together.images.notes, synthetic=False, inside=run.run_id,
            )  # fmt: skip
        page = _page(done, folders, parts, run_id=run.run_id).write(out / "report.html")
        write_atomically(out / FINDINGS, json.dumps(names) + "\n")
        run.artifact(page)
        for name in names:
            run.model(out / folders[name], f"model/{folders[name]}")
    return Outcome(
        headline=f"{len(names)} findings learnt together from {len(parts.train)} pictures.",
        lines=[f"{name}: {one.headline}" for name, one in done.items()],
        files={"report": page, **{f"model {name}": out / folders[name] for name in names}},
        run_id=run.run_id,
        details={
            "labels": len(parts.train),
            "unseen": len(parts.test),
            "findings": {name: one.to_json() for name, one in done.items()},
        },
    )


def names_of(findings: Sequence[str]) -> list[str]:
    """Findings as they are called, each once.

    Raises:
        DataError: two would share a folder, or one is called as nothing can be.
    """
    names = [name.strip() for name in findings]
    for name in names:
        check_finding(name)
    if len({folder_of(name) for name in names}) < len(names):
        raise DataError(f"each finding is named once; got {', '.join(names)}")
    return names


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
    return {name: folder / folder_of(name) for name in names}


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
    check_out(out, source=source)
    check_columns(labels, list(models))
    asked = {f"stated.{name}": value for name, value in asdict(stated or Stated()).items()}
    with tracking.run(EXPERIMENT, f"predict {out.name}", params={"finding": ", ".join(models), **asked}) as run:
        done = {}
        for name, folder in models.items():
            say(f"looking for {name}")
            done[name] = medical.predict(
                source, model=folder, out=out / folder_of(name), labels=labels, stated=stated, heat_maps=heat_maps,
                dicom=dicom, inside=run.run_id,
            )  # fmt: skip
        files = write_predictions(out, _side_by_side({name: one.files["table"] for name, one in done.items()}))
        if is_nameless(source, labels):
            for path in files.values():
                run.artifact(path, "predictions")
        folders = {name: folder_of(name) for name in models}
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
    labellings(columns, names, where=str(labels))


def _side_by_side(tables: Mapping[str, Path]) -> pd.DataFrame:
    """A line for each picture: of each finding the probability with its bounds, the call and the decision."""
    parts = []
    for name, path in tables.items():
        own = pd.read_parquet(path).set_index("image_id")[SHOWN]
        parts.append(own.add_prefix(f"{name}: "))
    return pd.concat(parts, axis=1).reset_index()


def folder_of(finding: str) -> str:
    """What the folder of a finding's own model, predictions or audit is called."""
    return plain_folder(finding.lower().replace(" ", "-"), kind="finding", reserved="report")


def _any(table_nk: NDArray[np.int64]) -> NDArray[np.int64]:
    """1 where any finding is there, 0 where at least one is known and none is there, else unknown."""
    known, there = (table_nk != UNLABELLED).any(axis=1), (table_nk == 1).any(axis=1)
    return np.where(there, 1, np.where(known, 0, UNLABELLED))


def _of(images: ImageSet, labels: Mapping[str, NDArray[np.int64]], part: ImageSet) -> dict[str, NDArray[np.int64]]:
    row_of = {str(name): row for row, name in enumerate(images.ids)}
    rows = [row_of[str(name)] for name in part.ids]
    return {name: values[rows] for name, values in labels.items()}


def _parts_of(parts: Parts, name: str, images: ImageSet, table: Mapping[str, NDArray[np.int64]]) -> Parts:
    """The parts with the labels of one finding, where it is known."""

    def own(part: ImageSet, what: str) -> ImageSet:
        labels = _of(images, {name: table[name]}, part)[name]
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
