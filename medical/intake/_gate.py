"""What can be told of a file only beside the others: duplicates, who is one person, and studies under two patients."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np

from unlabeled.core.store import Store
from unlabeled.medical._people import Issuers, across_issuers
from unlabeled.medical._pseudonyms import shifted
from unlabeled.medical.intake import duplicates
from unlabeled.medical.intake._film import ALONE, FURTHER, Finding
from unlabeled.medical.intake._parts import Part, Parts
from unlabeled.medical.intake.reasons import EXACT, FLAGGED, REFUSED


@dataclass
class Verdicts:
    """What the gate adds to the findings, by their number in the walk.

    Attributes:
        refused: reason and detail.
        flags: remarked of one that is kept.
        like: number of the other picture that is meant.
        rows: numbers of what is kept, in the order of its rows.
        issuers: who is one person though only some files name the issuer of the id.
        further: how many days further back the dates of those move who are called otherwise, by their own pseudonym, so
            that all of a person's move alike.
    """

    refused: dict[int, tuple[str, str]] = field(default_factory=dict)
    flags: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    like: dict[int, int] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)
    issuers: Issuers = field(default_factory=lambda: Issuers({}, 0, 0))
    further: dict[str, int] = field(default_factory=dict)

    def put(self, number: int, finding: Finding) -> Finding:
        """The finding with what was added; flags in one order. Once a finding."""
        own = finding.facts.get("patient", "")
        if own in self.issuers.called:
            finding.facts["patient"] = self.issuers.called[own]
            if finding.facts.get("date"):
                day = shifted(date.fromisoformat(finding.facts["date"]), self.further[own])
                finding.facts["date"] = "" if day is None else day.isoformat()
        if number in self.refused:
            finding.state, (finding.reason, finding.detail), finding.flags = REFUSED, self.refused[number], []
        elif finding.state != REFUSED and number in self.flags:
            finding.flags = [*finding.flags, *self.flags[number]]
            finding.state = FLAGGED
        return finding


def judge(parts: Parts) -> Verdicts:
    """Everything but near duplicates, for which the small pictures must be in one place (:func:`near`)."""
    verdicts = Verdicts()
    verdicts.issuers, verdicts.further = _people(parts)
    called = verdicts.issuers.called
    torn = _studies_of_two(parts, called)
    by_pixels: dict[str, tuple[int, str]] = {}
    by_instance: dict[str, tuple[int, str]] = {}
    number = -1
    for part in parts:
        for finding in part.findings:
            number += 1
            if finding.state == REFUSED:
                continue
            patient, instance = finding.facts["patient"], finding.facts["instance"]
            patient = called.get(patient, patient)
            if finding.facts["study"] in torn:
                verdicts.refused[number] = "two patients in a study", ""
            elif finding.digest in by_pixels:
                first, other = by_pixels[finding.digest]
                verdicts.like[number] = first
                verdicts.refused[number] = EXACT, "" if other == patient else "under another patient id"
                if other != patient and "another patient" not in verdicts.flags[first]:
                    verdicts.flags[first].append("another patient")
            elif instance in by_instance:
                verdicts.like[number] = by_instance[instance][0]
                verdicts.refused[number] = "repeated instance UID", "with other pixels"
            else:
                by_pixels[finding.digest] = by_instance[instance] = number, patient
                verdicts.rows.append(number)
    return verdicts


def near(verdicts: Verdicts, parts: Parts, small: Path) -> None:
    """Flags near duplicates; ``small`` is a file for the small pictures of what is kept."""
    kept = set(verdicts.rows)
    hashes: list[np.ndarray] = []

    def rows() -> Iterator[np.ndarray]:
        for chosen, part in chosen_of(parts, kept):
            hashes.append(part.hashes[chosen])
            yield part.small[chosen]

    pictures = Store.write(small, rows(), row=(duplicates.SIDE, duplicates.SIDE), dtype=np.uint8)
    found = duplicates.near_duplicates(np.concatenate(hashes), pictures) if hashes else {}
    for later, earlier in found.items():
        verdicts.flags[verdicts.rows[later]].append("near duplicate")
        verdicts.like[verdicts.rows[later]] = verdicts.rows[earlier]


def chosen_of(parts: Parts, kept: set[int]) -> Iterator[tuple[np.ndarray, Part]]:
    """Part by part, which of its pictures are kept, as a mask over them."""
    number = 0
    for part in parts:
        with_picture = [number + i for i, finding in enumerate(part.findings) if finding.state != REFUSED]
        number += len(part.findings)
        yield np.array([i in kept for i in with_picture], dtype=bool), part


def _people(parts: Parts) -> tuple[Issuers, dict[str, int]]:
    """By all files that name a patient, refused ones too."""
    named: set[tuple[str, str]] = set()
    # By pseudonym: days from its own shift to that of the id alone.
    to_alone: dict[str, int] = {}
    for part in parts:
        for finding in part.findings:
            if ALONE in finding.facts:
                own = finding.facts["patient"]
                named.add((own, finding.facts[ALONE]))
                to_alone[own] = int(finding.facts[FURTHER])
    issuers = across_issuers(sorted(named))
    further = {own: to_alone[own] - to_alone[other] for own, other in issuers.called.items()}
    return issuers, further


def _studies_of_two(parts: Parts, called: Mapping[str, str]) -> set[str]:
    """Studies under more than one patient id, refused files included: one of the ids is wrong."""
    patient_of: dict[str, str] = {}
    torn: set[str] = set()
    for part in parts:
        for finding in part.findings:
            study, patient = (finding.facts.get(name, "") for name in ("study", "patient"))
            patient = called.get(patient, patient)
            if study and patient and patient_of.setdefault(study, patient) != patient:
                torn.add(study)
    return torn
