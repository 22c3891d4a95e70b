"""The plots of the medical reports."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.report import ALARM, OTHERS, OURS, new_figure
from unlabeled.medical import _bands as bands
from unlabeled.medical._bands import Band
from unlabeled.medical._finetuning import Decision
from unlabeled.medical.evaluation import Scored

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def roc(
    labels: NDArray[np.int64], methods: Mapping[str, Scored], finding: str, *, patients: NDArray[np.str_]
) -> "Figure":
    """ROC curves with their bands over patients, and a dot where each method's threshold sits."""
    from sklearn.metrics import roc_curve

    figure, axis = new_figure(width=5.2, height=4.4)
    for (name, scored), colour in zip(methods.items(), (OURS, *OTHERS), strict=False):
        false, true, _ = roc_curve(labels, scored.probability)
        axis.plot(false, true, color=colour, label=name, linewidth=2 if colour == OURS else 1.3)
        shade(axis, bands.roc(labels, scored.probability, patients), colour)
        called = scored.probability >= scored.decision.threshold
        axis.plot(called[labels == 0].mean(), called[labels == 1].mean(), "o", color=colour)
    axis.plot([0, 1], [0, 1], ":", color="#999999", linewidth=1)
    axis.set(xlabel="false alarms (1 - specificity)", ylabel=f"{finding} found (sensitivity)")
    axis.legend(frameon=False, loc="lower right")
    return figure


def shade(axis: Any, band: Band, colour: str) -> None:
    """A band behind its curve."""
    axis.fill_between(*band, color=colour, alpha=0.16 if colour == OURS else 0.1, linewidth=0)


def in_fifths(
    axis: Any, labels: NDArray[np.int64], p: NDArray[np.float64], patients: NDArray[np.str_], **style: Any
) -> None:
    """Stated probability against frequency in five equal groups, with bars over patients."""
    stated, found = zip(*bands.fifths(labels, p, patients), strict=True)
    value, low, high = (np.array(part, dtype=float) for part in zip(*found, strict=True))
    reach = np.abs(np.stack([value - low, high - value]))
    axis.errorbar(stated, value, yerr=reach, fmt="o-", markersize=5, elinewidth=1, capsize=2, **style)


def calibration(
    labels: NDArray[np.int64], methods: Mapping[str, Scored], finding: str, *, patients: NDArray[np.str_]
) -> "Figure":
    """Stated probability against how often it was right, in five equal groups."""
    figure, axis = new_figure(width=7.4, height=4.0)
    for (name, scored), colour in zip(methods.items(), (OURS, *OTHERS), strict=False):
        in_fifths(axis, labels, scored.probability, patients, color=colour, label=name)
    axis.plot([0, 1], [0, 1], ":", color="#999999", linewidth=1)
    axis.set(xlabel="stated probability", ylabel=f"share with {finding}", xlim=(0, 1), ylim=(0, 1))
    # Points may lie anywhere in the square, so the legend stands beside it.
    figure.legend(frameon=False, loc="outside right upper")
    return figure


def histogram(labels: NDArray[np.int64], scored: Scored, finding: str) -> "Figure":
    """Where pictures with and without the finding fall on our scale."""
    figure, axis = new_figure(height=2.6)
    edges = np.linspace(0, 1, 31)
    for value, name, colour in ((0, f"no {finding}", OTHERS[1]), (1, finding, OURS)):
        axis.hist(scored.probability[labels == value], edges, alpha=0.65, label=name, color=colour)
    _thresholds(axis, scored.decision, finding)
    return figure


def scores(scored: Scored, finding: str) -> "Figure":
    """Where pictures fall on our scale, whatever they show."""
    figure, axis = new_figure(height=2.6)
    axis.hist(scored.probability, np.linspace(0, 1, 31), alpha=0.65, label="pictures", color=OURS)
    _thresholds(axis, scored.decision, finding)
    return figure


def _thresholds(axis: Any, decision: Decision, finding: str) -> None:
    axis.axvline(decision.threshold, color=ALARM, label="threshold")
    axis.axvline(decision.sensitive_threshold, color=ALARM, linestyle=":", label="threshold, 95 % sensitivity")
    axis.set(xlabel=f"probability of {finding}", ylabel="pictures")
    axis.legend(frameon=False)


def examples(images: NDArray[np.uint8], maps: NDArray[np.float64], titles: Sequence[str]) -> "Figure":
    """Pictures above, the same with their heat maps below, each map on a scale of its own."""
    count = len(images)
    figure, axes = new_figure(width=2.0 * max(count, 3), height=4.3, rows=2, columns=max(count, 3), squeeze=False)
    side = images.shape[1]
    for axis in axes.flat:
        axis.set_axis_off()
    for i in range(count):
        largest = float(np.abs(maps[i]).max()) or 1.0
        for axis in axes[:, i]:
            axis.imshow(images[i], cmap="gray", vmin=0, vmax=255, interpolation="bilinear")
        axes[0, i].set_title(titles[i], fontsize=8)
        axes[1, i].imshow(
            maps[i],
            cmap="RdBu_r",
            vmin=-largest,
            vmax=largest,
            alpha=0.45,
            extent=(-0.5, side - 0.5, side - 0.5, -0.5),
            interpolation="bilinear",
        )
    return figure


def reconstructions(rows: Mapping[str, NDArray[Any]]) -> "Figure":
    """One row a stage, one column a picture."""
    count = len(next(iter(rows.values())))
    figure, axes = new_figure(width=1.5 * count, height=1.55 * len(rows), rows=len(rows), columns=count, squeeze=False)
    for r, (name, pictures) in enumerate(rows.items()):
        for c, picture in enumerate(pictures):
            axes[r, c].imshow(picture, cmap="gray", vmin=-2.5, vmax=2.5)
            axes[r, c].set(xticks=[], yticks=[])
            axes[r, c].spines[:].set_visible(False)
        axes[r, 0].set_ylabel(name, fontsize=9)
    return figure
