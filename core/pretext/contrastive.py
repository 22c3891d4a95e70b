"""Two views of one thing should look alike to the encoder, and unlike those of other things.

Sources: NT-Xent from Chen et al., "A Simple Framework for Contrastive Learning" (SimCLR), ICML 2020; VICReg from
Bardes et al., "Variance-Invariance-Covariance Regularization", ICLR 2022; sub-histories as the two views of a card
from Babaev et al., "CoLES: Contrastive Learning for Event Sequences with Self-Supervision", SIGMOD 2022.

Shape suffixes: b batch, d width.
"""

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.core.encoder import Backbone
from unlabeled.core.pretext.base import Loss, Pretext
from unlabeled.core.seeds import generator

View = Callable[[Tensor, torch.Generator], Tensor]


class TwoViews(Pretext):
    """Draws two views of each item, embeds both and projects them; what is asked of them is the subclass's.

    Under several processes each compares within its own share of the batch.

    Args:
        dim: width of the encoder.
        view: makes a random view of a raw batch, ``view(batch, generator) -> batch`` of the same shape
            (:mod:`unlabeled.core.views`).
        projection: hidden and output width of the projector, which were not measured; it is thrown away after
            pretraining.
        seed: with the step, fixes the views.
    """

    def __init__(self, dim: int, *, view: View, projection: tuple[int, int] = (256, 64), seed: int = 0) -> None:
        super().__init__()
        self.view, self.seed = view, seed
        hidden, out = projection
        self.projector = nn.Sequential(
            nn.Linear(dim, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, out, bias=False)
        )

    def project(self, embedding: Tensor) -> Tensor:
        """What the loss compares: a collapse shows here first."""
        return self.projector(embedding)

    def views(self, backbone: Backbone, batch: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Projected embeddings of both views, (B, D) each; one pass through the encoder."""
        both = [self.view(batch, generator(self.seed, "view", step, number)) for number in (0, 1)]
        projected = self.projector(backbone.embed(torch.cat(both)))
        one, other = projected.chunk(2)
        return one, other

    def loss(self, backbone: Backbone, batch: Tensor, step: int) -> Loss:
        return self.compare(*self.views(backbone, batch, step))

    @abstractmethod
    def compare(self, one_bd: Tensor, other_bd: Tensor) -> Loss:
        """The loss of two sets of projections, row by row the same items."""


class NTXent(TwoViews):
    """Normalised temperature-scaled cross-entropy over the 2B views of a batch.

    ``-log(exp(s(i, j) / t) / sum over k != i of exp(s(i, k) / t))``, averaged over all views i with partner j, where
    s is the cosine. A small temperature punishes the hardest negatives most; few rows a batch want a larger one.

    Args:
        temperature: t, above 0. On radiographs and on vibration 0.1 and 0.2 were alike; 0.5 was lower, on radiographs
            within chance (benchmarks/results/settings.md); beside event modelling of payments 0.1 to 0.5 were alike
            (fraud_tasks.md).
        dim, view, projection, seed: see :class:`TwoViews`.
    """

    def __init__(
        self,
        dim: int,
        *,
        view: View,
        temperature: float = 0.2,
        projection: tuple[int, int] = (256, 64),
        seed: int = 0,
    ) -> None:
        super().__init__(dim, view=view, projection=projection, seed=seed)
        if not 0 < temperature < math.inf:  # not a number is refused as well
            raise ValueError(f"the temperature must be above 0 and finite, got {temperature}")
        self.temperature = temperature

    def compare(self, one_bd: Tensor, other_bd: Tensor) -> Loss:
        b = len(one_bd)
        if b < 2:
            raise ValueError("a contrastive loss needs at least two items a batch: there is nothing to differ from")
        z = F.normalize(torch.cat([one_bd, other_bd]), dim=1)
        similar = z @ z.T / self.temperature
        similar.fill_diagonal_(float("-inf"))
        partner = torch.arange(2 * b, device=z.device).roll(b)
        total = F.cross_entropy(similar, partner)
        right = (similar.detach().argmax(dim=1) == partner).float().mean()
        return Loss(total, {"nt_xent": total.detach(), "matched": right})


class VICReg(TwoViews):
    """Invariance, variance and covariance: no negatives, so that it also works with small batches.

    ``total = invariance x mean((z - z')^2) + variance x (v(z) + v(z')) / 2 + covariance x (c(z) + c(z'))`` with
    ``v(z) = mean over d of max(0, 1 - sqrt(var_d + 1e-4))`` and ``c(z)`` the sum of squared off-diagonal entries of the
    covariance matrix over d. The variance term keeps embeddings from collapsing, the covariance term keeps dimensions
    from saying the same thing.

    Args:
        invariance, variance, covariance: weights. The paper's 25, 25, 1; on radiographs and on vibration 5, 5, 1 and
            100, 100, 1 could not be told apart from them (benchmarks/results/settings.md), beside event modelling of
            payments neither could 5, 25, 1 (fraud_tasks.md).
        dim, view, projection, seed: see :class:`TwoViews`.
    """

    def __init__(
        self,
        dim: int,
        *,
        view: View,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        projection: tuple[int, int] = (256, 128),
        seed: int = 0,
    ) -> None:
        super().__init__(dim, view=view, projection=projection, seed=seed)
        self.weights = (invariance, variance, covariance)
        if not all(0 <= weight < math.inf for weight in self.weights):
            raise ValueError(f"the weights of VICReg must be finite and 0 or above, got {self.weights}")

    def compare(self, one_bd: Tensor, other_bd: Tensor) -> Loss:
        if len(one_bd) < 2:
            raise ValueError("VICReg needs at least two items a batch: one has no variance")
        alike = F.mse_loss(one_bd, other_bd)
        spread = (_spread(one_bd) + _spread(other_bd)) / 2
        shared = _shared(one_bd) + _shared(other_bd)
        invariance, variance, covariance = self.weights
        total = invariance * alike + variance * spread + covariance * shared
        parts = {"invariance": alike, "variance": spread, "covariance": shared}
        return Loss(total, {name: value.detach() for name, value in parts.items()})


def _spread(z_bd: Tensor) -> Tensor:
    return F.relu(1 - (z_bd.var(dim=0) + 1e-4).sqrt()).mean()


def _shared(z_bd: Tensor) -> Tensor:
    b, d = z_bd.shape
    centred = z_bd - z_bd.mean(dim=0)
    covariance = centred.T @ centred / (b - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / d
