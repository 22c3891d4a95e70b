"""``unlabeled medical run``: from a hospital's folder to a registered model and a page for an ethics board."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from unlabeled.core import fingerprint
from unlabeled.core.budget import AS_FOUND, Rates
from unlabeled.core.errors import DataError
from unlabeled.core.training import forget
from unlabeled.medical._finetuning import binary
from unlabeled.medical.images import Framing, ImageSet
from unlabeled.medical.intake import is_as_it_was
from unlabeled.medical.label_need import read_label_need
from unlabeled.medical.model import PneumoniaModel
from unlabeled.medical.readers import read_images
from unlabeled.medical.several import check_folds
from unlabeled.medical.splits import patient_folds
from unlabeled.pipelines import _cost as cost
from unlabeled.pipelines import _medical_audit as auditing
from unlabeled.pipelines import _medical_intake as taking_in
from unlabeled.pipelines import _medical_label_need as needing
from unlabeled.pipelines import _medical_package as packaging
from unlabeled.pipelines import _medical_pretraining as pretraining
from unlabeled.pipelines import _medical_several as several
from unlabeled.pipelines import medical
from unlabeled.pipelines._medical_input import TEST_SHARE, Parts, divide, with_declaration
from unlabeled.pipelines._medical_places import check_out
from unlabeled.pipelines._medical_run_checks import check_labels, check_settings, registered_name
from unlabeled.pipelines._medical_run_page import run_page, without_next
from unlabeled.pipelines._medical_run_plan import LABELS, NEED, STAGES, TAUGHT, Plan
from unlabeled.pipelines._medical_run_record import Record
from unlabeled.pipelines.jobs import Outcome

__all__ = ["DRAWS", "KEY", "STAGES", "Plan", "Record", "run"]

KEY = "site.key"
# Draws of labels for each number, where it is measured how many are needed.
DRAWS = 5


def run(
    folder: Path,
    *,
    labels: Path,
    out: Path,
    private: Path | None = None,
    plan: Plan | None = None,
    synthetic: bool = False,
    dry_run: bool = False,
    rates: Rates = AS_FOUND,
) -> Outcome:
    """Intake, pretraining, fine-tuning, audit and package, each a tracked run of its own; what is done is not repeated
    as long as what it depends on stays (:mod:`unlabeled.pipelines._medical_run_plan`).

    A third of the labelled patients (or the labels' own test part) judges: nothing is learnt from their pictures, with
    or without labels.

    Args:
        folder: DICOM files.
        labels: CSV as for the intake.
        out: gets ``store``, ``pretrained``, ``model``, ``audit``, ``package`` (of several findings, in the last three a
            folder for each) and the report that leads to them.
        private: folder for the site key, the ledger and the list of file names (default: ``<out>-private`` beside
            ``out``), which only its owner can read.
        dry_run: only say what the trainings would cost if every file and every line of labels could be used.

    Raises:
        DataError: a setting or the labels cannot be used (before a film is read, as far as that can be told), or
            ``out`` holds something else, or a run whose films were taken in otherwise.
    """
    plan = plan or Plan()
    plan = replace(plan, findings=tuple(several.names_of(plan.findings)))
    if not folder.is_dir():
        raise DataError("the folder to take in does not exist, or is a file")
    if not labels.is_file():
        raise DataError(f"{labels} is not a file: a run needs a CSV of labels")
    model = _model(plan, "padded")
    check_settings(plan, model)
    check_labels(labels, plan, folds=model.folds)
    if dry_run:
        return _dry_run(folder, labels, plan, rates)
    check_out(out, replaces="run")
    private = private or out.absolute().with_name(f"{out.name}-private")
    record = _record(out, plan, folder, labels)
    _check_private(private, out)
    if "intake" in record.stages and is_as_it_was(folder, store=out / "store", key=private / KEY) is False:
        raise DataError(
            f"the files of the folder are not those that {out} was made of: name another folder with --out, or put "
            "back what was there"
        )
    if not private.exists():
        private.mkdir(parents=True)
        private.chmod(0o700)

    _take_in(record, folder, labels, out=out, private=private, plan=plan)
    study = _study(out / "store", plan)
    _check_enough(study, plan)
    state = pretraining.state_of(out / "pretrained")
    record.stage(
        "pretraining", lambda: _pretrain(study.parts, plan, out / "pretrained", synthetic),
        clear=lambda: forget(state), digests={TAUGHT: study.taught()},
    )  # fmt: skip
    record.stage(
        "fine-tuning", lambda: _finetune(study, plan, out, synthetic),
        clear=lambda: shutil.rmtree(out / "model", ignore_errors=True), digests={LABELS: study.said()},
    )  # fmt: skip
    for name in plan.findings:
        _of_finding(name, study, record, out=out, plan=plan, synthetic=synthetic)
    done = record.done
    page = run_page(done, out, left_out=plan.leave_out_flagged, synthetic=synthetic).write(out / "report.html")
    packed = [stage for name, stage in done.items() if name.startswith("package")]
    audits = {f"audit{plan.of(name)}": _place(out / "audit", name, plan) / "report.html" for name in plan.findings}
    return Outcome(
        headline=done["fine-tuning"]["headline"],
        lines=[
            without_next(done["intake"]["headline"]),
            *(stage["headline"] for name, stage in done.items() if name.startswith("audit")),
            *(line for stage in packed for line in stage["lines"]),
        ],
        files={
            "report": page, **audits, "model": out / "model", "package": out / "package", "private": private,
        },
        run_id=packed[-1]["run_id"],
        details={"stages": {name: {**stage["details"], "run_id": stage["run_id"]} for name, stage in done.items()}},
    )  # fmt: skip


@dataclass(frozen=True)
class _Study:
    """What was taken in and divided: the parts of each finding, and where there are several, all that were gathered."""

    images: ImageSet
    parts: Parts
    each: Mapping[str, Parts]
    together: several.Together | None = None

    def read_for(self, name: str) -> ImageSet:
        return self.images if self.together is None else self.together.read_for(name)

    def taught(self) -> str:
        """A digest of the pictures that are learnt from without labels; who judges is not among them."""
        return fingerprint.of_names(self.parts.unlabelled.ids)

    def said(self) -> str:
        """A digest of what is known of which picture, and of the parts that are given."""
        images, told = self.images, [self.read_for(name).labels for name in self.each]
        return fingerprint.of_names(
            [*images.ids, *images.patients, *([] if images.splits is None else images.splits)]
            + [fingerprint.of_array(labels) for labels in told if labels is not None]
        )


def _study(store: Path, plan: Plan) -> _Study:
    if len(plan.findings) > 1:
        found = several.gather(
            store, None, plan.findings, size=plan.size, framing=None, n_labels=plan.n_labels, seed=plan.seed,
            leave_out_flagged=plan.leave_out_flagged,
        )  # fmt: skip
        return _Study(found.images, found.parts, found.each, found)
    images = read_images(store, size=plan.size, finding=plan.findings[0], leave_out_flagged=plan.leave_out_flagged)
    images = with_declaration(images)
    parts = divide(images, n_labels=plan.n_labels, seed=plan.seed)
    return _Study(images, parts, {plan.findings[0]: parts})


def _record(out: Path, plan: Plan, folder: Path, labels: Path) -> Record:
    # Of where it came from a digest only: paths may hold names.
    both = [str(folder.resolve()), str(labels.resolve())]
    return Record(
        out, plan, folder=fingerprint.of_names(both[:1]), labels=fingerprint.of_names([labels.read_bytes()]),
        earlier=fingerprint.of_names(both),
    )  # fmt: skip


def _take_in(record: Record, folder: Path, labels: Path, *, out: Path, private: Path, plan: Plan) -> None:
    """The intake; where it is done, and the labels are others by now, these alone."""
    store, key, ledger = out / "store", private / KEY, private / "ledger.csv"
    done = record.stages.get("intake")
    if done is not None and done["made_of"].get(LABELS) != record.digests[LABELS]:
        record.amend(
            "intake",
            lambda: taking_in.other_labels(
                folder, store=store, site_key=key, ledger=ledger, labels=labels, findings=plan.findings
            ),
            said="done before; the labels say something else by now and are translated again",
            digests={LABELS: record.digests[LABELS]},
        )
        return
    record.stage(
        "intake",
        lambda: taking_in.intake(
            folder, out=store, site_key=key, ledger=ledger, size=plan.size, site=plan.site, labels=labels,
            findings=plan.findings, ocr=plan.ocr,
        ),
        digests=record.digests,
    )  # fmt: skip


def _place(folder: Path, finding: str, plan: Plan) -> Path:
    """Where a finding's own lies: in ``folder``, or in one of its own in it."""
    return folder / several.folder_of(finding) if len(plan.findings) > 1 else folder


def _model(plan: Plan, framing: Framing) -> PneumoniaModel:
    model = PneumoniaModel(
        image_size=plan.size, framing=framing, pretrain_epochs=plan.epochs, random_state=plan.seed,
        self_training=plan.self_training, ensemble=plan.ensemble, finding=plan.findings[0],
    )  # fmt: skip
    if plan.steps is not None:
        model.set_params(finetune_steps=plan.steps)
    model.check()
    return model


def _check_private(private: Path, out: Path) -> None:
    """Raises a DataError where what leads back to patients would lie with the rest, or could be read by others."""
    if private.resolve() == out.resolve() or out.resolve() in private.resolve().parents:
        raise DataError(
            f"--private {private} lies in {out}, which is what may be handed on: name a folder apart from it"
        )
    if private.exists() and (not private.is_dir() or private.stat().st_mode & 0o077):
        raise DataError(
            f"--private {private} exists and others may read it: 'chmod 700 {private}' if it is yours alone, or name a "
            "folder that does not exist yet"
        )


def _check_enough(study: _Study, plan: Plan) -> None:
    """Raises a DataError where too little is labelled, before hours are spent on what comes first."""
    folds = PneumoniaModel().folds
    for parts in study.each.values():
        assert parts.train.labels is not None
        binary(parts.train.labels, what="labels")
        if parts.validation is None and study.together is None:
            patient_folds(parts.train.patients, parts.train.labels, folds=folds, seed=plan.seed)
        if plan.label_need:
            needing.counts_for(len(parts.train), None)
    if study.together is not None and study.parts.validation is None:
        check_folds(study.together.of(study.parts.train), study.parts.train.patients, folds=folds, seed=plan.seed)


def _pretrain(parts: Parts, plan: Plan, out: Path, synthetic: bool) -> Outcome:
    model = _model(plan, parts.unlabelled.framing)
    # Of the pictures that are learnt from, not of all.
    images = with_declaration(replace(parts.unlabelled, notes=parts.unlabelled.notes[:-1]))
    return pretraining.pretrain(model, images, out=out, synthetic=synthetic)


def _base(plan: Plan, pretrained: Path) -> PneumoniaModel:
    """What fine-tuning goes on from: settings of the fine-tuning may have changed since it was pretrained."""
    model, asked = PneumoniaModel.load(pretrained), _model(plan, "padded")
    names = ("finetune_steps", "self_training", "ensemble", "finding")
    return model.set_params(**{name: getattr(asked, name) for name in names})


def _finetune(study: _Study, plan: Plan, out: Path, synthetic: bool) -> Outcome:
    base, images = _base(plan, out / "pretrained"), study.images
    if study.together is not None:
        return several.finetune_on(base, study.together, out=out / "model")
    return medical.finetune_on(
        base, study.parts, out=out / "model", skipped=images.skipped, notes=images.notes, synthetic=synthetic
    )


def _of_finding(name: str, study: _Study, record: Record, *, out: Path, plan: Plan, synthetic: bool) -> None:
    """Label need, audit and package of one finding."""
    parts, model, of = study.each[name], _place(out / "model", name, plan), plan.of(name)
    needed = _place(out / "labels-needed", name, plan)
    if plan.label_need:
        base = _base(plan, out / "pretrained").set_params(finding=name)
        record.stage(
            f"{NEED}{of}",
            lambda: needing.labels_needed_on(
                base, parts, folder=out / "pretrained", out=needed, seeds=DRAWS, seed=plan.seed
            ),
            digests={LABELS: study.said()},
        )
    read, place = study.read_for(name), _place(out / "audit", name, plan)
    record.stage(
        f"audit{of}",
        lambda: auditing.audit_on(
            PneumoniaModel.load(model), parts.test, folder=model, out=place, read=read,
            need=read_label_need(needed) if plan.label_need else None, notes=read.notes, seed=plan.seed,
            synthetic=synthetic,
        ),
        clear=lambda: shutil.rmtree(place, ignore_errors=True),
    )  # fmt: skip
    called = registered_name(plan, name)
    record.stage(
        f"package{of}",
        lambda: packaging.package_on(model, out=_place(out / "package", name, plan), register=called),
    )


def _dry_run(folder: Path, labels: Path, plan: Plan, rates: Rates) -> Outcome:
    """Trained on as many pictures of noise as there are files: what they show does not matter to the cost."""
    files = sum(1 for path in folder.rglob("*") if path.is_file())
    lines = sum(1 for line in labels.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()) - 1
    learnt = round((1 - TEST_SHARE) * lines) if plan.n_labels is None else min(plan.n_labels, lines)
    if files < 2 or learnt < 2:
        raise DataError(f"there are {files} files and {lines} lines of labels: too few to train on")
    model = _model(plan, "padded")
    noise = np.random.default_rng(0).integers(0, 256, (1, plan.size, plan.size), dtype=np.uint8)
    names = np.array([str(number) for number in range(learnt)])
    taught = ImageSet(
        images=np.broadcast_to(noise, (learnt, plan.size, plan.size)), ids=names, patients=names,
        labels=np.arange(learnt) % 2, framing="padded",
    )  # fmt: skip
    pictures = np.broadcast_to(noise, (files, plan.size, plan.size))
    ours, scratch = cost.finetunings(model, taught, beside=medical.SCRATCH)
    trainings = [model.pretraining_cost(pictures), ours, *(scratch for _ in plan.findings)]
    if plan.label_need:
        counts = needing.counts_for(learnt, None)
        for _ in plan.findings:
            trainings += needing.costs(model, taught, counts=counts, seeds=DRAWS, seed=plan.seed)
    return cost.dry_run(
        trainings,
        rates=rates,
        reads=f"{files:,} files and {lines:,} lines of labels, as if each could be used"
        + (" and none were flagged (flagged ones are left out)" if plan.leave_out_flagged else ""),
        left_out="the intake, linear probes, the PCA baseline, the audit, the package and the reports",
    )
