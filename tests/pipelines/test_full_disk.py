"""A disk that is full when what was learnt is to be saved: the training is not lost with it."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file

from unlabeled.fraud import FraudDetector
from unlabeled.fraud.simulate import simulate as payments
from unlabeled.medical import PneumoniaModel
from unlabeled.medical import simulate as radiographs
from unlabeled.pipelines import fraud, joint, medical, sensors
from unlabeled.sensors import MachineMonitor
from unlabeled.sensors import simulate as plant

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]
Job = Callable[[Path], Any]


def xrays(folder: Path) -> Job:
    films = radiographs.write_archive(folder / "films", patients=30, seed=0)
    return lambda out: medical.pretrain(films.images, out=out, size=32, epochs=30)


def machines(folder: Path) -> Job:
    write_machines(folder)
    return lambda out: sensors.fit([folder / "machines"], out=out, template=MachineMonitor(steps=100), normal_share=0.9)


def transactions(folder: Path) -> Job:
    write_payments(folder)
    return lambda out: fraud.pretrain(folder / "payments.parquet", out=out, steps=60)


def two_kinds(folder: Path) -> Job:
    write_machines(folder)
    write_payments(folder)
    given: dict[str, Any] = {"shape": joint.Shape(32, 1, 2), "steps": 60}
    return lambda out: joint.pretrain(
        out=out, machines=[folder / "machines"], payments=folder / "payments.parquet", **given
    )


def write_machines(folder: Path) -> None:
    for machine in plant.fleet(healthy=1, failing=0, seed=0, plan=plant.Plan(days=20, every_h=4)):
        plant.write(machine, folder / "machines")


def write_payments(folder: Path) -> None:
    table = payments(seed=0)
    table[: len(table) // 8].to_parquet(folder / "payments.parquet")


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        (xrays, PneumoniaModel),
        (machines, MachineMonitor),
        (transactions, FraudDetector),
        (two_kinds, FraudDetector),  # the second room: the first has been written by then
    ],
)
def test_what_was_learnt_outlives_a_disk_that_is_full_when_it_is_saved(
    kind: Callable[[Path], Job], model: type, in_tmp: Path
) -> None:
    run = kind(in_tmp)
    run(Path("whole"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "save", full)
        with pytest.raises(OSError, match="No space left"):
            run(Path("cut"))
    run(Path("cut"))
    curves = [points for points in loss_curves(in_tmp) if points]
    from_the_start = [points for points in curves if min(points) <= max(curves[0]) / 2]
    assert len(from_the_start) == 2  # the one that went well, and the one that ended with a full disk
    found = [weights(in_tmp / name) for name in ("whole", "cut")]
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
    assert not [path for path in in_tmp.rglob("*") if path.name.startswith("step-")]


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def loss_curves(folder: Path) -> list[list[int]]:
    """Steps at which each pretraining logged a loss, first run first."""
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    names = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(names, order_by=["attributes.start_time ASC"])
    curves = [client.get_metric_history(run.info.run_id, "loss") for run in runs]
    return [[point.step for point in curve] for curve in curves]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted(folder.rglob("weights.safetensors"))
    assert files
    return {f"{path.relative_to(folder)} {name}": t for path in files for name, t in load_file(path).items()}
