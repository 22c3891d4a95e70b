"""Patients that a model knows by other names than those of the films before it: nobody can tell, and that is said."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from films import film
from pydicom.dataset import FileDataset

from unlabeled.core.errors import GateError
from unlabeled.medical import PneumoniaModel, intake, read_images
from unlabeled.medical.images import DICOM, TABLE
from unlabeled.medical.labels import attach, read_labels
from unlabeled.pipelines import _medical_audit, medical
from unlabeled.pipelines._medical_judges import STRANGE, by_pixels, judges_given

pytestmark = pytest.mark.filterwarnings("ignore")
SMALL: dict[str, Any] = {
    "image_size": 32, "dim": 16, "depth": 1, "heads": 2, "pretrain_epochs": 1, "finetune_steps": 2, "folds": 2,
}  # fmt: skip
PATIENTS = 12


def films(folder: Path, save: Any, *, later: bool) -> Path:
    """One film each of the same patients; their follow-ups are other pictures."""
    for seed in range(PATIENTS):
        file: FileDataset = film(
            seed + (100 if later else 0), PatientID=f"P{seed}", StudyInstanceUID=f"1.5.{later}.{seed}"
        )
        save(file, folder / f"film{seed}.dcm")
    lines = [f"film{seed},{seed % 2}" for seed in range(PATIENTS)]
    (folder.parent / f"{folder.name}.csv").write_text("\n".join(["file,label", *lines]) + "\n")
    return folder


def take_in(folder: Path, key: Path) -> Path:
    store = key.parent / f"{folder.name}-{key.stem}"
    labels = folder.parent / f"{folder.name}.csv"
    intake.take_in(folder, store=store, key=key, ledger=key.with_suffix(".csv"), size=32, labels=labels, workers=1)
    return store


@pytest.fixture
def both(tmp_path: Path, save: Any) -> tuple[Path, Path]:
    return films(tmp_path / "first", save, later=False), films(tmp_path / "later", save, later=True)


@pytest.fixture
def of_store(both: tuple[Path, Path], tmp_path: Path) -> PneumoniaModel:
    (tmp_path / "keys").mkdir()
    images = read_images(take_in(both[0], tmp_path / "keys/own"), size=32)
    model = PneumoniaModel(**SMALL, framing="padded").finetune(images, images.labels)
    model.remember([*images.patients, *by_pixels(images)], named_by=images.named_by)
    return model


def test_the_same_site_key_tells_who_taught_and_another_or_none_says_that_it_cannot(
    of_store: PneumoniaModel, both: tuple[Path, Path], tmp_path: Path
) -> None:
    of_store.save(tmp_path / "model")
    model = PneumoniaModel.load(tmp_path / "model")
    with pytest.raises(GateError, match=f"the labels of {PATIENTS} patient"):
        judges_given(model, read_images(take_in(both[1], tmp_path / "keys/own"), size=32))
    other = read_images(take_in(both[1], tmp_path / "keys/other"), size=32)
    raw = attach(read_images(both[1], size=32), read_labels(tmp_path / "later.csv"))
    assert raw.named_by == DICOM
    assert len({raw.named_by, other.named_by, TABLE}) == 3
    for images in (other, raw):
        judges = judges_given(model, images)
        assert judges.unseen is not None
        assert judges.notes == (STRANGE,)
        assert not model.knows_whom(images.named_by)


def test_pages_do_not_claim_what_nobody_can_tell(
    of_store: PneumoniaModel, both: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    of_store.save(tmp_path / "model")
    medical.predict(both[1], model=tmp_path / "model", labels=tmp_path / "later.csv", out=tmp_path / "result")
    page = (tmp_path / "result/report.html").read_text()
    assert "none of a patient that the model learnt from" not in page
    assert "is not known: it knows its own by other names" in page
    done = _medical_audit.audit(
        both[1], model=tmp_path / "model", labels=tmp_path / "later.csv", out=tmp_path / "audit", least=5
    )
    assert "(whether it learnt from these patients is not known)" in done.headline


def test_a_model_of_before_names_were_told_apart_is_asked_as_before(of_store: PneumoniaModel) -> None:
    model = PneumoniaModel(**SMALL)
    model.module_ = of_store.module_
    model._remember_nothing()
    assert not model.knows_whom(TABLE)  # it knows nobody
    model.remember(["p1"])
    assert model.knows_whom(TABLE)
    assert model.knows_whom(DICOM)
    assert model.seen(np.array(["p1", "p2"])).tolist() == [True, False]
