"""What replaces the pretext head once labels are at hand."""

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
