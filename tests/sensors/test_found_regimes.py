"""Ways of running that nobody measured are found in the normal period, and nothing else is made normal by it."""

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
from unlabeled.pipelines.cli import main
from unlabeled.sensors import MachineMonitor, Recording, read, simulate
from unlabeled.sensors.found_regimes import FoundRegimes, ashman, came_back, described, find
from unlabeled.sensors.logbook import Logbook
from unlabeled.sensors.recording import make
from unlabeled.sensors.views import look_under_conditions, waveform

NAMES = ("rms", "band", "kurtosis", "temperature")
SMALL: dict[str, Any] = {"steps": 10, "dim": 16, "depth": 1, "heads": 2, "window": 8}
NORMAL, FAULT, ROWS = 180, 300, 420


def in_turns(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Loaded (1) or idle (0), for 4 to 20 readings each."""
    lengths = rng.integers(4, 21, rows)
    return np.repeat(np.arange(rows) % 2, lengths)[:rows]


def machine(seed: int = 0, *, fault: float = 0.0, alike: float = 0.0) -> tuple[Recording, np.ndarray]:
    """Indicators of a machine that idles or is loaded, and which; from row 300 on a fault adds up to ``fault`` times
    the idle level to rms, which the load moves too, or makes idle look ``alike`` loaded, fully from row
    360 on."""
    rng = np.random.default_rng(seed)
    loaded = in_turns(rng, ROWS)
    worse = np.clip((np.arange(ROWS) - FAULT) / (ROWS - FAULT), 0, None)
    load = np.maximum(loaded, alike * np.minimum(2 * worse, 1))
    values = np.stack([1 + 1.5 * load, 0.3 + 0.9 * load, 3 + 0.2 * load, 40 + 4 * load], axis=1)
    values[:, 0] += fault * worse
    values *= 1 + 0.03 * rng.normal(size=values.shape)
    return make("pump7", values, np.arange(ROWS) / 6, names=NAMES), loaded


def measured(recording: Recording, loaded: np.ndarray) -> Recording:
    return replace(recording, conditions=loaded[:, None].astype(float), condition_names=("load",))


@pytest.fixture(scope="module")
def fitted() -> MachineMonitor:
    return MachineMonitor(**SMALL, find_regimes=True).fit(machine()[0], normal_share=NORMAL / ROWS)


def groups(*sizes: int, apart: float = 20.0, seed: int = 0) -> np.ndarray:
    """So many snapshots of each regime, in random order of time, with spread 1."""
    rng = np.random.default_rng(seed)
    number = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return rng.normal(size=(len(number), 3)) + apart * number[:, None] * np.array([1.0, 0.5, 0.0])


def count(features: np.ndarray) -> int:
    found = find(features)
    return 1 if found is None else len(found.centres)


@pytest.mark.parametrize(("sizes", "regimes"), [((60, 60), 2), ((50, 90), 2), ((50, 40, 40), 3), ((40,) * 4, 4)])
def test_as_many_are_found_as_there_are(sizes: tuple[int, ...], regimes: int) -> None:
    assert count(groups(*sizes)) == regimes


def test_one_found_is_numbered_by_its_coming_and_every_snapshot_is_in_the_right_one() -> None:
    features = groups(60, 60)
    found = find(features)
    assert found is not None
    fast = features[:, 0] > 10
    same = fast == fast[0]
    assert found.known[:, 0].tolist() == np.where(same, 1, 2).tolist()
    assert [found.regime(one) for one in features] == np.where(same, 1, 2).tolist()
    # However far away, a snapshot is of the nearest one.
    assert found.regime(features[fast][0] + 1000) == found.regime(features[fast][0])
    first, second = found.members(1), found.members(2)
    assert sorted([*first, *second]) == list(range(120))
    assert list(found.members(1, without=int(first[3]))) == [*first[:3], *first[4:]]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["noise", "wandering", "cycle", "bursts", "drift", "close", "few"])
def test_what_is_no_regime_is_not_made_one(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    noise, time = rng.normal(size=(120, 4)), np.arange(120)[:, None]
    told = {
        "noise": noise,
        "wandering": np.cumsum(noise, axis=0),
        "cycle": 5 * np.sin(time / 7) * [1, 1, 0, 0] + 0.1 * noise,
        "bursts": np.exp(noise),
        "drift": time / 4 * np.array([1, 1, 0, 0]) + noise,
        "close": groups(60, 60, apart=3.0, seed=seed),
        "few": groups(110, 10, seed=seed),
    }
    assert count(told[kind]) == 1


def test_running_in_a_step_and_one_episode_are_not_made_normal() -> None:
    noise = np.random.default_rng(0).normal(size=(120, 3))
    once = {
        "running-in": np.arange(120) < 40,
        "a step": np.arange(120) >= 60,
        "an episode": (np.arange(120) >= 45) & (np.arange(120) < 75),
    }
    for name, there in once.items():
        assert count(noise + 20 * there[:, None]) == 1, name
    again = np.arange(120) // 15 % 2 == 1
    assert count(noise + 20 * again[:, None]) == 2
    # Twice in the second half alone is a change all the same.
    assert not came_back((np.arange(100) // 10 % 2 == 1) & (np.arange(100) >= 50))
    assert came_back(np.arange(100) // 10 % 2 == 1)
    # 8 of 10 in one stretch is the most.
    assert came_back(np.array([1] * 4 + [0] * 8 + [1] * 4 + [0] * 4, dtype=bool))
    assert not came_back(np.array([1, 0, 0, 0, 0, 0] + [1] * 9 + [0] * 3, dtype=bool))


def test_how_far_apart_two_groups_are_by_hand() -> None:
    """Of an even stretch cut in two the medians lie half its length apart, and four fifths of a half are 0.4 long."""
    low, high = np.linspace(0, 0.5, 1001)[:, None], np.linspace(0.5, 1, 1001)[:, None]
    assert ashman(low, high) == pytest.approx(0.5 / (0.4 / 2.5631), rel=1e-3)
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(20_000, 2)), rng.normal(size=(20_000, 2)) + np.array([3.0, 4.0])
    assert ashman(one, other) == pytest.approx(5, rel=0.03)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.01, 100), st.floats(-1000, 1000), st.integers(0, 2**16))
def test_units_and_zeros_of_indicators_do_not_matter(factor: float, offset: float, seed: int) -> None:
    features = groups(50, 50, seed=seed)
    one, other = find(features), find(features * factor + offset)
    assert one is not None
    assert other is not None
    np.testing.assert_array_equal(one.known, other.known)


def test_a_waveform_is_described_by_bands_and_level_in_decibels() -> None:
    pictures = np.arange(2 * 1 * 64.0).reshape(2, 1, 64)
    told = described(pictures, np.empty((2, 3)), np.array([1.0, 10.0]))
    np.testing.assert_allclose(told[0], [*np.arange(3.5, 64, 8), 0])
    assert told[1, -1] == pytest.approx(20)
    np.testing.assert_array_equal(described(None, np.eye(2), None), np.eye(2))


def test_what_a_regime_looks_like_is_taken_out(fitted: MachineMonitor) -> None:
    recording, loaded = machine()
    seen, normal, cut = look_under_conditions(recording, rows=NORMAL, window=8, share=2 / 3, find=True)
    assert normal is not None
    assert isinstance(normal.regimes, FoundRegimes)
    assert len(normal.regimes.centres) == 2
    assert len(normal.regimes.known) == cut  # of what comes later nothing was looked at
    changed = replace(recording, values=np.r_[recording.values[:130], recording.values[130:] * 50])
    again = look_under_conditions(changed, rows=NORMAL, window=8, share=2 / 3, find=True)[1]
    assert again is not None
    assert isinstance(again.regimes, FoundRegimes)
    np.testing.assert_array_equal(again.regimes.centres, normal.regimes.centres)
    own = loaded[seen.rows]
    means = [seen.indicators[own == one].mean(axis=0) for one in (0, 1)]
    np.testing.assert_allclose(means[0], means[1], rtol=0.02)
    np.testing.assert_allclose(means[0], recording.values[seen.rows[:cut]].mean(axis=0), rtol=0.02)
    table = fitted.score(recording)
    assert table["regime"][:7].isna().all()  # which were not judged
    number = table["regime"][7:].to_numpy(dtype=int)
    assert (pd.crosstab(number, loaded[7:]) > 0).to_numpy().sum() == 2


def test_one_regime_found_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    values = np.array([1.0, 0.3, 3.0, 40.0]) * (1 + 0.03 * rng.normal(size=(ROWS, 4)))
    recording = make("pump7", values, np.arange(ROWS) / 6, names=NAMES)
    asked, plain = (
        MachineMonitor(**SMALL, find_regimes=find).fit(recording, normal_share=0.4) for find in (True, False)
    )
    assert asked.conditional_ is None
    pd.testing.assert_frame_equal(asked.score(recording), plain.score(recording), check_exact=True)
    bearing = simulate.bearing("a", seed=1, plan=simulate.Plan(days=20, fault_days=None))
    seen, normal, _ = look_under_conditions(bearing, rows=len(bearing), window=1, find=True)
    assert normal is None  # its load wanders and follows day and week
    assert len(seen.rows) == len(bearing)


def first_alarm(monitor: MachineMonitor, recording: Recording) -> int:
    """Row of the alarm that follows the fault's beginning; the end, where there is none."""
    alarm = monitor.fit(recording, normal_share=NORMAL / ROWS).score(recording)["alarm"].to_numpy(dtype=bool)
    assert not alarm[NORMAL:FAULT].any()
    return FAULT + int(np.argmax(alarm[FAULT:])) if alarm[FAULT:].any() else ROWS


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_growing_fault_is_found_about_as_early_as_by_who_knows_the_load(seed: int) -> None:
    """Two hours later at most (12 of the 120 readings over which it grows), and earlier than without regimes."""
    recording, loaded = machine(seed, fault=0.5)
    knows = first_alarm(MachineMonitor(**SMALL, random_state=seed), measured(recording, loaded))
    finds = first_alarm(MachineMonitor(**SMALL, random_state=seed, find_regimes=True), recording)
    blind = first_alarm(MachineMonitor(**SMALL, random_state=seed), recording)
    assert knows < ROWS
    assert finds <= knows + 12
    assert blind > finds + 12


def test_a_fault_that_looks_like_the_other_regime_is_hidden_and_one_beyond_it_is_not() -> None:
    recording, loaded = machine(alike=1.0)
    monitor = MachineMonitor(**SMALL, find_regimes=True).fit(recording, normal_share=NORMAL / ROWS)
    table = monitor.score(recording)
    assert table["alarm"][FAULT:360].any()  # while it was between the two
    assert not table["alarm"][-10:].any()  # and then idle is loaded, with nothing left to see
    assert set(table["regime"][360:]) == {table["regime"][8 + int(np.argmax(loaded[8:]))]}
    # Far from both, nothing is excused as a new regime.
    strange = replace(recording, values=np.r_[recording.values[:FAULT], 2 * recording.values[FAULT:]])
    far = monitor.score(strange)
    assert "new regime" not in set(far["state"])
    assert far["alarm"][FAULT + 15 :].all()


def test_one_by_one_saved_and_cut_anywhere_the_scores_are_the_same(fitted: MachineMonitor, tmp_path: Path) -> None:
    recording, _ = machine(fault=0.5)
    whole = fitted.score(recording)
    again = MachineMonitor.load(fitted.save(tmp_path / "m"))
    assert again.find_regimes
    pd.testing.assert_frame_equal(again.score(recording), whole, check_exact=True)
    stream = again.stream()
    found = []
    for row in range(200):
        if row in (5, 100):
            stream = again.stream().recall(json.loads(json.dumps(stream.memory())))
        found.append(stream.push_row(recording, row))
    np.testing.assert_array_equal([one["score"] for one in found], whole["score"][:200])
    assert [one["regime"] for one in found[7:]] == whole["regime"][7:200].tolist()
    pd.testing.assert_frame_equal(fitted.score(recording.rows(slice(0, 200))), whole[:200], check_exact=True)


def test_a_model_of_before_there_were_found_regimes_loads(tmp_path: Path) -> None:
    recording, _ = machine()
    plain = MachineMonitor(**SMALL).fit(recording, normal_share=NORMAL / ROWS)
    folder = plain.save(tmp_path / "m")
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    del manifest["params"]["find_regimes"]
    path.write_text(json.dumps(manifest), encoding="utf-8")
    old = MachineMonitor.load(folder)
    assert not old.find_regimes
    pd.testing.assert_frame_equal(old.score(recording), plain.score(recording), check_exact=True)


def test_waveforms_of_an_idle_and_a_loaded_machine_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    loaded = in_turns(rng, 120)
    signals = rng.normal(size=(120, 2048, 2)) * np.where(loaded, 3.0, 1.0)[:, None, None]
    signals[loaded == 1] += 4 * np.sin(np.arange(2048) / 2)[:, None]
    recording = make("m", signals, np.arange(120), names=("x", "y"), fs=10_000.0)
    seen, normal, _ = look_under_conditions(recording, rows=120, window=1, find=True)
    assert normal is not None
    assert isinstance(normal.regimes, FoundRegimes)
    np.testing.assert_array_equal(normal.regimes.known[:, 0], np.where(loaded == loaded[0], 1, 2))
    assert seen.overall is not None
    assert seen.overall[loaded == 1].mean() / seen.overall[loaded == 0].mean() == pytest.approx(1, abs=0.02)
    raw = waveform(recording.values[0])
    assert normal.snapshot(raw, None).regime == 1


def test_where_conditions_are_measured_nothing_is_looked_for(fitted: MachineMonitor) -> None:
    recording, loaded = machine()
    with pytest.raises(DataError, match="pump7 comes with load, which say how it is run"):
        MachineMonitor(**SMALL, find_regimes=True).fit(measured(recording, loaded))
    with pytest.raises(DataError, match="leave out --find-regimes or --operating"):
        MachineMonitor(**SMALL, find_regimes=True).pretrain([measured(recording, loaded)])
    with pytest.raises(DataError, match="fitted with no operating conditions, pump7 comes with load"):
        fitted.score(measured(recording, loaded))


def written(recording: Recording, path: Path, rows: slice = slice(None), **more: np.ndarray) -> None:
    part = recording.rows(rows)
    when = np.datetime64("2024-03-01T00:00:00", "ns") + (part.hours * 3600e9).astype("timedelta64[ns]")
    pd.DataFrame(part.values, columns=list(part.names)).assign(time=when, **more).to_csv(path, index=False)


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_the_commands_and_the_monitoring_job_know_found_regimes(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording, loaded = machine(fault=0.5)
    written(recording, in_tmp / "pump7.csv", load=loaded)
    usual = ["--normal-until", "30", "--steps", "10"]
    with pytest.raises(SystemExit) as ended:
        main(["sensors", "fit", "pump7.csv", "--find-regimes", "--operating", "load", *usual])
    assert ended.value.code == 1
    assert "which say how it is run" in capsys.readouterr().err
    written(recording, in_tmp / "pump7.csv")
    for command in (
        ["fit", "pump7.csv", "--find-regimes", *usual, "--out", "m"],
        ["score", "pump7.csv", "--model", "m", "--out", "s"],
        ["explain", "pump7.csv", "--model", "m", "--out", "e"],
        ["backtest", "pump7.csv", "--find-regimes", *usual, "--out", "b"],
        ["fit", "pump7.csv", "--encoder", "m/encoder", "--normal-until", "30", "--out", "plain"],
    ):
        with pytest.raises(SystemExit) as ended:
            main(["sensors", *command])
        assert ended.value.code == 0, capsys.readouterr().err
    for folder in ("s", "b"):
        scores = pd.read_csv(in_tmp / folder / "scores.csv")
        assert set(scores["regime"].dropna()) == {1, 2}
        assert "2 regimes were found" in (in_tmp / folder / "report.html").read_text(encoding="utf-8")
    # Who takes a taught encoder and asks for no regimes gets none.
    assert MachineMonitor.load(in_tmp / "plain" / "pump7").conditional_ is None

    (in_tmp / "incoming").mkdir()
    (in_tmp / "job.toml").write_text(
        'models = "m"\n[[folders]]\npath = "incoming"\nasset = "pump7"\nsettled_seconds = 0\n'
    )
    for start in range(0, ROWS, 30):
        written(recording, in_tmp / "incoming" / f"{start:04d}.csv", slice(start, start + 30))
    job.monitor(in_tmp / "job.toml", once=True)
    assert [event["kind"] for event in events(in_tmp / "job.toml")] == ["alarm", "danger"]
    with Logbook(in_tmp / "monitor.sqlite") as book:
        kept = book.readings("pump7")
    whole = MachineMonitor.load(in_tmp / "m" / "pump7").score(read(in_tmp / "pump7.csv")[0])
    assert [one["state"] for one in kept] == whole["state"].tolist()
