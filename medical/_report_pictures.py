"""Sections that show pictures, and what moved their scores."""

import numpy as np

from unlabeled.core.report import Report
from unlabeled.medical import _figures as figures
from unlabeled.medical._decisions import absent
from unlabeled.medical.evaluation import Scored
from unlabeled.medical.images import ImageSet
from unlabeled.medical.model import PneumoniaModel

# Pictures shown from either end of the scale.
ENDS = 2
READ_MAPS = (
    "Red: without these patches the score falls (they speak for {finding}); blue: without them it rises. Each map has "
    "a scale of its own"
)


def add_examples(report: Report, model: PneumoniaModel, unseen: ImageSet, scored: Scored) -> None:
    """Two pictures each of what was found, missed, raised in error and rightly passed."""
    assert unseen.labels is not None
    p, called = scored.probability, scored.probability >= scored.decision.threshold
    sick = unseen.labels == 1
    kinds = (
        ("found", sick & called, -p),
        ("missed", sick & ~called, p),
        ("false alarm", ~sick & called, -p),
        ("rightly passed", ~sick & ~called, p),
    )
    section = report.section("Pictures, and what moved the score")
    for pair, caption in ((kinds[:2], f"with {model.finding}"), (kinds[2:], f"without {model.finding}")):
        rows, titles = [], []
        for name, which, order in pair:
            candidates = np.flatnonzero(which)
            for row in candidates[np.argsort(order[candidates], kind="stable")][:2]:
                rows.append(int(row))
                titles.append(f"{name}, probability {p[row]:.2f}")
        if rows:
            pictures = unseen.take(rows)
            section.figure(
                figures.examples(pictures.pixels, model.explain(pictures), titles),
                f"Clearest cases {caption}. {READ_MAPS.format(finding=model.finding)}",
            )


def add_ends(report: Report, model: PneumoniaModel, images: ImageSet, scored: Scored) -> None:
    """The pictures scored highest and lowest, and what moved their scores."""
    p, decision = scored
    order = np.argsort(-p, kind="stable")
    high = order[:ENDS]
    low = order[len(high) :][-ENDS:]
    rows = [*high, *low]
    kinds = ["highest"] * len(high) + ["lowest"] * len(low)
    shown = images.take(rows)
    section = report.section("Pictures, and what moved the score")
    section.figure(
        figures.examples(
            shown.pixels,
            model.explain(shown),
            [f"{kind}, probability {p[row]:.2f}" for kind, row in zip(kinds, rows, strict=True)],
        ),
        f"The pictures scored highest and lowest. {READ_MAPS.format(finding=model.finding)}",
    )
    said = {True: model.finding, False: absent(model.finding)}
    section.table(
        ["", "picture", "probability", "call"],
        [
            (kind, images.ids[row], float(p[row]), said[p[row] >= decision.threshold])
            for kind, row in zip(kinds, rows, strict=True)
        ],
        note="All pictures are in predictions.csv.",
    )
