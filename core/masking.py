"""Which tokens (or which fields of an event) a pretext task hides.

Every draw is a function of (seed, step) alone, so an interrupted run resumes with the same masks.

Shape suffixes: b batch, t token, k kept, m masked, f field.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from unlabeled.core.seeds import generator
from unlabeled.core.tokens import Tokens


class Masked(NamedTuple):
    """Indices of the kept (B, K) and the masked (B, M) tokens of each sequence; together every token once."""

    kept: Tensor
    masked: Tensor


class RandomMask:
    """Hides a fixed share of the tokens, uniformly, or weighted by a prior (He et al., 2022).

    Args:
        ratio: share of the tokens to hide, strictly between 0 and 1.
        prior: positive weights (T,): a token with twice the weight is twice as likely to be drawn
            first. Drawing is without replacement (Gumbel top-k, Kool et al., 2019).
        seed: with the step, fixes every draw.
    """

    def __init__(self, ratio: float = 0.75, *, prior: Tensor | None = None, seed: int = 0) -> None:
        if not 0 < ratio < 1:
            raise ValueError(f"the mask ratio must lie strictly between 0 and 1, got {ratio}")
        if prior is not None and not bool((prior > 0).all()):
            raise ValueError("a mask prior must be positive everywhere, so that no token is never hidden")
        self.ratio, self.prior, self.seed = ratio, prior, seed

    def __call__(self, tokens: Tokens, step: int) -> Masked:
        b, t, _ = tokens.x.shape
        hide = round(t * self.ratio)
        if not 0 < hide < t:
            raise ValueError(f"a mask ratio of {self.ratio} hides {hide} of {t} tokens: nothing to learn from")
        uniform = torch.rand(b, t, generator=generator(self.seed, "mask", step)).clamp_(1e-9, 1 - 1e-7)
        key = -(-uniform.log()).log()
        if self.prior is not None:
            key = key + self.prior.log()
        order = key.argsort(dim=1, descending=True).to(tokens.x.device)
        return Masked(kept=order[:, hide:].sort(dim=1).values, masked=order[:, :hide].sort(dim=1).values)


def random_fields(shape: torch.Size, *, seed: int, step: int) -> Tensor:
    """A boolean mask over fields: True where a field stays visible, (..., F).

    The number of visible fields is uniform over 0..F-1, each set of that size equally likely, so that
    one head learns p(field | any other fields) and, with nothing visible, p(field | history)
    (the order-agnostic scheme of Uria et al., 2014).
    """
    draw = generator(seed, "fields", step)
    rank = torch.rand(shape, generator=draw).argsort(dim=-1).argsort(dim=-1)
    visible = torch.randint(0, shape[-1], (*shape[:-1], 1), generator=draw)
    return rank < visible
