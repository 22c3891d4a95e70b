"""What is normal depends on how a machine is run, and what was never seen is called that."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monitoring import events

from unlabeled.core.errors import DataError
from unlabeled.pipelines import _sensors_monitor as job
from unlabeled.pipelines._sensors_dry_run import ANEW, AS_IT_WAS, dry_run
from unlabeled.pipelines._sensors_judging import in_order
from unlabeled.pipelines._sensors_message import recording_of
from unlabeled.pipelines.cli import main
from unlabeled.sensors import MachineMonitor, Recording, read, simulate
from unlabeled.sensors.recording import make
from unlabeled.sensors.regimes import Conditional, Regimes, Unfamiliar
from unlabeled.sensors.views import Scaling, look_under_conditions, waveform

NAMES = ("rms", "band", "kurtosis", "temperature")
SMALL: dict[str, Any] = {"steps": 10, "dim": 16, "depth": 1, "heads": 2, "window": 8}
NORMAL, NEW, FAULT, ROWS = 160, slice(250, 280), 340, 440


def trend(seed: int = 0, *, fault: bool = True, new: bool = True) -> Recording:
    """Indicators that follow the speed, which is one of three; a fault from row 340 on, a fourth speed in between."""
    rng = np.random.default_rng(seed)
    speed = rng.choice([900.0, 1200.0, 1500.0], ROWS) + rng.normal(0, 8, ROWS)
    if new:
        speed[NEW] = 2000 + rng.normal(0, 8, 30)
    gain = (speed / 1200) ** 2
    values = np.stack([gain, 0.4 * gain**1.5, 3 + 0.5 * gain, 40 + speed / 75], axis=1)
    values *= 1 + 0.03 * rng.normal(size=values.shape)
    if fault:
        worse = np.clip((np.arange(ROWS) - FAULT) / 50, 0, None)
        values[:, 0] *= 1 + 0.4 * worse
        values[:, 2] *= 1 + 0.5 * worse
    return make("pump7", values, np.arange(ROWS) / 6, names=NAMES, conditions=speed, condition_names=("speed",))


def without(recording: Recording) -> Recording:
    return replace(recording, conditions=None, condition_names=())


@pytest.fixture(scope="module")
def fitted() -> MachineMonitor:
    return MachineMonitor(**SMALL).fit(trend(), normal_share=NORMAL / ROWS)


def test_what_similar_conditions_do_is_taken_out_by_hand() -> None:
    regimes = Regimes.of(np.array([[10.0], [11], [12], [13], [14], [30], [31], [32], [33], [34]]), ["speed"])
    normal = Conditional(regimes, indicators=np.array([[1.0], [2], [3], [4], [5], [11], [12], [13], [14], [15]]))
    assert regimes.similar == 5
    # Of five at 30 to 34 the mean is 13, of all ten 8: what is 14 there would be 9 on average.
    np.testing.assert_allclose(normal.row(np.array([14.0]), np.array([32.0])), [9.0])
    # The third known one, left out itself, is compared with its four neighbours and the next one on, which is at 30.
    np.testing.assert_allclose(normal.row(np.array([3.0]), np.array([12.0]), without=2), [3 - (12 + 11) / 5 + 8])


def test_a_waveform_s_level_is_set_right_by_a_factor_and_its_picture_by_decibels() -> None:
    rng = np.random.default_rng(0)
    speed = np.r_[rng.uniform(9, 11, 20), rng.uniform(29, 31, 20)]
    signals = rng.normal(size=(40, 2048, 1)) * np.where(speed < 20, 1.0, 4.0)[:, None, None]
    signals[speed > 20] += 8 * np.sin(np.arange(2048) / 2)[:, None]
    recording = make("m", signals, np.arange(40), names=("x",), fs=10_000.0, conditions=speed, condition_names=("v",))
    seen, normal, cut = look_under_conditions(recording, rows=40, window=1)
    assert normal is not None
    assert cut == 40
    raw = [waveform(one) for one in signals.astype(np.float32)]
    loud = np.array([one.overall for one in raw])
    assert loud[20:].mean() / loud[:20].mean() > 5
    assert seen.overall is not None
    assert seen.overall[20:].mean() / seen.overall[:20].mean() == pytest.approx(1, abs=0.02)
    before, after = (np.abs(p[20:].mean(axis=(0, 3)) - p[:20].mean(axis=(0, 3))).max()
                     for p in (np.stack([one.picture for one in raw]), seen.pictures))  # fmt: skip
    assert after < before / 4
    np.testing.assert_allclose(seen.pictures.mean(axis=(0, 3)), np.mean([o.picture for o in raw], axis=(0, 3)), atol=1)


def test_conditions_are_new_beyond_the_usual_gaps_and_only_there() -> None:
    rng = np.random.default_rng(0)
    known = np.stack([rng.uniform(800, 1500, 300), rng.uniform(0, 100, 300)], axis=1)
    regimes = Regimes.of(known, ["speed", "load"])
    assert regimes.unfamiliar(np.array([1150.0, 50.0])) is None
    assert all(regimes.unfamiliar(one) is None for one in known)
    for stranger in ([2200.0, 50.0], [1150.0, 220.0], [300.0, 50.0]):
        why = regimes.unfamiliar(np.array(stranger))
        assert isinstance(why, Unfamiliar)
        assert f"speed {stranger[0]:.4g}" in why
    # A hole amid what is known is new too; a steady condition has a scale all the same.
    holed = Regimes.of(known[(known[:, 0] < 1000) | (known[:, 0] > 1350)], ["speed", "load"])
    assert holed.unfamiliar(np.array([1175.0, 50.0])) is not None
    steady = Regimes.of(np.full((20, 1), 1500.0), ["speed"])
    assert steady.unfamiliar(np.array([1505.0])) is None
    assert steady.unfamiliar(np.array([1600.0])) is not None


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 100), st.integers(0, 2**16))
def test_units_of_conditions_do_not_matter(factor: float, seed: int) -> None:
    """Revolutions a minute or hertz: the same are near, and the same is new."""
    rng = np.random.default_rng(seed)
    known, asked = rng.normal(size=(50, 2)) * [300, 20], rng.normal(size=(20, 2)) * [900, 60]
    one, other = Regimes.of(known, ["a", "b"]), Regimes.of(known * factor, ["a", "b"])
    for conditions in asked:
        assert (one.unfamiliar(conditions) is None) == (other.unfamiliar(conditions * factor) is None)
        assert one.nearest(conditions).tolist() == other.nearest(conditions * factor).tolist()


def test_a_new_regime_is_neither_an_alarm_nor_an_all_clear_and_a_fault_is_heard(fitted: MachineMonitor) -> None:
    table = fitted.score(trend())
    assert set(table["state"][NEW]) == {"new regime"}
    assert table["score"][NEW].isna().all()
    assert table["reason"][NEW.start].startswith("new regime: speed 19")
    assert not table["alarm"][:FAULT].any()
    assert table["alarm"][FAULT : FAULT + 40].any()
    blind = MachineMonitor(**SMALL).fit(without(trend()), normal_share=NORMAL / ROWS)
    assert blind.score(without(trend()))["alarm"][NEW].any()  # which does not know better
    # Under the same conditions as ever, a machine is judged to the end.
    calm = fitted.score(trend(fault=False, new=False))
    assert set(calm["state"][SMALL["window"] :]) == {"normal"}


def test_who_wants_it_so_has_an_alarm_of_a_new_regime(fitted: MachineMonitor) -> None:
    recording = trend(fault=False)
    stream = fitted.stream()
    assert stream.new_regime == "report"
    strict = type(stream)(fitted, new_regime="alarm")
    judged = [strict.push_row(recording, row) for row in range(len(recording))]
    alarmed = [row for row, one in enumerate(judged) if one["alarm"]]
    assert NEW.start < alarmed[0] < NEW.stop
    assert judged[alarmed[0]]["state"] == "alarm"
    assert judged[alarmed[0]]["reason"].startswith("new regime")
    assert not judged[-1]["alarm"]  # and it clears when the machine is run as ever again


def test_a_condition_that_is_not_known_cannot_be_judged(fitted: MachineMonitor) -> None:
    recording = trend(fault=False, new=False)
    assert recording.conditions is not None
    conditions = recording.conditions.copy()
    conditions[200:210] = np.nan
    table = fitted.score(replace(recording, conditions=conditions))
    assert set(table["state"][200:210]) == {"cannot judge"}
    assert set(table["reason"][200:210]) == {"speed not known"}
    with pytest.raises(DataError, match=r"fitted with speed operating conditions.*comes with none"):
        fitted.score(without(recording))
    with pytest.raises(DataError, match="must be known of 6 normal snapshots or more, and is of 0"):
        MachineMonitor(**SMALL).fit(replace(recording, conditions=conditions * np.nan))


def test_one_by_one_saved_and_cut_anywhere_the_scores_are_the_same(fitted: MachineMonitor, tmp_path: Path) -> None:
    recording = trend()
    whole = fitted.score(recording)
    again = MachineMonitor.load(fitted.save(tmp_path / "m"))
    pd.testing.assert_frame_equal(again.score(recording), whole)
    stream = again.stream()
    found = []
    for row in range(300):
        if row in (100, 265):  # a process that begins anew, once in the new regime
            stream = again.stream().recall(json.loads(json.dumps(stream.memory())))
        found.append(stream.push_row(recording, row))
    assert [one["state"] for one in found] == whole["state"][:300].tolist()
    np.testing.assert_array_equal([one["score"] for one in found], whole["score"][:300])
    # Nothing that comes later changes what was said.
    pd.testing.assert_frame_equal(fitted.score(recording.rows(slice(0, 300))), whole[:300])


def test_the_encoder_learns_from_what_conditions_leave(fitted: MachineMonitor) -> None:
    recording = trend(fault=False, new=False)
    seen, _, _ = look_under_conditions(recording, rows=NORMAL, window=8)
    raw, _, _ = look_under_conditions(without(recording), rows=NORMAL, window=8)
    assert (Scaling.of(seen.pictures, seen.indicators).indicator_scale[:3]
            < Scaling.of(raw.pictures, raw.indicators).indicator_scale[:3] / 2).all()  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "parquet", "npz", "lists"])
def test_conditions_are_read_and_are_no_indicators(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    when = pd.date_range("2024-03-01", periods=30, freq="h")
    speed = rng.uniform(900, 1500, 30)
    path = tmp_path / f"m.{'parquet' if kind == 'lists' else kind}"
    if kind in ("csv", "parquet"):
        table = pd.DataFrame({"time": when, "speed": speed, "rms": rng.normal(size=30), "temp": 40.0})
        table = table.sample(frac=1, random_state=0)  # rows are put in order, and their conditions with them
        table.to_csv(path, index=False) if kind == "csv" else table.to_parquet(path, index=False)
    elif kind == "npz":
        np.savez(path, acc=rng.normal(size=(30, 1024, 2)), fs=10_000.0, timestamps=when.astype(str).to_numpy(str),
                 speed=speed)  # fmt: skip
    else:
        pd.DataFrame(
            {"time": when, "speed": speed, "x": [rng.normal(size=1024) for _ in range(30)], "fs": 10_000.0}
        ).to_parquet(path)
    (found,) = read(path, operating=["speed"])
    assert found.condition_names == ("speed",)
    assert "speed" not in found.names
    assert found.conditions is not None
    np.testing.assert_allclose(found.conditions[:, 0], speed)
    np.testing.assert_allclose(found.rows(slice(3, 9)).conditions[:, 0], speed[3:9])  # type: ignore[index]
    with pytest.raises(DataError, match=r"no torque for --operating \(has .*speed"):
        read(path, operating=["torque"])


def test_an_array_that_has_no_value_for_each_snapshot_is_no_condition(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", acc=np.ones((5, 1024, 1)), fs=1e4, t_s=np.arange(5.0), speed=np.ones(4))
    with pytest.raises(
        DataError, match=r"speed has shape \(4,\), and an operating condition is one number for each of"
    ):
        read(tmp_path / "m.npz", operating=["speed"])


def written(recording: Recording, path: Path, rows: slice) -> None:
    part = recording.rows(rows)
    assert part.conditions is not None
    when = np.datetime64("2024-03-01T00:00:00", "ns") + (part.hours * 3600e9).astype("timedelta64[ns]")
    table = pd.DataFrame(part.values, columns=list(part.names)).assign(time=when, speed=part.conditions[:, 0])
    table.to_csv(path, index=False)


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_the_commands_know_conditions_and_the_job_tells_of_a_new_regime_once(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = trend()
    written(recording, in_tmp / "pump7.csv", slice(None))
    for command in (
        ["fit", "pump7.csv", "--operating", "speed", "--normal-until", "26", "--steps", "10", "--out", "m"],
        ["score", "pump7.csv", "--model", "m", "--out", "s"],
        ["explain", "pump7.csv", "--model", "m", "--out", "e"],
    ):
        with pytest.raises(SystemExit) as ended:
            main(["sensors", *command])
        assert ended.value.code == 0, capsys.readouterr().err
    scores = pd.read_csv(in_tmp / "s" / "scores.csv")
    assert (scores["state"] == "new regime").sum() == 30
    assert "new regime" in (in_tmp / "s" / "report.html").read_text(encoding="utf-8")

    (in_tmp / "incoming").mkdir()
    (in_tmp / "job.toml").write_text(
        'models = "m"\n[[folders]]\npath = "incoming"\nasset = "pump7"\noperating = ["speed"]\nsettled_seconds = 0\n'
    )
    for start in range(0, 320, 20):
        written(recording, in_tmp / "incoming" / f"{start:04d}.csv", slice(start, start + 20))
    job.monitor(in_tmp / "job.toml", once=True)
    told = events(in_tmp / "job.toml")
    assert [event["kind"] for event in told] == ["new regime"]
    assert str(told[0]["reason"]).startswith("new regime: speed 19")
    for choice, why in (("learn", "new_regime is report or alarm, got 'learn'"),):
        text = (in_tmp / "job.toml").read_text()
        (in_tmp / "other.toml").write_text(f'new_regime = "{choice}"\n{text}')
        with pytest.raises(DataError, match=why):
            job.monitor(in_tmp / "other.toml", once=True)
    # The operator's other choice, from the beginning.
    text = (in_tmp / "job.toml").read_text()
    (in_tmp / "strict").mkdir()
    (in_tmp / "strict" / "job.toml").write_text(
        f'new_regime = "alarm"\n{text}'.replace('"m"', '"../m"').replace('"incoming"', '"../incoming"')
    )
    job.monitor(in_tmp / "strict" / "job.toml", once=True)
    kinds = [event["kind"] for event in events(in_tmp / "strict" / "job.toml")]
    assert kinds == ["new regime", "alarm", "cleared"]
    # Under the settings in force a dry run finds what the job did, row by row.
    dry = dry_run(in_tmp / "strict" / "job.toml", out=in_tmp / "dry", days=60)
    assert dry.details["alarms"] == {AS_IT_WAS: 1, ANEW: 1}
    (row,) = dry.details["machines"]
    assert row[f"hours in alarm {AS_IT_WAS}"] == row[f"hours in alarm {ANEW}"] > 0


def test_a_message_may_say_how_the_machine_is_run(fitted: MachineMonitor) -> None:
    said: dict[str, Any] = {"asset": "pump7", "time": "2024-03-01T00:00:00Z", "indicators": dict.fromkeys(NAMES, 1.0)}
    one = recording_of(json.dumps({**said, "operating": {"load": 3, "speed": 1200}}).encode())
    assert one.condition_names == ("load", "speed")
    ordered = in_order(one, fitted)
    assert ordered.condition_names == ("speed",)
    assert ordered.conditions is not None
    assert ordered.conditions.tolist() == [[1200.0]]
    silent = in_order(recording_of(json.dumps(said).encode()), fitted)
    assert np.isnan(silent.conditions).all()  # type: ignore[arg-type]
    with pytest.raises(DataError, match="'operating' is no object"):
        recording_of(json.dumps({**said, "operating": [1]}).encode())


@pytest.mark.integration
def test_a_learnt_regime_is_known(fitted: MachineMonitor) -> None:
    """The operator's choice to learn it: the normal period is made to hold it."""
    recording = trend(fault=False)
    learnt = MachineMonitor(**SMALL).fit(recording, normal_share=0.95)
    table = learnt.score(recording)
    assert not (table["state"] == "new regime").any()
    assert not table["alarm"].any()
    assert isinstance(simulate.bearing("a", seed=0, plan=simulate.Plan(days=3)).conditions, type(None))
