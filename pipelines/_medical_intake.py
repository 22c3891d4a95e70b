"""``unlabeled medical intake``: a hospital's folder to a store, tracked without a name of anybody."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unlabeled.core import report, tracking
from unlabeled.core.checkpoints import MANIFEST
from unlabeled.core.errors import DataError
from unlabeled.core.progress import say
from unlabeled.medical.images import PNEUMONIA
from unlabeled.medical.intake import Intake, _told, take_in
from unlabeled.medical.intake.reasons import FLAGS, REFUSALS
from unlabeled.medical.relabel import relabel
from unlabeled.pipelines._medical_pretraining import EXPERIMENT
from unlabeled.pipelines.jobs import Outcome


def intake(
    folder: Path,
    *,
    out: Path,
    site_key: Path | None = None,
    ledger: Path | None = None,
    size: int = 128,
    site: str = "",
    labels: Path | None = None,
    findings: Sequence[str] = (PNEUMONIA,),
    dicom: bool = False,
    ocr: bool = False,
    workers: int | None = None,
) -> Outcome:
    """Takes a folder in; called again after an interruption, it goes on where it was.

    The key is ``site.key`` and the ledger ``<out>-ledger.csv`` beside ``out`` where they are not given. The tracked run
    holds the settings, the counts, the manifest and the report; no table, and not the name of the folder.

    Raises:
        DataError: as `take_in`, or the working folder lies in ``folder``.
    """
    if Path.cwd().is_relative_to(folder.resolve()):
        raise DataError(
            "the working folder lies among the hospital's files, and the tracked run would be kept there: run this "
            "from another folder"
        )
    beside = out.absolute().parent
    with tracking.run(
        EXPERIMENT,
        f"intake {out.name}",
        params={"size": size, "labels": labels is not None, "dicom": dicom, "ocr": ocr},
    ) as run:
        began = time.monotonic()
        done = take_in(
            folder, store=out, key=site_key or beside / "site.key", ledger=ledger or beside / f"{out.name}-ledger.csv",
            size=size, site=site, labels=labels, findings=findings, dicom=dicom, ocr=ocr, workers=workers,
        )  # fmt: skip
        seconds, told = time.monotonic() - began, done.manifest
        page = _report(done, run_id=run.run_id).write(out / "report.html")
        states = _states(told)
        run.tags({"data.fingerprint": told["pictures"]["fingerprint"]})
        run.metrics({**states, "seconds": seconds})
        for kind in ("refusals", "flags"):
            run.metrics({f"{kind}.{name.replace(' ', '_')}": count for name, count in told[kind].items()})
        run.artifact(out / MANIFEST)
        run.artifact(page)
    say(f"{told['found'] / max(seconds, 1e-9):.1f} files a second")
    return _outcome(done, page, run_id=run.run_id)


def other_labels(
    folder: Path, *, store: Path, site_key: Path, ledger: Path, labels: Path, findings: Sequence[str]
) -> Outcome:
    """Gives a store the labels of another table (:func:`~unlabeled.medical.relabel.relabel`), which is tracked as the
    intake is: what it says is what an intake with this table would say."""
    with tracking.run(EXPERIMENT, f"labels {store.name}") as run:
        manifest = relabel(folder, store=store, key=site_key, labels=labels, findings=findings)
        names = ledger.with_name(f"{store.name}-files.csv")
        done = Intake(store=store, ledger=ledger, names=names, manifest=manifest)
        page = _report(done, run_id=run.run_id).write(store / "report.html")
        run.metrics({f"labels.{name.replace(' ', '_')}": count for name, count in manifest["labels"].items()})
        run.artifact(store / MANIFEST)
        run.artifact(page)
    return _outcome(done, page, run_id=run.run_id)


def _states(told: dict[str, Any]) -> dict[str, int]:
    return {name: told[name] for name in ("found", "kept", "flagged", "refused")}


def _outcome(done: Intake, page: Path, *, run_id: str) -> Outcome:
    told = done.manifest
    return Outcome(
        headline=f"{told['found']} files found: {told['kept']} kept, {told['flagged']} kept with a flag, "
        f"{told['refused']} refused. Next: unlabeled medical pretrain {done.store}",
        lines=_lines(done),
        files={"store": done.store, "report": page, "ledger": done.ledger, "files": done.names},
        run_id=run_id,
        details={**_states(told), **{name: told.get(name) for name in ("refusals", "flags", "labels", "attributes")}},
    )


def _lines(done: Intake) -> list[str]:
    told = done.manifest
    lines = [f"{count} refused, {reason}: {REFUSALS[reason]}" for reason, count in _most_first(told["refusals"])]
    lines += [f"{count} flagged, {flag}: {FLAGS[flag]}" for flag, count in _most_first(told["flags"])]
    if told["labels"] is not None:
        rows = [f"{count} {what}" for what, count in told["labels"].items() if count or what == "used"]
        lines.append(f"rows of the labels: {', '.join(rows)}")
        lines += _told.lines(told.get("attributes", {}))  # which a store of an earlier version does not have
    lines.append(f"gate.csv has a row for each file; {done.names.name} says which file it is (keep it to yourselves)")
    return lines


def _report(done: Intake, *, run_id: str) -> report.Report:
    told = done.manifest
    page = report.Report(
        title="Intake of chest radiographs",
        subtitle=f"{told['pictures']['rows']} pictures of {told['size']} pixels",
        verdict=report.Verdict(
            f"Of {told['found']} files, {told['kept']} are kept, {told['flagged']} kept with a flag and "
            f"{told['refused']} refused."
        ),
        facts={name: told[name] for name in ("found", "kept", "flagged", "refused")},
        run_id=run_id,
    )
    if told["refusals"]:
        page.section("Refused").table(
            ("reason", "files", "meaning"),
            [(reason, count, REFUSALS[reason]) for reason, count in _most_first(told["refusals"])],
            note="Each file has one reason, so that these add up to what was refused. gate.csv has a row a file.",
        )
    if told["flags"]:
        page.section("Kept with a flag").table(
            ("flag", "pictures", "meaning"),
            [(flag, count, FLAGS[flag]) for flag, count in _most_first(told["flags"])],
            note="A picture can have several flags; they are in the column flags of studies.csv.",
        )
    section = page.section("How pictures were made")
    section.text("; ".join(told["preprocessing"]) + ".")
    section = page.section("De-identification")
    methods = "; ".join(f"{name} ({code})" for code, name in told["deidentification"]["methods"].items())
    section.text(f"{told['deidentification']['profile']}. Methods (PS3.16 CID 7050): {methods}.")
    section.note(
        "Text that is faint, large or over the middle of a picture is not found, and a body can be recognised: look at "
        "pictures before the store leaves the house. Research use; not a medical device."
    )
    return page


def _most_first(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
