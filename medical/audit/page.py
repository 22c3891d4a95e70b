"""The page that an ethics board reads: the verdict first, then groups, shortcuts, heat maps, decisions, card and
checklists."""

from collections.abc import Mapping, Sequence

from unlabeled.core.audit.groups import Gap, Group
from unlabeled.core.evaluation import Estimate
from unlabeled.core.report import Report, Tone, Verdict
from unlabeled.medical import _figures
from unlabeled.medical._declared import add_representation, p_value, probe_rows
from unlabeled.medical._report_decisions import add_evaluation_sections
from unlabeled.medical.audit import checklists, figures
from unlabeled.medical.audit.checklists import CARD, CLAIM, TRIPOD_AI, Item
from unlabeled.medical.audit.facts import Flow
from unlabeled.medical.audit.measures import SIGNIFICANT, Audit
from unlabeled.medical.images import Skip, skip_summary
from unlabeled.medical.model import PneumoniaModel
from unlabeled.medical.report import LIMITS

TABLED = ("AUROC", "underdiagnosis rate", "false positive rate")
# 1 minus the two rates: shown without their intervals, which are the same the other way round.
MIRRORED = ("sensitivity", "specificity")
CALIBRATED = ("calibration in the large", "calibration error")
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
        else "it loses nothing without corners or borders",
        _told(shortcuts, "part that is no lung tells the label", "parts that are no lung tell the label"),
        "its heat maps name patches that matter"
        if audit.maps.faithful.deletion_gain.low > 0
        else "its heat maps are no better than random ones",
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
        notes: what a reader should know of how the pictures came together.
    """
    filled = [checklists.count(one) for one in items.values()]
    report = Report(
        title=title,
        subtitle=subtitle,
        verdict=verdict(audit, apart=bool(model.digests_)),
        facts={
            "AUROC": audit.overall["AUROC"].value,
            "pictures": len(audit.unseen),
            "gaps that stand": len(audit.gaps),
            "suspicious shortcuts": len(audit.shortcuts) + len(audit.leans),
            "items filled in": sum(f for f, _ in filled),
            "items open": sum(o for _, o in filled),
        },
        synthetic=synthetic,
        run_id=run_id,
    )
    _overall(report, audit, model)
    _groups(report, audit)
    _intersections(report, audit)
    _shortcuts(report, audit)
    add_representation(
        report,
        audit.representation,
        asked="The same probe on the network as it was before labels: can it tell who is on the picture, and how it "
        "was taken?",
    )
    _maps(report, audit)
    _decisions(report, audit, model)
    for name, one in items.items():
        _items(report, name, one)
    _intake(report, skipped, flow, notes)
    limits = report.section("Limits")
    for limit in LIMITS:
        limits.text(limit)
    return report


def group_rows(groups: Sequence[Group]) -> list[list[object]]:
    """Rows of the table of groups: what it is, how many, the numbers or why there are none."""
    rows: list[list[object]] = []
    for group in groups:
        what = group.value if group.attribute == "all" else f"{group.attribute.replace('_', ' ')}: {group.value}"
        counts = f"{group.rows:,} / {group.units:,} / {group.positives:,}"
        if group.estimates:
            shown = (_short(group.estimates[m]) for m in TABLED)
            rows.append([what, counts, *shown, *(f"{group.estimates[m].value:.2f}" for m in MIRRORED)])
        else:
            rows.append([what, counts, "too few to say", *("" for _ in (*TABLED[1:], *MIRRORED))])
    return rows


def gap_rows(gaps: Sequence[Gap]) -> list[list[object]]:
    """Rows of the table of gaps, the surest first."""
    return [
        [g.attribute.replace("_", " "), g.metric, f"{g.higher} above {g.lower}", _signed(g.difference), p_value(g.p),
         p_value(g.adjusted), "yes" if g.adjusted < SIGNIFICANT else "no"]
        for g in sorted(gaps, key=lambda g: (g.adjusted, g.p))
    ]  # fmt: skip


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
        ["metric", "value [95 % interval]"], list(audit.overall.items()), note="Bootstrap intervals over patients."
    )
    if not model.digests_:
        section.note(
            "The model does not know whom it learnt from. Where this page speaks of unseen patients, that they are is "
            "for a person to say."
        )
    section.figure(
        _figures.roc(audit.unseen.labels, {OURS: audit.scored}, model.finding),
        "ROC curve; the dot marks the threshold chosen beforehand",
    )
    section.figure(
        _figures.histogram(audit.unseen.labels, audit.scored, model.finding),
        "Probabilities by true label, and the thresholds",
    )


def _groups(report: Report, audit: Audit) -> None:
    section = report.section("Who is served how well?")
    found = audit.groups
    for note in found.notes:
        section.text(f"{note[:1].upper()}{note[1:]}.")
    single = [g for g in found.groups if " x " not in g.attribute]
    if not single:
        section.text(
            "No groups: nothing is known of the people on the pictures. Give a table of labels with columns such as "
            "age, sex, view, device, site."
        )
        return
    if found.overall.estimates and any(g.estimates for g in single):
        section.figure(
            figures.groups(found),
            "Groups with enough patients, number of pictures in brackets; bars are 95 % intervals, the dotted line is "
            "everybody",
        )
    section.table(
        ["group", "pictures / patients / ill", *TABLED, *MIRRORED],
        group_rows([found.overall, *single]),
        ours=[0],
        note="The underdiagnosis rate is the share of the ill that is called healthy: these go home untreated. "
        f"Sensitivity and specificity are 1 minus the two rates. A group needs {found.least} patients with and "
        f"{found.least} without the finding.",
    )
    calibrated = [g for g in (found.overall, *single) if g.estimates]
    section.table(
        ["group", "share ill", *CALIBRATED],
        [
            [g.value if g.attribute == "all" else f"{g.attribute.replace('_', ' ')}: {g.value}",
             g.positives / g.rows, *(g.estimates[m] for m in CALIBRATED)]
            for g in calibrated
        ],
        note="Calibration in the large is the stated minus the counted share of the ill: above 0 the risk is "
        "overstated. Chance alone raises the calibration error of small groups: they are not compared by it.",
    )  # fmt: skip
    if found.gaps:
        section.table(
            ["attribute", "metric", "largest gap", "difference", "p", "p (Holm)", "stands"],
            gap_rows(found.gaps),
            note=f"The largest gap of each attribute and metric. p (Holm) is corrected for all {found.compared} pairs "
            "that were compared; the interval is this pair's own. A gap that does not stand is not shown to be absent: "
            "the interval says how large it may be.",
        )
    else:
        section.note("No two groups of one attribute had enough patients to be compared.")


def _intersections(report: Report, audit: Audit) -> None:
    crossed = [g for g in audit.groups.groups if " x " in g.attribute]
    if not crossed:
        return
    section = report.section("Groups within groups")
    told = [g for g in crossed if g.estimates]
    few = len(crossed) - len(told)
    worst = sorted(told, key=lambda g: -g.estimates["underdiagnosis rate"].value)
    if worst:
        section.table(
            ["group", "pictures / patients / ill", *TABLED, *MIRRORED],
            group_rows(worst[:20]),
            note="Those in which most ill are missed come first; not tested, for there are too many."
            + (f" The first 20 of {len(worst)}; all are in subgroups.csv." if len(worst) > 20 else ""),
        )
    if few:
        section.text(
            f"{few} of {len(crossed)} intersections have fewer than {audit.groups.least} patients of either class: too "
            "few to say. They are in subgroups.csv."
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
         *([o.name, o.patches, o.auroc, _signed(o.loss)] for o in audit.occluded)],
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
    alike, faithful = maps.randomised, maps.faithful
    rows: list[list[object]] = [
        ["deletion: area below random order", _signed(faithful.deletion_gain), _passed(faithful.deletion_gain)],
        ["insertion: area above random order", _signed(faithful.insertion_gain), _passed(faithful.insertion_gain)],
        ["rank correlation with maps of a randomised network", _signed(alike),
         "yes" if abs(alike.value) < ALIKE else "no: the maps show the picture rather than what was learnt"],
    ]  # fmt: skip
    if maps.boxes is not None:
        at = maps.boxes
        rows += [
            [f"strongest patch in a reader's box ({at.pictures} pictures; by chance {at.by_chance:.3f})", at.pointing,
             "yes" if at.pointing.low > at.by_chance else "not shown"],
            ["share of the map inside boxes", at.mass, "yes" if at.mass.low > at.by_chance else "not shown"],
        ]  # fmt: skip
    section.table(
        ["test", "result", "passed"],
        rows,
        note=f"On {maps.pictures} pictures drawn at random. Boxes by readers were "
        + ("compared." if maps.boxes is not None else "not given (--boxes)."),
    )


def _decisions(report: Report, audit: Audit, model: PneumoniaModel) -> None:
    """The sections that the page of a fine-tuning has, of this model alone."""
    if "held_out" in (model.finetuning_ or {}):
        add_evaluation_sections(report, model, audit.unseen, {OURS: audit.scored})
        return
    report.section("What a stated sensitivity costs").text(
        "Not known: an earlier version saved this model, without the held-out predictions that thresholds are chosen "
        "on. Fine-tune it again to see this, the calibration and what acting on it is worth."
    )


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


def _short(value: Estimate) -> str:
    """Two digits: tables of many columns have to fit a page; the files hold the rest."""
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"


def _signed(value: Estimate) -> str:
    return f"{value.value:+.3f} [{value.low:+.3f}, {value.high:+.3f}]"


def _passed(gain: Estimate) -> str:
    return "yes" if gain.low > 0 else "no: worse than random" if gain.high < 0 else "not shown"
