"""Card payments: what is usual for a card and a merchant, and alerts with reasons."""

from unlabeled.fraud.detector import FraudDetector
from unlabeled.fraud.history_model import Size
from unlabeled.fraud.readers import Transactions, read_table, transactions
from unlabeled.fraud.roles import Roles, infer_roles
from unlabeled.fraud.simulate import simulate

__all__ = ["FraudDetector", "Roles", "Size", "Transactions", "infer_roles", "read_table", "simulate", "transactions"]
