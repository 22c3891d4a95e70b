"""The worked example of docs/new-task.md runs as it stands, learns, and one file and a line bring it to commands."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import unlabeled
from unlabeled.medical import simulate as radiographs
from unlabeled.sensors import simulate as machines

DOCS = Path(__file__).parents[2] / "docs"


def blocks() -> tuple[str, str, str]:
    """The file, the line, and the training."""
    found = re.findall(r"```python\n(.*?)```", (DOCS / "new-task.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    file, line, training = found
    return file, line, training


def test_the_worked_example_of_a_new_task_runs_and_learns() -> None:
    file, _, training = blocks()
    names: dict[str, Any] = {}
    exec(compile(f"{file}\n{training}", "new-task.md", "exec"), names)
    assert names["history"].curves["brighter_half"][-1][1] < 0.5 * math.log(2)


@pytest.mark.integration
def test_one_file_and_one_line_bring_it_to_the_command_line(tmp_path: Path) -> None:
    file, line, _ = blocks()
    package = tmp_path / "src" / "unlabeled"
    shutil.copytree(Path(unlabeled.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "core" / "pretext" / "brighter_half.py").write_text(file)
    listed = package / "core" / "pretext" / "__init__.py"
    before = listed.read_text()
    assert line.count("\n") == 1
    first = before.index("from unlabeled")
    listed.write_text(before[:first] + line + before[first:])
    archive = radiographs.write_archive(tmp_path / "films", patients=20, seed=0)
    for machine in machines.fleet(healthy=1, failing=0, seed=1, plan=machines.Plan(days=12, every_h=3)):
        machines.write(machine, tmp_path / "plant")
    start = "from unlabeled.pipelines.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src"), "OMP_NUM_THREADS": "1"}
    for command in (
        ["medical", "pretrain", str(archive.images), "--size", "32", "--epochs", "2"],
        ["sensors", "fit", "plant", "--normal-share", "0.9", "--steps", "20"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", start, *command, "--task", "brighter-half", "--json"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        report = Path(json.loads(done.stdout)["files"]["report"])
        assert "brighter" in (tmp_path / report).read_text(encoding="utf-8")
    refused = subprocess.run(
        [sys.executable, "-c", start, "medical", "pretrain", str(archive.images), "--size", "32", "--task", "other"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert refused.returncode == 1
    assert "choose one of masked" in refused.stderr
    assert "brighter-half" in refused.stderr
