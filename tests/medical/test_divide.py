"""Who learns, who chooses and who judges where labels name splits, and what is done with all the other pictures."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from unlabeled.core.errors import DataError, GateError
from unlabeled.medical import ImageSet, PneumoniaModel
from unlabeled.medical._finetuning import Labelled, prior_logit
from unlabeled.medical.baselines import PixelRegression
from unlabeled.pipelines._medical_input import divide, read_unlabelled
from unlabeled.pipelines._medical_judges import by_pixels, judges_given

SMALL = {"image_size": 32, "dim": 16, "depth": 1, "heads": 2, "pretrain_epochs": 1, "finetune_steps": 3, "folds": 2}


def pictures(splits: Sequence[str], patients: Sequence[str], labels: Sequence[int]) -> ImageSet:
    rng = np.random.default_rng(0)
    return ImageSet(
        images=rng.integers(0, 256, (len(splits), 32, 32), dtype=np.uint8),
        ids=np.array([f"film {i}" for i in range(len(splits))]),
        patients=np.array(patients),
        labels=np.array(labels),
        splits=np.array(splits),
    )


def test_films_in_no_split_are_learnt_from_unless_their_patient_judges() -> None:
    """A few hundred labels with splits, and many films without either."""
    splits = ["train"] * 4 + ["test"] * 4 + [""] * 20 + ["train", ""]
    patients = [f"p{i}" for i in range(28)] + ["p5", "p6"]  # more films of two patients who judge
    labels = [0, 1, 0, 1] * 2 + [-1] * 22
    parts = divide(pictures(splits, patients, labels), n_labels=None, seed=0)
    assert sorted(parts.unlabelled.patients) == sorted([f"p{i}" for i in (0, 1, 2, 3, *range(8, 28))])
    assert len(parts.train) == len(parts.test) == 4
    assert not set(parts.unlabelled.patients) & set(parts.test.patients)


def test_a_pretraining_takes_the_same_films(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def png() -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(buffer, format="PNG")
        return buffer.getvalue()

    table = pd.DataFrame({"image_id": [str(i) for i in range(7)], "png": [png() for _ in range(7)]})
    table["patient_id"] = ["a", "b", "c", "d", "e", "c", "f"]
    table["split"] = ["train", "train", "test", "", "", "", "val"]
    table.to_parquet(tmp_path / "films.parquet")
    assert list(read_unlabelled(tmp_path / "films.parquet", size=32).ids) == ["0", "1", "3", "4"]
    assert list(read_unlabelled(tmp_path / "films.parquet", size=32, split="test").ids) == ["2"]


def test_splits_of_other_names_are_never_dropped_unsaid(capsys: pytest.CaptureFixture[str]) -> None:
    labels, patients = [0, 1] * 6, [f"p{i}" for i in range(12)]
    with pytest.raises(DataError, match="the column of splits says neither train nor val nor test"):
        divide(pictures(["training"] * 8 + ["testing"] * 4, patients, labels), n_labels=None, seed=0)
    parts = divide(pictures(["train"] * 6 + ["test"] * 4 + ["late"] * 2, patients, labels), n_labels=None, seed=0)
    assert "2 pictures in other splits than train, val and test are left out" in " ".join(
        capsys.readouterr().err.split()
    )
    with pytest.raises(DataError, match=r"name who judges .* and nobody to learn from"):
        divide(pictures([""] * 8 + ["test"] * 4, patients, labels), n_labels=None, seed=0)
    assert not {"p10", "p11"} & {*parts.unlabelled.patients, *parts.train.patients, *parts.test.patients}


def test_pictures_that_were_learnt_from_cannot_judge_under_another_patient_s_name(phantoms: ImageSet) -> None:
    assert phantoms.labels is not None
    train = phantoms.take(range(40))
    model = PneumoniaModel(**SMALL).pretrain(train)  # type: ignore[arg-type]
    model.finetune(train, train.labels)
    model.remember([*train.patients, *by_pixels(train)])
    renamed = replace(train, patients=np.char.add("other ", train.patients))
    with pytest.raises(GateError, match="the model learnt from the labels of"):
        judges_given(model, renamed)
    others = phantoms.take(~np.isin(phantoms.patients, train.patients))
    assert judges_given(model, others).unseen is not None


def test_probabilities_hold_where_those_who_decide_come_from(phantoms: ImageSet) -> None:
    """Labels to learn from were picked, three of four with the finding; those who decide were not."""
    assert phantoms.labels is not None
    sick, well = (np.flatnonzero(phantoms.labels == kind) for kind in (1, 0))
    train, held = phantoms.take([*sick[:15], *well[:5]]), phantoms.take([*sick[15:22], *well[5:30]])
    assert train.labels is not None
    assert held.labels is not None
    model = PneumoniaModel(**SMALL).finetune(train, train.labels, validation=(held, held.labels))  # type: ignore[arg-type]
    pixels = PixelRegression(components=5).fit(
        train.images, Labelled(train.pixels, train.labels), groups=train.patients,
        validation=(held.pixels, held.labels),
    )  # fmt: skip
    for one in (model, pixels):
        assert one.prior_ == pytest.approx(prior_logit(held.labels))
        assert one.decision_ is not None
        assert one.decision_.prevalence == pytest.approx(held.labels.mean())
    folds = PneumoniaModel(**SMALL).finetune(train, train.labels, groups=train.patients)  # type: ignore[arg-type]
    assert folds.prior_ == pytest.approx(prior_logit(train.labels))
