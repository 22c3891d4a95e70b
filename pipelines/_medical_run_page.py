"""The page of ``unlabeled medical run``: what each stage did, and where its own page is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unlabeled.core import report
from unlabeled.pipelines import _medical_several as several
from unlabeled.pipelines._medical_run_plan import NEED


def run_page(done: dict[str, dict[str, Any]], out: Path, *, left_out: bool, synthetic: bool) -> report.Report:
    """One page that says what each stage did and leads to its own page; flagged pictures are ``left_out`` or not."""
    intake, tuned = done["intake"]["details"], done["fine-tuning"]["details"]
    audits = [stage["details"] for name, stage in done.items() if name.startswith("audit")]
    tones = [one["verdict"] for one in tuned["findings"].values()] if "findings" in tuned else [tuned["verdict"]]
    page = report.Report(
        title="From a folder to a model",
        subtitle=f"{len(done)} stages, each a tracked run of its own",
        verdict=report.Verdict(
            done["fine-tuning"]["headline"], tone=next((tone for tone in ("bad", "flat") if tone in tones), tones[0])
        ),
        facts={
            "files found": intake["found"],
            "pictures": intake["kept"] + (0 if left_out else intake["flagged"]),
            "labels learnt from": tuned["labels"],
            "pictures that judge": tuned["unseen"],
            "gaps between groups": _gaps(audits),
        },
        synthetic=synthetic,
        run_id=list(done.values())[-1]["run_id"],
    )
    for name, stage in done.items():
        section = page.section(name.capitalize())
        section.text(without_next(stage["headline"]))
        for line in stage["lines"]:
            section.note(line)
        if name == "intake" and left_out:
            section.note(f"The {intake['flagged']} flagged ones are left out of everything below, as was asked for.")
        own = _page_of(name)
        if own is not None and (out / own).exists():
            section.note(f"Its own page: {own}; its run: {stage['run_id']}")
    return page


def _gaps(audits: Sequence[Mapping[str, Any]]) -> int | str:
    """How many stand; of nothing compared, that is no number."""
    compared = any(audit.get("pairs_compared", 1) for audit in audits)
    return sum(len(audit["gaps"]) for audit in audits) if compared else "not compared"


def _page_of(stage: str) -> str | None:
    """Where a stage's own page lies below the folder of the run."""
    what, _, finding = stage.partition(" of ")
    folder = {"intake": "store", "pretraining": "pretrained", "fine-tuning": "model", "audit": "audit"}
    if what == NEED:
        folder[NEED] = "labels-needed"
    if what not in folder:
        return None
    return "/".join([folder[what], *([several.folder_of(finding)] if finding else []), "report.html"])


def without_next(headline: str) -> str:
    """A stage's headline without what to do next, which the run does itself."""
    return headline.partition(" Next:")[0]
