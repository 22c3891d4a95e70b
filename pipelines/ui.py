"""Shows the tracked runs with MLflow's own pages."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from unlabeled.core import tracking
from unlabeled.core.errors import DataError
from unlabeled.core.progress import say


def serve(*, port: int, store: Path | None) -> None:
    """Runs MLflow's server on the loopback address until it is stopped.

    Raises:
        DataError: the folder holds no runs, or the server could not start.
    """
    address = tracking.uri()
    if store is not None:
        address = f"sqlite:///{(store / 'mlflow.db').absolute()}"
    path = Path(address.removeprefix("sqlite:///"))
    if address.startswith("sqlite:///") and not path.is_file():
        raise DataError(f"no runs at {path}: run a job here first, or name the folder with --store")
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError as error:
            raise DataError(f"port {port} cannot be used ({error.strerror}): name another with --port") from None
    tracking.prepare()
    say(f"runs of {tracking.uri_shown()} on http://127.0.0.1:{port} (Ctrl-C stops)")
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", address, "-w", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    # Without its job runner MLflow's server takes 0.5 GB instead of 3.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
    # In a session of its own: a Ctrl-C that reached the server too would end it with a page of tracebacks.
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    # Both said outright: a shell that starts this in the background has Ctrl-C ignored.
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = server.wait()
    except KeyboardInterrupt:
        return
    finally:
        _stop(server)
        for number, handler in before.items():
            signal.signal(number, handler)
    if code:
        raise DataError(f"MLflow's server ended with code {code}")


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Asks the server and its workers to end, and ends them if they do not."""
    for ask in (signal.SIGTERM, signal.SIGKILL):
        if server.poll() is None:
            os.killpg(server.pid, ask)
            with suppress(subprocess.TimeoutExpired):
                server.wait(timeout=10)
