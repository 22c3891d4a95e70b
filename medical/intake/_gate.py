"""What can be told of a file only beside the others: duplicates, and studies under two patients."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from unlabeled.core.store import Store
from unlabeled.medical.intake import duplicates
from unlabeled.medical.intake._film import Finding
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
    """

    refused: dict[int, tuple[str, str]] = field(default_factory=dict)
    flags: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    like: dict[int, int] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)

    def put(self, number: int, finding: Finding) -> Finding:
        """The finding with what was added; flags in one order."""
        if number in self.refused:
            finding.state, (finding.reason, finding.detail), finding.flags = REFUSED, self.refused[number], []
        elif finding.state != REFUSED and number in self.flags:
            finding.flags = [*finding.flags, *self.flags[number]]
            finding.state = FLAGGED
        return finding


def judge(parts: Parts) -> Verdicts:
    """Everything but near duplicates, for which the small pictures must be in one place (:func:`near`)."""
    verdicts = Verdicts()
    torn = _studies_of_two(parts)
    by_pixels: dict[str, tuple[int, str]] = {}
    by_instance: dict[str, tuple[int, str]] = {}
    number = -1
    for part in parts:
        for finding in part.findings:
            number += 1
            if finding.state == REFUSED:
                continue
            patient, instance = finding.facts["patient"], finding.facts["instance"]
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


def _studies_of_two(parts: Parts) -> set[str]:
    """Studies under more than one patient id, refused files included: one of the ids is wrong."""
    patient_of: dict[str, str] = {}
    torn: set[str] = set()
    for part in parts:
        for finding in part.findings:
            study, patient = (finding.facts.get(name, "") for name in ("study", "patient"))
            if study and patient and patient_of.setdefault(study, patient) != patient:
                torn.add(study)
    return torn
