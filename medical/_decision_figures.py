"""The plots of what decisions are worth: precision, calibration, net benefit, abstention, distance."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.evaluation import Estimate, net_benefit
from unlabeled.core.report import ALARM, OTHERS, OURS, new_figure
from unlabeled.medical import _bands as bands
from unlabeled.medical._figures import in_fifths, shade
from unlabeled.medical.evaluation import Scored

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THRESHOLDS = np.linspace(0.05, 0.95, 91)


class Referring(NamedTuple):
    """What a stated error rate gave on unseen pictures, with intervals over patients.

    Attributes:
        stated: the rate.
        missed: share of the ill that is called free of the finding.
        alarmed: share of the others that is called ill.
        referred: share of all that is called neither.
    """

    stated: float
    missed: Estimate
    alarmed: Estimate
    referred: Estimate


def precision_recall(
    labels: NDArray[np.int64], methods: Mapping[str, Scored], finding: str, *, patients: NDArray[np.str_]
) -> "Figure":
    """Share of the calls that are right against the share of the ill found, with bands over patients."""
    from sklearn.metrics import precision_recall_curve

    figure, axis = new_figure(width=5.2, height=4.0)
    for (name, scored), colour in zip(methods.items(), (OURS, *OTHERS), strict=False):
        precision, recall, _ = precision_recall_curve(labels, scored.probability)
        axis.step(recall, precision, where="post", color=colour, label=name, linewidth=2 if colour == OURS else 1.3)
        shade(axis, bands.precision_recall(labels, scored.probability, patients), colour)
    axis.axhline(labels.mean(), linestyle=":", color="#999999", linewidth=1, label="calling everybody ill")
    axis.set(xlabel=f"{finding} found (recall)", ylabel="calls that are right (precision)", ylim=(0, 1.02))
    axis.legend(frameon=False, loc="lower left")
    return figure


def calibration_stages(
    labels: NDArray[np.int64],
    stages: Mapping[str, NDArray[np.float64]],
    finding: str,
    *,
    patients: NDArray[np.str_],
) -> "Figure":
    """Stated probability against frequency in fifths, by stage of the calibration."""
    figure, axis = new_figure(width=5.2, height=4.0)
    for (name, p), colour in zip(stages.items(), (OTHERS[1], OURS, OTHERS[0]), strict=True):
        in_fifths(axis, labels, p, patients, color=colour, label=name)
    axis.plot([0, 1], [0, 1], ":", color="#999999", linewidth=1)
    axis.set(xlabel="stated probability", ylabel=f"share with {finding}", xlim=(0, 1), ylim=(0, 1))
    axis.legend(frameon=False)
    return figure


def decision_curve(labels: NDArray[np.int64], methods: Mapping[str, Scored], *, patients: NDArray[np.str_]) -> "Figure":
    """Net benefit by threshold probability, with bands over patients; treating all and nobody beside."""
    figure, axis = new_figure(height=3.4)
    for (name, scored), colour in zip(methods.items(), (OURS, *OTHERS), strict=False):
        benefit = [net_benefit(labels, scored.probability, threshold=t) for t in THRESHOLDS]
        axis.plot(THRESHOLDS, benefit, color=colour, label=name, linewidth=2 if colour == OURS else 1.3)
        shade(axis, bands.net_benefit(labels, scored.probability, patients, THRESHOLDS), colour)
    everybody = np.ones(len(labels))
    benefit = [net_benefit(labels, everybody, threshold=t) for t in THRESHOLDS]
    axis.plot(THRESHOLDS, benefit, "--", color="#555555", linewidth=1, label="treat all")
    shade(axis, bands.net_benefit(labels, everybody, patients, THRESHOLDS), "#555555")
    axis.axhline(0, color="#999999", linewidth=1, label="treat none")
    share = float(labels.mean())
    axis.set(xlabel="threshold probability", ylabel="net benefit", ylim=(-0.1, max(0.05, share * 1.25)))
    axis.legend(frameon=False, loc="lower left")
    return figure


def abstention(rows: Sequence[Referring], finding: str) -> "Figure":
    """Shares called wrongly and referred by stated rate, with bars over patients."""
    stated = [row.stated for row in rows]
    figure, (left, right) = new_figure(height=3.0, columns=2)
    _bars(left, stated, [row.missed for row in rows], OURS, label=f"of {finding}, called free of it")
    # A little aside, where bars would lie on bars.
    aside = [rate + 0.002 for rate in stated]
    _bars(left, aside, [row.alarmed for row in rows], OTHERS[0], label=f"of no {finding}, called ill")
    left.plot(stated, stated, ":", color="#999999", label="as stated")
    left.set(xlabel="stated error rate", ylabel="share called wrongly")
    left.legend(frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0))  # lines may run anywhere inside
    _bars(right, stated, [row.referred for row in rows], OURS)
    right.set(xlabel="stated error rate", ylabel="share referred", ylim=(0, 1.02))
    return figure


def _bars(axis: Any, at: Sequence[float], found: Sequence[Estimate], colour: str, **style: Any) -> None:
    value, low, high = (np.array(part, dtype=float) for part in zip(*found, strict=True))
    reach = np.abs(np.stack([value - low, high - value]))
    axis.errorbar(at, value, yerr=reach, fmt="o-", color=colour, markersize=5, elinewidth=1, capsize=2, **style)


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
