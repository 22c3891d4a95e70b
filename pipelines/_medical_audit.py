"""``unlabeled medical audit``: whom a fine-tuned model serves badly, what it may lean on, what a board must know."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from unlabeled.core import tracking
from unlabeled.core.audit.groups import Group
from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.errors import DataError
from unlabeled.core.evaluation import Estimate
from unlabeled.core.progress import say
from unlabeled.medical._storage import pretrained_weights
from unlabeled.medical.attributes import strangers
from unlabeled.medical.audit import checklists, page
from unlabeled.medical.audit.checklists import Item
from unlabeled.medical.audit.facts import Flow, known
from unlabeled.medical.audit.heatmaps import Box, read_boxes
from unlabeled.medical.audit.measures import Audit, measure
from unlabeled.medical.audit.store_boxes import of_store
from unlabeled.medical.images import UNLABELLED, ImageSet
from unlabeled.medical.intake.store import is_store
from unlabeled.medical.label_need import LabelNeed, read_label_need
from unlabeled.medical.model import PneumoniaModel
from unlabeled.medical.shortcuts import Shortcut
from unlabeled.pipelines._medical_exchange import settings_of
from unlabeled.pipelines._medical_input import framing_of, read
from unlabeled.pipelines._medical_judges import by_pixels, judges_found, judges_given
from unlabeled.pipelines._medical_output import names_in, track, track_model, write_csv, write_skips
from unlabeled.pipelines._medical_places import check_out
from unlabeled.pipelines._medical_pretraining import EXPERIMENT
from unlabeled.pipelines.jobs import Outcome, percentiles


def audit(
    source: Path,
    *,
    model: Path,
    out: Path,
    labels: Path | None = None,
    boxes: Path | None = None,
    names: Path | None = None,
    label_need: Path | None = None,
    leave_out_flagged: bool = False,
    least: int = 20,
    seed: int = 0,
) -> Outcome:
    """Audits the model of a folder on labelled pictures of patients that it did not learn from.

    ``boxes`` is a CSV of boxes that readers drew, of a store's films by their files with ``names``, the intake's
    private list of these; ``label_need`` a folder that ``labels-needed`` wrote; ``least`` the patients of either class
    that a group needs; with ``leave_out_flagged`` a store's flagged pictures do not judge.

    Raises:
        GateError: the model learnt from some of the patients.
        DataError: nothing is left to judge on, or the curve of labels is another model's.
    """
    check_out(out, source=source)
    if names is not None and (boxes is None or not is_store(source)):
        raise DataError("--names tells what the films of a store are called in --boxes: give both, and the store")
    trained = PneumoniaModel.load(model)
    trained.check_fine_tuned()
    drawn = None if boxes is None else read_boxes(boxes)
    if drawn is not None and is_store(source):
        drawn = of_store(drawn, source, names=names)
    need = None if label_need is None else read_label_need(label_need)
    if need is not None and (need.finding, need.weights) != (trained.finding, pretrained_weights(trained)):
        raise DataError(
            f"the curve in {label_need} is about {need.finding} and a certain pretrained network, which is not what "
            f"{model} began with: run 'unlabeled medical labels-needed' with this model"
        )
    images = read(
        source, labels, size=trained.image_size, framing=framing_of(trained), finding=trained.finding,
        leave_out_flagged=leave_out_flagged,
    )  # fmt: skip
    judges = judges_found(trained, images) if labels is None else judges_given(trained, images)
    odd = strangers((trained.finetuning_ or {}).get("who", {}), images)
    for note in (*judges.notes, *odd):
        say(note)
    if judges.unseen is None:
        raise DataError("; ".join(judges.notes) or "an audit needs labels: give a CSV with --labels")
    notes = (*images.notes, *judges.notes, *odd)
    if not trained.digests_:
        notes = (*notes, "the model does not know whom it learnt from: that nobody is judged twice is for you to say")
    return audit_on(
        trained, judges.unseen, folder=model, out=out, boxes=drawn, need=need, read=images, notes=notes, least=least,
        seed=seed,
    )  # fmt: skip


def audit_on(
    model: PneumoniaModel,
    unseen: ImageSet,
    *,
    folder: Path,
    out: Path,
    boxes: Mapping[str, list[Box]] | None = None,
    need: LabelNeed | None = None,
    read: ImageSet | None = None,
    notes: tuple[str, ...] = (),
    least: int = 20,
    seed: int = 0,
    synthetic: bool = False,
) -> Outcome:
    """The same on pictures at hand.

    Args:
        model: that was saved in ``folder``.
        unseen: labelled pictures of patients that it did not learn from.
        need: how many labels are needed, where that was measured.
        read: what they were taken from, for what became of the rest.
    """
    read = unseen if read is None else read
    skipped, flow = read.skipped, flow_of(model, read, unseen)
    with (
        TemporaryDirectory() as place,
        tracking.run(
            EXPERIMENT,
            f"audit {out.name}",
            params={**settings_of(model), "model": folder.name, "images": len(unseen), "least": least},
            tags={"data.fingerprint": unseen.fingerprint()},
            parent=model.provenance_.get("pretraining_run"),
            model=model.provenance_.get("finetuning_run"),
        ) as run,
    ):
        found = measure(model, unseen, boxes=boxes, least=least, seed=seed)
        items = page.checked(known(model, found, skipped, flow))
        report = page.audit_report(
            found,
            items,
            title=f"Audit of a model of {model.finding}",
            subtitle=f"{folder.name}, judged on {len(unseen):,} labelled pictures of "
            f"{len(np.unique(unseen.patients)):,} patients",
            model=model,
            flow=flow,
            need=need,
            skipped=skipped,
            notes=notes,
            synthetic=synthetic,
            run_id=run.run_id,
        )
        files = {**_write_tables(out, found, items), **write_skips(out, skipped)}
        said = to_json(found, items, flow, verdict=report.verdict.text)
        said["labels_needed"] = None if need is None else need.to_json()
        files["json"] = write_atomically(out / "audit.json", json.dumps(said, indent=1, allow_nan=False) + "\n")
        files["report"] = report.write(out / "report.html")
        run.metrics(_numbers(found))
        run.curve("probability_percentiles", percentiles(found.scored.probability))
        names = names_in(read, skipped=skipped)
        track(run, files, report, place=Path(place), nameless=False, names=names, within="audit")
        track_model(run, folder)
    counts = {name: checklists.count(one) for name, one in items.items()}
    return Outcome(
        headline=report.verdict.text,
        files=files,
        run_id=run.run_id,
        lines=[f"{name}: {filled} items filled in, {open_} open" for name, (filled, open_) in counts.items()],
        details={
            "pictures": len(unseen),
            "gaps": found.gaps,
            "pairs_compared": found.groups.compared,
            "shortcuts": found.shortcuts,
            "leans": found.leans,
            "verdict": report.verdict.tone,
            "seconds": round(found.seconds, 1),
        },
    )


def flow_of(model: PneumoniaModel, read: ImageSet, unseen: ImageSet) -> Flow:
    """What became of everything that was read; lines of labels that fit no picture are no inputs."""
    skipped = sum(not skip.reason.startswith("label ") for skip in read.skipped)
    labels = np.full(len(read), UNLABELLED) if read.labels is None else read.labels
    labelled = labels != UNLABELLED
    others = read.select(labelled & ~np.isin(read.patients, unseen.patients))
    seen = model.seen(others.patients) | model.seen(by_pixels(others))
    learnt = int(np.isin(others.patients, others.patients[seen]).sum())
    return Flow(
        skipped=skipped,
        unlabelled=int((~labelled).sum()),
        learnt=learnt,
        aside=int(labelled.sum()) - learnt - len(unseen),
        judged=len(unseen),
    )


def to_json(found: Audit, items: Mapping[str, list[Item]], flow: Flow, *, verdict: str) -> dict[str, Any]:
    """Everything that was measured as plain values; no pictures and nobody's id."""
    return {
        "verdict": verdict,
        "flow": flow._asdict(),
        "overall": _plain(found.overall),
        "groups": _plain([found.groups.overall, *found.groups.groups]),
        "gaps": _plain([gap._asdict() for gap in found.groups.gaps]),
        "pairs_compared": found.groups.compared,
        "notes": list(found.groups.notes),
        "thresholds": {
            "plain": found.scored.decision.threshold,
            "95 % point": found.scored.decision.sensitive_threshold,
        },
        "studies": None if found.studies is None else _plain(found.studies._asdict()),
        "label_probes": [_probe(s) for s in found.label_probes],
        "occluded": _plain([one._asdict() for one in found.occluded]),
        "representation": [_probe(s) for s in found.representation],
        "heat_maps": _plain(found.maps),
        "checklists": {
            name: {
                "filled": checklists.count(one)[0],
                "open": checklists.count(one)[1],
                "items": [{**item._asdict(), "filled": item.filled} for item in one],
            }
            for name, one in items.items()
        },
        "seconds": round(found.seconds, 1),
    }


def _write_tables(out: Path, found: Audit, items: Mapping[str, list[Item]]) -> dict[str, Path]:
    bounds = [f"{name} {end}".strip() for name in found.groups.metrics for end in ("", "low", "high")]
    groups = write_csv(
        out / "subgroups.csv",
        ("attribute", "group", "pictures", "patients", "ill", "healthy", *bounds, "note"),
        [_group_row(group, found.groups.metrics) for group in (found.groups.overall, *found.groups.groups)],
    )
    gaps = write_csv(
        out / "gaps.csv",
        ("attribute", "metric", "higher", "lower", "difference", "low", "high", "p", "p_holm"),
        [(g.attribute, g.metric, g.higher, g.lower, *g.difference, g.p, g.adjusted) for g in found.groups.gaps],
    )
    probes = write_csv(
        out / "shortcuts.csv",
        ("asked for", "from", "auroc", "low", "high", "chance_95", "p", "p_holm", "note"),
        [
            *(("label", *_probe_row(s)) for s in found.label_probes),
            *((s.name, "frozen features", *_probe_row(s)[1:]) for s in found.representation),
            *(("label", f"the model {o.name}", *o.auroc, "", "", "", f"AUROC lost {o.loss}") for o in found.occluded),
        ],
    )
    listed = write_csv(
        out / "checklists.csv",
        ("list", "item", "title", "filled", "known", "missing"),
        [(name, i.number, i.title, i.filled, i.known, i.missing) for name, one in items.items() for i in one],
    )
    return {"subgroups": groups, "gaps": gaps, "shortcuts": probes, "checklists": listed}


def _group_row(group: Group, metrics: Sequence[str]) -> tuple[object, ...]:
    numbers = [x for name in metrics for x in group.estimates.get(name, ("", "", ""))]
    return (
        group.attribute, group.value, group.rows, group.units, group.positives, group.negatives, *numbers, group.note
    )  # fmt: skip


def _probe_row(s: Shortcut) -> tuple[object, ...]:
    if s.found is None:
        return (s.name, "", "", "", "", "", "", s.note)
    return (s.name, *s.found.auroc, s.found.chance, s.found.p, s.adjusted, "")


def _probe(s: Shortcut) -> dict[str, Any]:
    if s.found is None:
        return {"name": s.name, "note": s.note}
    f = s.found
    return _plain(
        {"name": s.name, "auroc": f.auroc, "chance_95": f.chance, "p": f.p, "p_holm": s.adjusted, "values": f.values,
         "left_out": f.left_out}
    )  # fmt: skip


def _numbers(found: Audit) -> dict[str, float]:
    """What the tracked run keeps as metrics: each number, and both ends of its interval where they are known."""
    measured = {_key(name): value for name, value in {**found.groups.overall.estimates, **found.overall}.items()}
    measured |= {f"gap.{_key(g.attribute)}.{_key(g.metric)}": g.difference for g in found.groups.gaps}
    measured |= {f"told_from.{_key(s.name)}": s.found.auroc for s in found.label_probes if s.found}
    measured |= {f"encodes.{_key(s.name)}": s.found.auroc for s in found.representation if s.found}
    measured |= {f"loss.{_key(o.name)}": o.loss for o in found.occluded}
    if found.studies is not None:
        measured |= {f"studies.{_key(name)}": value for name, value in found.studies.whole.items()}
    numbers = {
        f"audit.{name}{end}": float(number)
        for name, estimate in measured.items()
        for end, number in zip(("", ".low", ".high"), estimate, strict=True)
        if not end or math.isfinite(number)
    }
    return {**numbers, "audit.gaps": len(found.gaps)}


def _key(name: str) -> str:
    return name.replace("%", "pc").replace(" ", "_")


def _plain(value: Any) -> Any:
    """Estimates and arrays as JSON has them; what is no number is null."""
    if isinstance(value, Estimate):
        return {name: _plain(part) for name, part in value._asdict().items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(getattr(value, name)) for name in asdict(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(part) for part in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
