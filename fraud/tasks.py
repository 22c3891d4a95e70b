"""Which question payments are pretrained on, and which fields it hides."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from unlabeled.core.encoder import Backbone
from unlabeled.core.errors import DataError
from unlabeled.core.pretext import EventModelling, Joint, NTXent, OrderPrediction, Pretext
from unlabeled.core.seeds import derive
from unlabeled.core.tokens import EventFields
from unlabeled.core.views import HistorySlice

Task = Literal["events", "events+contrastive", "events+order"]
Masking = Literal["random", "fields"]

_CALENDAR = ("hour", "gap")


def build_task(
    backbone: Backbone,
    *,
    task: Task = "events",
    prior: Tensor | None = None,
    seed: int,
    weight: float = 0.1,
    temperature: float = 0.2,
) -> Pretext:
    """The pretext task of a causal backbone that reads histories of payments.

    Every choice holds :class:`~unlabeled.core.pretext.EventModelling`, because scores are made of its heads' surprisal
    (:func:`event_modelling` finds it). Masked tokens in the manner of BERT (whole histories, read from both sides:
    :class:`~unlabeled.core.pretext.MaskedTokens`) are not among the choices: they need an encoder that is not causal,
    and a score that reads a payment's past alone cannot use one. After a short training no choice was clearly better
    than ``events`` without a prior, whatever the weight of a second task (0.03 to 0.3; order at 0.3 was worse), the
    temperature (0.1 to 0.5) or the strength of the prior (3 or 10): benchmarks/results/fraud_tasks.md.

    Args:
        backbone: event tokenizer and causal encoder.
        task: ``events``: the next payment, and its hidden fields from the others. ``events+contrastive``: beside it
            NT-Xent between two runs of one history (CoLES: Babaev et al., 2022; unlike there, the other windows of the
            same card count as others, because a batch holds windows, not cards). ``events+order``: beside it, whether
            half of a history's payments changed places.
        prior: positive weights of the fields (F,), see :func:`importance`.
        seed: fixes what is hidden, the runs and the changes of place.
        weight: of the second task; the surprisals that are scored come from the first, whose weight is 1.
        temperature: of NT-Xent, above 0.

    Raises:
        DataError: no such task.
        ValueError: the prior is not one positive weight a field, or the temperature is not above 0.
    """
    check_names(task=task)
    assert isinstance(backbone.tokenizer, EventFields)
    # Made first whatever the task, so that all start from the same weights and hide the same fields.
    events = EventModelling(backbone.tokenizer, prior=prior, seed=derive(seed, "visible"))
    dim = backbone.encoder.dim
    match task:
        case "events":
            return events
        case "events+contrastive":
            contrast = NTXent(dim, view=HistorySlice(), temperature=temperature, seed=derive(seed, "views"))
            return Joint({"events": (events, 1.0), "contrastive": (contrast, weight)})
        case "events+order":
            order = OrderPrediction(dim, seed=derive(seed, "order"))
            return Joint({"events": (events, 1.0), "order": (order, weight)})


def event_modelling(pretext: Pretext) -> EventModelling:
    """The event modelling in a task of :func:`build_task`."""
    found = pretext.tasks["events"] if isinstance(pretext, Joint) else pretext
    assert isinstance(found, EventModelling)
    return found


def importance(names: Sequence[str], *, what: float = 3.0) -> Tensor:
    """Weights of fields by name, (F,): 1 for the calendar (hour, gap since the payment before), ``what`` for all
    others.

    A judgement of the domain, not a measurement. When somebody pays is mostly habit and chance, and hard to foretell;
    how much, for what and to whom (a category, a merchant new to the card) is what a thief changes. So these are to be
    told from the rest of the payment more often. On a table that has nothing but them, this is no prior at all.
    """
    return torch.tensor([1.0 if name in _CALENDAR else what for name in names])


def check_names(*, task: str = "events", masking: str = "random") -> None:
    """Raises a DataError for a task or masking that does not exist, with those that do."""
    for name, value, known in (("task", task, get_args(Task)), ("masking", masking, get_args(Masking))):
        if value not in known:
            raise DataError(f"there is no {name} '{value}': choose one of {', '.join(known)}")
