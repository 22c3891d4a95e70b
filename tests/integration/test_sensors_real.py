"""The vibration jobs on real machines: the published rules reproduced, runs replayed, models used again."""

import json
from pathlib import Path

import pandas as pd
import pytest

from unlabeled.pipelines import sensors as jobs
from unlabeled.pipelines import sensors_replay
from unlabeled.sensors import AlarmRule, MachineMonitor, Recording, read
from unlabeled.sensors.alarms import sustained
from unlabeled.sensors.backtest import plain, with_failure
from unlabeled.sensors.baselines import indicator_table, three_sigma

pytestmark = pytest.mark.integration

FEMTO = ("Bearing1_1", "Bearing1_2", "Bearing2_1", "Bearing2_2", "Bearing3_1", "Bearing3_2")


@pytest.fixture(scope="module")
def vibration(shared_data: Path) -> Path:
    return shared_data / "vibration"


def reference(vibration: Path, run: str, score: str) -> tuple[float | None, float | None, int]:
    """Published lead of five in a row, latched lead and episodes of the 3-sigma rule."""
    entries = json.loads((vibration / "baseline_3sigma.json").read_text())
    (one,) = (e for e in entries if (e["run"], e["score"], e["train_frac"]) == (run, score, 0.25))
    leads = (one[name] and one[name]["lead_h"] for name in ("sust", "latch"))
    return (*leads, one["episodes_before_latch"])  # type: ignore[return-value]


def check(recording: Recording, column: str, median_of: int, expected: tuple[float | None, float | None, int]) -> None:
    rows = recording.normal_rows()
    values = indicator_table(recording)[column].to_numpy()
    rule = three_sigma(values, name=column, normal_rows=rows, median_of=median_of)
    result = plain(recording, rule, rule=AlarmRule(), normal_rows=rows)
    five, latch, stretches = expected
    assert (
        result.sustained_h == pytest.approx(five, abs=1e-4, nan_ok=True)
        if five
        else result.sustained_h != result.sustained_h
    )
    assert (
        result.latched_h == pytest.approx(latch, abs=1e-4, nan_ok=True)
        if latch
        else result.latched_h != result.latched_h
    )
    assert result.exceedances == stretches


@pytest.mark.parametrize("median_of", [1, 9])
@pytest.mark.parametrize("name", FEMTO)
def test_the_published_rules_on_femto_are_reproduced(vibration: Path, name: str, median_of: int) -> None:
    (recording,) = read(vibration / "femto" / f"{name}.npz")
    end = "_median9" if median_of == 9 else ""
    check(recording, "horizontal RMS", median_of, reference(vibration, name, f"h_rms{end}"))
    check(recording, "horizontal kurtosis", median_of, reference(vibration, name, f"h_exkurt{end}"))


@pytest.mark.parametrize("median_of", [1, 9])
def test_the_published_rules_on_ims_are_reproduced(vibration: Path, median_of: int) -> None:
    first = read(vibration / "ims" / "ims_test2_features.parquet")[0]
    end = "_median9" if median_of == 9 else ""
    for name in ("rms", "exkurt"):
        check(first, name, median_of, reference(vibration, "ims_test2", f"B1_{name}{end}"))


def test_the_published_rule_on_a_real_machines_temperature_is_reproduced(vibration: Path) -> None:
    (machine,) = read(vibration / "nab" / "machine_temperature_system_failure.parquet")
    assert len(machine.skipped) == 12
    assert any("steps back 1 time" in note for note in machine.notes)
    hours = jobs.summary.hours_of("2014-02-08 14:30", machine)
    assert hours is not None
    machine = with_failure(machine, hours)
    rows = machine.normal_rows()
    rule = three_sigma(machine.values[:, 0], name="value", normal_rows=rows, two_sided=True)
    row = sustained(rule.exceeds()[rows : machine.end_row()], rows=12)
    assert row is not None
    assert machine.when(row + rows) == "2014-02-08 03:35:00"
    assert hours - machine.hours[row + rows] == pytest.approx(10.9, abs=0.05)


def test_femto_is_replayed_with_encoders_that_never_saw_the_run(vibration: Path, in_tmp: Path) -> None:
    inputs = [vibration / "femto" / f"{name}.npz" for name in ("Bearing2_1", "Bearing3_1")]
    outcome = sensors_replay.replay(inputs, out=in_tmp / "out", template=MachineMonitor(steps=60))
    results = pd.read_csv(outcome.files["results"])
    assert set(results["asset"]) == {"Bearing2_1", "Bearing3_1"}
    assert set(results["method"]) >= {"ours", "horizontal RMS 3-sigma", "vertical kurtosis 3-sigma"}
    lead = results.set_index(["asset", "method"])["lead_h"]
    assert lead["Bearing3_1", "ours"] > 0
    # Bearing2_1 grows louder only, minutes before its end: the plain rule hears it.
    assert lead["Bearing2_1", "horizontal RMS 3-sigma"] == pytest.approx(0.069, abs=0.001)
    encoder = json.loads((in_tmp / "out" / "encoder-Bearing2_1" / "manifest.json").read_text())
    assert encoder["fleet"] == ["Bearing3_1"]
    assert outcome.comparisons[0].metric == "lead time (h)"
    page = outcome.files["report"].read_text()
    assert "Bearing3_1" in page
    assert "data:image/png" in page


def test_ims_bearings_are_fitted_scored_and_listed(vibration: Path, in_tmp: Path) -> None:
    source = vibration / "ims" / "ims_test2_features.parquet"
    fitted = jobs.fit([source], out=in_tmp / "model", assets=["B1", "B2"], template=MachineMonitor(steps=60))
    assert set(fitted.details["thresholds"]) == {"B1", "B2"}
    scored = jobs.score([source], model=in_tmp / "model", out=in_tmp / "scores", assets=["B1"])
    assert scored.details["in_alarm"] == ["B1"]
    table = pd.read_csv(scored.files["scores"])
    assert len(table) == 984
    assert list(table["reason"].iloc[-2:]) == ["the machine was not running"] * 2
    assert table["state"].iloc[-3] == "alarm"
    listed = pd.read_csv(scored.files["cannot judge"])
    assert len(listed) == (table["state"] == "cannot judge").sum()


def test_a_months_long_temperature_record_goes_through_the_replay(vibration: Path, in_tmp: Path) -> None:
    table = pd.read_parquet(vibration / "nab" / "machine_temperature_system_failure.parquet")
    table.iloc[::6].to_csv(in_tmp / "machine.csv", index=False)  # every half hour, and as CSV
    outcome = sensors_replay.replay(
        [in_tmp / "machine.csv"], out=in_tmp / "out", failure_at="2014-02-08 14:30", template=MachineMonitor(steps=60)
    )
    results = pd.read_csv(outcome.files["results"])
    assert list(results["method"]) == ["ours", "value 3-sigma"]
    assert (results["monitored_h"] > 40 * 24).all()
    scores = pd.read_parquet(outcome.files["scores.parquet"])
    assert scores["time"].is_monotonic_increasing
    listed = pd.read_csv(outcome.files["cannot judge"])
    assert (listed["reason"] == "timestamp seen before").sum() == 2


def test_raw_snapshots_at_another_rate_are_refused_plainly(vibration: Path, in_tmp: Path) -> None:
    with pytest.raises(jobs.DataError, match="snapshots"):
        jobs.fit([vibration / "ims" / "ims_test2_bearing1_raw_last6.npz"], out=in_tmp / "model")
    normal = vibration / "cwru" / "normal_0hp_48k_part1.npz"
    jobs.fit([normal], out=in_tmp / "model", normal_share=1.0, template=MachineMonitor(steps=20))
    with pytest.raises(jobs.DataError, match="fitted at 48000 Hz, Bearing3_1 is sampled at 25600 Hz"):
        jobs.score([vibration / "femto" / "Bearing3_1.npz"], model=in_tmp / "model", out=in_tmp / "scores")
    fault = jobs.score(
        [vibration / "cwru" / "OR007_at6_0hp_48k_de_135.npz"], model=in_tmp / "model", out=in_tmp / "scores"
    )
    assert fault.details["in_alarm"] == ["OR007_at6_0hp_48k_de_135"]
