"""The ledger names patients: it stays private, apart from the data, and complete over cut-off runs."""

import csv
import os
import stat
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from unlabeled.core.errors import DataError
from unlabeled.medical.deidentify import Deidentifier, Ledger, Link, site_key

LINK = Link(
    patient_id="0815",
    issuer="St. Elsewhere, Nord",
    study="1.2.3",
    series="1.2.3.4",
    instance="1.2.3.4.5",
    accession="A77",
    days_back=123,
    pseudonym="P-1",
    new_study="2.25.1",
    new_series="2.25.2",
    new_instance="2.25.3",
    new_accession="A-1",
)
OTHER = replace(LINK, patient_id="Müller 4711", instance="1.2.3.4.6", pseudonym="P-2")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_ledger_holds_each_row_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "private" / "ledger.csv"
    old = os.umask(0)
    try:
        ledger = Ledger(path, store=tmp_path / "store")
    finally:
        os.umask(old)
    assert ledger.add([LINK, OTHER, LINK]) == 2
    assert Ledger(path, store=tmp_path / "store").add([OTHER, LINK]) == 0
    assert rows(path) == [{k: str(v) for k, v in asdict(link).items()} for link in (LINK, OTHER)]
    assert mode(path) == 0o600


def test_a_run_that_was_cut_off_in_a_row_goes_on_with_whole_rows(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    Ledger(path, store=tmp_path / "store").add([LINK, OTHER])
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        Ledger(path, store=tmp_path / "store").add([LINK, OTHER])
        assert path.read_bytes() == whole


@pytest.mark.parametrize("where", ["store/ledger.csv", "store/deep/er/ledger.csv", "store", "link/ledger.csv"])
def test_a_ledger_inside_the_store_is_refused(where: str, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "store")
    with pytest.raises(DataError, match="inside the store"):
        Ledger(tmp_path / where, store=tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []


def test_a_name_that_only_begins_like_the_stores_is_no_part_of_it(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "store-ledger.csv", store=tmp_path / "store").add([LINK]) == 1


def test_another_site_key_in_a_resumed_run_is_noticed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.csv", store=tmp_path / "store")
    ledger.add([LINK])
    with pytest.raises(DataError, match="another site key"):
        ledger.add([OTHER, replace(LINK, pseudonym="P-9")])
    assert len(rows(ledger.path)) == 1


def test_a_ledger_that_others_read_or_another_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    path.write_text("file,label\na,1\n", encoding="utf-8")
    path.chmod(0o644)
    with pytest.raises(DataError, match="can be read by others"):
        Ledger(path, store=tmp_path / "store")
    path.chmod(0o600)
    with pytest.raises(DataError, match="is no ledger: expected the columns patient_id"):
        Ledger(path, store=tmp_path / "store")


def test_cells_are_no_formulas_and_no_second_rows(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    nasty = replace(LINK, patient_id='=HYPERLINK("http://x")', accession="1\n2")
    assert Ledger(path, store=tmp_path / "store").add([nasty]) == 1
    assert Ledger(path, store=tmp_path / "store").add([nasty]) == 0
    (row,) = rows(path)
    assert (row["patient_id"], row["accession"]) == ('\'=HYPERLINK("http://x")', "1 2")


def test_a_site_key_is_made_once_and_read_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "site.key"
    key = site_key(path)
    assert len(key) == 32
    assert mode(path) == 0o600
    assert site_key(path) == key != site_key(tmp_path / "other.key")
    path.chmod(0o640)
    with pytest.raises(DataError, match=r"can be read by others: chmod 600"):
        site_key(path)
    empty = tmp_path / "empty.key"
    empty.touch(mode=0o600)
    with pytest.raises(DataError, match="holds no site key"):
        site_key(empty)


def test_another_process_gives_the_same_pseudonym(tmp_path: Path) -> None:
    from pydicom import Dataset

    code = (
        "import sys; from pathlib import Path; from pydicom import Dataset\n"
        "from unlabeled.medical.deidentify import Deidentifier, site_key\n"
        "file = Dataset(); file.PatientID = '0815'; file.StudyDate = '20200101'\n"
        "facts = Deidentifier(site_key(Path(sys.argv[1]))).facts(file); print(facts.patient, facts.date)"
    )
    file = Dataset()
    file.PatientID, file.StudyDate = "0815", "20200101"
    facts = Deidentifier(site_key(tmp_path / "site.key")).facts(file)
    run = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "site.key"], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == [facts.patient, facts.date]
