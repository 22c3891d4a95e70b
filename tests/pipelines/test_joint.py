"""One encoder for several kinds of data, from the command to what each room makes of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from unlabeled.core.errors import CheckpointError, DataError
from unlabeled.fraud import FraudDetector
from unlabeled.fraud.simulate import simulate as payments
from unlabeled.medical import PneumoniaModel
from unlabeled.medical import simulate as radiographs
from unlabeled.pipelines import fraud, joint, medical, sensors
from unlabeled.pipelines.cli import app
from unlabeled.sensors import MachineMonitor
from unlabeled.sensors import simulate as plant

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("three-kinds")
    radiographs.write_archive(folder / "xrays", patients=40, seed=0)
    for machine in plant.fleet(healthy=2, failing=0, seed=0, plan=plant.Plan(days=20, every_h=4)):
        plant.write(machine, folder / "machines")
    table = payments(seed=0)
    table[: len(table) // 4].to_parquet(folder / "payments.parquet")
    return folder


def test_each_room_goes_on_from_one_joint_pretraining(
    data: Path, in_tmp: Path, complete: Callable[[Path, str], dict[str, Any]]
) -> None:
    asked = ["--xrays", f"{data}/xrays/images", "--machines", f"{data}/machines"]
    asked += ["--payments", f"{data}/payments.parquet", "--dim", "32", "--depth", "2", "--steps", "12"]
    done = CliRunner().invoke(app, ["joint", "pretrain", "--out", "one", *asked])
    assert done.exit_code == 0, done.output
    (run,) = complete(in_tmp, "joint").values()
    curves = {name for name in run.data.metrics if "." not in name}
    assert {"radiographs", "machines", "cards", "merchants"} <= curves
    page = (in_tmp / "one" / "report.html").read_text(encoding="utf-8")
    assert "not a radiograph: Modality is CT" in page  # what was left out, and why

    # The blocks are the same everywhere, and have learnt: they are not those of an untrained encoder.
    def blocks(folder: str, prefix: str) -> dict[str, torch.Tensor]:
        tensors = load_file(in_tmp / "one" / folder / "weights.safetensors")
        start = f"{prefix}encoder."
        return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}

    found = [blocks("sensors", "backbone."), blocks("fraud", "0.backbone."), blocks("fraud", "1.backbone.")]
    found.append(blocks("medical", "pretraining.backbone."))
    assert len(found[0]) > 10
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        assert all(torch.equal(value, found[0][name]) for name, value in other.items())
    fresh = PneumoniaModel(dim=32, depth=2)._fresh().backbone.encoder.state_dict()
    assert not torch.equal(fresh["blocks.0.qkv.weight"], found[0]["blocks.0.qkv.weight"])

    learnt = run.info.run_id
    tuned = medical.finetune(
        data / "xrays" / "images",
        labels=data / "xrays" / "labels.csv",
        model=Path("one/medical"),
        out=Path("m"),
        steps=3,
    )
    assert PneumoniaModel.load(tuned.files["model"]).provenance_["pretraining_run"] == learnt
    fitted = sensors.fit([data / "machines"], encoder=Path("one/sensors"), out=Path("s"), normal_share=0.9)
    assert set(fitted.details["thresholds"]) == {"healthy-1", "healthy-2"}
    assert MachineMonitor.load(Path("s/healthy-1")).pretraining_run_ == learnt
    caught = fraud.finetune(data / "payments.parquet", model=Path("one/fraud"), out=Path("f"))
    scores = FraudDetector.load(caught.files["model"]).score(payments(seed=1)[:500])
    assert np.isfinite(scores).all()


def test_one_kind_alone_is_no_joint_pretraining(data: Path, in_tmp: Path) -> None:
    with pytest.raises(DataError, match="two kinds of data at least: --xrays, --machines, --payments"):
        joint.pretrain(out=in_tmp / "one", machines=[data / "machines"])


def test_an_interrupted_joint_pretraining_goes_on_and_ends_the_same(data: Path, in_tmp: Path) -> None:
    given: dict[str, Any] = {
        "machines": [data / "machines"],
        "payments": data / "payments.parquet",
        "shape": joint.Shape(32, 1, 2),
        "steps": 30,
    }
    joint.pretrain(out=in_tmp / "whole", **given)

    def stop(self: object, values: dict[str, float], step: int | None = None) -> None:
        if (step or 0) >= 20:
            raise KeyboardInterrupt

    reached: list[int] = []

    def note(self: object, values: dict[str, float], step: int | None = None) -> None:
        reached.append(step or 0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unlabeled.core.tracking.Run.metrics", stop)
        with pytest.raises(KeyboardInterrupt):
            joint.pretrain(out=in_tmp / "cut", **given)
    assert not (in_tmp / "cut" / "fraud").exists()
    with pytest.raises(CheckpointError, match="data"):  # other rows of the same files
        joint.pretrain(out=in_tmp / "cut", **{**given, "normal_share": 0.5})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unlabeled.core.tracking.Run.metrics", note)
        joint.pretrain(out=in_tmp / "cut", **given)
    assert min(step for step in reached if step) > 10  # it went on; it did not begin again
    for room in ("sensors", "fraud"):
        one, other = (load_file(in_tmp / name / room / "weights.safetensors") for name in ("whole", "cut"))
        assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert not (in_tmp / ".cut.state").exists()
