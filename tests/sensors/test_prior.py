"""A machine of which little is known starts from what its fleet does, says so, and leaves that when it can."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unlabeled.core.errors import DataError
from unlabeled.pipelines import sensors as jobs
from unlabeled.sensors import MachineMonitor, Recording, simulate
from unlabeled.sensors.prior import Begun, Prior, _moments, posterior
from unlabeled.sensors.recording import make

PLAN = simulate.Plan(days=20, every_h=3, fault_days=6)


@pytest.fixture(scope="module")
def fleet() -> list[Recording]:
    return simulate.fleet(healthy=5, failing=0, seed=11, plan=PLAN)


@pytest.fixture(scope="module")
def taught(fleet: list[Recording]) -> MachineMonitor:
    return MachineMonitor(steps=40, dim=32, depth=2).pretrain(fleet, normal_share=0.5)


@pytest.fixture(scope="module")
def newcomers() -> list[Recording]:
    """Two that stay well and two that fail, none of them seen before."""
    return [replace(one, asset=f"new {one.asset}") for one in simulate.fleet(healthy=2, failing=2, seed=12, plan=PLAN)]


def test_a_mean_is_between_its_own_and_the_fleets_by_hand() -> None:
    """Machines at -2, 0 and 2, each with snapshots one below and one above: between 4 - 1, within 2; of two own
    snapshots at 5 the mean is (2 * 3 * 5 + 2 * 0) / (2 * 3 + 2)."""
    fleet = [_moments(np.array([[c - 1.0], [c + 1.0]])) for c in (-2.0, 0.0, 2.0)]
    mean, spread = posterior(_moments(np.array([[5.0], [5.0]])), fleet)
    assert mean == pytest.approx([30 / 8])
    # What is left uncertain of the mean, (1 - 6/8) * 3, widens the spread.
    assert spread == pytest.approx([np.sqrt(2 + 0.75)])


def test_machines_that_are_all_alike_leave_a_newcomer_no_mean_of_its_own() -> None:
    fleet = [_moments(np.array([[-1.0], [1.0]])) for _ in range(3)]
    mean, spread = posterior(_moments(np.array([[5.0], [5.0]])), fleet)
    assert mean == pytest.approx([0.0])
    assert spread == pytest.approx([np.sqrt(2)])


def begun(taught: MachineMonitor, machine: Recording, rows: int) -> MachineMonitor:
    monitor = copy.deepcopy(taught).fit(machine.rows(slice(0, rows)), normal_share=1.0)
    assert monitor.begun_ is not None
    return monitor


@pytest.mark.parametrize("rows", [3, 10, 29])
def test_well_newcomers_are_quiet_and_failing_ones_are_found(
    taught: MachineMonitor, newcomers: list[Recording], rows: int
) -> None:
    for machine in newcomers:
        monitor = begun(taught, machine, rows)
        assert monitor.begun_ == Begun(machines=tuple(taught.fleet_), own=rows)
        found = monitor.score(machine)
        alarms = found["hours"][found["alarm"]]
        if machine.failure_h is None:
            assert alarms.empty
        else:  # a fault that grows for six days, found in its last three at least, and not before it began
            assert machine.failure_h - 6 * 24 <= alarms.min() <= machine.failure_h - 24


def test_with_thirty_snapshots_a_machine_has_a_normal_of_its_own(
    taught: MachineMonitor, newcomers: list[Recording]
) -> None:
    some = newcomers[0].rows(slice(0, 30))
    assert copy.deepcopy(taught).fit(some, normal_share=1.0).begun_ is None


def test_a_level_of_its_own_is_no_alarm(taught: MachineMonitor, newcomers: list[Recording]) -> None:
    """Three times as loud as any of the fleet, from the beginning: what counts is how it changes."""
    loud = replace(newcomers[0], values=newcomers[0].values * 3)
    assert not begun(taught, loud, 10).score(loud)["alarm"].any()


def test_nothing_is_told_from_what_came_later(taught: MachineMonitor, newcomers: list[Recording]) -> None:
    machine = newcomers[2]
    monitor = copy.deepcopy(taught).fit(machine, normal_until=float(machine.hours[9]))
    pd.testing.assert_frame_equal(monitor.score(machine), begun(taught, machine, 10).score(machine))


def test_it_is_stored_with_the_encoder_and_goes_with_the_first_own_normal(
    taught: MachineMonitor, newcomers: list[Recording], tmp_path: Path
) -> None:
    machine = newcomers[2]
    encoder = MachineMonitor.load(copy.deepcopy(taught).save(tmp_path / "encoder"))
    monitor = begun(encoder, machine, 8)
    again = MachineMonitor.load(monitor.save(tmp_path / "model"))
    assert (again.begun_, again.prior_) == (monitor.begun_, None)
    pd.testing.assert_frame_equal(again.score(machine), begun(taught, machine, 8).score(machine))
    assert again.explain(machine).words
    with pytest.raises(DataError, match="at least 30 are needed"):
        MachineMonitor.load(tmp_path / "model").fit(machine.rows(slice(0, 8)), normal_share=1.0)


def test_it_says_why_it_cannot_begin(taught: MachineMonitor, newcomers: list[Recording]) -> None:
    machine = newcomers[0]
    two = machine.rows(slice(0, 2))
    with pytest.raises(DataError, match="3 are needed to start from the fleet's prior"):
        copy.deepcopy(taught).fit(two, normal_share=1.0)
    budgeted = copy.deepcopy(taught).set_params(false_alarms=1.0)
    with pytest.raises(DataError, match="no budget of false alarms can be met by the fleet's prior"):
        budgeted.fit(machine.rows(slice(0, 9)), normal_share=1.0)


def test_a_newcomer_that_is_measured_otherwise_is_refused(taught: MachineMonitor, newcomers: list[Recording]) -> None:
    few = newcomers[0].rows(slice(0, 9))
    assert few.fs is not None
    for other, why in (
        (replace(few, values=few.values[..., :1], names=few.names[:1]), "the fleet's prior is of horizontal, vertical"),
        (replace(few, values=few.values[:, ::2], fs=few.fs / 2), "of 12800 Hz, this machine is sampled at 6400 Hz"),
        (make("t", np.zeros((40, 2)), np.arange(40), names=few.names), "the fleet's prior is of horizontal, vertical"),
    ):
        with pytest.raises(DataError, match=why):
            copy.deepcopy(taught).fit(other, normal_until=float(other.hours[min(20, len(other) - 1)]))
    meant = copy.deepcopy(taught)
    assert meant.prior_ is not None
    meant.prior_ = replace(meant.prior_, unit="g")
    with pytest.raises(DataError, match="the fleet's prior is in g, this machine in mm/s"):
        meant.fit(replace(few, unit="mm/s"), normal_share=1.0)


def test_a_machine_of_the_fleet_is_no_other_one(taught: MachineMonitor, fleet: list[Recording]) -> None:
    few = fleet[1].rows(slice(0, 9))
    monitor = copy.deepcopy(taught).fit(few, normal_share=1.0)
    assert monitor.begun_ == Begun(machines=tuple(r.asset for r in fleet if r is not fleet[1]), own=9)
    small = copy.deepcopy(taught)
    assert small.prior_ is not None
    small.prior_ = small.prior_.but(fleet[0].asset).but(fleet[2].asset)
    with pytest.raises(DataError, match="of fewer than 3 other machines"):
        small.fit(few, normal_share=1.0)


def trend(name: str, seed: int, *, fault: bool = False) -> Recording:
    """Machines about means of their own; a fault moves the first indicator from row 200 on."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=3) * 5 + 0.3 * rng.normal(size=(300, 3))
    values[:, 0] += 0.05 * np.clip(np.arange(300) - 200, 0, None) * fault
    return make(name, values, np.arange(300) / 6, names=("rms", "temperature", "current"))


def test_a_trend_starts_from_its_fleet_whatever_the_order_of_its_columns() -> None:
    fleet = [trend(f"m{seed}", seed) for seed in range(5)]
    encoder = MachineMonitor(steps=60, dim=32, depth=2).pretrain(fleet, normal_share=0.5)
    for fault in (False, True):
        new = trend("new", 9, fault=fault)
        turned = replace(new, values=new.values[:, [2, 0, 1]], names=("current", "rms", "temperature"))
        tables = []
        for one in (new, turned):
            monitor = copy.deepcopy(encoder).fit(one.rows(slice(0, 25)), normal_share=1.0)
            assert monitor.begun_ is not None
            assert monitor.begun_.own == 10  # from the 16th row on a trend is seen
            tables.append(monitor.score(one))
        pd.testing.assert_frame_equal(tables[0], tables[1])
        alarms = tables[0].index[tables[0]["alarm"]]
        assert (len(alarms) > 0) == fault
        assert not fault or 200 < alarms[0] < 260


def test_two_machines_are_no_fleet(fleet: list[Recording]) -> None:
    rows = [80] * 5
    assert Prior.of(fleet[:2], rows[:2], window=16) is None
    known = Prior.of(fleet, rows, window=16)
    assert known is not None
    assert known.machines == tuple(r.asset for r in fleet)


def test_the_command_says_it(taught: MachineMonitor, newcomers: list[Recording], tmp_path: Path) -> None:
    encoder = copy.deepcopy(taught).save(tmp_path / "encoder")
    few = simulate.write(replace(newcomers[2].rows(slice(0, 8)), asset="pump9"), tmp_path / "few")
    told = jobs.fit([few], out=tmp_path / "models", normal_share=1.0, encoder=encoder)
    sentence = "No normal of their own yet: pump9 by the prior of 5 other machines and 8 snapshots of its own"
    assert sentence in told.headline
    later = simulate.write(replace(newcomers[2], asset="pump9"), tmp_path / "later")
    scored = jobs.score([later], model=tmp_path / "models", out=tmp_path / "scores")
    assert sentence in scored.headline
    assert scored.details["in_alarm"] == ["pump9"]
    assert "the prior of 5 other machines" in scored.files["report"].read_text()
