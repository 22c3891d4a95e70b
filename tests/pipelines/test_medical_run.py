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
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

from unlabeled.core.errors import DataError
from unlabeled.core.hardware import one_thread
from unlabeled.medical import PneumoniaModel, read_images, simulate
from unlabeled.medical.splits import digests
from unlabeled.pipelines import _medical_run as job
from unlabeled.pipelines import medical
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


SMALL = job.Plan(size=32, epochs=1, steps=1)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> simulate.Simulated:
    return simulate.write_archive(tmp_path_factory.mktemp("few"), patients=24, seed=4)


def lines(export: simulate.Simulated) -> list[str]:
    return export.labels.read_text().splitlines()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"size": 65}, "do not fall into patches"),
        ({"size": 4096}, "from 16 to 2048 pixels"),
        ({"register": "a/b"}, "cannot be registered as 'a/b'.*MLflow"),
        ({"n_labels": 5}, "--n-labels 5 is too few.*give 6 or more"),
        ({"n_labels": 4000}, "only [0-9]+ rows of .* have a label"),
        ({"findings": ("effusion", "pneumonia")}, "says the same of effusion, pneumonia"),
        ({"ensemble": 0}, "number of networks must be at least 1"),
    ],
)
def test_a_setting_that_cannot_be_is_said_before_a_film_is_read(
    changed: dict[str, Any], said: str, few: simulate.Simulated, in_tmp: Path
) -> None:
    with pytest.raises(DataError, match=said):
        job.run(few.images, labels=few.labels, out=in_tmp / "r", plan=replace(SMALL, **changed))
    assert not list(in_tmp.iterdir())


def test_labels_that_cannot_be_enough_are_said_before_a_film_is_read(few: simulate.Simulated, in_tmp: Path) -> None:
    known, labels = lines(few), in_tmp / "labels.csv"
    ill = [line for line in known[1:] if line.endswith(",1")]
    healthy = [line for line in known[1:] if line.endswith(",0")]
    parts = ["train", "train", "train", "test"] * 2
    split = [f"{line},{part}" for line, part in zip([*ill[:4], *healthy[:4]], parts, strict=True)]
    for table, said in (
        (known[:1], "has no rows"),
        ([known[0], ill[0], healthy[0]], "at least 4 labelled patients of each kind.*1 with the finding and 1 without"),
        ([known[0], *ill], "0 without"),
        ([known[0], *ill, healthy[0].replace(",0", ",perhaps")], "line .*: the label is none of 1/0"),
        (["name,of", *ill], "expected a column 'pneumonia' or 'label'"),
        ([f"{known[0]},split", *split[:7]], "at least 1 labelled patients of each kind of split 'test'"),
        ([f"{known[0]},split", *split[1:]], "at least 3 labelled patients of each kind of split 'train'"),
        ([f"{known[0]},split", split[3], split[7]], "nobody to learn from"),
    ):
        labels.write_text("\n".join(table) + "\n")
        with pytest.raises(DataError, match=said):
            job.run(few.images, labels=labels, out=in_tmp / "r", plan=SMALL)
        assert [path.name for path in in_tmp.iterdir()] == ["labels.csv"]


def test_what_comes_later_can_be_corrected_and_only_what_depends_on_it_is_done_again(
    few: simulate.Simulated, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, out = in_tmp / "labels.csv", in_tmp / "r"
    known = lines(few)
    labels.write_text("\n".join(known) + "\n")

    def again(**changed: Any) -> list[str]:
        """What is said of each stage, and afterwards all are done."""
        capsys.readouterr()
        done = job.run(few.images, labels=labels, out=out, plan=replace(SMALL, **changed))
        told = [line for line in capsys.readouterr().err.splitlines() if line[:4] in {f"{n} of" for n in range(1, 6)}]
        assert stages(out) == list(done.details["stages"]) == list(job.STAGES)
        assert (out / "report.html").is_file()
        return [line.partition(": ")[2] for line in told]

    def pictures() -> int:
        return (out / "store" / "pictures.npy").stat().st_mtime_ns

    def pretrained() -> int:
        return (out / "pretrained" / "weights.safetensors").stat().st_mtime_ns

    assert again() == list(job.STAGES)
    taken, weights = pictures(), pretrained()
    kept = [f"{stage}: done before" for stage in job.STAGES]
    assert again() == kept
    assert again(register="lungs") == [*kept[:4], "package: done again (--register was pneumonia, is lungs)"]
    after = [
        "audit: done again (the fine-tuning was done again)",
        "package: done again (the fine-tuning was done again)",
    ]
    named = {"register": "lungs"}
    told = again(n_labels=12, steps=2, **named)
    why = "--steps was 1, is 2; --n-labels was not given, is 12"
    assert told == [*kept[:2], f"fine-tuning: done again ({why})", *after]
    assert PneumoniaModel.load(out / "model").finetune_steps == 2
    assert json.loads((out / "run.json").read_text())["stages"]["fine-tuning"]["details"]["labels"] == 12
    assert (pictures(), pretrained()) == (taken, weights)

    # Other labels are translated without reading a film again; who judges is another now, so that all else follows.
    labels.write_text("\n".join([known[0], *known[3:]]) + "\n")
    told = again(n_labels=12, steps=2, **named)
    assert told[0].startswith("intake: done before; the labels say something else by now and are translated again")
    assert told[1] == "pretraining: done again (other pictures are learnt from)"
    assert told[2:] == [
        "fine-tuning: done again (the labels say something else; the pretraining was done again)", *after
    ]  # fmt: skip
    assert pictures() == taken
    assert pretrained() != weights
    judged = PneumoniaModel.load(out / "model")
    images = read_images(out / "store", size=32)
    assert judged.pretraining_ is not None
    used = np.isin(digests(images.patients, salt=judged.salt_), judged.digests_)
    unseen = json.loads((out / "run.json").read_text())["stages"]["fine-tuning"]["details"]["unseen"]
    assert judged.pretraining_["images"] == len(images) - unseen
    assert (~used).sum() >= unseen

    # How films were taken in cannot change under what was learnt from them; the message names the setting.
    for changed, said in (
        ({"size": 40}, r"another plan \(--size was 32, is 40\)"),
        ({"site": "north"}, r"--site was not given, is north"),
        ({"ocr": True}, r"--ocr was not given, is given"),
    ):
        with pytest.raises(DataError, match=said):
            again(**changed)
    assert again(n_labels=12, steps=2, **named) == kept
    # And nothing else is written there.
    with pytest.raises(DataError, match=r"lies in .*the folder of a 'medical run'"):
        medical.predict(few.images, model=out / "model", out=out / "predictions")


def test_labels_that_turn_out_too_few_are_corrected_without_another_intake(
    few: simulate.Simulated, in_tmp: Path
) -> None:
    labels, out, known = in_tmp / "labels.csv", in_tmp / "r", lines(few)
    # Enough rows, but most of them name no film.
    strange = [f"nowhere-{number}.dcm,{number % 2}" for number in range(40)]
    row = dict(zip(known[0].split(","), known[1].split(","), strict=True))
    assert list(row)[:2] == ["file", "label"]
    labels.write_text(
        "\n".join(["file,label", *[",".join(line.split(",")[:2]) for line in known[1:7]], *strange]) + "\n"
    )
    with pytest.raises(DataError, match="labelled patients of each kind"):
        job.run(few.images, labels=labels, out=out, plan=SMALL)
    assert stages(out) == ["intake"]
    assert not (out / "pretrained").exists()
    taken = (out / "store" / "pictures.npy").stat().st_mtime_ns
    labels.write_text("\n".join(known) + "\n")
    job.run(few.images, labels=labels, out=out, plan=SMALL)
    assert stages(out) == list(job.STAGES)
    assert (out / "store" / "pictures.npy").stat().st_mtime_ns == taken


def test_what_a_stage_was_begun_with_is_not_gone_on_with_under_another_setting(
    few: simulate.Simulated, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = job.Record(in_tmp / "r", SMALL, folder="f", labels="l")
    left: list[str] = []

    def stop() -> Outcome:
        raise KeyboardInterrupt

    def begin(plan: job.Plan, stage: str, work: Any, **digests: str) -> None:
        record = job.Record(in_tmp / "r", plan, folder="f", labels="l")
        record.stage(stage, work, digests=digests, clear=lambda: left.append(stage))

    record.stage("intake", lambda: Outcome(headline="taken in"), digests={"folder": "f", "labels": "l"})
    for plan, cleared in ((SMALL, 0), (SMALL, 0), (replace(SMALL, epochs=9), 1), (replace(SMALL, epochs=9), 1)):
        with pytest.raises(KeyboardInterrupt):
            begin(plan, "pretraining", stop, pictures="p")
        assert len(left) == cleared
    assert "pretraining: begun anew (--epochs was 1, is 9)" in capsys.readouterr().err
    begin(replace(SMALL, epochs=9), "pretraining", lambda: Outcome(headline="learnt"), pictures="p")
    assert left == ["pretraining"]
    # Interrupted while it is done again, it is not done.
    with pytest.raises(KeyboardInterrupt):
        begin(SMALL, "pretraining", stop, pictures="p")
    assert stages(in_tmp / "r") == ["intake"]


def test_another_folder_is_refused_in_words(export: simulate.Simulated, in_tmp: Path) -> None:
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
    record = job.Record(in_tmp / "r", PLAN, folder="x", labels="l")
    record = job.Record(in_tmp / "r", PLAN, folder="y", labels="l")  # nothing is done yet
    record.stage("intake", lambda: Outcome(headline="taken in"), digests=record.digests)
    with pytest.raises(DataError, match=r"another plan \(the folder of films is another one\)"):
        job.run(export.images, labels=export.labels, out=in_tmp / "r", plan=PLAN)
    for damaged in ("{", "[]", '{"plan": {}, "stages": 3}', '{"format": 2, "plan": {}, "stages": {"intake": {}}}'):
        (in_tmp / "r" / "run.json").write_text(damaged)
        with pytest.raises(DataError, match="is damaged"):
            job.run(export.images, labels=export.labels, out=in_tmp / "r", plan=PLAN)
    (in_tmp / "r" / "run.json").write_text('{"format": 9, "plan": {}, "stages": {}}')
    with pytest.raises(DataError, match="written by another version"):
        job.run(export.images, labels=export.labels, out=in_tmp / "r", plan=PLAN)


def test_a_run_that_an_earlier_version_began_goes_on(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # As version 0.1.0 wrote it before stages had settings of their own; it knew fewer choices still.
    plan = {name: value for name, value in vars(PLAN).items() if name not in ("self_training", "findings")}
    plan |= {"finding": "pneumonia", "folder and labels": "fl", "what the labels say": "l"}
    stage = {"headline": "done", "lines": [], "details": {}}
    done = {name: {**stage, "run_id": name[:3]} for name in ("intake", "pretraining")}
    (in_tmp / "r").mkdir()

    def take_up(plan_now: job.Plan, **given: str) -> job.Record:
        (in_tmp / "r" / "run.json").write_text(json.dumps({"plan": plan, "stages": done}))
        return job.Record(in_tmp / "r", plan_now, **{"folder": "f", "labels": "l", "earlier": "fl", **given})

    def of_pretraining(record: job.Record) -> str:
        capsys.readouterr()
        record.stage("pretraining", lambda: Outcome(headline="again"), digests={"pictures": "p"})
        return capsys.readouterr().err

    assert "2 of 5: pretraining: done before" in of_pretraining(take_up(PLAN))
    assert "--epochs was 12, is 13" in of_pretraining(take_up(replace(PLAN, epochs=13)))
    assert "other pictures are learnt from" in of_pretraining(take_up(PLAN, labels="others"))
    with pytest.raises(DataError, match="another folder of films or another file of labels"):
        take_up(PLAN, earlier="other")
    with pytest.raises(DataError, match="--size was 32, is 64"):
        take_up(replace(PLAN, size=64))
    # Written anew, it is read as one of this version.
    record = take_up(PLAN)
    record.stage("fine-tuning", lambda: Outcome(headline="tuned"), digests={"labels": "x"})
    found = job.Record(in_tmp / "r", PLAN, folder="f", labels="l")
    assert list(found.done) == ["intake", "pretraining", "fine-tuning"]
    assert "done before" in of_pretraining(found)
