"""What every reader hands on: pictures of one size, who they belong to, and what was left out and why."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlabeled.core import fingerprint
from unlabeled.core.errors import DataError
from unlabeled.core.store import Store, unmapped

# What a model looks for where nothing else is said.
PNEUMONIA = "pneumonia"
UNLABELLED = -1
# What patients' names come from (ImageSet.named_by).
TABLE, DICOM = "table", "DICOM"


# How a film of any aspect becomes a square: stretched; or, as in an intake's store, with text near the borders painted
# over and collimated borders cut off, shrunk with its aspect kept and padded with black.
Framing = Literal["stretched", "padded"]


# What a note says where patients are not known, which labels may make up for.
NAMELESS = "name no patient"


class Skip(NamedTuple):
    """An input that was left out: which, and why in one line."""

    source: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Pictures, and what is known of them.

    Attributes:
        images: (N, S, S) 8-bit, 0 black to 255 white, bone bright; those of a part of an intake's store are on disk and
            may be larger than memory, and :attr:`pixels` are in memory wherever they were.
        ids: (N,) path below the folder that was read, or the table's own id.
        patients: (N,) who is on the picture: a pseudonym for DICOM, the user's own id where a table gives one,
            a stand-in for the study where no patient is known, else a digest of the pixels (identical pictures then
            count as one person's).
        named_by: what calls the patients so: ``table`` (names as somebody gave them), ``DICOM`` (stand-ins for
            PatientID), or an intake with a certain site key. Names of different kinds cannot be compared.
        labels: (N,) 1 with the finding, 0 without, -1 unknown; ``None`` when nothing is labelled.
        splits: (N,) name of the part that a table assigns, or ``None``.
        order: (N,) rank in which a table wants its labels used (-1: never), or ``None``.
        attributes: what is known of pictures and people, as text, (N,) each, empty where it is not known: any of
            :data:`~unlabeled.medical.attributes.ATTRIBUTES`. Nothing is learnt from it.
        sizes: (N, 2) rows and columns of the pictures before they were made square (0: not known), or ``None``.
        studies: (N,) a stand-in for the study that each belongs to, empty where none is known, or ``None``.
        framing: how they were made square (:data:`Framing`).
        skipped: inputs left out.
        notes: what a reader of the report should know about the intake.
    """

    images: NDArray[np.uint8] | Store
    ids: NDArray[np.str_]
    patients: NDArray[np.str_]
    named_by: str = TABLE
    labels: NDArray[np.int64] | None = None
    splits: NDArray[np.str_] | None = None
    order: NDArray[np.int64] | None = None
    attributes: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    sizes: NDArray[np.int64] | None = None
    studies: NDArray[np.str_] | None = None
    framing: Framing = "stretched"
    skipped: tuple[Skip, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        columns = (
            self.ids, self.patients, self.labels, self.splits, self.order, self.sizes, self.studies,
            *self.attributes.values(),
        )  # fmt: skip
        lengths = {len(column) for column in (self.images, *columns) if column is not None}
        if len(lengths) != 1:
            raise ValueError(f"every column of an image set has one length, got {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(N, S, S) in memory, or mapped from a file."""
        return self.images[:] if isinstance(self.images, Store) else self.images

    def fingerprint(self) -> str:
        """Over pixels and ids, in order; patients are left out of it on purpose."""
        return fingerprint.of_names([fingerprint.of_array(self.images), *self.ids])

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_] | Sequence[int]) -> "ImageSet":
        """These rows, in this order, in memory; the record of what was skipped stays."""
        index = np.asarray(rows)
        images = unmapped(self.images)
        return self._with(index, images.take(index)[:] if isinstance(images, Store) else images[index])

    def select(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "ImageSet":
        """As :meth:`take`, but pictures that are on disk stay there."""
        images = unmapped(self.images)
        return self._with(rows, images.take(rows) if isinstance(images, Store) else images[rows])

    def _with(self, index: NDArray[np.generic], images: NDArray[np.uint8] | Store) -> "ImageSet":
        """The rest of some rows, beside their pictures."""
        return replace(
            self,
            images=images,
            ids=self.ids[index],
            patients=self.patients[index],
            labels=None if self.labels is None else self.labels[index],
            splits=None if self.splits is None else self.splits[index],
            order=None if self.order is None else self.order[index],
            attributes={name: values[index] for name, values in self.attributes.items()},
            sizes=None if self.sizes is None else self.sizes[index],
            studies=None if self.studies is None else self.studies[index],
        )

    def part(self, name: str) -> "ImageSet":
        """The rows whose split is ``name``; pictures on disk stay there.

        Raises:
            DataError: there is no split column, or nothing carries that name.
        """
        if self.splits is None:
            raise DataError(f"split {name!r} was asked for, but the input has no column of splits")
        rows = self.splits == name
        if not rows.any():
            raise DataError(f"no picture is in split {name!r}; there are {', '.join(sorted(set(self.splits)))}")
        return self.select(rows)

    def labelled(self) -> "ImageSet":
        """The rows with a label.

        Raises:
            DataError: there are none.
        """
        if self.labels is None or not (self.labels != UNLABELLED).any():
            raise DataError("no picture has a label: give a CSV with --labels, or a table with a label column")
        return self.take(self.labels != UNLABELLED)


def skip_summary(skipped: Sequence[Skip]) -> list[tuple[str, int, str]]:
    """(reason, count, first example) by falling count; figures inside a reason do not split it."""
    counts = Counter(skip.reason.partition(":")[0] for skip in skipped)
    example = {skip.reason.partition(":")[0]: skip for skip in reversed(skipped)}
    return [
        (reason, count, f"{example[reason].source} ({example[reason].reason})")
        for reason, count in counts.most_common()
    ]
