"""From a hospital's folder of DICOM files to a store of pictures in which nobody has a name.

Every file that is found has a row in the gate's table, with the reason if it is not kept; what is kept is a row of
``pictures.npy`` and of ``studies.parquet``. Names are pseudonyms under a site key; the ledger, which leads back to the
patients and files, lies elsewhere.
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlabeled.core import progress
from unlabeled.core.errors import DataError
from unlabeled.medical._ledger import Ledger, site_key
from unlabeled.medical._pseudonyms import Pseudonyms
from unlabeled.medical.images import PNEUMONIA

if TYPE_CHECKING:
    from unlabeled.medical.intake._film import Reader
    from unlabeled.medical.intake._parts import Parts

__all__ = ["Intake", "is_as_it_was", "take_in"]

# What is kept of a file is of this kind: parts that kept more are not taken up.
FACTS = 4


@dataclass(frozen=True, kw_only=True)
class Intake:
    """What came of it.

    Attributes:
        store: the folder.
        ledger, names: which patient stands behind which pseudonym, and which file behind which digest.
        manifest: as in the store: ``found``, ``kept``, ``flagged`` and ``refused`` files, ``refusals`` and ``flags`` by
            their reason, and how the pictures were made.
    """

    store: Path
    ledger: Path
    names: Path
    manifest: dict[str, Any]


def take_in(
    folder: str | Path,
    *,
    store: str | Path,
    key: str | Path,
    ledger: str | Path,
    size: int = 128,
    site: str = "",
    labels: str | Path | None = None,
    findings: Sequence[str] = (PNEUMONIA,),
    dicom: bool = False,
    ocr: bool = False,
    workers: int | None = None,
) -> Intake:
    """Takes a folder in; interrupted or killed and called again, it goes on where it was.

    Args:
        folder: walked to its depths, whatever files are called.
        store: folder to be written; it appears when it is complete.
        key: file of the site key, made where missing. The same key gives the same pseudonyms in every intake.
        ledger: CSV that names patients. Beside it, ``<store>-files.csv`` says which file is which.
        size: rows and columns of the pictures.
        site: what the column ``site`` says of all of them, whatever files and labels say.
        labels: CSV of labels that name files, patients, studies or accession numbers of the hospital: translated into
            the store's ``labels.csv``. Its columns of age, sex, view, device and site win over what tags say, in the
            store's terms.
        findings: what of these labels is translated, where they are about several.
        dicom: also write de-identified DICOM files.
        ocr: also read for text away from the borders, and paint it over (the extra ``ocr``).
        workers: processes; one a core, or fewer.

    Raises:
        DataError: something lies where it must not (the key, the ledger or the folder inside the store, or the
            other way round), the store exists and is made of something else, labels contradict each other or do not
            tell the findings apart, or ``ocr`` without what it needs.
    """
    from unlabeled import __version__
    from unlabeled.core.checkpoints import FORMAT, MANIFEST
    from unlabeled.medical.intake import _finish, _parts, _walk
    from unlabeled.medical.intake._film import Reader
    from unlabeled.medical.intake._labels import Labels
    from unlabeled.medical.intake.store import KIND

    folder, store, key, ledger = Path(folder), Path(store), Path(key), Path(ledger)
    names = ledger.with_name(f"{store.name}-files.csv")
    _check_places(folder, store, {"site key": key, "ledger": ledger})
    if not 16 <= size <= 2048:
        raise DataError(f"--size is from 16 to 2048 pixels, got {size}")
    work = store.absolute().with_name(f".{store.name}.intake")
    secret = site_key(key)
    asked = None if labels is None else Labels(Path(labels), secret, findings=findings)
    files = _walk.walk(folder, Pseudonyms(secret))
    if not files:
        raise DataError("the folder is empty: expected DICOM files in it or below it")
    settings = {"version": __version__, "facts": FACTS, "size": size, "dicom": dicom, "ocr": ocr}
    parts = _parts.Parts(work, files, secret, settings=settings, size=size)
    source = f"{parts.source()}-{asked.digest if asked else ''}-{site}"
    done = _finished(store, source)
    if done is not None:
        shutil.rmtree(work, ignore_errors=True)
        progress.say("this store is complete already, and made of these files: nothing to do")
        return Intake(store=store, ledger=ledger, names=names, manifest=done)
    if not ledger.exists():  # parts that are in no ledger must not be taken up
        shutil.rmtree(work, ignore_errors=True)
    open_ledger = Ledger(ledger, store=store)
    work.mkdir(parents=True, exist_ok=True)
    reader = Reader(folder.absolute(), secret, size=size, dicom=work / "dicom" if dicom else None, ocr=ocr)
    _read(parts, reader, open_ledger, workers)
    new = work / "store"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    told = _finish.finish(parts, new, names=names, site=site, labels=asked, dicom=reader.dicom, ocr=ocr)
    manifest = {
        "format": FORMAT, "kind": KIND, **settings, "site": site, **told, "findings": list(findings), "source": source,
        "names": Pseudonyms(secret).digest("names", ""),
        "files": parts.listed(),
    }  # fmt: skip
    (new / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    os.replace(new, store)
    shutil.rmtree(work, ignore_errors=True)
    return Intake(store=store, ledger=ledger, names=names, manifest=json.loads(json.dumps(manifest)))


def is_as_it_was(folder: str | Path, *, store: str | Path, key: str | Path) -> bool | None:
    """Whether a folder holds the files that a store was made of; ``None`` where the site key, or the store, does not
    tell."""
    from unlabeled.core.checkpoints import read_manifest
    from unlabeled.medical.intake import _parts, _walk
    from unlabeled.medical.intake.store import KIND

    manifest = read_manifest(store, kind=KIND)
    if not Path(key).is_file() or "files" not in manifest:
        return None
    secret = site_key(Path(key))
    files = _walk.walk(Path(folder), Pseudonyms(secret))
    found = _parts.Parts(Path(store), files, secret, settings={}, size=int(manifest["size"]))
    return bool(found.listed() == manifest["files"])


def _read(parts: "Parts", reader: "Reader", ledger: Ledger, workers: int | None) -> None:
    from unlabeled.medical.intake import _workers

    if reader.dicom is not None:
        reader.dicom.mkdir(exist_ok=True)
    open_ = [number for number in range(len(parts)) if not parts.done(number)]
    count = min(workers or _workers.cores(), _workers.cores(), max(1, len(open_)))
    done = len(parts.files) - sum(len(parts.of(number)) for number in open_)
    if done:
        progress.say(f"{done} of {len(parts.files)} files were read before")
    with progress.bar("taking in", len(parts.files), done=done) as shown:
        for batch in _workers.read_all(reader, [(n, parts.of(n)) for n in open_], workers=count) if open_ else ():
            parts.write(batch.number, batch.films, ledger)
            shown.advance(len(batch.films))


def _check_places(folder: Path, store: Path, private: dict[str, Path]) -> None:
    """Raises a DataError, before anything is made, where data and what leads back from them would lie together."""
    if not folder.is_dir():
        raise DataError("the folder to take in does not exist, or is a file")
    inner, outer = folder.resolve(), store.resolve()
    if _within(outer, inner) or _within(inner, outer):
        raise DataError("the store and the folder of the hospital's files lie in one another: name another --out")
    for what, path in private.items():
        if _within(path.resolve(), outer):
            raise DataError(f"the {what} {path} would lie inside the store {store}: keep it elsewhere")
        if _within(path.resolve(), inner):
            raise DataError(f"the {what} would lie among the hospital's files, and be read as one: keep it elsewhere")


def _within(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents


def _finished(store: Path, source: str) -> dict[str, Any] | None:
    """The manifest of a store that was made of the same before, ``None`` where there is nothing yet."""
    from unlabeled.core.checkpoints import read_manifest
    from unlabeled.medical.intake.store import KIND, is_store

    if not store.exists() or (store.is_dir() and not any(store.iterdir())):
        return None
    if is_store(store):
        manifest = read_manifest(store, kind=KIND)
        if manifest.get("source") == source:
            return manifest
        raise DataError(
            f"{store} is a complete store of other files, labels or settings: name another --out, or delete it first"
        )
    raise DataError(f"{store} exists and is no store: name another --out")
