"""Folders of DICOM, PNG and JPEG files, Parquet tables and npz archives -> :class:`ImageSet`.

A file that cannot be used is listed with its reason and the rest goes on; only when nothing is left is it an error.
"""

import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unlabeled.core import progress
from unlabeled.core.errors import DataError
from unlabeled.core.fingerprint import of_array
from unlabeled.medical import _names, _people, _pictures
from unlabeled.medical import attributes as attribute_columns
from unlabeled.medical._people import UNKNOWN
from unlabeled.medical._pictures import Frame, Picture
from unlabeled.medical._tables import Labelling, find, find_labels, say_uncertain
from unlabeled.medical.deidentify import quietly
from unlabeled.medical.dicom import Refused
from unlabeled.medical.images import (
    DICOM,
    NAMELESS,
    PNEUMONIA,
    TABLE,
    UNLABELLED,
    Framing,
    ImageSet,
    Skip,
    skip_summary,
)
from unlabeled.medical.intake import _walk
from unlabeled.medical.intake._film import Found
from unlabeled.medical.intake.reasons import REFUSALS
from unlabeled.medical.intake.store import is_store, read_store

PIXELS = ("jpeg", "jpg", "png", "image", "image_bytes", "bytes")
PARTS = ("train", "val", "test")
# What the walk through a folder comes upon that is no file.
UNREAD = ("link to a folder", "unreadable folder")


def read_images(
    path: str | Path,
    *,
    size: int = 64,
    split_column: str | None = None,
    framing: Framing | None = None,
    finding: str = PNEUMONIA,
    leave_out_flagged: bool = False,
) -> ImageSet:
    """Reads whatever ``path`` is.

    Args:
        path: a folder (walked to its depths, but not into links to folders; file names need no extension, and bytes
            of theirs that are not UTF-8 are written as ``\\xe4`` in ids), a store that an intake wrote, one
            picture, a Parquet table with a column of encoded pictures, or an npz archive (``images`` (N, H, W), or
            MedMNIST's keys).
        size: rows and columns of the result.
        split_column: the table's column of splits, where it is not called ``split``.
        framing: how pictures become squares (:data:`~unlabeled.medical.images.Framing`); by default ``stretched``, and
            a store's as it is, which is ``padded``.
        finding: what a table's labels are to say, where it has several columns of them.
        leave_out_flagged: skip the pictures of a store that the intake flagged (inverted, unlike a chest, ...).

    Raises:
        DataError: there is nothing there, or nothing usable, a store is asked for another framing, or flagged pictures
            are to be left out of what is no store.
    """
    path, frame = Path(path), Frame(size, framing or "stretched")
    if not path.exists():
        raise DataError(f"{path} does not exist: give a folder, a picture, a .parquet table or an .npz archive")
    stored = is_store(path)
    if leave_out_flagged and not stored:
        raise DataError(
            f"{path} is no store of an intake, and nothing else says which pictures are flagged: take the files in "
            "with 'unlabeled medical intake', or leave --leave-out-flagged out"
        )
    with quietly():  # real files bend the standard; what matters about that becomes a skip with a reason
        if stored:
            if framing == "stretched":
                raise DataError(
                    f"the model was made of pictures that are stretched to a square, and {path} holds padded ones: "
                    "pretrain on the store, or give the folder that it was made of"
                )
            found = read_store(path, size=size, finding=finding, leave_out_flagged=leave_out_flagged)
        elif path.is_dir():
            found = _read_files(path, sorted(_walk.listed(path), key=lambda found: found.path.split("/")), frame)
        elif path.suffix == ".parquet":
            found = _read_parquet(path, frame, split_column, finding)
        elif path.suffix == ".npz":
            found = _read_npz(path, frame, finding)
        else:
            found = _read_files(path.parent, [Found(path.name)], frame)
    if not stored:
        found = replace(found, framing=frame.framing)
    if not len(found):
        reasons = "; ".join(f"{count} x {reason}" for reason, count, _ in skip_summary(found.skipped))
        raise DataError(f"{path} holds no usable picture" + (f": {reasons}" if reasons else " (it is empty)"))
    return found


def _read_files(root: Path, files: list[Found], frame: Frame) -> ImageSet:
    if not files:
        raise DataError(f"{root} is empty: expected DICOM, PNG or JPEG files")
    names = [_names.name_of(found.path) for found in files]
    return _without_studies_of_two(_collect(zip(names, _load_all(root, files, frame), strict=True)))


def _load_all(root: Path, files: list[Found], frame: Frame) -> Iterator[Picture | Refused]:
    """In order, several at once. Threads, not processes: reading and resizing release the interpreter's lock."""

    def load(found: Found) -> Picture | Refused:
        if found.reason in UNREAD:
            return Refused(f"{found.reason}: {REFUSALS[found.reason]}")
        try:
            return _pictures.load(root / found.path, frame)
        except Refused as refused:
            return refused

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        yield from progress.track(pool.map(load, files), "reading", len(files))


def _collect(results: Iterable[tuple[str, Picture | Refused]]) -> ImageSet:
    images, ids, patients, skipped = [], [], [], []
    said, sizes, studies, digests = [], [], [], []
    for name, result in results:
        if isinstance(result, Refused):
            skipped.append(Skip(name, str(result)))
            continue
        images.append(result.pixels)
        ids.append(name)
        patients.append(result.patient)
        said.append(result.attributes)
        sizes.append(result.size)
        studies.append(result.study)
        digests.append("" if result.patient else of_array(result.pixels)[:10])
    nameless = patients.count(None)
    counted = "those of one study count as one patient's, and others each" if any(studies) else "each counts"
    note = f"{nameless} pictures {NAMELESS}: {counted} as a patient of its own unless the labels say who it is"
    return ImageSet(
        images=np.stack(images) if images else np.empty((0, 1, 1), dtype=np.uint8),
        ids=np.array(ids, dtype=np.str_),
        patients=np.array(_people.of_files(patients, studies, digests), dtype=np.str_),
        named_by=TABLE if nameless == len(patients) else DICOM,
        attributes=attribute_columns.joined(said),
        sizes=np.array(sizes, dtype=np.int64).reshape(-1, 2),
        studies=np.array(studies, dtype=np.str_) if any(studies) else None,
        skipped=tuple(skipped),
        notes=(*((note,) if nameless else ()), *_people.issuers_of(patients).notes()),
    )


def _without_studies_of_two(images: ImageSet) -> ImageSet:
    """Without the pictures of studies under more than one patient's id: one of the ids is wrong."""
    if images.studies is None:
        return images
    named = (images.studies != "") & ~np.char.startswith(images.patients, UNKNOWN)
    pairs = np.unique(np.stack([images.studies[named], images.patients[named]], axis=1), axis=0)
    studies, patients = np.unique(pairs[:, 0], return_counts=True)
    torn = np.isin(images.studies, studies[patients > 1])
    skips = tuple(Skip(str(name), "two patients in a study: one of the ids is wrong") for name in images.ids[torn])
    return replace(images.take(~torn), skipped=(*images.skipped, *skips)) if torn.any() else images


def _read_parquet(path: Path, frame: Frame, split_column: str | None, finding: str) -> ImageSet:
    """Streams the table, so that the encoded pictures are never all in memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from None
    names = table.schema_arrow.names
    binary = [f.name for f in table.schema_arrow if pa.types.is_binary(f.type) or pa.types.is_large_binary(f.type)]
    pixels = next((name for name in PIXELS if name in binary), binary[0] if len(binary) == 1 else None)
    if pixels is None:
        raise DataError(f"{path} has no column of encoded pictures; expected bytes in one of {', '.join(PIXELS)}")
    if split_column is not None and split_column not in names:
        raise DataError(f"{path} has no column {split_column!r}; its columns are {', '.join(names)}")
    labelling = find_labels(names, finding)
    roles = {role: find(names, role) for role in ("id", "patient", "split", "order")}
    roles["label"] = None if labelling is None else labelling.column
    if split_column:
        roles["split"] = split_column
    progress.say(
        "columns: " + ", ".join(f"{role} = {name}" for role, name in {"picture": pixels, **roles}.items() if name)
    )
    further = attribute_columns.wanted([name for name in names if name not in binary])
    columns = [name for name in {pixels, *roles.values(), *further} if name]
    rows: dict[str, list[object]] = {role: [] for role in roles}
    known: dict[str, list[object]] = {name: [] for name in further}
    results: list[Picture | Refused] = []
    with progress.bar("reading", table.metadata.num_rows) as bar:
        for batch in table.iter_batches(batch_size=256, columns=columns):
            for role, name in roles.items():
                rows[role] += batch.column(name).to_pylist() if name else [None] * len(batch)
            for name in further:
                known[name] += batch.column(name).to_pylist()
            results += [_load_bytes(content, frame) for content in batch.column(pixels).to_pylist()]
            bar.advance(len(batch))
    ids = [str(value) if value is not None else f"row {i}" for i, value in enumerate(rows["id"])]
    kept = [i for i, result in enumerate(results) if not isinstance(result, Refused)]
    found = _collect(zip(ids, results, strict=True))

    def column(role: str) -> list[object] | None:
        return [rows[role][i] for i in kept] if roles[role] else None

    found = attribute_columns.put(found, {name: [values[i] for i in kept] for name, values in known.items()})
    return _with_columns(found, labelling, column("patient"), column("label"), column("split"), column("order"))


def _load_bytes(content: bytes | None, frame: Frame) -> Picture | Refused:
    try:
        if not content:
            raise Refused("no picture in this row: 0 bytes")
        return _pictures.of_pixels(_pictures.from_pillow(content), frame)
    except Refused as refused:
        return refused


def _read_npz(path: Path, frame: Frame, finding: str) -> ImageSet:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error):
        raise DataError(f"{path} is no npz archive of plain arrays: write it again with numpy.savez") from None
    if "images" not in arrays and "train_images" in arrays:
        arrays = _from_medmnist(arrays)
    images = arrays.get("images")
    if images is None or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 1):
        shape = None if images is None else images.shape
        raise DataError(f"{path}: expected an array 'images' (N, H, W), got {shape}; it holds {', '.join(arrays)}")
    images = images.reshape(images.shape[:3])
    if not images.size:
        raise DataError(f"{path}: 'images' holds no picture (its shape is {images.shape})")
    if images.dtype != np.uint8 and not (images.dtype.kind == "f" and _within_one(images)):
        raise DataError(f"{path}: 'images' must be 8-bit, or floats from 0 to 1; got {images.dtype}")
    names = list(arrays)
    labelling = find_labels(names, finding)
    roles = {role: find(names, role) for role in ("id", "patient", "split", "order")}
    roles["label"] = None if labelling is None else labelling.column
    for name in roles.values():
        if name and len(arrays[name]) != len(images):
            raise DataError(f"{path}: {name!r} has {len(arrays[name])} entries for {len(images)} images")
    ids = [str(i) for i in arrays[roles["id"]]] if roles["id"] else [f"image {i}" for i in range(len(images))]
    results = [_load_array(image, frame) for image in progress.track(images, "reading", len(images))]
    kept = [i for i, result in enumerate(results) if not isinstance(result, Refused)]
    found = _collect(zip(ids, results, strict=True))

    def column(role: str) -> list[object] | None:
        name = roles[role]
        return list(arrays[name].reshape(len(images), -1)[kept, 0].tolist()) if name else None

    further = {name: arrays[name] for name in attribute_columns.wanted(names) if len(arrays[name]) == len(images)}
    found = attribute_columns.put(found, {name: values[kept].tolist() for name, values in further.items()})
    return _with_columns(found, labelling, column("patient"), column("label"), column("split"), column("order"))


def _within_one(images: NDArray[np.generic]) -> bool:
    """Whether what is finite lies between 0 and 1; what is not is refused picture by picture."""
    values = images.astype(np.float32, copy=False)
    return bool(((values >= 0) & (values <= 1) | ~np.isfinite(values)).all())


def _load_array(image: NDArray[np.generic], frame: Frame) -> Picture | Refused:
    values = image.astype(np.float32) / (255 if image.dtype == np.uint8 else 1)
    try:
        if not np.isfinite(values).all():
            raise Refused("damaged picture: it holds values that are not finite")
        return _pictures.of_pixels(values, frame)
    except Refused as refused:
        return refused


def _from_medmnist(arrays: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """MedMNIST's ``train_images``, ``train_labels``... -> one array each and a column of splits."""
    parts = [part for part in PARTS if f"{part}_images" in arrays]
    counts = {part: len(arrays[f"{part}_images"]) for part in parts}
    joined: dict[str, NDArray[np.generic]] = {
        "images": np.concatenate([arrays[f"{part}_images"] for part in parts]),
        "split": np.repeat(parts, list(counts.values())),
        "id": np.array([f"{part} {i}" for part in parts for i in range(counts[part])]),
    }
    if all(f"{part}_labels" in arrays for part in parts):
        joined["label"] = np.concatenate([arrays[f"{part}_labels"].reshape(-1) for part in parts])
    return joined


def _with_columns(
    found: ImageSet,
    labelling: Labelling | None,
    patients: list[object] | None,
    labels: list[object] | None,
    splits: list[object] | None,
    order: list[object] | None,
) -> ImageSet:
    if patients is not None:
        said = ["" if p is None else str(p).strip() for p in patients]
        known = [one or unknown for one, unknown in zip(said, found.patients, strict=True)]
        found = replace(found, patients=np.array(known, dtype=np.str_), named_by=TABLE, notes=())
    if labels is not None and labelling is not None:
        values = [labelling.of(value, where=name) for value, name in zip(labels, found.ids, strict=True)]
        say_uncertain(labelling, labels)
        found = replace(found, labels=np.array(values))
    if splits is not None:
        found = replace(found, splits=np.array(["" if s is None else str(s) for s in splits], dtype=np.str_))
    if order is not None:
        found = replace(found, order=np.array([UNLABELLED if o is None else int(str(o)) for o in order]))
    return found
