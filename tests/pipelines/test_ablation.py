"""A pretraining beside the same one with random masks: two whole runs, alike in all but the masks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from unlabeled.core.errors import CheckpointError, DataError
from unlabeled.core.masking import Mask
from unlabeled.core.tokens import GridPatches
from unlabeled.fraud.simulate import simulate as payments
from unlabeled.fraud.tasks import Question
from unlabeled.medical import read_images
from unlabeled.medical import simulate as radiographs
from unlabeled.medical import tasks as radiograph_tasks
from unlabeled.medical.labels import attach, read_labels
from unlabeled.pipelines import fraud, medical, sensors
from unlabeled.pipelines._ablation import random_twin
from unlabeled.pipelines._medical_input import looked_at
from unlabeled.pipelines.cli import main
from unlabeled.sensors import MachineMonitor
from unlabeled.sensors import simulate as plant
from unlabeled.sensors import tasks as machine_tasks

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]


def alike(one: Path, other: Path) -> bool:
    """Whether two folders hold the same weights; what a mask remembers does not count."""
    tensors = [load_file(folder / "weights.safetensors") for folder in (one, other)]
    ours, theirs = ({name: t for name, t in found.items() if ".mask." not in name} for found in tensors)
    assert ours.keys() == theirs.keys()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> radiographs.Simulated:
    return radiographs.write_archive(tmp_path_factory.mktemp("films"), patients=30, seed=0)


def curve(folder: Path, run: Any, name: str) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    points = MlflowClient(f"sqlite:///{folder}/mlflow.db").get_metric_history(run.info.run_id, name)
    return sorted((point.step, point.value) for point in points)


def test_radiographs_beside_random_masks_and_with_labels_that_teach_nothing(
    films: radiographs.Simulated, in_tmp: Path, complete: Callable[[Path, str], dict[str, Any]]
) -> None:
    given: dict[str, Any] = {"size": 32, "epochs": 5}
    both = medical.pretrain(
        films.images, out=Path("m"), masking="adaptive", labels=films.labels, beside_random=True, **given
    )
    runs = complete(in_tmp, "medical")
    ours, theirs = runs["pretrain m"], runs["pretrain m-random-masks"]
    assert theirs.data.tags["mlflow.parentRunId"] == ours.info.run_id
    assert ours.data.tags["unlabeled.random_masks_run"] == theirs.info.run_id == both.details["random_masks_run"]
    changed = {name for name, value in ours.data.params.items() if theirs.data.params.get(name) != value}
    assert changed == {"masking"}
    for name in ("loss", "watch.effective_rank", "watch.linear_probe"):
        assert curve(in_tmp, ours, f"random_masks.{name}") == curve(in_tmp, theirs, name)
        assert len(curve(in_tmp, ours, name)) > 1
    page = (in_tmp / "m" / "report.html").read_text(encoding="utf-8")
    assert "Beside random masks" in page

    # Each is what it would be alone, without a label in sight.
    medical.pretrain(films.images, out=Path("a"), masking="adaptive", **given)
    medical.pretrain(films.images, out=Path("r"), **given)
    assert alike(Path("m"), Path("a"))
    assert alike(Path("m-random-masks"), Path("r"))
    assert not alike(Path("m"), Path("r"))


def test_what_is_there_already_is_not_trained_again_unless_the_settings_differ(
    films: radiographs.Simulated, in_tmp: Path
) -> None:
    def run(**given: Any) -> str:
        done = medical.pretrain(
            films.images, out=in_tmp / "m", size=32, epochs=1, masking="blocks", beside_random=True, **given
        )
        return str(done.details["random_masks_run"])

    first = run()
    assert run() == first
    assert run(seed=1) != first


def test_a_twin_that_is_damaged_is_trained_again_and_a_model_of_somebody_is_not_overwritten(
    films: radiographs.Simulated, in_tmp: Path
) -> None:
    def run() -> str:
        done = medical.pretrain(films.images, out=in_tmp / "m", size=32, epochs=1, masking="blocks", beside_random=True)
        return str(done.details["random_masks_run"])

    beside, seen = in_tmp / "m-random-masks", [run()]
    for damage in (
        lambda: (beside / "weights.safetensors").unlink(),
        lambda: (beside / "ablation.json").write_text("{"),
        lambda: (beside / "ablation.json").write_text("{}"),
    ):
        damage()
        seen.append(run())
    assert len(set(seen)) == 4
    (beside / "ablation.json").unlink()
    before = (beside / "weights.safetensors").read_bytes()
    with pytest.raises(DataError, match="m-random-masks holds another model"):
        run()
    assert (beside / "weights.safetensors").read_bytes() == before


def test_a_folder_that_is_in_use_is_refused_before_the_training(films: radiographs.Simulated, in_tmp: Path) -> None:
    (in_tmp / "m-random-masks").mkdir()
    (in_tmp / "m-random-masks" / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="m-random-masks exists and is not a model"):
        medical.pretrain(films.images, out=in_tmp / "m", size=32, epochs=500, masking="lungs", beside_random=True)
    with pytest.raises(CheckpointError, match="name a folder in it"):
        medical.pretrain(films.images, out=Path(), size=32, epochs=500)
    assert not list(in_tmp.glob(".*state"))


def test_labels_that_are_looked_at_are_few_of_either_class_and_never_those_of_another_split(
    films: radiographs.Simulated,
) -> None:
    images, rows = read_images(films.images, size=32), read_labels(films.labels)
    ids = [name for name in rows if rows[name].label == 1]
    rare = {name: row for name, row in rows.items() if row.label == 0 or name in ids[:2]}
    for seed in range(5):
        assert np.bincount(looked_at(images, rare, seed=seed).labels)[1] == 2
    split = {
        name: replace(row, split="test" if number % 2 else "train") for number, (name, row) in enumerate(rows.items())
    }
    judged = attach(images, {name: row for name, row in split.items() if row.split == "test"}).labelled()
    seen = looked_at(images, split, seed=0).images
    assert not any((picture == other).all() for picture in seen for other in judged.images)


def test_machines_beside_random_masks(in_tmp: Path, complete: Callable[[Path, str], dict[str, Any]]) -> None:
    for machine in plant.fleet(healthy=2, failing=0, seed=0, plan=plant.Plan(days=20, every_h=4)):
        plant.write(machine, in_tmp / "machines")
    template = MachineMonitor(masking="bearing", steps=10)
    sensors.fit([in_tmp / "machines"], out=Path("s"), normal_share=0.9, template=template, beside_random=True)
    sensors.fit([in_tmp / "machines"], out=Path("r"), normal_share=0.9, template=MachineMonitor(steps=10))
    runs = complete(in_tmp, "sensors")
    theirs = runs["pretrain encoder-random-masks"]
    parent = theirs.data.tags["mlflow.parentRunId"]
    assert (theirs.data.params["masking"], parent) == (
        "random",
        runs["fit healthy-1"].data.tags["unlabeled.pretraining_run"],
    )
    assert alike(Path("s/encoder-random-masks"), Path("r/encoder"))
    assert not alike(Path("s/encoder"), Path("r/encoder"))
    assert "Beside random masks" in (in_tmp / "s" / "encoder" / "report.html").read_text(encoding="utf-8")


def test_masks_that_a_trend_cannot_have_are_refused_before_the_random_ones_are_trained(in_tmp: Path) -> None:
    hours = pd.date_range("2026-01-01", periods=160, freq="h")
    pd.DataFrame({"time": hours, "rms": np.random.default_rng(0).normal(size=160)}).to_csv("trend.csv", index=False)
    with pytest.raises(DataError, match="'bearing' is for waveforms"):
        sensors.fit([Path("trend.csv")], out=Path("s"), template=MachineMonitor(masking="bearing"), beside_random=True)
    assert not list(in_tmp.rglob("weights.safetensors"))


def test_payments_beside_random_masks(in_tmp: Path, complete: Callable[[Path, str], dict[str, Any]]) -> None:
    table = payments(seed=0)
    table[: len(table) // 4].to_parquet("payments.parquet")
    fraud.pretrain(
        Path("payments.parquet"), out=Path("f"), steps=8, question=Question(masking="fields"), beside_random=True
    )
    fraud.pretrain(Path("payments.parquet"), out=Path("r"), steps=8)
    runs = complete(in_tmp, "fraud")
    ours, theirs = runs["pretrain f"], runs["pretrain f-random-masks"]
    assert theirs.data.tags["mlflow.parentRunId"] == ours.info.run_id
    for network, name in (("cards", "watch.deviation"), ("merchants", "merchants watch.deviation")):
        assert curve(in_tmp, ours, f"random_masks.{network} watch.deviation") == curve(in_tmp, theirs, name)
    assert alike(Path("f-random-masks"), Path("r"))
    assert not alike(Path("f"), Path("r"))


def test_both_are_in_the_dry_run(films: radiographs.Simulated, in_tmp: Path) -> None:
    done = medical.pretrain(
        films.images, out=Path("m"), size=32, epochs=2, masking="lungs", beside_random=True, dry_run=True
    )
    assert [budget["label"] for budget in done.details["budgets"]] == ["pretraining", "with random masks"]
    assert not list(in_tmp.iterdir())


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ([], "choose another --masking"),
        (["--task", "rotation", "--masking", "lungs"], "hides nothing"),
    ],
)
def test_random_masks_are_not_compared_with_themselves(
    more: list[str], why: str, films: radiographs.Simulated, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["medical", "pretrain", str(films.images), "--beside-random", *more])
    assert ended.value.code == 1
    assert why in capsys.readouterr().err
    assert not list(in_tmp.iterdir())


def test_labels_of_one_class_cannot_be_looked_at(films: radiographs.Simulated, in_tmp: Path) -> None:
    head, *rows = films.labels.read_text().splitlines()
    column = head.split(",").index("label")
    healthy = [row for row in rows if row.split(",")[column] == "0"]
    (in_tmp / "healthy.csv").write_text("\n".join([head, *healthy]) + "\n")
    with pytest.raises(DataError, match=r"at least two labelled pictures each.*got [0-9]+ labelled 0$"):
        medical.pretrain(films.images, out=Path("m"), size=32, labels=Path("healthy.csv"))


@pytest.mark.parametrize("masking", [m for m in get_args(radiograph_tasks.Masking) if not m.endswith("random")])
def test_the_twin_of_a_masking_of_films_differs_by_chance_alone(masking: radiograph_tasks.Masking) -> None:
    tokenizer = GridPatches(grid=(32, 32), patch=(4, 4), dim=16)

    def build(name: str) -> Mask:
        return radiograph_tasks.build_mask(tokenizer, masking=name, ratio=0.5, seed=0)  # type: ignore[arg-type]

    check_twin(tokenizer, build(masking), build(random_twin(masking)), counts=masking != "adaptive")


@pytest.mark.parametrize("masking", [m for m in get_args(machine_tasks.Masking) if not m.endswith("random")])
def test_the_twin_of_a_masking_of_machines_differs_by_chance_alone(masking: machine_tasks.Masking) -> None:
    twin = random_twin(masking)
    columns = {machine_tasks.time_steps(task="masked", masking=name) for name in (masking, twin)}  # type: ignore[arg-type]
    assert len(columns) == 1, "patches of another size are another task"
    tokenizer = GridPatches(grid=(32, 16), patch=(8, columns.pop()), dim=16)
    prior = torch.linspace(1, 3, tokenizer.tokens)

    def build(name: str) -> Mask:
        return machine_tasks.build_mask(tokenizer, masking=name, ratio=0.5, prior=prior, seed=0)  # type: ignore[arg-type]

    check_twin(tokenizer, build(masking), build(twin), counts=masking != "adaptive")


def check_twin(tokenizer: GridPatches, mask: Mask, twin: Mask, *, counts: bool) -> None:
    """As many patches take part and are hidden; which ones has nothing to do with what they hold, nor with where they
    are, and over many draws every one is hidden alike."""
    draw = torch.Generator().manual_seed(0)
    one, other = (torch.randn(400, 1, *tokenizer.grid, generator=draw) * (1 + 9 * n) for n in range(2))
    tokens = tokenizer(one)
    hidden, again = (twin(tokens, 3, tokenizer.patches(x)) for x in (one, other))
    assert torch.equal(hidden.masked, again.masked)
    assert torch.equal(hidden.kept, again.kept)
    if counts:
        asked = mask(tokens, 3, tokenizer.patches(one))
        assert asked.masked.shape == hidden.masked.shape
        assert asked.kept.shape == hidden.kept.shape
    share = torch.bincount(hidden.masked.flatten(), minlength=tokenizer.tokens) / len(one)
    expected = hidden.masked.shape[1] / tokenizer.tokens
    assert (share - expected).abs().max() < 5 * (expected * (1 - expected) / len(one)) ** 0.5
