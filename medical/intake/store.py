"""A store that an intake wrote, read back as pictures: nobody in it has a name."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.checkpoints import MANIFEST, read_manifest
from unlabeled.core.errors import DataError
from unlabeled.core.store import Store, chunks
from unlabeled.medical import _pictures, attributes
from unlabeled.medical._people import IN_DOUBT, IN_SOME_FILES, Issuers, of_files
from unlabeled.medical._tables import find_labels
from unlabeled.medical.images import PNEUMONIA, UNLABELLED, ImageSet, Skip
from unlabeled.medical.intake.reasons import REFUSED

KIND = "medical.IntakeStore"
PICTURES, STUDIES, GATE, LABELS = "pictures.npy", "studies.parquet", "gate.parquet", "labels.csv"
_AT_ONCE = 256


def is_store(folder: Path) -> bool:
    """Whether a folder's manifest says so."""
    path = folder / MANIFEST
    try:
        if not path.is_file():  # reading a pipe would wait for ever
            return False
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("kind") == KIND


def labels_of(folder: Path) -> Path | None:
    """A store's table of labels, if it has one."""
    path = folder / LABELS
    return path if path.is_file() else None


def findings_of(folder: Path) -> list[str]:
    """What a store's labels are about."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return [str(name) for name in manifest.get("findings", [manifest.get("finding", PNEUMONIA)])]


def read_store(folder: Path, *, size: int, finding: str = PNEUMONIA, leave_out_flagged: bool = False) -> ImageSet:
    """Pictures (N, size, size), mapped from the file where they have that size already, averaged down where they are
    larger; patients, attributes, labels and splits as the store has them; files that the intake refused are skipped.

    Of labels of several findings those of ``finding`` are read, of one finding its own. A picture without a patient
    counts with the others of its study. With ``leave_out_flagged``, pictures that the intake flagged are skipped as
    well, under their own names.

    Raises:
        DataError: the store holds smaller pictures, or no picture.
        CheckpointError: it is damaged.
    """
    import pandas as pd

    manifest = read_manifest(folder, kind=KIND)
    table = pd.read_parquet(folder / STUDIES).fillna("")
    store = Store(folder / PICTURES)
    if not len(table) or len(store) != len(table):
        raise DataError(f"{folder} holds {len(store)} pictures and tells of {len(table)}: take the files in again")
    if size > store.shape[1]:
        raise DataError(
            f"{folder} holds pictures of {store.shape[1]} pixels, {size} were asked for: ask for fewer with --size, or "
            "take the files in again at a larger --size"
        )
    columns = {name: table[name].astype(str).to_numpy(dtype=np.str_) for name in ("instance", "patient", "study")}
    patients = of_files(
        [str(name) or None for name in columns["patient"]], columns["study"].tolist(), columns["instance"].tolist()
    )
    known = {name: table[name].astype(str).to_numpy(dtype=np.str_) for name in attributes.ATTRIBUTES}
    people = manifest.get("people", {})
    images = ImageSet(
        images=_pixels(folder, store, size),
        ids=columns["instance"],
        patients=np.array(patients, dtype=np.str_),
        # An earlier version's store does not say: its names are comparable with its own alone.
        named_by=f"intake {manifest.get('names', manifest.get('source', ''))}",
        attributes={name: values for name, values in known.items() if (values != "").any()},
        studies=columns["study"],
        framing="padded",
        sizes=table[["rows", "columns"]].to_numpy(dtype=np.int64),
        skipped=_refused(folder, manifest["refusals"]),
        notes=(
            f"an intake store: {len(table)} of {manifest['found']} files, {manifest['flagged']} of them flagged "
            f"(studies.parquet), {manifest['refused']} refused (gate.parquet says why)",
            *Issuers({}, people.get(IN_SOME_FILES, 0), people.get(IN_DOUBT, 0)).notes(),
        ),
    )
    images = _labelled(images, folder / LABELS, finding)
    return _without_flagged(images, table["flags"].astype(str).tolist()) if leave_out_flagged else images


def _without_flagged(images: ImageSet, flags: Sequence[str]) -> ImageSet:
    """The pictures without a flag; pictures on disk stay there.

    Args:
        flags: of each, as the store has them: with semicolons between.
    """
    rows = np.array([not said for said in flags], dtype=bool)
    left = tuple(
        Skip(str(name), f"flagged as {said.replace(';', ', ')}")
        for name, said in zip(images.ids, flags, strict=True)
        if said
    )
    return replace(
        images.select(rows),
        skipped=(*images.skipped, *left),
        notes=(*images.notes, f"the {len(left)} flagged ones are left out, as was asked for"),
    )


def _refused(folder: Path, counts: Mapping[str, int]) -> tuple[Skip, ...]:
    """Files that the intake refused, by their names in the store, which are keyed digests. A copy of a store that was
    made without the gate's table still knows how many there are of each reason."""
    import pandas as pd

    if not (folder / GATE).is_file():
        reasons = [reason for reason, count in counts.items() for _ in range(count)]
        return tuple(Skip(f"refused file {number}", reason) for number, reason in enumerate(reasons, start=1))
    columns = ["file", "state", "reason", "detail"]
    table = pd.read_parquet(folder / GATE, columns=columns, filters=[("state", "==", REFUSED)]).fillna("")
    return tuple(
        Skip(file, f"{reason}: {detail}" if detail else reason)
        for file, reason, detail in zip(table["file"], table["reason"], table["detail"], strict=True)
    )


def _pixels(folder: Path, store: Store, size: int) -> NDArray[np.uint8]:
    if store.shape[1] == size:
        # Writable for PyTorch's sake, in memory only.
        mapped: NDArray[np.uint8] = np.load(folder / PICTURES, mmap_mode="c")
        return mapped
    small = np.empty((len(store), size, size), dtype=np.uint8)
    for part in chunks(len(store), _AT_ONCE):
        for row, picture in enumerate(store[part], start=part.start):
            small[row] = _pictures.to_square(picture.astype(np.float32) / np.float32(255), size)
    return small


def _labelled(images: ImageSet, path: Path, finding: str) -> ImageSet:
    import pandas as pd

    if not path.is_file():
        return images
    table = pd.read_csv(path, dtype=str, keep_default_na=False).set_index("image_id")
    found = table.reindex(images.ids, fill_value="")
    splits = found["split"].to_numpy(dtype=np.str_)
    images = replace(images, splits=splits if (splits != "").any() else None)
    own = find_labels([str(column) for column in table.columns], finding)
    if own is None:
        return images
    labels = [int(value) if value else UNLABELLED for value in found[own.column]]
    return replace(images, labels=np.array(labels, dtype=np.int64))
