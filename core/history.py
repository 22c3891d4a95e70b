"""What is remembered of a training."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unlabeled.core.budget import Budget, Spent


@dataclass
class History:
    """What happened: curves as ``name -> [(step, value), ...]``, how it ended, and what it cost (predicted from its
    first steps, where there were enough of them, and spent; a resumed run keeps its first prediction)."""

    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    seconds: float = 0.0
    steps: int = 0
    resumed_from: int = 0
    best_step: int | None = None
    best_score: float | None = None
    predicted: Budget | None = None
    spent: Spent | None = None

    def add(self, name: str, step: int, value: float) -> None:
        self.curves.setdefault(name, []).append((step, value))

    @staticmethod
    def from_saved(content: Mapping[str, Any]) -> "History":
        """As it was when a training state was written."""
        made = History(**content)
        made.curves = {name: [(at, value) for at, value in curve] for name, curve in made.curves.items()}
        made.predicted = None if content.get("predicted") is None else Budget(**content["predicted"])
        return made
