"""The jobs on simulated files: what is skipped is listed, runs name where they came from, models are used again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from unlabeled.core.errors import DataError
from unlabeled.pipelines import sensors as jobs
from unlabeled.pipelines import sensors_replay
from unlabeled.sensors import MachineMonitor, read, simulate
from unlabeled.sensors.baselines import applied, indicator_table, three_sigma
from unlabeled.sensors.bearings import find

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

PLAN = simulate.Plan(days=16, every_h=3, fault_days=5)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One machine that stays well, one that fails, and one with four days on record."""
    folder = tmp_path_factory.mktemp("plant")
    machines = simulate.fleet(healthy=1, failing=1, seed=1, plan=PLAN)
    machines.append(simulate.bearing("young", seed=1, plan=simulate.Plan(days=4, fault_days=None)))
    return [simulate.write(machine, folder) for machine in machines]


def test_fit_then_score(files: list[Path], in_tmp: Path, complete: Callable[[Path, str], dict[str, Any]]) -> None:
    from mlflow import MlflowClient

    fitted = jobs.fit(files, out=in_tmp / "model", normal_share=0.5, template=MachineMonitor(steps=20))
    assert set(fitted.details["thresholds"]) == {"healthy-1", "failing-1"}
    ((name, why),) = fitted.details["skipped"]
    assert name == "young"
    assert "--normal-share" in why
    assert "1 left out" in fitted.headline

    client = MlflowClient(f"sqlite:///{in_tmp}/mlflow.db")
    runs = complete(in_tmp, "sensors")
    assert set(runs) == {"pretrain encoder", "fit failing-1", "fit healthy-1"}
    learnt = runs["pretrain encoder"].info.run_id
    assert runs["fit failing-1"].data.tags["unlabeled.pretraining_run"] == learnt
    assert len(client.get_metric_history(learnt, "loss")) == 2
    manifest = json.loads((in_tmp / "model" / "failing-1" / "manifest.json").read_text())
    assert manifest["pretraining_run"] == learnt

    scored = jobs.score(files, model=in_tmp / "model", out=in_tmp / "scores")
    assert scored.details["in_alarm"] == ["failing-1"]
    tracked = complete(in_tmp, "sensors")["score scores"]
    curve = {point.step: point.value for point in client.get_metric_history(tracked.info.run_id, "score.failing-1")}
    of_machine = pd.read_csv(scored.files["scores"]).query("asset == 'failing-1'")["score"].to_list()
    assert curve == {step: value for step, value in enumerate(of_machine) if value == value}
    alarms = pd.read_csv(scored.files["alarms"])
    assert list(alarms["asset"]) == ["failing-1"]
    assert alarms["until"].isna().all()
    listed = pd.read_csv(scored.files["cannot judge"])
    assert list(listed["asset"]) == ["young"]
    assert "holds no model for young" in listed["reason"].iloc[0]
    page = scored.files["report"].read_text()
    assert "1 of 2 machine(s) in alarm" in page
    assert "holds no model for young" in page
    assert "horizontal RMS 3-sigma" in page

    # New data alone, without the normal period: the plain rules come with the model.
    (failing,) = read(files[1])
    later = failing.rows(slice(len(failing) // 2, len(failing)))
    kept = MachineMonitor.load(in_tmp / "model" / "failing-1").plain_rules_
    whole = three_sigma(indicator_table(failing)[kept[0].name], name=kept[0].name, normal_rows=len(failing) // 2)
    np.testing.assert_allclose(applied(kept, later)[0].z, whole.z[len(failing) // 2 :])
    alone = jobs.score([simulate.write(later, in_tmp)], model=in_tmp / "model", out=in_tmp / "later")
    assert f"{kept[0].name} 3-sigma" in alone.files["report"].read_text()

    assert "by the model of" not in scored.headline
    other = jobs.score(files[:1], model=in_tmp / "model" / "failing-1", out=in_tmp / "other")
    assert "Judged by another machine's model: healthy-1 by the model of failing-1." in other.headline
    assert "Judged by the model of failing-1: departures" in other.files["report"].read_text()


def test_a_file_that_cannot_be_read_stops_no_other(files: list[Path], in_tmp: Path) -> None:
    (in_tmp / "garbage.npz").write_bytes(b"not a zip")
    given = [in_tmp / "garbage.npz", files[1]]
    done = [
        jobs.fit(given, out=in_tmp / "model", normal_share=0.5, template=MachineMonitor(steps=5)),
        jobs.score(given, model=in_tmp / "model", out=in_tmp / "scores"),
        sensors_replay.replay(given, out=in_tmp / "replay", normal_share=0.5, template=MachineMonitor(steps=5)),
    ]
    for outcome in done:
        ((name, why),) = outcome.details["skipped"]
        assert (name, "no npz archive" in why) == ("garbage.npz", True)
        assert "1 left out" in outcome.headline or "1 machine(s) or file(s) left out" in outcome.headline
        listed = pd.read_csv(outcome.files["cannot judge"])
        assert list(listed["asset"]) == ["garbage.npz"]
        page = outcome.files["report"].read_text()
        assert "garbage.npz" in page
        # One table, and no empty one beside it.
        assert "Of the others, every snapshot was judged." in page
        assert "first 25 of" not in page
    with pytest.raises(DataError, match="no npz archive"):
        jobs.score(given[:1], model=in_tmp / "model", out=in_tmp / "scores")


def test_replay_counts_alarms_of_machines_that_did_not_fail_as_false(files: list[Path], in_tmp: Path) -> None:
    outcome = sensors_replay.replay(
        files[:2], out=in_tmp / "out", healthy=["healthy-1"], normal_share=0.5, template=MachineMonitor(steps=20)
    )
    results = pd.read_csv(outcome.files["results"]).set_index(["asset", "method"])
    assert not results.loc["healthy-1"]["failed"].any()
    assert results.loc[("failing-1", "ours"), "lead_h"] > 24
    assert results.loc[("healthy-1", "ours"), "false_alarms"] == 0
    assert "1 of 1 failure(s) announced" in outcome.headline
    with pytest.raises(DataError, match="no machine nobody"):
        sensors_replay.replay(files[:2], out=in_tmp / "out", healthy=["nobody"])


def test_a_run_replayed_alone_has_its_pretraining_tracked_too(
    files: list[Path], in_tmp: Path, complete: Callable[[Path, str], dict[str, Any]]
) -> None:
    sensors_replay.replay(
        files[:1], out=in_tmp / "out", healthy=["healthy-1"], normal_share=0.5, template=MachineMonitor(steps=20)
    )
    runs = complete(in_tmp, "sensors")
    assert set(runs) == {"pretrain encoder-healthy-1", "backtest out"}
    # As if the monitor had been fitted on its own.
    recording = read(files[0])[0]
    alone = MachineMonitor(steps=20).fit(recording, normal_share=0.5)
    assert MachineMonitor.load(in_tmp / "out" / "healthy-1").threshold_ == pytest.approx(alone.threshold_, rel=1e-6)


def test_a_failed_job_leaves_what_was_there(files: list[Path], in_tmp: Path) -> None:
    jobs.fit(files[:1], out=in_tmp / "model", normal_share=0.5, template=MachineMonitor(steps=5))
    before = (in_tmp / "model" / "healthy-1" / "manifest.json").read_text()
    with pytest.raises(DataError, match="no recording has 20 snapshots"):
        jobs.fit(files[2:], out=in_tmp / "model", template=MachineMonitor(steps=5))
    assert (in_tmp / "model" / "healthy-1" / "manifest.json").read_text() == before
    with pytest.raises(DataError, match="neither a number of hours nor a date"):
        jobs.fit(files[:1], out=in_tmp / "model", normal_until="whenever")


def test_a_period_can_be_given_in_hours_or_as_a_date() -> None:
    recording = simulate.bearing("m", seed=0, plan=simulate.Plan(days=1))
    assert jobs.summary.hours_of("36.5", recording) == 36.5
    assert jobs.summary.hours_of(None, recording) is None
    with pytest.raises(DataError, match="has no dates"):
        jobs.summary.hours_of("2024-03-01", recording)
    import dataclasses

    clock = np.datetime64("2024-03-01") + np.arange(len(recording)) * np.timedelta64(3, "h")
    dated = dataclasses.replace(recording, clock=clock)
    assert jobs.summary.hours_of("2024-03-02 06:00", dated) == 30


def test_an_encoder_that_was_pretrained_before_is_taken_as_it_is(
    files: list[Path], in_tmp: Path, complete: Callable[[Path, str], dict[str, Any]]
) -> None:
    quick = MachineMonitor(steps=5)
    jobs.fit(files[:1], out=in_tmp / "first", normal_share=0.5, template=quick)
    runs = set(complete(in_tmp, "sensors"))
    learnt = json.loads((in_tmp / "first" / "encoder" / "manifest.json").read_text())["pretraining_run"]
    encoder = in_tmp / "first" / "encoder"
    jobs.fit(files[1:2], out=in_tmp / "second", normal_share=0.5, encoder=encoder)
    now = complete(in_tmp, "sensors")
    assert set(now) - runs == {"fit failing-1"}  # nothing was pretrained
    assert now["fit failing-1"].data.tags["unlabeled.pretraining_run"] == learnt
    one, other = (MachineMonitor.load(f).backbone_.state_dict() for f in (encoder, in_tmp / "second" / "failing-1"))
    assert all(bool((other[name] == value).all()) for name, value in one.items())
    with pytest.raises(jobs.DataError, match="leave out --pretrain-on"):
        jobs.fit(files[1:2], out=in_tmp / "x", encoder=encoder, pretrain_on=files[:1])
    told = MachineMonitor(shaft_hz=29.8, bearing=find("6205"))
    jobs.fit(files[1:2], out=in_tmp / "third", normal_share=0.5, encoder=encoder, template=told)
    kept = MachineMonitor.load(in_tmp / "third" / "failing-1")
    assert (kept.shaft_hz, kept.bearing, kept.tail_) == (29.8, told.bearing, None)
    with pytest.raises(DataError, match="holds fewer than 10 independent peaks"):
        jobs.fit(files[1:2], out=in_tmp / "x", encoder=encoder, template=MachineMonitor(false_alarms=2.0))
    with pytest.raises(DataError, match="has been taught already: leave out --steps, --task"):
        jobs.fit(files[1:2], out=in_tmp / "x", encoder=encoder, template=MachineMonitor(steps=9, task="next"))
