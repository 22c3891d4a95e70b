"""A small world of payments, and a detector that has learnt its habits."""

import numpy as np
import pandas as pd
import pytest

from unlabeled.fraud import FraudDetector, Size, Transactions, simulate, transactions

TINY = Size(dim=16, depth=1, heads=2, length=16, steps=15, batch_size=8)


@pytest.fixture(scope="session")
def table() -> pd.DataFrame:
    return simulate(customers=25, merchants=24, weeks=6, stolen=12, terminals=2, seed=3)


@pytest.fixture(scope="session")
def parts(table: pd.DataFrame) -> tuple[Transactions, Transactions]:
    """Four weeks to learn from, two to judge."""
    payments = transactions(table)
    cut = payments.time[0] + 28 * 86_400
    return payments.take(payments.time < cut), payments.take(payments.time >= cut)


@pytest.fixture(scope="session")
def pretrained(parts: tuple[Transactions, Transactions]) -> FraudDetector:
    return FraudDetector(size=TINY, random_state=1).pretrain(parts[0])


@pytest.fixture(scope="session")
def detector(parts: tuple[Transactions, Transactions]) -> FraudDetector:
    """Fine-tuned on every label of the first part."""
    return FraudDetector(size=TINY, random_state=1).pretrain(parts[0]).finetune(parts[0])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)
