"""What pages show of probes: what can be told of people and pictures from features, and from what is no lung."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from unlabeled.core.report import Report
from unlabeled.medical.audit import figures
from unlabeled.medical.shortcuts import Shortcut

NOBODY_KNOWN = "Nothing is known of the people on the pictures, so nothing could be asked."


def add_representation(report: Report, found: Sequence[Shortcut], *, asked: str) -> None:
    """The section on what the features know of people and pictures before any label.

    Args:
        found: of :func:`~unlabeled.medical.shortcuts.representation_probes`; nothing where nothing is known.
        asked: the sentence that says of which network, and on which pictures.
    """
    section = report.section("What the features know before any label")
    if not found:
        section.text(NOBODY_KNOWN)
        return
    section.text(f"{asked} What is encoded is not necessarily used, but can be (Glocker et al., eBioMedicine 2023).")
    if any(s.found is not None for s in found):
        section.figure(figures.probes(found), "AUROC for each property; orange: chance")
    section.table(
        ["property", "AUROC", "chance (95 %)", "p (Holm)", "pictures"],
        probe_rows(found),
        note="With more than two values: the mean over each against all others.",
    )


def probe_rows(found: Sequence[Shortcut]) -> list[list[object]]:
    """Rows of a table of probes."""
    rows: list[list[object]] = []
    for s in found:
        name = s.name.replace("_", " ")
        if s.found is None:
            rows.append([name, f"not tried: {s.note}", "", "", ""])
            continue
        counts = ", ".join(f"{value} {count:,}" for value, count in s.found.values.items())
        left = "".join(f"; {value} left out ({count} patients)" for value, count in s.found.left_out.items())
        rows.append([name, s.found.auroc, s.found.chance, p_value(s.adjusted), counts + left])
    return rows


def p_value(value: float) -> str:
    """A p as tables show it."""
    return "below 0.001" if value < 0.001 else f"{value:.3f}"


def probe_details(found: Sequence[Shortcut]) -> dict[str, Mapping[str, Any]]:
    """The same as plain values by property, or why it was not tried; what is no number is null."""

    def finite(value: float) -> float | None:
        return float(value) if math.isfinite(value) else None

    return {
        s.name: {"note": s.note}
        if s.found is None
        else {
            **{name: finite(value) for name, value in zip(("auroc", "low", "high"), s.found.auroc, strict=True)},
            "chance_95": finite(s.found.chance), "p": finite(s.found.p), "p_holm": finite(s.adjusted),
            "values": s.found.values, "left_out": s.found.left_out,
        }
        for s in found
    }  # fmt: skip
