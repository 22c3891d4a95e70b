"""What a model says of studies with several pictures, judged as one answer each, beside the pictures one by one."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.evaluation import Estimate
from unlabeled.core.report import Section
from unlabeled.medical._decisions import REFER, Decisions, per_study
from unlabeled.medical.evaluation import SAMPLES, over_patients
from unlabeled.medical.images import ImageSet

CALLS = {"": "call", " at the 95 % point": "sensitive_call"}


class Studies(NamedTuple):
    """Studies among labelled pictures of unseen patients.

    Attributes:
        known: how many there are.
        several: how many of them have several such pictures; the rest of the numbers is about these.
        pictures, patients: of those.
        ill: studies any of whose pictures is labelled so.
        whole: by name, of the studies as :func:`~unlabeled.medical._decisions.per_study` puts them together.
        single: the same of their pictures one by one.
    """

    known: int
    several: int
    pictures: int
    patients: int
    ill: int
    whole: Mapping[str, Estimate]
    single: Mapping[str, Estimate]


def by_study(decisions: Decisions, unseen: ImageSet, *, finding: str, samples: int = SAMPLES) -> Studies | None:
    """Studies with several labelled pictures as they are decided on; ``None`` where nothing is known of studies.

    A study has the finding where any of its pictures is labelled so. Intervals are over patients.
    """
    if unseen.studies is None or not (unseen.studies != "").any():
        return None
    assert unseen.labels is not None
    names, counts = np.unique(unseen.studies[unseen.studies != ""], return_counts=True)
    several = np.isin(unseen.studies, names[counts > 1])
    if not several.any():
        return Studies(len(names), 0, 0, 0, 0, {}, {})
    table, of = decisions.table[several], unseen.studies[several]
    labels, patients = unseen.labels[several], unseen.patients[several]
    whole = per_study(table, of, finding=finding)
    first = {name: row for row, name in reversed(list(enumerate(of)))}
    ill = np.array([labels[of == name].max() for name in whole.study]) == 1
    whose = patients[[first[name] for name in whole.study]]
    return Studies(
        known=len(names),
        several=len(whole),
        pictures=len(table),
        patients=len(np.unique(whose)),
        ill=int(ill.sum()),
        whole=_rates(whole, ill, whose, finding, samples),
        single=_rates(table, labels == 1, patients, finding, samples),
    )


def add_studies(section: Section, found: Studies | None, *, decided: bool) -> None:
    """What the page says of them.

    Args:
        decided: whether the model could decide at all.
    """
    if not decided:
        section.text("Not judged: an earlier version saved this model without what decisions take.")
    elif found is None:
        section.text("Not judged: of none of these pictures is it known which study it belongs to.")
    elif not found.several:
        section.text(f"Not judged: none of {found.known:,} studies has several labelled pictures.")
    else:
        section.text(
            f"{found.several:,} of {found.known:,} studies have several labelled pictures: {found.pictures:,} pictures "
            f"of {found.patients:,} patients. A study counts as ill where any of its pictures is labelled so "
            f"({found.ill:,} are), is called ill where any picture is, and is referred unless all agree."
        )
        section.table(
            ["", "as studies", "their pictures one by one"],
            [[name, found.whole[name], found.single[name]] for name in found.whole],
            note="Intervals are over patients. A dash: there is no study of that kind.",
        )


def _rates(
    table: Any, ill: NDArray[np.bool_], patients: NDArray[Any], finding: str, samples: int
) -> dict[str, Estimate]:
    rates = {}
    for where, column in CALLS.items():
        called = (table[column] == finding).to_numpy()
        rates[f"sensitivity{where}"] = over_patients(called, patients, among=ill, samples=samples)
        rates[f"specificity{where}"] = over_patients(~called, patients, among=~ill, samples=samples)
    rates["referred"] = over_patients((table.decision == REFER).to_numpy(), patients, samples=samples)
    return rates
