"""Masks that look before they hide: at what was hard so far, and at what the tokens hold.

Shape suffixes: b batch, t token, k kept, m masked, p numbers in a patch.
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from unlabeled.core.errors import DataError
from unlabeled.core.masking import Mask, Masked, Prior, checked_ratio, count_hidden, split
from unlabeled.core.seeds import generator
from unlabeled.core.tokens import Tokens

Salience = Literal["variance", "energy", "entropy"]
# Into so many parts of like difficulty is a batch cut by a mask that hides more of some sequences than of others.
_GROUPS = 4


def around(ratio: float) -> tuple[float, float]:
    """From easier to harder than ``ratio``, so that the mean over a pretraining is near it.

    Raises:
        DataError: either end would leave next to nothing to read or to tell.
    """
    if not 0.15 <= ratio <= 0.85:
        raise DataError(
            f"adaptive masks hide from 0.1 less to 0.1 more than the mask ratio, and {ratio:g} leaves too little: "
            "choose one from 0.15 to 0.85"
        )
    return ratio - 0.1, ratio + 0.1


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
        strength: 0 ignores the memory. On radiographs and on vibration 0, 0.5 and 1 could not be told apart
            (benchmarks/results/settings.md).
        spread: 0 hides as much of every sequence; on both kinds of data 0, 0.1 and 0.3 could not be told apart
            (settings.md). Not measured were
        momentum: of the memory,
        warmup: looks before the memory counts,
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
        prior: Prior | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(prior=prior, seed=seed)
        self.ratio = (checked_ratio(ratio[0]), checked_ratio(ratio[1]))
        if warmup < 1 or not 0 <= floor < 1:
            raise ValueError(f"an adaptive mask needs warmup >= 1 and 0 <= floor < 1, got {warmup} and {floor}")
        if not (0 <= strength < math.inf and 0 <= spread < 1 and 0 <= momentum < 1):
            raise ValueError(
                "an adaptive mask needs a finite strength of 0 or more, 0 <= spread < 1 and 0 <= momentum < 1, got "
                f"{strength}, {spread} and {momentum}"
            )
        self.strength, self.spread = strength, spread
        self.momentum, self.warmup, self.floor = momentum, warmup, floor
        self.register_buffer("difficulty", torch.zeros(tokens))
        self.register_buffer("looks", torch.zeros(tokens))
        self.register_buffer("level", torch.zeros(3))  # batches seen, mean error now, mean error after the warm-up
        # Running means of what sequences hold, of their error, of both squares and of the product.
        self.register_buffer("moments", torch.zeros(5, dtype=torch.float64))

    def forward(self, tokens: Tokens, step: int, patches: Tensor | None = None) -> Masked:
        b, t, _ = tokens.x.shape
        if t != len(self.get_buffer("looks")):
            raise ValueError(f"an adaptive mask for {len(self.get_buffer('looks'))} tokens was given {t}")
        key = self._gumbel(b, t, step, patches)
        difficulty, looks = self.get_buffer("difficulty").cpu(), self.get_buffer("looks").cpu()
        if self.strength and bool((looks > 0).all()) and self._warm:
            key = key + self.strength * (difficulty - difficulty.mean()) / difficulty.std().clamp(min=1e-6)
        share = self.share()
        if self.spread and self.training and patches is not None:
            share = min(0.95, max(0.05, share - self.spread * float(self.foretold(patches).mean())))
        return split(key, min(t - 1, max(1, round(t * share))), tokens.x.device)

    @property
    def _warm(self) -> bool:
        """Whether so many batches were seen; parts of a batch need not add up to it exactly."""
        return float(self.get_buffer("level")[0]) > self.warmup - 1e-3

    def share(self) -> float:
        """The share of the tokens that is hidden now, of a sequence of usual difficulty."""
        _, now, early = (float(value) for value in self.get_buffer("level"))
        if not self._warm or early <= 0:
            return self.ratio[0]
        progress = min(1.0, max(0.0, (1 - now / early) / (1 - self.floor)))
        return self.ratio[0] + progress * (self.ratio[1] - self.ratio[0])

    def foretold(self, patches_btp: Tensor) -> Tensor:
        """How hard each sequence will be, (B,), in standard deviations of the errors: 0 for the usual."""
        held, error, held2, error2, product = self.get_buffer("moments").cpu()
        spread = ((held2 - held**2) * (error2 - error**2)).clamp(min=0).sqrt()
        if not self._warm or spread < 1e-12:
            return torch.zeros(len(patches_btp))
        correlation = ((product - held * error) / spread).clamp(-1, 1)
        return (correlation * (_held(patches_btp).cpu() - held) / (held2 - held**2).sqrt()).clamp(-2, 2).float()

    def groups(self, patches: Tensor) -> list[Tensor] | None:
        if not (self.spread and self.training):  # what is judged is hidden alike
            return None
        if len(patches) < 2:
            return None
        # In groups from the first step on, when nothing is foretold yet, so that a step costs the same all along and
        # what a training will cost can be told from its beginning.
        order = self.foretold(patches).argsort(stable=True).to(patches.device)
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
        if self._warm and level[2] == 0:
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
        active: share of the tokens that take part. 0.25, 0.5 and 0.75 could not be told apart; the more the better on
            average (benchmarks/results/settings.md).
        chance: share of those that is drawn at random. On radiographs, after the same short training, a probe found
            0.83 with 0.2, 0.86 with 0.5 and 0.93 with 1 (benchmarks/results/frontier.md), after a longer one 0.945 with
            0.5 and 0.949 with 1, within chance (frontier-long.md).
        ratio: share of those that is hidden.
        salience: what counts as holding something; the three could not be told apart on either kind of data
            (settings.md).
        prior, seed: see :class:`Mask`; multiplies the salience, and weighs the tokens that are drawn at random.
    """

    def __init__(
        self,
        *,
        active: float = 0.5,
        chance: float = 0.5,
        ratio: float = 0.75,
        salience: Salience = "variance",
        prior: Prior | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(prior=prior, seed=seed)
        if not 0 < active <= 1 or not 0 <= chance <= 1:
            raise ValueError(f"active must lie in (0, 1] and chance in [0, 1], got {active} and {chance}")
        if salience not in get_args(Salience):
            raise ValueError(f"salience must be one of {', '.join(get_args(Salience))}, got {salience!r}")
        self.active, self.chance, self.ratio, self.salience = active, chance, checked_ratio(ratio), salience

    def forward(self, tokens: Tokens, step: int, patches: Tensor | None = None) -> Masked:
        if patches is None:
            raise ValueError("a salient mask needs the raw patches: the task must hand them over")
        b, t, _ = tokens.x.shape
        part = max(2, round(t * self.active))
        certain = part - round(part * self.chance)
        key = salience(patches, kind=self.salience).cpu()
        weights = self.weights(b, t, patches)
        if weights is not None:
            key = key * weights
        first = key.argsort(dim=1, descending=True, stable=True)[:, :certain]
        draw = self._gumbel(b, t, step, patches, name="chance").scatter(1, first, float("inf"))
        taking = draw.topk(part, dim=1).indices
        order = torch.rand(b, part, generator=generator(self.seed, "mask", step)).argsort(dim=1)
        taking = taking.gather(1, order).to(tokens.x.device)
        hide = count_hidden(part, self.ratio)
        return Masked(kept=taking[:, hide:].sort(dim=1).values, masked=taking[:, :hide].sort(dim=1).values)


def salience(patches_btp: Tensor, *, kind: Salience) -> Tensor:
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
