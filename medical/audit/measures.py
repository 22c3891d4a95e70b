"""Everything that an audit measures, on labelled pictures of patients that the model did not learn from."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.audit.groups import GroupAudit, Rate, audit_groups
from unlabeled.core.errors import DataError
from unlabeled.core.evaluation import Estimate
from unlabeled.core.progress import say
from unlabeled.medical import _network as network
from unlabeled.medical._decisions import REFER, Decisions, decide
from unlabeled.medical._operating import decision_of
from unlabeled.medical.audit.heatmaps import PICTURES, Box, HeatMapChecks, check_maps
from unlabeled.medical.audit.studies import Studies, by_study
from unlabeled.medical.evaluation import Scored, average_precision, metrics
from unlabeled.medical.images import ImageSet
from unlabeled.medical.model import PneumoniaModel
from unlabeled.medical.shortcuts import (
    Occluded,
    Shortcut,
    label_probes,
    log_odds,
    occlusions,
    representation_probes,
)

SIGNIFICANT = 0.05
# What is measured of groups beside the metrics at the plain threshold.
AT_POINT = ("sensitivity at the 95 % point", "underdiagnosis rate at the 95 % point", "specificity at the 95 % point")
REFERRED, STRANGE = "referred", "out of distribution"


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What was measured.

    Attributes:
        unseen: the pictures that judged.
        scored: the model's probabilities of them and its decision, with the threshold for 95 % sensitivity that
            predictions are made at.
        decisions: what it says of each of them, as users get it; ``None`` where an earlier version saved it without
            what that takes.
        overall: :func:`~unlabeled.medical.evaluation.metrics`, and the average precision.
        groups: by attribute and intersection.
        studies: judged as a whole; ``None`` without decisions, or where nothing is known of studies.
        label_probes: what the label can be told from besides the lungs.
        occluded: the model with parts of the picture left out.
        representation: who can be told from the features before labels.
        maps: the heat maps' tests.
        seconds: that it took.
    """

    unseen: ImageSet
    scored: Scored
    decisions: Decisions | None
    overall: Mapping[str, Estimate]
    groups: GroupAudit
    studies: Studies | None
    label_probes: Sequence[Shortcut]
    occluded: Sequence[Occluded]
    representation: Sequence[Shortcut]
    maps: HeatMapChecks
    seconds: float

    @property
    def gaps(self) -> list[str]:
        """Gaps between groups that stand after correction for their number, in words, largest first."""
        found = sorted((g for g in self.groups.gaps if g.adjusted < SIGNIFICANT), key=lambda g: -g.difference.value)
        return [f"{g.metric} of {g.attribute} {g.higher} is above that of {g.lower} by {g.difference}" for g in found]

    @property
    def shortcuts(self) -> list[str]:
        """What the label can be told from besides the lungs, in words."""
        return [f"{s.name} (AUROC {s.found.auroc})" for s in self.label_probes if s.suspicious and s.found is not None]

    @property
    def leans(self) -> list[str]:
        """What the model loses when parts of the picture are left out, in words."""
        return [f"{o.name} (AUROC falls by {o.loss})" for o in self.occluded if o.suspicious]


def measure(
    model: PneumoniaModel,
    unseen: ImageSet,
    *,
    boxes: Mapping[str, Sequence[Box]] | None = None,
    least: int = 20,
    pictures: int = PICTURES,
    shuffles: int = 200,
    samples: int = 300,
    seed: int = 0,
) -> Audit:
    """Audits a fine-tuned model.

    Args:
        unseen: labelled pictures of patients that the model did not learn from.
        boxes: that readers drew, by picture id.
        least: patients of either class that a group needs.
        pictures: whose heat maps are tested.
        shuffles: refits that the probes' chance level comes from.
        samples: bootstrap draws.

    Raises:
        DataError: the model has no labels behind it, or there is not a label of either class.
    """
    started = time.monotonic()
    model.check_fine_tuned()
    decision = model.decision_
    assert decision is not None
    if unseen.labels is None or len(np.unique(unseen.labels)) < 2:
        raise DataError("an audit needs labelled pictures with the finding and without")
    say("audit: scores and groups")
    if "held_out" in (model.finetuning_ or {}):
        decisions = decide(model, unseen)
        probability = decisions.table.probability.to_numpy()
    else:
        decisions, probability = None, decision.probability(log_odds(model, unseen.pixels) + model.prior_)
    scored = Scored(probability, decision_of(model))
    groups = audit_groups(
        unseen.labels, scored.probability, scored.probability >= decision.threshold, unseen.attributes,
        units=unseen.patients, rates=_rates(unseen.labels == 1, scored, decisions), least=least, samples=samples,
    )  # fmt: skip
    say("audit: shortcuts")
    labels_from = label_probes(unseen, seed=seed, shuffles=shuffles)
    occluded = occlusions(model, unseen, samples=samples)
    features = network.embeddings(model.module_.backbone, unseen.images)
    people = representation_probes(features, unseen.attributes, unseen.patients, seed=seed, shuffles=shuffles)
    say("audit: heat maps")
    maps = check_maps(model, unseen, boxes=boxes, pictures=pictures, seed=seed)
    return Audit(
        unseen=unseen,
        scored=scored,
        decisions=decisions,
        overall={
            **metrics(unseen.labels, scored, patients=unseen.patients, samples=samples),
            "average precision": average_precision(unseen.labels, scored, patients=unseen.patients, samples=samples),
        },
        groups=groups,
        studies=None if decisions is None else by_study(decisions, unseen, finding=model.finding, samples=samples),
        label_probes=labels_from,
        occluded=occluded,
        representation=people,
        maps=maps,
        seconds=time.monotonic() - started,
    )


def _rates(ill: NDArray[np.bool_], scored: Scored, decisions: Decisions | None) -> dict[str, Rate]:
    """What groups are also told by: the calls at the 95 % point, who is referred and who is flagged."""
    called = scored.probability >= scored.decision.sensitive_threshold
    found, missed, spared = AT_POINT
    rates = {
        found: Rate(called, ill),
        missed: Rate(~called, ill, compared=True),
        spared: Rate(~called, ~ill, compared=True),
    }
    if decisions is not None:
        rates[REFERRED] = Rate((decisions.table.decision == REFER).to_numpy())
        if decisions.outlying is not None:
            rates[STRANGE] = Rate(decisions.outlying.flagged)
    return rates
