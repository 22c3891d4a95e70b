"""A pretraining that collapses says what was seen and what to try, and leaves its last healthy weights as a model."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import typer
from mlflow import MlflowClient
from safetensors.torch import load_file
from typer.main import get_command

from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.pretext import Pretext
from unlabeled.core.tokens import EventFields, GridPatches
from unlabeled.fraud import FraudDetector, Size
from unlabeled.fraud import tasks as fraud_tasks
from unlabeled.fraud.simulate import simulate as made_payments
from unlabeled.medical import PneumoniaModel, simulate
from unlabeled.medical import tasks as medical_tasks
from unlabeled.pipelines import cli_fraud, cli_medical, cli_sensors
from unlabeled.pipelines.cli import main
from unlabeled.sensors import MachineMonitor
from unlabeled.sensors import simulate as plant
from unlabeled.sensors import tasks as sensors_tasks

quiet = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")


def code_of(command: list[str]) -> object:
    with pytest.raises(SystemExit) as ended:
        main(command)
    return ended.value.code


def radiographs(folder: Path) -> list[str]:
    films = simulate.write_archive(folder / "films", patients=40, seed=0)
    return ["medical", "pretrain", str(films.images), "--size", "32", "--epochs", "12", "--task", "contrastive"]


def machines(folder: Path) -> list[str]:
    for machine in plant.fleet(healthy=1, failing=0, seed=0, plan=plant.Plan(days=20, every_h=4)):
        plant.write(machine, folder / "machines")
    return ["sensors", "fit", str(folder / "machines"), "--normal-share", "0.9", "--task", "contrastive"]


def payments(folder: Path) -> list[str]:
    table = made_payments(seed=0)
    table[: len(table) // 8].to_parquet(folder / "payments.parquet")
    return ["fraud", "pretrain", str(folder / "payments.parquet"), "--steps", "60", "--task", "events+vicreg"]


@quiet
@pytest.mark.integration
@pytest.mark.parametrize(
    ("kind", "model"), [(radiographs, PneumoniaModel), (machines, MachineMonitor), (payments, FraudDetector)]
)
def test_a_command_that_collapses_keeps_a_model_and_says_where(
    kind: Callable[[Path], list[str]], model: Any, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*kind(in_tmp), "--out", "m"]
    assert code_of([*command, "--learning-rate", "2"]) != 0  # higher ones may give no number at all first
    said = capsys.readouterr().err
    assert "the embeddings collapse: at step" in said
    assert "Traceback" not in said
    kept = Path(re.search(r"they are in (\S+)\.", said)[1])  # type: ignore[index]
    assert kept.name.endswith("-last-healthy")
    step = int(re.search(r"The weights of step (\d+)", said)[1])  # type: ignore[index]
    learnt = model.load(kept)
    weights = load_file(kept / "weights.safetensors")
    assert all(torch.isfinite(value).all() for value in weights.values())
    if model is PneumoniaModel:
        assert learnt.pretraining_["steps"] > step
    elif model is MachineMonitor:
        assert learnt.pretrained_
    else:
        table = made_payments(seed=1)[:300]
        assert np.isfinite(learnt.score(table)).all()
    client = MlflowClient(f"sqlite:///{in_tmp}/mlflow.db")
    runs = [r for e in client.search_experiments() for r in client.search_runs([e.experiment_id])]
    failed = [run for run in runs if run.info.status == "FAILED"]
    assert failed
    assert any(client.list_artifacts(run.info.run_id, "last-healthy") for run in failed)
    # With what the message says to try, the very command goes through.
    assert code_of([*command, "--learning-rate", "0.001"]) == 0, capsys.readouterr().err


def offered(app: typer.Typer, verb: str) -> set[str]:
    command: Any = get_command(app)
    return {name for parameter in command.commands[verb].params for name in parameter.opts}


def named(task: Pretext) -> list[tuple[str, str]]:
    """Option and parameter of both remedies."""
    found = [re.fullmatch(r".*\((--[a-z-]+), ([a-z_]+)\)", remedy) for remedy in task.remedies]
    assert all(found), task.remedies
    return [(match[1], match[2]) for match in found if match is not None]


@pytest.mark.parametrize("room", ["medical", "sensors", "fraud"])
def test_what_a_collapse_says_to_try_can_be_set_in_commands_and_in_python(room: str) -> None:
    backbone = Backbone(GridPatches(grid=(16, 16), patch=(4, 4), dim=16), Encoder(dim=16, depth=1, heads=2))
    fixed: dict[str, Any] = {"masking": "random", "mask_ratio": 0.5, "seed": 0}
    tasks: list[Pretext]
    match room:
        case "medical":
            tasks = [medical_tasks.build_task(backbone, task=t, **fixed) for t in get_args(medical_tasks.Task)]
            options, parameters = offered(cli_medical.app, "pretrain"), set(PneumoniaModel().get_params())
        case "sensors":
            tasks = [
                sensors_tasks.build_task(backbone, task=t, prior=None, **fixed) for t in get_args(sensors_tasks.Task)
            ]
            options, parameters = offered(cli_sensors.app, "fit"), set(MachineMonitor().get_params())
        case _:
            history = Backbone(
                EventFields(sizes=(5, 5), dim=16, length=8), Encoder(dim=16, depth=1, heads=2, causal=True)
            )
            tasks = [fraud_tasks.build_task(history, task=t, seed=0) for t in get_args(fraud_tasks.Task)]
            options = offered(cli_fraud.app, "pretrain")
            parameters = {*FraudDetector().get_params(), *vars(Size())}
    for task in tasks:
        for option, parameter in named(task):
            assert option in options, (type(task).__name__, option)
            assert parameter in parameters, (type(task).__name__, parameter)
