"""The one transformer encoder, and the backbone that joins it to a tokenizer.

Shape suffixes: b batch, t token, d model width, h head, e width of one head.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.core.tokens import Tokenizer, Tokens

Pool = Literal["mean", "last", "class"]


class Block(nn.Module):
    """Pre-norm transformer block (Dosovitskiy et al., 2021): attention, then a two-layer GELU network."""

    def __init__(self, *, dim: int, heads: int, mlp_ratio: float = 4.0, norm_eps: float = 1e-5) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"heads={heads} does not divide dim={dim}")
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=norm_eps), nn.LayerNorm(dim, eps=norm_eps)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        hidden = int(dim * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x_btd: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        b, t, d = x_btd.shape
        q, k, v = self.qkv(self.norm1(x_btd)).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        x_btd = x_btd + self.proj(read.transpose(1, 2).reshape(b, t, d))
        return x_btd + self.mlp(self.norm2(x_btd))

    def tail(self, x_btd: Tensor, count: int) -> Tensor:
        """What :meth:`forward` makes of the last ``count`` tokens: all are read, nothing else is computed."""
        b, t, d = x_btd.shape
        normed, asking = self.norm1(x_btd), slice(t - count, t)
        weight, bias = self.qkv.weight, self.qkv.bias
        q = F.linear(normed[:, asking], weight[:d], bias[:d])
        k, v = F.linear(normed, weight[d:], bias[d:]).view(b, t, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        read = F.scaled_dot_product_attention(q.view(b, count, self.heads, -1).transpose(1, 2), k, v)
        x_btd = x_btd[:, asking] + self.proj(read.transpose(1, 2).reshape(b, count, d))
        return x_btd + self.mlp(self.norm2(x_btd))


class Encoder(nn.Module):
    """Transformer encoder over exactly the tokens it is given, a class token first if there is one.

    Args:
        dim: model width.
        depth: number of blocks.
        heads: attention heads; must divide ``dim``.
        mlp_ratio: hidden width of each block's network over ``dim``.
        causal: token ``i`` reads tokens ``0..i`` only. Histories must then be padded on the right. A single call
            can read from both sides all the same (:meth:`forward`).
        norm_eps: what every layer normalisation adds to the variance.
    """

    def __init__(
        self,
        *,
        dim: int = 128,
        depth: int = 4,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        causal: bool = False,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.dim, self.depth, self.heads, self.mlp_ratio, self.causal = dim, depth, heads, mlp_ratio, causal
        self.norm_eps = norm_eps
        self.blocks = nn.ModuleList(
            [Block(dim=dim, heads=heads, mlp_ratio=mlp_ratio, norm_eps=norm_eps) for _ in range(depth)]
        )
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        self.apply(_initialise)

    def config(self) -> dict[str, Any]:
        names = ("dim", "depth", "heads", "mlp_ratio", "causal", "norm_eps")
        return {name: getattr(self, name) for name in names}

    def forward(self, tokens: Tokens, *, tail: int | None = None, both_sides: bool = False) -> Tensor:
        """Tokens -> (B, T, D); with a class token (B, 1 + T, D), the class token first.

        Args:
            tail: give back the last ``tail`` tokens only, (B, tail, D), which spares the last block the others: for
                decoders of which nothing else is asked. Neither causal nor padded.
            both_sides: every token reads every other this once, although the encoder is causal: one set of weights
                serves a task that reads backwards and one that fills in (UniLM: Dong et al., NeurIPS 2019).
        """
        causal = self.causal and not both_sides
        x, pad = tokens.x + tokens.position, tokens.pad
        if tokens.class_token is not None:
            x = torch.cat([tokens.class_token.expand(x.shape[0], -1, -1), x], dim=1)
            pad = None if pad is None else F.pad(pad, (1, 0), value=False)
        mask = None
        if pad is not None and not causal:
            mask = ~pad[:, None, None, :]
        # With right padding a causal encoder cannot reach padding from a real token: no mask is needed.
        if tail is None:
            for block in self.blocks:
                x = block(x, mask=mask, causal=causal)
            return self.norm(x)
        assert mask is None
        assert not causal
        *before, last = self.blocks
        for block in before:
            x = block(x)
        assert isinstance(last, Block)
        return self.norm(last.tail(x, tail))

    def embed(self, tokens: Tokens, pool: Pool | None = None) -> Tensor:
        """One vector a sequence, (B, D): the mean of the real tokens, the last one (default if causal), or the class
        token; the first two leave a class token out."""
        x = self(tokens)
        if tokens.class_token is None:
            return pool_tokens(x, tokens.pad, pool or ("last" if self.causal else "mean"))
        if pool == "class":
            return x[:, 0]
        return pool_tokens(x[:, 1:], tokens.pad, pool or ("last" if self.causal else "mean"))


class Backbone(nn.Module):
    """A tokenizer and an encoder: from a raw batch to features. This is what is pretrained, saved and fine-tuned."""

    def __init__(self, tokenizer: nn.Module, encoder: Encoder) -> None:
        super().__init__()
        self.tokenizer, self.encoder = tokenizer, encoder
        if tokenizer.dim != encoder.dim:
            raise ValueError(f"the tokenizer's width {tokenizer.dim} differs from the encoder's {encoder.dim}")

    def tokens(self, batch: Tensor) -> Tokens:
        tokenizer: Tokenizer = self.tokenizer  # type: ignore[assignment]
        return tokenizer(batch)

    def forward(self, batch: Tensor) -> Tensor:
        """Raw batch -> (B, T, D); with a class token (B, 1 + T, D), the class token first."""
        return self.encoder(self.tokens(batch))

    def embed(self, batch: Tensor, pool: Pool | None = None) -> Tensor:
        """Raw batch -> (B, D)."""
        return self.encoder.embed(self.tokens(batch), pool)


def pool_tokens(x_btd: Tensor, pad: Tensor | None, pool: Pool) -> Tensor:
    """(B, T, D) -> (B, D) over the tokens that are not padding; a class token is not among them."""
    if pool == "class":
        raise ValueError("pool='class' needs tokens with a class token: make the tokenizer with class_token=True")
    if pool == "mean":
        if pad is None:
            return x_btd.mean(dim=1)
        real = (~pad).to(x_btd.dtype)[..., None]
        return (x_btd * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
    if pad is None:
        return x_btd[:, -1]
    last = (~pad).sum(dim=1) - 1
    # Not len(), which fixes the batch size when the function is traced for export.
    return x_btd[torch.arange(x_btd.shape[0], device=x_btd.device), last]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
