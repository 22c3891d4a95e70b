"""The page that an ethics board reads: the verdict first, then groups, shortcuts, heat maps, decisions, card and
checklists."""

from collections.abc import Mapping, Sequence

from unlabeled.core.evaluation import Estimate
from unlabeled.core.report import Report, Tone, Verdict
from unlabeled.medical import _figures
from unlabeled.medical._declared import add_representation, probe_rows
from unlabeled.medical._report_decisions import SHADED, add_evaluation_sections
from unlabeled.medical.audit import checklists, figures
from unlabeled.medical.audit.checklists import CARD, CLAIM, TRIPOD_AI, Item
from unlabeled.medical.audit.facts import Flow
from unlabeled.medical.audit.group_sections import add_groups, signed
from unlabeled.medical.audit.heatmaps import HeatMapChecks
from unlabeled.medical.audit.measures import Audit
from unlabeled.medical.audit.studies import add_studies
from unlabeled.medical.images import Skip, skip_summary
from unlabeled.medical.label_need import FIRST_TOLD, LabelNeed, add_label_need
from unlabeled.medical.model import PneumoniaModel
from unlabeled.medical.report import LIMITS

CARD_NAME, CLAIM_NAME, TRIPOD_NAME = "Model card", "CLAIM (2024 update)", "TRIPOD+AI"
OURS = "the model"
# Above this, maps of a network that has forgotten everything look too much like the model's.
ALIKE = 0.5


def checked(facts: Mapping[str, str]) -> dict[str, list[Item]]:
    """The card and both checklists, filled in."""
    asked = {CARD_NAME: CARD, CLAIM_NAME: CLAIM, TRIPOD_NAME: TRIPOD_AI}
    return {name: checklists.fill(items, facts) for name, items in asked.items()}


def verdict(audit: Audit, *, apart: bool) -> Verdict:
    """One sentence; red where a group is served worse, the model leans on what is no lung, or is no better than chance;
    yellow where it could be. Never green: what was not found with these pictures may be there.

    ``apart``: the model is known to have learnt from none of the patients.
    """
    gaps, leans, shortcuts = audit.gaps, audit.leans, audit.shortcuts
    whose = "of patients it did not learn from" if apart else "(whether it learnt from these patients is not known)"
    said = [
        f"AUROC {audit.overall['AUROC']} on {len(audit.unseen):,} pictures {whose}",
        _told(gaps, "gap between groups stands", "gaps between groups stand")
        + f" ({audit.groups.compared} comparisons)" if audit.groups.compared else "groups could not be compared",
        f"the model loses when it is shown the picture {' and '.join(leans)}"
        if leans
        else "no loss is shown where it does not see corners or borders",
        _told(shortcuts, "part that is no lung tells the label", "parts that are no lung tell the label"),
        _of_maps(audit.maps),
    ]  # fmt: skip
    lost = bool(gaps or leans) or not audit.overall["AUROC"].low > 0.5
    tone: Tone = "bad" if lost else "flat" if shortcuts or not audit.groups.compared else "plain"
    return Verdict("; ".join(said) + ".", tone)


def audit_report(
    audit: Audit,
    items: Mapping[str, list[Item]],
    *,
    title: str,
    subtitle: str,
    model: PneumoniaModel,
    flow: Flow,
    need: LabelNeed | None = None,
    skipped: Sequence[Skip] = (),
    notes: Sequence[str] = (),
    synthetic: bool = False,
    run_id: str | None = None,
) -> Report:
    """The whole page.

    Args:
        items: of :func:`checked`.
        model: that was audited.
        flow: what became of the inputs.
        need: the curve of how many labels are needed, where it was measured.
        notes: what a reader should know of how the pictures came together.
    """
    filled = [checklists.count(one) for one in items.values()]
    report = Report(
        title=title,
        subtitle=subtitle,
        verdict=verdict(audit, apart=model.knows_whom(audit.unseen.named_by)),
        facts={
            "AUROC": str(audit.overall["AUROC"]),
            "pictures": len(audit.unseen),
            "gaps that stand": len(audit.gaps) if audit.groups.compared else "not compared",
            "suspicious shortcuts": len(audit.shortcuts) + len(audit.leans),
            "items filled in": sum(f for f, _ in filled),
            "items open": sum(o for _, o in filled),
        },
        synthetic=synthetic,
        run_id=run_id,
    )
    _overall(report, audit, model)
    add_groups(report, audit)
    _studies(report, audit)
    _shortcuts(report, audit)
    add_representation(
        report,
        audit.representation,
        asked="The same probe on the network as it was before labels: can it tell who is on the picture, and how it "
        "was taken?",
    )
    _maps(report, audit)
    _decisions(report, audit, model)
    _label_need(report, need)
    for name, one in items.items():
        _items(report, name, one)
    _intake(report, skipped, flow, notes)
    limits = report.section("Limits")
    for limit in LIMITS:
        limits.text(limit)
    return report


def _of_maps(maps: HeatMapChecks) -> str:
    if maps.faithful.deletion_gain.low <= 0:
        return "its heat maps are no better than random ones"
    said, other = "its heat maps name patches that matter", "a network that has forgotten everything"
    found = unlike(maps.randomised)
    if found == "yes":
        return said
    return (
        f"{said}, but {other} gives similar ones"
        if found != "not shown"
        else (f"{said}, but are not shown to differ from those of {other}")
    )


def _told(found: Sequence[str], one: str, several: str) -> str:
    if not found:
        return f"no {one}"
    if len(found) == 1:
        return f"1 {one}: {found[0]}"
    return f"{len(found)} {several}, the first: {found[0]}"


def _overall(report: Report, audit: Audit, model: PneumoniaModel) -> None:
    assert audit.unseen.labels is not None
    section = report.section("Everybody")
    section.table(
        ["metric", "value [95 % interval]"],
        list(audit.overall.items()),
        note="Bootstrap intervals over patients; where all are right or wrong, from the number of patients (Wilson; of "
        "an AUROC of 1, Newcombe). The 95 % point is the threshold that predictions are made at for a sensitivity of "
        f"95 %, {audit.scored.decision.sensitive_threshold:.4f}; the plain one, of best balanced accuracy, is "
        f"{audit.scored.decision.threshold:.4f}.",
    )
    if not model.knows_whom(audit.unseen.named_by):
        section.note(
            (
                "The model knows the patients that it learnt from by other names than these. "
                if model.digests_
                else "The model does not know whom it learnt from. "
            )
            + "Where this page speaks of unseen patients, that they are is for a person to say."
        )
    section.figure(
        _figures.roc(audit.unseen.labels, {OURS: audit.scored}, model.finding, patients=audit.unseen.patients),
        f"ROC curve; the dot marks the threshold chosen beforehand; {SHADED}",
    )
    section.figure(
        _figures.histogram(audit.unseen.labels, audit.scored, model.finding),
        "Probabilities by true label, and the thresholds",
    )


def _shortcuts(report: Report, audit: Audit) -> None:
    section = report.section("Could it be told without the lungs?")
    section.text(
        "A linear model, judged on patients it did not see, tries to tell the label from parts of the picture that are "
        "no lung. Where it can, a network can as well. There may be good reasons (posture, age) or bad ones (a ward, "
        "a machine, a marker): a person has to say which."
    )
    if any(s.found is not None for s in audit.label_probes):
        section.figure(figures.probes(audit.label_probes), "AUROC for the label; orange: 95th percentile of chance")
    section.table(
        ["what it sees", "AUROC", "chance (95 %)", "p (Holm)", "pictures"],
        probe_rows(audit.label_probes),
        note="Chance: the label shuffled among patients. The whole picture at the same coarse size is the yardstick.",
    )
    section.table(
        ["the model", "patches left out", "its AUROC", "AUROC lost"],
        [["as it is", 0, audit.overall["AUROC"], ""],
         *([o.name, o.patches, o.auroc, signed(o.loss)] for o in audit.occluded)],
        note="Left out, not painted over: the encoder reads whatever patches it is given. For that it looks at each "
        "picture once; the first row is its score from three looks, and what is lost is counted from one. Corners are "
        "where markers stand. A loss means that the model used what was there, which includes the tips and sides of "
        "the lungs.",
    )  # fmt: skip


def _maps(report: Report, audit: Audit) -> None:
    maps = audit.maps
    section = report.section("Do the heat maps mean anything?")
    section.figure(
        figures.faithfulness(maps.faithful),
        "Left: patches are taken away, those that the map names first; the sooner it falls the better. Right: patches "
        "are shown one after the other; the sooner it rises the better.",
    )
    alike, faithful, all_ = maps.randomised, maps.faithful, maps.pictures
    rows: list[list[object]] = [
        ["deletion: area below random order", all_, signed(faithful.deletion_gain), _passed(faithful.deletion_gain)],
        ["insertion: area above random order", all_, signed(faithful.insertion_gain), _passed(faithful.insertion_gain)],
        ["rank correlation with maps of a randomised network", maps.compared, signed(alike), unlike(alike)],
    ]
    if maps.boxes is not None:
        at = maps.boxes
        rows += [
            ["strongest patch in a reader's box", at.pictures, at.pointing, _passed(at.pointing_gain)],
            ["share of the map inside boxes", at.pictures, at.mass, _passed(at.mass_gain)],
            ["either by chance: share of the film that boxes cover", at.pictures, at.by_chance, ""],
        ]
    section.table(
        ["test", "pictures", "result", "passed"],
        rows,
        note="Pictures were drawn at random; brackets are 95 % intervals over patients. Passed: the whole interval of "
        f"the gain is above 0; of the correlation, it is below {ALIKE}. Boxes by readers were "
        + ("compared, paired with chance." if maps.boxes is not None else "not given (--boxes)."),
    )


def unlike(correlation: Estimate) -> str:
    """Whether maps are so unlike a randomised network's that the whole interval is below :data:`ALIKE`."""
    if correlation.low > -ALIKE and correlation.high < ALIKE:
        return "yes"
    if correlation.low >= ALIKE or correlation.high <= -ALIKE:
        return "no: the maps show the picture rather than what was learnt"
    return "not shown"


def _studies(report: Report, audit: Audit) -> None:
    add_studies(report.section("Studies with several pictures"), audit.studies, decided=audit.decisions is not None)


def _decisions(report: Report, audit: Audit, model: PneumoniaModel) -> None:
    """The sections that the page of a fine-tuning has, of this model alone."""
    if "held_out" in (model.finetuning_ or {}):
        add_evaluation_sections(report, model, audit.unseen, {OURS: audit.scored})
        return
    report.section("What a stated sensitivity costs").text(
        "Not known: an earlier version saved this model, without the held-out predictions that thresholds are chosen "
        "on. Fine-tune it again to see this, the calibration and what acting on it is worth."
    )


def _label_need(report: Report, need: LabelNeed | None) -> None:
    heading = "How many labels are needed?"
    if need is None:
        report.section(heading).text(
            "Not measured: 'unlabeled medical labels-needed' measures it (it trains many times over), and --label-need "
            "shows it here."
        )
        return
    report.section(heading).text(str(need.advice()[FIRST_TOLD]))
    add_label_need(report, need)


def _items(report: Report, name: str, items: list[Item]) -> None:
    filled, open_ = checklists.count(items)
    section = report.section(f"{name}: {filled} filled in, {open_} open")
    section.table(
        ["", "item", "status", "what is known"],
        [[i.number, i.title, "filled" if i.filled else "OPEN", i.text] for i in items],
    )
    if name != CARD_NAME:
        section.note(
            f"Numbers are those of {name}; titles are ours and short. The published checklist holds what an item asks "
            "for, and is to be read beside this."
        )


def _intake(report: Report, skipped: Sequence[Skip], flow: Flow, notes: Sequence[str]) -> None:
    section = report.section("What was left out, and why")
    for note in notes:
        section.text(f"{note[:1].upper()}{note[1:]}.")
    section.text(flow.says())
    if skipped:
        section.table(["reason", "count", "for example"], skip_summary(skipped), note="All are in skipped.csv.")
    elif not flow.not_judged():
        section.text("Nothing: every input was used.")


def _passed(gain: Estimate) -> str:
    return "yes" if gain.low > 0 else "no: worse than random" if gain.high < 0 else "not shown"
