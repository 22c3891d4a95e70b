"""A small simulated plant, made once."""

import copy
from pathlib import Path

import pandas as pd
import pytest
from monitoring import put

from unlabeled.sensors import MachineMonitor, Recording, read, simulate

PLAN = simulate.Plan(days=24, every_h=3, fault_days=6)


@pytest.fixture(scope="session")
def plant() -> list[Recording]:
    """Three machines that stay well and one that fails after 24 days."""
    return simulate.fleet(healthy=3, failing=1, seed=3, plan=PLAN)


@pytest.fixture(scope="session")
def encoder(plant: list[Recording]) -> MachineMonitor:
    """Pretrained on two of the well machines."""
    return MachineMonitor(steps=40, dim=32, depth=2).pretrain(plant[:2], normal_share=0.5)


@pytest.fixture
def fresh(encoder: MachineMonitor) -> MachineMonitor:
    """The encoder in a monitor of its own."""
    return copy.deepcopy(encoder)


@pytest.fixture(scope="session")
def fitted(plant: list[Recording], encoder: MachineMonitor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "pump7"
    copy.deepcopy(encoder).fit(plant[3], normal_share=0.5).save(folder)
    return folder.parent


@pytest.fixture
def job_file(fitted: Path, tmp_path: Path) -> Path:
    (tmp_path / "incoming").mkdir()
    path = tmp_path / "job.toml"
    path.write_text(
        f'models = "{fitted}"\nevery_seconds = 0.05\n\n'
        '[[folders]]\npath = "incoming"\nasset = "pump7"\nsettled_seconds = 0\n'
    )
    return path


@pytest.fixture(scope="session")
def expected(plant: list[Recording], fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """What scoring the whole record at once says."""
    whole = put(plant[3], slice(None), tmp_path_factory.mktemp("whole"), "pump7")
    return MachineMonitor.load(fitted / "pump7").score(read(whole)[0])
