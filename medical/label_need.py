"""How many labels are needed, as a page shows it: the curve, where it leads, and whether it could be trusted so far."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unlabeled.core.errors import DataError
from unlabeled.core.label_need import Advice, Curve, Hidden, advise, check_by_hiding, extrapolate, fit
from unlabeled.core.report import OTHERS, OURS, Report, new_figure

MORE = (50, 100, 200, 500, 1000)
# Which of these a headline speaks of.
FIRST_TOLD = 1
FILE = "labels-needed.json"
_MARK = "unlabeled labels needed 1"


@dataclass(frozen=True, kw_only=True)
class LabelNeed:
    """Learning curves, and what they were measured with.

    Attributes:
        curves: balanced error by method, ours first.
        finding: what the labels are about.
        weights: fingerprint of the pretrained weights that every point of ours began with.
        judged: pictures that every point was judged on.
        steps: optimiser steps of each network, at least.
        price: of a label, in EUR.
    """

    curves: Mapping[str, Curve]
    finding: str
    weights: str
    judged: int
    steps: int
    price: float = 0.0

    @property
    def ours(self) -> Curve:
        return next(iter(self.curves.values()))

    def advice(self) -> list[Advice]:
        """What more labels would bring, for each of :data:`MORE`."""
        return [advise(self.ours, more, price=self.price) for more in MORE]

    def hidden(self) -> list[Hidden]:
        """Points of the upper half, foretold from the lower."""
        return check_by_hiding(self.ours)

    def to_json(self) -> dict[str, Any]:
        """All of it and what follows from it, as plain values."""
        return {
            "kind": _MARK,
            "finding": self.finding,
            "pretrained_weights": self.weights,
            "judged": self.judged,
            "steps": self.steps,
            "price": self.price,
            "counts": [int(count) for count in self.ours.counts],
            "errors": {name: curve.errors.tolist() for name, curve in self.curves.items()},
            "fitted": fit(self.ours)._asdict(),
            "advice": [
                {"more": a.more, "gain_points": a.gain._asdict(), "eur_a_point": _finite(a.price_a_point),
                 "eur_a_point_at_worst": _finite(a.dearest)}
                for a in self.advice()
            ],
            "hidden": [
                {"labels": h.labels, "seen": h.seen, "foretold": h.foretold._asdict(), "inside": h.inside}
                for h in self.hidden()
            ],
        }  # fmt: skip


def read_label_need(folder: str | Path) -> LabelNeed:
    """What ``unlabeled medical labels-needed`` left in a folder.

    Raises:
        DataError: it left nothing there, or that is damaged.
    """
    path = Path(folder) / FILE
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        if said["kind"] != _MARK:
            raise ValueError("it is of another version")
        counts = np.array(said["counts"], dtype=np.int64)
        curves = {
            str(name): Curve(counts=counts, errors=np.array(errors, dtype=np.float64))
            for name, errors in said["errors"].items()
        }
        need = LabelNeed(
            curves=curves, finding=str(said["finding"]), weights=str(said["pretrained_weights"]),
            judged=int(said["judged"]), steps=int(said["steps"]), price=float(said["price"]),
        )  # fmt: skip
        fit(need.ours)
    except FileNotFoundError:
        raise DataError(f"{folder} holds no {FILE}: run 'unlabeled medical labels-needed' first") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration, DataError) as error:
        raise DataError(f"{path} cannot be read ({error}): run 'unlabeled medical labels-needed' again") from None
    return need


def add_label_need(report: Report, need: LabelNeed) -> None:
    """Three sections: the curve, what more labels would bring, and how well its own upper half was foretold."""
    law, seeds = fit(need.ours), need.ours.errors.shape[1]
    section = report.section("The curve")
    section.figure(
        _figure(need.curves),
        "Balanced error by number of labels, mean over draws with 95 % interval; the band is where our curve leads",
    )
    section.table(
        ["labels", *need.curves],
        [
            [int(count), *(curve.means()[row] for curve in need.curves.values())]
            for row, count in enumerate(need.ours.counts)
        ],
        note=f"Networks took {need.steps} steps or four passes, whichever is more; each of {seeds} draws has its own "
        f"labels and its own training, all are judged on the same {need.judged:,} pictures.",
    )  # fmt: skip
    report.section("What more labels would bring").table(
        ["more labels", "gain (points of balanced error)", "EUR a point, expected", "EUR a point, at worst"],
        [[a.more, f"{a.gain.value:.2f} [{a.gain.low:.2f}, {a.gain.high:.2f}]", _euro(a.price_a_point), _euro(a.dearest)]
         for a in need.advice()],
        note=f"Fitted to ours: error = {law.a:.3f} + {law.b:.2f} k^-{law.c:.2f}. Intervals resample draws of labels; "
        "they do not hold what changes when labels come from another hospital or reader."
        + ("" if need.price else " No price of a label was given (--price-per-label)."),
    )  # fmt: skip
    check = report.section("Could the curve be trusted so far?")
    hidden = need.hidden()
    if hidden:
        check.text(of_hidden(hidden))
        check.table(
            ["labels", "measured", "foretold from the lower half", "inside"],
            [[h.labels, h.seen, h.foretold, "yes" if h.inside else "no"] for h in hidden],
        )
    else:
        check.text(
            "The lower half of the curve has too few points to foretell the upper half: nothing could be checked."
        )


def of_hidden(hidden: Sequence[Hidden]) -> str:
    """How many hidden points were foretold, in a sentence."""
    inside = sum(h.inside for h in hidden)
    return (
        f"With the upper half of the curve hidden, {inside} of {len(hidden)} hidden points fell into the interval that "
        "the lower half foretold."
    )


def _figure(curves: Mapping[str, Curve]) -> Any:
    figure, axis = new_figure(width=8.4, height=4.0)
    for (name, curve), colour in zip(curves.items(), (OURS, *OTHERS), strict=False):
        means = curve.means()
        value, low, high = (np.array(part, dtype=float) for part in zip(*means, strict=True))
        axis.errorbar(
            curve.counts, value, yerr=np.abs(np.stack([value - low, high - value])), fmt="o-", color=colour, label=name,
            markersize=4, linewidth=1.3, capsize=2,
        )  # fmt: skip
    ours = next(iter(curves.values()))
    at = np.geomspace(ours.counts[0], 4 * ours.counts[-1], 40)
    led = extrapolate(ours, at.tolist())
    axis.plot(at, [e.value for e in led], "--", color=OURS, linewidth=1)
    axis.fill_between(at, [e.low for e in led], [e.high for e in led], color=OURS, alpha=0.13, linewidth=0)
    axis.set_xscale("log")
    ticks = [int(c) for c in (*ours.counts, 2 * ours.counts[-1], 4 * ours.counts[-1])]
    axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axis.minorticks_off()
    axis.set(xlabel="labels", ylabel="balanced error", ylim=(0, None))
    axis.legend(frameon=False)
    return figure


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _euro(value: float) -> str:
    return f"{value:,.0f}" if np.isfinite(value) else "no gain is sure"
