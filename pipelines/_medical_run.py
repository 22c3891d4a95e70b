"""``unlabeled medical run``: from a hospital's folder to a registered model and a page for an ethics board."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from unlabeled.core import fingerprint, report
from unlabeled.core.budget import AS_FOUND, Rates
from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.errors import DataError
from unlabeled.core.progress import say
from unlabeled.medical._finetuning import binary
from unlabeled.medical.images import PNEUMONIA, Framing, ImageSet
from unlabeled.medical.model import PneumoniaModel
from unlabeled.medical.readers import read_images
from unlabeled.medical.splits import patient_folds
from unlabeled.pipelines import _cost as cost
from unlabeled.pipelines import _medical_audit as auditing
from unlabeled.pipelines import _medical_intake as taking_in
from unlabeled.pipelines import _medical_package as packaging
from unlabeled.pipelines import _medical_pretraining as pretraining
from unlabeled.pipelines import medical
from unlabeled.pipelines._medical_input import TEST_SHARE, Parts, divide, with_declaration
from unlabeled.pipelines.jobs import Outcome

RECORD = "run.json"
STAGES = ("intake", "pretraining", "fine-tuning", "audit", "package")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run is asked for; the same plan goes on where an interrupted one stopped.

    Attributes:
        size: rows and columns of the pictures that are learnt from; the store's as well.
        epochs: of the pretraining.
        steps: of the fine-tuning of each network; ``None``: as usual.
        n_labels: use so many labels only.
        site: what the column ``site`` says.
        register: name in MLflow's registry.
        seed: fixes everything random.
        finding: what the labels are about, where they are about several.
        self_training: the networks teach others from the pictures without labels.
        ensemble: networks that vote in place of each one.
        leave_out_flagged: nothing is learnt from, or judged on, pictures that the intake flags.
    """

    size: int = 64
    epochs: int = 50
    steps: int | None = None
    n_labels: int | None = None
    site: str = ""
    register: str = PNEUMONIA
    seed: int = 0
    self_training: bool = False
    ensemble: int = 1
    finding: str = PNEUMONIA
    leave_out_flagged: bool = False


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
    """Intake, pretraining, fine-tuning, audit and package, each a tracked run of its own; what is done is not repeated.

    A third of the labelled patients (or the labels' own test part) judges: nothing is learnt from their pictures, with
    or without labels.

    Args:
        folder: DICOM files.
        labels: CSV as for the intake.
        out: gets ``store``, ``pretrained``, ``model``, ``audit``, ``package`` and the report that leads to them.
        private: folder for the site key, the ledger and the list of file names (default: ``<out>-private`` beside
            ``out``), which only its owner can read.
        dry_run: only say what the trainings would cost if every file and every line of labels could be used.

    Raises:
        DataError: ``out`` holds something else, or an interrupted run of another plan.
    """
    plan = plan or Plan()
    if not folder.is_dir():
        raise DataError("the folder to take in does not exist, or is a file")
    if not labels.is_file():
        raise DataError(f"{labels} is not a file: a run needs a CSV of labels")
    if dry_run:
        return _dry_run(folder, labels, plan, rates)
    private = private or out.absolute().with_name(f"{out.name}-private")
    # Of where it came from a digest only: paths may hold names.
    source = fingerprint.of_names([str(folder.resolve()), str(labels.resolve())])
    written = fingerprint.of_names([labels.read_bytes()])
    record = _Record(out, {**vars(plan), "folder and labels": source, "what the labels say": written})
    private.mkdir(parents=True, exist_ok=True)
    private.chmod(0o700)

    store = out / "store"
    took = record.stage(
        "intake",
        lambda: taking_in.intake(
            folder, out=store, site_key=private / "site.key", ledger=private / "ledger.csv", size=plan.size,
            site=plan.site, labels=labels, finding=plan.finding,
        ),
    )  # fmt: skip
    images = with_declaration(read_images(store, size=plan.size, leave_out_flagged=plan.leave_out_flagged))
    parts = divide(images, n_labels=plan.n_labels, seed=plan.seed)
    _check_enough(parts, plan)
    base = record.stage("pretraining", lambda: _pretrain(parts, plan, out / "pretrained", synthetic))
    tuned = record.stage(
        "fine-tuning",
        lambda: medical.finetune_on(
            PneumoniaModel.load(out / "pretrained"), parts, out=out / "model", skipped=images.skipped,
            notes=images.notes, synthetic=synthetic,
        ),
    )  # fmt: skip
    audited = record.stage(
        "audit",
        lambda: auditing.audit_on(
            PneumoniaModel.load(out / "model"), parts.test, folder=out / "model", out=out / "audit", read=images,
            notes=images.notes, seed=plan.seed, synthetic=synthetic,
        ),
    )  # fmt: skip
    packed = record.stage(
        "package", lambda: packaging.package(out / "model", out=out / "package", register=plan.register)
    )
    done = {"intake": took, "pretraining": base, "fine-tuning": tuned, "audit": audited, "package": packed}
    page = _page(done, out, left_out=plan.leave_out_flagged, synthetic=synthetic).write(out / "report.html")
    return Outcome(
        headline=tuned["headline"],
        lines=[_without_next(took["headline"]), audited["headline"], *packed["lines"]],
        files={
            "report": page, "audit": out / "audit" / "report.html", "model": out / "model",
            "package": out / "package", "private": private,
        },
        run_id=packed["run_id"],
        details={"stages": {name: {**stage["details"], "run_id": stage["run_id"]} for name, stage in done.items()}},
    )  # fmt: skip


def _model(plan: Plan, framing: Framing) -> PneumoniaModel:
    model = PneumoniaModel(
        image_size=plan.size, framing=framing, pretrain_epochs=plan.epochs, random_state=plan.seed,
        self_training=plan.self_training, ensemble=plan.ensemble, finding=plan.finding,
    )  # fmt: skip
    if plan.steps is not None:
        model.set_params(finetune_steps=plan.steps)
    model.check()
    return model


def _check_enough(parts: Parts, plan: Plan) -> None:
    """Raises a DataError where too little is labelled to fine-tune on, before hours are spent on what comes first."""
    assert parts.train.labels is not None
    binary(parts.train.labels, what="labels")
    if parts.validation is None:
        folds = PneumoniaModel().folds
        patient_folds(parts.train.patients, parts.train.labels, folds=folds, seed=plan.seed)


def _pretrain(parts: Parts, plan: Plan, out: Path, synthetic: bool) -> Outcome:
    model = _model(plan, parts.unlabelled.framing)
    # Of the pictures that are learnt from, not of all.
    images = with_declaration(replace(parts.unlabelled, notes=parts.unlabelled.notes[:-1]))
    return pretraining.pretrain(model, images, out=out, synthetic=synthetic)


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
    return cost.dry_run(
        [model.pretraining_cost(pictures), *cost.finetunings(model, taught, beside=medical.SCRATCH)],
        rates=rates,
        reads=f"{files:,} files and {lines:,} lines of labels, as if each could be used"
        + (" and none were flagged (flagged ones are left out)" if plan.leave_out_flagged else ""),
        left_out="the intake, linear probes, the PCA baseline, the audit, the package and the reports",
    )


class _Record:
    """Which stages are done, in ``run.json``; each is written when its files are complete.

    Raises:
        DataError: the folder holds something else, or a run of another plan.
    """

    def __init__(self, out: Path, plan: dict[str, Any]) -> None:
        self.path, self.plan, self.stages = out / RECORD, json.loads(json.dumps(plan)), dict[str, Any]()
        if self.path.is_file():
            self._go_on(out)
            return
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise DataError(f"{out} exists and holds no run: name another folder with --out")
        out.mkdir(parents=True, exist_ok=True)
        self._write()

    def _go_on(self, out: Path) -> None:
        """Takes up what is done; where nothing is yet, another plan may begin."""
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            # A run that an earlier version began knows nothing of choices that came later: it took their defaults.
            self.stages, before = found["stages"], {**self.plan, **vars(Plan()), **found["plan"]}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.path} is damaged ({error}): name another folder with --out") from None
        differ = [f"{k} was {before.get(k)!r}, is {v!r}" for k, v in self.plan.items() if before.get(k) != v]
        if differ and self.stages:
            raise DataError(f"{out} holds a run of another plan ({'; '.join(differ)}): name another folder with --out")

    def stage(self, name: str, work: Callable[[], Outcome]) -> dict[str, Any]:
        """What came of a stage, now or in an earlier call that was interrupted later on."""
        number = f"{STAGES.index(name) + 1} of {len(STAGES)}: {name}"
        if name in self.stages:
            say(f"{number}: done before")
        else:
            say(number)
            outcome = work()
            self.stages[name] = {
                "headline": outcome.headline, "lines": outcome.lines, "run_id": outcome.run_id,
                "details": outcome.to_json(),
            }  # fmt: skip
            self._write()
        found: dict[str, Any] = self.stages[name]
        return found

    def _write(self) -> None:
        write_atomically(self.path, json.dumps({"plan": self.plan, "stages": self.stages}, indent=1) + "\n")


def _page(done: dict[str, dict[str, Any]], out: Path, *, left_out: bool, synthetic: bool) -> report.Report:
    """One page that says what each stage did and leads to its own page; flagged pictures are ``left_out`` or not."""
    intake, tuned, audit = (done[name]["details"] for name in ("intake", "fine-tuning", "audit"))
    page = report.Report(
        title="From a folder to a model",
        subtitle=f"{len(done)} stages, each a tracked run of its own",
        verdict=report.Verdict(done["fine-tuning"]["headline"], tone=tuned["verdict"]),
        facts={
            "files found": intake["found"],
            "pictures": intake["kept"] + (0 if left_out else intake["flagged"]),
            "labels learnt from": tuned["labels"],
            "pictures that judge": tuned["unseen"],
            "gaps between groups": len(audit["gaps"]),
        },
        synthetic=synthetic,
        run_id=done["package"]["run_id"],
    )
    pages = {
        "intake": "store/report.html", "pretraining": "pretrained/report.html", "fine-tuning": "model/report.html",
        "audit": "audit/report.html",
    }  # fmt: skip
    for name, stage in done.items():
        section = page.section(name.capitalize())
        section.text(_without_next(stage["headline"]))
        for line in stage["lines"]:
            section.note(line)
        if name == "intake" and left_out:
            section.note(f"The {intake['flagged']} flagged ones are left out of everything below, as was asked for.")
        if name in pages and (out / pages[name]).exists():
            section.note(f"Its own page: {pages[name]}; its run: {stage['run_id']}")
    return page


def _without_next(headline: str) -> str:
    """A stage's headline without what to do next, which the run does itself."""
    return headline.partition(" Next:")[0]
