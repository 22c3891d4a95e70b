"""Several tasks at once on the same batch, weighted: for instance masked reconstruction with a contrastive task.

Source: hard parameter sharing (Caruana, "Multitask Learning", Machine Learning 28, 1997) with fixed weights; masked
reconstruction beside a contrastive task as in Huang et al., "Contrastive Masked Autoencoders are Stronger Vision
Learners" (CMAE), TPAMI 2023.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from unlabeled.core.encoder import Backbone
from unlabeled.core.pretext.base import Loss, Pretext


class Joint(Pretext):
    """``total = sum over tasks of weight x loss``; every part of every task is in the curves as ``task.part``.

    Each task draws its own masks or views of the one raw batch, of whatever shape the backbone takes, and its loss
    keeps its own unit: a weight is a rate of exchange. That of a second task beside masked reconstruction or event
    modelling (0.1; 0.03 and 0.3 were no better) was measured: benchmarks/results/settings.md and fraud_tasks.md.

    Args:
        tasks: by name, each with its weight (above 0).

    Raises:
        ValueError: no task, or a weight that is not above 0 and finite.
    """

    def __init__(self, tasks: Mapping[str, tuple[Pretext, float]]) -> None:
        super().__init__()
        if not tasks or not all(0 < weight < math.inf for _, weight in tasks.values()):
            raise ValueError("a joint task needs at least one task, each with a finite weight above 0")
        self.tasks = nn.ModuleDict({name: task for name, (task, _) in tasks.items()})
        self.weights = {name: weight for name, (_, weight) in tasks.items()}
        # What is particular to one of them, where one has such a thing.
        own = [task.remedies for task, _ in tasks.values() if task.remedies != Pretext.remedies]
        self.remedies = own[0] if own else Pretext.remedies

    def project(self, embedding: Tensor) -> Tensor:
        """The projection of the first task that has one of its own."""
        for task in self.tasks.children():
            if isinstance(task, Pretext) and task.projects:
                return task.project(embedding)
        return embedding

    @property
    def projects(self) -> bool:
        return any(isinstance(task, Pretext) and task.projects for task in self.tasks.children())

    def loss(self, backbone: Backbone, batch: Tensor, step: int) -> Loss:
        total, parts = torch.zeros((), device=batch.device), dict[str, Tensor]()
        for name, task in self.tasks.items():
            assert isinstance(task, Pretext)
            found = task.loss(backbone, batch, step)
            total = total + self.weights[name] * found.total
            parts |= {f"{name}.{part}": value for part, value in found.parts.items()}
        return Loss(total, parts)
