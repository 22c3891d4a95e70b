"""Parts that share no patient, and the check that refuses parts that do."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlabeled.core import fingerprint
from unlabeled.core.errors import DataError, GateError
from unlabeled.core.seeds import derive
from unlabeled.core.store import chunks
from unlabeled.medical.images import ImageSet

AT_ONCE = 256
SHOWN = 8
# How the salt of digests begins that an earlier version made.
EARLIER = "blake2b:"
# Of scrypt, with blocks of 8: half a MB and 2 to 4 ms a patient, so that 5,000 take seconds on some cores.
_COST = 1 << 9
# What a picture is remembered by (unlabeled.pipelines._medical_judges).
_PIXELS = re.compile(r"picture [0-9a-f]{16}")


def patient_folds(patients: ArrayLike, labels: ArrayLike, *, folds: int, seed: int) -> NDArray[np.int64]:
    """Fold number of each picture (N,): all of a patient's in one, classes spread evenly.

    Patients are dealt out one at a time, in a seeded order and those with most pictures first, each to the fold
    that has fewest of its class. The result depends on the order of first appearance of patients, not on how
    they are called.

    Raises:
        DataError: a class has fewer patients than there are folds.
    """
    names, labels = np.asarray(patients), np.asarray(labels)
    first, patient_of = _numbered(names)
    positives = np.bincount(patient_of, weights=labels == 1, minlength=len(first))
    pictures = np.bincount(patient_of, minlength=len(first))
    # A patient with both kinds counts as positive.
    positive = positives > 0
    for kind, count in (("the finding", int(positive.sum())), ("no finding", int((~positive).sum()))):
        if count < folds:
            raise DataError(
                f"{folds} parts by patient need at least {folds} labelled patients of each kind; "
                f"there are {count} with {kind}: give more labels"
            )
    rng = np.random.default_rng(derive(seed, "folds") % 2**32)
    fold_of = np.zeros(len(first), dtype=np.int64)
    for sick in (True, False):
        members = rng.permutation(np.flatnonzero(positive == sick))
        members = members[np.argsort(-pictures[members], kind="stable")]
        filled = np.zeros(folds)
        for member in members:
            fold_of[member] = filled.argmin()
            filled[filled.argmin()] += pictures[member]
    return fold_of[patient_of]


def site_folds(images: ImageSet) -> tuple[NDArray[np.int64], list[str]]:
    """Fold number of each picture (N,), one fold a site, and the sites' names in that order.

    Raises:
        DataError: no sites are known, or not of every picture, or there is one only.
        GateError: a patient was seen at two of them.
    """
    sites = images.attributes.get("site")
    if sites is None:
        raise DataError("no site of any picture is known: give labels with a column site, or DICOM files that name one")
    unknown = int((sites == "").sum())
    if unknown:
        raise DataError(
            f"of {unknown} of {len(sites)} labelled pictures the site is not known: name it, or leave them out"
        )
    names, fold = np.unique(sites, return_inverse=True)
    if len(names) < 2:
        raise DataError(f"all labelled pictures are from one site ({names[0]}): folds by site need two or more")
    at_two = [patient for patient in np.unique(images.patients) if len(set(sites[images.patients == patient])) > 1]
    if at_two:
        raise GateError(
            f"{len(at_two)} patient(s) were seen at two sites: {', '.join(at_two[:SHOWN])}. Where hospitals number "
            "their patients alike, put the site before the number; else leave these patients out, or go by patient"
        )
    return fold.astype(np.int64), [str(name) for name in names]


def hold_out(images: ImageSet, *, share: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Labelled pictures in two parts by patient: the rest, and about ``share`` of them."""
    assert images.labels is not None
    folds = round(1 / share)
    held = patient_folds(images.patients, images.labels, folds=folds, seed=seed) == 0
    return images.take(~held), images.take(held)


def first_labels(images: ImageSet, count: int, *, seed: int) -> ImageSet:
    """``count`` labelled pictures: the first by the table's own order, else patient by patient in a seeded order
    that keeps the share of pneumonia.

    Raises:
        DataError: there are not so many.
    """
    assert images.labels is not None
    if count > len(images):
        raise DataError(f"{count} labels were asked for, but only {len(images)} pictures to learn from have one")
    if images.order is not None:
        ranked = np.flatnonzero(images.order >= 0)
        if len(ranked) >= count:
            return images.take(ranked[np.argsort(images.order[ranked], kind="stable")][:count])
    first, patient_of = _numbered(images.patients)
    rng = np.random.default_rng(derive(seed, "labels") % 2**32)
    rank = np.zeros(len(first))
    positive = np.bincount(patient_of, weights=images.labels == 1, minlength=len(first)) > 0
    for kind in (True, False):
        members = np.flatnonzero(positive == kind)
        # Both kinds are spread over 0..1, so that every prefix holds about the same share of each.
        rank[rng.permutation(members)] = (np.arange(len(members)) + rng.random()) / max(1, len(members))
    return images.take(np.argsort(rank[patient_of], kind="stable")[:count])


def check_no_leak(parts: Mapping[str, ImageSet]) -> str:
    """Refuses parts that share patients; otherwise a fingerprint of who is in which.

    Raises:
        GateError: names the patients and one picture of each on either side.
    """
    names = list(parts)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            shared = sorted(set(parts[one].patients) & set(parts[other].patients))
            if shared:
                raise GateError(
                    f"{len(shared)} patient(s) are in both {one} and {other}: "
                    + "; ".join(_example(patient, parts[one], parts[other]) for patient in shared[:SHOWN])
                    + (f"; and {len(shared) - SHOWN} more" if len(shared) > SHOWN else "")
                    + ". Split by patient, never by picture"
                )
    return fingerprint.of_names([name for part in names for name in (f"[{part}]", *parts[part].ids)])


def alike_across(parts: Mapping[str, ImageSet], *, teaching: Sequence[str] = ()) -> tuple[str, ...]:
    """A sentence for every two parts that hold nearly the same pictures under different patients, with examples; those
    that are ``teaching`` are not compared with each other.

    It is for a person to say whether that is one patient under two names (a leak), or two who look alike; so nothing is
    refused. How pictures are compared: :mod:`unlabeled.medical.intake.duplicates`.
    """
    from unlabeled.medical.intake.duplicates import SIDE, difference_hash, near_pairs
    from unlabeled.medical.intake.resize import resized

    names = list(parts)
    ids = np.concatenate([parts[name].ids for name in names])
    part_of = np.repeat(np.arange(len(names)), [len(parts[name]) for name in names])
    hashes, small = np.empty((len(ids), 4), np.uint64), np.empty((len(ids), SIDE, SIDE), np.float32)
    # One after the other: parts may be on disk, and larger than memory.
    for row, picture in enumerate(_one_by_one(parts.values())):
        hashes[row], small[row] = difference_hash(picture), resized(picture, SIDE, SIDE)
    found: dict[tuple[int, int], list[str]] = {}
    for later, earlier in near_pairs(hashes, small):
        one, other = part_of[earlier], part_of[later]
        if one != other and not {names[one], names[other]} <= set(teaching):
            found.setdefault((one, other), []).append(f"{ids[earlier]} and {ids[later]}")
    return tuple(
        f"{len(pairs)} pairs of pictures of {names[one]} and {names[other]} look nearly the same: "
        + "; ".join(pairs[:SHOWN])
        + (f"; and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else "")
        + ". If they are of one patient under two names, the numbers are too good: look at them"
        for (one, other), pairs in sorted(found.items())
    )


def _one_by_one(parts: Iterable[ImageSet]) -> Iterator[NDArray[np.float32]]:
    for part in parts:
        for rows in chunks(len(part), AT_ONCE):
            yield from part.images[rows].astype(np.float32)


def digests(patients: Sequence[str] | NDArray[np.str_], *, salt: str) -> list[str]:
    """One salted digest a patient, in order: enough to tell later whether somebody was there.

    Who holds digests and salt can try names: those of a hospital's numbers that were there are found at the price of
    scrypt (RFC 7914), some milliseconds of one core a try, so that a million numbers take an hour or more instead of a
    second. That slows somebody down and stops nobody: the two are kept private (:mod:`unlabeled.medical._storage`). A
    fingerprint of pixels, which nobody guesses without the picture, costs next to nothing.

    Args:
        salt: hexadecimal; after :data:`EARLIER`, digests are those of earlier versions, which cost next to nothing.
    """
    secret = bytes.fromhex(salt.removeprefix(EARLIER))
    if salt.startswith(EARLIER):
        return [_quick(str(name), secret) for name in patients]
    once = list(dict.fromkeys(map(str, patients)))
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:  # scrypt releases the interpreter's lock
        digest_of = dict(zip(once, pool.map(lambda name: _digest(name, secret), once), strict=True))
    return [digest_of[str(name)] for name in patients]


def _digest(name: str, secret: bytes) -> str:
    if _PIXELS.fullmatch(name):
        return _quick(name, secret)
    return hashlib.scrypt(name.encode(errors="surrogatepass"), salt=secret, n=_COST, r=8, p=1, dklen=8).hex()


def _quick(name: str, secret: bytes) -> str:
    return hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8, key=secret).hexdigest()


def _example(patient: str, one: ImageSet, other: ImageSet) -> str:
    pictures = [part.ids[np.flatnonzero(part.patients == patient)[0]] for part in (one, other)]
    return f"{patient} ({pictures[0]}, {pictures[1]})"


def _numbered(names: NDArray[np.generic]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row of each patient's first picture, and each picture's patient numbered by first appearance."""
    _, first, inverse = np.unique(names, return_index=True, return_inverse=True)
    by_appearance = np.argsort(first, kind="stable")
    number = np.empty(len(first), dtype=np.int64)
    number[by_appearance] = np.arange(len(first))
    return first[by_appearance], number[inverse]
