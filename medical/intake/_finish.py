"""From parts to a store: the gate over all files, pictures in one file, tables, labels, manifest."""

import csv
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from unlabeled.core import fingerprint
from unlabeled.core.progress import bar, say
from unlabeled.core.store import Store
from unlabeled.medical._confidentiality import DATES, METHODS
from unlabeled.medical._people import IN_DOUBT, IN_SOME_FILES
from unlabeled.medical._pseudonyms import parse_date, shifted, text
from unlabeled.medical.deidentify import quietly
from unlabeled.medical.images import UNLABELLED
from unlabeled.medical.intake import _gate, _told
from unlabeled.medical.intake._film import Finding
from unlabeled.medical.intake._labels import Labels, Translated
from unlabeled.medical.intake._parts import Parts
from unlabeled.medical.intake._tables import GATE, STUDIES, Table, write_names
from unlabeled.medical.intake.reasons import EXACT, REFUSED
from unlabeled.medical.intake.store import LABELS, PICTURES

PREPROCESSING = (
    "modality LUT or rescale",
    "VOI LUT or first window; without one, from the 0.5th to the 99.5th percentile",
    "scaled from the lowest to the highest value",
    "MONOCHROME1 inverted",
    "text-like marks near the borders painted over",
    "uniform bands along the edges cut off, at most 30 % of a side each",
    "area averages, aspect kept, padded with black to a square",
)
READ = "words that were read anywhere (tesseract) painted over"


def finish(
    parts: Parts, folder: Path, *, names: Path, site: str, labels: Labels | None, dicom: Path | None, ocr: bool
) -> dict[str, Any]:
    """Writes everything but the manifest into ``folder``, which is empty, and ``names`` beside the ledger.

    Returns:
        What the manifest says.

    Raises:
        DataError: the labels contradict each other.
    """
    verdicts = _gate.judge(parts)
    for note in verdicts.issuers.notes():
        say(note)
    translated = _look_up(parts, verdicts, labels)
    kept = set(verdicts.rows)
    with bar("writing pictures", len(kept)) as shown:

        def pictures() -> Iterator[np.ndarray]:
            for chosen, part in _gate.chosen_of(parts, kept):
                yield part.pictures[chosen]
                shown.advance(int(chosen.sum()))

        store = Store.write(folder / PICTURES, pictures(), row=(parts.size, parts.size), dtype=np.uint8)
    small = parts.folder / "small.npy"
    _gate.near(verdicts, parts, small)
    small.unlink()
    told = None if translated is None else translated.told
    counts = _write_tables(parts, verdicts, folder, site=site, told=told)
    for line in () if told is None else _told.lines(told.counts):
        say(line)
    write_names(names, _names(parts))
    if translated is not None:
        assert labels is not None
        _write_labels(parts, translated, folder / LABELS, findings=labels.findings)
    if dicom is not None:
        _take_dicom(parts, verdicts, dicom, folder / "dicom")
    return {
        "found": len(parts.files),
        **counts,
        "pictures": {"rows": len(store), "size": parts.size, "fingerprint": fingerprint.of_array(store)},
        "preprocessing": [*PREPROCESSING[:4], *([READ] if ocr else []), *PREPROCESSING[4:]],
        "people": {IN_SOME_FILES: verdicts.issuers.joined, IN_DOUBT: verdicts.issuers.doubtful},
        "labels": None if translated is None else translated.counts,
        "attributes": {} if told is None else told.counts,
    }


def _look_up(parts: Parts, verdicts: _gate.Verdicts, labels: Labels | None) -> Translated | None:
    if labels is None:
        return None
    for number, finding in _findings(parts, verdicts):
        twin = verdicts.like.get(number) if finding.reason == EXACT else None
        labels.look_up(number, finding, twin=twin)
    return labels.translated()


def _findings(parts: Parts, verdicts: _gate.Verdicts) -> Iterator[tuple[int, Finding]]:
    number = 0
    for part in parts:
        for finding in part.findings:
            yield number, verdicts.put(number, finding)
            number += 1


def _write_tables(
    parts: Parts, verdicts: _gate.Verdicts, folder: Path, *, site: str, told: _told.Told | None
) -> dict[str, Any]:
    """Returns the counts: of states, of reasons for refusal, of flags; and the methods of the de-identification."""
    meant = set(verdicts.like.values())
    instances = {n: finding.facts["instance"] for n, finding in _findings(parts, verdicts) if n in meant}
    states: Counter[str] = Counter(kept=0, flagged=0, refused=0)
    refusals: Counter[str] = Counter()
    flags: Counter[str] = Counter()
    methods = {"113100"}
    number = 0
    with ExitStack() as open_:
        gate = open_.enter_context(Table(folder, "gate", GATE))
        studies = open_.enter_context(Table(folder, "studies", STUDIES))
        for part in parts:
            judged, kept = [], []
            for finding in part.findings:
                finding = verdicts.put(number, finding)
                if told is not None:
                    told.put(number, finding, site=site)
                like = instances.get(verdicts.like.get(number, -1), "")
                states[finding.state] += 1
                judged.append(_gate_row(finding, like))
                if finding.state == REFUSED:
                    refusals[finding.reason] += 1
                else:
                    flags.update(finding.flags)
                    methods |= methods_of(finding)
                    kept.append(_study_row(finding, like, site))
                number += 1
            gate.write(judged)
            studies.write(kept)
    return {
        **states,
        "refusals": dict(sorted(refusals.items())),
        "flags": dict(sorted(flags.items())),
        "deidentification": {
            "profile": "DICOM PS3.15 Annex E Basic Profile; only what the tables hold was kept",
            "methods": {code: METHODS[code] for code in sorted(methods)},
        },
    }


def methods_of(finding: Finding) -> set[str]:
    facts = finding.facts
    said = {"113101": finding.regions, "113107": facts["date"], "113109": " " in facts["device"]}
    said["113108"] = facts["sex"] or facts["age_band"]
    return {code for code, value in said.items() if value}


def _gate_row(finding: Finding, like: str) -> dict[str, Any]:
    named = {name: finding.facts.get(name, "") for name in ("patient", "study", "series", "instance")}
    return {
        "file": finding.file,
        "state": finding.state,
        "reason": finding.reason,
        "detail": finding.detail,
        "flags": ";".join(finding.flags),
        "like": like,
        **named,
    }


def _study_row(finding: Finding, like: str, site: str) -> dict[str, Any]:
    said = {name: finding.facts[name] for name in STUDIES if name in finding.facts}
    border = dict(zip(("border_top", "border_bottom", "border_left", "border_right"), finding.border, strict=True))
    return {
        **said,
        **border,
        "site": site or finding.facts.get("site", ""),
        "flags": ";".join(finding.flags),
        "like": like,
        "rows": finding.rows,
        "columns": finding.columns,
        "masked": finding.regions,
        "file": finding.file,
    }


def _names(parts: Parts) -> Iterator[tuple[str, str, str]]:
    number = 0
    for part in parts:
        for finding in part.findings:
            yield finding.file, finding.facts.get("instance", ""), parts.files[number].path
            number += 1


def _write_labels(parts: Parts, translated: Translated, path: Path, *, findings: tuple[str, ...]) -> None:
    """A column ``label``, or one for each of several findings."""
    number = 0
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("image_id", *(findings if len(findings) > 1 else ("label",)), "split"))
        for part in parts:
            for finding in part.findings:
                if number in translated.labels:
                    values, split = translated.labels[number]
                    cells = ("" if value == UNLABELLED else value for value in values)
                    writer.writerow((finding.facts["instance"], *cells, split))
                number += 1


def _take_dicom(parts: Parts, verdicts: _gate.Verdicts, source: Path, folder: Path) -> None:
    """Links rather than moves: a run that is cut off here begins again with all of them."""
    folder.mkdir()
    number, kept = 0, set(verdicts.rows)
    for part in parts:
        for finding in part.findings:
            if number in kept:
                target, own = folder / f"{finding.facts['instance']}.dcm", finding.facts["patient"]
                if own in verdicts.issuers.called:
                    name, days = verdicts.issuers.called[own], verdicts.further[own]
                    _rename(source / f"{finding.file}.dcm", target, name=name, days=days)
                else:
                    _link(source / f"{finding.file}.dcm", target)
            number += 1


def _rename(source: Path, target: Path, *, name: str, days: int) -> None:
    """Copies a de-identified file of somebody who is called otherwise, with dates so many days further back."""
    import pydicom

    with quietly():
        file = pydicom.dcmread(source)
        file.PatientID = file.PatientName = name
        for keyword in DATES:
            day = shifted(parse_date(text(file, keyword)), days)
            if day is not None:
                setattr(file, keyword, f"{day:%Y%m%d}")
        file.save_as(target, enforce_file_format=True)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # not every file system has links
        shutil.copy2(source, target)
