"""Known states are looked at while an encoder learns: which snapshots, how they are scaled, and that none teaches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from unlabeled.core.audit.collapse import linear_probe
from unlabeled.core.errors import CheckpointError, DataError
from unlabeled.pipelines.cli import main
from unlabeled.sensors import MachineMonitor, Recording, make, simulate
from unlabeled.sensors.states import asked_of, read_states, states
from unlabeled.sensors.views import Scaling, look

LEARNT = "watch.linear_probe"


def lines(*rows: tuple[str, str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["asset", "from", "until", "label"])


@pytest.fixture(scope="module")
def worn(plant: list[Recording]) -> pd.DataFrame:
    """Of the machine that fails: its first days, and its last."""
    failing = plant[-1]
    last = failing.hours[-1]
    return lines((failing.asset, "0", "60", "well"), (failing.asset, f"{last - 60:.0f}", f"{last:.0f}", "worn"))


def test_stretches_by_hand() -> None:
    record = make("pump", np.zeros((6, 3)), np.arange(6), names=("a", "b", "c"))
    table = lines(("pump", "1", "2", "well"), ("fan", "0", "9", "worn"), ("pump", "4", "4.5", "worn"))
    assert list(states(record, table)) == ["", "well", "well", "", "worn", ""]


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([("pump", "3", "1", "well")], "'well' ends at 1, before it begins at 3"),
        ([("pump", "0", "3", "well"), ("pump", "2", "5", "worn")], "pump is both 'well' and 'worn' at 2.000 h"),
        ([("pump", "soon", "5", "well")], "'soon' is neither a number of hours nor a date"),
        ([("pump", "2024-01-01", "5", "well")], "pump has no dates"),
    ],
)
def test_stretches_that_cannot_be(rows: list[tuple[str, str, str, str]], why: str) -> None:
    record = make("pump", np.zeros((6, 3)), np.arange(6), names=("a", "b", "c"))
    with pytest.raises(DataError, match=why):
        states(record, lines(*rows))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("asset,from,label\npump,1,well\n", "has no column until: expected asset, from, until, label"),
        ("asset,from,until,label\n", "holds no line"),
        ("asset,from,until,label\npump,1,2,well\npump,3,,worn\n", "line 3: nothing stands under 'until'"),
        ("", "cannot be read as CSV"),
    ],
)
def test_files_that_say_nothing(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "known.csv").write_text(text)
    with pytest.raises(DataError, match=why):
        read_states(tmp_path / "known.csv")
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_states(tmp_path / "nowhere.csv")


def test_snapshots_are_scaled_by_their_machine_s_own_normal_period(plant: list[Recording], worn: pd.DataFrame) -> None:
    failing, normal = plant[-1], 80
    asked = asked_of(plant, [normal] * len(plant), worn, window=16, seed=0)
    known = states(failing, worn)
    seen = look(failing, rows=len(failing), window=16)
    scaling = Scaling.of(seen.pictures[:normal], seen.indicators[:normal])  # every snapshot of it can be judged
    inside = known[seen.rows] != ""
    np.testing.assert_array_equal(asked.pictures, scaling.picture(seen.pictures[inside]))
    assert list(asked.labels) == list(known[known != ""])


def test_what_cannot_be_asked(plant: list[Recording], worn: pd.DataFrame) -> None:
    normal = [80] * len(plant)
    with pytest.raises(DataError, match="no machine mill to learn from; there are healthy-1"):
        asked_of(plant, normal, lines(("mill", "0", "1", "well")), window=16, seed=0)
    with pytest.raises(DataError, match=r"two labelled snapshots each.*got 21 labelled well"):
        asked_of(plant, normal, worn[worn["label"] == "well"], window=16, seed=0)
    with pytest.raises(DataError, match="got none"):
        asked_of(plant, [5] * len(plant), worn, window=16, seed=0)  # no scale can be taken from five snapshots


def test_states_teach_nothing_and_the_curve_is_a_probe_of_what_was_learnt(
    plant: list[Recording], worn: pd.DataFrame, tmp_path: Path
) -> None:
    template = {"steps": 40, "dim": 32, "depth": 2}
    asked = asked_of(plant, [100] * len(plant), worn, window=16, seed=0)
    plain = MachineMonitor(**template).pretrain(plant[:2], normal_share=0.5)
    watched = MachineMonitor(**template).pretrain(plant[:2], normal_share=0.5, asked=asked)
    ours, theirs = watched.backbone_.state_dict(), plain.backbone_.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert plain.history_.curves["loss"] == watched.history_.curves["loss"]
    assert LEARNT not in plain.history_.curves
    step, last = watched.history_.curves[LEARNT][-1]
    assert step == 40
    with torch.no_grad():
        embedding = watched.pretext_.embed(watched.backbone_, torch.from_numpy(asked.pictures)).numpy()
    assert last == pytest.approx(linear_probe(embedding, asked.labels), abs=1e-6)

    def cut_off(values: dict[str, float], step: int) -> None:
        if step == 30 and "loss" in values:
            raise KeyboardInterrupt

    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        MachineMonitor(**template, lr=1e-3).pretrain(plant[:2], normal_share=0.5, asked=asked, state=state, log=cut_off)
    with pytest.raises(CheckpointError, match="looked at"):
        MachineMonitor(**template).pretrain(plant[:2], normal_share=0.5, state=state)


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_command_shows_the_probe_and_says_what_it_cannot_do(
    in_tmp: Path, complete: Callable[[Path, str], dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    machines = simulate.fleet(healthy=1, failing=1, seed=1, plan=simulate.Plan(days=16, every_h=3, fault_days=5))
    for machine in machines:
        simulate.write(machine, in_tmp / "plant")
    last = machines[1].hours[-1]
    known = lines(("failing-1", "0", "30", "well"), ("failing-1", f"{last - 30}", f"{last}", "worn"))
    known.to_csv("known.csv", index=False)
    command = ["sensors", "fit", "plant", "--normal-share", "0.5", "--steps", "20"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--labels", "known.csv"])
    assert ended.value.code == 0
    page = (in_tmp / "machine-model" / "encoder" / "report.html").read_text()
    assert "of a linear model the area under the ROC curve" in page
    run = complete(in_tmp, "sensors")["pretrain encoder"]
    assert 0 <= run.data.metrics[LEARNT] <= 1
    with pytest.raises(SystemExit) as ended:
        main([*command, "--labels", "known.csv", "--encoder", "machine-model/encoder"])
    assert ended.value.code == 1
    assert "leave out --pretrain-on, --labels" in capsys.readouterr().err
