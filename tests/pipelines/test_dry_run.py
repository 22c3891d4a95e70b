"""A dry run says what a training would cost and leaves no trace; a real run keeps both, predicted and spent."""

import itertools
import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from unlabeled.core import meter
from unlabeled.fraud import FraudDetector, Size, boosting, simulate
from unlabeled.medical import PneumoniaModel, read_images
from unlabeled.medical import simulate as radiographs
from unlabeled.pipelines import cli
from unlabeled.sensors import simulate as machines

# MLflow and what it loads warn about their own future.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]

COMMANDS = {
    "medical pretrain": ["medical", "pretrain", "xray/images", "--size", "32", "--epochs"],
    "fraud pretrain": ["fraud", "pretrain", "payments.csv", "--steps"],
    "sensors fit": ["sensors", "fit", "plant", "--normal-share", "0.5", "--steps"],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A little of everything, and a pretrained model of radiographs."""
    folder = tmp_path_factory.mktemp("data")
    archive = radiographs.write_archive(folder / "xray", patients=30, seed=0)
    small: dict[str, Any] = {"image_size": 32, "dim": 16, "depth": 1, "heads": 2, "finetune_steps": 30, "folds": 2}
    PneumoniaModel(**small, pretrain_epochs=1).pretrain(read_images(archive.images, size=32)).save(folder / "base")
    table = simulate(customers=25, merchants=24, weeks=6, stolen=12, terminals=2, seed=3)
    table.to_csv(folder / "payments.csv", index=False)
    size = Size(dim=16, depth=1, heads=2, length=16, steps=5, batch_size=8)
    FraudDetector(size=size).pretrain(table).save(folder / "payments-base")
    plan = machines.Plan(days=16, every_h=3, fault_days=5)
    for machine in machines.fleet(healthy=1, failing=1, seed=1, plan=plan):
        machines.write(machine, folder / "plant")
    return folder


@pytest.fixture
def at_data(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the folder with the data, with temporary files apart, and no longer measured than can be helped."""
    monkeypatch.chdir(data)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(meter, "ENOUGH_SECONDS", 0.0)
    return data


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }


def result(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments, "--json"])
    out, err = capsys.readouterr()
    assert ended.value.code == 0, err
    return json.loads(out)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_dry_run_writes_nothing_and_its_numbers_follow_the_steps(
    command: str, at_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(at_data)
    once, twice = (
        result(capsys, *COMMANDS[command], str(n), "--dry-run", "--price-per-hour", "2", "--watts", "500")
        for n in (4, 8)
    )
    assert contents(at_data) == before
    assert not list(tmp_path.iterdir())
    assert once["run_id"] is None
    assert once["files"] == {}
    assert once["dry_run"] is True
    small, large = once["budget"], twice["budget"]
    assert large["steps"] == 2 * small["steps"]
    # Which histories stand in the measured batch differs a little, and nothing else does.
    assert large["flops"] == pytest.approx(2 * small["flops"], rel=0.1)
    for found in (small, large):
        assert found["hours"] == pytest.approx(found["seconds"] / 3600)
        assert found["money"] == pytest.approx(2 * found["hours"])
        assert found["kwh"] == pytest.approx(0.5 * found["hours"])
        assert found["watts_from"] == "as given"
        assert found["peak_bytes"] > found["learning_bytes"] > 0
    for name in ("steps", "seconds", "flops"):
        assert small[name] == pytest.approx(sum(part[name] for part in once["budgets"]))
    assert len(once["budgets"]) == (2 if command == "fraud pretrain" else 1)  # cards and merchants


def test_fine_tuning_has_a_budget_of_its_own(at_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(at_data)
    arguments = ["medical", "finetune", "xray/images", "--labels", "xray/labels.csv", "--model", "base", "--dry-run"]
    ours, scratch = result(capsys, *arguments)["budgets"]
    assert contents(at_data) == before
    assert not list(tmp_path.iterdir())
    assert ours["steps"] == 2 * 30  # two folds
    assert ours["save_seconds"] == 0  # fine-tuning keeps no states
    assert scratch["label"] == "same network from scratch, for the comparison"
    assert scratch["seconds"] == ours["seconds"]


FILMS = ["xray/images", "--labels", "xray/labels.csv"]


@pytest.mark.parametrize(
    ("command", "steps"),
    [
        # Ours and the network from scratch: two networks a fold of 30 steps, in each of three folds.
        (["medical", "crossvalidate", *FILMS, "--model", "base", "--folds", "3"], [180, 180]),
        (
            ["medical", "labels-needed", *FILMS, "--model", "base", "--counts", "8,10,12", "--seeds", "3"],
            [180, 180, 180, 180, 180, 180],
        ),
        # At most 38 films in batches of no more than these, two epochs, in each of three trials.
        (["medical", "search", *FILMS, "--size", "32", "--epochs", "2", "--trials", "3"], None),
        (["medical", "run", *FILMS, "--size", "32", "--epochs", "2", "--steps", "7"], [None, 21, 21]),
        (["sensors", "backtest", "plant", "--steps", "20"], [20, 20]),
        (["fraud", "search", "payments.csv", "--steps", "20", "--trials", "3"], [60, 60]),
        (["fraud", "backtest", "payments.csv", "--steps", "20"], [20, 20]),
    ],
)
def test_what_trains_several_times_counts_them_all_and_writes_nothing(
    command: list[str],
    steps: list[int | None] | None,
    at_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = contents(at_data)
    found = result(capsys, *command, "--dry-run", "--price-per-hour", "2")
    assert contents(at_data) == before
    assert not list(tmp_path.iterdir())
    parts = found["budgets"]
    if steps is None:
        (one,) = parts
        assert one["steps"] % 3 == 0
        single = result(capsys, *command[:-1], "1", "--dry-run")["budgets"][0]["steps"]
        assert one["steps"] == 3 * single
    else:
        assert [wanted or part["steps"] for wanted, part in zip(steps, parts, strict=True)] == [
            part["steps"] for part in parts
        ]
    assert found["budget"]["seconds"] == pytest.approx(sum(part["seconds"] for part in parts))
    assert found["budget"]["money"] == pytest.approx(2 * found["budget"]["hours"])


def test_learning_fraud_from_labels_has_one_too_and_keeps_to_it(
    at_data: Path, in_tmp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    monkeypatch.chdir(at_data)
    before = contents(at_data)
    monkeypatch.setattr(boosting, "time", SimpleNamespace(monotonic=itertools.count().__next__))
    given = ["fraud", "finetune", str(at_data / "payments.csv"), "--model", str(at_data / "payments-base")]
    dry = result(capsys, *given, "--dry-run", "--price-per-hour", "3600")
    ours, plain = dry["budgets"]
    assert contents(at_data) == before
    assert (ours["steps"], plain["steps"]) == (300, 300)
    assert ours["seconds"] == plain["seconds"] == ours["money"] == 300
    assert ours["watts"] == 10  # one core, whatever PyTorch may use
    monkeypatch.chdir(in_tmp)
    done = result(capsys, *given, "--price-per-hour", "3600")
    model = FraudDetector.load(in_tmp / "fraud-model")
    labels = done["frauds"] + done["genuine"]
    # One byte a value, of every label: what is measured in the dry run has the size of what is trained on.
    assert ours["learning_bytes"] == labels * len(model.feature_names_) > plain["learning_bytes"]
    stored = MlflowClient(f"sqlite:///{in_tmp}/mlflow.db").get_run(done["run_id"]).data.metrics
    # A clock that moves on by a second whenever it is read: each of 300 trees takes one.
    for front in ("", "comparison "):
        assert stored[f"{front}budget.predicted_seconds"] == stored[f"{front}budget.spent_seconds"] == 300
        assert stored[f"{front}budget.error"] == 0
        assert stored[f"{front}budget.spent_money"] == pytest.approx(300)
    assert stored["budget.total_spent_seconds"] == 600


def test_the_terminal_says_what_is_assumed_and_what_is_left_out(
    at_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["sensors", "fit", "plant", "--normal-share", "0.5", "--steps", "20", "--dry-run"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for words in ("nothing was kept", "20 steps of", "FLOP", "(an assumption: 10 W", "not in it: reading"):
        assert words in shown


@pytest.mark.parametrize("option", ["--watts", "--price-per-hour"])
def test_a_negative_rate_is_wrong_usage(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["medical", "pretrain", "nowhere", "--dry-run", option, "-1"])
    assert ended.value.code == 2
    assert option in capsys.readouterr().err


def test_a_dry_run_opens_no_store(at_data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    def never(*given: object, **options: object) -> None:
        raise AssertionError("a dry run opened a tracked run")

    monkeypatch.setattr("unlabeled.core.tracking.run", never)
    assert result(capsys, *COMMANDS["sensors fit"], "20", "--dry-run")["dry_run"]


def test_a_real_run_carries_predicted_and_spent(
    at_data: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setattr(meter, "WORTH_SECONDS", 0.0)
    table = ["fraud", "pretrain", str(at_data / "payments.csv"), "--steps", "40"]
    done = result(capsys, *table, "--price-per-hour", "3600", "--watts", "1000")
    stored = MlflowClient(f"sqlite:///{in_tmp}/mlflow.db").get_run(done["run_id"]).data.metrics
    for name in ("", "merchants "):
        assert stored[f"{name}budget.spent_seconds"] > 0
        assert stored[f"{name}budget.predicted_seconds"] > 0
        # Two batches of histories, counted at the start and at the end, are not of one length.
        assert stored[f"{name}budget.flops"] == pytest.approx(stored[f"{name}budget.predicted_flops"], rel=0.05)
        assert stored[f"{name}budget.flops"] > 0
        assert stored[f"{name}budget.spent_money"] == pytest.approx(stored[f"{name}budget.spent_seconds"])
        assert stored[f"{name}budget.predicted_kwh"] == pytest.approx(stored[f"{name}budget.predicted_seconds"] / 3600)
    both = stored["budget.spent_seconds"] + stored["merchants budget.spent_seconds"]
    assert stored["budget.total_spent_seconds"] == pytest.approx(both)
