"""Pretext tasks, one file each. A new task is a file here and a line in ``__all__``."""

from unlabeled.core.pretext.base import Loss, Pretext, Pretraining
from unlabeled.core.pretext.event_modelling import EventModelling
from unlabeled.core.pretext.masked_reconstruction import MaskedReconstruction

__all__ = ["EventModelling", "Loss", "MaskedReconstruction", "Pretext", "Pretraining"]
