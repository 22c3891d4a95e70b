import errno
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from slope import Line
from torch import nn

from unlabeled.core import checkpoints
from unlabeled.core.batches import Batches
from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.errors import BadBatchError, CheckpointError, TrainingError
from unlabeled.core.heads import Classifier
from unlabeled.core.optimization import TrainingSettings, learning_rate, parameter_groups
from unlabeled.core.tokens import GridPatches
from unlabeled.core.training import fit

SCRIPT = Path(__file__).parent / "train_script.py"
# Without GPUs, of which two processes would need two, and which repeat sums to rounding only.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": ""}
WATCHED = {**ENVIRONMENT, "WATCH_EVERY": "7"}


def line_batches(n: int = 32) -> Batches:
    x = np.linspace(-1, 1, n, dtype="float32")
    return Batches(x, 3 * x, batch_size=8)


def start(*arguments: object, environment: dict[str, str] = ENVIRONMENT) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return json.loads(out.splitlines()[-1])


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    limit = threading.Timer(120, process.kill)
    limit.start()
    try:
        for came in process.stdout:
            if came.strip() == line:
                return
    finally:
        limit.cancel()
    raise AssertionError(f"the process ended, or was ended after two minutes, before it printed {line!r}")


def test_settings_that_train_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        TrainingSettings(steps=0)
    with pytest.raises(ValueError, match="at least one row, got batch_size=0"):
        Batches(np.zeros(4), batch_size=0)


def test_learning_rate_by_hand() -> None:
    settings = TrainingSettings(steps=110, lr=1.0, warmup=10 / 110)
    assert learning_rate(0, settings) == pytest.approx(0.1)
    assert learning_rate(9, settings) == pytest.approx(1.0)
    assert learning_rate(10, settings) == pytest.approx(1.0)
    assert learning_rate(60, settings) == pytest.approx(0.5)
    assert learning_rate(109, settings) == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.99)))


def test_training_finds_the_slope() -> None:
    module = Line()
    history = fit(module, line_batches(), settings=TrainingSettings(steps=300, lr=0.1))
    assert module.weight.item() == pytest.approx(3, abs=1e-3)
    assert history.curves["loss"][0][1] > 100 * history.curves["loss"][-1][1]


def test_weight_decay_spares_biases_norms_and_single_rows() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    decayed, spared = parameter_groups(module, 0.05)
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3)]
    assert len(spared["params"]) == 3
    assert spared["weight_decay"] == 0


def test_the_best_validated_weights_are_put_back_and_patience_ends_it() -> None:
    module = Line()
    seen: list[float] = []

    def closeness_to_one() -> float:
        seen.append(module.weight.item())
        return -abs(module.weight.item() - 1)

    history = fit(
        module,
        line_batches(),
        settings=TrainingSettings(steps=500, lr=0.05),
        validate=closeness_to_one,
        validate_every=5,
        patience=3,
    )
    best = min(seen, key=lambda w: abs(w - 1))
    assert module.weight.item() == best
    assert history.steps == history.best_step + 15  # type: ignore[operator]
    assert history.steps < 500


def test_a_loss_that_is_no_number_stops_with_the_step() -> None:
    batches = line_batches()
    batches.arrays[0][batches.rows_at(13)[0]] = np.nan  # type: ignore[index]
    first = min(step for step in range(14) if np.isnan(batches.arrays[0][batches.rows_at(step)]).any())  # type: ignore[index]
    with pytest.raises(TrainingError, match=f"the loss was nan at step {first}"):
        fit(Line(), batches, settings=TrainingSettings(steps=100))


def test_the_rows_of_a_bad_batch_are_named_and_saved(tmp_path: Path) -> None:
    batches = line_batches()
    spoilt = int(batches.rows_at(13)[0])
    batches.arrays[0][spoilt] = np.inf  # type: ignore[index]
    state, path = tmp_path / ".run", tmp_path / "run-bad-batch.json"
    with pytest.raises(BadBatchError, match=re.escape(f"rows saved in {path}")) as caught:
        fit(Line(), batches, settings=TrainingSettings(steps=100, checkpoint_every=1, log_every=50), state=state)
    saved = json.loads(path.read_text())
    assert saved["rows"] == caught.value.rows == batches.rows_at(caught.value.step).tolist()
    assert saved["step"] == caught.value.step
    assert spoilt in saved["rows"]
    # No state holds the weights after it.
    assert max(folder.name for folder in state.iterdir()) == f"step-{saved['step']:09d}"
    with pytest.raises(BadBatchError, match="they are this error's rows") as caught:
        fit(Line(), batches, settings=TrainingSettings(steps=100))
    assert caught.value.rows == saved["rows"]


def test_a_bad_batch_that_cannot_be_saved_still_says_which_rows_and_why(tmp_path: Path) -> None:
    batches = line_batches()
    batches.arrays[0][batches.rows_at(0)[0]] = np.nan  # type: ignore[index]
    # Nothing can be written below a device.
    (tmp_path / "folder").symlink_to("/dev/full")
    with pytest.raises(BadBatchError, match=r"the loss was nan at step 0.*could not be saved") as caught:
        fit(Line(), batches, settings=TrainingSettings(steps=4), state=tmp_path / "folder" / "run")
    rows = batches.rows_at(0).tolist()
    assert caught.value.rows == rows
    assert f"rows {', '.join(map(str, rows))};" in str(caught.value)


def fill_disk(monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    """Lets so many training states be written and no more."""
    save, left = checkpoints.save, [after]

    def fails(*given: Any, **named: Any) -> Path:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return save(*given, **named)

    monkeypatch.setattr(checkpoints, "save", fails)


def test_a_full_disk_does_not_end_the_training_and_keeps_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, plain = Line(), Line()
    kept: list[list[str]] = []

    def log(values: dict[str, float], step: int) -> None:
        kept.append(sorted(f.name for f in (tmp_path / "state").iterdir()) if step == 95 else [])

    fill_disk(monkeypatch, after=1)
    settings = TrainingSettings(steps=100, checkpoint_every=10, log_every=5)
    fit(module, line_batches(), settings=settings, state=tmp_path / "state", log=log)
    fit(plain, line_batches(), settings=settings)
    assert torch.equal(module.weight, plain.weight)
    assert ["step-000000010"] in kept
    said = capsys.readouterr().err
    assert said.count("could not be saved") == 1
    assert "the training state of step 20" in said
    assert "No space left on device" in said
    assert "the one of step 10 stays, and training goes on" in said


def test_what_the_writer_of_weights_makes_of_a_full_disk_is_an_error_of_the_system(tmp_path: Path) -> None:
    code = (
        "import resource, sys, torch; from unlabeled.core import checkpoints\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))\n"
        "try: checkpoints.save(sys.argv[1], kind='k', tensors={'a': torch.zeros(100_000)}, manifest={})\n"
        "except OSError as error: print(error.errno, error.strerror, error.filename)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "m")], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{errno.EFBIG} {os.strerror(errno.EFBIG)} ")
    assert done.stdout.rstrip().endswith("weights.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_training_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(Line(), line_batches(), settings=TrainingSettings(steps=3))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.integration
def test_a_killed_run_goes_through_the_same_losses_when_started_again(tmp_path: Path) -> None:
    whole = result(start(tmp_path / "whole", 40))
    cut = start(tmp_path / "cut", 40, 27)
    wait_for(cut, "step 27")
    cut.send_signal(signal.SIGKILL)
    cut.communicate(timeout=120)
    again = result(start(tmp_path / "cut", 40))
    assert again["from"] == 20
    assert again["curve"] == whole["curve"]
    assert again["weights"] == whole["weights"]


@pytest.mark.integration
def test_a_killed_run_has_the_watch_curve_of_one_that_was_not(tmp_path: Path) -> None:
    whole = result(start(tmp_path / "whole", 40, environment=WATCHED))
    cut = start(tmp_path / "cut", 40, 27, environment=WATCHED)
    wait_for(cut, "step 27")
    cut.send_signal(signal.SIGKILL)
    cut.communicate(timeout=120)
    again = result(start(tmp_path / "cut", 40, environment=WATCHED))
    assert again["from"] == 21  # a healthy look keeps a state
    assert [step for step, _ in whole["watch"]] == [0, 7, 14, 21, 28, 35, 40]
    for what in ("watch", "curve", "weights"):
        assert again[what] == whole[what]


@pytest.mark.integration
def test_ctrl_c_saves_where_it_is_even_between_two_points_of_the_curve(tmp_path: Path) -> None:
    whole = result(start(tmp_path / "whole", 30))
    cut = start(tmp_path / "cut", 30, 13)
    wait_for(cut, "step 13")
    cut.send_signal(signal.SIGINT)
    cut.communicate("go on\n")
    assert cut.returncode != 0
    again = result(start(tmp_path / "cut", 30))
    assert again["from"] == 14
    assert again["curve"] == whole["curve"]
    assert again["weights"] == whole["weights"]


def cut_weights(state: Path) -> None:
    weights = state / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])


@pytest.mark.integration
@pytest.mark.parametrize(
    "damage",
    [
        cut_weights,
        lambda state: (state / "manifest.json").unlink(),
        lambda state: (state / "manifest.json").write_text("[]"),
        lambda state: (state / "manifest.json").write_text('{"format": "unlabeled/1", "kind": "core.TrainingState"}'),
    ],
    ids=["weights cut", "no manifest", "no object", "no checksums"],
)
def test_a_damaged_state_falls_back_to_the_one_before(damage: Callable[[Path], object], tmp_path: Path) -> None:
    cut = start(tmp_path / "cut", 40, 35)
    wait_for(cut, "step 35")
    cut.send_signal(signal.SIGKILL)
    cut.communicate(timeout=120)
    newest = max((tmp_path / "cut").glob("step-*"))
    damage(newest)
    again = result(start(tmp_path / "cut", 40))
    assert again["from"] == int(newest.name.removeprefix("step-")) - 10


@pytest.mark.integration
def test_the_state_of_another_run_is_refused_with_the_difference(tmp_path: Path) -> None:
    cut = start(tmp_path / "cut", 40, 15)
    wait_for(cut, "step 15")
    cut.send_signal(signal.SIGKILL)
    cut.communicate(timeout=120)
    with pytest.raises(CheckpointError, match=r"settings.steps: saved 40, now 41.* Delete"):
        fit(Line(), line_batches(), settings=TrainingSettings(steps=41), state=tmp_path / "cut")


@pytest.mark.integration
def test_two_processes_under_torchrun_end_with_the_same_weights(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", str(SCRIPT)]
    done = subprocess.run(
        [*command, str(tmp_path / "state"), "20"],
        capture_output=True,
        text=True,
        env=WATCHED,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ended = {
        entry["rank"]: entry for entry in map(json.loads, (x for x in done.stdout.splitlines() if x.startswith("{")))
    }
    assert set(ended) == {0, 1}
    assert ended[0]["weights"] == ended[1]["weights"]
    assert ended[0]["curve"][-1][1] < ended[0]["curve"][0][1]
    assert ended[0]["watch"] == ended[1]["watch"]
    assert [step for step, _ in ended[0]["watch"]] == [0, 7, 14, 20]


def workers(launcher: int) -> dict[int, int]:
    """Process ids of the workers below a launcher of ``torchrun``, by rank."""
    found, left = {}, [launcher]
    while left:
        pid = left.pop()
        left += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        settings = dict(
            item.split("=", 1) for item in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in item
        )
        if pid != launcher and "LOCAL_RANK" in settings:
            found[int(settings["LOCAL_RANK"])] = pid
    return found


@pytest.mark.integration
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the workers in /proc")
@pytest.mark.parametrize("struck", [0, 1])
def test_a_killed_worker_ends_the_run_and_the_same_command_goes_on(struck: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", str(SCRIPT)]

    def run(folder: str, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, str(tmp_path / folder), "40", *more],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=ENVIRONMENT,
        )  # fmt: skip

    def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
        out, _ = process.communicate(timeout=180)
        assert process.returncode == 0
        return next(found for x in out.splitlines() if x.startswith("{") and (found := json.loads(x))["rank"] == 0)

    cut = run("cut", "27")
    assert cut.stdout is not None
    for _ in range(2):
        wait_for(cut, "step 27")
    os.kill(workers(cut.pid)[struck], signal.SIGKILL)
    cut.communicate(timeout=180)
    assert cut.returncode != 0
    again, whole = ended(run("cut")), ended(run("whole"))
    assert again["from"] == 20
    assert again["curve"] == whole["curve"]
    assert again["weights"] == whole["weights"]


def test_shares_of_a_batch_make_up_the_batch() -> None:
    batches = Batches(np.arange(40), batch_size=10, seed=1)
    whole = batches.at(5)[0]
    shares = [batches.at(5, rank=r, world=3)[0] for r in range(3)]
    assert sorted(torch.cat(shares).tolist()) == whole.tolist()


def test_class_weights_enter_the_classifier_s_loss_as_in_the_formula() -> None:
    torch.manual_seed(0)
    backbone = Backbone(GridPatches(grid=(8, 8), patch=(4, 4), dim=16), Encoder(dim=16, depth=1, heads=2))
    model = Classifier(backbone, class_weights=torch.tensor([3.0, 1.0])).eval()
    x, y = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 1, 1])
    p = model.logits(x).softmax(dim=1)
    by_hand = -(3 * p[0, 0].log() + p[1, 1].log() + p[2, 1].log() + p[3, 1].log()) / 6
    assert torch.isclose(model((x, y), 0).total, by_hand)
