"""The main job as a newcomer runs it, and its reports as a reader sees them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

ROOMS = ("medical", "sensors", "fraud")
STEPS = {
    "medical": {"pretrain", "finetune"},
    "sensors": {"pretrain", "backtest"},
    "fraud": {"pretrain", "backtest"},
}


class Demo(NamedTuple):
    folder: Path
    result: dict[str, Any]
    client: MlflowClient


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    command = [sys.executable, "-c", "from unlabeled.pipelines.cli import main; main()", "demo", "--json"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stderr
    return Demo(folder, json.loads(done.stdout), MlflowClient(f"sqlite:///{folder}/mlflow.db"))


def test_every_vertical_is_compared_with_its_baselines(demo: Demo) -> None:
    metrics = [c["metric"] for c in demo.result["comparisons"]]
    for room in ROOMS:
        assert any(metric.startswith(f"{room}: ") for metric in metrics)
        assert (demo.folder / demo.result["files"][f"{room} report"]).is_file()
    baselines = {name.lower() for c in demo.result["comparisons"] for name in c["baselines"]}
    for word in ("scratch", "pca", "rms", "kurtosis", "isolation forest", "lightgbm"):
        assert any(word in name for name in baselines), f"no baseline named {word} among {sorted(baselines)}"


@pytest.mark.parametrize("room", ROOMS)
def test_every_run_has_parameters_metrics_curves_report_and_model(
    demo: Demo, complete: Callable[[Path, str], dict[str, Any]], room: str
) -> None:
    runs = complete(demo.folder, room)
    assert {name.partition(" ")[0] for name in runs} == STEPS[room]
    for name, run in runs.items():
        if name.startswith("pretrain"):
            assert len(demo.client.get_metric_history(run.info.run_id, "loss")) > 2


@pytest.mark.parametrize("room", ROOMS)
def test_a_reader_sees_the_report_whole(demo: Demo, browser: Any, room: str, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 1000, "height": 900})
    complaints: list[str] = []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    path = (demo.folder / demo.result["files"][f"{room} report"]).resolve()
    page.goto(path.as_uri(), wait_until="load")
    images = page.eval_on_selector_all("img", "all => all.map(i => [i.complete, i.naturalWidth, i.alt])")
    assert len(images) >= 2
    assert all(complete and width > 200 and len(alt) > 15 for complete, width, alt in images)
    assert complaints == []
    assert [url for url in asked if not url.startswith(("data:", path.as_uri()))] == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert "Synthetic data" in page.inner_text("body")
    page.screenshot(path=str(tmp_path / "page.png"), full_page=True)
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("L"), dtype=float)
    assert pixels.shape[0] > 900
    assert (pixels < 128).mean() > 0.01, "hardly anything dark: is the page blank?"
    assert pixels.std(axis=1).max() > 20
    page.close()
