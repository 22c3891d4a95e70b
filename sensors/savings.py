"""What alarms would have been worth: hours of downtime and money, by stated costs. A simulation, never a promise.

A failure that was announced early enough to plan for costs the hours of a planned repair, any other those of an outage;
each false alarm costs an inspection, and so does an alarm of the first half of a run, however long it holds: it
announced nothing. Repair parts, quality and safety are left out, and so is what people would have done anyway.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from unlabeled.core.errors import DataError
from unlabeled.sensors.backtest import Result


@dataclass(frozen=True, kw_only=True)
class Costs:
    """As the plant states them.

    Attributes:
        outage_h: hours that a machine stands after a failure that came unannounced.
        planned_h: hours that a planned repair takes.
        per_hour: what an hour of standing costs, in any currency.
        notice_h: hours ahead that an alarm has to come for the repair to be planned.
        inspection: what looking after a false alarm costs.

    Raises:
        DataError: negative, or a planned repair that takes longer than an outage.
    """

    outage_h: float
    planned_h: float
    per_hour: float
    notice_h: float = 24.0
    inspection: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 0:
                raise DataError(f"{name.replace('_', ' ')} must not be negative, got {value:g}")
        if self.planned_h > self.outage_h:
            raise DataError(
                f"a planned repair of {self.planned_h:g} h would take longer than an outage of {self.outage_h:g} h: "
                "there is nothing to save"
            )


@dataclass(frozen=True, kw_only=True)
class Savings:
    """Of one method, against having no alarms at all.

    Attributes:
        method: whose.
        failures, in_time: how many there were, and how many were announced early enough.
        false_alarms: each of which cost an inspection.
        hours: of downtime saved.
        money: saved, inspections taken off; negative where they cost more.
    """

    method: str
    failures: int
    in_time: int
    false_alarms: int
    hours: float
    money: float


def savings(results: Sequence[Result], costs: Costs) -> Savings:
    """Of one method's results on several machines.

    Raises:
        DataError: results of several methods, or none.
    """
    methods = {result.method for result in results}
    if len(methods) != 1:
        raise DataError(f"savings are of one method, got {', '.join(sorted(methods)) or 'none'}")
    in_time = sum(r.failed and not r.early and r.lead_h > 0 and r.lead_h >= costs.notice_h for r in results)
    false = sum(result.false_alarms + result.early for result in results)
    hours = in_time * (costs.outage_h - costs.planned_h)
    return Savings(
        method=methods.pop(), failures=sum(result.failed for result in results), in_time=in_time, false_alarms=false,
        hours=hours, money=hours * costs.per_hour - false * costs.inspection,
    )  # fmt: skip
