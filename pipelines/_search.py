"""What every room's ``search`` does: trials of settings of a pretraining, each judged by a probe, and what is left of
them: a table, a page, and the best model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd

from unlabeled.core import tracking
from unlabeled.core.checkpoints import check_free, write_atomically
from unlabeled.core.report import OURS, Report, Verdict, new_figure
from unlabeled.core.search import Range, Trainer, Tried
from unlabeled.core.search import search as search_core
from unlabeled.pipelines.jobs import Outcome

SPACE = {
    "mask_ratio": Range(0.4, 0.9),
    "temperature": Range(0.05, 1.0, log=True),
    "augmentation": Range(0.25, 1.75),
}
Model = TypeVar("Model")


def space_of(*, masking: str | None, contrasts: bool, views: bool) -> dict[str, Range]:
    """The settings that a task has: it hides patches (by some masking), has a temperature, or sees things augmented."""
    used = {"mask_ratio": masking is not None, "temperature": contrasts, "augmentation": views}
    space = {name: where for name, where in SPACE.items() if used[name]}
    if masking == "adaptive":  # goes 0.1 to either side of the ratio (core.informed_masking.around)
        space["mask_ratio"] = Range(0.4, 0.85)
    return space


@dataclass
class Best(Generic[Model]):
    """The best model so far of trials that came to their end."""

    score: float = float("-inf")
    model: Model | None = None

    def offer(self, score: float, model: Model) -> float:
        """Takes it if it is better; its score."""
        if score > self.score:
            self.score, self.model = score, model
        return score


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is searched.

    Attributes:
        experiment: where the runs are tracked.
        space: the settings and where to look, by their names as parameters.
        first: their defaults, which are tried first.
        trials, seed: how many settings, and what fixes them.
        metric: what the probe's score is called.
        judged: on what, in words.
        then: what to do next, given the options that were found.
        settings: tracked with the run.
        shown: facts for the page.
        limits: what to think of the result.
        tags: of the run.
    """

    experiment: str
    space: Mapping[str, Range]
    first: Mapping[str, float]
    trials: int
    seed: int
    metric: str
    judged: str
    then: Callable[[str], str]
    settings: Mapping[str, Any]
    shown: Mapping[str, object]
    limits: str
    tags: Mapping[str, str] = field(default_factory=dict)


def search(asked: Question, train: Trainer, save: Callable[[Path], Path], *, out: Path) -> Outcome:
    """Runs the trials, each nested in the search's run; writes the table, the page and, with ``save``, the best model.

    Raises:
        CheckpointError: ``out`` holds something else where the best model is to go.
        DataError: Optuna is not installed, or every trial failed.
    """
    check_free(out / "model")
    with tracking.run(asked.experiment, f"search {out.name}", params=asked.settings, tags=asked.tags) as run:
        tried = search_core(
            train, asked.space, trials=asked.trials, experiment=asked.experiment, run=run, first=asked.first,
            seed=asked.seed,
        )  # fmt: skip
        best, before = tried[0], next(trial for trial in tried if trial.number == 0)
        for trial in sorted(tried, key=lambda trial: trial.number):
            run.metrics({"score": trial.score}, trial.number)
        run.metrics({f"best.{name}": value for name, value in {**best.values, "score": best.score}.items()})
        chosen = " ".join(f"--{name.replace('_', '-')} {value:.3g}" for name, value in best.values.items())
        headline = (
            f"Best of {asked.trials} trials: {asked.metric} {best.score:.3f} {asked.judged} (the defaults: "
            f"{before.score:.3f}), with {chosen}. Next: {asked.then(chosen)}"
        )
        rows = [{"trial": t.number, "state": t.state, asked.metric.lower(): t.score, **t.values} for t in tried]
        files = {
            "trials": write_atomically(out / "trials.csv", pd.DataFrame(rows).to_csv(index=False)),
            "report": _page(asked, tried, headline, run_id=run.run_id).write(out / "report.html"),
        }
        for path in files.values():
            run.artifact(path)
        files["model"] = save(out / "model")
        run.model(files["model"])
    details = {"best": best.values, "score": best.score, "defaults": before.score, "trials": len(tried)}
    return Outcome(headline=headline, files=files, run_id=run.run_id, details=details)


def _page(asked: Question, tried: list[Tried], headline: str, *, run_id: str) -> Report:
    page = Report(
        "Search for settings", "Pretraining, judged by a linear probe", Verdict(headline), dict(asked.shown),
        run_id=run_id,
    )  # fmt: skip
    names = list(tried[0].values)
    figure, axes = new_figure(columns=len(names))
    for axis, name in zip(np.atleast_1d(axes), names, strict=True):
        for ended, look in ((False, {"color": "#c3ccd4"}), (True, {"color": OURS})):
            some = [t for t in tried if (t.state == "complete") == ended and np.isfinite(t.score)]
            axis.plot([t.values[name] for t in some], [t.score for t in some], "o", **look)
        where = asked.space[name]
        axis.set(xlabel=name.replace("_", " "), ylabel=asked.metric, xlim=(where.low, where.high))
        axis.set_xscale("log" if where.log else "linear")
    page.section("Score over each setting").figure(
        figure, "Each dot is a trial; grey ones ended early, at the score they had then."
    )
    rows = [[t.number, t.state, f"{t.score:.4f}", *(f"{t.values[name]:.3g}" for name in names)] for t in tried]
    page.section("Trials").table(["trial", "ended", asked.metric, *names], rows, ours=(0,))
    page.section("Limits").note(asked.limits)
    return page
