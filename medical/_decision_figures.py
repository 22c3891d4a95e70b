"""The plots of what decisions are worth: precision, calibration, net benefit, abstention, distance."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.evaluation import net_benefit
from unlabeled.core.report import ALARM, OTHERS, OURS, new_figure
from unlabeled.medical.evaluation import Scored

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THRESHOLDS = np.linspace(0.05, 0.95, 91)


def precision_recall(labels: NDArray[np.int64], methods: Mapping[str, Scored], finding: str) -> "Figure":
    """Share of the calls that are right against the share of the ill found."""
    from sklearn.metrics import precision_recall_curve

    figure, axis = new_figure(width=5.2, height=4.0)
    for (name, scored), colour in zip(methods.items(), (OURS, *OTHERS), strict=False):
        precision, recall, _ = precision_recall_curve(labels, scored.probability)
        axis.step(recall, precision, where="post", color=colour, label=name, linewidth=2 if colour == OURS else 1.3)
    axis.axhline(labels.mean(), linestyle=":", color="#999999", linewidth=1, label="calling everybody ill")
    axis.set(xlabel=f"{finding} found (recall)", ylabel="calls that are right (precision)", ylim=(0, 1.02))
    axis.legend(frameon=False, loc="lower left")
    return figure


def calibration_stages(labels: NDArray[np.int64], stages: Mapping[str, NDArray[np.float64]], finding: str) -> "Figure":
    """Stated probability against frequency in fifths, by stage of the calibration."""
    figure, axis = new_figure(width=5.2, height=4.0)
    for (name, p), colour in zip(stages.items(), (OTHERS[1], OURS, OTHERS[0]), strict=True):
        groups = [g for g in np.array_split(np.argsort(p, kind="stable"), 5) if len(g)]
        axis.plot([p[g].mean() for g in groups], [labels[g].mean() for g in groups], "o-", color=colour, label=name)
    axis.plot([0, 1], [0, 1], ":", color="#999999", linewidth=1)
    axis.set(xlabel="stated probability", ylabel=f"share with {finding}", xlim=(0, 1), ylim=(0, 1))
    axis.legend(frameon=False)
    return figure


def decision_curve(labels: NDArray[np.int64], methods: Mapping[str, Scored]) -> "Figure":
    """Net benefit by threshold probability; treating all and nobody beside."""
    figure, axis = new_figure(height=3.4)
    for (name, scored), colour in zip(methods.items(), (OURS, *OTHERS), strict=False):
        benefit = [net_benefit(labels, scored.probability, threshold=t) for t in THRESHOLDS]
        axis.plot(THRESHOLDS, benefit, color=colour, label=name, linewidth=2 if colour == OURS else 1.3)
    everybody = [net_benefit(labels, np.ones(len(labels)), threshold=t) for t in THRESHOLDS]
    axis.plot(THRESHOLDS, everybody, "--", color="#555555", linewidth=1, label="treat all")
    axis.axhline(0, color="#999999", linewidth=1, label="treat none")
    share = float(labels.mean())
    axis.set(xlabel="threshold probability", ylabel="net benefit", ylim=(-0.1, max(0.05, share * 1.1)))
    axis.legend(frameon=False, loc="lower left")
    return figure


def abstention(rows: list[tuple[float, float, float, float]], finding: str) -> "Figure":
    """Rows of (stated rate, wrong with the finding, wrong without, referred)."""
    stated, missed, alarmed, referred = np.array(rows).T
    figure, (left, right) = new_figure(height=3.0, columns=2)
    left.plot(stated, missed, "o-", color=OURS, label=f"of {finding}, called free of it")
    left.plot(stated, alarmed, "o-", color=OTHERS[0], label=f"of no {finding}, called ill")
    left.plot(stated, stated, ":", color="#999999", label="as stated")
    left.set(xlabel="stated error rate", ylabel="share called wrongly")
    left.legend(frameon=False)
    right.plot(stated, referred, "o-", color=OURS)
    right.set(xlabel="stated error rate", ylabel="share referred", ylim=(0, 1.02))
    return figure


def distances(held_out: NDArray[np.float64], new: NDArray[np.float64], threshold: float) -> "Figure":
    """How far from familiar the held-out pictures and these are."""
    figure, axis = new_figure(height=2.6)
    edges = np.linspace(min(held_out.min(), new.min()), max(held_out.max(), new.max()), 41)
    for values, name, colour in (
        (held_out, "held-out pictures of the model's own kind", OTHERS[1]),
        (new, "these", OURS),
    ):
        axis.hist(values, edges, alpha=0.65, density=True, label=name, color=colour)
    if np.isfinite(threshold):
        axis.axvline(threshold, color=ALARM, label="flagged at or above")
    axis.set(xlabel="distance to the pictures learnt from", ylabel="density")
    axis.legend(frameon=False)
    return figure
