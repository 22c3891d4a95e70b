"""One threshold for the sensitivity that a page speaks of, wherever it speaks of it."""

from dataclasses import replace

from unlabeled.core.operating import operating_point
from unlabeled.medical._decisions import HeldOut, held_out
from unlabeled.medical._finetuning import SENSITIVITY, Decision
from unlabeled.medical.model import PneumoniaModel


def at_operating_point(decision: Decision, held: HeldOut) -> Decision:
    """The decision with the threshold of :func:`~unlabeled.core.operating.operating_point`, as predictions are made
    at: halfway below the lowest score that is found. Models save it so; those of an earlier version, that score."""
    scores = decision.probability(held.logits)
    point = operating_point(held.labels, scores, SENSITIVITY, groups=held.patients, samples=0)
    return replace(decision, sensitive_threshold=point.threshold)


def decision_of(model: PneumoniaModel) -> Decision:
    """The same of a model; as it was saved where an earlier version saved it without held-out predictions."""
    model.check_fine_tuned()
    assert model.decision_ is not None
    if "held_out" not in (model.finetuning_ or {}):
        return model.decision_
    return at_operating_point(model.decision_, held_out(model))
