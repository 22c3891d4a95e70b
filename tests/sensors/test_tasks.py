"""Every task and masking on vibration and trends: from a record to a saved monitor, and what the bearing prior is."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from unlabeled.core import checkpoints
from unlabeled.core.errors import CheckpointError, DataError
from unlabeled.pipelines import cli_sensors
from unlabeled.pipelines.cli import app
from unlabeled.sensors import MachineMonitor, Recording, make
from unlabeled.sensors.monitor import PARTS
from unlabeled.sensors.tasks import Masking, Task, bearing_prior

WAYS = [("masked", m) for m in get_args(Masking)] + [(t, "random") for t in get_args(Task) if t != "masked"]


def machine(kind: str) -> Recording:
    rng = np.random.default_rng(0)
    hours = np.arange(90) / 6
    if kind == "waveform":
        return make("m", rng.normal(size=(90, 1024, 2)), hours, names=("x", "y"), fs=12_800.0)
    return make("m", rng.normal(size=(90, 3)), hours, names=("rms", "temperature", "current"))


def small(**settings: object) -> MachineMonitor:
    return MachineMonitor(steps=6, dim=16, depth=1, heads=2, window=8, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["waveform", "trend"])
@pytest.mark.parametrize(("task", "masking"), WAYS)
def test_every_task_and_masking_goes_from_a_record_to_a_monitor_on_disk(
    task: str, masking: str, kind: str, tmp_path: Path
) -> None:
    monitor, recording = small(task=task, masking=masking), machine(kind)
    if (masking, kind) == ("bearing", "trend"):
        with pytest.raises(DataError, match="'bearing' is for waveforms"):
            monitor.fit(recording, normal_share=0.5)
        return
    scores = monitor.fit(recording, normal_share=0.5).score(recording)
    judged = scores[scores["state"] != "cannot judge"]
    told = task in ("masked", "next", "joint")
    own = [p for p in PARTS if told or p != "reconstruction"]
    assert monitor.part_names == (*own, "level")
    assert set(scores.columns) & {*PARTS, "level"} == set(monitor.part_names)
    assert monitor.level_ is not None
    level = np.where(judged["level"] > 3, monitor.threshold_ / 3 * judged["level"], -np.inf)
    expected = np.maximum(judged[own].mean(axis=1), level)
    np.testing.assert_allclose(judged["score"], expected, rtol=1e-9)
    if told:
        assert judged["reconstruction"].std() > 0
    again = MachineMonitor.load(monitor.save(tmp_path / "m"))
    assert again.score(recording)["score"].equals(scores["score"])
    assert (again.task, again.masking) == (task, masking)


def test_a_monitor_of_another_version_whose_mask_remembered_less_is_refused_plainly(tmp_path: Path) -> None:
    monitor = small(masking="adaptive").fit(machine("waveform"), normal_share=0.5)
    tensors, manifest = checkpoints.load(monitor.save(tmp_path / "m"))
    kept = {name: value for name, value in tensors.items() if not name.endswith(".moments")}
    assert len(kept) == len(tensors) - 1
    checkpoints.save(tmp_path / "m", kind=manifest["kind"], tensors=kept, manifest=manifest)
    with pytest.raises(CheckpointError, match=r"m is of another network or version.*moments.*train again"):
        MachineMonitor.load(tmp_path / "m")


@pytest.mark.parametrize("task", get_args(Task))
def test_the_past_alone_decides_whatever_the_task(task: str) -> None:
    recording = machine("waveform")
    values = recording.values.copy()
    values[60:] = 5 * np.random.default_rng(1).normal(size=values[60:].shape)
    later = make("m", values, recording.hours, names=recording.names, fs=recording.fs)
    one, other = (small(task=task).fit(r, normal_share=0.5).score(r)["score"][:60] for r in (recording, later))
    assert one.equals(other)


def test_what_follows_is_read_in_the_order_that_was_learnt() -> None:
    monitor = small(task="next").fit(machine("waveform"), normal_share=0.5)
    picture = torch.randn(1, 2, 64, 8, generator=torch.Generator().manual_seed(0))
    rows, columns = 8, 8
    by_time = torch.arange(rows * columns).view(rows, columns).T.reshape(1, -1)
    with torch.inference_mode():
        tokens = monitor.backbone_.tokens(picture).take(by_time)
        expected = monitor.backbone_.encoder(tokens).mean(dim=1)
        assert torch.equal(monitor.pretext_.embed(monitor.backbone_, picture), expected)
        # Raster order, in which nothing was learnt, gives another vector.
        assert not torch.allclose(monitor.backbone_.embed(picture, "mean"), expected, atol=1e-3)


def test_the_bearing_prior_by_hand() -> None:
    # 12.8 kHz, 8 rows of 800 Hz. Speed unknown: 10 to 1000 Hz and 2 to 10 kHz.
    covered = [790 / 800, 200 / 800, 400 / 800, 1, 1, 1, 1, 1]
    prior = bearing_prior(8, 2, fs=12_800.0).view(8, 2)
    torch.testing.assert_close(prior[:, 0], 1 + 2 * torch.tensor(covered))
    assert torch.equal(prior[:, 0], prior[:, 1])
    # 25 revolutions a second: orders 0.5 to 20 are 12.5 to 500 Hz.
    known = bearing_prior(8, 1, fs=12_800.0, shaft_hz=25.0)
    torch.testing.assert_close(known[:3], 1 + 2 * torch.tensor([487.5 / 800, 0.0, 0.5]))
    # 150 revolutions a second: orders reach 3000 Hz; what both bands cover counts once.
    fast = bearing_prior(8, 1, fs=12_800.0, shaft_hz=150.0)
    torch.testing.assert_close(fast, 1 + 2 * torch.tensor([725 / 800, 1, 1, 1, 1, 1, 1, 1]))


def test_the_bearing_prior_hides_what_it_covers_more_often() -> None:
    monitor = small(masking="bearing", mask_ratio=0.3, shaft_hz=25.0).fit(machine("waveform"), normal_share=0.5)
    tokens = monitor.backbone_.tokens(torch.zeros(2000, 2, 64, 8))
    hidden = torch.bincount(monitor.pretext_.mask(tokens, 5).masked.reshape(-1), minlength=16).view(8, 2) / 2000
    assert float(hidden[1].mean()) < 0.2 < 0.3 < float(hidden[4].mean())  # 800 to 1600 Hz; 3200 to 4000 Hz


def test_an_unknown_task_is_refused_in_one_line() -> None:
    with pytest.raises(DataError, match="there is no task 'jigsaw': choose one of masked, next"):
        small(task="jigsaw").fit(machine("waveform"), normal_share=0.5)


def test_an_interrupted_pretraining_is_not_taken_up_under_another_task(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(point: object, step: int) -> None:
        if step >= 3:
            raise Stop

    recordings = [machine("waveform")]
    with pytest.raises(Stop):
        small().set_params(steps=40).pretrain(recordings, state=tmp_path, log=stop)
    with pytest.raises(CheckpointError, match=r"masking.*random.*sparse|masking.*sparse.*random"):
        small(masking="sparse").set_params(steps=40).pretrain(recordings, state=tmp_path)


def test_the_command_line_names_what_there_is_and_hands_it_on(in_tmp: Path) -> None:
    task, masking = cli_sensors.TaskName, cli_sensors.MaskingName.__origin__
    assert (get_args(task), get_args(masking)) == (get_args(Task), get_args(Masking))
    recording = machine("waveform")
    np.savez(in_tmp / "m.npz", acc=recording.values, t_s=recording.hours * 3600, fs=np.float64(12_800))
    asked = ["--task", "joint", "--masking", "bearing", "--mask-ratio", "0.5", "--shaft-hz", "29.8"]
    done = CliRunner().invoke(
        app, ["sensors", "fit", "m.npz", "--out", "out", "--normal-share", "0.5", "--steps", "3", *asked]
    )
    assert done.exit_code == 0, done.output
    saved = MachineMonitor.load(in_tmp / "out" / "m")
    assert (saved.task, saved.masking, saved.mask_ratio, saved.shaft_hz) == ("joint", "bearing", 0.5, 29.8)
    assert "joint, hiding 50% (bearing)" in (in_tmp / "out" / "report.html").read_text(encoding="utf-8")


def test_what_is_about_time_is_cut_finely_and_a_gap_in_time_has_many_places() -> None:
    recording = machine("waveform")
    monitors = {
        (task, masking): small(task=task, masking=masking).pretrain([recording], normal_share=1.0)
        for task, masking in (("masked", "random"), ("masked", "time"), ("next", "random"), ("order", "random"))
    }
    columns = {way: monitor.backbone_.tokenizer.columns for way, monitor in monitors.items()}  # type: ignore[union-attr]
    assert columns == {("masked", "random"): 2, ("masked", "time"): 8, ("next", "random"): 8, ("order", "random"): 8}
    gap = monitors["masked", "time"]
    pictures = torch.zeros(64, 2, *gap.grid_)
    mask, tokenizer = gap.pretext_.mask, gap.backbone_.tokenizer  # type: ignore[union-attr]
    masks = {tuple(row.tolist()) for row in mask(tokenizer(pictures), 0, tokenizer.patches(pictures)).masked}  # type: ignore[operator]
    assert len(masks) > 5
