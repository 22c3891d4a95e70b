"""Pretext tasks, one file each. A new task is a file here and a line below (docs/new-task.md)."""

from unlabeled.core.pretext.base import Loss as Loss
from unlabeled.core.pretext.base import Pretext as Pretext
from unlabeled.core.pretext.base import Pretraining as Pretraining
from unlabeled.core.pretext.contrastive import NTXent as NTXent
from unlabeled.core.pretext.contrastive import VICReg as VICReg
from unlabeled.core.pretext.event_modelling import EventModelling as EventModelling
from unlabeled.core.pretext.inpainting import Inpainting as Inpainting
from unlabeled.core.pretext.joint import Joint as Joint
from unlabeled.core.pretext.masked_reconstruction import MaskedReconstruction as MaskedReconstruction
from unlabeled.core.pretext.masked_tokens import MaskedTokens as MaskedTokens
from unlabeled.core.pretext.next_patch import NextPatch as NextPatch
from unlabeled.core.pretext.order import OrderPrediction as OrderPrediction
from unlabeled.core.pretext.rotation import Rotation as Rotation

# Tasks beyond those that the rooms know themselves, by the name that ``--task`` and ``task=`` take.
OFFERED: dict[str, type[Pretext]] = {
    task.name: task
    for task in list(globals().values())
    if isinstance(task, type) and issubclass(task, Pretext) and task.name
}
