"""The contract of a pretext task."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from unlabeled.core.encoder import Backbone

LOWER_RATE = "a lower learning rate (--learning-rate, lr)"


class Loss(NamedTuple):
    """A scalar to minimise, and the named scalars that it is made of (detached, for the curves)."""

    total: Tensor
    parts: dict[str, Tensor]


class Pretext(nn.Module, ABC):
    """A question whose answer is already in the data.

    A task owns its prediction head (its parameters), reads the backbone that it teaches, and draws all
    of its randomness from ``step`` and a seed, so that a resumed run repeats what an uninterrupted one does.

    Attributes:
        name: under which the rooms offer a task that they do not know themselves; empty for those that they do.
        remedies: the two settings to try when the embeddings collapse under this task, in words and by the names that
            they have in commands and in Python.
    """

    name: str = ""
    remedies: tuple[str, str] = (LOWER_RATE, "another task (--task, task)")

    @classmethod
    def make(cls, backbone: Backbone, *, seed: int) -> "Pretext":
        """The task with its defaults, as a room makes one that it knows by ``name`` alone; a task that takes something
        else than the encoder's width and a seed overrides this."""
        return cls(backbone.encoder.dim, seed=seed)

    @abstractmethod
    def loss(self, backbone: Backbone, batch: Tensor, step: int) -> Loss:
        """The loss of one batch at one step."""

    def embed(self, backbone: Backbone, batch: Tensor) -> Tensor:
        """What the backbone makes of a raw batch, (B, D). A task that has it read otherwise overrides this."""
        return backbone.embed(batch)

    def project(self, embedding_bd: Tensor) -> Tensor:
        """What the task compares in place of the embedding (B, D): a contrastive task's projections (B, P), say.

        A task that has such a thing overrides this, because a collapse shows there first.
        """
        return embedding_bd

    @property
    def projects(self) -> bool:
        """Whether :meth:`project` gives anything else than the embedding."""
        return type(self).project is not Pretext.project


class Pretraining(nn.Module):
    """A backbone and its pretext task as one trainable module: ``forward(batch, step) -> Loss``."""

    def __init__(self, backbone: Backbone, pretext: Pretext) -> None:
        super().__init__()
        self.backbone, self.pretext = backbone, pretext

    def forward(self, batch: tuple[Tensor, ...], step: int) -> Loss:
        return self.pretext.loss(self.backbone, batch[0], step)
