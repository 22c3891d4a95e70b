"""One self-contained HTML page: a verdict, numbers beside their baselines, plots, what to watch out for."""

import base64
import io
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from unlabeled import __version__
from unlabeled.core.checkpoints import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Tone = Literal["good", "bad", "flat", "plain"]

# Colour-blind safe (Okabe and Ito, 2008): ours first, then baselines.
OURS, OTHERS, ALARM = "#0072B2", ("#E69F00", "#7f7f7f", "#CC79A7", "#009E73"), "#D55E00"


class Verdict(NamedTuple):
    """The one sentence that a reader takes away, and how it is coloured."""

    text: str
    tone: Tone = "plain"


@dataclass
class Part:
    kind: Literal["text", "note", "table", "figure"]
    text: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    ours: frozenset[int] = frozenset()
    alt: str = ""
    data: str = ""


@dataclass
class Section:
    """A heading and what stands under it, in order."""

    heading: str
    parts: list[Part] = field(default_factory=list)

    def text(self, text: str) -> "Section":
        self.parts.append(Part("text", text))
        return self

    def note(self, text: str) -> "Section":
        self.parts.append(Part("note", text))
        return self

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, ours: Sequence[int] = (), note: str = ""
    ) -> "Section":
        """Rows of anything that prints; ``ours`` are the row numbers to set off."""
        cells = [[_cell(value) for value in row] for row in rows]
        self.parts.append(Part("table", note, columns=list(columns), rows=cells, ours=frozenset(ours)))
        return self

    def figure(self, figure: "Figure", alt: str) -> "Section":
        """A plot; ``alt`` says in words what it shows and is printed below it."""
        self.parts.append(Part("figure", alt=alt, data=_png(figure)))
        return self


@dataclass
class Report:
    """What :meth:`write` turns into a page.

    Attributes:
        title, subtitle: what was done, on what.
        verdict: the first thing read.
        facts: three to six figures under the verdict, by name.
        synthetic: puts a plain notice on top.
        run_id: the tracked run this belongs to.
    """

    title: str
    subtitle: str
    verdict: Verdict
    facts: Mapping[str, Any] = field(default_factory=dict)
    sections: list[Section] = field(default_factory=list)
    synthetic: bool = False
    run_id: str | None = None

    def section(self, heading: str) -> Section:
        self.sections.append(Section(heading))
        return self.sections[-1]

    def html(self) -> str:
        from jinja2 import Environment, PackageLoader, StrictUndefined

        loader = PackageLoader("unlabeled.core", ".")
        page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
        shown = {name: _cell(value) for name, value in self.facts.items()}
        made = time.strftime("%Y-%m-%d %H:%M")
        return page.get_template("report.html.j2").render(
            report={**self.__dict__, "facts": shown}, version=__version__, made=made
        )

    def write(self, path: str | Path) -> Path:
        return write_atomically(path, self.html())


def new_figure(
    *, width: float = 9.0, height: float = 3.4, rows: int = 1, columns: int = 1, **options: Any
) -> tuple["Figure", Any]:
    """A figure outside pyplot's global state, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, **options)
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def watch_figure(section: Section, curves: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    """What a watch over the training saw, if there was one: effective rank and deviation by step, and what probes
    told from labels that were looked at."""
    measures = {
        "effective rank": ("effective_rank", "projected_rank"),
        "deviation": ("deviation", "projected_deviation"),
        "probes": ("nearest_neighbours", "linear_probe"),
    }
    found = {
        title: {name: curve for name, curve in curves.items() if name.partition("watch.")[2] in of}
        for title, of in measures.items()
    }
    if not (found["effective rank"] and found["deviation"]):
        return
    found = {title: some for title, some in found.items() if some}
    lines = max(map(len, found.values()))
    figure, axes = new_figure(height=2.8 + 0.2 * (lines if lines > 1 else 0), columns=len(found))
    for axis, (title, some) in zip(axes, found.items(), strict=True):
        for name, points in some.items():
            label = _of_watch(name, some)
            axis.plot([step for step, _ in points], [value for _, value in points], marker=".", label=label)
        axis.set_title(title, fontsize=10, loc="left")
        axis.set(xlabel="step", ylim=(None if title == "probes" else 0, None))
        if len(some) > 1:  # below, where it hides no point
            axis.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.22))
    says = (
        "Whether the embeddings of a fixed sample tell its rows apart: how many directions they use (1: collapsed), "
        "and how far they spread over the sphere (0: collapsed). A dip at first is usual: what all rows share is "
        "learnt first."
    )
    if "probes" in found:
        says += (
            " The probes say what the features tell about labels that are not learnt from: accuracy of nearest "
            "neighbours, and of a linear model the area under the ROC curve (its accuracy where there are more than "
            "two labels), each row judged by all others. Where those are of the same machine or card, that is easier "
            "than it will be."
        )
    section.figure(figure, says)


def losses(curves: Mapping[str, Sequence[tuple[int, float]]]) -> dict[str, Sequence[tuple[int, float]]]:
    """The curves of what a task measures, less those that watch over the training."""
    return {name: points for name, points in curves.items() if "watch." not in name and "gradient_norm" not in name}


def _of_watch(name: str, beside: Collection[str]) -> str:
    """``cards: watch.linear_probe`` -> ``cards, linear probe``; where all curves ``beside`` are of one measure, which
    the axis names, ``cards``."""
    before, _, measure = name.partition("watch.")
    several = len({other.partition("watch.")[2] for other in beside}) > 1
    parts = [before.strip(" :."), *([measure.replace("_", " ")] if several or not before else [])]
    return ", ".join(part for part in parts if part)


def training_report(
    *,
    title: str,
    subtitle: str,
    says: str,
    facts: Mapping[str, Any],
    curves: Mapping[str, Sequence[tuple[int, float]]],
    made_of: Mapping[str, Any],
    synthetic: bool,
    run_id: str,
) -> Report:
    """The page of a training that compares nothing yet: how it went, and what it was made of.

    ``curves`` whose names hold ``watch.`` are shown apart from the losses.
    """
    report = Report(title, subtitle, Verdict(says), facts=facts, synthetic=synthetic, run_id=run_id)
    if curves:
        learning = report.section("How it learnt")
        shown = losses(curves)
        learning.figure(plot_curves(shown), f"Training loss by step: {' and '.join(shown)}")
        watch_figure(learning, curves)
        learning.note(
            "A falling loss says that the task is being learnt, not that a detector built on it is any good: "
            "that is measured on unseen data, beside the baselines."
        )
    report.section("What it was made of").table(["setting", "value"], list(made_of.items()))
    return report


def plot_curves(curves: Mapping[str, Sequence[tuple[int, float]]], *, ylabel: str = "loss") -> "Figure":
    """Training curves by name."""
    figure, axis = new_figure(height=2.6)
    for name, points in curves.items():
        axis.plot([step for step, _ in points], [value for _, value in points], label=name)
    axis.set(xlabel="step", ylabel=ylabel)
    axis.legend(frameon=False)
    return figure


def _png(figure: "Figure") -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "-" if value != value else f"{value:.3f}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)
