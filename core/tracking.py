"""Experiment tracking: the only file that knows MLflow's API.

A run is opened and closed in one place, :func:`run`. Metrics are collected and sent in batches by a thread
of their own, so that training never waits for a store. When the store cannot be reached, the run goes on,
everything is kept in a JSON-lines file in the working folder, and the user is told where.
"""

import json
import math
import os
import queue
import shutil
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlabeled import __version__
from unlabeled.core.checkpoints import MANIFEST, read_manifest, replacing
from unlabeled.core.errors import CheckpointError, DataError, Interrupted, UnlabeledError
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.progress import say

if TYPE_CHECKING:
    import pandas as pd

OFFLINE = Path("unlabeled-runs")
_FLUSH_SECONDS = 2.0
# Characters that the registry's tables hold.
_LONGEST_NAME = 256
_LOCAL = ("sqlite:", "file:")


def uri() -> str:
    """Where runs go: ``MLFLOW_TRACKING_URI``, or a SQLite file in the working folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"


class Run:
    """What a job does with its run. Every method returns at once and never raises for want of a store.

    Args:
        client: MLflow's, or ``None`` when there is no store.
        offline: where the record goes without a store; ``None`` for a run that keeps nothing.
    """

    def __init__(self, name: str, run_id: str, client: Any, offline: Path | None) -> None:
        self.name, self.run_id = name, run_id
        self._client, self._offline = client, offline
        self._queue: queue.SimpleQueue[tuple[str, Any] | None] = queue.SimpleQueue()
        self._lost = client is None
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        if offline is not None:
            self._thread.start()

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Points of curves (or single numbers, at step 0). Values that are not finite are left out."""
        now = int(time.time() * 1000)
        for name, value in values.items():
            if math.isfinite(value):
                self._put("metric", (name, float(value), now, step))

    def curve(self, name: str, values: Sequence[float], *, most: int = 400) -> None:
        """A whole curve at once, its steps the positions in ``values``; a long one is thinned to ``most`` points."""
        for step in range(0, len(values), max(1, math.ceil(len(values) / most))):
            self.metrics({name: float(values[step])}, step)

    def params(self, values: Mapping[str, Any]) -> None:
        self._put("params", {name: str(value)[:6000] for name, value in values.items()})

    def tags(self, values: Mapping[str, Any]) -> None:
        self._put("tags", {name: str(value)[:5000] for name, value in values.items()})

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        """A file, or a whole folder, as it is when the run is closed or the queue gets to it."""
        self._put("artifact", (str(path), folder))

    def model(self, saved: str | Path, folder: str = "model") -> None:
        """A saved model: its manifest and the files that this lists. What else lies in its folder (predictions, say, or
        files for an archive that name people) is not for the store, nor is a folder that no manifest describes."""
        saved = Path(saved)
        if (saved / MANIFEST).is_file():
            for name in (MANIFEST, *read_manifest(saved)["sha256"]):
                self.artifact(saved / name, folder)

    def register(self, package: Path, name: str) -> str:
        """Keeps a folder of :func:`package` with this run, as a new version of the registered model ``name``.

        Unlike the others this one waits, and raises: it was asked for by name.

        Returns:
            The version.

        Raises:
            UnlabeledError: the store cannot be reached or refuses the name.
        """
        if self._client is None:
            raise UnlabeledError(f"{name} was not registered: {uri_shown()} cannot be reached")
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

        try:
            self._client.log_artifacts(self.run_id, str(package), artifact_path="model")
            try:
                self._client.create_registered_model(name)
            except MlflowException as error:
                if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                    raise
            source = f"{self._client.get_run(self.run_id).info.artifact_uri}/model"
            return str(self._client.create_model_version(name, source, run_id=self.run_id).version)
        except Exception as error:  # whatever a store, a network or a disk comes up with
            raise UnlabeledError(f"{name} was not registered with {uri_shown()}: {error}") from None

    def close(self, status: str) -> None:
        """Sends what is left and ends the run."""
        self._queue.put(("status", status))
        self._queue.put(None)
        self._thread.join()
        if self._lost:
            say(f"tracking: {uri_shown()} could not be reached; this run's record is in {self._offline}")

    def _put(self, kind: str, content: Any) -> None:
        if self._offline is not None:
            self._queue.put((kind, content))

    def _work(self) -> None:
        """The sending thread: waits for something, lets more gather, sends it all."""
        going = True
        while going:
            items: list[tuple[str, Any]] = []
            deadline = None
            while deadline is None or time.monotonic() < deadline:
                try:
                    item = self._queue.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
                except queue.Empty:
                    break
                if item is None:
                    going = False
                    break
                items.append(item)
                deadline = deadline or time.monotonic() + _FLUSH_SECONDS
            self._send(items)

    def _send(self, items: list[tuple[str, Any]]) -> None:
        if self._client is not None and not self._lost:
            try:
                _send(self._client, self.run_id, items)
            except Exception as error:  # whatever a store, a network or a disk comes up with must not end a training
                self._lost = True
                say(f"tracking: {uri_shown()} stopped answering ({type(error).__name__}); the run goes on without it")
            else:
                return
        self._keep(items)

    def _keep(self, items: list[tuple[str, Any]]) -> None:
        """The same record, on disk; artifacts are copied beside it."""
        assert self._offline is not None
        self._offline.mkdir(parents=True, exist_ok=True)
        with (self._offline / "record.jsonl").open("a", encoding="utf-8") as stream:
            for kind, content in items:
                stream.write(json.dumps({"kind": kind, "content": content}) + "\n")
                if kind == "artifact":
                    source, target = Path(content[0]), self._offline / "artifacts" / (content[1] or "")
                    target.mkdir(parents=True, exist_ok=True)
                    if source.is_dir():
                        shutil.copytree(source, target / source.name, dirs_exist_ok=True)
                    elif source.exists():
                        shutil.copy2(source, target)


@contextmanager
def run(
    experiment: str,
    name: str,
    *,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    parent: str | None = None,
    model: str | None = None,
    inside: str | None = None,
) -> Iterator[Run]:
    """Opens a run, closes it as FINISHED, KILLED (Ctrl-C) or FAILED.

    Args:
        experiment: e.g. ``unlabeled/medical``.
        name: what the user sees in the list.
        params: settings; the hardware and the version are added.
        tags: e.g. data and split fingerprints.
        parent: id of the pretraining run that this one starts from.
        model: id of the run that made the model that is used here.
        inside: id of the run that this one is shown under.
    """
    if os.environ.get("RANK", "0") != "0":  # under torchrun the leading process speaks for all
        yield Run(name, "", None, None)
        return
    origin = {"unlabeled.version": __version__}
    if parent:
        origin["unlabeled.pretraining_run"] = parent
    if model:
        origin["unlabeled.model_run"] = model
    if inside:
        origin["mlflow.parentRunId"] = inside
    client, run_id = _open(experiment, name, {**origin, **(tags or {})})
    offline_id = run_id or f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{name.replace('/', '-').replace(' ', '-')}"
    opened = Run(name, offline_id, client, OFFLINE / offline_id)
    opened.params({**describe_hardware(), **(params or {})})
    try:
        yield opened
    except (KeyboardInterrupt, Interrupted):
        opened.close("KILLED")
        raise
    except BaseException as error:
        opened.tags({"unlabeled.error": type(error).__name__})  # the kind only: its text may name a patient
        opened.close("FAILED")
        raise
    opened.close("FINISHED")


def package(
    folder: Path,
    *,
    script: Path,
    model: Path,
    column: str,
    example: "pd.DataFrame",
    answer: "pd.DataFrame",
    requirements: Sequence[str],
) -> Path:
    """Writes a model for MLflow's own tools: a script that it runs, and our model folder beside it; no pickle.

    Args:
        folder: where; an earlier package is replaced.
        script: sets an MLflow ``PythonModel`` whose artifact ``model`` is our folder.
        model: our folder.
        column: the one column of the input, of any type.
        example: input, and
        answer: what the model says to it; the package must say the same, to 1e-6.
        requirements: what a server must install.

    Raises:
        CheckpointError: the folder is in use, or the package answers something else.
    """
    if folder.exists() and not (folder / "MLmodel").exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"{folder} exists and is not a packaged model: name another folder")
    prepare()
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with replacing(folder) as new, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow remarks on type hints of its own and on how scripts could be written
        import logging

        import mlflow.pyfunc
        from mlflow.models import ModelSignature, infer_signature
        from mlflow.types.schema import AnyType, ColSpec, Schema
        from pandas.testing import assert_frame_equal

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        outputs = infer_signature(model_output=answer).outputs
        mlflow.pyfunc.save_model(
            new,
            python_model=str(script),
            artifacts={"model": str(model)},
            signature=ModelSignature(Schema([ColSpec(AnyType(), column)]), outputs),
            input_example=example,
            pip_requirements=list(requirements),
        )
        try:
            assert_frame_equal(mlflow.pyfunc.load_model(str(new)).predict(example), answer, rtol=0, atol=1e-6)
        except AssertionError as error:
            raise CheckpointError(
                f"the package answers something else than {model} and was not kept: {error}"
            ) from None
    return folder


def prepare() -> None:
    """Settings that must be in the environment before MLflow is imported: no telemetry, and short waits, so
    that a server that is away costs seconds."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")


def check_registered_name(name: str) -> None:
    """Raises a DataError where a registry would refuse a name, so that it is said before a model is made: MLflow's rule
    for registered models, and the length that its databases hold."""
    if not name.strip() or "/" in name or ":" in name or name == "." or name.startswith(".."):
        raise DataError(
            f"a model cannot be registered as '{name}': MLflow takes no empty name, none with / or : in it, and "
            "neither . nor what begins with two of them"
        )
    if len(name) > _LONGEST_NAME:
        raise DataError(f"a model's name in the registry has at most {_LONGEST_NAME} characters, got {len(name)}")


def uri_shown() -> str:
    """The store's address without a password."""
    address = uri()
    if "@" not in address:
        return address
    scheme, _, rest = address.partition("://")
    return f"{scheme}://...@{rest.rpartition('@')[2]}"


def _open(experiment: str, name: str, tags: Mapping[str, str]) -> tuple[Any, str | None]:
    prepare()
    try:
        import logging

        from mlflow import MlflowClient

        _try_sqlite()
        # What stops a store is said in one line of ours; theirs come with tracebacks.
        for chatty in ("mlflow", "alembic", "sqlalchemy"):
            logging.getLogger(chatty).setLevel(logging.CRITICAL)
        client = MlflowClient(tracking_uri=uri())
        found = client.get_experiment_by_name(experiment)
        where = None if found else _artifacts()
        number = found.experiment_id if found else client.create_experiment(experiment, artifact_location=where)
        return client, client.create_run(number, run_name=name, tags=dict(tags)).info.run_id
    except Exception as error:  # no store: say so once and go on
        say(f"tracking: {uri_shown()} cannot be reached ({type(error).__name__}); the run goes on without it")
        return None, None


def _try_sqlite() -> None:
    """A database that cannot be opened is found out at once: MLflow would try again for minutes."""
    address = uri()
    if address.startswith("sqlite:///"):
        import sqlite3

        sqlite3.connect(address.removeprefix("sqlite:///"), timeout=5).close()


def _artifacts() -> str | None:
    """A local store keeps its artifacts beside its database, wherever a later command is run from."""
    address = uri()
    if not address.startswith("sqlite:///"):
        return None
    return (Path(address.removeprefix("sqlite:///")).absolute().parent / "mlartifacts").as_uri()


def _send(client: Any, run_id: str, items: list[tuple[str, Any]]) -> None:
    from mlflow.entities import Metric, Param, RunTag

    metrics = [Metric(*content) for kind, content in items if kind == "metric"]
    params = [Param(k, v) for kind, content in items if kind == "params" for k, v in content.items()]
    tags = [RunTag(k, v) for kind, content in items if kind == "tags" for k, v in content.items()]
    for start in range(0, len(metrics), 900):
        client.log_batch(run_id, metrics=metrics[start : start + 900])
    for start in range(0, max(len(params), len(tags)), 90):
        client.log_batch(run_id, params=params[start : start + 90], tags=tags[start : start + 90])
    for kind, content in items:
        if kind == "artifact":
            path, folder = content
            if Path(path).is_dir():
                client.log_artifacts(run_id, path, artifact_path=folder or Path(path).name)
            else:
                client.log_artifact(run_id, path, artifact_path=folder)
        elif kind == "status":
            client.set_terminated(run_id, status=content)
