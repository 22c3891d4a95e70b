"""Which tokens (or which fields of an event) a pretext task hides, and which it does not even look at.

Every draw is a function of (seed, step) and of what a mask remembers in its buffers, which are saved with the
training state: an interrupted run resumes with the same masks.

Shape suffixes: b batch, t token, k kept, m masked, f field, p numbers in a patch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from unlabeled.core.errors import DataError
from unlabeled.core.seeds import generator
from unlabeled.core.tokens import Tokens

# Weights of the tokens (T,), the same for every sequence, or what makes them (B, T) of the raw patches (B, T, P).
Prior = Tensor | Callable[[Tensor], Tensor]


class Masked(NamedTuple):
    """Indices of the kept (B, K) and the masked (B, M) tokens of each sequence, each token at most once.

    Random, block and adaptive masks name every token; a salient mask leaves some out of both.
    """

    kept: Tensor
    masked: Tensor


class Mask(nn.Module, ABC):
    """Draws what a task hides. All sequences that are masked together hide the same number of tokens.

    Args:
        seed: with the step, fixes every draw.
        prior: domain knowledge about which tokens are worth hiding: positive weights (T,), or a function that makes
            them (B, T) of the raw patches (B, T, P), which may so look at each picture. A token with twice the weight
            is twice as likely to be drawn first. ``None`` for none.

    Raises:
        ValueError: a weight that is not positive and finite (here, or when a function gives it).
    """

    prior: Tensor | None

    def __init__(self, *, prior: Prior | None = None, seed: int = 0) -> None:
        super().__init__()
        fixed = prior if isinstance(prior, Tensor) else None
        if fixed is not None:
            _check_positive(fixed)
        self.seed = seed
        self.weigh = None if prior is None or isinstance(prior, Tensor) else prior
        self.register_buffer("prior", fixed, persistent=False)

    @abstractmethod
    def forward(self, tokens: Tokens, step: int, patches: Tensor | None = None) -> Masked:
        """The draw for one batch at one step.

        Args:
            patches: (B, T, P) the raw content of the tokens, for masks that look at it.
        """

    def groups(self, patches: Tensor) -> list[Tensor] | None:
        """Rows of a batch (B, T, P) to be masked apart, where a mask hides more of some sequences than of others;
        ``None`` where it treats all alike."""
        return None

    def observe(self, masked: Tensor, error: Tensor, patches: Tensor | None = None, *, part: float = 1.0) -> None:
        """Is told how hard each masked token was: indices and errors, both (B, M). Most masks do not care.

        Args:
            patches: (B, T, P) the raw content of the tokens.
            part: share of the batch that these sequences are, where it was masked in groups.
        """
        return

    def weights(self, b: int, t: int, patches: Tensor | None) -> Tensor | None:
        """The prior of these sequences, (T,) or (B, T), on the CPU; ``None`` where there is none.

        Raises:
            ValueError: it is not one positive weight a token, or it looks at patches and was given none.
        """
        if self.weigh is None:
            found = self.prior
        elif patches is None:
            raise ValueError("this mask's prior looks at the raw patches: the task must hand them over")
        else:
            found = self.weigh(patches.detach())
            _check_positive(found)
        if found is not None and tuple(found.shape) not in ((t,), (b, t)):
            raise ValueError(f"a mask prior needs one weight for each of {t} tokens, got {tuple(found.shape)}")
        return None if found is None else found.cpu()

    def _gumbel(self, b: int, t: int, step: int, patches: Tensor | None, *, name: str = "mask") -> Tensor:
        """Keys (B, T) whose order is a draw without replacement in proportion to the prior's weights (Gumbel top-k,
        Kool et al., 2019)."""
        uniform = torch.rand(b, t, generator=generator(self.seed, name, step)).clamp_(1e-9, 1 - 1e-7)
        key = -(-uniform.log()).log()
        weights = self.weights(b, t, patches)
        return key if weights is None else key + weights.log()


class RandomMask(Mask):
    """Hides a fixed share of the tokens, uniformly, or weighted by a prior (He et al., 2022).

    Args:
        ratio: share of the tokens to hide, strictly between 0 and 1. The paper's 0.75, which holds on radiographs; the
            vibration room takes 0.6 (benchmarks/results/settings.md).
        prior, seed: see :class:`Mask`.
    """

    def __init__(self, ratio: float = 0.75, *, prior: Prior | None = None, seed: int = 0) -> None:
        super().__init__(prior=prior, seed=seed)
        self.ratio = checked_ratio(ratio)

    def forward(self, tokens: Tokens, step: int, patches: Tensor | None = None) -> Masked:
        b, t, _ = tokens.x.shape
        return split(self._gumbel(b, t, step, patches), count_hidden(t, self.ratio), tokens.x.device)


class BlockMask(Mask):
    """Hides one or a few whole blocks rather than scattered tokens: inpainting (Pathak et al., 2016).

    The hidden tokens are those nearest to the blocks' centres, so that their number is exact and a block at the edge
    is pushed inwards, not cut.

    Args:
        grid: rows and columns of the tokens.
        ratio: share of the tokens to hide (what was measured: :class:`~unlabeled.core.pretext.Inpainting`).
        blocks: how many blocks share it; on radiographs two were measured (benchmarks/results/settings.md), beside no
            other number.
        shape: ``block`` for rectangles of random proportions, ``time`` for whole columns (a gap in time of a
            spectrogram or trend), ``band`` for whole rows (a gap in frequency, or an indicator).
        prior, seed: see :class:`Mask`; the centres are drawn by the prior.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        *,
        ratio: float = 0.4,
        blocks: int = 1,
        shape: Literal["block", "time", "band"] = "block",
        prior: Prior | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(prior=prior, seed=seed)
        self.grid, self.ratio, self.blocks, self.shape = grid, checked_ratio(ratio), blocks, shape
        if not 1 <= blocks <= grid[0] * grid[1]:
            raise ValueError(f"a block mask of {grid[0]}x{grid[1]} tokens needs 1 to as many blocks, got {blocks}")

    def forward(self, tokens: Tokens, step: int, patches: Tensor | None = None) -> Masked:
        b, t, _ = tokens.x.shape
        rows, columns = self.grid
        if rows * columns != t:
            raise ValueError(f"a block mask for {rows}x{columns} tokens was given {t}")
        draw = generator(self.seed, "shape", step)
        centre = self._gumbel(b, t, step, patches).topk(self.blocks, dim=1).indices  # (B, blocks)
        row, column = torch.arange(t) // columns, torch.arange(t) % columns
        down = (row - (centre // columns)[..., None]).abs().float()
        right = (column - (centre % columns)[..., None]).abs().float()
        if self.shape == "time":
            distance = right
        elif self.shape == "band":
            distance = down
        else:
            proportion = torch.exp((torch.rand(b, self.blocks, 1, generator=draw) - 0.5) * 1.4)  # from 1:2 to 2:1
            distance = torch.maximum(down * proportion, right / proportion)
        nearest = distance.amin(dim=1)
        # Ties along a block's edge are broken at random, never against a whole row or column.
        line = columns if self.shape == "time" else rows if self.shape == "band" else t
        index = column if self.shape == "time" else row if self.shape == "band" else torch.arange(t)
        nearest = nearest + 1e-3 * torch.rand(b, line, generator=draw)[:, index]
        return split(-nearest, count_hidden(t, self.ratio), tokens.x.device)


def _check_positive(prior: Tensor) -> None:
    if not bool(((prior > 0) & prior.isfinite()).all()):
        raise ValueError("a mask prior must be positive everywhere, so that no token is never hidden, and finite")


def checked_ratio(ratio: float) -> float:
    """The ratio; a ValueError unless it lies strictly between 0 and 1."""
    if not 0 < ratio < 1:
        raise ValueError(f"the mask ratio must lie strictly between 0 and 1, got {ratio}")
    return ratio


def count_hidden(tokens: int, ratio: float) -> int:
    """How many of ``tokens`` a share of ``ratio`` hides.

    Raises:
        DataError: none of them, or all.
    """
    hide = round(tokens * ratio)
    if not 0 < hide < tokens:
        raise DataError(
            f"a mask ratio of {ratio:g} hides {hide} of {tokens} tokens: nothing to learn from; "
            + (f"choose one from {1 / tokens:.2g} to {1 - 1 / tokens:.2g}" if tokens > 2 else "more must take part")
        )
    return hide


def check_hides(task: str, masking: str, *, hiding: Sequence[str]) -> None:
    """Raises a DataError where a masking would have no effect, because the task is none of ``hiding``."""
    if masking != "random" and task not in hiding:
        raise DataError(f"the task '{task}' hides nothing: masking '{masking}' is for the tasks {' and '.join(hiding)}")


def split(key_bt: Tensor, hide: int, device: torch.device) -> Masked:
    """The ``hide`` tokens with the highest keys are masked, the others kept, both in order."""
    order = key_bt.argsort(dim=1, descending=True).to(device)
    return Masked(kept=order[:, hide:].sort(dim=1).values, masked=order[:, :hide].sort(dim=1).values)


def random_fields(shape: torch.Size, *, seed: int, step: int, prior: Tensor | None = None) -> Tensor:
    """A boolean mask over fields: True where a field stays visible, (..., F).

    The number of visible fields is uniform over 0..F-1, each set of that size equally likely, so that
    one head learns p(field | any other fields) and, with nothing visible, p(field | history)
    (the order-agnostic scheme of Uria et al., 2014).

    With a prior the number stays uniform, and which fields are hidden is drawn one after another, each in proportion
    to its weight among those that are left (Plackett-Luce, by Gumbel keys: Kool et al., 2019). Equal weights give the
    very draws of no prior.

    Args:
        prior: positive weights (F,): of two fields, one with twice the weight is twice as likely to be hidden first.

    Raises:
        ValueError: the prior is not one positive, finite weight a field.
    """
    draw = generator(seed, "fields", step)
    key = torch.rand(shape, generator=draw)
    if prior is not None:
        check_field_prior(prior, shape[-1])
        # In double precision the keys rise with the uniform numbers they are made of, as far apart as those are.
        key = -(-key.double().log()).log() + prior.double().log().cpu()
    rank = key.argsort(dim=-1).argsort(dim=-1)
    visible = torch.randint(0, shape[-1], (*shape[:-1], 1), generator=draw)
    return rank < visible


def check_field_prior(prior: Tensor, fields: int) -> None:
    """Raises a ValueError unless there is one positive, finite weight for each field."""
    if prior.shape != (fields,) or not bool(((prior > 0) & prior.isfinite()).all()):
        raise ValueError(f"a field prior needs one positive weight for each of {fields} fields, got {prior.tolist()}")
