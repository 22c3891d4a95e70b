"""``unlabeled fraud search``: which settings of a pretraining tell known frauds from genuine payments best?"""

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from torch import Tensor

from unlabeled.core import tracking
from unlabeled.core.audit.collapse import linear_probe
from unlabeled.core.audit.watch import looked_at
from unlabeled.core.budget import AS_FOUND, Rates, priced
from unlabeled.core.errors import DataError
from unlabeled.core.progress import say
from unlabeled.core.search import Range
from unlabeled.core.search import Report as Told
from unlabeled.fraud.detector import FraudDetector
from unlabeled.fraud.history_model import HistoryModel, Size
from unlabeled.fraud.readers import Transactions
from unlabeled.fraud.tasks import COMPARING
from unlabeled.pipelines import _cost as cost
from unlabeled.pipelines import _fraud_pretraining as pre
from unlabeled.pipelines import _search as shared
from unlabeled.pipelines._fraud_input import labels_from, read_payments
from unlabeled.pipelines._fraud_output import skip_words
from unlabeled.pipelines.jobs import Outcome

# What is hidden of a history beside the events task, whose own hidden fields have no ratio.
HIDDEN = Range(0.1, 0.6)
# Labelled payments that judge; more would hardly tell more, and each is read anew at every look.
JUDGES = 1_000


def search(
    table: Path,
    *,
    out: Path,
    labels: Path | None = None,
    until: str | None = None,
    roles: Path | None = None,
    trials: int = 20,
    template: FraudDetector | None = None,
    dry_run: bool = False,
    rates: Rates = AS_FOUND,
) -> Outcome:
    """Tries settings of the pretraining on payments before ``until``, judged by a linear probe on labelled ones.

    With ``dry_run``, only says what that would cost if no trial ended early.

    Args:
        labels: CSV with row id and label; the table's own labels without it.
        template: a detector with the settings that are not searched, and the defaults of those that are.

    Raises:
        DataError: the task has none of these settings, too little is labelled, or every trial failed.
    """
    template = template or FraudDetector(task="events+contrastive")
    template.question.check()
    space = space_of(template)
    known = read_payments(table, roles=roles, until=until)
    if known.roles.entity is None and known.roles.counterparty is None:
        raise DataError("payments stand alone here: there is no history whose pretraining has settings to search")
    for part, columns in known.roles.rows():
        say(f"  {part}: {columns}")
    template = clone(template).set_params(roles=known.roles)
    label = known.label if labels is None else labels_from(labels, known)[0]
    asked = _asked(known, label, seed=template.random_state)
    if dry_run:
        budgets = pre.costs(template, known, beside_random=False)
        return cost.dry_run(
            [one.times(trials, f"{one.label}, {trials} trials, none ended early") for one in budgets],
            rates=rates,
            reads=f"{len(known):,} payments; {skip_words(known)}",
            left_out="reading the table, plain features, the probes that judge, and the report",
        )
    again = ["unlabeled fraud finetune", shlex.quote(str(table)), "--model", shlex.quote(str(out / "model"))]
    given = {"--labels": labels, "--until": until}
    again += [f"{option} {shlex.quote(str(value))}" for option, value in given.items() if value is not None]
    frauds = int((label[asked] == 1).sum())
    question = shared.Question(
        experiment=pre.EXPERIMENT,
        space=space,
        first={name: getattr(template, name) for name in space},
        trials=trials,
        seed=template.random_state,
        metric="AUROC",
        judged=f"on {len(asked)} payments ({frauds} frauds)",
        then=lambda _: " ".join(again),
        settings={
            "table": table.name, "payments": len(known), "seed": template.random_state, "trials": trials,
            **vars(template.size or Size()), **asdict(template.question),
        },
        shown={"task": template.task, "payments": len(known), "trials": trials, "judged on": len(asked)},
        limits="The best of many trials looks better than it is: the payments that chose it cannot judge it. Of each "
        "card (or merchant, where no cards are known) one fraud and one genuine payment judge at most, each told by "
        "what the others teach. Cards are learnt before merchants, so that a trial ends early by what it makes of "
        "cards. How much fraud the whole detector finds with a setting, and beside LightGBM, is what unlabeled fraud "
        "backtest tells.",
        tags={"data.fingerprint": known.fingerprint()},
    )  # fmt: skip
    train = _Trials(template, known, asked, label[asked], rates)

    def save(folder: Path) -> Path:
        assert train.best.model is not None
        detector, run_id = train.best.model
        detector.manifest_["run_id"] = run_id
        return detector.save(folder)

    return shared.search(question, train, save, out=out)


def space_of(detector: FraudDetector) -> dict[str, Range]:
    """The settings that the detector's task has.

    Raises:
        DataError: it has none of them.
    """
    task = detector.task
    hides = detector.masking if task == "events+tokens" else None
    space = shared.space_of(masking=hides, contrasts=task == "events+contrastive", views=task in COMPARING)
    if "mask_ratio" in space:
        space["mask_ratio"] = HIDDEN
    if not space:
        raise DataError(
            f"the task '{task}' has no mask ratio, temperature or augmentation to search: choose events+contrastive, "
            "events+vicreg or events+tokens"
        )
    return space


def _asked(known: Transactions, label: NDArray[np.int8], *, seed: int) -> NDArray[np.int64]:
    """Which labelled payments judge: of each card (or merchant) one of either kind at most, so that no fraud is told
    from the next one of the same burst."""
    units = known.codes("entity" if known.roles.entity is not None else "counterparty")
    return looked_at(label, label >= 0, rows="payments", units=units, seed=seed, most=JUDGES)


class _Trials:
    """Pretrains with some settings; a linear probe on the histories that end with labelled payments judges, each by the
    fit without it, and the mean over the kinds of history is the score."""

    def __init__(
        self,
        template: FraudDetector,
        known: Transactions,
        asked: NDArray[np.int64],
        labels: NDArray[np.int8],
        rates: Rates,
    ) -> None:
        self.template, self.known, self.asked, self.labels, self.rates = template, known, asked, labels, rates
        self.best = shared.Best[tuple[FraudDetector, str]]()

    def __call__(self, values: Mapping[str, float], report: Told, run: tracking.Run) -> float:
        trial: FraudDetector = clone(self.template).set_params(**values)
        histories: dict[str, Tensor] = {}
        scores: dict[str, list[float]] = {}

        def judge(model: HistoryModel) -> float:
            if model.name not in histories:
                histories[model.name] = model.ending_with(self.known, self.asked)
            earlier = [max(found) for name, found in scores.items() if name != model.name]
            own = scores.setdefault(model.name, [])
            own.append(linear_probe(model.embed(histories[model.name]), self.labels))
            report(sum(map(len, scores.values())), float(np.mean([*earlier, own[-1]])))
            return own[-1]

        trial.pretrain(self.known, log=priced(run.metrics, self.rates), judge=judge)
        # Of either kind of history the best weights are kept.
        return self.best.offer(float(np.mean([max(found) for found in scores.values()])), (trial, run.run_id))
