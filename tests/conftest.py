"""What all tests share."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from unlabeled.core import progress
from unlabeled.core.hardware import describe_hardware

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real benchmark data beside the checkout; tests that need it skip where it is absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real benchmark data is not at {folder.parent.name}/{folder.name} beside this checkout")
    return folder


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs the test in an empty folder, with the default tracking store there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture
def has_states() -> Callable[[Path], bool]:
    """Whether a running training has kept a state below a folder. Folders come and go while this looks."""

    def look(folder: Path) -> bool:
        try:
            return bool(list(folder.glob("**/step-*/manifest.json")))
        except FileNotFoundError:
            return False

    return look


@pytest.fixture(scope="session")
def complete() -> Callable[[Path, str], dict[str, Any]]:
    """Every run of a room, by name, after a check that each holds what a run must hold."""

    def artifacts(client: Any, run_id: str, folder: str | None = None) -> Iterator[str]:
        for entry in client.list_artifacts(run_id, folder):
            yield from artifacts(client, run_id, entry.path) if entry.is_dir else [entry.path]

    def look(folder: Path, room: str) -> dict[str, Any]:
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
        experiment = client.get_experiment_by_name(f"unlabeled/{room}")
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id])
        hardware = set(describe_hardware())
        for run in runs:
            name, found = run.info.run_name, set(artifacts(client, run.info.run_id))
            assert run.info.status == "FINISHED", name
            assert set(run.data.params) > hardware, f"{name} has no settings of its own"
            longest = max((len(client.get_metric_history(run.info.run_id, m)) for m in run.data.metrics), default=0)
            assert longest > 1, f"{name} has no curve among {sorted(run.data.metrics)}"
            assert "report.html" in found, f"{name} has no report among {sorted(found)}"
            model = [path for path in found if path.startswith("model/")]
            assert any(path.endswith("weights.safetensors") for path in model), f"{name} has no model in {found}"
            verb = name.partition(" ")[0]
            parent = run.data.tags.get("unlabeled.pretraining_run")
            assert (parent is None) == (verb == "pretrain"), f"{name} comes from {parent}"
            assert parent is None or parent in {other.info.run_id for other in runs}
        return {run.info.run_name: run for run in runs}

    return look


@pytest.fixture(autouse=True)
def loud() -> Iterator[None]:
    """Each test starts with notes and bars shown, whatever one before it switched off."""
    progress.quiet(False)
    yield
    progress.quiet(False)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A real one."""
    program = os.environ.get("UNLABELED_BROWSER") or shutil.which("chromium") or shutil.which("google-chrome")
    if not program:
        pytest.skip("no Chromium here: install it, or name one in UNLABELED_BROWSER")
    from playwright.sync_api import sync_playwright

    quiet = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=quiet)
        yield opened
        opened.close()
