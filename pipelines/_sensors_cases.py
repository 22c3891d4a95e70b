"""``unlabeled sensors cases``: what alarms a monitoring job raised, and whether they kept to the stated budget."""

from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from unlabeled.core.checkpoints import read_manifest
from unlabeled.core.errors import CheckpointError, DataError
from unlabeled.pipelines._sensors_job_file import Alarms, Job, read
from unlabeled.pipelines._sensors_judging import now
from unlabeled.pipelines._sensors_models import folder_of
from unlabeled.pipelines.jobs import Outcome
from unlabeled.sensors.alarms import HOURS_PER_MONTH
from unlabeled.sensors.logbook import CLEARED, Case, Logbook
from unlabeled.sensors.monitor import KIND
from unlabeled.sensors.regimes import NEW_REGIME

# Less likely than this under the budget, false alarms are said to be more than it allows.
_CHANCE = 0.05


class Realised(NamedTuple):
    """Alarms that cleared again, of the machines whose models have a budget, beside it.

    Attributes:
        cleared, months: how many there were, in how many machine-months.
        allowed: how many their budgets let expect in that time.
        chance: probability of so many or more if the budgets hold and alarms come independently (Poisson).
    """

    cleared: int
    months: float
    allowed: float
    chance: float

    def words(self) -> str:
        kept = (
            "more than the budget makes likely" if self.chance < _CHANCE else "within what chance makes of the budget"
        )
        return (
            f"Of machines with a budget of false alarms {self.cleared} cleared again where {self.allowed:.2g} were to "
            f"be expected: {kept} ({self.chance:.2g} is the probability of so many or more)."
        )


def cases(job_file: Path, *, acknowledge: int | None = None) -> Outcome:
    """What alarms there were and what became of them; with ``acknowledge``, somebody looks after that one now.

    Raises:
        DataError: there is no such open case, or the job has no logbook yet.
    """
    job = read(job_file)
    if not job.logbook.exists():
        raise DataError(f"{job.logbook} does not exist: the job has not run yet")
    with Logbook(job.logbook) as book:
        if acknowledge is not None:
            book.acknowledge(acknowledge, now())
        found, hours = book.cases(), book.monitored_h()
    months = sum(hours.values()) / HOURS_PER_MONTH
    cleared = sum(case.state == CLEARED for case in found)
    rate = f" ({cleared / months:.2g} a month)" if months >= 1 else ""
    realised = _realised(job, found, hours)
    lines = [] if realised is None else [realised.words()]
    if realised is not None and job.alarms != Alarms():
        lines.append("The job file's own alarm settings are others than the budgets were set for.")
    return Outcome(
        headline=f"{len(found)} case(s), {len(found) - cleared} of them not cleared. In {months:.2g} machine-months "
        f"{cleared} alarm(s) cleared again{rate}.",
        lines=[*lines, *(_line(case) for case in found)],
        details={
            "cases": [asdict(case) for case in found], "machine_months": months, "cleared": cleared,
            "budget": None if realised is None else realised._asdict(),
        },
    )  # fmt: skip


def _realised(job: Job, found: list[Case], hours: dict[str, float]) -> Realised | None:
    from scipy.stats import poisson

    budgets = {asset: budget for asset in hours if (budget := _budget(job, asset)) is not None}
    months = {asset: hours[asset] / HOURS_PER_MONTH for asset in budgets}
    allowed = sum(budget * months[asset] for asset, budget in budgets.items())
    if not allowed:
        return None
    cleared = sum(case.state == CLEARED and case.asset in budgets for case in found)
    return Realised(cleared, sum(months.values()), allowed, float(poisson.sf(cleared - 1, allowed)))


def _budget(job: Job, asset: str) -> float | None:
    """Of a machine's model as it is now, if it has one."""
    try:
        said = read_manifest(folder_of(asset, job), kind=KIND)["params"].get("false_alarms")
    except (DataError, CheckpointError):
        return None
    return None if said is None else float(said)


def _line(case: Case) -> str:
    ends = [f"{what} {when[:19]}" for what, when in (("acknowledged", case.acknowledged), ("cleared", case.cleared))
            if when is not None]  # fmt: skip
    since = ", ".join([f"since {case.opened[:19]}", *ends])
    why = str(next(iter(case.evidence.get("words", ())), ""))
    strange = f", {why}" if why.startswith(NEW_REGIME) else ""
    return f"case {case.id}, {case.asset}: {case.state}, {since}, highest score {case.highest:.2f}{strange}"
