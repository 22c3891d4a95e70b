"""Values of an OPC UA server, joined to readings: of one moment, dated rightly, and named where they are no good."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from unlabeled.core.errors import DataError
from unlabeled.pipelines._sensors_opcua_values import Joined, Value, time_of
from unlabeled.pipelines._sensors_source_settings import OpcuaNode

START = np.datetime64("2024-03-01T00:00:00", "ns")


def nodes(*roles: dict[str, Any]) -> list[OpcuaNode]:
    return [OpcuaNode(node=f"ns=2;i={n}", asset="p", **role) for n, role in enumerate(roles)]


def value(what: Any, second: float, flaw: str = "") -> Value:
    return Value(what, START + np.timedelta64(round(second * 1000), "ms"), flaw)


def test_indicators_are_joined_by_their_latest_values_once_all_have_come() -> None:
    rms, heat, speed, runs = nodes(
        {"indicator": "rms"}, {"indicator": "celsius"}, {"operating": "rpm"}, {"running": True}
    )
    one = Joined("p", [rms, heat, speed, runs], settle=0.5, every=0)
    one.take(rms, value(1.0, 0), 0.0)
    one.take(heat, value(40.0, 0.1), 0.1)
    one.take(speed, value(1480, 9), 0.1)
    assert one.reading(5.0) is None  # whether it runs is not known yet
    one.take(runs, value(True, 9), 0.2)
    assert one.reading(0.4) is None  # what belongs to the first may still come
    found = one.reading(0.5)
    assert found is not None
    assert found[:2] == ("opcua", "p")
    reading = found.reading()
    assert (reading.asset, reading.kind, reading.names) == ("p", "trend", ("rms", "celsius"))
    assert reading.values.tolist() == [[1.0, 40.0]]
    assert (reading.condition_names, reading.conditions.tolist()) == (("rpm",), [[1480.0]])
    assert (reading.running.tolist(), reading.flaws.tolist()) == ([True], [""])
    assert list(reading.clock) == [START + np.timedelta64(100, "ms")]  # of the two that changed, the latest
    assert one.reading(9.0) is None  # nothing has changed since
    one.take(speed, value(1490, 20), 9.0)
    assert one.reading(10.0) is None  # how it is run is no measurement
    one.take(runs, value(False, 20), 10.0)
    one.take(heat, value(41.0, 20), 11.0)
    later = one.reading(11.5).reading()
    assert (later.values[0, 0], later.values[0, 1], later.conditions[0, 0]) == (1.0, 41.0, 1490.0)
    assert not later.running[0]
    assert later.clock[0] == START + np.timedelta64(20, "s")


def test_a_reading_keeps_its_values_though_others_come_before_it_is_read() -> None:
    (rms,) = nodes({"indicator": "rms"})
    one = Joined("p", [rms], settle=0, every=0)
    one.take(rms, value(1.0, 0), 0.0)
    first = one.reading(0.0)
    one.take(rms, value(2.0, 1), 1.0)
    assert first.reading().values.tolist() == [[1.0]]
    assert one.reading(1.0).reading().values.tolist() == [[2.0]]


def test_readings_are_spaced_as_was_asked_for_and_the_latest_counts() -> None:
    (rms,) = nodes({"indicator": "rms"})
    one = Joined("p", [rms], settle=0, every=60)
    found = []
    for second in range(200):
        one.take(rms, value(second, second), float(second))
        reading = one.reading(float(second))
        found += [] if reading is None else reading.reading().values[0].tolist()
    assert found == [0.0, 60.0, 120.0, 180.0]


def test_a_snapshot_waits_for_each_of_its_axes() -> None:
    x, y = nodes({"axis": "x", "fs": 100.0}, {"axis": "y", "fs": 100.0})
    one = Joined("p", [x, y], settle=0, every=0)
    one.take(x, value([1.0, 2.0], 0), 0.0)
    one.take(y, value([3.0, 4.0], 0), 0.0)
    first = one.reading(0.0).reading()
    assert (first.kind, first.fs, first.names, first.values.shape) == ("waveform", 100.0, ("x", "y"), (1, 2, 2))
    assert first.values[0, :, 1].tolist() == [3.0, 4.0]
    one.take(x, value([5.0, 6.0], 1), 1.0)
    assert one.reading(9.0) is None  # y is still that of the snapshot before
    one.take(y, value(None, 1, "BadNoCommunication"), 9.0)
    second = one.reading(9.0).reading()
    assert second.flaws.tolist() == ["y is BadNoCommunication"]
    assert np.isnan(second.values[0, :, 1]).all()
    assert second.values[0, :, 0].tolist() == [5.0, 6.0]


def test_axes_of_different_snapshots_are_never_joined() -> None:
    x, y = nodes({"axis": "x", "fs": 100.0}, {"axis": "y", "fs": 100.0})
    one = Joined("p", [x, y], settle=0, every=0, together=0.5)
    one.take(x, value([1.0, 1.0], 10), 0.0)
    one.take(y, value([2.0, 2.0], 20), 0.0)  # that of the first is lost
    assert one.reading(0.0) is None
    one.take(y, value([3.0, 3.0], 30), 10.0)
    assert one.reading(10.0) is None  # x has not come since it was dropped
    one.take(x, value([4.0, 4.0], 30.4), 10.5)
    found = one.reading(10.5).reading()
    assert found.values[0, 0].tolist() == [4.0, 3.0]
    assert found.clock[0] == START + np.timedelta64(30_400, "ms")
    assert one.reading(60.0) is None


def test_an_axis_that_stops_is_not_waited_for_for_ever() -> None:
    x, y = nodes({"axis": "x", "fs": 100.0}, {"axis": "y", "fs": 100.0})
    one = Joined("p", [x, y], settle=0, every=0, patience=60)
    one.take(x, value([1.0, 2.0], 0), 0.0)
    one.take(y, value([3.0, 4.0], 0), 0.0)
    assert one.reading(0.0) is not None
    assert one.given_up(3600.0) == []  # nothing new has come of any
    one.take(x, value([5.0, 6.0], 3600), 3600.0)
    assert one.given_up(3659.0) == []
    assert one.reading(3659.0) is None
    assert one.given_up(3660.0) == [y]
    found = one.reading(3660.0).reading()
    assert found.flaws.tolist() == ["y is 3600 s older than the others (ns=2;i=1)"]
    assert np.isnan(found.values[0, :, 1]).all()
    one.take(x, value([7.0, 8.0], 7200), 7200.0)
    assert one.given_up(7200.0) == []  # told once
    assert one.reading(7200.0).reading().flaws[0] != ""
    for node in (x, y):
        one.take(node, value([9.0, 9.0], 9000), 9000.0)
    assert one.reading(9000.0).reading().flaws.tolist() == [""]


def test_an_axis_that_is_bad_stays_so_until_it_is_told_anew() -> None:
    x, y = nodes({"axis": "x", "fs": 100.0}, {"axis": "y", "fs": 100.0})
    one = Joined("p", [x, y], settle=0, every=0)
    one.take(y, value(None, 0, "BadSensorFailure"), 0.0)
    for second in (1.0, 2.0):
        one.take(x, value([1.0, 2.0], second), second)
        found = one.reading(second).reading()
        assert found.flaws.tolist() == ["y is BadSensorFailure"]
        assert found.clock[0] == START + np.timedelta64(int(second), "s")


def test_an_indicator_or_condition_that_never_comes_is_named() -> None:
    rms, heat, speed = nodes({"indicator": "rms"}, {"indicator": "celsius"}, {"operating": "rpm"})
    one = Joined("p", [rms, heat, speed], settle=0, every=0, patience=60)
    assert one.given_up(1000.0) == []  # the server may be away
    one.take(rms, value(1.0, 0), 1000.0)
    assert one.given_up(1059.0) == []
    assert one.given_up(1060.0) == [heat, speed]
    found = one.reading(1060.0).reading()
    assert np.isnan([found.values[0, 1], found.conditions[0, 0]]).all()
    told = ("celsius", 1), ("rpm", 2)
    assert found.flaws.tolist() == [", ".join(f"{name} is silent (ns=2;i={n}: nothing for 60 s)" for name, n in told)]
    assert one.given_up(5000.0) == []


def test_dates_never_go_back_though_the_devices_clocks_differ() -> None:
    rms, heat = nodes({"indicator": "rms"}, {"indicator": "celsius"})
    one = Joined("p", [rms, heat], settle=0, every=0)
    one.take(rms, value(1.0, 3600), 0.0)
    one.take(heat, value(40.0, 0), 0.0)  # its clock is an hour behind
    dates = [one.reading(0.0).reading().clock[0]]
    for second in (10.0, 20.5):
        one.take(heat, value(40.0 + second, second), second)
        dates.append(one.reading(second).reading().clock[0])
    one.take(rms, value(2.0, 3630), 30.0)
    dates.append(one.reading(30.0).reading().clock[0])
    assert [float((date - START) / np.timedelta64(1, "s")) for date in dates] == [3600, 3610, 3620.5, 3630]


def test_a_job_that_begins_again_dates_no_indicator_before_what_was_kept() -> None:
    (rms,) = nodes({"indicator": "rms"})
    one = Joined("p", [rms], settle=0, every=0, last=START + np.timedelta64(100, "s"))
    one.take(rms, value(1.0, 50), 0.0)
    assert one.reading(0.0) is None  # it stood there already
    one.take(rms, value(2.0, 60), 10.0)
    assert one.reading(10.0).reading().clock[0] == START + np.timedelta64(110, "s")


def test_a_clock_that_ran_ahead_holds_no_later_reading_up() -> None:
    (rms,) = nodes({"indicator": "rms"})
    one = Joined("p", [rms], settle=0, every=0)
    one.take(rms, Value(1.0, np.datetime64("2199-01-01", "ns")), 0.0)
    assert one.reading(0.0).reading().clock[0] == np.datetime64("2199-01-01")  # the job refuses it
    one.take(rms, value(2.0, 1), 1.0)
    assert one.reading(1.0).reading().clock[0] == START + np.timedelta64(1, "s")


def test_after_a_break_indicators_that_stand_as_they_were_are_no_reading() -> None:
    rms, heat = nodes({"indicator": "rms"}, {"indicator": "celsius"})
    one = Joined("p", [rms, heat], settle=0, every=0)
    for moment in (0.0, 60.0):
        one.forget()
        one.take(rms, value(1.0, 0), moment)
        one.take(heat, value(40.0, 0), moment)
        assert (one.reading(moment) is None) == (moment > 0)
    one.take(heat, value(41.0, 61), 61.0)
    assert one.reading(61.0).reading().values.tolist() == [[1.0, 41.0]]


def test_waveforms_wait_as_small_arrays_and_are_counted_in_bytes() -> None:
    (x,) = nodes({"axis": "x", "fs": 25600.0})
    one = Joined("p", [x], settle=0, every=0)
    one.take(x, value([0.5] * 25600, 0), 0.0)
    found = one.reading(0.0)
    assert found.size == 4 * 25600
    held = found.reading.args[1][x].value
    assert (held.dtype, held.nbytes) == (np.float32, 4 * 25600)


def test_after_a_break_nothing_old_is_joined_with_what_is_new() -> None:
    rms, heat = nodes({"indicator": "rms"}, {"indicator": "celsius"})
    one = Joined("p", [rms, heat], settle=0, every=0)
    one.take(rms, value(1.0, 0), 0.0)
    one.take(heat, value(40.0, 0), 0.0)
    assert one.reading(0.0) is not None
    one.forget()
    one.take(rms, value(2.0, 1), 1.0)
    assert one.reading(5.0) is None


def test_a_bad_indicator_is_no_number_and_says_why() -> None:
    rms, heat = nodes({"indicator": "rms"}, {"indicator": "celsius"})
    one = Joined("p", [rms, heat], settle=0, every=0)
    one.take(rms, value(7.0, 0, "UncertainLastUsableValue"), 0.0)
    one.take(heat, value(None, 0), 0.0)
    found = one.reading(0.0).reading()
    assert np.isnan(found.values).all()
    assert found.flaws.tolist() == ["rms is UncertainLastUsableValue"]


@pytest.mark.parametrize(
    ("role", "told", "why"),
    [
        ({"indicator": "rms"}, value("high", 0), r"ns=2;i=0 \(rms\) is no number but of type str"),
        ({"indicator": "rms"}, value([1.0], 0), "no number but of type list"),
        ({"axis": "x", "fs": 9.0}, value(3.0, 0), r"ns=2;i=0 \(x\) is no array of numbers"),
        ({"axis": "x", "fs": 9.0}, value(None, 0), "no array of numbers"),
        ({"axis": "x", "fs": 9.0}, value([], 0), "no array of numbers"),
        ({"axis": "x", "fs": 9.0}, value(["a"], 0), "no array of numbers"),
        ({"axis": "x", "fs": 9.0}, value([[1.0], [2.0]], 0), "no array of numbers"),
        ({"axis": "x", "fs": 9.0}, value(None, 0, "BadDeviceFailure"), "is BadDeviceFailure, and has not been Good"),
    ],
)
def test_a_value_of_another_kind_is_told_by_its_node(role: dict[str, Any], told: Value, why: str) -> None:
    (node,) = nodes(role)
    one = Joined("p", [node], settle=0, every=0)
    one.take(node, told, 0.0)
    with pytest.raises(DataError, match=why):
        one.reading(0.0).reading()


def test_axes_of_different_lengths_are_told() -> None:
    x, y = nodes({"axis": "x", "fs": 100.0}, {"axis": "y", "fs": 100.0})
    one = Joined("p", [x, y], settle=0, every=0)
    one.take(x, value([1.0, 2.0], 0), 0.0)
    one.take(y, value([3.0], 0), 0.0)
    with pytest.raises(DataError, match=r"of different lengths \(x 2, y 1\)"):
        one.reading(0.0).reading()


def test_dates_are_the_sources_or_the_servers_or_now() -> None:
    source, server = datetime(2024, 3, 1, 6), datetime(2024, 3, 1, 7, tzinfo=timezone(timedelta(hours=1)))
    assert time_of(source, server) == np.datetime64("2024-03-01T06:00:00")
    assert time_of(datetime(1601, 1, 1), server) == np.datetime64("2024-03-01T06:00:00")
    before = np.datetime64(datetime.now(UTC).replace(tzinfo=None), "ns")
    assert before <= time_of(None, None) <= np.datetime64(datetime.now(UTC).replace(tzinfo=None), "ns")
