"""Promises that are easily broken unseen: nothing half-written, nothing unpickled, ties, every batch its own draw."""

import json
import os
import pickle
import threading
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from slope import Line

from unlabeled.core import checkpoints, evaluation, tracking
from unlabeled.core.batches import Batches
from unlabeled.core.report import Report, Verdict, plot_curves
from unlabeled.core.training import TrainingSettings, fit


def save(folder: Path, value: float) -> Path:
    return checkpoints.save(folder, kind="k", tensors={"a": torch.full((2,), value)}, manifest={})


def test_a_model_that_cannot_be_moved_into_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, replace = save(tmp_path / "model", 1.0), os.replace

    def fails_for_the_new(source: Path, target: Path) -> None:
        if ".new-" in str(source):
            raise OSError("disk full")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails_for_the_new)
    with pytest.raises(OSError, match="disk full"):
        save(folder, 2.0)
    assert checkpoints.load(folder)[0]["a"][0] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_text_that_cannot_be_moved_into_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = checkpoints.write_atomically(tmp_path / "scores.csv", "old")

    def fails(source: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="disk full"):
        checkpoints.write_atomically(path, "new")
    assert path.read_text() == "old"


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_loading_a_model_never_unpickles(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", 1.0)
    weights, manifest = folder / "weights.safetensors", json.loads((folder / "manifest.json").read_text())
    weights.write_bytes(pickle.dumps(Trap(tmp_path / "ran")))
    manifest["sha256"]["weights.safetensors"] = sha256(weights.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(Exception, match="header"):
        checkpoints.load(folder)
    assert not (tmp_path / "ran").exists()


def test_metrics_go_out_in_batches() -> None:
    sent: list[int] = []

    class Client:
        def log_batch(self, run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
            sent.append(len(metrics))

    tracking._send(Client(), "r", [("metric", ("loss", 1.0, 0, step)) for step in range(2000)])
    assert sent == [900, 900, 200]


def test_ties_by_hand() -> None:
    # Three tie at .5, one of them positive: recall 1/2 at precision 1/3; the other at .1: recall 1 at 2/4.
    y, s = np.array([1, 0, 0, 1]), np.array([0.5, 0.5, 0.5, 0.1])
    assert evaluation.average_precision(y, s) == pytest.approx(1 / 2 * 1 / 3 + 1 / 2 * 1 / 2)
    assert evaluation.average_precision(y[::-1], s[::-1]) == evaluation.average_precision(y, s)
    assert evaluation.false_alarms_at_recall(y, s, recall=0.5) == 2
    assert evaluation.recall_at_false_positive_rate(y, s, rate=0.0) == 0.0


def test_whatever_place_a_malicious_name_gets_to_it_stays_text() -> None:
    evil = "<script>alert(1)</script>"
    report = Report(evil, evil, Verdict(evil), facts={evil: evil}, run_id=evil)
    section = report.section(evil).text(evil).note(evil)
    section.table([evil], [[evil]], note=evil)
    section.figure(plot_curves({"loss": [(1, 2.0), (2, 1.0)]}), evil)
    page = report.html()
    assert "<script" not in page
    assert "@import" not in page


def test_every_batch_is_augmented_by_a_draw_of_its_own() -> None:
    def noise(batch: tuple[torch.Tensor, ...], draw: torch.Generator) -> tuple[torch.Tensor, ...]:
        return (torch.rand(batch[0].shape, generator=draw),)

    batches = Batches(np.zeros((8, 2)), batch_size=8, transform=noise)
    assert not torch.equal(batches.at(0)[0], batches.at(1)[0])


def test_the_best_weights_outlive_an_interruption(tmp_path: Path) -> None:
    x = np.linspace(-1, 1, 32, dtype="float32")

    def train(state: Path, stop: int | None = None) -> float:
        module = Line()

        def log(values: dict[str, float], step: int) -> None:
            if step == stop:
                raise KeyboardInterrupt

        fit(
            module,
            Batches(x, 3 * x, batch_size=8),
            settings=TrainingSettings(steps=200, lr=0.1, checkpoint_every=10),
            validate=lambda: -abs(module.weight.item() - 1),
            validate_every=5,
            state=state,
            log=log,
        )
        return module.weight.item()

    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", stop=150)
    assert train(tmp_path / "cut") == whole


def test_a_slow_store_never_holds_up_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, answered = threading.Event(), threading.Event()

    def send(*given: object) -> None:
        answered.set() if answers.wait(60) else None

    monkeypatch.setattr(tracking, "_send", send)
    run = tracking.Run("one", "id", object(), tmp_path)
    run.metrics({"loss": 1.0}, 1)
    assert not answered.is_set()  # the job is here, and the store has not answered yet
    answers.set()
    run.close("FINISHED")
    assert answered.is_set()
