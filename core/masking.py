"""Which tokens (or which fields of an event) a pretext task hides, and which it does not even look at.

Every draw is a function of (seed, step) and of what a mask remembers in its buffers, which are saved with the
training state: an interrupted run resumes with the same masks.

Shape suffixes: b batch, t token, k kept, m masked, f field, p numbers in a patch.
"""

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from unlabeled.core.errors import DataError
from unlabeled.core.seeds import generator
from unlabeled.core.tokens import Tokens

# Into so many parts of like difficulty is a batch cut by a mask that hides more of some sequences than of others.
_GROUPS = 4


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
        prior: positive weights (T,), domain knowledge about which tokens are worth hiding; a token with twice the
            weight is twice as likely to be drawn first. ``None`` for none.
    """

    prior: Tensor | None

    def __init__(self, *, prior: Tensor | None = None, seed: int = 0) -> None:
        super().__init__()
        if prior is not None and not bool((prior > 0).all()):
            raise ValueError("a mask prior must be positive everywhere, so that no token is never hidden")
        self.seed = seed
        self.register_buffer("prior", prior, persistent=False)

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

    def _gumbel(self, b: int, t: int, step: int, *, name: str = "mask") -> Tensor:
        """Keys (B, T) whose order is a draw without replacement in proportion to the prior's weights (Gumbel top-k,
        Kool et al., 2019)."""
        uniform = torch.rand(b, t, generator=generator(self.seed, name, step)).clamp_(1e-9, 1 - 1e-7)
        key = -(-uniform.log()).log()
        return key if self.prior is None else key + self.prior.log().cpu()


class RandomMask(Mask):
    """Hides a fixed share of the tokens, uniformly, or weighted by a prior (He et al., 2022).

    Args:
        ratio: share of the tokens to hide, strictly between 0 and 1.
        prior, seed: see :class:`Mask`.
    """

    def __init__(self, ratio: float = 0.75, *, prior: Tensor | None = None, seed: int = 0) -> None:
        super().__init__(prior=prior, seed=seed)
        self.ratio = _checked(ratio)

    def forward(self, tokens: Tokens, step: int, patches: Tensor | None = None) -> Masked:
        b, t, _ = tokens.x.shape
        return _split(self._gumbel(b, t, step), count_hidden(t, self.ratio), tokens.x.device)


class BlockMask(Mask):
    """Hides one or a few whole blocks rather than scattered tokens: inpainting (Pathak et al., 2016).

    The hidden tokens are those nearest to the blocks' centres, so that their number is exact and a block at the edge
    is pushed inwards, not cut.

    Args:
        grid: rows and columns of the tokens.
        ratio: share of the tokens to hide.
        blocks: how many blocks share it.
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
        prior: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(prior=prior, seed=seed)
        self.grid, self.ratio, self.blocks, self.shape = grid, _checked(ratio), blocks, shape
        if blocks < 1:
            raise ValueError(f"a block mask needs at least one block, got {blocks}")

    def forward(self, tokens: Tokens, step: int, patches: Tensor | None = None) -> Masked:
        b, t, _ = tokens.x.shape
        rows, columns = self.grid
        if rows * columns != t:
            raise ValueError(f"a block mask for {rows}x{columns} tokens was given {t}")
        draw = generator(self.seed, "shape", step)
        centre = self._gumbel(b, t, step).topk(self.blocks, dim=1).indices  # (B, blocks)
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
        return _split(-nearest, count_hidden(t, self.ratio), tokens.x.device)


class AdaptiveMask(Mask):
    """Hides what is hard at the moment, more of it as the task gets easier, and less of what is a hard sequence.

    *What*: an exponential mean of each place's error, standardised over the places, adds ``strength`` times itself to
    the log weights of the draw (hard patches mining: Wang et al., 2023, with a memory in place of a teacher). *How
    much*: the share hidden goes from ``ratio[0]`` to ``ratio[1]`` as the error falls from where it was after the
    first ``warmup`` looks to a ``floor`` share of that (a curriculum after Madan et al., 2024). *Of whom*: how hard a
    sequence will be is foretold from what its patches hold (the log of their mean variance) by the running linear
    regression of the errors so far; a sequence foretold to be one standard deviation harder has ``spread`` less of it
    hidden. Where the errors do not follow from that, all are treated alike. A batch is masked in up to four groups of
    like difficulty, so that nothing is padded. With ``strength=0``, ``spread=0`` and equal ratios it is
    :class:`RandomMask`: the ablation.

    Args:
        tokens: number of places T.
        ratio: share hidden at first and at last.
        strength: 0 ignores the memory.
        spread: 0 hides as much of every sequence.
        momentum: of the memory.
        warmup: looks before the memory counts.
        floor: share of the early error at which the last ratio is reached.
        prior, seed: see :class:`Mask`.
    """

    def __init__(
        self,
        tokens: int,
        *,
        ratio: tuple[float, float] = (0.7, 0.85),
        strength: float = 0.5,
        spread: float = 0.1,
        momentum: float = 0.98,
        warmup: int = 20,
        floor: float = 0.5,
        prior: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(prior=prior, seed=seed)
        self.ratio = (_checked(ratio[0]), _checked(ratio[1]))
        if warmup < 1 or not 0 <= floor < 1:
            raise ValueError(f"an adaptive mask needs warmup >= 1 and 0 <= floor < 1, got {warmup} and {floor}")
        self.strength, self.spread = strength, spread
        self.momentum, self.warmup, self.floor = momentum, warmup, floor
        self.register_buffer("difficulty", torch.zeros(tokens))
        self.register_buffer("looks", torch.zeros(tokens))
        self.register_buffer("level", torch.zeros(3))  # batches seen, mean error now, mean error after the warm-up
        # Running means of what sequences hold, of their error, of both squares and of the product.
        self.register_buffer("moments", torch.zeros(5, dtype=torch.float64))

    def forward(self, tokens: Tokens, step: int, patches: Tensor | None = None) -> Masked:
        b, t, _ = tokens.x.shape
        key = self._gumbel(b, t, step)
        difficulty, looks = self.get_buffer("difficulty").cpu(), self.get_buffer("looks").cpu()
        if self.strength and bool((looks > 0).all()) and float(self.get_buffer("level")[0]) >= self.warmup:
            key = key + self.strength * (difficulty - difficulty.mean()) / difficulty.std().clamp(min=1e-6)
        share = self.share()
        if self.spread and self.training and patches is not None:
            share = min(0.95, max(0.05, share - self.spread * float(self.foretold(patches).mean())))
        return _split(key, min(t - 1, max(1, round(t * share))), tokens.x.device)

    def share(self) -> float:
        """The share of the tokens that is hidden now, of a sequence of usual difficulty."""
        seen, now, early = (float(value) for value in self.get_buffer("level"))
        if seen < self.warmup or early <= 0:
            return self.ratio[0]
        progress = min(1.0, max(0.0, (1 - now / early) / (1 - self.floor)))
        return self.ratio[0] + progress * (self.ratio[1] - self.ratio[0])

    def foretold(self, patches_btp: Tensor) -> Tensor:
        """How hard each sequence will be, (B,), in standard deviations of the errors: 0 for the usual."""
        held, error, held2, error2, product = self.get_buffer("moments").cpu()
        spread = ((held2 - held**2) * (error2 - error**2)).clamp(min=0).sqrt()
        if float(self.get_buffer("level")[0]) < self.warmup or spread < 1e-12:
            return torch.zeros(len(patches_btp))
        correlation = ((product - held * error) / spread).clamp(-1, 1)
        return (correlation * (_held(patches_btp).cpu() - held) / (held2 - held**2).sqrt()).clamp(-2, 2).float()

    def groups(self, patches: Tensor) -> list[Tensor] | None:
        if not (self.spread and self.training):  # what is judged is hidden alike
            return None
        hardness = self.foretold(patches)
        if len(patches) < 2 or not bool(hardness.any()):
            return None
        order = hardness.argsort(stable=True).to(patches.device)
        return list(order.chunk(min(_GROUPS, len(patches))))

    @torch.no_grad()
    def observe(self, masked: Tensor, error: Tensor, patches: Tensor | None = None, *, part: float = 1.0) -> None:
        difficulty, looks, level = (self.get_buffer(name) for name in ("difficulty", "looks", "level"))
        momentum = self.momentum**part
        index, value = masked.reshape(-1), error.detach().float().reshape(-1)
        count = torch.zeros_like(looks).index_add_(0, index, torch.ones_like(value))
        total = torch.zeros_like(looks).index_add_(0, index, value)
        seen, mean = count > 0, total / count.clamp(min=1)
        fresh = seen & (looks == 0)
        blended = momentum * difficulty + (1 - momentum) * mean
        difficulty.copy_(torch.where(fresh, mean, torch.where(seen, blended, difficulty)))
        looks += seen
        first = level[0] == 0
        level[0] += part
        level[1] = value.mean() if first else momentum * level[1] + (1 - momentum) * value.mean()
        if level[0] == self.warmup:
            level[2] = level[1]
        if self.spread and patches is not None:
            held, hard = _held(patches), error.detach().double().mean(dim=1).to(patches.device)
            now = torch.stack([x.mean() for x in (held, hard, held**2, hard**2, held * hard)])
            moments = self.get_buffer("moments")
            moments.copy_(now if first else momentum * moments + (1 - momentum) * now.to(moments.device))


def _held(patches_btp: Tensor) -> Tensor:
    """The log of the mean variance of each sequence's patches, (B,)."""
    return (salience(patches_btp, kind="variance").double().mean(dim=1) + 1e-8).log()


class SalientMask(Mask):
    """Sparse: only the tokens that hold something are processed at all, and a share of those is hidden.

    Of T tokens, ``active`` x T take part: the most salient ones, and a ``chance`` share of them drawn at random from
    all the others, so that nothing is never seen. Salience is measured on the raw patches, before the encoder:
    ``variance``, ``energy`` (mean square) or ``entropy`` of the patch's histogram (16 bins over the batch's range).
    With ``chance=1`` the tokens that take part are random: the ablation.

    Args:
        active: share of the tokens that take part.
        chance: share of those that is drawn at random. The more the better: on radiographs a probe found 0.83 with 0.2,
            0.86 with 0.5 and 0.93 with 1 after the same short training (benchmarks/results/frontier.md).
        ratio: share of those that is hidden.
        salience: what counts as holding something.
        prior, seed: see :class:`Mask`; multiplies the salience.
    """

    def __init__(
        self,
        *,
        active: float = 0.5,
        chance: float = 0.5,
        ratio: float = 0.75,
        salience: Literal["variance", "energy", "entropy"] = "variance",
        prior: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(prior=prior, seed=seed)
        if not 0 < active <= 1 or not 0 <= chance <= 1:
            raise ValueError(f"active must lie in (0, 1] and chance in [0, 1], got {active} and {chance}")
        self.active, self.chance, self.ratio, self.salience = active, chance, _checked(ratio), salience

    def forward(self, tokens: Tokens, step: int, patches: Tensor | None = None) -> Masked:
        if patches is None:
            raise ValueError("a salient mask needs the raw patches: the task must hand them over")
        b, t, _ = tokens.x.shape
        part = max(2, round(t * self.active))
        certain = part - round(part * self.chance)
        key = salience(patches, kind=self.salience).cpu()
        if self.prior is not None:
            key = key * self.prior.cpu()
        first = key.argsort(dim=1, descending=True, stable=True)[:, :certain]
        draw = self._gumbel(b, t, step, name="chance").scatter(1, first, float("inf"))
        taking = draw.topk(part, dim=1).indices
        order = torch.rand(b, part, generator=generator(self.seed, "mask", step)).argsort(dim=1)
        taking = taking.gather(1, order).to(tokens.x.device)
        hide = count_hidden(part, self.ratio)
        return Masked(kept=taking[:, hide:].sort(dim=1).values, masked=taking[:, :hide].sort(dim=1).values)


def salience(patches_btp: Tensor, *, kind: Literal["variance", "energy", "entropy"]) -> Tensor:
    """How much each raw patch holds, (B, T, P) -> (B, T), not negative."""
    x = patches_btp.detach().float()
    if kind == "variance":
        return x.var(dim=-1, correction=0)
    if kind == "energy":
        return x.square().mean(dim=-1)
    low, high = x.amin(), x.amax()
    bins = ((x - low) / (high - low).clamp(min=1e-12) * 15.999).long()
    share = torch.nn.functional.one_hot(bins, 16).float().mean(dim=-2)
    return -(share * share.clamp(min=1e-12).log()).sum(dim=-1)


def _checked(ratio: float) -> float:
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
            f"choose one from {1 / tokens:.2g} to {1 - 1 / tokens:.2g}"
        )
    return hide


def _split(key_bt: Tensor, hide: int, device: torch.device) -> Masked:
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
