"""``unlabeled medical run``: one command from DICOM files to a registered model, which goes on where it was killed."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

from unlabeled.core.errors import DataError
from unlabeled.core.hardware import one_thread
from unlabeled.medical import PneumoniaModel, read_images, simulate
from unlabeled.medical.splits import digests
from unlabeled.pipelines import _medical_run as job
from unlabeled.pipelines.jobs import Outcome

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]
PLAN = job.Plan(size=32, epochs=12, steps=5)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> simulate.Simulated:
    return simulate.write_archive(tmp_path_factory.mktemp("export"), patients=60, seed=2)


def command(export: simulate.Simulated) -> list[str]:
    start = "from unlabeled.pipelines.cli import main; main()"
    given = ["--size", "32", "--epochs", "12", "--steps", "5", "--out", "r"]
    return [sys.executable, "-c", start, "medical", "run", str(export.images), "--labels", str(export.labels), *given]


def stages(folder: Path) -> list[str]:
    return list(json.loads((folder / "run.json").read_text())["stages"])


def test_one_command_goes_from_files_to_a_registered_model_and_goes_on_after_a_kill(
    export: simulate.Simulated, in_tmp: Path
) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    struck = subprocess.Popen(
        command(export), cwd=in_tmp, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    # A training state means: the store is complete, the pretraining has begun and is not at its end.
    state = in_tmp / "r" / ".pretrained.state"
    until = time.monotonic() + 180
    while not (state.is_dir() and any(state.glob("step-*/manifest.json"))):
        assert struck.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    struck.send_signal(signal.SIGKILL)
    struck.wait()
    assert stages(in_tmp / "r") == ["intake"]
    taken = (in_tmp / "r" / "store" / "manifest.json").stat().st_mtime_ns

    again = subprocess.run(
        command(export), cwd=in_tmp, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert again.returncode == 0, again.stderr
    assert "1 of 5: intake: done before" in again.stderr
    assert (in_tmp / "r" / "store" / "manifest.json").stat().st_mtime_ns == taken
    assert stages(in_tmp / "r") == list(job.STAGES)
    assert "registered as models:/pneumonia/1" in again.stdout

    # It is what it would have been without the kill.
    with one_thread():  # as the commands had: sums of another number of threads differ in their last bits
        whole = job.run(export.images, labels=export.labels, out=in_tmp / "w", private=in_tmp / "r-private", plan=PLAN)
    ours, theirs = (load_file(in_tmp / name / "pretrained" / "weights.safetensors") for name in ("r", "w"))
    assert all(np.array_equal(value, theirs[name]) for name, value in ours.items())
    assert whole.details["stages"]["package"]["version"] == "2"
    judged = whole.details["stages"]["fine-tuning"]["unseen"]

    # A third call has nothing to do, and says the same.
    before = {path: path.stat().st_mtime_ns for path in (in_tmp / "w").rglob("*") if path.name != "report.html"}
    third = job.run(export.images, labels=export.labels, out=in_tmp / "w", private=in_tmp / "r-private", plan=PLAN)
    assert {p: p.stat().st_mtime_ns for p in (in_tmp / "w").rglob("*") if p.name != "report.html"} == before
    assert third.headline == whole.headline

    # Who judged was not learnt from, with or without labels.
    model, images = PneumoniaModel.load(in_tmp / "w" / "model"), read_images(in_tmp / "w" / "store", size=32)
    used = np.isin(digests(images.patients, salt=model.salt_), model.digests_)
    assert model.pretraining_ is not None
    assert model.pretraining_["images"] == len(images) - judged
    assert (~used).sum() >= judged
    page = (in_tmp / "w" / "report.html").read_text(encoding="utf-8")
    for name in ("store/report.html", "pretrained/report.html", "model/report.html", "audit/report.html"):
        assert name in page
        assert (in_tmp / "w" / name).is_file()


def test_nobody_is_named_outside_the_private_folder(export: simulate.Simulated, in_tmp: Path) -> None:
    # Four given letters are met by chance in the base64 of 5 MB of pages, in every third run: a long name is not.
    named = in_tmp / "Featherstonehaugh^Jane-export"
    named.symlink_to(export.images, target_is_directory=True)
    labels = in_tmp / "Jane Featherstonehaugh.csv"
    labels.write_bytes(export.labels.read_bytes())
    job.run(named, labels=labels, out=in_tmp / "r", plan=PLAN)
    with export.labels.open(newline="") as stream:
        files = [row["file"] for row in csv.DictReader(stream)]
    people = [f"SIM-2-{i:05d}" for i in range(60)]
    secrets = [b"Featherstone", b"Phantom^", *(name.encode() for name in people + files)]
    private = in_tmp / "r-private"
    seen = [p for p in in_tmp.rglob("*") if p.is_file() and private not in p.parents and p != labels]
    assert {p.name for p in seen} >= {"run.json", "mlflow.db", "studies.parquet", "report.html", "audit.json"}
    for path in seen:
        content = path.read_bytes()
        assert not [s for s in secrets if s in content], path
    assert private.stat().st_mode & 0o077 == 0
    assert any(s in (private / "ledger.csv").read_bytes() for s in secrets[2:])
    table = pd.read_parquet(in_tmp / "r" / "store" / "studies.parquet")
    assert not table.patient.str.startswith("SIM").any()


def test_too_few_labels_are_said_before_anything_is_trained_and_corrected_ones_are_another_plan(
    export: simulate.Simulated, in_tmp: Path
) -> None:
    known = export.labels.read_text().splitlines()
    labels = in_tmp / "labels.csv"
    labels.write_text("\n".join(known[:7]) + "\n")
    with pytest.raises(DataError, match="labelled patients of each kind"):
        job.run(export.images, labels=labels, out=in_tmp / "r", plan=PLAN)
    assert stages(in_tmp / "r") == ["intake"]
    assert not (in_tmp / "r" / "pretrained").exists()
    labels.write_text("\n".join(known) + "\n")
    with pytest.raises(DataError, match=r"another plan .*what the labels say was"):
        job.run(export.images, labels=labels, out=in_tmp / "r", plan=PLAN)


def test_another_plan_or_another_folder_is_refused(export: simulate.Simulated, in_tmp: Path) -> None:
    (in_tmp / "full").mkdir()
    (in_tmp / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="holds no run"):
        job.run(export.images, labels=export.labels, out=in_tmp / "full", plan=PLAN)
    with pytest.raises(DataError, match="needs a CSV of labels"):
        job.run(export.images, labels=in_tmp / "none.csv", out=in_tmp / "r", plan=PLAN)
    assert not (in_tmp / "r").exists()
    with pytest.raises(DataError, match="does not exist"):
        job.run(in_tmp / "nowhere", labels=export.labels, out=in_tmp / "r", plan=PLAN)
    assert not (in_tmp / "r").exists()
    record = job._Record(in_tmp / "r", {**vars(PLAN), "folder and labels": "x"})
    assert job._Record(in_tmp / "r", {**vars(PLAN), "folder and labels": "y"}).stages == {}  # nothing is done yet
    record.stage("intake", lambda: Outcome(headline="taken in"))
    with pytest.raises(DataError, match=r"another plan \(.*folder and labels was 'x'"):
        job.run(export.images, labels=export.labels, out=in_tmp / "r", plan=PLAN)
    # Begun by a version that knew of fewer choices: what they were is what they are without being chosen.
    older = json.loads((in_tmp / "r" / "run.json").read_text())
    del older["plan"]["self_training"]
    (in_tmp / "r" / "run.json").write_text(json.dumps(older))
    assert list(job._Record(in_tmp / "r", {**vars(PLAN), "folder and labels": "x"}).stages) == ["intake"]
    with pytest.raises(DataError, match="self_training was False, is True"):
        job._Record(in_tmp / "r", {**vars(replace(PLAN, self_training=True)), "folder and labels": "x"})
    (in_tmp / "r" / "run.json").write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        job.run(export.images, labels=export.labels, out=in_tmp / "r", plan=PLAN)
