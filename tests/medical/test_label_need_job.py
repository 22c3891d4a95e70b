"""``labels-needed`` from files to a page; measured points are kept, draws differ, too few labels are said."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from unlabeled.core.errors import DataError
from unlabeled.core.evaluation import over_runs
from unlabeled.medical import ImageSet, PneumoniaModel, simulate
from unlabeled.medical.label_need import read_label_need
from unlabeled.pipelines import _medical_audit as auditing
from unlabeled.pipelines import _medical_label_need as job
from unlabeled.pipelines._medical_input import divide
from unlabeled.pipelines.cli import main

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)
SMALL: dict[str, Any] = {
    "image_size": 32, "dim": 16, "depth": 1, "heads": 2, "pretrain_epochs": 1, "finetune_steps": 2, "folds": 2,
}  # fmt: skip


def test_numbers_of_labels() -> None:
    assert job.counts_for(1000, None) == [25, 50, 100, 200, 400, 800]
    assert job.counts_for(400, None) == [25, 50, 100, 200, 320]
    assert job.counts_for(60, [40, 10, 20, 20]) == [10, 20, 40]
    with pytest.raises(DataError, match="60 labels to learn from allow"):
        job.counts_for(60, None)
    with pytest.raises(DataError, match="between 4 and 60"):
        job.counts_for(60, [10, 20, 70])


def test_each_draw_has_labels_of_its_own_and_the_model_stays_as_it_was(phantoms: ImageSet) -> None:
    model = PneumoniaModel(**SMALL).pretrain(phantoms)
    before = [p.detach().clone() for p in model.module_.parameters()]
    parts = divide(phantoms, n_labels=None, seed=0)
    found = job.learners(model, parts)
    assert set(found) == set(job.NAMES)
    errors = [[learner(20, seed) for seed in (0, 1, 0)] for learner in found.values()]
    for one, _, again in errors:
        assert one == again
        assert 0 <= one <= 1
    assert any(one != other for one, other, _ in errors)
    assert model.decision_ is None
    assert all((a == b).all() for a, b in zip(before, model.module_.parameters(), strict=True))


def test_points_count_again_only_where_pictures_people_labels_and_weights_are_the_same(phantoms: ImageSet) -> None:
    model = PneumoniaModel(**SMALL).pretrain(phantoms)
    parts = divide(phantoms, n_labels=None, seed=0)
    assert parts.train.labels is not None
    same = job._made_of(model, divide(phantoms, n_labels=None, seed=0))
    assert job._made_of(model, parts) == same
    other_label = parts.train.labels.copy()
    other_label[3] = 1 - other_label[3]
    corrected = replace(parts.train, labels=other_label)
    renamed = replace(parts.train, patients=np.char.add(parts.train.patients, "x"))
    for other in (replace(parts, train=corrected), replace(parts, train=renamed)):
        assert job._made_of(model, other) != same
    longer = PneumoniaModel(**{**SMALL, "pretrain_epochs": 2}).pretrain(phantoms)
    assert job._made_of(longer, parts) != same


@pytest.mark.integration
def test_from_files_to_advice(
    archive: simulate.Simulated, phantoms: ImageSet, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = PneumoniaModel(**SMALL).pretrain(phantoms)
    model.provenance_["pretraining_run"] = "run-a"
    model.save(in_tmp / "base")
    arguments = ["medical", "labels-needed", str(archive.images), "--labels", str(archive.labels), "--model", "base"]
    arguments += ["--counts", "12,20,32", "--seeds", "3", "--price-per-label", "5", "--out", "need"]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Another 100 labels (beyond 32) gain about" in out
    assert "at EUR 5 a label" in out
    said = json.loads((in_tmp / "need" / "labels-needed.json").read_text())
    assert said["counts"] == [12, 20, 32]
    with (in_tmp / "need" / "curve.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3 * 3 * 3
    ours = [float(r["balanced_error"]) for r in rows if r["method"] == "ours" and r["labels"] == "12"]
    assert over_runs(ours).value == pytest.approx(np.mean(said["errors"]["ours"][0]), abs=1e-5)
    assert "How many labels are needed?" in (in_tmp / "need" / "report.html").read_text(encoding="utf-8")
    # Once more: every point is known, and nothing is trained.
    with pytest.raises(SystemExit):
        main(arguments)
    again = capsys.readouterr().err
    assert "27 points were measured before and are kept" in again
    assert ", draw 0: balanced error" not in again
    with pytest.raises(SystemExit) as refused:
        main([*arguments[:-6], "--counts", "a few", "--out", "no"])
    assert refused.value.code == 1
    assert "whole numbers with commas" in capsys.readouterr().err


@pytest.mark.integration
def test_the_audit_s_page_shows_the_curve_of_this_model_and_of_no_other(
    archive: simulate.Simulated, phantoms: ImageSet, in_tmp: Path
) -> None:
    base = PneumoniaModel(**SMALL).pretrain(phantoms)
    base.save(in_tmp / "base")
    other = PneumoniaModel(**SMALL, random_state=5).pretrain(phantoms)
    other.save(in_tmp / "other")
    parts = divide(phantoms, n_labels=None, seed=0)
    for name, model in (("base", base), ("other", other)):
        need = job.labels_needed_on(
            model, parts, folder=in_tmp / name, out=in_tmp / f"need-{name}", counts=[12, 20, 32], seeds=3, price=7.0
        )
        assert read_label_need(in_tmp / f"need-{name}").to_json() == need.details
    assert parts.train.labels is not None
    base.finetune(parts.train, parts.train.labels, groups=parts.train.patients, unlabelled=parts.unlabelled)
    base.remember(list(parts.train.patients))
    base.save(in_tmp / "model")
    given: dict[str, Any] = {"model": in_tmp / "model", "labels": archive.labels, "least": 2}
    unseen = in_tmp / "unseen.csv"
    table = pd.read_csv(archive.labels)
    table[table["file"].isin(parts.test.ids)].to_csv(unseen, index=False)
    given["labels"] = unseen
    for need_of, said in ((None, "Not measured: "), (in_tmp / "need-base", "EUR 7 a label")):
        done = auditing.audit(archive.images, out=in_tmp / "a", label_need=need_of, **given)
        page = done.files["report"].read_text(encoding="utf-8")
        assert "How many labels are needed?" in page
        assert said in page
    with pytest.raises(DataError, match=r"which is not what .* began with"):
        auditing.audit(archive.images, out=in_tmp / "b", label_need=in_tmp / "need-other", **given)
    with pytest.raises(DataError, match="run 'unlabeled medical labels-needed' first"):
        auditing.audit(archive.images, out=in_tmp / "b", label_need=in_tmp, **given)
    (in_tmp / "need-base" / "labels-needed.json").write_text('{"kind": "else"}')
    with pytest.raises(DataError, match="labels-needed' again"):
        auditing.audit(archive.images, out=in_tmp / "b", label_need=in_tmp / "need-base", **given)
