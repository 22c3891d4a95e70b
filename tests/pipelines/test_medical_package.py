"""``unlabeled medical package``: MLflow's own tools open it, in another process, and get the same numbers."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unlabeled.core import tracking
from unlabeled.core.errors import CheckpointError, DataError, UnlabeledError
from unlabeled.medical import ImageSet, PneumoniaModel, read_images, simulate
from unlabeled.medical.serving import ANSWERED
from unlabeled.pipelines import _medical_package as jobs

# MLflow and what it loads warn about their own future.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def films(small_archive: simulate.Simulated) -> ImageSet:
    return read_images(small_archive.images, size=32).take(range(4))


@pytest.fixture(scope="module")
def cells(small_archive: simulate.Simulated, films: ImageSet) -> list[Any]:
    """Two files in base64 and two nested arrays."""
    files = [base64.b64encode((small_archive.images / name).read_bytes()).decode() for name in films.ids[:2]]
    return [*files, *(image.tolist() for image in films.images[2:])]


@pytest.fixture(scope="module")
def expected(small_model: Path, films: ImageSet) -> np.ndarray:
    return PneumoniaModel.load(small_model).score(films)


@pytest.fixture(scope="module")
def packaged(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    done = jobs.package(small_model, out=tmp_path_factory.mktemp("packages") / "package")
    return done.files["package"]


LOADED = """
import json, sys, mlflow.pyfunc, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
answer = model.predict(pd.DataFrame({"image": json.load(sys.stdin)}))
json.dump(answer.to_dict("list"), sys.stdout)
"""


def answered(address: str, cells: list[Any], **environment: str) -> dict[str, list[Any]]:
    """What a fresh process gets that knows nothing but MLflow."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, address],
        input=json.dumps(cells),
        env={**os.environ, **QUIET, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    found: dict[str, list[Any]] = json.loads(done.stdout)
    return found


def test_a_fresh_process_gets_the_same_probabilities(packaged: Path, cells: list[Any], expected: np.ndarray) -> None:
    answer = answered(str(packaged), cells)
    np.testing.assert_allclose(answer["probability"], expected, atol=1e-6)
    pairs = zip(answer["probability"], answer["threshold"], strict=True)
    assert answer["call"] == ["pneumonia" if p >= t else "no pneumonia" for p, t in pairs]


def test_a_package_holds_no_pickle_and_says_what_goes_in_and_out(packaged: Path) -> None:
    from mlflow.models import Model

    files = {path.relative_to(packaged).as_posix() for path in packaged.rglob("*") if path.is_file()}
    assert {"artifacts/model/weights.safetensors", "artifacts/model/manifest.json", "mlflow_model.py"} <= files
    assert {Path(name).suffix for name in files} == {".safetensors", ".json", ".py", ".txt", ".yaml", ""}
    assert not any((packaged / name).read_bytes().startswith((b"\x80", b"PK")) for name in files)
    signature = Model.load(str(packaged)).signature
    assert signature.inputs.input_names() == ["image"]
    assert signature.outputs.input_names() == list(ANSWERED)
    required = (packaged / "requirements.txt").read_text().split()
    assert all("==" in line and "+" not in line for line in required)
    assert {line.partition("==")[0] for line in required} >= {"unlabeled", "mlflow", "torch", "pydicom"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(packaged: Path) -> Iterator[str]:
    """MLflow serving the package on this machine; its address. Ends without anything left running."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(packaged), "--env-manager", "local"]
    command += ["-h", "127.0.0.1", "-p", str(port)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # it starts uvicorn by name
    log = packaged.parent / "server.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, env={**os.environ, **QUIET, "PATH": path}, stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 180
        while not ready(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
        # The command ends at once, the server that it started when it has answered everybody.
        deadline = time.monotonic() + 60
        while ready(port):
            if time.monotonic() > deadline:
                os.killpg(process.pid, signal.SIGKILL)
                raise AssertionError(f"the server did not end when asked to: {log.read_text()}")
            time.sleep(0.1)


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def post(address: str, content: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        address, data=json.dumps(content).encode(), headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_a_server_answers_the_same_in_every_form_of_table(server: str, cells: list[Any], expected: np.ndarray) -> None:
    for content in (
        {"dataframe_split": {"columns": ["image"], "data": [[cell] for cell in cells]}},
        {"dataframe_records": [{"image": cell} for cell in cells]},
        {"inputs": [{"image": cell} for cell in cells]},
    ):
        status, answer = post(server, content)
        assert status == 200, answer
        rows = answer["predictions"]
        assert [set(row) for row in rows] == [set(ANSWERED)] * len(cells)
        np.testing.assert_allclose([row["probability"] for row in rows], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"picture": "x"}, "missing inputs ['image']. Note that there were extra inputs: ['picture']"),
        ({"image": "not base64!"}, "row 0: image is not base64"),
        ({"image": base64.b64encode(b"hello").decode()}, "row 0: not an image"),
        ({"image": [[1, 2], [3, 4]]}, "row 0: image is an array of shape (2, 2), expected (32, 32)"),
    ],
)
def test_a_server_says_what_is_wrong_without_a_stack_trace(server: str, record: dict[str, Any], said: str) -> None:
    status, answer = post(server, {"dataframe_records": [record]})
    assert status == 400
    assert said in answer["message"]
    assert "Traceback" not in json.dumps(answer)


def test_registering_makes_versions_that_load(
    small_model: Path, cells: list[Any], expected: np.ndarray, in_tmp: Path
) -> None:
    first = jobs.package(small_model, out=in_tmp / "p", register="lungs")
    again = jobs.package(small_model, out=in_tmp / "p", register="lungs")
    assert [done.details["version"] for done in (first, again)] == ["1", "2"]
    store = f"sqlite:///{in_tmp}/mlflow.db"
    answer = answered("models:/lungs/2", cells, MLFLOW_TRACKING_URI=store)
    np.testing.assert_allclose(answer["probability"], expected, atol=1e-6)


def test_a_store_that_is_away_costs_the_registration_only(
    small_model: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{free_port()}")
    with pytest.raises(UnlabeledError, match="lungs was not registered") as failed:
        jobs.package(small_model, out=in_tmp / "p", register="lungs")
    assert "secret" not in str(failed.value)
    assert (in_tmp / "p" / "MLmodel").exists()


def test_what_must_not_be_packaged_is_refused(small_model: Path, in_tmp: Path) -> None:
    (in_tmp / "used").mkdir()
    (in_tmp / "used" / "thesis.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="is not a packaged model"):
        jobs.package(small_model, out=in_tmp / "used")
    assert (in_tmp / "used" / "thesis.txt").read_text() == "mine"
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32), dtype=np.uint8)
    unlabelled = PneumoniaModel(image_size=32, dim=16, depth=1, heads=2, pretrain_epochs=1).pretrain(images)
    with pytest.raises(DataError, match="has not seen labels yet"):
        jobs.package(unlabelled.save(in_tmp / "pretrained"), out=in_tmp / "p")
    assert not (in_tmp / "p").exists()


@pytest.mark.parametrize(
    "name", ["lungs", "a b", "lungs-0.1", "..", ".", "..a", ".a", "a/b", "a:b", "", " ", "a..b", "ä", "%"]
)
def test_names_are_refused_early_where_mlflow_would_refuse_them_and_nowhere_else(
    name: str, small_model: Path, in_tmp: Path
) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.validation import _validate_model_name

    try:
        _validate_model_name(name)
    except MlflowException:
        with pytest.raises(DataError, match="cannot be registered"):
            jobs.package(small_model, out=in_tmp / "p", register=name)
        assert not list(in_tmp.iterdir())
    else:
        tracking.check_registered_name(name)


def test_a_name_that_the_registry_s_tables_cannot_hold_is_refused() -> None:
    with pytest.raises(DataError, match="at most 256 characters"):
        tracking.check_registered_name("a" * 257)
