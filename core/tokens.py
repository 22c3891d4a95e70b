"""Tokenizers: what turns a batch of images, spectrograms, trends or events into a sequence of tokens.

Shape suffixes: b batch, c channel, h/w rows and columns of a grid, t token, d model width,
p numbers in one patch, f field, l events in a history.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

Positions = Literal["sincos", "fixed", "learned"]


@dataclass(frozen=True)
class Tokens:
    """A batch of token sequences.

    Attributes:
        x: token contents, (B, T, D), without position.
        position: position embedding that the encoder adds, (1, T, D) or (B, T, D).
        pad: True where a token is padding, (B, T); ``None`` when there is none.
        class_token: (1, 1, D) or (B, 1, D), its position included; ``None`` when there is none. The encoder puts
            it in front. It stands beside the tokens of the data: no mask counts or hides it, :meth:`take` keeps it.
    """

    x: Tensor
    position: Tensor
    pad: Tensor | None = None
    class_token: Tensor | None = None

    def take(self, index_bk: Tensor) -> "Tokens":
        """The tokens at ``index_bk`` (B, K) only, with their positions; a class token stays."""
        position_btd = self.position.expand(self.x.shape[0], -1, -1)
        pad = None if self.pad is None else self.pad.gather(1, index_bk)
        return Tokens(take(self.x, index_bk), take(position_btd, index_bk), pad, self.class_token)


class Tokenizer(Protocol):
    """What the encoder and the pretext tasks ask of a tokenizer (an ``nn.Module``)."""

    dim: int

    def __call__(self, batch: Tensor) -> Tokens: ...


def take(x_btd: Tensor, index_bk: Tensor) -> Tensor:
    """Rows ``index_bk`` (B, K) of ``x_btd`` (B, T, D) -> (B, K, D).

    ``index_select`` on the flattened rows: several times faster on CPU than ``gather`` with a
    repeated index.
    """
    b, t, d = x_btd.shape
    rows = (index_bk + torch.arange(b, device=index_bk.device)[:, None] * t).reshape(-1)
    return x_btd.reshape(b * t, d).index_select(0, rows).view(b, -1, d)


def sincos_1d(coordinate_t: Tensor, *, dim: int, base: float = 10_000.0) -> Tensor:
    """Sine-cosine embedding of real coordinates (T,) -> (T, dim) (Vaswani et al., 2017, section 3.5)."""
    if dim % 2:
        raise ValueError(f"a sine-cosine embedding needs an even width, got dim={dim}")
    frequency = base ** (-torch.arange(dim // 2, dtype=torch.float32) / (dim // 2))
    angle = coordinate_t.float()[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def sincos_2d(row_t: Tensor, column_t: Tensor, *, dim: int) -> Tensor:
    """Half of the width encodes the row, half the column (He et al., 2022, "Masked autoencoders")."""
    if dim % 4:
        raise ValueError(f"a two-dimensional sine-cosine embedding needs a width divisible by 4, got dim={dim}")
    return torch.cat([sincos_1d(row_t, dim=dim // 2), sincos_1d(column_t, dim=dim // 2)], dim=1)


class GridPatches(nn.Module):
    """Cuts a grid into equal patches: an image, a time-frequency picture, or indicators over time.

    Images are (channels, rows, columns); spectrograms (sensor axes, frequency, time); trends
    (1, indicator, time) with a patch height of 1. Any number of channels works.

    Args:
        grid: rows and columns of the input.
        patch: rows and columns of a patch; must divide ``grid``.
        dim: token width, divisible by 4.
        channels: input channels.
        positions: ``sincos`` computes the position embedding (He et al., 2022); ``learned`` starts there and
            trains it; ``fixed`` stores one of any origin with the weights and leaves it as it is.
        class_token: give :class:`Tokens` a learned token that belongs to no patch (Dosovitskiy et al., 2021).
    """

    def __init__(
        self,
        *,
        grid: tuple[int, int],
        patch: tuple[int, int],
        dim: int,
        channels: int = 1,
        positions: Positions = "sincos",
        class_token: bool = False,
    ) -> None:
        super().__init__()
        if min(*grid, *patch, channels) < 1:
            raise ValueError(f"a grid, a patch and channels are at least 1, got {grid}, {patch} and {channels}")
        if grid[0] % patch[0] or grid[1] % patch[1]:
            raise ValueError(f"patch {patch[0]}x{patch[1]} does not divide the grid {grid[0]}x{grid[1]}")
        self.grid, self.patch, self.dim, self.channels = tuple(grid), tuple(patch), dim, channels
        self.rows, self.columns = grid[0] // patch[0], grid[1] // patch[1]
        self.tokens = self.rows * self.columns
        self.numbers = patch[0] * patch[1] * channels
        self.project = nn.Linear(self.numbers, dim)
        row, column = torch.meshgrid(torch.arange(self.rows), torch.arange(self.columns), indexing="ij")
        position = sincos_2d(row.reshape(-1), column.reshape(-1), dim=dim)
        self.positions = positions
        if positions == "learned":
            self.position = nn.Parameter(position[None])
        else:
            self.register_buffer("position", position[None], persistent=positions == "fixed")
        # The paper's initialisation of the class token is zero; MAE's (0.02) tells it apart from the start.
        self.class_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02) if class_token else None

    def config(self) -> dict[str, object]:
        return {
            "grid": list(self.grid),
            "patch": list(self.patch),
            "dim": self.dim,
            "channels": self.channels,
            "positions": self.positions,
            "class_token": self.class_token is not None,
        }

    def patches(self, batch_bchw: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, T, P), patches row by row; the numbers of one patch run (row, column, channel).

        Raises:
            ValueError: another shape, or numbers of another type than the weights.
        """
        expected = (self.channels, *self.grid)
        if tuple(batch_bchw.shape[1:]) != expected:
            raise ValueError(f"expected a batch of shape (B, {expected}), got {tuple(batch_bchw.shape)}")
        if batch_bchw.dtype != self.project.weight.dtype:
            raise ValueError(
                f"expected a batch of {self.project.weight.dtype}, got {batch_bchw.dtype}: scale whole numbers and "
                "convert with .to(...)"
            )
        b = batch_bchw.shape[0]
        (ph, pw), r, c = self.patch, self.rows, self.columns
        x = batch_bchw.reshape(b, self.channels, r, ph, c, pw)
        return x.permute(0, 2, 4, 3, 5, 1).reshape(b, self.tokens, self.numbers)

    def unpatch(self, patches_btp: Tensor) -> Tensor:
        """The inverse of :meth:`patches`."""
        b = patches_btp.shape[0]
        (ph, pw), r, c = self.patch, self.rows, self.columns
        x = patches_btp.reshape(b, r, c, ph, pw, self.channels)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(b, self.channels, *self.grid)

    def forward(self, batch: Tensor) -> Tokens:
        return Tokens(self.project(self.patches(batch)), self.position, class_token=self.class_token)


class EventFields(nn.Module):
    """Histories of events with several categorical fields -> one token an event.

    A batch is (B, L, F) of integer codes. Code 0 of every field is reserved: an event whose first
    field is 0 is padding. Histories are padded on the right, so that a causal encoder never reads
    padding before an event. A learned start token is put in front: output ``i`` of a causal encoder
    has then read the events before event ``i`` and nothing else.

    Args:
        sizes: number of codes of each field, the reserved 0 included.
        dim: token width.
        length: longest history.
    """

    def __init__(self, *, sizes: Sequence[int], dim: int, length: int) -> None:
        super().__init__()
        self.sizes, self.dim, self.length = tuple(int(s) for s in sizes), dim, length
        self.embed = nn.ModuleList([nn.Embedding(size, dim) for size in self.sizes])
        for parameter in self.embed.parameters():
            nn.init.normal_(parameter, std=0.5 / len(self.sizes) ** 0.5)
        self.start = nn.Parameter(torch.zeros(1, 1, dim))
        position = sincos_1d(torch.arange(length + 1), dim=dim)
        self.register_buffer("position", position[None], persistent=False)

    def config(self) -> dict[str, object]:
        return {"sizes": list(self.sizes), "dim": self.dim, "length": self.length}

    def fields(self, codes: Tensor) -> Tensor:
        """(..., F) codes -> (..., F, D), one embedding a field.

        Raises:
            ValueError: a code that its field does not have (on a CPU; a GPU says so in its own way).
        """
        try:
            return torch.stack([table(codes[..., i]) for i, table in enumerate(self.embed)], dim=-2)
        except IndexError:
            found = codes.reshape(-1, len(self.sizes)).amax(dim=0).tolist()
            raise ValueError(f"codes run from 0 to below {list(self.sizes)} by field, got up to {found}") from None

    def forward(self, batch: Tensor) -> Tokens:
        if batch.ndim != 3 or batch.shape[2] != len(self.sizes) or batch.shape[1] > self.length:
            raise ValueError(
                f"expected codes of shape (B, L <= {self.length}, {len(self.sizes)} fields), got {tuple(batch.shape)}"
            )
        if batch.is_floating_point() or batch.dtype == torch.bool:
            raise ValueError(f"codes of fields are whole numbers, got {batch.dtype}")
        return self.assembled(self.fields(batch), batch)

    def assembled(self, fields_blfd: Tensor, batch: Tensor) -> Tokens:
        """Tokens from embedded fields (B, L, F, D), some of which a task may have replaced, of the codes ``batch``."""
        b = batch.shape[0]
        x = fields_blfd.sum(dim=2)
        x = torch.cat([self.start.expand(b, -1, -1), x], dim=1)
        pad = torch.cat([torch.zeros(b, 1, dtype=torch.bool, device=batch.device), batch[..., 0] == 0], dim=1)
        return Tokens(x, self.get_buffer("position")[:, : x.shape[1]], pad)
