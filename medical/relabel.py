"""Other labels for a store that is complete: translated from the hospital's table, without reading a picture again.

The store keeps what the gate made of each file, and the hospital's folder still has the files' names and tags: together
they are what a table of labels is looked up in.
"""

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from unlabeled.core.checkpoints import MANIFEST, read_manifest, write_atomically
from unlabeled.core.errors import DataError
from unlabeled.core.progress import bar, say
from unlabeled.medical._confidentiality import METHODS
from unlabeled.medical._ledger import site_key
from unlabeled.medical._pseudonyms import Pseudonyms
from unlabeled.medical.attributes import ATTRIBUTES
from unlabeled.medical.deidentify import quietly
from unlabeled.medical.images import PNEUMONIA, UNLABELLED
from unlabeled.medical.intake import _film, _told, _walk
from unlabeled.medical.intake._finish import methods_of
from unlabeled.medical.intake._labels import Labels, Translated
from unlabeled.medical.intake._tables import STUDIES as COLUMNS
from unlabeled.medical.intake._tables import Table
from unlabeled.medical.intake.reasons import EXACT, REFUSED
from unlabeled.medical.intake.store import GATE, KIND, LABELS, STUDIES

# Methods of the de-identification that are told by what may come from labels: people's and devices' characteristics.
_SAID = ("113108", "113109")


def relabel(
    folder: str | Path,
    *,
    store: str | Path,
    key: str | Path,
    labels: str | Path,
    findings: Sequence[str] = (PNEUMONIA,),
) -> dict[str, Any]:
    """Replaces a store's labels, and what they say of people, by those that an intake with this table would have
    written, and returns its manifest.

    Args:
        folder: that the store was made of; its files are as they were.
        store: complete.
        key: file of the site key that the store was made with.
        labels: CSV, as for the intake.
        findings: what of it is translated.

    Raises:
        DataError: the labels cannot be used (nothing is changed then), or the folder, or the key, is another one.
    """
    import pandas as pd

    folder, store = Path(folder), Path(store)
    manifest = read_manifest(store, kind=KIND)
    secret = site_key(Path(key))
    asked = Labels(Path(labels), secret, findings=findings)
    gate = pd.read_parquet(store / GATE).fillna("").to_dict("records")
    files = _walk.walk(folder, Pseudonyms(secret))
    reader = _film.Reader(folder.absolute(), secret, size=int(manifest["size"]))
    if [_film.file_key(reader.stand_in, found.path) for found in files] != [row["file"] for row in gate]:
        raise DataError(f"{store} was made of other files, or with another site key: its labels cannot be replaced")
    kept = {row["instance"]: number for number, row in enumerate(gate) if row["state"] != REFUSED}
    films: dict[int, _film.Finding] = {}
    with bar("looking the labels up", len(files)) as shown:
        for number, (found, row) in enumerate(zip(files, gate, strict=True)):
            finding = _named(reader, found)
            finding.state, finding.reason, finding.detail = row["state"], row["reason"], row["detail"]
            asked.look_up(number, finding, twin=kept.get(row["like"]) if row["reason"] == EXACT else None)
            if row["state"] != REFUSED:
                films[number] = finding
            shown.advance(1)
    translated = asked.translated()
    made_of, _, rest = str(manifest["source"]).partition("-")
    site = rest.partition("-")[2]
    for number, finding in films.items():
        translated.told.put(number, finding, site=site)
    manifest |= {
        "labels": translated.counts, "findings": list(findings), "source": f"{made_of}-{asked.digest}-{site}",
        "attributes": translated.told.counts,
    }  # fmt: skip
    used = {code: METHODS[code] for finding in films.values() for code in methods_of(finding) if code in _SAID}
    others = {code: said for code, said in manifest["deidentification"]["methods"].items() if code not in _SAID}
    manifest["deidentification"]["methods"] = dict(sorted({**others, **used}.items()))
    for line in _told.lines(translated.told.counts):
        say(line)
    _write_attributes(store, list(films.values()), site=site)
    write_atomically(store / LABELS, _table(translated, [row["instance"] for row in gate], asked.findings))
    write_atomically(store / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    return manifest


def _write_attributes(store: Path, films: Sequence[_film.Finding], *, site: str) -> None:
    """What is known of each film anew: of its tags, and of what the labels say beside them."""
    import pandas as pd

    rows: list[dict[Any, Any]] = pd.read_parquet(store / STUDIES).to_dict("records")
    with TemporaryDirectory(dir=store) as place:
        with Table(Path(place), "studies", COLUMNS) as table:
            table.write([
                {**row, **{name: film.facts.get(name, "") for name in ATTRIBUTES if name != "site" or not site}}
                for row, film in zip(rows, films, strict=True)
            ])  # fmt: skip
        for path in Path(place).iterdir():
            os.replace(path, store / path.name)


def _named(reader: _film.Reader, found: _film.Found) -> _film.Finding:
    """A file with all that a table may call it by; of one that an intake cannot read, that is its path."""
    finding = _film.Finding(_film.file_key(reader.stand_in, found.path), keys=reader._file_keys(found.path))
    try:
        if not found.reason:
            with quietly():
                reader._check_file(reader.root / found.path)
                reader._identify(_film._tags(reader.root / found.path), finding)
    except Exception:  # whatever the intake met with as well: the gate's table has the reason
        return finding
    return finding


def _table(translated: Translated, instances: Sequence[str], findings: Sequence[str]) -> str:
    """As an intake writes it: in the order of the files."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image_id", *(findings if len(findings) > 1 else ("label",)), "split"))
    for number in sorted(translated.labels):
        values, split = translated.labels[number]
        writer.writerow((instances[number], *("" if value == UNLABELLED else value for value in values), split))
    return text.getvalue()
