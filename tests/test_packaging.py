"""What is installed, what is imported, and what it costs."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOMS = ("core", "medical", "sensors", "fraud", "pipelines")
REPOSITORY = Path(__file__).parents[1]


def loaded_after(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter after one statement."""
    code = f"import sys; {statement}; print(' '.join(name for name in sys.modules if '.' not in name))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    return set(done.stdout.split())


def test_the_command_line_starts_without_anything_heavy() -> None:
    loaded = loaded_after("import unlabeled.pipelines.cli")
    assert loaded & {"torch", "pandas", "sklearn", "monai", "mlflow", "pyod", "lightgbm", "matplotlib"} == set()


def test_a_process_that_reads_films_loads_no_more_than_it_needs() -> None:
    """There is one a core, and each would hold its own copy."""
    loaded = loaded_after("import unlabeled.medical.intake._film, unlabeled.medical.intake._workers")
    assert loaded & {"torch", "pandas", "sklearn", "PIL", "scipy"} == set()


@pytest.mark.parametrize("room", ["core", "medical", "sensors", "fraud"])
def test_importing_a_room_loads_no_library_that_it_may_not_need(room: str) -> None:
    loaded = loaded_after(f"import unlabeled.{room}")
    assert (
        loaded & {"monai", "mlflow", "pyod", "lightgbm", "matplotlib", "transformers", "onnx", "onnxruntime"} == set()
    )


def test_the_exchange_of_networks_loads_no_other_library_until_it_writes() -> None:
    loaded = loaded_after("import unlabeled.core.exchange.huggingface, unlabeled.core.exchange.onnx")
    assert loaded & {"transformers", "onnx", "onnxruntime", "onnxscript"} == set()


@pytest.mark.integration
def test_the_wheel_holds_every_module_once_and_its_templates(tmp_path: Path) -> None:
    # From a copy: setuptools leaves a build folder behind, and takes up what an earlier one holds.
    source = tmp_path / "source"
    left = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "mlartifacts", "unlabeled-*")
    shutil.copytree(REPOSITORY, source, symlinks=True, ignore=left)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = [name for name in zipfile.ZipFile(wheel).namelist() if "dist-info" not in name]
    expected = {
        f"unlabeled/{path.relative_to(REPOSITORY)}"
        for room in ROOMS
        for path in (REPOSITORY / room).rglob("*.py")
        if "__pycache__" not in path.parts
    }
    expected |= {"unlabeled/__init__.py", "unlabeled/py.typed", "unlabeled/core/report.html.j2"}
    expected |= {"unlabeled/pipelines/sensors_status.html.j2"}
    assert sorted(held) == sorted(expected)
