"""Which question vibration and trends are pretrained on, and which patches it hides.

Shape suffixes: b batch, c channel, h/w rows (bands or indicators) and columns (time), r/k rows and columns of patches.
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from unlabeled.core.encoder import Backbone
from unlabeled.core.errors import DataError
from unlabeled.core.informed_masking import AdaptiveMask, SalientMask, around
from unlabeled.core.masking import BlockMask, Mask, RandomMask, check_hides
from unlabeled.core.pretext import (
    OFFERED,
    Joint,
    MaskedReconstruction,
    NextPatch,
    NTXent,
    OrderPrediction,
    Pretext,
    VICReg,
)
from unlabeled.core.seeds import derive
from unlabeled.core.tokens import GridPatches, take
from unlabeled.core.views import SignalView

Task = Literal["masked", "next", "contrastive", "vicreg", "order", "joint"]
HIDING: tuple[str, ...] = ("masked", "joint")  # the tasks that masking is for
VIEWING: tuple[str, ...] = ("contrastive", "vicreg", "joint")  # those that compare two views
Masking = Literal["random", "bearing", "time", "time-random", "band", "adaptive", "sparse", "sparse-random"]

SHAFT_HZ = (10.0, 1000.0)  # where ISO 20816-1 measures the vibration that a shaft causes
SHAFT_ORDERS = 20.0
BEARING_HZ = (2_000.0, 10_000.0)  # where strikes in a rolling bearing ring (Randall and Antoni, 2011)


def build_task(
    backbone: Backbone,
    *,
    task: str,
    masking: Masking,
    mask_ratio: float,
    prior: Tensor | None,
    seed: int,
    temperature: float = 0.2,
    augmentation: float = 1.0,
) -> Pretext:
    """The pretext task of a backbone that reads time-frequency pictures or trends.

    Args:
        task: masked reconstruction; the ``next`` time step from those before it (the encoder must be causal); NT-Xent
            or VICReg on two views (gain, noise, a shift in time, a masked band); whether segments in time were
            scrambled (order: for trends; on steady vibration one segment is like another, and at no width of patches
            could an encoder tell more than half of the scrambled FEMTO snapshots: order.md); or masked reconstruction
            with VICReg beside it at a tenth of the weight (joint; 0.03 and 0.3 could not be told apart from it:
            settings.md in benchmarks/results); or one of :data:`~unlabeled.core.pretext.OFFERED`.
        masking: for the tasks that hide patches: ``random`` ones; random ones with those of the ``bearing`` prior
            first; a gap in ``time``; ``time-random``, random ones of the fine patches that this takes; a gap in
            frequency (``band``; of a trend, whole indicators); ``adaptive`` to what is hard at the moment; ``sparse``,
            where only half of the patches take part at all: those
            with most energy, and random ones; ``sparse-random``, where that half is random.
        mask_ratio: share of the patches that is hidden (of those that take part).
        prior: weights of the patches for ``bearing`` (:func:`bearing_prior`).
        temperature: of NT-Xent, above 0.
        augmentation: strength of the views, 0 to 2 (:meth:`~unlabeled.core.views.SignalView.of_strength`).

    Raises:
        DataError: no such task or masking, a masking for a task that hides nothing, ``bearing`` without a prior, or a
            number out of its range.
    """
    for name, value, known in (("task", task, (*get_args(Task), *OFFERED)), ("masking", masking, get_args(Masking))):
        if value not in known:
            raise DataError(f"there is no {name} '{value}': choose one of {', '.join(known)}")
    check_hides(task, masking, hiding=HIDING)
    if not (0 < temperature < math.inf and 0 <= augmentation <= 2):
        raise DataError(
            f"needs a temperature above 0 and an augmentation between 0 and 2, got {temperature} and {augmentation}"
        )
    view = SignalView.of_strength(augmentation)
    tokenizer, dim, views = backbone.tokenizer, backbone.encoder.dim, derive(seed, "sensors", "views")
    assert isinstance(tokenizer, GridPatches)

    def masked() -> MaskedReconstruction:
        draw = derive(seed, "sensors", "mask")
        mask = build_mask(tokenizer, masking=masking, ratio=mask_ratio, prior=prior, seed=draw)
        # The level of a patch is what a fault changes: targets keep it.
        return MaskedReconstruction(tokenizer, mask=mask, dim=32, depth=1, normalise=False)

    match task:
        case "masked":
            return masked()
        case "next":
            return NextPatch(tokenizer, order="time", normalise=False)
        case "contrastive":
            return NTXent(dim, view=view, temperature=temperature, seed=views)
        case "vicreg":
            return VICReg(dim, view=view, seed=views)
        case "order":
            return OrderPrediction(dim, unit="segment", seed=views)
        case "joint":
            return Joint({"masked": (masked(), 1.0), "vicreg": (VICReg(dim, view=view, seed=views), 0.1)})
        case _:
            return OFFERED[task].make(backbone, seed=views)


def time_steps(*, task: str, masking: Masking) -> int:
    """Columns of a picture, or rows of a trend, in one patch: what is about time is cut finely, so that there are many
    gaps to hide, orders to tell and steps to foretell; anything else coarsely, which costs a quarter."""
    about_time = task in ("next", "order") or (task in HIDING and masking.startswith("time"))
    return 1 if about_time else 4


def build_mask(tokenizer: GridPatches, *, masking: Masking, ratio: float, prior: Tensor | None, seed: int) -> Mask:
    """See :func:`build_task`."""
    grid = (tokenizer.rows, tokenizer.columns)
    match masking:
        case "random" | "time-random":
            return RandomMask(ratio, seed=seed)
        case "bearing":
            check_bearing(masking, waveform=prior is not None)
            return RandomMask(ratio, prior=prior, seed=seed)
        case "time" | "band":
            return BlockMask(grid, ratio=ratio, shape=masking, seed=seed)
        case "adaptive":
            return AdaptiveMask(tokenizer.tokens, ratio=around(ratio), seed=seed)
        case "sparse":
            return SalientMask(active=0.5, ratio=ratio, salience="energy", seed=seed)
        case "sparse-random":
            return SalientMask(active=0.5, chance=1.0, ratio=ratio, seed=seed)


def check_bearing(masking: str, *, waveform: bool) -> None:
    """Raises a DataError where the bearing prior is asked for and rows are no frequencies."""
    if masking == "bearing" and not waveform:
        raise DataError("masking 'bearing' is for waveforms, whose rows are frequencies: choose another for trends")


def bearing_prior(rows: int, columns: int, *, fs: float, shaft_hz: float | None = None, inside: float = 3.0) -> Tensor:
    """Weights (rows x columns,) of patches over 0 to ``fs / 2``: 1 where little is expected, ``inside`` where a rotor
    with rolling bearings shows its faults.

    Those are the first twenty orders of the shaft speed (unbalance, misalignment, looseness), or 10 to 1000 Hz where
    the speed is not known, and 2 to 10 kHz, where bearings ring. A row that is covered in part weighs in between.

    Args:
        fs: sampling rate, hertz.
        shaft_hz: shaft speed in revolutions a second.
        inside: 3 ended higher than uniform masks on vibration (benchmarks/results/frontier-long.md); other weights were
            not measured.
    """
    bands = [(0.5 * shaft_hz, SHAFT_ORDERS * shaft_hz) if shaft_hz else SHAFT_HZ, BEARING_HZ]
    edge = torch.arange(rows + 1, dtype=torch.float64) * fs / 2 / rows
    covered = torch.zeros(rows, dtype=torch.float64)
    # The two bands may overlap at high speeds: what both cover counts once.
    bands = [bands[0], (max(bands[1][0], bands[0][1]), max(bands[1][1], bands[0][1]))]
    for low, high in bands:
        covered += (edge[1:].clamp(max=high) - edge[:-1].clamp(min=low)).clamp(min=0) / (edge[1] - edge[0])
    weight = 1 + (inside - 1) * covered.clamp(max=1)
    return weight.float()[:, None].expand(rows, columns).reshape(-1)


def foretells(pretext: Pretext) -> bool:
    """Whether a task says what should stand somewhere, so that being wrong about it can be measured."""
    return isinstance(_telling(pretext), MaskedReconstruction | NextPatch)


@torch.inference_mode()
def foretelling_error(backbone: Backbone, pretext: Pretext, batch_bchw: Tensor) -> float:
    """Root mean square of what a task that :func:`foretells` gets wrong in a batch."""
    part, tokenizer = _telling(pretext), backbone.tokenizer
    assert isinstance(tokenizer, GridPatches)
    if isinstance(part, NextPatch):
        prediction, target = part.foretell(backbone, batch_bchw)
    else:
        assert isinstance(part, MaskedReconstruction)
        prediction, masked = part.reconstruct(backbone, batch_bchw, 0)
        target = take(part.target(tokenizer, batch_bchw), masked)
    return float((prediction - target).square().mean().sqrt())


def _telling(pretext: Pretext) -> Pretext:
    """The part of a joint task that says what should stand somewhere; any other task as it is."""
    parts = pretext.tasks.children() if isinstance(pretext, Joint) else [pretext]
    found = [part for part in parts if isinstance(part, MaskedReconstruction | NextPatch)]
    return found[0] if found else pretext
