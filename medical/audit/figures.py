"""The plots of the audit."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unlabeled.core.audit.groups import Group, GroupAudit
from unlabeled.core.evaluation import Estimate
from unlabeled.core.report import ALARM, OTHERS, OURS, new_figure
from unlabeled.medical.audit.heatmaps import Faithfulness
from unlabeled.medical.shortcuts import Shortcut

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN = ("AUROC", "underdiagnosis rate", "false positive rate", "calibration in the large")


def groups(audit: GroupAudit, drawn: Sequence[str] = DRAWN) -> "Figure":
    """One row a group of one attribute, one panel a metric; the dotted line is everybody."""
    shown = [audit.overall, *(g for g in audit.groups if g.estimates and " x " not in g.attribute)]
    figure, axes = new_figure(width=9.6, height=1.2 + 0.3 * len(shown), columns=len(drawn), sharey=True)
    for axis, metric in zip(axes, drawn, strict=True):
        _rows(axis, [g.estimates[metric] for g in shown])
        axis.axvline(audit.overall.estimates[metric].value, color="#999999", linestyle=":", linewidth=1, zorder=0)
        axis.set_title(metric.replace(" at the", "\nat the"), fontsize=9)
        axis.tick_params(labelsize=8)
        axis.locator_params(axis="x", nbins=4)
    axes[0].set_yticks(range(len(shown)), [_name(g) for g in shown], fontsize=8.5)
    axes[0].invert_yaxis()
    return figure


def probes(found: Sequence[Shortcut]) -> "Figure":
    """AUROC of each probe with its interval; a tick marks the 95th percentile of chance."""
    shown = [s for s in found if s.found is not None]
    figure, axis = new_figure(width=7.6, height=1.0 + 0.36 * len(shown))
    _rows(axis, [s.found.auroc for s in shown if s.found is not None])
    for row, s in enumerate(shown):
        assert s.found is not None
        axis.plot([s.found.chance] * 2, [row - 0.28, row + 0.28], color=ALARM, linewidth=1.6)
    axis.axvline(0.5, color="#999999", linestyle=":", linewidth=1, zorder=0)
    axis.set_yticks(range(len(shown)), [s.name.replace("_", " ") for s in shown], fontsize=9)
    axis.invert_yaxis()
    axis.set(xlabel="AUROC", xlim=(min(0.4, *(s.found.auroc.low for s in shown if s.found is not None)), 1.005))
    return figure


def faithfulness(found: Faithfulness) -> "Figure":
    """Deletion and insertion curves beside random orders."""
    figure, axes = new_figure(width=8.4, height=3.0, columns=2, sharey=True)
    for axis, ours, random, what in (
        (axes[0], found.deletion, found.deletion_random, "patches left out"),
        (axes[1], found.insertion, found.insertion_random, "patches shown"),
    ):
        axis.plot(found.share, ours, "o-", color=OURS, markersize=3.5, label="by the map")
        axis.plot(found.share, random, "o--", color=OTHERS[1], markersize=3.5, label="in random order")
        axis.set(xlabel=f"share of {what}")
    axes[0].set(ylabel="probability of its own call")
    axes[0].legend(frameon=False)
    return figure


def _rows(axis: Any, estimates: Sequence[Estimate]) -> None:
    value, low, high = (np.array(part, dtype=float) for part in zip(*estimates, strict=True))
    reach = np.abs(np.stack([value - low, high - value]))
    axis.errorbar(value, np.arange(len(value)), xerr=reach, fmt="o", color=OURS, markersize=4, linewidth=1.3)


def _name(group: Group) -> str:
    if group.attribute == "all":
        return f"{group.value} ({group.rows})"
    return f"{group.attribute.replace('_', ' ')} {group.value} ({group.rows})"
