"""Whether a job's false alarms kept to the budget, and what it tells of a drift that is nearly used up."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from monitoring import START, events

from unlabeled.pipelines import _sensors_cases as told_of
from unlabeled.pipelines import _sensors_monitor as job
from unlabeled.sensors import MachineMonitor
from unlabeled.sensors.alarms import HOURS_PER_MONTH
from unlabeled.sensors.logbook import Logbook
from unlabeled.sensors.recording import make

NORMAL = 200


def trend(moved: np.ndarray, *, seed: int = 0) -> pd.DataFrame:
    z = np.random.default_rng(seed).normal(size=(len(moved), 2)) + moved[:, None]
    time = pd.date_range("2024-03-01", periods=len(moved), freq="h")
    return pd.DataFrame({"time": time, "rms": 1 + 0.05 * z[:, 0], "peak": 3 + 0.1 * z[:, 1]})


def monitor(*, at: float = 0.0, **settings: object) -> MachineMonitor:
    values = trend(np.full(NORMAL, at), seed=1)[["rms", "peak"]].to_numpy()
    recording = make("pump7", values, np.arange(NORMAL, dtype=float), names=("rms", "peak"))
    return MachineMonitor(steps=5, dim=32, depth=1, **settings).fit(recording, normal_share=1.0)  # type: ignore[arg-type]


@pytest.fixture
def of_trend(tmp_path: Path) -> Path:
    (tmp_path / "incoming").mkdir()
    path = tmp_path / "job.toml"
    path.write_text(
        'models = "models"\nevery_seconds = 0.05\n\n'
        '[[folders]]\npath = "incoming"\nasset = "pump7"\nsettled_seconds = 0\n'
    )
    return path


def test_a_drift_that_is_nearly_used_up_is_told_once_a_model(of_trend: Path, tmp_path: Path) -> None:
    monitor(drift=1.0, drift_over=10).save(tmp_path / "models/pump7")
    table = trend(np.r_[np.zeros(50), np.linspace(0, 1.4, 200), np.full(110, 1.4)])
    table.head(50).to_csv(tmp_path / "incoming/a.csv", index=False)
    job.monitor(of_trend, once=True)
    assert not [event for event in events(of_trend) if event["kind"] == "drift"]
    for name, part in (("b", table.iloc[50:280]), ("c", table.iloc[280:290])):
        part.to_csv(tmp_path / f"incoming/{name}.csv", index=False)
        job.monitor(of_trend, once=True)
    (told,) = [event for event in events(of_trend) if event["kind"] == "drift"]
    assert isinstance(told["used"], float)
    assert told["used"] >= 0.9
    # Fitted anew where the machine is now: that model's drift is another one.
    monitor(at=1.4, drift=1e-3, drift_over=1).save(tmp_path / "models/pump7")
    table.iloc[290:].to_csv(tmp_path / "incoming/d.csv", index=False)
    job.monitor(of_trend, once=True)
    assert len([event for event in events(of_trend) if event["kind"] == "drift"]) == 2


def kept(job_file: Path, *, months: float, cleared: int) -> None:
    """A logbook of so many months with so many alarms that cleared again."""
    ends = START + np.timedelta64(round(months * HOURS_PER_MONTH * 3600), "s")
    nothing = {"state": "normal", "alarm": False, "score": 0.0, "smoothed": 0.0, "reason": ""}
    with Logbook(job_file.parent / "monitor.sqlite") as book:
        for at in np.append(np.arange(START, ends, np.timedelta64(12, "h")), ends):
            book.reading("pump7", at, nothing, file="f")
        book.remember("pump7", "m", ends, threshold=4.0, memory={})
        for n in range(cleared):
            case = book.open_case("pump7", START + np.timedelta64(n, "D"), 5.0, {})
            book.clear(case, START + np.timedelta64(n * 24 + 1, "h"))


@pytest.mark.parametrize(
    ("cleared", "words"), [(3, "within what chance makes"), (7, "more than the budget makes likely")]
)
def test_false_alarms_stand_beside_the_budget(of_trend: Path, tmp_path: Path, cleared: int, words: str) -> None:
    monitor().set_params(false_alarms=1.0).save(tmp_path / "models/pump7")
    kept(of_trend, months=2.0, cleared=cleared)
    told = told_of.cases(of_trend)
    budget = told.details["budget"]
    assert (budget["cleared"], budget["allowed"]) == (cleared, pytest.approx(2.0, abs=1e-3))
    by_hand = 1 - sum(math.exp(-2) * 2**k / math.factorial(k) for k in range(cleared))
    assert budget["chance"] == pytest.approx(by_hand, rel=2e-3)
    assert words in told.lines[0]
    assert "alarm settings" not in told.lines[1]
    of_trend.write_text(of_trend.read_text() + "\n[alarms]\nneeded = 3\n")
    assert "alarm settings are others" in told_of.cases(of_trend).lines[1]


def test_without_a_budget_none_is_spoken_of(of_trend: Path, tmp_path: Path) -> None:
    monitor().save(tmp_path / "models/pump7")
    kept(of_trend, months=2.0, cleared=1)
    told = told_of.cases(of_trend)
    assert told.details["budget"] is None
    assert len(told.lines) == 1
    assert json.loads(json.dumps(told.details))["cleared"] == 1


def test_hours_are_those_in_which_readings_were_judged(tmp_path: Path) -> None:
    """Neither a clock that was set back to 1970 nor a pause of months makes a machine monitored."""

    def judged(state: str) -> dict[str, object]:
        return {"state": state, "alarm": False, "score": 0.0, "smoothed": 0.0, "reason": ""}

    path = tmp_path / "monitor.sqlite"
    with Logbook(path) as book:
        for hour, state in ((0, "normal"), (2, "normal"), (3, "cannot judge"), (5, "alarm"), (8000, "normal")):
            book.reading("pump7", START + np.timedelta64(hour, "h"), judged(state), file="f")
        book.reading("pump7", np.datetime64("1970-01-01", "ns"), judged("late"), file="f")
        assert book.monitored_h() == {"pump7": 2 + 3 + 24}
        # A logbook of before this was counted has it counted once.
        book._db.execute("DROP TABLE monitored")
    with Logbook(path) as book:
        assert book.monitored_h() == {"pump7": 29}
    with Logbook(path) as book:
        assert book.monitored_h() == {"pump7": 29}
