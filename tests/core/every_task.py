"""Every pretext task with a small network and a batch for it, by name."""

from collections.abc import Callable

import torch
from torch import Tensor

from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.masking import RandomMask
from unlabeled.core.pretext import (
    EventModelling,
    Inpainting,
    Joint,
    MaskedReconstruction,
    MaskedTokens,
    NextPatch,
    NTXent,
    OrderPrediction,
    Pretext,
    Rotation,
    VICReg,
)
from unlabeled.core.tokens import EventFields, GridPatches
from unlabeled.core.views import HistorySlice, PictureView, SignalView


def grid(*, causal: bool = False, size: int = 16) -> Backbone:
    torch.manual_seed(0)
    tokenizer = GridPatches(grid=(size, size), patch=(4, 4), dim=32)
    return Backbone(tokenizer, Encoder(dim=32, depth=2, heads=2, causal=causal))


def events(*, causal: bool = False, sizes: tuple[int, ...] = (5, 7), length: int = 8) -> Backbone:
    torch.manual_seed(0)
    return Backbone(EventFields(sizes=sizes, dim=32, length=length), Encoder(dim=32, depth=2, heads=2, causal=causal))


def patches(backbone: Backbone) -> GridPatches:
    assert isinstance(backbone.tokenizer, GridPatches)
    return backbone.tokenizer


def fields(backbone: Backbone) -> EventFields:
    assert isinstance(backbone.tokenizer, EventFields)
    return backbone.tokenizer


def same(batch: Tensor, draw: torch.Generator) -> Tensor:
    return batch


def codes(b: int = 16, length: int = 8, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    made = torch.stack([torch.randint(1, n, (b, length), generator=draw) for n in (5, 7)], dim=2)
    made[0, 5:] = 0
    return made


IMAGES = torch.randn(16, 1, 16, 16, generator=torch.Generator().manual_seed(5))
TASKS: dict[str, Callable[[], tuple[Backbone, Pretext, Tensor]]] = {
    "reconstruction": lambda: (b := grid(), MaskedReconstruction(patches(b), mask=RandomMask()), IMAGES),
    "inpainting": lambda: (b := grid(), Inpainting(patches(b), blocks=1), IMAGES),
    "time gap": lambda: (b := grid(), Inpainting(patches(b), blocks=1, shape="time", ratio=0.25), IMAGES),
    "nt-xent": lambda: (grid(), NTXent(32, view=PictureView()), IMAGES),
    "nt-xent of signals": lambda: (grid(), NTXent(32, view=SignalView()), IMAGES),
    "nt-xent of histories": lambda: (events(), NTXent(32, view=HistorySlice()), codes()),
    "vicreg": lambda: (grid(), VICReg(32, view=PictureView()), IMAGES),
    "vicreg of histories": lambda: (events(), VICReg(32, view=HistorySlice()), codes()),
    "rotation": lambda: (grid(), Rotation(32), IMAGES),
    "patch order": lambda: (grid(), OrderPrediction(32), IMAGES),
    "segment order": lambda: (grid(), OrderPrediction(32, unit="segment"), IMAGES),
    "event order": lambda: (events(), OrderPrediction(32), codes()),
    "masked tokens": lambda: (b := events(), MaskedTokens(fields(b)), codes()),
    "a run of events": lambda: (b := events(), MaskedTokens(fields(b), run=True), codes()),
    "next patch": lambda: (b := grid(causal=True), NextPatch(patches(b)), IMAGES),
    "next segment": lambda: (b := grid(causal=True), NextPatch(patches(b), order="time"), IMAGES),
    "events": lambda: (b := events(causal=True), EventModelling(fields(b)), codes()),
    "events with a prior": lambda: (
        b := events(causal=True),
        EventModelling(fields(b), prior=torch.tensor([1.0, 3.0])),
        codes(),
    ),
    "events and their order": lambda: (
        b := events(causal=True),
        Joint({"events": (EventModelling(fields(b)), 1.0), "order": (OrderPrediction(32), 0.5)}),
        codes(),
    ),
    "joint": lambda: (
        b := grid(),
        Joint(
            {"fill": (MaskedReconstruction(patches(b), mask=RandomMask()), 1.0), "match": (NTXent(32, view=same), 0.5)}
        ),
        IMAGES,
    ),
}
