"""What a table of labels says of people and pictures (age, sex, view, device, site), in the store's own terms.

Whoever reads a folder keeps such cells as they stand. Nobody has a name in a store, so a cell becomes what the store
keeps of a file's tags: a band, a term of the standard's, a listed maker, a stand-in under the site key.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unlabeled.core.progress import say
from unlabeled.medical import _confidentiality
from unlabeled.medical._pseudonyms import Pseudonyms
from unlabeled.medical._tables import role_of
from unlabeled.medical.attributes import ATTRIBUTES, NAMES, OLDEST, SEXES, age_band
from unlabeled.medical.intake._film import Finding

FILMS, UNLIKE, TORN, UNREAD = "films", "unlike the file", "table disagrees", "cells not understood"
ASIDE = "left aside for --site"
_EXPECTED = {
    "age_band": "an age of up to 130 years, or a band such as 18-39",
    "sex": "F, M or other",
    "view": "PA, AP or another of DICOM's terms",
    "device": "a maker or a model, without the number of one device or anybody's name",
    "site": "a name",
}
_NOTHING = ("", "nan", "na", "n/a", "none", "null", "unknown", "-", "?")
# The standard's letter for what the rest of the house spells out.
_LETTERS = {"other": "O"}
_VIEW = _confidentiality.one_of(*_confidentiality.VIEWS)
_SHOWN = 5
# Two cells of the table contradict each other: neither is believed.
_CONTRADICTION = ""


class Told:
    """Reads the cells of each row, hears which films the row speaks of, and puts it into what is known of them.

    Args:
        columns: of the table.
        stand_in: what devices and sites get their stand-ins from.

    Attributes:
        counts: by attribute: its columns, of how many films something was taken, of how many of these the file's tags
            say something else, for how many films the table contradicts itself, and how many cells nobody understands.
    """

    def __init__(self, columns: Sequence[str], stand_in: Pseudonyms) -> None:
        roles = {column: role_of(column, NAMES) for column in columns}
        self._roles = {column: role for column, role in roles.items() if role and _attribute(role) in ATTRIBUTES}
        self._stand_in = stand_in
        self._unread: dict[str, list[int]] = defaultdict(list)
        self._of: dict[int, dict[str, str]] = defaultdict(dict)
        self.counts: dict[str, dict[str, Any]] = {}
        for attribute in ATTRIBUTES:
            named = [column for column, role in self._roles.items() if _attribute(role) == attribute]
            if named:
                self.counts[attribute] = {"column": ", ".join(named), FILMS: 0, UNLIKE: 0, TORN: 0, UNREAD: 0}

    def read(self, cells: Mapping[str, str], *, line: int, named: str) -> dict[str, str]:
        """One row's cells by attribute; a contradiction among them is empty.

        Args:
            named: the file, patient or study that the row names; a device that repeats it is one person's.
        """
        given: dict[str, list[str]] = defaultdict(list)
        makers: list[str] = []
        for column, role in self._roles.items():
            cell = " ".join(cells[column].split())
            if cell.casefold() not in _NOTHING:
                (makers if role == "device" and column.strip().lower() == "manufacturer" else given[role]).append(cell)
        readers: dict[str, Callable[[str], str]] = {
            "age": _band_of_age, "age_band": _band, "sex": _sex, "view": lambda cell: _VIEW(cell) or "",
            "site": self._stand_in.institution,
        }  # fmt: skip
        said: dict[str, str] = {}
        # Of age and age_band the latter is put last, and wins, as it does where no store is made.
        for role, read in readers.items():
            values = [read(cell) for cell in given[role]]
            self._note(_attribute(role), line, values.count(""))
            different = {value for value in values if value}
            if different:
                said[_attribute(role)] = different.pop() if len(different) == 1 else _CONTRADICTION
        if makers or given["device"]:
            device = self._device(makers, given["device"], named)
            self._note("device", line, int(not device))
            if device:
                said["device"] = device
        return said

    def say_unread(self) -> None:
        """Which lines say something that nobody understands, without what they say."""
        for attribute, lines in self._unread.items():
            shown = ", ".join(map(str, lines[:_SHOWN])) + (", ..." if len(lines) > _SHOWN else "")
            say(
                f"labels, {self.counts[attribute]['column']}: what stands in line(s) {shown} ({len(lines)} cells) "
                f"is not understood and left aside; expected {_EXPECTED[attribute]}"
            )

    def hear(self, number: int, said: Mapping[str, str]) -> None:
        """A row that was read speaks of the film of this number."""
        if said:
            known = self._of[number]
            for name, value in said.items():
                known[name] = value if known.get(name, value) == value else _CONTRADICTION

    def put(self, number: int, finding: Finding, *, site: str) -> None:
        """Once a film, after all rows were heard. The table wins over the file, as it does where no store is made.

        Args:
            site: what was said of all films; it wins over the table.
        """
        for name, value in self._of.get(number, {}).items():
            counts, known = self.counts[name], finding.facts.get(name, "")
            if name == "site" and site:
                counts[ASIDE] = counts.get(ASIDE, 0) + 1
                continue
            if value == _CONTRADICTION:
                counts[TORN] += 1
                continue
            modality = ""
            if name == "device":  # which a file's begins with, whatever else it says
                modality, _, known = known.partition(" ")
                # A maker alone is no other device than one of that maker's models.
                value = known if known.startswith(f"{value} ") else value
            counts[FILMS] += 1
            counts[UNLIKE] += bool(known) and known != value
            finding.facts[name] = f"{modality} {value}".strip()

    def _note(self, attribute: str, line: int, unread: int) -> None:
        if unread:
            self._unread[attribute] += [line] * unread
            self.counts[attribute][UNREAD] += unread

    def _device(self, makers: list[str], others: list[str], named: str) -> str:
        """As a file's two tags: the maker's name that a text begins with, a stand-in for the rest of it."""
        maker, model = _maker_and_rest(" ".join([*makers, *others]))
        if makers and not maker:
            maker, model = makers[0], " ".join(others)
        tags = {"Manufacturer": maker, "ManufacturerModelName": model, "PatientID": named}
        return " ".join(part for part in _confidentiality.device(tags, self._stand_in) if part)


def lines(counts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What was taken of the table, an attribute a line."""
    return [
        f"{name.replace('_', ' ')} of {one[FILMS]} films from the labels' {one['column']}"
        + (
            f"; of {one[UNLIKE]} of them the tags say something else, and the labels are followed"
            if one[UNLIKE]
            else ""
        )
        + (f"; for {one[TORN]} the labels contradict themselves and are not followed" if one[TORN] else "")
        + (f"; {one[UNREAD]} cells are not understood" if one[UNREAD] else "")
        + (f"; for {one[ASIDE]} left aside, because --site says it of all" if ASIDE in one else "")
        for name, one in counts.items()
    ]


def _attribute(role: str) -> str:
    return "age_band" if role == "age" else role


def _band_of_age(cell: str) -> str:
    # DICOM's placeholder; a table's plain 0 is an infant.
    return "" if re.fullmatch(r"0+Y", cell.upper()) else age_band(cell)


def _band(cell: str) -> str:
    """The one of our bands that a band lies in, if there is one."""
    text = re.sub(r"\s+", "", cell.lower())
    within = re.fullmatch(r"(\d{1,3})(?:-|\u2013|to)(\d{1,3})", text)
    if within is not None:
        first, last = (age_band(years) for years in within.groups())
        return first if first == last and int(within[1]) <= int(within[2]) else ""
    above = re.fullmatch(r"(?:>=?|≥)?(\d{1,3})(?:\+|andmore)?", text)
    return OLDEST[1] if above and above[0] != above[1] and age_band(above[1]) == OLDEST[1] else ""


def _sex(cell: str) -> str:
    found = SEXES.get(cell.lower(), "")
    return _LETTERS.get(found, found)


def _maker_and_rest(text: str) -> tuple[str, str]:
    """A listed maker whom a text begins with, and what follows; no maker and the whole text where there is none."""
    words = text.split()
    for count in range(len(words), 0, -1):
        maker, rest = _confidentiality.listed(" ".join(words[:count])), " ".join(words[count:])
        if maker:
            again, further = _maker_and_rest(rest)  # two columns may both begin with it
            return maker, further if again == maker else rest
    return "", text
