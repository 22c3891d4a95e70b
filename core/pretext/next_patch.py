"""Next-patch prediction: a causal encoder foretells each patch from those before it.

Sources: Chen et al., "Generative Pretraining from Pixels" (iGPT), ICML 2020; El-Nouby et al., "Scalable Pre-training of
Large Autoregressive Image Models" (AIM), 2024, for patches with a normalised target. For events the same question is
half of :class:`~unlabeled.core.pretext.EventModelling`.

Shape suffixes: b batch, t token, d width, p numbers in a patch.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from unlabeled.core.encoder import Backbone
from unlabeled.core.pretext.base import Loss, Pretext
from unlabeled.core.pretext.masked_reconstruction import standardised
from unlabeled.core.tokens import GridPatches


class NextPatch(Pretext):
    """``mean((prediction of patch i + 1 from patches 0..i - patch i + 1)^2)`` with each target patch standardised.

    Args:
        tokenizer: the backbone's own patch tokenizer.
        order: ``time`` reads a spectrogram or trend column by column, ``raster`` a picture row by row.
        hidden: width of the head's hidden layer; not measured.
        normalise: standardise each target patch. On vibration raw targets were better on average (0.95 against 0.79 in
            benchmarks/results/settings.md, three seeds), and are what the monitor asks for.
    """

    def __init__(
        self,
        tokenizer: GridPatches,
        *,
        order: Literal["time", "raster"] = "raster",
        hidden: int = 128,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        self.normalise = normalise
        place = torch.arange(tokenizer.tokens).view(tokenizer.rows, tokenizer.columns)
        self.register_buffer("order", (place.T if order == "time" else place).reshape(-1), persistent=False)
        self.head = nn.Sequential(
            nn.LayerNorm(tokenizer.dim),
            nn.Linear(tokenizer.dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, tokenizer.numbers),
        )

    def foretell(self, backbone: Backbone, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions and targets of the second to the last patch in reading order, (B, T - 1, P) each."""
        tokenizer = backbone.tokenizer
        assert isinstance(tokenizer, GridPatches)
        if not backbone.encoder.causal:
            raise ValueError("foretelling the next patch needs a causal encoder: any other would read the answer")
        order = self.get_buffer("order")
        tokens = backbone.tokens(batch).take(order.expand(len(batch), -1))
        patches = tokenizer.patches(batch)[:, order]
        target = standardised(patches) if self.normalise else patches
        front = 0 if tokens.class_token is None else 1
        return self.head(backbone.encoder(tokens)[:, front:-1]), target[:, 1:]

    def embed(self, backbone: Backbone, batch: Tensor) -> Tensor:
        """Mean token (B, D), read in the order that was learnt: every token has read those before it."""
        tokens = backbone.tokens(batch)
        return backbone.encoder.embed(tokens.take(self.get_buffer("order").expand(len(batch), -1)), "mean")

    def loss(self, backbone: Backbone, batch: Tensor, step: int) -> Loss:
        prediction, target = self.foretell(backbone, batch)
        total = (prediction - target).square().mean()
        return Loss(total, {"next_patch": total.detach()})
