"""The medical commands on real radiographs, and an interruption that nobody gets around."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from unlabeled.core.evaluation import roc_auc
from unlabeled.medical import PneumoniaModel, read_images
from unlabeled.pipelines import medical as jobs

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]


def test_real_dicom_files_are_read_or_refused_each_for_its_reason(shared_data: Path) -> None:
    found = read_images(shared_data / "xray" / "dicom_samples", size=64)
    read = dict(zip(found.ids, found.images, strict=True))
    assert set(read) == {
        "aihcnd_test1.dcm",
        "aihcnd_test2.dcm",
        "pydicomdata_RG1_J2KI.dcm",
        "pydicomdata_RG1_J2KR.dcm",
    }
    reasons = {skip.source: skip.reason for skip in found.skipped if skip.source.endswith(".dcm")}
    assert reasons == {
        "aihcnd_test4.dcm": "not a chest: BodyPartExamined is RIBCAGE",
        "aihcnd_test5.dcm": "not a radiograph: Modality is CT, expected one of CR, DX, RG",
        "aihcnd_test6.dcm": "view unknown: PatientPosition is something else, expected PA or AP",
    }
    # Lossy and lossless JPEG 2000 of one MONOCHROME1 film: the same picture, and the same patient.
    lossy, lossless = (read[f"pydicomdata_RG1_J2K{kind}.dcm"].astype(int) for kind in "IR")
    assert np.abs(lossy - lossless).mean() < 2
    patients = dict(zip(found.ids, found.patients, strict=True))
    assert patients["pydicomdata_RG1_J2KI.dcm"] == patients["pydicomdata_RG1_J2KR.dcm"]
    # Bone bright: the spine and the belly below are brighter than the lungs, in every film.
    for name, image in read.items():
        centre = image[20:44, 30:34].mean()
        lungs = (image[20:40, 14:22].mean() + image[20:40, 42:50].mean()) / 2
        assert centre > lungs, name


def test_pretraining_fine_tuning_and_predicting_on_a_real_table(shared_data: Path, in_tmp: Path) -> None:
    table = pd.read_parquet(shared_data / "xray" / "kermany224" / "kermany_cxr_224.parquet")
    # The labels that are learnt from, and every fourth of the pictures to choose and to judge on.
    train = table[table.label_order.between(0, 599)]
    some = pd.concat([train, table[table.split == "val"][::4], table[table.split == "test"][::4]])
    some.to_parquet(in_tmp / "part.parquet")
    first = jobs.pretrain(in_tmp / "part.parquet", out=in_tmp / "p", size=32, epochs=2)
    assert first.details["images"] == 600
    model = PneumoniaModel.load(in_tmp / "p").set_params(finetune_steps=60)
    model.save(in_tmp / "p")
    done = jobs.finetune(in_tmp / "part.parquet", model=in_tmp / "p", out=in_tmp / "m", n_labels=50)
    auroc = next(c for c in done.comparisons if c.metric == "AUROC")
    # Not a claim of quality: even this little training must rank better than chance.
    assert auroc.ours.low > 0.5  # type: ignore[union-attr]
    scored = jobs.predict(in_tmp / "part.parquet", model=in_tmp / "m", out=in_tmp / "s")
    predictions = pd.read_csv(scored.files["predictions"]).set_index("image_id")
    test = some[some.split == "test"].set_index("image_id")
    joined = predictions.join(test.label, how="inner")
    assert roc_auc(joined.label, joined.probability) == pytest.approx(auroc.ours.value, abs=1e-3)  # type: ignore[union-attr]


def pretrain_command(folder: Path) -> list[str]:
    program = [sys.executable, "-c", "from unlabeled.pipelines.cli import main; main()"]
    return [*program, "medical", "pretrain", "films.npz", "--out", str(folder), "--size", "32", "--epochs", "30"]


def test_a_killed_pretraining_goes_on_and_ends_as_an_undisturbed_one(
    in_tmp: Path, has_states: Callable[[Path], bool]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (200, 32, 32), dtype=np.uint8)
    np.savez("films.npz", images=images)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(folder: Path) -> dict[str, Any]:
        done = subprocess.run(pretrain_command(folder), env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads((folder / "manifest.json").read_text())["pretraining"]

    undisturbed = run(in_tmp / "whole")
    state = in_tmp / ".cut.state"
    started = subprocess.Popen(pretrain_command(in_tmp / "cut"), env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not has_states(state):
        assert started.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline, "no training state was written"
        time.sleep(0.01)
    os.kill(started.pid, signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL
    assert not (in_tmp / "cut").exists()
    resumed = run(in_tmp / "cut")
    assert resumed["curves"] == undisturbed["curves"]
    assert not state.exists()


def test_the_demo_runs_alone_and_compares(in_tmp: Path) -> None:
    done = jobs.demo(in_tmp / "demo", seed=0)
    assert {c.metric for c in done.comparisons} == {"AUROC", "balanced accuracy"}
    assert "Synthetic data" in done.files["report"].read_text(encoding="utf-8")
    assert done.details["skipped"] == 5
