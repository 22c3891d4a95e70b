"""Who counts as one person where files, studies and tables name people each in their own way.

What is one person's must never lie on both sides of a split, so that in doubt two names are taken for one person's.

Pseudonyms are made file by file, of the patient's id and its issuer where the file names one, so that they are the same
in every run. That a file lacks the issuer is no conflict: it is then the person's whom others name with that id
(:func:`across_issuers`). So a person may get another name when the files that are read at once change: somebody whose
id had no issuer, when a file comes that names one (the name is that file's from then on, as it would have been alone);
and two whose id has different issuers, when a file comes with the id alone (they count as one, by the id's name).
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# How the names of those begin of whom nothing says who they are; studies, or pixels, tell them apart.
UNKNOWN = "unknown-"
# Between a pseudonym of issuer and id, and the one of the id alone, where a reader hands both on as one text.
ALONE = "~"
# What a store's manifest counts people as.
IN_SOME_FILES, IN_DOUBT = "with an issuer in some files only", "in doubt"
# More names than this for one id are no slips of a pen: the id is a placeholder.
MOST_NAMES = 3


class _Groups:
    """Disjoint sets: whatever was joined has one root."""

    def __init__(self) -> None:
        self._above: dict[Hashable, Hashable] = {}

    def root(self, item: Hashable) -> Hashable:
        while (above := self._above.get(item, item)) != item:
            # Paths are halved on the way, so that they stay short.
            self._above[item] = self._above.get(above, above)
            item = above
        return item

    def join(self, items: Iterable[Hashable]) -> None:
        first, *others = map(self.root, items)
        self._above.update(dict.fromkeys((other for other in others if other != first), first))


class Issuers(NamedTuple):
    """Who is called otherwise than by their own files, by pseudonym; of how many people some files lack the issuer, and
    how many ids count as one person though they have several."""

    called: dict[str, str]
    joined: int
    doubtful: int

    def notes(self) -> tuple[str, ...]:
        """What a reader should know of it."""
        notes = []
        if self.joined:
            notes.append(
                f"{self.joined} patients are named with the issuer of their id by some files only, and are one"
            )
        if self.doubtful:
            notes.append(
                f"{self.doubtful} patient ids have several issuers, and files that name none: whose those are is not "
                "known, so that all pictures of such an id count as one person's"
            )
        return tuple(notes)


def across_issuers(named: Iterable[tuple[str, str]]) -> Issuers:
    """Who is one person though only some files name the issuer of the id.

    Files without an issuer are the person's whom others name with the id and the one issuer that occurs. Where several
    occur, each is a person; but if there are files without an issuer too, those may be anybody's of them, and all are
    taken for one.

    Args:
        named: of each file the pseudonym of issuer and id, and that of the id alone; the same twice where it names no
            issuer.
    """
    with_issuer: dict[str, set[str]] = defaultdict(set)
    without = set()
    for own, alone in named:
        if own == alone:
            without.add(alone)
        else:
            with_issuer[alone].add(own)
    both = {alone: names for alone, names in with_issuer.items() if alone in without}
    called = {alone: next(iter(names)) for alone, names in both.items() if len(names) == 1}
    joined = len(called)
    called |= {own: alone for alone, names in both.items() if len(names) > 1 for own in names}
    return Issuers(called, joined, len(both) - joined)


def of_files(patients: Sequence[str | None], studies: Sequence[str], digests: Sequence[str]) -> list[str]:
    """A name for the person on each of N pictures.

    Whoever is named with an issuer by some files only is one person (:func:`across_issuers`). A picture whose file
    names nobody is the patient's whom other files of its study name, if that is one. Else those of one study, and those
    with the same pixels, are one person's of unknown name.

    Args:
        patients: a pseudonym, or ``None`` where the file names nobody; followed by :data:`ALONE` and that of the id
            alone where it was made of an issuer too.
        studies: a stand-in; empty where there is none.
        digests: of the pixels, where the file names nobody.
    """
    patients = _by_issuer(patients)
    of_study: dict[str, set[str]] = defaultdict(set)
    for patient, study in zip(patients, studies, strict=True):
        if patient and study:
            of_study[study].add(patient)

    def named(patient: str | None, study: str) -> str | None:
        others = of_study.get(study, set())
        return patient or (next(iter(others)) if len(others) == 1 else None)

    names = [named(patient, study) for patient, study in zip(patients, studies, strict=True)]
    groups, called = _Groups(), dict[Hashable, str]()
    nobodys = [row for row, name in enumerate(names) if name is None]
    for row in nobodys:
        groups.join([("pixels", digests[row]), *([("study", studies[row])] if studies[row] else [])])
    for row in nobodys:
        root = groups.root(("pixels", digests[row]))
        names[row] = called.setdefault(root, f"{UNKNOWN}{studies[row] or digests[row]}")
    return [str(name) for name in names]


def issuers_of(patients: Iterable[str | None]) -> Issuers:
    """:func:`across_issuers` of what :func:`of_files` is given."""
    both = [patient.partition(ALONE) for patient in patients if patient]
    return across_issuers((own, alone or own) for own, _, alone in both)


def _by_issuer(patients: Sequence[str | None]) -> list[str | None]:
    called = issuers_of(patients).called
    own = [None if patient is None else patient.partition(ALONE)[0] for patient in patients]
    return [None if name is None else called.get(name, name) for name in own]


def without_placeholders(
    patients: NDArray[np.str_], given: Mapping[int, Sequence[str]], studies: NDArray[np.str_] | None
) -> tuple[NDArray[np.str_], int]:
    """Names of the people on N pictures, where an id to which a table gives more than :data:`MOST_NAMES` names
    ("ANON", say) counts as none: its pictures are told apart by study, else one by one.

    Returns:
        The names, and how many ids were none.
    """
    names: dict[str, set[str]] = defaultdict(set)
    for row, said in given.items():
        if not str(patients[row]).startswith(UNKNOWN):
            names[str(patients[row])].update(said)
    none = [name for name, said in names.items() if len(said) > MOST_NAMES]
    study = np.full(len(patients), "") if studies is None else studies
    own = [f"{UNKNOWN}{said or f'picture {row}'}" for row, said in enumerate(study)]
    return np.where(np.isin(patients, none), own, patients).astype(np.str_), len(none)


def renamed(
    patients: NDArray[np.str_], given: Mapping[int, Sequence[str]]
) -> tuple[NDArray[np.str_], list[list[int]], NDArray[np.bool_]]:
    """Names of the people on N pictures after a table gave some of the pictures names.

    A name that is given for one picture is its patient's, on all pictures of that patient. Two names for pictures of
    one patient, or for one picture, are one person's, who is called by the first of them. Only pictures of nobody known
    may get different names though they had one: that was no more than a guess.

    Args:
        patients: (N,) names as they were.
        given: names by row, the rows in the table's order.

    Returns:
        The names (N,); for each person who was given several names, rows with different ones; and a mask (N,) of
        pictures of nobody known that nothing is given for, beside others of theirs with different names.
    """
    groups, called = _Groups(), dict[Hashable, str]()
    unknown = np.char.startswith(patients, UNKNOWN)
    for row, names in given.items():
        before = [] if unknown[row] else [("before", str(patients[row]))]
        groups.join([*before, *(("given", name) for name in names)])
    first_of: dict[Hashable, dict[str, int]] = defaultdict(dict)
    guessed: dict[str, set[Hashable]] = defaultdict(set)
    for row, names in given.items():
        root = groups.root(("given", names[0]))
        called.setdefault(root, names[0])
        for name in names:
            first_of[root].setdefault(name, row)
        if unknown[row]:
            guessed[str(patients[row])].add(root)
    result, torn = patients.astype(object), np.zeros(len(patients), dtype=bool)
    for row, name in enumerate(map(str, patients)):
        if row in given:
            result[row] = called[groups.root(("given", given[row][0]))]
        elif unknown[row]:
            torn[row] = len(guessed.get(name, ())) > 1
            result[row] = called[next(iter(guessed[name]))] if len(guessed.get(name, ())) == 1 else name
        else:
            result[row] = called.get(groups.root(("before", name)), name)
    several = [list(dict.fromkeys(rows.values())) for rows in first_of.values() if len(rows) > 1]
    return result.astype(np.str_), several, torn
