"""Masked reconstruction: encode the visible patches only, predict the hidden ones.

Source: He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022.

Shape suffixes: b batch, t token, k kept, m masked, d width, p numbers in a patch.
"""

import torch
from torch import Tensor, nn

from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.masking import Mask
from unlabeled.core.pretext.base import LOWER_RATE, Loss, Pretext
from unlabeled.core.seeds import generator
from unlabeled.core.tokens import GridPatches, Tokens, sincos_2d, take

_APART = 2**40


class MaskedReconstruction(Pretext):
    """Mean squared error on the masked patches, ``mean((prediction - target)^2)``.

    The target is each patch standardised by its own mean and standard deviation when ``normalise`` is
    set (the paper's better variant), the raw numbers otherwise. The decoder is a small encoder over the kept
    and the masked tokens; masked places hold one learned vector plus their position. A class token is never masked,
    is read by the decoder and predicts nothing, as in the paper.

    Args:
        tokenizer: the backbone's own patch tokenizer (for targets and shapes).
        mask: which tokens to hide. On radiographs, random masks of 0.75 (the paper's share), 0.85 and 0.9 were alike,
            0.6 was 0.01 lower and 0.5 by 0.04, within chance; on vibration nothing from 0.4 to 0.85 was clearly better
            than 0.6 (benchmarks/results/settings.md).
        dim, depth, heads: the decoder's size. At equal compute, widths of 16, 32 and 64 for an encoder of 64 could not
            be told apart; on radiographs the narrower the better on average (benchmarks/results/settings.md). Depth
            and heads were not measured.
        normalise: standardise each target patch. On radiographs 0.03 better than raw numbers, on vibration alike, both
            within chance (benchmarks/results/settings.md).
        predicted: share of the hidden tokens that the decoder is asked for, drawn anew at every step; the others are
            neither shown nor predicted, which spares most of the decoder's work (Fu et al., "Rethinking patch
            dependence for masked autoencoders", 2024). 1 asks for all. At equal compute 0.25, 0.5 and 1 could not be
            told apart on either kind of data (benchmarks/results/settings.md).
        norm_eps: of the decoder's layer normalisations.
    """

    remedies = (LOWER_RATE, "another share of hidden patches (--mask-ratio, mask_ratio)")

    def __init__(
        self,
        tokenizer: GridPatches,
        *,
        mask: Mask,
        dim: int = 64,
        depth: int = 2,
        heads: int = 4,
        normalise: bool = True,
        predicted: float = 1.0,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if not 0 < predicted <= 1:
            raise ValueError(f"predicted must lie in (0, 1], got {predicted}")
        self.mask, self.normalise, self.predicted = mask, normalise, predicted
        self.enter = nn.Linear(tokenizer.dim, dim)
        self.hidden = nn.Parameter(torch.zeros(1, 1, dim))
        nn.init.normal_(self.hidden, std=0.02)
        self.decoder = Encoder(dim=dim, depth=depth, heads=heads, norm_eps=norm_eps)
        self.predict = nn.Linear(dim, tokenizer.numbers)
        row, column = torch.meshgrid(torch.arange(tokenizer.rows), torch.arange(tokenizer.columns), indexing="ij")
        position = sincos_2d(row.reshape(-1), column.reshape(-1), dim=dim)
        self.register_buffer("position", position[None], persistent=False)

    def target(self, tokenizer: GridPatches, batch: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, T, P)."""
        return self._target(tokenizer.patches(batch))

    def _target(self, patches: Tensor) -> Tensor:
        return standardised(patches) if self.normalise else patches

    def reconstruct(
        self, backbone: Backbone, batch: Tensor, step: int, *, predicted: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Predicted patches (B, M, P) and their indices (B, M): all hidden ones, or a ``predicted`` share of them."""
        tokenizer = backbone.tokenizer
        assert isinstance(tokenizer, GridPatches)
        tokens = backbone.tokens(batch)
        kept, masked = self.mask(tokens, step, tokenizer.patches(batch))
        if predicted < 1:
            masked = _some(masked, predicted, seed=self.mask.seed, step=step)
        seen = self.enter(backbone.encoder(tokens.take(kept)))
        front = 0 if tokens.class_token is None else 1
        # At position zero in the decoder, as in the paper's code.
        class_token, seen = (seen[:, :front] if front else None), seen[:, front:]
        b, _, d = seen.shape
        x = torch.cat([seen, self.hidden.expand(b, masked.shape[1], d)], dim=1)
        # A decoder does not mind the order of its tokens, only their positions: nothing is put back into place.
        place = torch.cat([kept, masked], dim=1).reshape(-1)
        position = self.get_buffer("position")[0].index_select(0, place).view(b, -1, d)
        decoded = self.decoder(Tokens(x, position, class_token=class_token), tail=masked.shape[1])
        return self.predict(decoded), masked

    def loss(self, backbone: Backbone, batch: Tensor, step: int) -> Loss:
        tokenizer = backbone.tokenizer
        assert isinstance(tokenizer, GridPatches)
        patches = tokenizer.patches(batch)
        groups = self.mask.groups(patches)
        parts = [(batch, patches)] if groups is None else [(batch[rows], patches[rows]) for rows in groups]
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for number, (some, content) in enumerate(parts):
            # Each group draws as at a step that no training reaches: no two groups share their masks.
            prediction, masked = self.reconstruct(backbone, some, step + number * _APART, predicted=self.predicted)
            error = (prediction - take(self._target(content), masked)).square().mean(dim=-1)
            found.append((masked, error, content))
        if self.training:  # only now, so that all groups are masked by what was known before the step
            for masked, error, content in found:
                self.mask.observe(masked, error, content, part=len(error) / len(batch))
        total = torch.cat([error.reshape(-1) for _, error, _ in found]).mean()
        return Loss(total, {"masked_mse": total.detach()})


def _some(masked_bm: Tensor, share: float, *, seed: int, step: int) -> Tensor:
    """At least one of each row's indices, drawn without replacement: (B, M) -> (B, share x M)."""
    b, m = masked_bm.shape
    drawn = torch.rand(b, m, generator=generator(seed, "predicted", step)).argsort(dim=1)[:, : max(1, round(m * share))]
    return masked_bm.gather(1, drawn.to(masked_bm.device))


def standardised(patches_btp: Tensor) -> Tensor:
    """Each patch by its own mean and standard deviation."""
    # The floor keeps empty patches (background, silence) from turning rounding noise into a target.
    centred = patches_btp - patches_btp.mean(dim=-1, keepdim=True)
    return centred / (patches_btp.var(dim=-1, keepdim=True) + 1e-4).sqrt()
