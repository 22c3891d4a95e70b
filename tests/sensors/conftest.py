"""A small simulated plant, made once."""

import pytest

from unlabeled.sensors import MachineMonitor, Recording, simulate

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
    import copy

    return copy.deepcopy(encoder)
