"""Other labels for a store that is complete are those that an intake with them would have written."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydicom import dcmread

from unlabeled.core.errors import DataError
from unlabeled.medical import read_images, simulate
from unlabeled.medical.intake import is_as_it_was, take_in
from unlabeled.medical.relabel import relabel

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen patients, unusable files among them, and an exact copy under another name."""
    place = tmp_path_factory.mktemp("films")
    simulate.write_archive(place, patients=14, seed=5)
    first = sorted((place / "images").glob("0*/*"))[0]
    shutil.copy2(first, place / "images" / "copied.dcm")
    for number, path in enumerate(sorted((place / "images").glob("0*/*"))):
        film = dcmread(path)
        film.AccessionNumber = f"=ACC {number}"  # a ledger writes that otherwise than it is
        film.save_as(path, enforce_file_format=True)
    return place


def tables(place: Path) -> dict[str, pd.DataFrame]:
    """What the hospital may call its films by; rows of files that are refused, of none, and of splits alone."""
    given = pd.read_csv(place / "labels.csv", dtype=str)
    tags = [dcmread(place / "images" / name, stop_before_pixels=True) for name in given["file"]]
    turned = ["0" if label == "1" else "1" for label in given["label"]]
    by = {
        "patient_id": [str(film.PatientID) for film in tags],
        "accession_number": [str(film.AccessionNumber) for film in tags],
        "StudyInstanceUID": [str(film.StudyInstanceUID) for film in tags],
        "SOPInstanceUID": [str(film.SOPInstanceUID) for film in tags],
    }
    found = {name: pd.DataFrame({name: cells, "label": turned}) for name, cells in by.items()}
    found["patient_id"] = found["patient_id"].drop_duplicates("patient_id")
    # What a table says of people is in the store as well, and goes again with the table.
    found["SOPInstanceUID"] = found["SOPInstanceUID"].assign(
        age="77", sex="other", device="Siemens Ysio Max", site="south"
    )
    names = [*given["file"], "copied.dcm", "flawed/text.txt", "nowhere.dcm"]
    found["file"] = pd.DataFrame({"file": names, "label": [*given["label"], "", "1", "0"], "split": ""})
    found["file"].loc[:3, ["label", "split"]] = ["", "test"]
    return found


@pytest.mark.parametrize("by", ["patient_id", "accession_number", "StudyInstanceUID", "SOPInstanceUID", "file"])
def test_they_are_what_a_whole_intake_would_say(by: str, films: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"key": tmp_path / "site.key", "ledger": tmp_path / "ledger.csv", "size": 16, "workers": 1}
    given |= {"site": "north - 1"}
    tables(films)[by].to_csv(tmp_path / "other.csv", index=False)
    take_in(films / "images", store=tmp_path / "whole", labels=tmp_path / "other.csv", **given)
    take_in(films / "images", store=tmp_path / "mended", labels=films / "labels.csv", **given)
    before = (tmp_path / "mended" / "labels.csv").read_text()
    people = (tmp_path / "mended" / "studies.csv").read_text()
    pictures = (tmp_path / "mended" / "pictures.npy").stat().st_mtime_ns
    asked = {"store": tmp_path / "mended", "key": given["key"], "labels": tmp_path / "other.csv"}
    manifest = relabel(films / "images", **asked)
    whole, mended = ((tmp_path / name / "labels.csv").read_text() for name in ("whole", "mended"))
    assert mended == whole != before
    assert manifest == json.loads((tmp_path / "mended" / "manifest.json").read_text())
    assert manifest == json.loads((tmp_path / "whole" / "manifest.json").read_text())
    assert (tmp_path / "mended" / "pictures.npy").stat().st_mtime_ns == pictures
    assert (read_images(tmp_path / "mended", size=16).labels == read_images(tmp_path / "whole", size=16).labels).all()
    for name in ("studies.csv", "studies.parquet"):
        assert (tmp_path / "mended" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert ((tmp_path / "mended" / "studies.csv").read_text() != people) == (by == "SOPInstanceUID")
    # An intake with the same table has nothing to do there.
    again = take_in(films / "images", store=tmp_path / "mended", labels=tmp_path / "other.csv", **given)
    assert again.manifest == manifest
    relabel(films / "images", **{**asked, "labels": films / "labels.csv"})
    assert (tmp_path / "mended" / "studies.csv").read_text() == people


def test_labels_that_fit_nothing_change_nothing_and_another_key_is_told(films: Path, tmp_path: Path) -> None:
    store, key = tmp_path / "store", tmp_path / "site.key"
    take_in(
        films / "images", store=store, key=key, ledger=tmp_path / "ledger.csv", size=16, workers=1,
        labels=films / "labels.csv",
    )  # fmt: skip
    before = {path.name: path.read_bytes() for path in store.iterdir()}
    (tmp_path / "odd.csv").write_text("file,label\nnowhere.dcm,1\n")
    with pytest.raises(DataError, match="none of 1 rows of the labels fits a film"):
        relabel(films / "images", store=store, key=key, labels=tmp_path / "odd.csv")
    with pytest.raises(DataError, match="with another site key"):
        relabel(films / "images", store=store, key=tmp_path / "other.key", labels=films / "labels.csv")
    assert {path.name: path.read_bytes() for path in store.iterdir()} == before
    assert is_as_it_was(films / "images", store=store, key=key)
