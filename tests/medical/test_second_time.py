"""A folder that is used again: what an earlier call left is not taken for what this one found, and nothing that names
people follows into the tracked runs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from unlabeled.core.errors import DataError
from unlabeled.medical import ImageSet, PneumoniaModel, simulate
from unlabeled.medical.attributes import strangers, who
from unlabeled.pipelines import _medical_audit as auditing
from unlabeled.pipelines import _medical_label_need as needing
from unlabeled.pipelines import _medical_run as running
from unlabeled.pipelines import medical as jobs
from unlabeled.pipelines._medical_input import divide

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]
SMALL: dict[str, Any] = {
    "image_size": 32, "dim": 16, "depth": 1, "heads": 2, "pretrain_epochs": 1, "finetune_steps": 2, "folds": 2,
}  # fmt: skip


@pytest.fixture
def tuned(phantoms: ImageSet, in_tmp: Path) -> Path:
    """A model of two thirds of the patients in ``m``."""
    parts = divide(phantoms, n_labels=None, seed=0)
    model = PneumoniaModel(**SMALL).pretrain(parts.unlabelled)
    model.save(in_tmp / "base")
    jobs.finetune_on(model, parts, out=in_tmp / "m", skipped=(), notes=(), synthetic=False)
    return in_tmp / "m"


def tracked(place: Path) -> set[str]:
    return {path.name for path in (place / "mlartifacts").rglob("*") if path.is_file()}


def test_what_lies_beside_a_model_or_a_report_does_not_reach_the_tracked_runs(
    archive: simulate.Simulated, phantoms: ImageSet, tuned: Path, in_tmp: Path
) -> None:
    parts = divide(phantoms, n_labels=None, seed=0)
    table = pd.read_csv(archive.labels)
    table[table["file"].isin(parts.test.ids)].to_csv(in_tmp / "unseen.csv", index=False)
    for place in (tuned, in_tmp / "out", in_tmp / "base", tuned / "baselines" / "scratch"):
        (place / "dicom").mkdir(parents=True, exist_ok=True)
        (place / "dicom" / "SR-Mustermann.dcm").write_bytes(b"Mustermann")
        (place / "ledger.csv").write_text("Mustermann")
    jobs.predict(archive.images, model=tuned, out=in_tmp / "out")
    auditing.audit(archive.images, model=tuned, out=in_tmp / "out", labels=in_tmp / "unseen.csv", least=2)
    needing.labels_needed_on(
        PneumoniaModel.load(in_tmp / "base"), parts, folder=in_tmp / "base", out=in_tmp / "out", counts=[12, 20, 32],
        seeds=3,
    )  # fmt: skip
    names = tracked(in_tmp)
    assert {"weights.safetensors", "manifest.json", "audit.json", "labels-needed.json", "report.html"} <= names
    # Of a folder, whose names may be anything, no table with a row a picture either.
    assert not {
        name for name in names if "Muster" in name or name in ("ledger.csv", "predictions.csv", "patients.json")
    }


def test_what_an_earlier_call_skipped_or_said_of_studies_is_gone(
    archive: simulate.Simulated, phantoms: ImageSet, tuned: Path, in_tmp: Path
) -> None:
    jobs.predict(archive.images, model=tuned, out=in_tmp / "out")
    assert (in_tmp / "out" / "studies.csv").is_file()
    assert (in_tmp / "out" / "skipped.csv").is_file()
    np.savez(in_tmp / "films.npz", images=phantoms.pixels[:8])
    done = jobs.predict(in_tmp / "films.npz", model=tuned, out=in_tmp / "out")
    assert "studies" not in done.files
    left = {path.name for path in (in_tmp / "out").iterdir()}
    assert not left & {"studies.csv", "studies.parquet", "skipped.csv"}


def test_a_model_says_that_it_never_met_such_people(archive: simulate.Simulated, tuned: Path, in_tmp: Path) -> None:
    model = PneumoniaModel.load(tuned)
    assert model.finetuning_ is not None
    learnt = model.finetuning_["who"]
    assert sum(learnt["view"].values()) > 0
    model.finetuning_["who"] = {"view": {"of another view": 3}, "age": {}}
    model.save(tuned)
    page = jobs.predict(archive.images, model=tuned, out=in_tmp / "out").files["report"].read_text(encoding="utf-8")
    assert "and the model learnt from none such (its labels were of 3 of another view)" in page


def test_strangers_are_those_of_whom_both_sides_are_known(phantoms: ImageSet) -> None:
    known = np.full(len(phantoms), "", dtype="<U5")
    known[:3], known[3:5] = "40-49", "0-9"
    images = replace(phantoms, attributes={"age_band": known})
    assert who(images) == {"view": {}, "age": {"children": 2, "adults": 3}}
    (said,) = strangers({"view": {"PA": 9}, "age": {"children": 1200}}, images)
    assert said.startswith(
        "3 of these pictures are adults, and the model learnt from none such (its labels were of 1,2"
    )
    assert strangers({"age": {"children": 4, "adults": 1}}, images) == ()
    assert strangers({}, images) == strangers({"age": {}}, images) == ()  # nothing is known of what it learnt from


def test_a_run_does_not_go_on_with_other_files_and_keeps_its_secrets_apart(
    tmp_path_factory: pytest.TempPathFactory, in_tmp: Path
) -> None:
    export = simulate.write_archive(tmp_path_factory.mktemp("export"), patients=8, seed=3)
    plan = running.Plan(size=32, epochs=1, steps=1)
    given: dict[str, Any] = {"labels": export.labels, "out": in_tmp / "r", "plan": plan}
    with pytest.raises(DataError, match="name a folder apart from it"):
        running.run(export.images, private=in_tmp / "r" / "private", **given)
    (in_tmp / "shared").mkdir(mode=0o755)
    with pytest.raises(DataError, match="others may read it: 'chmod 700"):
        running.run(export.images, private=in_tmp / "shared", **given)
    assert (in_tmp / "shared").stat().st_mode & 0o777 == 0o755
    with pytest.raises(DataError, match="labelled patients of each kind"):  # the intake is done by then
        running.run(export.images, **given)
    assert (in_tmp / "r" / "store" / "manifest.json").is_file()
    first = next(path for path in sorted(export.images.rglob("*")) if path.is_file())
    (export.images / "one more").write_bytes(first.read_bytes())
    with pytest.raises(DataError, match="the files of the folder are not those that"):
        running.run(export.images, **given)
