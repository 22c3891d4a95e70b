"""``sensors explain``: one moment, in words, numbers and a page, with what is known of the bearing by then."""

import json
from pathlib import Path

import pandas as pd
import pytest

from unlabeled.core.errors import DataError
from unlabeled.pipelines import _sensors_explain as job
from unlabeled.pipelines.cli import main
from unlabeled.pipelines.jobs import Outcome
from unlabeled.sensors import MachineMonitor, Recording, read, simulate
from unlabeled.sensors.bearings import CATALOGUE
from unlabeled.sensors.severity import velocity_rms

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]


@pytest.fixture
def plant_files(plant: list[Recording], fresh: MachineMonitor, in_tmp: Path) -> Path:
    """Two machines and a model of each, fitted without a word of their bearings."""
    import copy

    for machine in plant[2:]:
        simulate.write(machine, in_tmp / "plant")
        copy.deepcopy(fresh).fit(machine, normal_share=0.5).save(in_tmp / "models" / machine.asset)
    return in_tmp / "plant"


def explained(source: Path, **moment: object) -> Outcome:
    return job.explain([source], model=Path("models"), out=Path("why"), moment=job.Moment(**moment))  # type: ignore[arg-type]


def test_the_end_of_a_failing_machine_is_explained_and_a_quiet_moment_too(plant_files: Path) -> None:
    failing = plant_files / "failing-1.npz"
    late = explained(failing, bearing=CATALOGUE["6205"], shaft_hz=simulate.Plan().rpm / 60)
    assert "failing-1 at 573.000 h: in alarm, smoothed score" in late.headline
    assert any("outer race (BPFO" in line for line in late.lines)
    assert sum("level danger" in line for line in late.lines) == 1
    early = explained(failing, at="300")
    assert not any("level danger" in line for line in early.lines)
    assert "failing-1 at 300.000 h: no alarm" in early.headline
    assert not any("BPFO" in line for line in early.lines)
    page = Path("why/report.html").read_text(encoding="utf-8")
    assert "the median of up to 9 snapshots until 300.000 h" in page
    changes = pd.read_csv("why/changes-failing-1.csv")
    assert changes["share"].is_monotonic_decreasing
    assert set(changes.columns) == {"indicator", "now", "normal", "z", "share"}


def test_a_moment_is_told_from_its_past_alone(plant_files: Path, plant: list[Recording]) -> None:
    failing = plant[3]
    whole = explained(plant_files / "failing-1.npz", at=str(failing.hours[150]), last=5)
    simulate.write(failing.rows(slice(0, 151)), plant_files / "cut")
    cut = explained(plant_files / "cut" / "failing-1.npz", last=5)
    assert whole.lines == cut.lines
    assert whole.details == cut.details


def test_a_bearing_needs_a_speed_and_a_moment_a_snapshot(plant_files: Path) -> None:
    with pytest.raises(DataError, match="give --shaft-hz too"):
        explained(plant_files / "failing-1.npz", bearing=CATALOGUE["6205"])
    with pytest.raises(DataError, match=r"failing-1 begins after -3"):
        explained(plant_files / "failing-1.npz", at="-3")


def test_the_command_explains_all_machines_of_a_folder(plant_files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["sensors", "explain", str(plant_files), "--model", "models", "--bearing", "6205", "--shaft-hz", "29.83",
              "--out", "why", "--json"])  # fmt: skip
    assert ended.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert set(said["machines"]) == {"healthy-3", "failing-1"}
    ill, well = said["machines"]["failing-1"], said["machines"]["healthy-3"]
    assert any(words.startswith("On the horizontal axis the outer race") for words in ill["words"])
    assert ill["bearing"]["horizontal"][0]["name"] == "BPFO"
    assert ill["bearing"]["horizontal"][0]["p_value"] < 1e-6
    assert "Nothing shows in the envelope at the rates of the bearing." in well["words"]
    with pytest.raises(SystemExit) as ended:
        main(["sensors", "explain", str(plant_files), "--model", "models", "--bearing", "999"])
    assert ended.value.code == 1
    assert "no bearing '999': known are" in capsys.readouterr().err


def test_a_severity_is_said_where_class_and_unit_are_given_and_its_unit_is_asked_for(in_tmp: Path) -> None:
    plan = simulate.Plan(days=12, every_h=6, seconds=0.5, fault_days=3)
    machine = simulate.bearing("pump", seed=1, plan=plan)
    simulate.write(machine, in_tmp / "plant")
    MachineMonitor(steps=6, dim=16, depth=1, heads=2).fit(machine, normal_share=0.75).save(in_tmp / "models" / "pump")
    source = in_tmp / "plant" / "pump.npz"
    found = explained(source, machine_class="2-rigid", unit="m/s2", last=1)
    (x, y) = found.details["machines"]["pump"]["severity"]
    last = read(source)[0].values[-1]
    assert [x["velocity"], y["velocity"]] == pytest.approx(velocity_rms(last, fs=plan.fs, unit="m/s2").tolist())
    assert f"zone {x['zone']} of ISO 20816-3 for class 2-rigid" in Path("why/report.html").read_text(encoding="utf-8")
    # In g the same numbers are 9.81 times as fast.
    in_g = explained(source, machine_class="2-rigid", unit="g", last=1).details["machines"]["pump"]["severity"]
    assert in_g[0]["velocity"] == pytest.approx(9.80665 * x["velocity"])
    with pytest.raises(DataError, match="say --unit g, m/s2 or mm/s"):
        explained(source, machine_class="2-rigid")
