"""Everything that an audit measures, on labelled pictures of patients that the model did not learn from."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unlabeled.core.audit.groups import GroupAudit, audit_groups
from unlabeled.core.errors import DataError
from unlabeled.core.evaluation import Estimate
from unlabeled.core.progress import say
from unlabeled.medical import _network as network
from unlabeled.medical.audit.heatmaps import PICTURES, Box, HeatMapChecks, check_maps
from unlabeled.medical.evaluation import Scored, metrics
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


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What was measured.

    Attributes:
        unseen: the pictures that judged.
        scored: the model's probabilities of them and its decision.
        overall: :func:`~unlabeled.medical.evaluation.metrics`.
        groups: by attribute and intersection.
        label_probes: what the label can be told from besides the lungs.
        occluded: the model with parts of the picture left out.
        representation: who can be told from the features before labels.
        maps: the heat maps' tests.
        seconds: that it took.
    """

    unseen: ImageSet
    scored: Scored
    overall: Mapping[str, Estimate]
    groups: GroupAudit
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
    whole = log_odds(model, unseen.pixels)
    scored = Scored(decision.probability(whole + model.prior_), decision)
    groups = audit_groups(
        unseen.labels, scored.probability, scored.probability >= decision.threshold, unseen.attributes,
        units=unseen.patients, least=least, samples=samples, seed=seed,
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
        overall=metrics(unseen.labels, scored, patients=unseen.patients, samples=samples),
        groups=groups,
        label_probes=labels_from,
        occluded=occluded,
        representation=people,
        maps=maps,
        seconds=time.monotonic() - started,
    )
