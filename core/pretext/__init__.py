"""Pretext tasks, one file each. A new task is a file here and a line in ``__all__``."""

from unlabeled.core.pretext.base import Loss, Pretext, Pretraining
from unlabeled.core.pretext.contrastive import NTXent, VICReg
from unlabeled.core.pretext.event_modelling import EventModelling
from unlabeled.core.pretext.inpainting import Inpainting
from unlabeled.core.pretext.joint import Joint
from unlabeled.core.pretext.masked_reconstruction import MaskedReconstruction
from unlabeled.core.pretext.masked_tokens import MaskedTokens
from unlabeled.core.pretext.next_patch import NextPatch
from unlabeled.core.pretext.order import OrderPrediction
from unlabeled.core.pretext.rotation import Rotation

__all__ = [
    "EventModelling",
    "Inpainting",
    "Joint",
    "Loss",
    "MaskedReconstruction",
    "MaskedTokens",
    "NTXent",
    "NextPatch",
    "OrderPrediction",
    "Pretext",
    "Pretraining",
    "Rotation",
    "VICReg",
]
