"""Labels of several findings follow to a store, and are learnt from it: by one command, with a page for each."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from unlabeled.core.errors import DataError
from unlabeled.medical import PneumoniaModel, read_images, simulate
from unlabeled.medical.intake import Intake, take_in
from unlabeled.medical.labels import attach, read_labels
from unlabeled.pipelines import _medical_label_need as needing
from unlabeled.pipelines import _medical_run as job
from unlabeled.pipelines import _medical_several as several
from unlabeled.pipelines._medical_input import read
from unlabeled.pipelines.cli import main

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)
BOTH = ("pneumonia", "Pleural_Effusion")
SMALL: dict[str, Any] = {
    "image_size": 32, "dim": 16, "depth": 1, "heads": 2, "pretrain_epochs": 1, "finetune_steps": 2, "folds": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def labels(archive: simulate.Simulated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A column for each: what the archive calls pneumonia, and an effusion in every second patient, at times unknown;
    one line knows nothing of either."""
    table = pd.read_csv(archive.labels, dtype=str)
    patient = table["file"].str.split("/").str[0].astype(int)
    table = table.rename(columns={"label": "pneumonia"})
    table["pleural effusion"] = np.where(np.arange(len(table)) % 7 == 0, "", (patient % 2).astype(str))
    table.loc[3, ["pneumonia", "pleural effusion"]] = ""
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    table.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def taken(archive: simulate.Simulated, labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Intake:
    place = tmp_path_factory.mktemp("taken")
    return take_in(
        archive.images, store=place / "store", key=place / "site.key", ledger=place / "ledger.csv", size=32,
        labels=labels, findings=BOTH, workers=1,
    )  # fmt: skip


def test_each_label_is_what_the_hospital_s_table_said(archive: simulate.Simulated, labels: Path, taken: Intake) -> None:
    given = pd.read_csv(labels, dtype=str, keep_default_na=False).set_index("file")
    said = pd.read_csv(taken.store / "labels.csv", dtype=str, keep_default_na=False)
    assert list(said.columns) == ["image_id", *BOTH, "split"]
    files = pd.read_csv(taken.names, dtype=str, keep_default_na=False)
    path_of = dict(zip(files["instance"], files["path"], strict=True))
    assert len(said) > 50
    for _, row in said.iterrows():
        theirs = given.loc[path_of[row["image_id"]]]
        assert (row["pneumonia"], row["Pleural_Effusion"]) == (theirs["pneumonia"], theirs["pleural effusion"])
        assert row["pneumonia"] or row["Pleural_Effusion"]
    assert set(said["Pleural_Effusion"]) == {"0", "1", ""}
    assert taken.manifest["labels"]["without a label"] == 1
    assert taken.manifest["findings"] == list(BOTH)


def test_a_store_of_several_findings_gives_the_one_that_is_asked_for(taken: Intake) -> None:
    for finding in ("pneumonia", "pleural effusion"):
        direct = read_images(taken.store, size=32, finding=finding)
        by_table = attach(direct, read_labels(taken.store / "labels.csv", finding=finding))
        assert direct.labels is not None
        assert {-1, 0, 1} == set(direct.labels)
        np.testing.assert_array_equal(direct.labels, by_table.labels)
    assert read_images(taken.store, size=32, finding="nodule").labels is None
    with pytest.raises(DataError, match="are about pneumonia, Pleural_Effusion, not nodule: give --labels"):
        read(taken.store, None, size=32, framing=None, finding="nodule")


@pytest.mark.parametrize(
    ("header", "findings", "why"),
    [
        ("file,label", BOTH, r"the same of pneumonia, Pleural_Effusion \(column label\)"),
        ("file,pneumonia", BOTH, "nothing of Pleural_Effusion"),
        ("file,pneumonia,split", ("pneumonia", "split"), "cannot be called 'split'"),
    ],
)
def test_labels_that_do_not_tell_findings_apart_are_said_before_anything_is_read(
    archive: simulate.Simulated, tmp_path: Path, header: str, findings: tuple[str, ...], why: str
) -> None:
    (tmp_path / "labels.csv").write_text(f"{header}\n")
    with pytest.raises(DataError, match=why):
        take_in(
            archive.images, store=tmp_path / "s", key=tmp_path / "k", ledger=tmp_path / "l.csv",
            labels=tmp_path / "labels.csv", findings=findings,
        )  # fmt: skip
    assert not (tmp_path / "l.csv").exists()


def test_lines_contradict_each_other_where_one_finding_does(archive: simulate.Simulated, tmp_path: Path) -> None:
    name = pd.read_csv(archive.labels)["file"][0]
    (tmp_path / "labels.csv").write_text(f"file,pneumonia,nodule\n{name},1,0\n{name},1,1\n")
    with pytest.raises(DataError, match="lines 2 and 3 contradict each other"):
        take_in(
            archive.images, store=tmp_path / "s", key=tmp_path / "k", ledger=tmp_path / "l.csv", size=32,
            labels=tmp_path / "labels.csv", findings=("pneumonia", "nodule"), workers=1,
        )  # fmt: skip


@pytest.mark.integration
def test_several_are_learnt_from_a_store_as_from_the_same_table(taken: Intake, in_tmp: Path) -> None:
    base = PneumoniaModel(**SMALL, framing="padded").pretrain(read_images(taken.store, size=32))
    base.save(in_tmp / "base")
    given = {"model": in_tmp / "base", "findings": BOTH, "n_labels": 24, "labels": None}
    several.finetune(taken.store, out=in_tmp / "a", **given)  # type: ignore[arg-type]
    several.finetune(taken.store, out=in_tmp / "b", **{**given, "labels": taken.store / "labels.csv"})  # type: ignore[arg-type]
    images = read_images(taken.store, size=32)
    scores = {}
    for name in BOTH:
        one, other = (PneumoniaModel.load(in_tmp / out / several.folder_of(name)) for out in "ab")
        np.testing.assert_array_equal(one.score(images), other.score(images))
        scores[name] = one.score(images)
    assert not np.allclose(*scores.values())


@pytest.mark.integration
def test_one_command_leads_to_an_audit_and_a_package_for_each(
    archive: simulate.Simulated, labels: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(job, "DRAWS", 3)
    monkeypatch.setattr(needing, "counts_for", lambda labelled, wanted: [15, 22, 30])  # there are too few for more
    command = ["medical", "run", str(archive.images), "--labels", str(labels), "--size", "32", "--epochs", "1"]
    command += ["--steps", "2", "--out", "r", "--label-need", "--finding", BOTH[0], "--finding", BOTH[1]]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--dry-run"])
    assert ended.value.code == 0
    assert "15 labels, 3 draws" in " ".join(capsys.readouterr().out.split())
    assert not (in_tmp / "r").exists()
    with pytest.raises(SystemExit) as ended:
        main(command)
    told = capsys.readouterr()
    assert ended.value.code == 0, told.err
    stages = json.loads((in_tmp / "r" / "run.json").read_text())["stages"]
    assert list(stages) == [
        "intake", "pretraining", "fine-tuning",
        *(f"{what} of {name}" for name in BOTH for what in ("labels needed", "audit", "package")),
    ]  # fmt: skip
    assert "9 of 9: package of Pleural_Effusion" in told.err
    page = (in_tmp / "r" / "report.html").read_text(encoding="utf-8")
    for name, folder in zip(BOTH, ("pneumonia", "pleural_effusion"), strict=True):
        model = PneumoniaModel.load(in_tmp / "r" / "model" / folder)
        assert model.finding == name
        assert (in_tmp / "r" / "package" / folder / "MLmodel").is_file()
        audit = (in_tmp / "r" / "audit" / folder / "report.html").read_text(encoding="utf-8")
        assert "Another 100 labels (beyond" in audit
        assert f"audit/{folder}/report.html" in page
        said = json.loads((in_tmp / "r" / "audit" / folder / "audit.json").read_text())
        assert said["labels_needed"]["finding"] == name
        # Judged where this finding is known, and on nobody that its model learnt from.
        judged = said["flow"]["judged"]
        assert judged == stages["fine-tuning"]["details"]["findings"][name]["unseen"]
    assert re.findall(r"registered as models:/(\S+)/1", told.out) == ["pneumonia", "pleural_effusion"]
    with pytest.raises(SystemExit):
        main(command)
    assert capsys.readouterr().err.count("done before") == 9


def test_a_rare_finding_and_too_few_labels_for_a_curve_are_said_before_anything_is_trained(
    archive: simulate.Simulated, in_tmp: Path
) -> None:
    table = pd.read_csv(archive.labels, dtype=str)
    table["nodule"] = "0"
    table.loc[:1, "nodule"] = "1"
    table.rename(columns={"label": "pneumonia"}).to_csv(in_tmp / "rare.csv", index=False)
    plan = job.Plan(size=32, epochs=1, steps=2, findings=("pneumonia", "nodule"))
    with pytest.raises(DataError, match="nodule"):
        job.run(archive.images, labels=in_tmp / "rare.csv", out=in_tmp / "r", plan=plan)
    plan = job.Plan(size=32, epochs=1, steps=2, label_need=True, n_labels=20)
    with pytest.raises(DataError, match="20 labels to learn from allow none"):
        job.run(archive.images, labels=archive.labels, out=in_tmp / "s", plan=plan)
    with pytest.raises(DataError, match="self-training knows one finding at a time"):
        job.run(
            archive.images, labels=archive.labels, out=in_tmp / "t",
            plan=job.Plan(findings=("pneumonia", "nodule"), self_training=True),
        )  # fmt: skip
    for folder in "rs":
        assert not (in_tmp / folder / "pretrained").exists()
