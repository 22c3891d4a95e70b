"""What replaces the pretext head once labels are at hand."""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.core.encoder import Backbone
from unlabeled.core.pretext.base import Loss


class Classifier(nn.Module):
    """A linear layer on the normalised embedding; fine-tuned together with the backbone.

    Trainable as it stands: ``forward((inputs, labels), step) -> Loss`` is the cross-entropy, in which each
    class weighs the same in total when ``class_weights`` are its inverse frequencies.

    Args:
        backbone: pretrained, or fresh for a from-scratch baseline.
        classes: number of classes.
        class_weights: (classes,) or ``None``.
        label_smoothing: mass given to the other classes (Szegedy et al., 2016).
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        classes: int = 2,
        class_weights: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.backbone, self.classes, self.label_smoothing = backbone, classes, label_smoothing
        self.norm = nn.LayerNorm(backbone.encoder.dim)
        self.linear = nn.Linear(backbone.encoder.dim, classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("class_weights", torch.ones(classes) if class_weights is None else class_weights)

    def logits(self, inputs: Tensor) -> Tensor:
        """Raw batch -> (B, classes)."""
        return self.linear(self.norm(self.backbone.embed(inputs)))

    def forward(self, batch: tuple[Tensor, ...], step: int) -> Loss:
        inputs, labels = batch
        total = F.cross_entropy(
            self.logits(inputs),
            labels,
            weight=self.get_buffer("class_weights"),
            label_smoothing=self.label_smoothing,
        )
        return Loss(total, {"cross_entropy": total.detach()})


class SeveralLabels(nn.Module):
    """A :class:`Classifier` for each of several labels, on one backbone that all of them teach.

    Trainable as it stands: ``forward((inputs, labels), step) -> Loss`` with labels (B, K) is the mean over labels of
    each one's cross-entropy over the rows on which it is known (-1: it is not); a label that is known on no row of the
    batch is left out.

    Args:
        backbone: pretrained, or fresh.
        class_weights: (classes,) for each label.
    """

    def __init__(self, backbone: Backbone, *, class_weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifiers = nn.ModuleList(
            [Classifier(backbone, classes=len(weights), class_weights=weights) for weights in class_weights]
        )

    def forward(self, batch: tuple[Tensor, ...], step: int) -> Loss:
        inputs, labels_bk = batch
        embedding = self.backbone.embed(inputs)
        losses = {}
        for number, one in enumerate(self.classifiers):
            assert isinstance(one, Classifier)
            known = labels_bk[:, number] >= 0
            if known.any():
                losses[f"cross_entropy.{number}"] = F.cross_entropy(
                    one.linear(one.norm(embedding[known])),
                    labels_bk[known, number],
                    weight=one.get_buffer("class_weights"),
                )
        total = torch.stack(list(losses.values())).mean() if losses else 0.0 * embedding.sum()
        return Loss(total, {"cross_entropy": total.detach(), **{name: x.detach() for name, x in losses.items()}})

    def alone(self, number: int) -> Classifier:
        """One of them with a backbone of its own."""
        one = self.classifiers[number]
        assert isinstance(one, Classifier)
        return copy.deepcopy(one)
