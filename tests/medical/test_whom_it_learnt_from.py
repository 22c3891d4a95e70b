"""Whom a model learnt from is known to its own folder, privately, and to nothing that is handed on."""

import json
import stat
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unlabeled.core.errors import CheckpointError, GateError
from unlabeled.medical import ImageSet, PneumoniaModel, simulate
from unlabeled.medical.splits import EARLIER, digests
from unlabeled.pipelines import _medical_exchange, _medical_package, medical

pytestmark = pytest.mark.filterwarnings("ignore")

SMALL: dict[str, Any] = {
    "image_size": 32, "dim": 16, "depth": 1, "heads": 2, "pretrain_epochs": 1, "finetune_steps": 2, "folds": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def tuned(phantoms: ImageSet) -> PneumoniaModel:
    model = PneumoniaModel(**SMALL).pretrain(phantoms.take(range(40)))
    some = phantoms.take(range(40))
    model.finetune(some, some.labels)
    model.remember(some.patients)
    return model


def holding(folder: Path, model: PneumoniaModel) -> list[Path]:
    """Files below a folder in which a digest, or their salt, is found."""
    marks = [mark.encode() for mark in (*model.digests_, model.salt_)]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(mark in path.read_bytes() for mark in marks)]


def earlier(folder: Path, model: PneumoniaModel, patients: np.ndarray) -> dict[str, Any]:
    """Turns a saved model into one of an earlier version: digests that cost nothing, in the manifest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    told = digests(patients, salt=f"{EARLIER}{'ab' * 16}")
    manifest |= {"salt": "ab" * 16, "patients": sorted(set(told))}
    (folder / "patients.json").unlink()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return manifest


def test_a_private_file_beside_the_weights_knows_and_the_manifest_does_not(
    tuned: PneumoniaModel, phantoms: ImageSet, tmp_path: Path
) -> None:
    tuned.save(tmp_path / "m")
    assert holding(tmp_path / "m", tuned) == [tmp_path / "m" / "patients.json"]
    assert stat.S_IMODE((tmp_path / "m" / "patients.json").stat().st_mode) == 0o600
    back = PneumoniaModel.load(tmp_path / "m")
    assert back.seen(phantoms.patients).tolist() == np.isin(phantoms.patients, phantoms.patients[:40]).tolist()
    back.save(tmp_path / "m")  # over the old one
    assert PneumoniaModel.load(tmp_path / "m").digests_ == tuned.digests_
    (tmp_path / "m" / "patients.json").write_text('{"salt": "zz"}')
    with pytest.raises(CheckpointError, match=r"patients.json is damaged: restore it, or remove it"):
        PneumoniaModel.load(tmp_path / "m")
    (tmp_path / "m" / "patients.json").unlink()
    nobody = PneumoniaModel.load(tmp_path / "m")
    assert not nobody.digests_
    assert not nobody.seen(phantoms.patients).any()


@pytest.mark.integration
def test_neither_package_nor_export_nor_the_tracked_run_nor_the_registry_knows(
    tuned: PneumoniaModel, archive: simulate.Simulated, in_tmp: Path
) -> None:
    for out in ("package", "registered", "scores"):
        tuned.save(in_tmp / "m")
        if out == "package":
            _medical_package.package(in_tmp / "m", out=in_tmp / out)
        elif out == "registered":
            _medical_package.package(in_tmp / "m", out=in_tmp / out, register="lungs")
        else:
            medical.predict(archive.images, model=in_tmp / "m", out=in_tmp / out)
    _medical_exchange.export(in_tmp / "m", out=in_tmp / "hf", to="huggingface")
    assert len(list((in_tmp / "mlartifacts").rglob("manifest.json"))) == 2  # of the registry and of the run
    assert holding(in_tmp, tuned) == [in_tmp / "m" / "patients.json"]
    assert not [path for path in in_tmp.rglob("patients.json") if path.parent != in_tmp / "m"]


@pytest.mark.integration
def test_the_folder_itself_refuses_patients_that_taught_and_says_where_it_does_not_know(
    tuned: PneumoniaModel, archive: simulate.Simulated, in_tmp: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tuned.save(in_tmp / "m")
    with pytest.raises(GateError, match="the model learnt from the labels of 34 patient"):
        medical.predict(archive.images, model=in_tmp / "m", out=in_tmp / "s", labels=archive.labels)
    (in_tmp / "m" / "patients.json").unlink()
    medical.predict(archive.images, model=in_tmp / "m", out=in_tmp / "s", labels=archive.labels)
    assert "the model does not know whom it learnt from" in capfd.readouterr().err
    assert "does not know whom it learnt from" in (in_tmp / "s" / "report.html").read_text()


@pytest.mark.integration
def test_a_model_of_before_still_knows_and_is_not_handed_on_with_it(
    tuned: PneumoniaModel, archive: simulate.Simulated, phantoms: ImageSet, in_tmp: Path
) -> None:
    tuned.save(in_tmp / "m")
    told = earlier(in_tmp / "m", tuned, phantoms.patients[:40])
    old = PneumoniaModel.load(in_tmp / "m")
    taught = np.isin(phantoms.patients, phantoms.patients[:40])
    np.testing.assert_array_equal(old.seen(phantoms.patients), taught)
    _medical_package.package(in_tmp / "m", out=in_tmp / "package")
    medical.predict(archive.images, model=in_tmp / "m", out=in_tmp / "s")
    marks = [told["salt"].encode(), *(digest.encode() for digest in told["patients"])]
    for folder in ("package", "mlartifacts"):
        for path in (in_tmp / folder).rglob("*"):
            assert path.is_dir() or not any(mark in path.read_bytes() for mark in marks), path
    old.save(in_tmp / "again")
    assert holding(in_tmp / "again", old) == [in_tmp / "again" / "patients.json"]
    np.testing.assert_array_equal(PneumoniaModel.load(in_tmp / "again").seen(phantoms.patients), taught)


def test_a_patient_costs_thousands_of_times_what_a_fingerprint_does() -> None:
    salt = "00" * 16

    def seconds(names: list[str]) -> float:
        began = time.process_time()
        digests(names, salt=salt)
        return time.process_time() - began

    guesses, pictures = [f"{number:06d}" for number in range(60)], [f"picture {number:016x}" for number in range(60)]
    assert seconds(guesses) > 20 * seconds(pictures)
    assert seconds(guesses) / 60 > 2e-4
    assert digests(["a", "b", "a"], salt=salt)[0] == digests(["a"], salt=salt)[0] != digests(["b"], salt=salt)[0]
