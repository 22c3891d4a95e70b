"""What the medical jobs read, and who of it learns, chooses and judges."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.audit import watch
from unlabeled.core.errors import DataError
from unlabeled.core.progress import say
from unlabeled.medical._finetuning import Labelled
from unlabeled.medical.attributes import declared
from unlabeled.medical.images import PNEUMONIA, UNLABELLED, Framing, ImageSet, Skip, skip_summary
from unlabeled.medical.intake.store import findings_of, is_store, labels_of
from unlabeled.medical.labels import Row, attach, read_labels
from unlabeled.medical.model import PneumoniaModel
from unlabeled.medical.readers import read_images
from unlabeled.medical.splits import check_no_leak, first_labels, hold_out

# Of the labelled patients, where no column of splits says otherwise.
TEST_SHARE = 1 / 3
JUDGING = ("val", "test")
SPLITS = ("train", *JUDGING)


@dataclass(frozen=True)
class Parts:
    """Who learns, who helps to choose, who judges; and everything else that may be looked at without labels."""

    train: ImageSet
    validation: ImageSet | None
    test: ImageSet
    unlabelled: ImageSet


def divide(images: ImageSet, *, n_labels: int | None, seed: int) -> Parts:
    """By the table's own splits where it has train and test (or val); by patient where it has none.

    Pictures in no split are learnt from without labels, unless they are of somebody who judges.

    Raises:
        GateError: the given splits share patients.
        DataError: nothing is labelled, too little is, or the splits have other names.
    """
    images = _in_known_splits(images)
    known = set() if images.splits is None else set(images.splits)
    validation = None
    if "train" in known and known & {"test", "val"}:
        labelled = images.labelled()
        for name in sorted(known & {"train", "test", "val"}):
            if labelled.splits is None or name not in labelled.splits:
                raise DataError(
                    f"the input has pictures of split '{name}', but none of them is labelled: label some of them, or "
                    "leave the column of splits out (a share of the labelled patients judges then)"
                )
        train, test = labelled.part("train"), labelled.part("test" if "test" in known else "val")
        if {"test", "val"} <= known:
            validation = labelled.part("val")
        for name, part in (("test", test), ("val", validation)):
            if part is not None and part.labels is not None and len(np.unique(part.labels)) < 2:
                raise DataError(f"the {name} part holds one class only: nothing can be judged or chosen on it")
        given = {"train": train, **({"validation": validation} if validation else {}), "test": test}
        check_no_leak(given)
        if n_labels is not None:
            train = first_labels(train, n_labels, seed=seed)
        unlabelled = images.select(_teaching(images))
    else:
        train, test = hold_out(images.labelled(), share=TEST_SHARE, seed=seed)
        if n_labels is not None:
            train = first_labels(train, n_labels, seed=seed)
        unlabelled = images.select(~np.isin(images.patients, test.patients))
    return Parts(train=train, validation=validation, test=test, unlabelled=unlabelled)


def _in_known_splits(images: ImageSet) -> ImageSet:
    """Without the pictures of splits that are none of train, val and test, which is said.

    Raises:
        DataError: there are no others, or nobody is left to learn from.
    """
    if images.splits is None:
        return images
    known, found = np.isin(images.splits, ("", *SPLITS)), set(images.splits)
    if not known.all():
        if not set(SPLITS) & found:  # what it says instead may name somebody
            raise DataError(
                "the column of splits says neither train nor val nor test: call them so, or leave the column out (a "
                "share of the labelled patients judges then)"
            )
        say(f"{int((~known).sum())} pictures in other splits than train, val and test are left out")
    if "train" not in found and set(JUDGING) & found:
        raise DataError(
            "the splits name who judges (val, test) and nobody to learn from: mark those as train, or leave the column "
            "out (a share of the labelled patients judges then)"
        )
    return images if known.all() else images.select(known)


def _teaching(images: ImageSet) -> NDArray[np.bool_]:
    """(N,) which pictures may be learnt from without labels: those of split ``train`` and those of none, but never
    those of patients who judge (those with a label in ``val`` or ``test``, where there are labels)."""
    assert images.splits is not None
    asked = np.isin(images.splits, JUDGING)
    if images.labels is not None and (images.labels != UNLABELLED).any():
        asked &= images.labels != UNLABELLED
    judges = images.patients[asked]
    return np.isin(images.splits, ("", "train")) & ~np.isin(images.patients, judges)


def read(
    source: Path,
    labels: Path | None,
    *,
    size: int,
    framing: Framing | None,
    finding: str = PNEUMONIA,
    needed: bool = True,
    leave_out_flagged: bool = False,
) -> ImageSet:
    """Pictures and their labels of a finding; ``framing`` as the model takes them, ``None`` where it takes any.

    Raises:
        DataError: a store's labels are about another finding and the labels are ``needed``; else those are left aside.
    """
    # A wrong CSV is said at once, not after minutes of reading pictures.
    given = None if labels is None else read_labels(labels, finding=finding)
    images = read_images(source, size=size, framing=framing, finding=finding, leave_out_flagged=leave_out_flagged)
    if given is None and is_store(source) and labels_of(source) and finding not in findings_of(source):
        about = f"the labels of {source} are about {', '.join(findings_of(source))}, not {finding}"
        if needed:
            raise DataError(f"{about}: give --labels, or take the files in with --finding {finding}")
        say(f"{about}, and are left aside")
        images = replace(images, labels=None)
    if given is not None:
        images = attach(images, given)
    images = with_declaration(images)
    say_skips(images.skipped)
    for note in images.notes:
        say(note)
    return images


def with_declaration(images: ImageSet) -> ImageSet:
    """With a note of the views and ages among them, which pages show too."""
    return replace(images, notes=(*images.notes, declared(images)))


def adjusted(model: PneumoniaModel, **given: Any) -> PneumoniaModel:
    """The model with those settings that were given; the others stay as it was saved."""
    return model.set_params(**{name: value for name, value in given.items() if value is not None})


def framing_of(model: PneumoniaModel) -> Framing | None:
    """How pictures must be made square for a model; ``None`` where it has learnt from none yet, and takes any."""
    learnt = getattr(model, "pretraining_", None) is not None or getattr(model, "finetuning_", None) is not None
    return model.framing if learnt else None


def read_unlabelled(
    source: Path,
    *,
    size: int,
    split_column: str | None = None,
    split: str | None = None,
    leave_out_flagged: bool = False,
    labels: dict[str, Row] | None = None,
) -> ImageSet:
    """Pictures to pretrain on: those of a split; where none is named, those that the splits of the table, or of
    ``labels``, leave to be learnt from."""
    images = read_images(source, size=size, split_column=split_column, leave_out_flagged=leave_out_flagged)
    if labels is not None and split is None and any(row.split for row in labels.values()):
        images = attach(images, labels)
    if split is None and images.splits is not None and set(SPLITS) & set(images.splits):
        # Pictures that a table keeps for judging stay unseen, with or without labels.
        images = images.select(_teaching(images))
        say(
            f"the {len(images)} pictures of split 'train', or of none, are used, without those of patients who judge "
            "(--split names another one)"
        )
    if split is not None:
        images = images.part(split)
    images = with_declaration(images)
    say(images.notes[-1])
    say_skips(images.skipped)
    return images


def looked_at(images: ImageSet, labels: dict[str, Row], *, seed: int) -> Labelled:
    """Some of the labelled pictures (:func:`~unlabeled.core.audit.watch.looked_at`) for a look at the features while
    they are learnt; where the labels name splits, those of ``train`` only.

    Raises:
        DataError: no label belongs to a picture, or a class has fewer than two.
    """
    labelled = attach(images, labels).labelled()
    if labelled.splits is not None and "train" in labelled.splits:
        labelled = labelled.part("train")
    assert labelled.labels is not None
    known = np.ones(len(labelled), dtype=bool)
    some = labelled.take(watch.looked_at(labelled.labels, known, rows="pictures", units=labelled.patients, seed=seed))
    assert some.labels is not None
    say(f"the labels of {len(some)} pictures are looked at on the way, and not learnt from")
    return Labelled(some.pixels, some.labels)


def say_skips(skipped: tuple[Skip, ...]) -> None:
    if skipped:
        say(f"{len(skipped)} inputs skipped (all are listed in the report and in skipped.csv):")
        for reason, count, example in skip_summary(skipped):
            say(f"  {count} x {reason}, e.g. {example}")
