"""Any finding goes the way of pneumonia: its labels are found, and nothing that is written speaks of another."""

import json
import re
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pandas as pd
import pytest

from unlabeled.core.errors import DataError
from unlabeled.medical import PneumoniaModel, read_images, read_labels, simulate
from unlabeled.medical._measurement_report import code_of
from unlabeled.medical._tables import find_labels
from unlabeled.medical.images import PNEUMONIA
from unlabeled.medical.intake import take_in
from unlabeled.pipelines import _cost, _medical_audit
from unlabeled.pipelines import medical as jobs
from unlabeled.pipelines.cli import main

FINDING = "pleural effusion"
SMALL: dict[str, Any] = {"image_size": 32, "dim": 16, "depth": 1, "heads": 2, "finetune_steps": 5, "folds": 2}


@pytest.mark.parametrize(
    ("columns", "finding", "column", "listed"),
    [
        (["id", "pneumonia", "label"], "pneumonia", "label", False),  # plain labels are about pneumonia first
        (["id", "Pneumonia", "finding_labels"], "pneumonia", "Pneumonia", False),
        (["id", "label", "Pleural_Effusion"], FINDING, "Pleural_Effusion", False),
        (["id", "label", "Finding Labels"], FINDING, "Finding Labels", True),
        (["id", "pneumonia", "target"], FINDING, "target", False),
    ],
)
def test_the_column_that_speaks_of_a_finding(columns: list[str], finding: str, column: str, listed: bool) -> None:
    found = find_labels(columns, finding)
    assert found is not None
    assert (found.column, found.listed) == (column, listed)


def test_another_finding_s_column_is_not_taken() -> None:
    assert find_labels(["id", "pneumonia", "nodule"], FINDING) is None


@pytest.mark.parametrize(
    ("columns", "cell", "label"),
    [
        (["effusion"], "Effusion", 1), (["effusion"], "no effusion", 0), (["effusion"], "normal", 0),
        (["effusion"], " 1 ", 1), (["effusion"], "", -1), (["effusion"], float("nan"), -1),
        (["finding_labels"], "Cardiomegaly|Effusion", 1), (["finding_labels"], "No Finding", 0),
        (["finding_labels"], "Effusions", 0), (["finding_labels"], "cardiomegaly; EFFUSION", 1),
        (["finding_labels"], "", -1),
    ],
)  # fmt: skip
def test_what_a_cell_says(columns: list[str], cell: object, label: int) -> None:
    labelling = find_labels(columns, "effusion")
    assert labelling is not None
    assert labelling.of(cell, where="here") == label


def test_a_word_for_another_finding_is_no_label() -> None:
    labelling = find_labels(["label"], "effusion")
    assert labelling is not None
    with pytest.raises(DataError, match="expected 1/0, true/false, yes/no or effusion/normal"):
        labelling.of("pneumonia", where="line 2")


@pytest.mark.parametrize("finding", ["", " ", "refer", "No call", "no effusion"])
def test_calls_must_be_told_from_one_another(finding: str) -> None:
    with pytest.raises(DataError, match="called by a word or two"):
        PneumoniaModel(finding=finding).check()


def test_codes_of_findings() -> None:
    assert (code_of("pneumonia").value, code_of("pneumonia").scheme_designator) == ("233604007", "SCT")
    ours, theirs = code_of("Effusion"), code_of("nodule")
    assert ours.meaning == "Effusion"
    assert ours.scheme_designator == theirs.scheme_designator == "99UNLABELED"
    assert ours.value == code_of("effusion").value != theirs.value
    assert len(ours.value) <= 16


def test_the_command_line_s_default_is_the_model_s() -> None:
    assert _cost.PNEUMONIA == PNEUMONIA == PneumoniaModel().finding


@pytest.fixture(scope="module")
def listed(archive: simulate.Simulated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive's labels as ChestX-ray14 writes them: what is called pneumonia there is an effusion here."""
    table = pd.read_csv(archive.labels)
    table["finding_labels"] = np.where(table["label"] == 1, "Pleural_Effusion|Mass", "No Finding")
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    table.drop(columns="label").to_csv(path, index=False)
    return path


def words(path: Path) -> str:
    """A page without its pictures."""
    return re.sub(r"data:image/png;base64,[^\"]*", "", path.read_text(encoding="utf-8"))


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_from_labels_to_reports_only_the_finding_is_spoken_of(
    archive: simulate.Simulated, listed: Path, in_tmp: Path
) -> None:
    base = in_tmp / "base"
    PneumoniaModel(**SMALL, pretrain_epochs=1).pretrain(read_images(archive.images, size=32)).save(base)
    plain = pd.read_csv(archive.labels)
    for name, given in (("m", pd.read_csv(listed)), ("n", plain)):
        folder = given["file"].str.split("/").str[0].astype(int)  # one a patient
        given[folder % 3 > 0].to_csv(f"{name}.csv", index=False)
        command = ["medical", "finetune", str(archive.images), "--labels", f"{name}.csv", "--model", "base"]
        with pytest.raises(SystemExit) as ended:
            main([*command, "--out", name, "--finding", FINDING])
        assert ended.value.code == 0
    model = PneumoniaModel.load(in_tmp / "m")
    assert model.finding == FINDING
    # The labels were those of the finding: the very model that labels of 0 and 1 make.
    np.testing.assert_array_equal(
        model.score(read_images(archive.images, size=32)),
        PneumoniaModel.load(in_tmp / "n").score(read_images(archive.images, size=32)),
    )
    done = jobs.predict(archive.images, model=in_tmp / "m", out=in_tmp / "s", dicom=True)
    table = pd.read_csv(listed)
    folder = table["file"].str.split("/").str[0].astype(int)  # one a patient
    table[folder % 3 == 0].to_csv("unseen.csv", index=False)
    audited = _medical_audit.audit(
        archive.images, model=in_tmp / "m", labels=in_tmp / "unseen.csv", out=in_tmp / "a", least=2
    )
    table = pd.read_csv(done.files["predictions"])
    assert set(table["call"]) <= {FINDING, f"no {FINDING}"}
    assert set(table["decision"]) <= {FINDING, f"no {FINDING}", "refer"}
    for page in (in_tmp / "m" / "report.html", done.files["report"], audited.files["report"]):
        assert FINDING in words(page).lower()
        assert "pneumonia" not in words(page).lower(), page
    report = hd.sr.srread(next((in_tmp / "s" / "dicom").rglob("SR-*.dcm")))
    (group,) = report.content.get_image_measurement_groups()
    ((evaluation,),) = [group.get_qualitative_evaluations()]
    assert evaluation.name.meaning == "Pleural effusion"
    assert "pneumonia" not in str(report).lower()


def test_a_store_that_was_labelled_for_another_finding_is_not_taken_for_this_one(
    archive: simulate.Simulated, listed: Path, in_tmp: Path
) -> None:
    given = {"key": in_tmp / "site.key", "ledger": in_tmp / "ledger.csv", "size": 32, "workers": 1}
    for store, labels, finding in (("p", archive.labels, PNEUMONIA), ("e", listed, FINDING)):
        take_in(archive.images, store=in_tmp / store, labels=labels, findings=[finding], **given)
    assert json.loads((in_tmp / "e" / "manifest.json").read_text())["findings"] == [FINDING]
    theirs, ours = (pd.read_csv(in_tmp / store / "labels.csv")["label"].tolist() for store in "pe")
    assert ours == theirs  # what is called pneumonia there is an effusion here
    base = PneumoniaModel(**SMALL, framing="padded", pretrain_epochs=1).pretrain(read_images(in_tmp / "p", size=32))
    base.save(in_tmp / "base")
    with pytest.raises(DataError, match="are about pneumonia, not pleural effusion: give --labels"):
        jobs.finetune(in_tmp / "p", model=in_tmp / "base", out=in_tmp / "m", finding=FINDING)
    with pytest.raises(DataError, match="are about pleural effusion, not pneumonia"):
        jobs.finetune(in_tmp / "e", model=in_tmp / "base", out=in_tmp / "m")
    # To be scored they need no label, and are not judged by another finding's.
    jobs.finetune(in_tmp / "p", model=in_tmp / "base", out=in_tmp / "m")
    assert "metrics" not in jobs.predict(in_tmp / "e", model=in_tmp / "m", out=in_tmp / "s").details


def test_labels_of_several_findings_are_read_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("image_id,effusion,nodule\na,1,0\nb,0,\n")
    assert {name: row.label for name, row in read_labels(path, finding="effusion").items()} == {"a": 1, "b": 0}
    assert {name: row.label for name, row in read_labels(path, finding="nodule").items()} == {"a": 0, "b": -1}
    with pytest.raises(DataError, match=r"no label column \(mass or label\)"):
        read_labels(path, finding="mass")
