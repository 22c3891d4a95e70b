"""The sections of an audit's page on groups of people and pictures."""

from collections.abc import Sequence

from unlabeled.core.audit.groups import Gap, Group
from unlabeled.core.evaluation import Estimate
from unlabeled.core.report import Report, Section
from unlabeled.medical._decisions import REFER
from unlabeled.medical._declared import p_value
from unlabeled.medical._report_decisions import percent
from unlabeled.medical.audit import figures
from unlabeled.medical.audit.measures import AT_POINT, REFERRED, SIGNIFICANT, STRANGE, Audit
from unlabeled.medical.evaluation import over_patients

# The false positive rate, 1 minus the specificity, is in subgroups.csv and among what groups are compared by.
TABLED = ("AUROC", "underdiagnosis rate", "sensitivity", "specificity")
CALIBRATED = ("share ill", "calibration in the large", "calibration error")


def add_groups(report: Report, audit: Audit) -> None:
    """Groups at the plain threshold, groups at the point for 95 % sensitivity, and groups within groups."""
    _groups(report, audit)
    _at_point(report.section("Whom does the 95 % point miss, and who is referred?"), audit)
    _intersections(report, audit)


def group_rows(groups: Sequence[Group], metrics: Sequence[str]) -> list[list[object]]:
    """Rows of a table of groups: what it is, how many, the numbers or why there are none."""
    rows: list[list[object]] = []
    for group in groups:
        counts = f"{group.rows:,} / {group.units:,} / {group.positives:,}"
        if group.estimates:
            rows.append([_what(group), counts, *(_short(group.estimates[m]) for m in metrics)])
        else:
            rows.append([_what(group), counts, "too few to say", *("" for _ in metrics[1:])])
    return rows


def gap_rows(gaps: Sequence[Gap]) -> list[list[object]]:
    """Rows of the table of gaps, the surest first."""
    return [
        [g.attribute.replace("_", " "), g.metric, f"{g.higher} above {g.lower}", _short_signed(g.difference),
         p_value(g.p), p_value(g.adjusted), "yes" if g.adjusted < SIGNIFICANT else "no"]
        for g in sorted(gaps, key=lambda g: (g.adjusted, g.p))
    ]  # fmt: skip


def _groups(report: Report, audit: Audit) -> None:
    section = report.section("Who is served how well?")
    found = audit.groups
    for note in found.notes:
        section.text(f"{note[:1].upper()}{note[1:]}.")
    single = [g for g in found.groups if " x " not in g.attribute]
    if not single:
        section.text(
            "No groups: nothing that differs is known of the people on the pictures. Give a table of labels with "
            "columns such as age, sex, view, device, site."
        )
        return
    if found.overall.estimates and any(g.estimates for g in single):
        section.figure(
            figures.groups(found),
            "Groups with enough patients, number of pictures in brackets; bars are 95 % intervals, the dotted line is "
            "everybody",
        )
    section.table(
        ["group", "pictures / patients / ill", *TABLED],
        group_rows([found.overall, *single], TABLED),
        ours=[0],
        note="The underdiagnosis rate is the share of the ill that is called healthy: these go home untreated, "
        f"and is 1 minus the sensitivity. A group needs {found.least} patients with and {found.least} without the "
        "finding. All calls here are at the threshold of best balanced accuracy.",
    )
    calibrated = [g for g in (found.overall, *single) if g.estimates]
    section.table(
        ["group", *CALIBRATED],
        [[_what(g), *(g.estimates[m] for m in CALIBRATED)] for g in calibrated],
        note="Calibration in the large is the stated minus the counted share of the ill: above 0 the risk is "
        "overstated. Chance alone raises the calibration error of small groups, and every draw of them raises it "
        "again, so that its interval may lie above it: they are not compared by it.",
    )
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


def _at_point(section: Section, audit: Audit) -> None:
    found = audit.groups
    section.text(
        f"Calls at {audit.scored.decision.sensitive_threshold:.4f}, the threshold that predictions are made at for a "
        f"sensitivity of 95 %. {_referred(audit)}"
    )
    shown = [name for name in (*AT_POINT, REFERRED, STRANGE) if name in found.metrics]
    single = [g for g in found.groups if " x " not in g.attribute]
    if found.overall.estimates and any(g.estimates for g in single):
        section.figure(
            figures.groups(found, shown[1:]),
            "The same groups at the 95 % point, and the shares of their pictures that are referred or flagged; bars "
            "are 95 % intervals, the dotted line is everybody",
        )
    section.table(
        ["group", *(name.replace(" at the 95 % point", "") for name in shown)],
        [[row[0], *row[2:]] for row in group_rows([found.overall, *single], shown)],  # counts stand above
        note=(
            "Underdiagnosis and specificity at this point are among what groups are compared by above; shares "
            "referred and out of distribution are not. "
            if found.compared
            else ""
        )
        + f"A group needs {found.least} patients with and {found.least} "
        "without the finding.",
    )


def _referred(audit: Audit) -> str:
    """How many of everybody, however few they are."""
    if audit.decisions is None:
        return "Whom it refers is not known: an earlier version saved this model without what that takes."
    table, patients = audit.decisions.table, audit.unseen.patients
    referred = percent(over_patients((table.decision == REFER).to_numpy(), patients))
    said = f"At a stated error rate of {audit.decisions.stated.error_rate:.0%}, {referred} of the pictures are referred"
    outlying = audit.decisions.outlying
    if outlying is None:
        return f"{said}. Which are out of distribution, this model cannot tell."
    return f"{said}; {percent(over_patients(outlying.flagged, patients))} are flagged as out of distribution."


def _what(group: Group) -> str:
    return group.value if group.attribute == "all" else f"{group.attribute.replace('_', ' ')}: {group.value}"


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
            ["group", "pictures / patients / ill", *TABLED],
            group_rows(worst[:20], TABLED),
            note="Those in which most ill are missed come first; not tested, for there are too many."
            + (f" The first 20 of {len(worst)}; all are in subgroups.csv." if len(worst) > 20 else ""),
        )
    if few:
        section.text(
            f"{few} of {len(crossed)} intersections have fewer than {audit.groups.least} patients of either class: too "
            "few to say. They are in subgroups.csv."
        )


def _short(value: Estimate) -> str:
    """Two digits: tables of many columns have to fit a page; the files hold the rest."""
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"


def _short_signed(value: Estimate) -> str:
    return f"{value.value:+.2f} [{value.low:+.2f}, {value.high:+.2f}]"


def signed(value: Estimate) -> str:
    """A difference and its interval, with their signs."""
    return f"{value.value:+.3f} [{value.low:+.3f}, {value.high:+.3f}]"
