"""``unlabeled ui`` serves the runs on this machine only, and stops when asked."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from unlabeled.core import tracking
from unlabeled.core.errors import DataError
from unlabeled.pipelines import ui

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


def ask(port: int) -> dict[str, list[dict[str, str]]]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search",
        data=json.dumps({"max_results": 10}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)


def test_the_runs_are_shown_on_the_loopback_address_until_ctrl_c(in_tmp: Path) -> None:
    with tracking.run("unlabeled/medical", "one", params={"lr": 0.1}) as run:
        run.metrics({"loss": 1.0})
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-c", "from unlabeled.pipelines.cli import main; main()", "ui", "--port", str(port)]
    with (in_tmp / "ui.log").open("w") as log:
        ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts a job in the background
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        signal.signal(signal.SIGINT, ignored)
    try:
        deadline = time.monotonic() + 90
        while True:
            assert server.poll() is None, (in_tmp / "ui.log").read_text()
            assert time.monotonic() < deadline, "the pages did not come up"
            try:
                shown = ask(port)
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                continue
        assert "unlabeled/medical" in {experiment["name"] for experiment in shown["experiments"]}
        if shutil.which("ss"):
            listening = subprocess.run(["ss", "-ltnH", f"sport = :{port}"], capture_output=True, text=True, check=True)
            assert {line.split()[3] for line in listening.stdout.splitlines()} == {f"127.0.0.1:{port}"}
        with pytest.raises(DataError, match=f"port {port} cannot be used .*name another with --port"):
            ui.serve(port=port, store=in_tmp)
        os.killpg(server.pid, signal.SIGINT)
        assert server.wait(timeout=30) == 0
        assert "Traceback" not in (in_tmp / "ui.log").read_text()
        with pytest.raises(urllib.error.URLError):
            ask(port)
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
