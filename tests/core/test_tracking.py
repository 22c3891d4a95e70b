import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from unlabeled.core import tracking
from unlabeled.core.errors import Interrupted

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_a_database_that_cannot_be_opened_costs_no_time_and_no_metric(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{in_tmp}/nowhere/x.db")
    monkeypatch.setattr("mlflow.MlflowClient", None)  # MLflow itself would try for minutes: it is not asked
    with tracking.run("e", "r") as run:
        run.metrics({"loss": 1.0}, 1)
    (kept,) = in_tmp.glob("unlabeled-runs/*/record.jsonl")
    assert '"loss"' in kept.read_text()


def test_a_failed_run_says_what_kind_of_failure_it_was_and_names_nobody(in_tmp: Path) -> None:
    from mlflow import MlflowClient

    with pytest.raises(ValueError, match="Doe"), tracking.run("e", "r") as run:
        raise ValueError("Doe^John")
    found = MlflowClient(f"sqlite:///{in_tmp}/mlflow.db").get_run(run.run_id)
    assert found.info.status == "FAILED"
    assert found.data.tags["unlabeled.error"] == "ValueError"
    assert "Doe" not in str(found.data.tags)


def test_everything_a_job_says_is_in_the_store_when_the_run_closes(in_tmp: Path) -> None:
    (in_tmp / "report.html").write_text("<p>report</p>")
    with tracking.run("unlabeled/test", "one", params={"lr": 0.1}, tags={"data": "abc"}, parent="p" * 32) as run:
        for step in range(2500):
            run.metrics({"loss": 1 / (step + 1), "broken": float("nan")}, step)
        run.artifact(in_tmp / "report.html")
    client = MlflowClient(tracking.uri())
    stored = client.get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.data.params["lr"] == "0.1"
    assert int(stored.data.params["hardware.cores"]) == os.cpu_count()
    assert stored.data.tags["unlabeled.pretraining_run"] == "p" * 32
    assert len(client.get_metric_history(run.run_id, "loss")) == 2500
    assert "broken" not in stored.data.metrics
    assert [a.path for a in client.list_artifacts(run.run_id)] == ["report.html"]
    assert (in_tmp / "mlflow.db").exists()


def test_a_failed_and_an_interrupted_job_are_told_apart(in_tmp: Path) -> None:
    ended = {}
    for error in (RuntimeError, KeyboardInterrupt, Interrupted):
        with pytest.raises(error), tracking.run("unlabeled/test", "one") as run:
            raise error
        ended[error] = MlflowClient(tracking.uri()).get_run(run.run_id).info.status
    assert ended == {RuntimeError: "FAILED", KeyboardInterrupt: "KILLED", Interrupted: "KILLED"}


def test_without_a_server_the_job_goes_on_and_its_record_is_on_disk(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{free_port()}")
    (in_tmp / "report.html").write_text("<p>report</p>")
    with tracking.run("unlabeled/test", "one", params={"lr": 0.1}) as run:
        run.metrics({"loss": 0.5}, 3)
        run.artifact(in_tmp / "report.html")
    folder = in_tmp / "unlabeled-runs" / run.run_id
    record = [json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines()]
    assert [entry["content"][:2] for entry in record if entry["kind"] == "metric"] == [["loss", 0.5]]
    assert record[0]["content"]["lr"] == "0.1"
    assert (folder / "artifacts" / "report.html").exists()
    said = capsys.readouterr().err
    assert "this run's record is in" in said
    assert "secret" not in said


@pytest.mark.integration
def test_a_server_that_dies_in_the_middle_costs_no_metric(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "-w", "1"]
    command += ["--backend-store-uri", f"sqlite:///{in_tmp}/server.db"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (in_tmp / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until_open(port, server)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        with tracking.run("unlabeled/test", "one") as run:
            run.metrics({"loss": 1.0}, 1)
            client = MlflowClient(tracking.uri())
            deadline = time.monotonic() + 30
            while not client.get_metric_history(run.run_id, "loss"):
                assert time.monotonic() < deadline, "the first metric never reached the server"
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
            run.metrics({"loss": 0.5}, 2)
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    record = (in_tmp / "unlabeled-runs" / run.run_id / "record.jsonl").read_text()
    assert '["loss", 0.5' in record


def wait_until_open(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while True:
        assert server.poll() is None, "the server ended by itself"
        assert time.monotonic() < deadline, "the server did not open its port"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
