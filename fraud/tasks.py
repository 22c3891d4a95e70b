"""Which question payments are pretrained on, and which fields it hides."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from unlabeled.core.encoder import Backbone
from unlabeled.core.errors import DataError
from unlabeled.core.pretext import (
    OFFERED,
    EventModelling,
    Joint,
    MaskedTokens,
    NTXent,
    OrderPrediction,
    Pretext,
    VICReg,
)
from unlabeled.core.pretext.masked_tokens import MOST
from unlabeled.core.seeds import derive
from unlabeled.core.tokens import EventFields
from unlabeled.core.views import HistorySlice

Task = Literal["events", "events+contrastive", "events+vicreg", "events+order", "events+tokens"]
Masking = Literal["random", "fields", "run"]
# Tasks that compare histories with one another, and the one that hides payments and not only fields.
COMPARING: tuple[str, ...] = ("events+contrastive", "events+vicreg")
_WITH_RUNS: Task = "events+tokens"
BESIDE = "events+"

_CALENDAR = ("hour", "gap")


@dataclass(frozen=True, kw_only=True)
class Question:
    """What payments are pretrained on; for the settings see :func:`build_task`."""

    task: str = "events"
    masking: Masking = "random"
    mask_ratio: float = 0.25
    temperature: float = 0.2
    augmentation: float = 1.0

    def check(self) -> None:
        """Raises a DataError for names that do not exist or go together, and for numbers out of their range."""
        check_names(task=self.task, masking=self.masking)
        for name, value, fits, range_ in (
            ("mask ratio", self.mask_ratio, 0 < self.mask_ratio <= MOST, f"above 0 and at most {MOST}"),
            ("temperature", self.temperature, 0 < self.temperature < math.inf, "above 0"),
            ("strength of the augmentation", self.augmentation, 0 <= self.augmentation <= 2, "between 0 and 2"),
        ):
            if not fits:
                raise DataError(f"the {name} must be {range_}, got {value}")

    def of_single_payments(self) -> "Question":
        """What is left of it where payments stand alone: they have neither runs nor an order."""
        return replace(self, task="events", masking="random" if self.masking == "run" else self.masking)

    def told(self) -> dict[str, Any]:
        """Task and masking, and of the numbers those that are not the usual ones."""
        usual = asdict(Question())
        return {n: v for n, v in asdict(self).items() if n in ("task", "masking") or v != usual[n]}


# Their names, which are also those of the detector's parameters.
SETTINGS = tuple(setting.name for setting in fields(Question))


def build_task(
    backbone: Backbone,
    *,
    task: str = "events",
    prior: Tensor | None = None,
    run: bool = False,
    seed: int,
    weight: float = 0.1,
    temperature: float = 0.2,
    ratio: float = 0.25,
    augmentation: float = 1.0,
    vicreg: tuple[float, float, float] = (25.0, 25.0, 1.0),
) -> Pretext:
    """The pretext task of a causal backbone that reads histories of payments.

    Every choice holds :class:`~unlabeled.core.pretext.EventModelling`, because scores are made of its heads' surprisal
    (:func:`event_modelling` finds it), and because a score reads a payment's past alone. A second task may read a
    history otherwise while it teaches. After a short training no choice was clearly better than ``events`` without a
    prior, whatever the weight of a second task (0.03 to 0.3; order at 0.3 was worse), the temperature (0.1 to 0.5),
    the strength of the prior (3 or 10), what masked tokens hide (0.15 to 0.5, a run), how little two runs have in
    common (half or twice the strength) or how little VICReg asks of likeness (25 or 5):
    benchmarks/results/fraud_tasks.md.

    No field is hidden because it is hard or salient at the moment (:mod:`~unlabeled.core.informed_masking` chooses
    among patches): how hard a field is to tell is the very number that scores are made of, and an event whose fields
    were left out by it would have no state to score the next one with.

    Args:
        backbone: event tokenizer and causal encoder.
        task: ``events``: the next payment, and its hidden fields from the others. ``events+contrastive``: beside it
            NT-Xent between two runs of one history (CoLES: Babaev et al., 2022; unlike there, the other windows of the
            same card count as others, because a batch holds windows, not cards: with the 184 cards of the benchmark
            they are 0.7 % of the others). ``events+vicreg``: beside it VICReg between two such runs, which has no
            others. ``events+order``: beside it, whether half of a history's payments changed places.
            ``events+tokens``: beside it, fields hidden all over a history and told from what came before and after
            (BERT), by the same encoder without its causal mask (UniLM: :class:`~unlabeled.core.pretext.MaskedTokens`).
            ``events+NAME``: beside it one of :data:`~unlabeled.core.pretext.OFFERED`.
        prior: positive weights of the fields (F,), see :func:`importance`.
        run: ``events+tokens`` hides a run of whole payments in place of scattered fields.
        seed: fixes what is hidden, the runs and the changes of place.
        weight: of the second task; the surprisals that are scored come from the first, whose weight is 1.
        temperature: of NT-Xent, above 0.
        ratio: share of a history that ``events+tokens`` hides.
        augmentation: how little two runs of a history have in common
            (:meth:`~unlabeled.core.views.HistorySlice.of_strength`).
        vicreg: weights of invariance, variance and covariance.

    Raises:
        DataError: no such task, or a run for a task that has no masked tokens.
        ValueError: the prior is not one positive weight a field or comes with a run, the temperature is not above 0,
            or the ratio leaves nothing to tell the rest from.
    """
    check_names(task=task, masking="run" if run else "random")
    assert isinstance(backbone.tokenizer, EventFields)
    # Made first whatever the task, so that all start from the same weights and hide the same fields.
    events = EventModelling(backbone.tokenizer, prior=prior, seed=derive(seed, "visible"))
    dim, view = backbone.encoder.dim, HistorySlice.of_strength(augmentation)
    match task:
        case "events":
            return events
        case "events+contrastive":
            contrast = NTXent(dim, view=view, temperature=temperature, seed=derive(seed, "views"))
            return Joint({"events": (events, 1.0), "contrastive": (contrast, weight)})
        case "events+vicreg":
            invariance, variance, covariance = vicreg
            alike = VICReg(
                dim, view=view, invariance=invariance, variance=variance, covariance=covariance,
                seed=derive(seed, "views"),
            )  # fmt: skip
            return Joint({"events": (events, 1.0), "vicreg": (alike, weight)})
        case "events+order":
            order = OrderPrediction(dim, seed=derive(seed, "order"))
            return Joint({"events": (events, 1.0), "order": (order, weight)})
        case "events+tokens":
            tokens = MaskedTokens(backbone.tokenizer, ratio=ratio, run=run, prior=prior, seed=derive(seed, "tokens"))
            return Joint({"events": (events, 1.0), "tokens": (tokens, weight)})
        case _:
            name = task.removeprefix(BESIDE)
            return Joint({"events": (events, 1.0), name: (OFFERED[name].make(backbone, seed=seed), weight)})


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


def known_tasks() -> tuple[str, ...]:
    """The room's own, and :data:`~unlabeled.core.pretext.OFFERED` beside events."""
    return (*get_args(Task), *(f"{BESIDE}{name}" for name in OFFERED))


def check_names(*, task: str, masking: str) -> None:
    """Raises a DataError for a task or masking that does not exist, with those that do, and for two that do not go
    together."""
    for name, value, known in (("task", task, known_tasks()), ("masking", masking, get_args(Masking))):
        if value not in known:
            raise DataError(f"there is no {name} '{value}': choose one of {', '.join(known)}")
    if masking == "run" and task != _WITH_RUNS:
        raise DataError(
            f"masking 'run' hides runs of payments, and the task '{task}' has no masked tokens to tell them: choose "
            f"the task '{_WITH_RUNS}', or another masking"
        )
