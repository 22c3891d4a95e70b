"""After a repair a machine is another one: what came before does not count, and chunks change nothing."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unlabeled.core.errors import DataError
from unlabeled.pipelines import sensors as jobs
from unlabeled.sensors import MachineMonitor, Recording, simulate
from unlabeled.sensors.recording import make

SMALL = {"steps": 10, "dim": 16, "depth": 1, "heads": 2}


def test_what_came_before_a_moment_is_gone_and_times_count_from_it() -> None:
    record = make("m", np.arange(10.0)[:, None], np.arange(10) * 2.0, names=("rms",), failure_h=18)
    after = record.since("5")
    assert after.values[:, 0].tolist() == [3, 4, 5, 6, 7, 8, 9]
    assert after.hours.tolist() == [0, 2, 4, 6, 8, 10, 12]
    assert after.index.tolist() == [3, 4, 5, 6, 7, 8, 9]
    assert after.failure_h == 12
    assert record.since("0").hours.tolist() == record.hours.tolist()
    with pytest.raises(DataError, match="m: nothing was recorded after 19"):
        record.since("19")


def test_a_failure_before_the_repair_is_not_one_of_what_came_after() -> None:
    assert make("m", np.zeros((10, 1)), np.arange(10.0), names=("rms",), failure_h=4).since("5").failure_h is None


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_a_machine_is_fitted_anew_on_what_came_after_its_repair(plant: list[Recording], in_tmp: Path) -> None:
    # It failed, and goes on as another, well one.
    broken, well = plant[3], plant[0]
    values = np.concatenate([broken.values, well.values])
    hours = np.concatenate([broken.hours, broken.hours[-1] + 3 + well.hours])
    repaired = make("pump", values, hours, names=broken.names, fs=broken.fs)
    file = simulate.write(repaired, in_tmp / "plant")
    since = str(broken.hours[-1] + 1)
    template = MachineMonitor(**SMALL)  # type: ignore[arg-type]
    jobs.fit([file], out=in_tmp / "anew", normal_share=0.5, since=since, template=template)
    jobs.fit([simulate.write(make("pump", well.values, well.hours, names=well.names, fs=well.fs), in_tmp / "alone")],
             out=in_tmp / "own", normal_share=0.5, template=template)  # fmt: skip
    anew, own = (MachineMonitor.load(in_tmp / name / "pump") for name in ("anew", "own"))
    assert anew.threshold_ == own.threshold_
    assert anew.data_fingerprint_ == own.data_fingerprint_
    with pytest.raises(DataError, match="nothing was recorded after 9999"):
        jobs.fit([file], out=in_tmp / "none", since="9999")


@pytest.fixture(scope="module")
def judged() -> tuple[MachineMonitor, Recording, list[dict[str, object]]]:
    """A trend with gaps and flaws in it, a monitor of it, and what it says row by row."""
    draw = np.random.default_rng(0)
    values = draw.normal(size=(160, 2))
    values[100:] += np.linspace(0, 8, 60)[:, None]
    values[[50, 90, 130]] = np.nan
    record = make("m", values, np.arange(160) / 6, names=("rms", "temperature"))
    monitor = MachineMonitor(**SMALL, window=8).fit(record, normal_share=0.5)  # type: ignore[arg-type]
    table = monitor.score(record).drop(columns=["asset", "row", "hours", "threshold"])
    return monitor, record, table.to_dict("records")


@given(cuts=st.lists(st.integers(1, 159), max_size=12, unique=True), length=st.integers(1, 160))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_neither_chunks_nor_what_comes_later_change_a_bit_of_any_score(
    judged: tuple[MachineMonitor, Recording, list[dict[str, object]]], cuts: list[int], length: int
) -> None:
    monitor, record, expected = judged
    memory: str | None = None
    told: list[dict[str, object]] = []
    edges = [0, *sorted(cut for cut in cuts if cut < length), length]
    for start, stop in pairwise(edges):
        stream = monitor.stream()
        if memory is not None:
            stream.recall(json.loads(memory))
        told += [stream.push(record.values[row], flaw=str(record.flaws[row])) for row in range(start, stop)]
        memory = json.dumps(stream.memory())
    for one, other in zip(told, expected[:length], strict=True):
        assert one.keys() == other.keys()
        np.testing.assert_array_equal(
            [v for v in one.values() if isinstance(v, float)], [v for v in other.values() if isinstance(v, float)]
        )
        assert (one["state"], one["alarm"], one["reason"]) == (other["state"], other["alarm"], other["reason"])
