"""Ctrl-C in the middle of a job, then the same command again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from unlabeled.core import checkpoints
from unlabeled.fraud.simulate import simulate

pytestmark = pytest.mark.integration


def test_an_interrupted_pretraining_ends_with_130_and_goes_on_where_it_was(
    in_tmp: Path, has_states: Callable[[Path], bool]
) -> None:
    simulate(customers=200, merchants=60, weeks=10, stolen=5, terminals=1).to_parquet(in_tmp / "payments.parquet")
    arguments = ["fraud", "pretrain", "payments.parquet", "--out", "spending", "--steps", "400"]
    command = [sys.executable, "-c", "from unlabeled.pipelines.cli import main; main()", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts a job in the background
    job = subprocess.Popen(command, cwd=in_tmp, stderr=subprocess.PIPE, text=True, env=environment)
    signal.signal(signal.SIGINT, ignored)
    deadline = time.monotonic() + 240
    while not has_states(in_tmp):
        assert job.poll() is None, job.communicate()[1]
        assert time.monotonic() < deadline, "no training state appeared"
    job.send_signal(signal.SIGINT)
    said = job.communicate(timeout=120)[1]
    assert job.returncode == 130, said
    assert "the same command goes on from" in said
    assert "Traceback" not in said
    assert not (in_tmp / "spending").exists()

    again = subprocess.run(
        [*command, "--json"], cwd=in_tmp, capture_output=True, text=True, check=False, env=environment
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["files"]["model"] == "spending"
    assert checkpoints.load(in_tmp / "spending")[0]
    assert not list(in_tmp.glob("**/step-*")), "the training state is left behind"
