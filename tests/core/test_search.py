"""The search for settings: better than chance, never worse than the defaults, each trial tracked."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from unlabeled.core import tracking
from unlabeled.core.errors import CollapseError, DataError, TrainingError
from unlabeled.core.search import Range, Report, Tried, search

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
SPACE = {"x": Range(-4, 4), "y": Range(0.01, 100, log=True)}


def hill(values: Mapping[str, float], report: Report, run: tracking.Run) -> float:
    """Highest, 0, at x = 2 and y = 1."""
    from math import log10

    return -((values["x"] - 2) ** 2) - log10(values["y"]) ** 2


def tried(train: Any, *, trials: int, **changes: Any) -> list[Tried]:
    with tracking.run("unlabeled/search", "search") as run:
        return search(train, SPACE, trials=trials, experiment="unlabeled/search", run=run, **changes)


def test_it_climbs_and_repeats_by_its_seed(in_tmp: Path) -> None:
    found = tried(hill, trials=25, seed=1)
    assert found[0].score == max(trial.score for trial in found)
    assert found[0].score > -0.5  # proposals at random score -9 in the mean
    assert [t.values for t in found] == [t.values for t in tried(hill, trials=25, seed=1)]
    assert all(-4 <= t.values["x"] <= 4 and 0.01 <= t.values["y"] <= 100 for t in found)


def test_the_defaults_are_tried_first(in_tmp: Path) -> None:
    seen: list[Mapping[str, float]] = []

    def noted(values: Mapping[str, float], report: Report, run: tracking.Run) -> float:
        seen.append(dict(values))
        return hill(values, report, run)

    found = tried(noted, trials=3, first={"x": 2.0, "y": 1.0})
    assert seen[0] == {"x": 2.0, "y": 1.0}
    assert found[0].number == 0


def test_a_trial_that_lags_behind_ends_early_and_every_trial_is_a_nested_run(in_tmp: Path) -> None:
    from mlflow import MlflowClient

    lived: dict[int, int] = {}

    def slow(values: Mapping[str, float], report: Report, run: tracking.Run) -> float:
        number, score = len(lived), float(10 - len(lived))  # each worse than the one before
        for point in range(1, 9):
            lived[number] = point
            run.metrics({"quality": score}, point)
            report(point, score)
        return score

    found = tried(slow, trials=4)
    assert lived == {0: 8, 1: 2, 2: 2, 3: 2}
    assert [t.state for t in found] == ["complete"] + ["ended early"] * 3
    client = MlflowClient(f"sqlite:///{in_tmp}/mlflow.db")
    experiment = client.get_experiment_by_name("unlabeled/search")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"search", "trial 0", "trial 1", "trial 2", "trial 3"}
    for trial in found:
        run = runs[f"trial {trial.number}"]
        assert run.data.tags["mlflow.parentRunId"] == runs["search"].info.run_id
        assert run.data.tags["unlabeled.trial"] == trial.state
        assert float(run.data.params["x"]) == trial.values["x"]
        assert len(client.get_metric_history(run.info.run_id, "quality")) == lived[trial.number]
        assert run.info.status == "FINISHED"


def test_settings_that_do_not_train_are_listed_last_and_the_search_goes_on(in_tmp: Path) -> None:
    count = 0

    def sometimes(values: Mapping[str, float], report: Report, run: tracking.Run) -> float:
        nonlocal count
        count += 1
        if count % 2:
            raise TrainingError("collapsed")
        return hill(values, report, run)

    found = tried(sometimes, trials=4)
    assert [t.state for t in found] == ["complete", "complete", "failed", "failed"]
    assert issubclass(CollapseError, TrainingError)

    def never(values: Mapping[str, float], report: Report, run: tracking.Run) -> float:
        raise TrainingError("collapsed")

    with pytest.raises(DataError, match="not one of 2 trials"):
        tried(never, trials=2)


def test_without_optuna_it_says_what_to_install(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(DataError, match=r"pip install 'unlabeled\[search\]'"):
        tried(hill, trials=1)
