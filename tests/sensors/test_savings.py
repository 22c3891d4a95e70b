"""Hours and money worked out by hand, and what cannot be asked."""

from pathlib import Path

import pytest

from unlabeled.core.errors import DataError
from unlabeled.pipelines import sensors_replay
from unlabeled.sensors import MachineMonitor, Recording, simulate
from unlabeled.sensors.backtest import Result
from unlabeled.sensors.savings import Costs, savings

COSTS = Costs(outage_h=48, planned_h=8, per_hour=500, notice_h=24, inspection=300)


def result(lead_h: float, *, false: int = 0, failed: bool = True, method: str = "ours", early: bool = False) -> Result:
    return Result(
        method=method, asset="m", lead_h=lead_h, early=early, false_alarms=false, alarm_share=0.0,
        latched_h=lead_h, sustained_h=lead_h, exceedances=false, monitored_h=1000.0, failed=failed,
    )  # fmt: skip


def test_only_failures_announced_in_time_save_and_every_false_alarm_costs() -> None:
    found = savings(
        [result(100, false=2), result(24), result(23.9), result(0), result(0, false=1, failed=False)], COSTS
    )
    # Two in time, each 40 h at 500; three inspections at 300.
    assert (found.failures, found.in_time, found.false_alarms) == (4, 2, 3)
    assert (found.hours, found.money) == (80, 39_100)


def test_a_failure_that_was_missed_saves_nothing_even_where_no_notice_is_needed() -> None:
    assert savings([result(0)], Costs(outage_h=48, planned_h=8, per_hour=1, notice_h=0)).money == 0


def test_an_alarm_that_is_always_on_announces_nothing() -> None:
    found = savings([result(740, early=True)], COSTS)
    assert (found.in_time, found.false_alarms, found.money) == (0, 1, -300)


def test_false_alarms_alone_cost_more_than_they_save() -> None:
    assert savings([result(0, false=5, failed=False)], COSTS).money == -1500


@pytest.mark.parametrize(
    ("changed", "why"), [({"planned_h": 49}, "nothing to save"), ({"per_hour": -1}, "per hour must not be negative")]
)
def test_costs_that_make_no_sense_are_refused(changed: dict[str, float], why: str) -> None:
    with pytest.raises(DataError, match=why):
        Costs(**{**vars(COSTS), **changed})


def test_methods_are_not_mixed() -> None:
    with pytest.raises(DataError, match="of one method, got ours, rms"):
        savings([result(1), result(1, method="rms")], COSTS)


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_a_replay_says_what_its_alarms_would_have_saved_and_calls_it_a_simulation(
    plant: list[Recording], in_tmp: Path
) -> None:
    files = [simulate.write(machine, in_tmp / "plant") for machine in plant[2:]]
    done = sensors_replay.replay(
        files, out=in_tmp / "replay", normal_share=0.5, healthy=["healthy-3"], costs=COSTS,
        template=MachineMonitor(steps=40, dim=32, depth=2),
    )  # fmt: skip
    by = {one["method"]: one for one in done.details["savings"]}
    lead = next(r for r in done.details["results"] if r["method"] == "ours" and r["asset"] == "failing-1")["lead_h"]
    wrong = sum(r["false_alarms"] + r["early"] for r in done.details["results"] if r["method"] == "ours")
    assert by["ours"]["money"] == (20_000 if lead >= 24 else 0) - 300 * wrong
    assert {"ours", "horizontal RMS", "vertical kurtosis"} <= {name.removesuffix(" 3-sigma") for name in by}
    page = (in_tmp / "replay" / "report.html").read_text(encoding="utf-8")
    assert "A simulation: what alarms would have saved" in page
    assert any(line.startswith("Simulation:") for line in done.lines)
