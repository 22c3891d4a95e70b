"""A search for settings: Optuna proposes, a trial that lags behind ends early, each is a run nested in the search's.

Optuna is an extra: ``pip install 'unlabeled[search]'``.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from unlabeled.core import tracking
from unlabeled.core.errors import DataError, TrainingError
from unlabeled.core.progress import say

State = Literal["complete", "ended early", "failed"]
# A rung of the successive halving keeps the best third.
REDUCTION = 3
# A trial is not given up before it has been looked at so often.
FIRST_RUNG = 2


@dataclass(frozen=True)
class Range:
    """Values from ``low`` to ``high``; with ``log`` each factor is as likely as any other."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Tried:
    """One trial: its settings, its score (the last one seen where it ended early), and how it ended."""

    number: int
    values: dict[str, float]
    score: float
    state: State


class Hopeless(Exception):
    """Raised out of ``report`` to end a trial that lags behind the others at the same point."""


Report = Callable[[int, float], None]
Trainer = Callable[[Mapping[str, float], Report, tracking.Run], float]


def search(
    train: Trainer,
    space: Mapping[str, Range],
    *,
    trials: int,
    experiment: str,
    run: tracking.Run,
    first: Mapping[str, float] | None = None,
    seed: int = 0,
) -> list[Tried]:
    """Looks for the settings with the highest score.

    Proposals come from a tree-structured Parzen estimator (Bergstra et al., 2011), trials end early by asynchronous
    successive halving (Li et al., 2020).

    Args:
        train: ``train(values, report, run) -> score``, higher is better. It calls ``report(point, score)`` at the same
            points in every trial (1, 2, ...) and lets through what that raises.
        space: by name, where to look.
        trials: how many settings are tried.
        experiment, run: where the trials are tracked, and the run that they are nested in.
        first: settings that are tried first (the defaults), so that the best is never worse than they were.
        seed: fixes the proposals.

    Returns:
        Every trial, the best first; those that failed last.

    Raises:
        DataError: ``first`` lies outside the space, Optuna is not installed, or every trial failed.
    """
    for name, value in (first or {}).items():
        if not space[name].low <= value <= space[name].high:
            where = f"{space[name].low:g} to {space[name].high:g}"
            raise DataError(
                f"the {name.replace('_', ' ')} to begin with, {value:g}, is not in what is searched: {where}"
            )
    study = _study(seed)
    if first is not None:
        study.enqueue_trial(dict(first))
    tried = [_one(study, train, space, experiment=experiment, parent=run) for _ in range(trials)]
    good = [trial for trial in tried if trial.state == "complete"]
    if not good:
        raise DataError(f"not one of {trials} trials came to its end: see the runs of the search for what stopped them")
    order = {"complete": 0, "ended early": 1, "failed": 2}
    return sorted(tried, key=lambda trial: (order[trial.state], -trial.score))


def _study(seed: int) -> Any:
    try:
        import optuna
    except ImportError:
        raise DataError("a search needs Optuna: pip install 'unlabeled[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=FIRST_RUNG, reduction_factor=REDUCTION),
    )


def _one(study: Any, train: Trainer, space: Mapping[str, Range], *, experiment: str, parent: tracking.Run) -> Tried:
    import optuna

    trial = study.ask()
    values = {name: trial.suggest_float(name, r.low, r.high, log=r.log) for name, r in space.items()}
    latest = float("-inf")

    def report(point: int, score: float) -> None:
        nonlocal latest
        latest = _finite(score)
        trial.report(score, point)
        if trial.should_prune():
            raise Hopeless

    state: State = "complete"
    with tracking.run(experiment, f"trial {trial.number}", params=values, inside=parent.run_id) as run:
        try:
            latest = _finite(train(values, report, run))
        except Hopeless:
            state = "ended early"
        except TrainingError as error:  # these settings do not train; others may
            state = "failed"
            say(f"trial {trial.number} failed: {error}")
        run.tags({"unlabeled.trial": state})
        if math.isfinite(latest):
            run.metrics({"score": latest})
    if state == "complete":
        study.tell(trial, latest)
    else:
        ended = optuna.trial.TrialState.PRUNED if state == "ended early" else optuna.trial.TrialState.FAIL
        study.tell(trial, state=ended)
    said = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
    say(f"trial {trial.number}: {said}: {latest:.4f}" + ("" if state == "complete" else f" ({state})"))
    return Tried(trial.number, values, latest, state)


def _finite(score: float) -> float:
    if not math.isfinite(score):
        raise TrainingError(f"its score was {score}")
    return score
